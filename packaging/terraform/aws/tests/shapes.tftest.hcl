# What is planned for each shape of cluster. Nothing is asked of AWS: its provider is mocked.

mock_provider "aws" {
  source = "./tests/aws"
}

run "three_controllers_in_three_zones" {
  command = plan

  assert {
    condition = output.controllers["controller-0"].address == "10.0.224.10" && (
      [for name in sort(keys(aws_instance.controller)) : name] == ["controller-0", "controller-1", "controller-2"]
    )
    error_message = "three controllers, and the tenth address of a subnet of its own for the first"
  }
  assert {
    condition     = length(distinct([for volume in aws_ebs_volume.etcd : volume.availability_zone])) == 3
    error_message = "a volume in each zone"
  }
  assert {
    condition     = alltrue([for volume in aws_ebs_volume.etcd : volume.encrypted])
    error_message = "the volumes of etcd are encrypted"
  }
  assert {
    condition     = strcontains(module.controller_user_data.site_toml, "\"controller-2\" = \"10.0.226.10\"")
    error_message = "user-data has the members of etcd: ${module.controller_user_data.site_toml}"
  }
  assert {
    condition     = alltrue([for it in aws_volume_attachment.etcd : it.device_name == "/dev/xvdf"])
    error_message = "the node waits for /dev/xvdf"
  }
  assert {
    condition     = alltrue([for it in aws_instance.controller : it.metadata_options[0].http_tokens == "required" && it.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2 with one hop"
  }
  assert {
    condition     = aws_lb_target_group.api["internal"].health_check[0].protocol == "HTTPS" && aws_lb_target_group.api["internal"].health_check[0].path == "/readyz"
    error_message = "the balancer asks the API server itself"
  }
  assert {
    condition     = aws_lb.api["internal"].internal && length(aws_lb.api) == 1
    error_message = "without api.public there is the internal balancer alone"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_subnet.this) == 9
    error_message = "three tiers of subnets, and a way out of each zone"
  }
  assert {
    condition     = aws_route53_record.api["internal"].name == "api.prod.example.com" && length(aws_route53_zone.private) == 1
    error_message = "the API has its name in a zone of the cluster"
  }
  assert {
    condition = alltrue([for name, it in aws_instance.controller : it.tags["Name"] == "prod-${name}" && it.tags["role"] == "controller" &&
    it.tags["KubernetesCluster"] == "prod" && it.tags["kubernetes.io/cluster/prod"] == "owned"])
    error_message = "a controller is found by its tags"
  }
  assert {
    condition     = length(aws_autoscaling_group.worker) == 0
    error_message = "no pools, no groups"
  }
}

run "one_controller" {
  command = plan

  variables {
    controllers = { count = 1, etcd_gib = 8 }
    network     = { cidr = "10.0.0.0/20", zones = ["eu-central-1a"], one_nat = true }
  }

  assert {
    condition     = length(aws_instance.controller) == 1 && output.controllers["controller-0"].address == "10.0.14.10"
    error_message = "one controller in the smallest network"
  }
  assert {
    condition     = aws_ebs_volume.etcd["controller-0"].size == 8
    error_message = "its volume is as large as asked for"
  }
}

run "five_controllers_share_zones" {
  command = plan

  variables {
    controllers = { count = 5 }
  }

  assert {
    condition     = output.controllers["controller-3"].address == "10.0.224.11" && output.controllers["controller-4"].address == "10.0.225.11"
    error_message = "the fourth and fifth are in the first two zones"
  }
  assert {
    condition     = aws_placement_group.controllers.strategy == "spread"
    error_message = "and on other hardware there"
  }
}

run "one_nat_for_all_zones" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0/16", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"], one_nat = true }
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private) == 3
    error_message = "one gateway, and each zone has its route"
  }
}

run "pools_with_and_without_labels" {
  command = plan

  variables {
    worker_pools = {
      plain = { instance_type = "m6i.large", min = 1, max = 3 }
      gpu = {
        instance_type = "g5.xlarge", disk_gib = 200, min = 0, max = 2
        labels        = { "example.com/gpu" = "yes" }
        taints        = ["example.com/gpu=yes:NoSchedule", "example.com/slow:NoExecute"]
      }
    }
  }

  assert {
    condition     = strcontains(module.worker_user_data["gpu"].site_toml, "example.com/gpu=yes:NoSchedule") && !strcontains(module.worker_user_data["plain"].site_toml, "gpu")
    error_message = "a pool's nodes are told its labels and taints, and no other's"
  }
  assert {
    condition     = strcontains(module.worker_user_data["plain"].site_toml, "node.kubernetes.io/pool")
    error_message = "each node has the label of its pool"
  }
  assert {
    condition     = aws_autoscaling_group.worker["plain"].min_size == 1 && aws_autoscaling_group.worker["plain"].max_size == 3
    error_message = "min and max are the group's"
  }
  assert {
    condition = { for tag in aws_autoscaling_group.worker["gpu"].tag : tag.key => tag.value if startswith(tag.key, "k8s.io/") } == {
      "k8s.io/cluster-autoscaler/enabled"                                     = "true"
      "k8s.io/cluster-autoscaler/prod"                                        = "owned"
      "k8s.io/cluster-autoscaler/node-template/label/example.com/gpu"         = "yes"
      "k8s.io/cluster-autoscaler/node-template/label/node.kubernetes.io/pool" = "gpu"
      "k8s.io/cluster-autoscaler/node-template/taint/example.com/gpu"         = "yes:NoSchedule"
      "k8s.io/cluster-autoscaler/node-template/taint/example.com/slow"        = ":NoExecute"
    }
    error_message = "cluster-autoscaler knows a pool of no nodes by these tags"
  }
  assert {
    condition     = alltrue([for it in aws_launch_template.worker : it.metadata_options[0].http_tokens == "required" && it.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2 with one hop"
  }
  assert {
    condition     = aws_launch_template.worker["gpu"].block_device_mappings[0].ebs[0].volume_size == 200 && alltrue([for it in aws_launch_template.worker : tobool(it.block_device_mappings[0].ebs[0].encrypted)])
    error_message = "a disk as large as asked for, and encrypted"
  }
  assert {
    condition = alltrue([for it in aws_autoscaling_group.worker : it.instance_refresh[0].strategy == "Rolling" &&
    it.instance_refresh[0].preferences[0].min_healthy_percentage == 100 && it.instance_refresh[0].preferences[0].max_healthy_percentage == 110])
    error_message = "a change rolls a pool, a new node first"
  }
  assert {
    condition = alltrue(flatten([for name, it in aws_launch_template.worker : [for each in it.tag_specifications :
    each.tags["Name"] == "prod-${name}" && each.tags["pool"] == name && each.tags["role"] == "worker" && each.tags["KubernetesCluster"] == "prod"]]))
    error_message = "a worker, its disk and its interface are found by their tags"
  }
}

run "a_role_may_what_it_needs" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role_policy.node["worker"].policy).Statement == [
      { Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::example-prod/artifacts/*"] },
    ]
    error_message = "a worker reads artifacts and nothing else"
  }
  assert {
    condition = flatten([for it in jsondecode(aws_iam_role_policy.node["controller"].policy).Statement : it.Resource]) == [
      "arn:aws:s3:::example-prod/artifacts/*", "arn:aws:s3:::example-prod/backups/prod/*", "arn:aws:s3:::example-prod",
    ]
    error_message = "a controller keeps backups too"
  }
  assert {
    condition     = aws_iam_instance_profile.node["controller"].name == "prod-controller" && aws_iam_instance_profile.node["worker"].name == "prod-worker"
    error_message = "the roles of Vault are bound to these names"
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.node) == 0
    error_message = "no further policy by default"
  }
}

run "a_key_of_the_site" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d"
  }

  assert {
    condition     = alltrue([for it in aws_ebs_volume.etcd : it.kms_key_id == "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d"])
    error_message = "the volumes are encrypted with it"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.node["worker"].policy).Statement[1].Action == ["kms:Decrypt"]
    error_message = "a worker may read with it"
  }
}

run "nothing_is_open_by_default" {
  command = plan

  assert {
    condition     = length([for it in local.ingress : it if can(it.cidr)]) == 0
    error_message = "whoever may come in is of the cluster"
  }
  assert {
    condition     = toset([for name, it in local.egress : name if try(it.cidr, "") == "0.0.0.0/0"]) == toset(["https-controllers-0.0.0.0/0", "https-workers-0.0.0.0/0"])
    error_message = "everywhere is for HTTPS alone"
  }
  assert {
    condition     = alltrue([for it in aws_vpc_security_group_ingress_rule.this : length(it.description) > 0])
    error_message = "each rule says why"
  }
}

run "a_vault_behind_https_and_ranges_given_twice" {
  command = plan

  variables {
    egress_cidrs = ["10.8.0.0/24", "10.8.0.0/24"]
    vault = {
      address = "https://vault.example.com"
      ca_pem  = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
      cidrs   = ["10.8.0.0/24", "10.8.1.0/24"]
    }
  }

  assert {
    condition = sort([for it in local.egress : "${it.from} ${it.cidr} ${it.ports[0]}" if can(it.cidr)]) == tolist([
      "controllers 10.8.0.0/24 443", "controllers 10.8.1.0/24 443",
      "workers 10.8.0.0/24 443", "workers 10.8.1.0/24 443",
    ])
    error_message = "each rule is there once"
  }
}

run "a_public_api_ssh_and_session_manager" {
  command = plan

  variables {
    api    = { client_cidrs = ["10.8.0.0/16"], public = { zone_id = "Z0PUBLIC", cidrs = ["198.51.100.0/24"] } }
    access = { ssm = true, ssh_key_name = "ops", ssh_cidrs = ["10.8.1.0/24"] }
  }

  assert {
    condition     = length(aws_lb.api) == 2 && !aws_lb.api["public"].internal
    error_message = "a second balancer, for the public"
  }
  assert {
    condition     = aws_route53_record.api["public"].zone_id == "Z0PUBLIC" && aws_route53_record.api["public"].name == "api.prod.example.com"
    error_message = "with the same name in the public zone"
  }
  assert {
    condition = toset([for it in local.ingress : "${it.to} ${it.cidr} ${it.ports[0]}" if can(it.cidr)]) == toset([
      "api-internal 10.8.0.0/16 6443", "api-public 198.51.100.0/24 6443",
      "controllers 10.8.1.0/24 22", "workers 10.8.1.0/24 22",
    ])
    error_message = "these ranges get in here, and none elsewhere"
  }
  assert {
    condition     = alltrue([for it in aws_iam_role_policy.node : strcontains(it.policy, "ssmmessages:OpenDataChannel")])
    error_message = "both roles may be reached by Systems Manager"
  }
}

run "an_existing_network_zone_and_bucket" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9.0.0/16"
      controllers       = [for host in [20, 21, 22] : { subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.${host}" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
    }
    dns          = { domain = "prod.example.com", zone_id = "Z0PRIVATE" }
    bucket       = { name = "example-prod", create = false }
    worker_pools = { plain = { instance_type = "m6i.large", min = 1, max = 3 } }
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.this) + length(aws_route53_zone.private) + length(aws_s3_bucket.this) == 0
    error_message = "what is given is not made"
  }
  assert {
    condition     = output.controllers["controller-2"].address == "10.9.1.22"
    error_message = "controllers have the given addresses"
  }
  assert {
    condition     = output.bucket.artifacts == "s3://example-prod/artifacts/"
    error_message = "the given bucket is used"
  }
}

run "artifacts_are_uploaded" {
  command = plan

  variables {
    artifacts = { "nodeagent-0.1.0-x86-64.raw" = "versions.tf" }
  }

  assert {
    condition     = aws_s3_object.artifact["nodeagent-0.1.0-x86-64.raw"].key == "artifacts/nodeagent-0.1.0-x86-64.raw"
    error_message = "where the nodes look for it"
  }
}

run "pods_with_addresses_of_the_wire" {
  command = plan

  variables {
    pod_network = { routed = true, ports = {} }
  }

  assert {
    condition     = alltrue([for it in aws_network_interface.controller : it.source_dest_check == false])
    error_message = "AWS lets their packets through"
  }
  assert {
    condition     = local.ingress["pods-workers"].cidr == "10.244.0.0/16"
    error_message = "so do the groups"
  }
}
