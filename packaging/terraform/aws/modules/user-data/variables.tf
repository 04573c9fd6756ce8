# What all nodes of a role share. Each validation says what the agent would say on the node
# (`nodeagent check`), and what to change, before anything is launched.

variable "role" {
  description = "What these nodes are: `controller` or `worker`."
  type        = string
  nullable    = false

  validation {
    condition     = contains(["controller", "worker"], var.role)
    error_message = "role is `${var.role}`; the agent knows controller and worker: take one of them."
  }
}

variable "release" {
  description = <<-TEXT
    The agent: a system extension (`sysext`) or the bare program (`binary`), where Ignition fetches
    it from, and the SHA-512 of that file (as in the release's SHA512SUMS).
  TEXT
  type = object({
    kind   = string
    url    = string
    sha512 = string
  })
  nullable = false

  validation {
    condition     = contains(["sysext", "binary"], var.release.kind)
    error_message = "release.kind is `${var.release.kind}`; take sysext or binary."
  }
  validation {
    condition     = can(regex("^(https|s3)://[^/ ]+/[^ ?#]+$", var.release.url))
    error_message = "release.url is `${var.release.url}`; write https://HOST/PATH or s3://BUCKET/KEY."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{128}$", var.release.sha512))
    error_message = "release.sha512 is no SHA-512; copy the 128 hex digits from the release's SHA512SUMS."
  }
  validation {
    condition     = var.release.kind != "sysext" || can(regex("/nodeagent[^/]*\\.raw$", var.release.url))
    error_message = "release.url is `${var.release.url}`; a sysext ends in nodeagent-VERSION-x86-64.raw."
  }
  validation {
    condition     = var.release.kind != "binary" || !endswith(var.release.url, ".raw")
    error_message = "release.url is `${var.release.url}`, an image; make release.kind sysext, or name the program."
  }
}

variable "extra_sysexts" {
  description = <<-TEXT
    System extensions beside the agent's, by the name that their image was built with: kubernetes,
    etcd, … What a node runs and the Flatcar image lacks comes so.
  TEXT
  type = map(object({
    url    = string
    sha512 = string
  }))
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for name in keys(var.extra_sysexts) : can(regex("^[a-z0-9][a-z0-9._-]*$", name)) && name != "nodeagent"
    ])
    error_message = "extra_sysexts: take names of a-z, 0-9, ., _ and -; nodeagent itself is `release`."
  }
  validation {
    condition = alltrue([
      for sysext in values(var.extra_sysexts) : can(regex("^(https|s3)://[^/ ]+/[^ ?#]+\\.raw$", sysext.url))
    ])
    error_message = "extra_sysexts: write each url as https://HOST/PATH.raw or s3://BUCKET/KEY.raw."
  }
  validation {
    condition     = alltrue([for sysext in values(var.extra_sysexts) : can(regex("^[0-9a-f]{128}$", sysext.sha512))])
    error_message = "extra_sysexts: each needs its SHA-512, 128 hex digits; without it a changed image would run."
  }
}

variable "vault" {
  description = <<-TEXT
    Vault: its URL, the authorities of its TLS certificate (PEM, pinned), where the aws auth method
    is mounted, and the role to log in with where it is not the node's role.
  TEXT
  type = object({
    address   = string
    ca_pem    = string
    mount     = optional(string, "aws")
    role      = optional(string)
    namespace = optional(string)
  })
  nullable = false

  validation {
    condition     = can(regex("^https://[^/ ]+$", var.vault.address))
    error_message = "vault.address is `${var.vault.address}`; write it like https://vault.example:8200."
  }
  validation {
    condition     = startswith(trimspace(var.vault.ca_pem), "-----BEGIN CERTIFICATE-----") && !strcontains(var.vault.ca_pem, "PRIVATE KEY")
    error_message = "vault.ca_pem is no PEM of a certificate, or holds a key; give the authority of Vault's TLS certificate and nothing else."
  }
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]*$", var.vault.mount)) && !endswith(var.vault.mount, "/")
    error_message = "vault.mount is `${var.vault.mount}`; write the mount like aws, without slashes around it."
  }
}

variable "pki" {
  description = <<-TEXT
    The PKI mounts in Vault and their pinned authorities (PEM, one or more): `cluster`, and for
    controllers `etcd` and `front-proxy`. Workers are given `cluster` alone of these three.
  TEXT
  type = map(object({
    mount  = string
    ca_pem = string
  }))
  nullable = false

  validation {
    condition     = contains(keys(var.pki), "cluster")
    error_message = "pki has no `cluster`: add its mount and the PEM of its authority."
  }
  validation {
    condition     = var.role != "controller" || length(setintersection(keys(var.pki), ["etcd", "front-proxy"])) == 2
    error_message = "pki: a controller needs `etcd` and `front-proxy` too, each a mount of its own in Vault."
  }
  validation {
    condition     = alltrue([for name in keys(var.pki) : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", name))])
    error_message = "pki: take names of a-z, 0-9 and -."
  }
  validation {
    condition     = alltrue([for pki in values(var.pki) : can(regex("^[a-z0-9][a-z0-9/_-]*$", pki.mount)) && !endswith(pki.mount, "/")])
    error_message = "pki: write each mount like pki or prod/pki, without slashes around it."
  }
  validation {
    condition = alltrue([
      for pki in values(var.pki) : startswith(trimspace(pki.ca_pem), "-----BEGIN CERTIFICATE-----") && !strcontains(pki.ca_pem, "PRIVATE KEY")
    ])
    error_message = "pki: each ca_pem is the PEM of an authority's certificate, and never a key."
  }
}

variable "extra_config" {
  description = "More of the agent's configuration, TOML laid over what follows from the rest. No secrets."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = !strcontains(var.extra_config, "PRIVATE KEY") && !can(regex("\\bhv[sbr]\\.[A-Za-z0-9]", var.extra_config))
    error_message = "extra_config holds a key or a token of Vault, and user-data is no place for it: take it out."
  }
}
