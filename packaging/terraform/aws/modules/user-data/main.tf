# User-data for all nodes of a role: the Ignition files beside this one, which Butane makes from
# ignition/*.bu, and with them what is the site's own.

locals {
  # Spelt out, so that a wrong value is left to its validation, which says more than a missing file.
  names = concat(
    ["base"],
    [for kind in ["binary", "sysext"] : kind if kind == var.release.kind],
    [for role in ["controller", "worker"] : role if role == var.role],
  )

  # Workers have no certificates of the other two.
  pki = { for name, pki in var.pki : name => pki
  if var.role == "controller" || !contains(["etcd", "front-proxy"], name) }

  site_toml = templatefile("${path.module}/site.toml.tftpl", {
    role          = var.role
    cluster       = var.cluster
    vault         = var.vault
    pki           = local.pki
    labels        = var.labels
    taints        = var.taints
    etcd_members  = var.etcd_members
    control_plane = var.control_plane
    default_image = "registry.k8s.io/{component}:v${var.cluster.kubernetes_version}"
  })

  # Texts of the site, by path. Everybody may read them: there is nothing secret among them.
  texts = merge(
    { "/etc/nodeagent/config.d/50-site.toml" = local.site_toml },
    trimspace(var.extra_config) == "" ? {} : { "/etc/nodeagent/config.d/60-extra.toml" = var.extra_config },
    { "/etc/nodeagent/ca/vault.pem" = var.vault.ca_pem },
    { for name, pki in local.pki : "/etc/nodeagent/ca/${name}.pem" => pki.ca_pem },
  )

  # Flatcar's way: the image under its version, and a link under the name that it was built with.
  images = merge(
    var.release.kind == "sysext" ? { nodeagent = { url = var.release.url, sha512 = var.release.sha512 } } : {},
    var.extra_sysexts,
  )
  paths = { for name, image in local.images : name => "/opt/extensions/${name}/${basename(image.url)}" }

  fetched = concat(
    [for name, image in local.images : {
      path   = local.paths[name], mode = 420
      source = image.url, sha512 = image.sha512
    }],
    var.release.kind == "binary" ? [{
      path   = "/opt/bin/nodeagent", mode = 493
      source = var.release.url, sha512 = var.release.sha512
    }] : [],
  )

  site = {
    storage = {
      files = concat(
        # urlencode is for queries, where a space may be a plus; in a data URL it may not.
        [for path, text in local.texts : {
          path     = path, mode = 420, overwrite = true
          contents = { source = "data:,${replace(urlencode(text), "+", "%20")}" }
        }],
        [for file in local.fetched : {
          path     = file.path, mode = file.mode
          contents = { source = file.source, verification = { hash = "sha512-${file.sha512}" } }
        }],
      )
      links = [for name, path in local.paths : { path = "/etc/extensions/${name}.raw", target = path }]
    }
  }

  # The parts name different files and units, so putting them together is putting lists in a row; a
  # test has Ignition read the whole.
  parts = concat([for name in local.names : jsondecode(file("${path.module}/${name}.ign"))], [local.site])
  whole = {
    ignition = { version = "3.4.0" }
    storage = {
      files = concat([for part in local.parts : try(part.storage.files, [])]...)
      links = concat([for part in local.parts : try(part.storage.links, [])]...)
    }
    systemd = { units = [for unit in local.units : merge(unit,
      try({ contents = replace(unit.contents, local.comment, "") }, {}),
      try({ dropins = [for dropin in unit.dropins :
        merge(dropin, { contents = replace(dropin.contents, local.comment, "") })
      ] }, {}),
    )] }
  }

  # The comments of units are for those who read them here: they would be a fifth of what EC2 takes.
  comment = "/(?m)^#.*\n/"
  units   = concat([for part in local.parts : try(part.systemd.units, [])]...)

  # On AWS, Ignition takes no gzip'd user-data, but a gzip'd configuration that it is pointed to.
  user_data = jsonencode({
    ignition = {
      version = "3.4.0"
      config = { replace = {
        compression = "gzip"
        source      = "data:;base64,${base64gzip(jsonencode(local.whole))}"
      } }
    }
  })

  # It is ASCII, so characters are bytes.
  bytes     = length(local.user_data)
  too_large = "The user-data of role ${var.role} has ${local.bytes} bytes, and EC2 takes 16384: shorten extra_config, pin fewer authorities in each ca_pem, or make release.kind sysext, which brings its units."
}
