# What this module was written and tested against. The provider itself (region, account, default
# tags) is the root module's business.
terraform {
  # 1.9 lets a validation look at other variables; the tests run with 1.11.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # primary_network_interface of an instance.
      version = ">= 6.25, < 7.0"
    }
  }
}
