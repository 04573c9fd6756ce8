# A cluster from nothing: a network of its own, three controllers, two pools. Only Vault is there
# already. From here on everything is `terraform apply`; docs/terraform.md goes through it.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25, < 7.0"
    }
  }

  # The state holds no secret, but whoever may write it decides what is launched: keep it in a bucket
  # of its own, versioned and locked.
  # backend "s3" {
  #   bucket       = "example-terraform"
  #   key          = "prod"
  #   region       = "eu-central-1"
  #   encrypt      = true
  #   use_lockfile = true
  # }
}

provider "aws" {
  region = "eu-central-1"
}

locals {
  bucket = "example-prod-cluster"
  images = { nodeagent = var.nodeagent_image, kubernetes = var.kubernetes_image }
  # Where nodes fetch the images from, and what they have to be.
  sysexts = { for name, path in local.images : name => {
    url    = "s3://${local.bucket}/artifacts/${basename(path)}"
    sha512 = filesha512(path)
  } }
  # Of Vault itself, and of its three PKI mounts (docs/vault.md, step 7). They are pinned.
  authorities = { for name in ["vault", "cluster", "etcd", "front-proxy"] : name => file("${var.authorities}/${name}.pem") }
}

# The way to Vault and to people's VPN, which are in another VPC: a peering or a transit gateway of
# the site, and a line in each private route table.
resource "aws_route" "site" {
  for_each                  = module.cluster.network.route_table_ids
  route_table_id            = each.value
  destination_cidr_block    = "10.8.0.0/16"
  vpc_peering_connection_id = aws_vpc_peering_connection.site.id
}

resource "aws_vpc_peering_connection" "site" {
  vpc_id      = module.cluster.network.vpc_id
  peer_vpc_id = var.site_vpc_id
  auto_accept = true
}

module "cluster" {
  source = "../.."

  cluster_name       = "prod"
  kubernetes_version = "1.36.3"
  # Not by the provider's default_tags: these do not reach what Auto Scaling launches.
  tags = { Environment = "production" }
  network = {
    cidr  = "10.0.0.0/16"
    zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  }
  dns = { domain = "prod.example.com" }

  # The VPN that people come from. For an API that is reached from outside, also
  # public = { zone_id = "Z…", cidrs = ["198.51.100.0/24"] }
  api    = { client_cidrs = ["10.8.0.0/16"] }
  access = { ssm = true }

  bucket        = { name = local.bucket }
  artifacts     = { for path in values(local.images) : basename(path) => path }
  release       = merge(local.sysexts["nodeagent"], { kind = "sysext" })
  extra_sysexts = { kubernetes = local.sysexts["kubernetes"] }

  vault = {
    address = "https://vault.example.com:8200"
    ca_pem  = local.authorities["vault"]
    cidrs   = ["10.8.20.0/24"]
  }
  pki = {
    cluster     = { mount = "pki", ca_pem = local.authorities["cluster"] }
    etcd        = { mount = "pki-etcd", ca_pem = local.authorities["etcd"] }
    front-proxy = { mount = "pki-front-proxy", ca_pem = local.authorities["front-proxy"] }
  }

  # Pinned: a new image is a change that somebody makes.
  image       = { channel = "stable", version = "4230.2.1" }
  controllers = { count = 3, instance_type = "m6i.large", etcd_gib = 20 }
  worker_pools = {
    general = { instance_type = "m6i.xlarge", min = 2, max = 10 }
    batch = {
      instance_type = "c6i.4xlarge", disk_gib = 100, min = 0, max = 20
      labels        = { "example.com/batch" = "yes" }
      taints        = ["example.com/batch=yes:NoSchedule"]
    }
  }
}
