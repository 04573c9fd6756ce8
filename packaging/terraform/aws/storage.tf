# One bucket: artifacts/ is what nodes are made of, backups/ what controllers put there. A bucket that
# exists is taken as it is; its owner sees to versions, encryption and access.

locals {
  made_bucket = var.bucket.create ? 1 : 0
  bucket      = var.bucket.create ? aws_s3_bucket.this[0].bucket : var.bucket.name
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18: Who read what is a matter of the account's CloudTrail, not of a cluster.
  #checkov:skip=CKV2_AWS_62: Nothing waits for events.
  #checkov:skip=CKV_AWS_144: Another region needs a provider and a key there: the site's choice.
  count  = local.made_bucket
  bucket = var.bucket.name
  tags   = merge(local.tags, { Name = var.bucket.name })
}

resource "aws_s3_bucket_ownership_controls" "this" {
  count  = local.made_bucket
  bucket = aws_s3_bucket.this[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  count                   = local.made_bucket
  bucket                  = aws_s3_bucket.this[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  count  = local.made_bucket
  bucket = aws_s3_bucket.this[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  count  = local.made_bucket
  bucket = aws_s3_bucket.this[0].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  count  = local.made_bucket
  bucket = aws_s3_bucket.this[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyOverTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  count  = local.made_bucket
  bucket = aws_s3_bucket.this[0].id

  rule {
    id     = "backups-end"
    status = "Enabled"
    filter { prefix = "backups/" }
    expiration { days = var.bucket.backup_days }
  }

  rule {
    id     = "former-versions-end"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration { noncurrent_days = var.bucket.backup_days }
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

# Uploaded before any node is launched, so that one apply is enough.
resource "aws_s3_object" "artifact" {
  for_each    = var.artifacts
  bucket      = local.bucket
  key         = "artifacts/${each.key}"
  source      = each.value
  source_hash = filesha256(each.value)
  depends_on  = [aws_s3_bucket_server_side_encryption_configuration.this, aws_s3_bucket_versioning.this]
}
