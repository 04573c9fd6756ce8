# Each rule about the network, the names and who may come in refuses what it is there for, when it is planned.

mock_provider "aws" {
  source = "./tests/aws"
}

run "a_network_that_is_no_range" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  expect_failures = [var.network]
}

run "a_zone_twice" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0/16", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1b"] }
  }

  expect_failures = [var.network]
}

run "two_zones_for_three_controllers" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0/16", zones = ["eu-central-1a", "eu-central-1b"] }
  }

  expect_failures = [var.network]
}

run "no_network" {
  command = plan

  variables {
    network = null
  }

  expect_failures = [var.existing_network]
}

run "an_existing_network_that_is_no_range" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9"
      controllers       = [for host in [20, 21, 22] : { subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.${host}" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1"]
    }
  }

  expect_failures = [var.existing_network]
}

run "an_existing_network_with_too_few_places" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9.0.0/16"
      controllers       = [{ subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.20" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1"]
    }
  }

  expect_failures = [var.existing_network]
}

run "an_existing_subnet_twice" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9.0.0/16"
      controllers       = [for host in [20, 21, 22] : { subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.${host}" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1", "subnet-0123456789abcdef1"]
    }
  }

  expect_failures = [var.existing_network]
}

run "a_public_api_without_public_subnets" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9.0.0/16"
      controllers       = [for host in [20, 21, 22] : { subnet_id = "subnet-0123456789abcdef0", address = "10.9.1.${host}" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1"]
    }
    api = { public = { zone_id = "Z0PUBLIC", cidrs = ["198.51.100.0/24"] } }
  }

  expect_failures = [var.existing_network]
}

run "an_address_outside_its_subnet" {
  command = plan

  variables {
    network = null
    existing_network = {
      vpc_id            = "vpc-0123456789abcdef0"
      cidr              = "10.9.0.0/16"
      controllers       = [for host in [20, 21, 22] : { subnet_id = "subnet-0123456789abcdef0", address = "10.9.2.${host}" }]
      worker_subnet_ids = ["subnet-0123456789abcdef1"]
    }
  }

  expect_failures = [aws_network_interface.controller]
}

run "pods_in_the_network" {
  command = plan

  variables {
    pod_cidr = "10.0.128.0/17"
  }

  expect_failures = [var.pod_cidr]
}

run "more_nodes_than_ranges_of_pods" {
  command = plan

  variables {
    pod_cidr     = "10.244.0.0/22"
    worker_pools = { plain = { instance_type = "m6i.large", min = 1, max = 3 } }
  }

  expect_failures = [var.pod_cidr]
}

run "services_in_the_network" {
  command = plan

  variables {
    service_cidr = "10.0.0.0/12"
  }

  expect_failures = [var.service_cidr]
}

run "a_domain_of_one_label" {
  command = plan

  variables {
    dns = { domain = "prod" }
  }

  expect_failures = [var.dns]
}

run "everybody_at_the_internal_api" {
  command = plan

  variables {
    api = { client_cidrs = ["0.0.0.0/0"] }
  }

  expect_failures = [var.api]
}

run "a_public_api_for_nobody" {
  command = plan

  variables {
    api = { public = { zone_id = "Z0PUBLIC", cidrs = [] } }
  }

  expect_failures = [var.api]
}

run "a_protocol_that_has_no_ports" {
  command = plan

  variables {
    pod_network = { ports = { ipip = { protocol = "ipip", port = 4 } } }
  }

  expect_failures = [var.pod_network]
}

run "a_way_out_that_is_no_range" {
  command = plan

  variables {
    egress_cidrs = ["everywhere"]
  }

  expect_failures = [var.egress_cidrs]
}

run "ssh_for_everybody" {
  command = plan

  variables {
    access = { ssh_key_name = "ops", ssh_cidrs = ["0.0.0.0/0"] }
  }

  expect_failures = [var.access]
}

run "ssh_without_a_key" {
  command = plan

  variables {
    access = { ssh_cidrs = ["10.8.1.0/24"] }
  }

  expect_failures = [var.access]
}
