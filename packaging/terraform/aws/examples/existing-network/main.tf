# One controller in a network, a zone and a bucket that are there already: what a site with a VPC of
# its own gives the module. Routes to the outside, to S3 and to Vault have to be in it.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25, < 7.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

variable "authorities" {
  description = "Directory with vault.pem, cluster.pem, etcd.pem and front-proxy.pem: certificates, no keys."
  type        = string
  default     = "authorities"
}

variable "nodeagent_sha512" {
  description = "SHA-512 of the program in the bucket, from the release's SHA512SUMS."
  type        = string
}

module "cluster" {
  source = "../.."

  cluster_name       = "test"
  kubernetes_version = "1.36.3"

  existing_network = {
    vpc_id = "vpc-0123456789abcdef0"
    cidr   = "10.9.0.0/16"
    # The address has to be free, and to stay so: etcd is known by it.
    controllers       = [{ subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.20" }]
    worker_subnet_ids = ["subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
  }
  dns    = { domain = "test.example.com", zone_id = "Z0123456789ABCDEFGHIJ" }
  bucket = { name = "example-artifacts", create = false }

  # The image of these nodes has Kubernetes in it, and the agent comes as a bare program.
  image = { ami_id = "ami-0123456789abcdef0" }
  release = {
    kind   = "binary"
    url    = "s3://example-artifacts/artifacts/nodeagent-0.1.0-x86-64"
    sha512 = var.nodeagent_sha512
  }

  vault = {
    address = "https://vault.example.com:8200"
    ca_pem  = file("${var.authorities}/vault.pem")
    cidrs   = ["10.9.20.0/24"]
    # One Vault for several clusters: mounts and roles have the cluster's prefix.
    controller_role = "test-controller"
    worker_role     = "test-worker"
  }
  pki = { for name, mount in { cluster = "test-pki", etcd = "test-pki-etcd", front-proxy = "test-pki-front-proxy" } :
    name => { mount = mount, ca_pem = file("${var.authorities}/${name}.pem") }
  }

  controllers  = { count = 1 }
  worker_pools = { general = { instance_type = "m6i.large", min = 1, max = 3 } }
}

output "next" {
  description = "What to do now."
  value       = module.cluster.next
}
