# What the other files share: who and where we are, and the tags that things are found by.

data "aws_region" "current" {}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

locals {
  tags = merge(var.tags, {
    KubernetesCluster                           = var.cluster_name
    "kubernetes.io/cluster/${var.cluster_name}" = "owned"
  })

  # What both roles are told of Vault; the role to log in with comes with each.
  vault = {
    address   = var.vault.address
    ca_pem    = var.vault.ca_pem
    mount     = var.vault.mount
    namespace = var.vault.namespace
  }

  api_name   = "api.${var.dns.domain}"
  api_server = "https://${local.api_name}:6443"
  cluster = {
    name               = var.cluster_name
    api_server         = local.api_server
    pod_cidr           = var.pod_cidr
    service_cidr       = var.service_cidr
    dns_domain         = var.dns_domain
    kubernetes_version = var.kubernetes_version
  }
}

# Flatcar's own account publishes the images. `image.version` pins one; without it the newest is
# taken, and a new one rolls the workers at the next apply.
data "aws_ami" "flatcar" {
  count       = var.image.ami_id == null ? 1 : 0
  most_recent = true
  owners      = ["075585003325"]

  filter {
    name   = "name"
    values = ["Flatcar-${var.image.channel}-${var.image.version}-hvm"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

locals {
  ami_id = var.image.ami_id != null ? var.image.ami_id : data.aws_ami.flatcar[0].id
}
