# No provider and no resource: values go in, text comes out. 1.9 is the first whose validations may
# look at other variables; 1.11 is what the tests run.
terraform {
  required_version = ">= 1.11"
}
