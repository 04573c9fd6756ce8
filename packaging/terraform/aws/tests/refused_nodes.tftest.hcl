# Each rule about machines and what they may refuses what it is there for, when it is planned.

mock_provider "aws" {
  source = "./tests/aws"
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
