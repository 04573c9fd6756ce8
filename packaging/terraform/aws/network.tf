# A network of its own: per zone a public subnet (NAT, public balancer), one for controllers and one
# for workers. Controllers have a subnet to themselves, because their addresses are fixed: nothing
# that takes a free address can be given one of theirs.

locals {
  made  = var.network != null
  cidr  = local.made ? var.network.cidr : try(var.existing_network.cidr, null)
  zones = local.made ? { for index, zone in var.network.zones : zone => index } : {}

  # Eighths of the range: 0 to 5 are the workers' of a zone, and the last is cut up once more, into
  # 8 small ones for controllers and 8 for the public. In a /16 these are /19 and /24.
  small = local.made ? cidrsubnet(local.cidr, 3, 7) : null
  subnets = merge([for zone, index in local.zones : {
    "worker-${zone}"     = { zone = zone, tier = "worker", cidr = cidrsubnet(local.cidr, 3, index) }
    "controller-${zone}" = { zone = zone, tier = "controller", cidr = cidrsubnet(local.small, 5, index) }
    "public-${zone}"     = { zone = zone, tier = "public", cidr = cidrsubnet(local.small, 5, index + 8) }
  }]...)
  private = { for name, subnet in local.subnets : name => subnet if subnet.tier != "public" }

  # The zones with a NAT gateway, and the one that each zone goes out by.
  nat_zones = toset(slice(keys(local.zones), 0, local.made ? (var.network.one_nat ? 1 : length(local.zones)) : 0))
  nat_of    = { for zone in keys(local.zones) : zone => contains(local.nat_zones, zone) ? zone : one(local.nat_zones) }

  vpc_id             = local.made ? aws_vpc.this[0].id : try(var.existing_network.vpc_id, null)
  worker_subnet_ids  = local.made ? [for zone in keys(local.zones) : aws_subnet.this["worker-${zone}"].id] : try(var.existing_network.worker_subnet_ids, [])
  public_subnet_ids  = local.made ? [for zone in keys(local.zones) : aws_subnet.this["public-${zone}"].id] : try(var.existing_network.public_subnet_ids, [])
  load_balancer_tags = { worker = "internal-elb", public = "elb" }
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11: Flow logs are kept by the account, for all of its networks.
  count                = local.made ? 1 : 0
  cidr_block           = local.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.cluster_name })
}

# The group that things get which name none: it lets nothing through.
resource "aws_default_security_group" "this" {
  count  = local.made ? 1 : 0
  vpc_id = local.vpc_id
  tags   = merge(local.tags, { Name = "${var.cluster_name}-unused" })
}

resource "aws_subnet" "this" {
  for_each          = local.subnets
  vpc_id            = local.vpc_id
  availability_zone = each.value.zone
  cidr_block        = each.value.cidr
  tags = merge(local.tags, { Name = "${var.cluster_name}-${each.key}", tier = each.value.tier },
    each.value.tier == "controller" ? {} :
  { "kubernetes.io/role/${local.load_balancer_tags[each.value.tier]}" = "1" })
}

resource "aws_internet_gateway" "this" {
  count  = local.made ? 1 : 0
  vpc_id = local.vpc_id
  tags   = merge(local.tags, { Name = var.cluster_name })
}

resource "aws_eip" "nat" {
  for_each = local.nat_zones
  domain   = "vpc"
  tags     = merge(local.tags, { Name = "${var.cluster_name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each      = local.nat_zones
  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.this["public-${each.key}"].id
  tags          = merge(local.tags, { Name = "${var.cluster_name}-${each.key}" })
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  count  = local.made ? 1 : 0
  vpc_id = local.vpc_id
  tags   = merge(local.tags, { Name = "${var.cluster_name}-public" })
}

resource "aws_route" "public" {
  count                  = local.made ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table" "private" {
  for_each = local.zones
  vpc_id   = local.vpc_id
  tags     = merge(local.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_route" "private" {
  for_each               = local.zones
  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[local.nat_of[each.key]].id
}

resource "aws_route_table_association" "this" {
  for_each       = local.subnets
  subnet_id      = aws_subnet.this[each.key].id
  route_table_id = each.value.tier == "public" ? aws_route_table.public[0].id : aws_route_table.private[each.value.zone].id
}

# Artifacts and backups do not go by the NAT: it costs by the byte, and would be one more thing that
# has to work for a node to start.
resource "aws_vpc_endpoint" "s3" {
  count             = local.made ? 1 : 0
  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${data.aws_region.current.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for table in aws_route_table.private : table.id]
  tags              = merge(local.tags, { Name = "${var.cluster_name}-s3" })
}
