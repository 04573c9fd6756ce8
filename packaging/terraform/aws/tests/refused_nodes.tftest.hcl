# Each rule about machines and what they may refuses what it is there for, when it is planned.

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

run "an_even_number_of_controllers" {
  command = plan

  variables {
    controllers = { count = 2 }
  }

  expect_failures = [var.controllers]
}

run "a_controller_on_arm" {
  command = plan

  variables {
    controllers = { instance_type = "m7g.large" }
  }

  expect_failures = [var.controllers]
}

run "an_etcd_volume_too_small" {
  command = plan

  variables {
    controllers = { etcd_gib = 1 }
  }

  expect_failures = [var.controllers]
}

run "a_pool_with_a_bad_name" {
  command = plan

  variables {
    worker_pools = { "Pool_1" = { instance_type = "m6i.large", min = 1, max = 3 } }
  }

  expect_failures = [var.worker_pools]
}

run "a_pool_without_a_type" {
  command = plan

  variables {
    worker_pools = { plain = { min = 1, max = 3 } }
  }

  expect_failures = [var.worker_pools]
}

run "a_pool_on_arm" {
  command = plan

  variables {
    worker_pools = { plain = { instance_type = "t4g.large", min = 1, max = 3 } }
  }

  expect_failures = [var.worker_pools]
}

run "a_pool_with_min_above_max" {
  command = plan

  variables {
    worker_pools = { plain = { instance_type = "m6i.large", min = 4, max = 3 } }
  }

  expect_failures = [var.worker_pools]
}

run "a_pool_with_a_disk_too_small" {
  command = plan

  variables {
    worker_pools = { plain = { instance_type = "m6i.large", min = 1, max = 3, disk_gib = 4 } }
  }

  expect_failures = [var.worker_pools]
}

run "a_channel_that_flatcar_has_not" {
  command = plan

  variables {
    image = { channel = "edge" }
  }

  expect_failures = [var.image]
}

run "a_version_that_is_none" {
  command = plan

  variables {
    image = { version = "latest" }
  }

  expect_failures = [var.image]
}

run "an_image_that_is_no_ami" {
  command = plan

  variables {
    image = { ami_id = "flatcar" }
  }

  expect_failures = [var.image]
}

run "a_policy_that_is_no_arn" {
  command = plan

  variables {
    extra_policy_arns = { worker = ["ReadOnlyAccess"] }
  }

  expect_failures = [var.extra_policy_arns]
}

run "a_policy_that_may_everything" {
  command = plan

  variables {
    extra_policy_arns = { controller = ["arn:aws:iam::aws:policy/AdministratorAccess"] }
  }

  expect_failures = [var.extra_policy_arns]
}
