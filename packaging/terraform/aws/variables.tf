# The cluster, what its nodes are made of, and where Vault is. What modules/user-data checks is not
# checked here once more: its messages name the same variables.

variable "cluster_name" {
  description = "Name of the cluster. Roles of IAM are named after it, so it is unique in the account."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,17}[a-z0-9])?$", var.cluster_name))
    error_message = "cluster_name is `${var.cluster_name}`; take a-z, 0-9 and inner -, at most 19: names of balancers are made of it."
  }
  validation {
    condition     = !can(regex("^(internal|sg)(-|$)", var.cluster_name))
    error_message = "cluster_name is `${var.cluster_name}`; AWS takes no balancer named internal-… and no security group named sg-…: begin with another word."
  }
}

variable "tags" {
  description = "Tags of everything, like Environment. The module sets Name, KubernetesCluster, kubernetes.io/cluster/NAME, role, pool and tier itself."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = !anytrue([for key in keys(var.tags) : contains(["Name", "KubernetesCluster", "role", "pool", "tier"], key) || startswith(key, "kubernetes.io/")])
    error_message = "tags: Name, KubernetesCluster, role, pool, tier and kubernetes.io/… are the module's, nodes are found by them; take them out."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes on the nodes, like 1.36.3: that of the kubelet in the image or in extra_sysexts."
  type        = string
  nullable    = false
}

variable "release" {
  description = <<-TEXT
    The agent: a system extension (`sysext`) or the bare program (`binary`), where nodes fetch it
    from, and the SHA-512 of that file. From the cluster's bucket: s3://BUCKET/artifacts/FILE.
  TEXT
  type = object({
    kind   = string
    url    = string
    sha512 = string
  })
  nullable = false

  validation {
    condition     = !startswith(var.release.url, "s3://") || startswith(var.release.url, "s3://${var.bucket.name}/artifacts/")
    error_message = "release.url is `${var.release.url}`; nodes may read s3://${var.bucket.name}/artifacts/ and no other bucket: put the file there (see artifacts), or give an https URL."
  }
}

variable "extra_sysexts" {
  description = "System extensions beside the agent's (kubernetes, etcd, …), by the name that their image was built with."
  type = map(object({
    url    = string
    sha512 = string
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for it in values(var.extra_sysexts) : !startswith(it.url, "s3://") || startswith(it.url, "s3://${var.bucket.name}/artifacts/")])
    error_message = "extra_sysexts: nodes may read s3://${var.bucket.name}/artifacts/ and no other bucket; put the files there (see artifacts), or give https URLs."
  }
}

variable "artifacts" {
  description = "Files to put into the bucket before nodes are launched: name below artifacts/ = path of the file."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.artifacts) : can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*$", name))])
    error_message = "artifacts: take names of letters, digits, . _ / and -, like nodeagent-0.1.0-x86-64.raw."
  }
  validation {
    condition     = alltrue([for path in values(var.artifacts) : fileexists(path)])
    error_message = "artifacts: no file at ${join(", ", [for path in values(var.artifacts) : path if !fileexists(path)])}; build the release first, or write the path from where terraform runs."
  }
}

variable "bucket" {
  description = <<-TEXT
    The S3 bucket of artifacts/ and backups/. With `create = false` an existing one is used as it is.
    `backup_days`: how long backups, and former versions of anything, are kept.
  TEXT
  type = object({
    name        = string
    create      = optional(bool, true)
    backup_days = optional(number, 90)
  })
  nullable = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket.name))
    error_message = "bucket.name is `${var.bucket.name}`; take 3 to 63 of a-z, 0-9 and inner -. A dot does not fit the certificate of S3."
  }
  validation {
    condition     = var.bucket.backup_days >= 1 && var.bucket.backup_days <= 3650
    error_message = "bucket.backup_days is ${var.bucket.backup_days}; take 1 to 3650."
  }
}

variable "kms_key_arn" {
  description = <<-TEXT
    A key of KMS for the bucket and all volumes. The account's own keys for S3 and EBS where it is
    not given. Its policy has to let the service-linked role of Auto Scaling use it.
  TEXT
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[0-9a-z-]+$", var.kms_key_arn))
    error_message = "kms_key_arn is no ARN of a key; write it like arn:aws:kms:eu-central-1:123456789012:key/UUID. Policies take no alias."
  }
}

variable "vault" {
  description = <<-TEXT
    Vault, which this module does not make: its URL, the authorities of its TLS certificate (PEM),
    the ranges that it answers from (`cidrs`: nodes may go there), where its aws auth method is
    mounted, and the roles to log in with where they are not called controller and worker.
  TEXT
  type = object({
    address         = string
    ca_pem          = string
    cidrs           = list(string)
    mount           = optional(string, "aws")
    namespace       = optional(string)
    controller_role = optional(string)
    worker_role     = optional(string)
  })
  nullable = false

  validation {
    condition     = length(var.vault.cidrs) > 0 && alltrue([for cidr in var.vault.cidrs : can(cidrhost(cidr, 0))])
    error_message = "vault.cidrs: list the ranges that Vault's addresses are in, like 10.8.0.0/24; without one no node reaches it."
  }
}

variable "pki" {
  description = "The PKI mounts in Vault and their pinned authorities (PEM): cluster, etcd and front-proxy, each a mount of its own."
  type = map(object({
    mount  = string
    ca_pem = string
  }))
  nullable = false
}

variable "control_plane" {
  description = "How the control plane is run; docs/control-plane.md has what the words mean."
  type = object({
    style         = optional(string, "static")
    automatic     = optional(bool, true)
    image         = optional(string)
    secrets_mount = optional(string, "kv-control-plane")
    secrets_path  = optional(string)
  })
  default  = {}
  nullable = false
}

variable "extra_config" {
  description = "More of the agent's configuration (TOML), for each role. No secrets: every process on a node can read user-data."
  type = object({
    controller = optional(string, "")
    worker     = optional(string, "")
  })
  default  = {}
  nullable = false
}
