# What a person needs next.

output "api_server" {
  description = "Where the API is reached, by nodes and by kubectl."
  value       = local.api_server
}

output "api_balancers" {
  description = "The balancers' own names, for a resolver that does not see the zone."
  value       = { for name, lb in aws_lb.api : name => lb.dns_name }
}

output "controllers" {
  description = "Each controller: its instance, its address, and the volume with its member's data."
  value = { for name, instance in aws_instance.controller : name => {
    instance_id    = instance.id
    address        = local.controllers[name].address
    etcd_volume_id = aws_ebs_volume.etcd[name].id
  } }
}

output "outdated_controllers" {
  description = "Controllers that were launched with another image, type or user-data than a new one would get: to be replaced, one at a time."
  value = [for name, instance in aws_instance.controller : name
    if instance.ami != local.ami_id || instance.instance_type != var.controllers.instance_type ||
  instance.user_data_base64 != module.controller_user_data.user_data_base64]
}

output "worker_pools" {
  description = "The Auto Scaling group of each pool."
  value       = { for name, group in aws_autoscaling_group.worker : name => group.name }
}

output "bucket" {
  description = "Where artifacts go, and where controllers may put backups."
  value = {
    artifacts = "s3://${local.bucket}/artifacts/"
    backups   = "s3://${local.bucket}/backups/${var.cluster_name}/"
  }
}

output "instance_profile_arns" {
  description = "What the roles of Vault's aws auth method are bound to."
  value       = { for role, profile in aws_iam_instance_profile.node : role => profile.arn }
}

output "vault_values" {
  description = <<-TEXT
    The values of this cluster in packaging/vault; docs/vault.md uses them. `node_cidrs` is right where
    Vault is reached privately; by the internet it sees network.nat_addresses.
  TEXT
  value = {
    account_id = data.aws_caller_identity.current.account_id
    region     = data.aws_region.current.region
    cluster    = var.cluster_name
    api_name   = local.api_name
    dns_domain = var.dns_domain
    node_cidrs = local.cidr
  }
}

output "network" {
  description = "For what the site adds: where nodes are, what they come out as, routes to Vault and people, the groups to open."
  value = {
    vpc_id             = local.vpc_id
    worker_subnet_ids  = local.worker_subnet_ids
    public_subnet_ids  = local.public_subnet_ids
    route_table_ids    = { for zone, table in aws_route_table.private : zone => table.id }
    nat_addresses      = [for eip in aws_eip.nat : eip.public_ip]
    security_group_ids = { for name, group in aws_security_group.this : name => group.id }
    zone_id            = local.zone_id
  }
}

output "user_data_bytes" {
  description = "Size of the user-data, of the 16384 bytes that EC2 takes."
  value = merge(
    { controller = module.controller_user_data.user_data_bytes },
    { for name, pool in module.worker_user_data : "worker ${name}" => pool.user_data_bytes },
  )
}

output "next" {
  description = "What to do now, as commands."
  value       = <<-TEXT
    # are the values that Vault was given these? (docs/vault.md)
    terraform output -json vault_values
    # wait for a control plane that is ready
    curl --cacert authorities/cluster.pem --retry 60 --retry-delay 10 --retry-all-errors ${local.api_server}/readyz
    # on a node
    nodeagent status
    # replace a controller, its etcd data follow (one at a time, docs/terraform.md)
    terraform apply -replace='module.NAME.aws_instance.controller["controller-0"]'
  TEXT
}
