# What AWS answers where nothing is asked of it.
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
