# Who may talk to whom. Nothing may that is not a line here, and each line says why.

locals {
  groups = merge(
    {
      controllers  = "Controllers: etcd, the API, their kubelets"
      workers      = "Workers: kubelets and the pod network"
      api-internal = "The balancer of the API, inside"
    },
    var.api.public == null ? {} : { api-public = "The balancer of the API, for the public" },
  )

  vault_port = tonumber(try(regex(":([0-9]+)/?$", var.vault.address)[0], "443"))
  # AWS refuses a rule that is there already.
  vault_cidrs = [for cidr in distinct(var.vault.cidrs) : cidr if local.vault_port != 443 || !contains(var.egress_cidrs, cidr)]
  nodes       = ["controllers", "workers"]

  ingress = merge(
    {
      etcd                = { to = "controllers", group = "controllers", ports = [2379, 2380], why = "API servers and members of etcd reach each other" }
      api-from-internal   = { to = "controllers", group = "api-internal", ports = [6443], why = "API by its balancer, and its health check" }
      api-from-workers    = { to = "controllers", group = "workers", ports = [6443], why = "API by its address in the cluster, which leads here" }
      api-among           = { to = "controllers", group = "controllers", ports = [6443], why = "API by its address in the cluster, which leads here" }
      kubelet-controllers = { to = "controllers", group = "controllers", ports = [10250], why = "API servers ask kubelets for logs and the like" }
      kubelet-workers     = { to = "workers", group = "controllers", ports = [10250], why = "API servers ask kubelets for logs and the like" }
      metrics-controllers = { to = "controllers", group = "workers", ports = [10250], why = "What reads the metrics of kubelets runs on a worker" }
      metrics-workers     = { to = "workers", group = "workers", ports = [10250], why = "What reads the metrics of kubelets runs on a worker" }
      balancer-workers    = { to = "api-internal", group = "workers", ports = [6443], why = "Workers reach the API by its name" }
      balancer-nodes      = { to = "api-internal", group = "controllers", ports = [6443], why = "What runs on controllers reaches the API by its name" }
    },
    { for cidr in distinct(var.api.client_cidrs) : "client-${cidr}" => { to = "api-internal", cidr = cidr, ports = [6443], why = "A range of clients of the API" } },
    var.api.public == null ? {} : { api-from-public = { to = "controllers", group = "api-public", ports = [6443], why = "API by its public balancer, and its health check" } },
    { for cidr in distinct(try(var.api.public.cidrs, [])) : "public-${cidr}" => { to = "api-public", cidr = cidr, ports = [6443], why = "A range of clients of the API, in public" } },
    { for pair in setproduct(local.nodes, distinct(var.access.ssh_cidrs)) : "ssh-${pair[0]}-${pair[1]}" => { to = pair[0], cidr = pair[1], ports = [22], why = "A trusted range, for a person" } },
    merge([for name, it in var.pod_network.ports : {
      for pair in setproduct(local.nodes, local.nodes) : "pods-${name}-${pair[0]}-${pair[1]}" => { to = pair[0], group = pair[1], protocol = it.protocol, ports = [it.port], why = "Pod network between nodes: ${name}" }
    }]...),
    { for to in var.pod_network.routed ? local.nodes : [] : "pods-${to}" => { to = to, cidr = var.pod_cidr, protocol = "-1", why = "Pods have addresses of their own in the VPC" } },
  )

  # Nodes may reach all groups of the cluster: what is taken is said above, at the other end.
  egress = merge(
    { for pair in setproduct(local.nodes, concat(local.nodes, ["api-internal"])) : "${pair[0]}-${pair[1]}" => { from = pair[0], group = pair[1], protocol = "-1", why = "The other end decides" } },
    { for name in keys(local.balancers) : "api-${name}" => { from = "api-${name}", group = "controllers", ports = [6443], why = "The API and its health check" } },
    { for pair in setproduct(local.nodes, distinct(var.egress_cidrs)) : "https-${pair[0]}-${pair[1]}" => { from = pair[0], cidr = pair[1], ports = [443], why = "Images of containers, artifacts by https, AWS" } },
    { for pair in setproduct(local.nodes, local.vault_cidrs) : "vault-${pair[0]}-${pair[1]}" => { from = pair[0], cidr = pair[1], ports = [local.vault_port], why = "Vault" } },
    { for from in local.nodes : "s3-${from}" => { from = from, prefix_list = data.aws_prefix_list.s3.id, ports = [443], why = "Artifacts and backups, whatever egress_cidrs is" } },
    { for from in var.pod_network.routed ? local.nodes : [] : "pods-${from}" => { from = from, cidr = var.pod_cidr, protocol = "-1", why = "Pods have addresses of their own in the VPC" } },
  )
}

data "aws_prefix_list" "s3" {
  name = "com.amazonaws.${data.aws_region.current.region}.s3"
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5: All are used, by interfaces, launch templates and balancers, by their key.
  for_each    = local.groups
  name        = "${var.cluster_name}-${each.key}"
  description = each.value
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each                     = local.ingress
  security_group_id            = aws_security_group.this[each.value.to].id
  description                  = each.value.why
  referenced_security_group_id = try(aws_security_group.this[each.value.group].id, null)
  cidr_ipv4                    = try(each.value.cidr, null)
  ip_protocol                  = try(each.value.protocol, "tcp")
  from_port                    = try(min(each.value.ports...), null)
  to_port                      = try(max(each.value.ports...), null)
  tags                         = merge(local.tags, { Name = each.key })
}

resource "aws_vpc_security_group_egress_rule" "this" {
  for_each                     = local.egress
  security_group_id            = aws_security_group.this[each.value.from].id
  description                  = each.value.why
  referenced_security_group_id = try(aws_security_group.this[each.value.group].id, null)
  cidr_ipv4                    = try(each.value.cidr, null)
  prefix_list_id               = try(each.value.prefix_list, null)
  ip_protocol                  = try(each.value.protocol, "tcp")
  from_port                    = try(min(each.value.ports...), null)
  to_port                      = try(max(each.value.ports...), null)
  tags                         = merge(local.tags, { Name = each.key })
}
