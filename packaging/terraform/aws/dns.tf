# One name for the API, inside and outside: its certificate covers just that. The private zone answers
# in the VPC with the internal balancer, the public zone elsewhere with the public one.

locals {
  zone_id = var.dns.zone_id != null ? var.dns.zone_id : aws_route53_zone.private[0].zone_id
  zone_ids = {
    internal = local.zone_id
    public   = try(var.api.public.zone_id, null)
  }
}

resource "aws_route53_zone" "private" {
  count   = var.dns.zone_id == null ? 1 : 0
  name    = var.dns.domain
  comment = "Cluster ${var.cluster_name}"
  tags    = local.tags

  vpc {
    vpc_id = local.vpc_id
  }
}

resource "aws_route53_record" "api" {
  for_each = local.balancers
  zone_id  = local.zone_ids[each.key]
  name     = local.api_name
  type     = "A"

  alias {
    name                   = aws_lb.api[each.key].dns_name
    zone_id                = aws_lb.api[each.key].zone_id
    evaluate_target_health = false
  }
}

# For people: nothing of the cluster depends on these.
resource "aws_route53_record" "controller" {
  #checkov:skip=CKV2_AWS_23: The addresses are those of the interfaces in controllers.tf.
  for_each = local.controllers
  zone_id  = local.zone_id
  name     = "${each.key}.${var.dns.domain}"
  type     = "A"
  ttl      = 300
  records  = [each.value.address]
}
