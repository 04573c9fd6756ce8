# Each rule about the cluster, its bucket and what nodes are made of refuses what it is there for, when it is planned.

mock_provider "aws" {
  source = "./tests/aws"
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
