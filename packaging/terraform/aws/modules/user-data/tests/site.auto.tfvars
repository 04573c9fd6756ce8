# What every run starts from.
role = "worker"
release = {
  kind   = "sysext"
  url    = "s3://artifacts.example/artifacts/nodeagent/nodeagent-0.1.0-x86-64.raw"
  sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}
vault = {
  address = "https://vault.example:8200"
  ca_pem  = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
}
pki = {
  cluster     = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n" }
  etcd        = { mount = "pki-etcd", ca_pem = "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n" }
  front-proxy = { mount = "pki-front-proxy", ca_pem = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n" }
}
cluster = {
  name               = "prod"
  api_server         = "https://api.example:6443"
  kubernetes_version = "1.36.3"
}
