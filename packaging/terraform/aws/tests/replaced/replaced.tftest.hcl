# What happens to controllers after the first apply: nothing by itself, and their volumes stay. These
# runs apply (to a mock), and what they applied is taken away afterwards, which the volumes refuse:
# so they are run on a copy of the module without prevent_destroy.

mock_provider "aws" {
  source = "./tests/aws"
}

# Beside site.auto.tfvars, which has to be named: this is another directory.
variables {
  image        = { ami_id = "ami-0123456789abcdef0" }
  worker_pools = { plain = { instance_type = "m6i.large", min = 1, max = 3 } }
}

run "launched" {
  assert {
    condition     = output.outdated_controllers == []
    error_message = "what was just launched is not outdated"
  }
}

run "a_new_image_type_and_release_touch_no_controller" {
  command = plan

  variables {
    image       = { ami_id = "ami-0123456789abcdef1" }
    controllers = { instance_type = "m6i.xlarge" }
    release = {
      kind   = "sysext"
      url    = "s3://example-prod/artifacts/nodeagent-0.2.0-x86-64.raw"
      sha512 = "ce83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
    }
  }

  assert {
    condition     = { for name, it in aws_instance.controller : name => it.id } == { for name, it in run.launched.controllers : name => it.instance_id }
    error_message = "the instances stay"
  }
  assert {
    condition     = alltrue([for it in aws_instance.controller : it.ami == "ami-0123456789abcdef0" && it.instance_type == "m6i.large"])
    error_message = "and are not changed"
  }
  assert {
    condition     = output.outdated_controllers == ["controller-0", "controller-1", "controller-2"]
    error_message = "a person is told which to replace"
  }
  assert {
    condition     = aws_launch_template.worker["plain"].image_id == "ami-0123456789abcdef1"
    error_message = "workers are rolled"
  }
}

run "a_replaced_controller_is_new_and_keeps_its_volume" {
  variables {
    image       = { ami_id = "ami-0123456789abcdef1" }
    controllers = { instance_type = "m6i.xlarge" }
  }
  plan_options {
    replace = [aws_instance.controller["controller-0"]]
  }

  assert {
    condition     = output.controllers["controller-0"].instance_id != run.launched.controllers["controller-0"].instance_id
    error_message = "another instance"
  }
  assert {
    condition     = aws_instance.controller["controller-0"].ami == "ami-0123456789abcdef1" && aws_instance.controller["controller-0"].instance_type == "m6i.xlarge"
    error_message = "of the new image and type"
  }
  assert {
    condition     = output.controllers["controller-0"].etcd_volume_id == run.launched.controllers["controller-0"].etcd_volume_id
    error_message = "with the volume of the former"
  }
  assert {
    condition     = aws_volume_attachment.etcd["controller-0"].instance_id == output.controllers["controller-0"].instance_id
    error_message = "which is attached to it"
  }
  assert {
    condition     = output.outdated_controllers == ["controller-1", "controller-2"]
    error_message = "and the others are next"
  }
}
