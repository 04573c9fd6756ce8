# What every run starts from: a small site.
cluster_name       = "prod"
kubernetes_version = "1.36.3"
dns                = { domain = "prod.example.com" }
bucket             = { name = "example-prod" }
network            = { cidr = "10.0.0.0/16", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
release = {
  kind   = "sysext"
  url    = "s3://example-prod/artifacts/nodeagent-0.1.0-x86-64.raw"
  sha512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
}
vault = {
  address = "https://vault.example.com:8200"
  ca_pem  = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
  cidrs   = ["10.8.0.0/24"]
}
pki = {
  cluster     = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n" }
  etcd        = { mount = "pki-etcd", ca_pem = "-----BEGIN CERTIFICATE-----\nMg==\n-----END CERTIFICATE-----\n" }
  front-proxy = { mount = "pki-front-proxy", ca_pem = "-----BEGIN CERTIFICATE-----\nMw==\n-----END CERTIFICATE-----\n" }
}
