# The examples can be planned as they are.

mock_provider "aws" {
  source = "./tests/aws"
}

run "complete" {
  command = plan

  module {
    source = "./examples/complete"
  }

  variables {
    nodeagent_image  = "tests/artifacts/nodeagent-0.1.0-x86-64.raw"
    kubernetes_image = "tests/artifacts/kubernetes-1.36.3-x86-64.raw"
    authorities      = "tests/authorities"
    site_vpc_id      = "vpc-0123456789abcdef0"
  }

  assert {
    condition     = length(aws_route.site) == 3
    error_message = "from each zone there is a way to Vault"
  }
  assert {
    condition     = output.api_server == "https://api.prod.example.com:6443"
    error_message = "where the API will be"
  }
}

run "existing_network" {
  command = plan

  module {
    source = "./examples/existing-network"
  }

  variables {
    nodeagent_sha512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
    authorities      = "tests/authorities"
  }
}
