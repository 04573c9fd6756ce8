# The API's balancer: internal always, a second one for the public where it is asked for. Targets are
# the controllers' fixed addresses, so a replaced controller needs no registration.

locals {
  balancers = merge(
    { internal = { internal = true, subnets = local.worker_subnet_ids } },
    var.api.public == null ? {} : { public = { internal = false, subnets = local.public_subnet_ids } },
  )
  targets = { for pair in setproduct(keys(local.balancers), keys(local.controllers)) :
    "${pair[0]}-${pair[1]}" => { balancer = pair[0], controller = pair[1] }
  }
}

resource "aws_lb" "api" {
  #checkov:skip=CKV_AWS_150: Nothing is lost with it: an apply makes another under the same DNS name.
  #checkov:skip=CKV_AWS_91: AWS logs only listeners that end TLS; the API server has an audit log.
  for_each           = local.balancers
  name               = "${var.cluster_name}-api-${each.key}"
  load_balancer_type = "network"
  internal           = each.value.internal
  subnets            = each.value.subnets
  security_groups    = [aws_security_group.this["api-${each.key}"].id]
  # With fewer controllers than zones each address of the balancer has to reach all of them.
  enable_cross_zone_load_balancing = true
  tags                             = merge(local.tags, { Name = "${var.cluster_name}-api-${each.key}", role = "controller" })
}

resource "aws_lb_target_group" "api" {
  for_each    = local.balancers
  name        = "${var.cluster_name}-api-${each.key}"
  vpc_id      = local.vpc_id
  target_type = "ip"
  protocol    = "TCP"
  port        = 6443
  # A controller that is sent back to itself would drop its own address as a source.
  preserve_client_ip   = false
  deregistration_delay = 60
  tags                 = merge(local.tags, { role = "controller" })

  # The API server's own opinion. That the port is open says nothing: it is before it can serve.
  health_check {
    protocol            = "HTTPS"
    path                = "/readyz"
    port                = "traffic-port"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group_attachment" "api" {
  for_each         = local.targets
  target_group_arn = aws_lb_target_group.api[each.value.balancer].arn
  target_id        = local.controllers[each.value.controller].address
}

resource "aws_lb_listener" "api" {
  for_each          = local.balancers
  load_balancer_arn = aws_lb.api[each.key].arn
  # TLS ends at the API server: it knows its clients by their certificates.
  protocol = "TCP"
  port     = 6443
  tags     = merge(local.tags, { role = "controller" })

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api[each.key].arn
  }
}
