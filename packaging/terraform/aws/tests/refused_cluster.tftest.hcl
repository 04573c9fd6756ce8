# Each rule about the cluster, its bucket and what nodes are made of refuses what it is there for, when it is planned.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "eu-central-1a", cidr_block = "10.9.1.0/24" }
  }
}

variables {
  cluster_name       = "prod"
  kubernetes_version = "1.36.3"
  dns                = { domain = "prod.example.com" }
  bucket             = { name = "example-prod" }
  network            = { cidr = "10.0.0.0/16", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  release = {
    kind   = "sysext"
    url    = "s3://example-prod/artifacts/nodeagent-0.1.0-x86-64.raw"
    sha512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
  }
  vault = {
    address = "https://vault.example.com:8200"
    ca_pem  = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
    cidrs   = ["10.8.0.0/24"]
  }
  pki = {
    cluster     = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n" }
    etcd        = { mount = "pki-etcd", ca_pem = "-----BEGIN CERTIFICATE-----\nMg==\n-----END CERTIFICATE-----\n" }
    front-proxy = { mount = "pki-front-proxy", ca_pem = "-----BEGIN CERTIFICATE-----\nMw==\n-----END CERTIFICATE-----\n" }
  }
}

run "a_name_too_long_for_balancers" {
  command = plan

  variables {
    cluster_name = "production-of-things"
  }

  expect_failures = [var.cluster_name]
}

run "a_name_that_balancers_may_not_have" {
  command = plan

  variables {
    cluster_name = "internal-tools"
  }

  expect_failures = [var.cluster_name]
}

run "tags_that_are_the_modules" {
  command = plan

  variables {
    tags = { role = "controller" }
  }

  expect_failures = [var.tags]
}

run "a_release_in_a_bucket_that_nodes_may_not_read" {
  command = plan

  variables {
    release = { kind = "sysext", url = "s3://elsewhere/artifacts/nodeagent-0.1.0-x86-64.raw", sha512 = var.release.sha512 }
  }

  expect_failures = [var.release]
}

run "a_sysext_outside_artifacts" {
  command = plan

  variables {
    extra_sysexts = { kubernetes = { url = "s3://example-prod/kubernetes.raw", sha512 = var.release.sha512 } }
  }

  expect_failures = [var.extra_sysexts]
}

run "an_artifact_with_a_bad_name" {
  command = plan

  variables {
    artifacts = { "a name" = "versions.tf" }
  }

  expect_failures = [var.artifacts]
}

run "an_artifact_that_is_not_there" {
  command = plan

  variables {
    artifacts = { nodeagent = "nowhere/nodeagent" }
  }

  expect_failures = [var.artifacts]
}

run "a_bucket_with_a_dot" {
  command = plan

  variables {
    bucket  = { name = "example.prod" }
    release = { kind = "sysext", url = "https://example.com/nodeagent-0.1.0-x86-64.raw", sha512 = var.release.sha512 }
  }

  expect_failures = [var.bucket]
}

run "backups_for_no_day" {
  command = plan

  variables {
    bucket = { name = "example-prod", backup_days = 0 }
  }

  expect_failures = [var.bucket]
}

run "a_key_that_is_an_alias" {
  command = plan

  variables {
    kms_key_arn = "alias/prod"
  }

  expect_failures = [var.kms_key_arn]
}

run "a_vault_that_nodes_may_not_go_to" {
  command = plan

  variables {
    vault = { address = "https://vault.example.com:8200", ca_pem = var.vault.ca_pem, cidrs = [] }
  }

  expect_failures = [var.vault]
}
