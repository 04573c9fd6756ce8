# Workers come in pools: a launch template and a group each. A change of the template rolls the pool,
# new nodes first.

locals {
  pools = { for name, pool in var.worker_pools : name => merge(pool, {
    labels = merge({ "node.kubernetes.io/pool" = name }, pool.labels)
  }) }

  # What cluster-autoscaler reads to know a pool of which no node exists yet.
  autoscaler_tags = { for name, pool in local.pools : name => merge(
    {
      "k8s.io/cluster-autoscaler/enabled"             = "true"
      "k8s.io/cluster-autoscaler/${var.cluster_name}" = "owned"
    },
    { for key, value in pool.labels : "k8s.io/cluster-autoscaler/node-template/label/${key}" => value },
    { for taint in pool.taints : "k8s.io/cluster-autoscaler/node-template/taint/${split("=", split(":", taint)[0])[0]}" =>
    join(":", [try(split("=", split(":", taint)[0])[1], ""), split(":", taint)[1]]) }
  ) }
}

module "worker_user_data" {
  source        = "./modules/user-data"
  for_each      = local.pools
  role          = "worker"
  release       = var.release
  extra_sysexts = var.extra_sysexts
  vault         = merge(local.vault, { role = var.vault.worker_role })
  pki           = { cluster = var.pki["cluster"] }
  cluster       = local.cluster
  labels        = each.value.labels
  taints        = each.value.taints
  extra_config  = var.extra_config.worker
}

resource "aws_launch_template" "worker" {
  for_each               = local.pools
  name                   = "${var.cluster_name}-${each.key}"
  image_id               = local.ami_id
  instance_type          = each.value.instance_type
  key_name               = var.access.ssh_key_name
  vpc_security_group_ids = concat([aws_security_group.this["workers"].id], each.value.security_group_ids)
  user_data              = module.worker_user_data[each.key].user_data_base64
  ebs_optimized          = true
  update_default_version = true
  tags                   = merge(local.tags, { role = "worker", pool = each.key })

  iam_instance_profile {
    arn = aws_iam_instance_profile.node["worker"].arn
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_gib
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  # One hop: a pod with an address of its own cannot ask for the node's identity.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.key
      tags          = merge(local.tags, { Name = "${var.cluster_name}-${each.key}", role = "worker", pool = each.key })
    }
  }
}

resource "aws_autoscaling_group" "worker" {
  for_each            = local.pools
  name                = "${var.cluster_name}-${each.key}"
  min_size            = each.value.min
  max_size            = each.value.max
  vpc_zone_identifier = local.worker_subnet_ids
  target_group_arns   = each.value.target_group_arns
  # Not by a load balancer's opinion: what ails an application would end its nodes.
  health_check_type = "EC2"

  launch_template {
    id      = aws_launch_template.worker[each.key].id
    version = aws_launch_template.worker[each.key].latest_version
  }

  # No auto_rollback: by the time a refresh starts the group has the new template already, and that
  # is what it would go back to. To AWS a node without an agent is healthy; see docs/terraform.md.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
      instance_warmup        = each.value.warmup_seconds
      skip_matching          = true
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, local.autoscaler_tags[each.key], { Name = "${var.cluster_name}-${each.key}", role = "worker", pool = each.key })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  lifecycle {
    # How many there are between min and max is cluster-autoscaler's, or a person's.
    ignore_changes = [desired_capacity]
  }

  depends_on = [
    aws_iam_role_policy.node, aws_iam_role_policy_attachment.node, aws_s3_object.artifact,
    aws_route.private, aws_route_table_association.this, aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.this,
  ]
}
