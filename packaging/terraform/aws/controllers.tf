# Controllers are fixed: each has a name, an address (its interface) and a volume with the data of its
# member of etcd. All three outlive the instance and are given to the next one, which is why that one
# cannot be created before the former is gone: an interface and a volume have one owner.

locals {
  # The tenth address of a subnet and those after it; the fourth and fifth controller share a zone
  # with the first and second where there are three zones.
  controllers = { for index in range(var.controllers.count) : "controller-${index}" => (
    local.made ? {
      subnet  = "controller-${var.network.zones[index % length(var.network.zones)]}"
      address = cidrhost(cidrsubnet(local.small, 5, index % length(var.network.zones)), 10 + floor(index / length(var.network.zones)))
      } : {
      subnet  = try(var.existing_network.controllers[index].subnet_id, null)
      address = try(var.existing_network.controllers[index].address, null)
    })
  }
  etcd_members = { for name, controller in local.controllers : name => controller.address }
}

data "aws_subnet" "controller" {
  for_each = local.made ? {} : local.controllers
  id       = each.value.subnet
}

# Whether an address that was given is in its subnet.
locals {
  inside = { for name, subnet in data.aws_subnet.controller : name =>
    try(cidrhost("${local.controllers[name].address}/${split("/", subnet.cidr_block)[1]}", 0) ==
    cidrhost(subnet.cidr_block, 0), false)
  }
}

module "controller_user_data" {
  source        = "./modules/user-data"
  role          = "controller"
  release       = var.release
  extra_sysexts = var.extra_sysexts
  vault         = merge(local.vault, { role = var.vault.controller_role })
  pki           = var.pki
  cluster       = local.cluster
  etcd_members  = local.etcd_members
  control_plane = var.control_plane
  labels        = var.controllers.labels
  taints        = var.controllers.taints
  extra_config  = var.extra_config.controller
}

resource "aws_network_interface" "controller" {
  for_each          = local.controllers
  description       = "${each.key} of ${var.cluster_name}: members of etcd know it by this address"
  subnet_id         = local.made ? aws_subnet.this[each.value.subnet].id : each.value.subnet
  private_ips       = [each.value.address]
  security_groups   = [aws_security_group.this["controllers"].id]
  source_dest_check = !var.pod_network.routed
  tags              = merge(local.tags, { Name = "${var.cluster_name}-${each.key}", role = "controller" })

  lifecycle {
    precondition {
      condition     = lookup(local.inside, each.key, true)
      error_message = "existing_network.controllers: the address ${each.value.address} of ${each.key} is not in its subnet; give one that is, and that nothing else has."
    }
  }
}

resource "aws_ebs_volume" "etcd" {
  for_each          = local.controllers
  availability_zone = local.made ? local.subnets[each.value.subnet].zone : data.aws_subnet.controller[each.key].availability_zone
  type              = "gp3"
  size              = var.controllers.etcd_gib
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  tags              = merge(local.tags, { Name = "${var.cluster_name}-${each.key}-etcd", role = "controller" })

  lifecycle {
    # The data of the cluster: docs/terraform.md says how a cluster is given up on purpose.
    prevent_destroy = true
  }
}

# Not two on one piece of hardware, also where two share a zone.
resource "aws_placement_group" "controllers" {
  name     = "${var.cluster_name}-controllers"
  strategy = "spread"
  tags     = merge(local.tags, { role = "controller" })
}

resource "aws_instance" "controller" {
  #checkov:skip=CKV_AWS_126: The basic metrics are enough for what nothing here reads; they are free.
  for_each             = local.controllers
  ami                  = local.ami_id
  instance_type        = var.controllers.instance_type
  iam_instance_profile = aws_iam_instance_profile.node["controller"].name
  key_name             = var.access.ssh_key_name
  placement_group      = aws_placement_group.controllers.name
  user_data_base64     = module.controller_user_data.user_data_base64
  ebs_optimized        = true
  tags                 = merge(local.tags, { Name = "${var.cluster_name}-${each.key}", role = "controller" })

  primary_network_interface {
    network_interface_id = aws_network_interface.controller[each.key].id
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.controllers.disk_gib
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    tags        = merge(local.tags, { Name = "${var.cluster_name}-${each.key}-root", role = "controller" })
  }

  # One hop: a pod with an address of its own cannot ask for the node's identity.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  lifecycle {
    # An apply that replaced or stopped all controllers would take etcd's majority away. These reach a
    # controller when a person replaces it; the output outdated_controllers tells which.
    # The check belongs to the interface above; here the provider would turn it on again at the next apply.
    ignore_changes = [ami, instance_type, key_name, user_data_base64, source_dest_check]
  }

  # What a node needs in its first minute: a refused download from S3 ends its first boot.
  depends_on = [
    aws_iam_role_policy.node, aws_iam_role_policy_attachment.node, aws_s3_object.artifact,
    aws_route.private, aws_route_table_association.this, aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.this,
  ]
}

# The node waits for this device, formats it only when it is blank, and mounts it for etcd.
resource "aws_volume_attachment" "etcd" {
  for_each                       = local.controllers
  device_name                    = "/dev/xvdf"
  instance_id                    = aws_instance.controller[each.key].id
  volume_id                      = aws_ebs_volume.etcd[each.key].id
  stop_instance_before_detaching = true
}
