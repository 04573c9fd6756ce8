# What is taken: every optional value once, and the size that EC2 sets.

run "a_worker_needs_nothing_more" {
  command = plan
  assert {
    condition     = output.user_data_bytes < 8192 && base64decode(output.user_data_base64) == output.user_data
    error_message = "a worker's user-data is small, and the same in base64"
  }
  assert {
    condition     = strcontains(output.site_toml, "[pki.cluster]") && !strcontains(output.site_toml, "[pki.etcd]")
    error_message = "a worker is told of the cluster's authority alone"
  }
  assert {
    condition     = !strcontains(output.site_toml, "control_plane") && !strcontains(output.site_toml, "taints")
    error_message = "a worker has no control plane, and no taints where none are given"
  }
}

run "a_controller_takes_every_value" {
  command = plan
  variables {
    role = "controller"
    extra_sysexts = {
      kubernetes = { url = "https://x.example/kubernetes-v1.36.3-x86-64.raw", sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
    }
    vault = {
      address   = "https://vault.example:8200"
      ca_pem    = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
      mount     = "clouds/aws"
      role      = "prod-controller"
      namespace = "platform"
    }
    cluster = {
      name               = "prod"
      api_server         = "https://api.example:6443"
      pod_cidr           = "172.16.0.0/12"
      service_cidr       = "192.168.0.0/20"
      dns_domain         = "prod.local"
      kubernetes_version = "1.36.3"
    }
    etcd_members  = { a = "10.0.0.11", b = "10.0.1.11", c = "10.0.2.11" }
    labels        = { "example.com/rack" = "7", "node.kubernetes.io/pool" = "" }
    taints        = ["node-role.kubernetes.io/control-plane:NoSchedule", "example.com/a=b:NoExecute"]
    control_plane = { style = "self-hosted", automatic = false, secrets_mount = "kv", secrets_path = "a/b" }
    extra_config  = "[rotation]\nsurvive_vault_outage = \"8h\"\n"
  }
  assert {
    condition     = strcontains(output.site_toml, "image = \"registry.k8s.io/{component}:v1.36.3\"")
    error_message = "the image follows from the version where it is not given"
  }
}

run "what_ec2_would_not_take_is_refused_with_what_to_change" {
  command = plan
  variables {
    # Hashes do not pack.
    extra_config = join("\n", [for i in range(160) : "# ${sha512(i)}"])
  }
  expect_failures = [output.user_data, output.user_data_base64]
}
