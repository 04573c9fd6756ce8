# What each rule refuses. `terraform test` here needs no provider and no network.

run "a_role_that_the_agent_does_not_know" {
  command = plan
  variables {
    role = "edge"
  }
  expect_failures = [var.role]
}

run "a_kind_of_release_that_there_is_not" {
  command = plan
  variables {
    release = {
      kind   = "deb"
      url    = "https://x.example/nodeagent-1.raw"
      sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    }
  }
  expect_failures = [var.release]
}

run "a_release_without_a_scheme" {
  command = plan
  variables {
    release = {
      kind   = "sysext"
      url    = "x.example/nodeagent-1.raw"
      sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    }
  }
  expect_failures = [var.release]
}

run "a_release_over_plain_http" {
  command = plan
  variables {
    release = {
      kind   = "sysext"
      url    = "http://x.example/nodeagent-1.raw"
      sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    }
  }
  expect_failures = [var.release]
}

run "a_short_hash" {
  command = plan
  variables {
    release = {
      kind   = "sysext"
      url    = "https://x.example/nodeagent-1.raw"
      sha512 = "0123"
    }
  }
  expect_failures = [var.release]
}

run "an_extension_by_another_name" {
  command = plan
  variables {
    release = {
      kind   = "sysext"
      url    = "https://x.example/agent.raw"
      sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    }
  }
  expect_failures = [var.release]
}

run "an_image_taken_for_the_program" {
  command = plan
  variables {
    release = {
      kind   = "binary"
      url    = "https://x.example/nodeagent-1.raw"
      sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    }
  }
  expect_failures = [var.release]
}

run "the_agent_as_an_extra_extension" {
  command = plan
  variables {
    extra_sysexts = {
      nodeagent = { url = "https://x.example/k.raw", sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
    }
  }
  expect_failures = [var.extra_sysexts]
}

run "an_extension_that_is_no_image" {
  command = plan
  variables {
    extra_sysexts = {
      etcd = { url = "https://x.example/etcd.tar.gz", sha512 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
    }
  }
  expect_failures = [var.extra_sysexts]
}

run "an_extension_without_a_hash" {
  command = plan
  variables {
    extra_sysexts = {
      etcd = { url = "https://x.example/k.raw", sha512 = "" }
    }
  }
  expect_failures = [var.extra_sysexts]
}

run "a_vault_over_plain_http" {
  command = plan
  variables {
    vault = {
      address = "http://vault.example:8200"
      ca_pem  = "-----BEGIN CERTIFICATE-----"
    }
  }
  expect_failures = [var.vault]
}

run "a_vault_with_a_path" {
  command = plan
  variables {
    vault = {
      address = "https://vault.example/v1"
      ca_pem  = "-----BEGIN CERTIFICATE-----"
    }
  }
  expect_failures = [var.vault]
}

run "a_vault_without_its_authority" {
  command = plan
  variables {
    vault = {
      address = "https://vault.example"
      ca_pem  = ""
    }
  }
  expect_failures = [var.vault]
}

run "a_key_for_the_authority_of_vault" {
  command = plan
  variables {
    vault = {
      address = "https://vault.example"
      ca_pem  = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"
    }
  }
  expect_failures = [var.vault]
}

run "a_mount_with_slashes" {
  command = plan
  variables {
    vault = {
      address = "https://vault.example"
      ca_pem  = "-----BEGIN CERTIFICATE-----"
      mount   = "/aws/"
    }
  }
  expect_failures = [var.vault]
}

run "no_authority_of_the_cluster" {
  command = plan
  variables {
    pki = {
      etcd = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----" }
    }
  }
  expect_failures = [var.pki]
}

run "a_controller_without_the_authority_of_etcd" {
  command = plan
  variables {
    role         = "controller"
    etcd_members = { a = "10.0.0.11" }
    pki = {
      cluster = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----" }
    }
  }
  expect_failures = [var.pki]
}

run "an_authority_with_a_bad_name" {
  command = plan
  variables {
    pki = {
      cluster = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----" }
      "My CA" = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----" }
    }
  }
  expect_failures = [var.pki]
}

run "an_authority_at_a_bad_mount" {
  command = plan
  variables {
    pki = {
      cluster = { mount = "pki/", ca_pem = "-----BEGIN CERTIFICATE-----" }
    }
  }
  expect_failures = [var.pki]
}

run "an_authority_with_its_key" {
  command = plan
  variables {
    pki = {
      cluster = { mount = "pki", ca_pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----" }
    }
  }
  expect_failures = [var.pki]
}

run "a_token_in_the_configuration" {
  command = plan
  variables {
    extra_config = "# token hvs.CAESI"
  }
  expect_failures = [var.extra_config]
}

run "a_cluster_with_a_bad_name" {
  command = plan
  variables {
    cluster = {
      name               = "Prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
    }
  }
  expect_failures = [var.cluster]
}

run "an_api_with_a_path" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example/x"
      kubernetes_version = "1.36.3"
    }
  }
  expect_failures = [var.cluster]
}

run "pods_without_a_range" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      pod_cidr           = "10.244.0.0"
    }
  }
  expect_failures = [var.cluster]
}

run "pods_not_at_the_first_address" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      pod_cidr           = "10.244.1.1/16"
    }
  }
  expect_failures = [var.cluster]
}

run "pods_in_too_small_a_range" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      pod_cidr           = "10.244.0.0/25"
    }
  }
  expect_failures = [var.cluster]
}

run "services_in_too_large_a_range" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      service_cidr       = "96.0.0.0/8"
    }
  }
  expect_failures = [var.cluster]
}

run "services_without_a_range" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      service_cidr       = "many"
    }
  }
  expect_failures = [var.cluster]
}

run "ranges_that_overlap" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      pod_cidr           = "10.0.0.0/8"
      service_cidr       = "10.96.0.0/16"
    }
  }
  expect_failures = [var.cluster]
}

run "a_domain_that_is_none" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36.3"
      dns_domain         = "cluster local"
    }
  }
  expect_failures = [var.cluster]
}

run "a_version_without_its_last_number" {
  command = plan
  variables {
    cluster = {
      name               = "prod"
      api_server         = "https://api.example"
      kubernetes_version = "1.36"
    }
  }
  expect_failures = [var.cluster]
}

run "members_on_a_worker" {
  command = plan
  variables {
    etcd_members = { a = "10.0.0.11" }
  }
  expect_failures = [var.etcd_members]
}

run "no_members" {
  command = plan
  variables {
    role = "controller"
  }
  expect_failures = [var.etcd_members]
}

run "an_even_number_of_members" {
  command = plan
  variables {
    role = "controller"
    etcd_members = {
      a = "10.0.0.11"
      b = "10.0.0.12"
    }
  }
  expect_failures = [var.etcd_members]
}

run "a_member_with_a_bad_name" {
  command = plan
  variables {
    role = "controller"
    etcd_members = {
      A_1 = "10.0.0.11"
    }
  }
  expect_failures = [var.etcd_members]
}

run "a_member_with_a_name_for_an_address" {
  command = plan
  variables {
    role = "controller"
    etcd_members = {
      a = "a.example"
    }
  }
  expect_failures = [var.etcd_members]
}

run "two_members_with_one_address" {
  command = plan
  variables {
    role = "controller"
    etcd_members = {
      a = "10.0.0.11"
      b = "10.0.0.11"
      c = "10.0.0.12"
    }
  }
  expect_failures = [var.etcd_members]
}

run "a_member_among_the_pods" {
  command = plan
  variables {
    role = "controller"
    etcd_members = {
      a = "10.244.7.1"
    }
  }
  expect_failures = [var.etcd_members]
}

run "a_label_that_is_none" {
  command = plan
  variables {
    labels = { "example.com/a b" = "c" }
  }
  expect_failures = [var.labels]
}

run "a_label_that_no_kubelet_may_set" {
  command = plan
  variables {
    labels = { "node-role.kubernetes.io/worker" = "" }
  }
  expect_failures = [var.labels]
}

run "a_taint_without_an_effect" {
  command = plan
  variables {
    taints = ["example.com/gpu=yes"]
  }
  expect_failures = [var.taints]
}

run "a_style_that_there_is_not" {
  command = plan
  variables {
    control_plane = { style = "systemd" }
  }
  expect_failures = [var.control_plane]
}

run "an_image_without_a_component" {
  command = plan
  variables {
    control_plane = { image = "registry.example/kube:v1" }
  }
  expect_failures = [var.control_plane]
}

run "a_secrets_mount_with_a_slash" {
  command = plan
  variables {
    control_plane = { secrets_mount = "kv/" }
  }
  expect_failures = [var.control_plane]
}
