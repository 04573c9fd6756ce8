# Who a node is to AWS, and to Vault: its instance profile tells a controller from a worker. A worker
# may read artifacts and nothing else.

locals {
  bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket.name}"
  # Without ListBucket a missing object reads as 403, and nobody learns what else there is.
  read_artifacts = { Effect = "Allow", Action = ["s3:GetObject"], Resource = ["${local.bucket_arn}/artifacts/*"] }
  # No delete: what a broken controller has overwritten is still there as a former version.
  keep_backups = { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject"], Resource = ["${local.bucket_arn}/backups/${var.cluster_name}/*"] }
  list_backups = {
    Effect    = "Allow"
    Action    = ["s3:ListBucket"]
    Resource  = [local.bucket_arn]
    Condition = { StringLike = { "s3:prefix" = ["backups/${var.cluster_name}/*"] } }
  }

  roles = {
    controller = {
      statements  = [local.read_artifacts, local.keep_backups, local.list_backups]
      key_actions = ["kms:Decrypt", "kms:GenerateDataKey"]
      policies    = var.extra_policy_arns.controller
    }
    worker = {
      statements  = [local.read_artifacts]
      key_actions = ["kms:Decrypt"]
      policies    = var.extra_policy_arns.worker
    }
  }

  # Sessions and nothing else: AWS's own policy for it also reads all parameters of the account.
  sessions = {
    Effect = "Allow"
    Action = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    Resource = ["*"]
  }

  attachments = merge([for role, it in local.roles :
    { for index, arn in it.policies : "${role}-${index}" => { role = role, arn = arn } }
  ]...)
}

resource "aws_iam_role" "node" {
  for_each    = local.roles
  name        = "${var.cluster_name}-${each.key}"
  description = "Nodes of ${var.cluster_name}: ${each.key}"
  tags        = merge(local.tags, { role = each.key })
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "node" {
  for_each = local.roles
  name     = "node"
  role     = aws_iam_role.node[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(each.value.statements, var.access.ssm ? [local.sessions] : [], var.kms_key_arn == null ? [] : [{
      Effect    = "Allow", Action = each.value.key_actions, Resource = [var.kms_key_arn]
      Condition = { StringEquals = { "kms:ViaService" = "s3.${data.aws_region.current.region}.amazonaws.com" } }
    }])
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = local.attachments
  role       = aws_iam_role.node[each.value.role].name
  policy_arn = each.value.arn
}

# The roles in Vault are bound to these names: packaging/vault/auth/aws/role.
resource "aws_iam_instance_profile" "node" {
  for_each = local.roles
  name     = "${var.cluster_name}-${each.key}"
  role     = aws_iam_role.node[each.key].name
  tags     = merge(local.tags, { role = each.key })
}
