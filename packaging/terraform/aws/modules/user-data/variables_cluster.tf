# The cluster around the nodes.

variable "cluster" {
  description = <<-TEXT
    The cluster: its name, where its API is reached (https://HOST[:PORT]), the ranges of pods and
    services, the DNS domain of services, and the version of Kubernetes on the nodes, like 1.36.3.
  TEXT
  type = object({
    name               = string
    api_server         = string
    pod_cidr           = optional(string, "10.244.0.0/16")
    service_cidr       = optional(string, "10.96.0.0/16")
    dns_domain         = optional(string, "cluster.local")
    kubernetes_version = string
  })
  nullable = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.cluster.name))
    error_message = "cluster.name is `${var.cluster.name}`; take a-z, 0-9 and inner -, at most 63."
  }
  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[1-9][0-9]{0,4})?$", var.cluster.api_server))
    error_message = "cluster.api_server is `${var.cluster.api_server}`; write it like https://api.example:6443, without a path."
  }
  validation {
    condition     = can(cidrhost(var.cluster.pod_cidr, 0)) && try(cidrhost(var.cluster.pod_cidr, 0) == split("/", var.cluster.pod_cidr)[0], false)
    error_message = "cluster.pod_cidr is `${var.cluster.pod_cidr}`; write the first address of a range, like 10.244.0.0/16."
  }
  validation {
    condition     = can(cidrhost(var.cluster.service_cidr, 0)) && try(cidrhost(var.cluster.service_cidr, 0) == split("/", var.cluster.service_cidr)[0], false)
    error_message = "cluster.service_cidr is `${var.cluster.service_cidr}`; write the first address of a range, like 10.96.0.0/16."
  }
  validation {
    condition     = try(tonumber(split("/", var.cluster.pod_cidr)[1]) >= 8 && tonumber(split("/", var.cluster.pod_cidr)[1]) <= 24, true)
    error_message = "cluster.pod_cidr is `${var.cluster.pod_cidr}`; each node gets a /24 of it: take a /8 to /24."
  }
  validation {
    condition     = try(tonumber(split("/", var.cluster.service_cidr)[1]) >= 12 && tonumber(split("/", var.cluster.service_cidr)[1]) <= 28, true)
    error_message = "cluster.service_cidr is `${var.cluster.service_cidr}`; the API server takes a /12 to /28."
  }
  validation {
    # Two ranges overlap where they are the same once both are cut to the shorter prefix.
    condition = try(
      length(distinct([
        for range in [var.cluster.pod_cidr, var.cluster.service_cidr] : cidrhost(format("%s/%d",
          split("/", range)[0],
          min(split("/", var.cluster.pod_cidr)[1], split("/", var.cluster.service_cidr)[1])
        ), 0)
    ])) == 2, true)
    error_message = "cluster.pod_cidr (${var.cluster.pod_cidr}) and service_cidr (${var.cluster.service_cidr}) overlap; move one of them."
  }
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", var.cluster.dns_domain))
    error_message = "cluster.dns_domain is `${var.cluster.dns_domain}`; write a DNS name like cluster.local."
  }
  validation {
    condition     = can(regex("^1\\.[0-9]+\\.[0-9]+$", var.cluster.kubernetes_version))
    error_message = "cluster.kubernetes_version is `${var.cluster.kubernetes_version}`; write it like 1.36.3, without a v."
  }
}

variable "etcd_members" {
  description = "On controllers, all members of etcd by name, with the fixed private address of each: one, three or five."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = var.role == "controller" || length(var.etcd_members) == 0
    error_message = "etcd_members is for controllers; leave it out for workers."
  }
  validation {
    condition     = var.role != "controller" || contains([1, 3, 5], length(var.etcd_members))
    error_message = "etcd_members has ${length(var.etcd_members)} members; list one, three or five: an even number survives no more failures than one less."
  }
  validation {
    condition     = alltrue([for name in keys(var.etcd_members) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "etcd_members: take names of a-z, 0-9 and inner -, at most 63."
  }
  validation {
    condition     = alltrue([for address in values(var.etcd_members) : can(cidrhost("${address}/32", 0))])
    error_message = "etcd_members: write each address like 10.0.0.11."
  }
  validation {
    condition     = length(distinct(values(var.etcd_members))) == length(var.etcd_members)
    error_message = "etcd_members: two members have one address; give each controller its own."
  }
  validation {
    condition = alltrue([
      for pair in setproduct(values(var.etcd_members), [var.cluster.pod_cidr, var.cluster.service_cidr]) :
      try(cidrhost("${pair[0]}/${split("/", pair[1])[1]}", 0) != cidrhost(pair[1], 0), true)
    ])
    error_message = "etcd_members: an address lies within the ranges of pods or services; move that range."
  }
}

variable "labels" {
  description = "Labels that the nodes register with. Of Kubernetes' own, NodeRestriction lets a kubelet set only some."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", key)) &&
      can(regex("^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", value))
    ])
    error_message = "labels: write [domain/]name = value, both of at most 63 letters, digits and inner - _ . characters."
  }
  validation {
    condition = alltrue([
      for key in keys(var.labels) :
      !can(regex("^([a-z0-9.-]+\\.)?(kubernetes|k8s)\\.io/", key)) ||
      can(regex("^([a-z0-9.-]+\\.)?(node|kubelet)\\.kubernetes\\.io/", key)) ||
      contains([
        "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch",
        "topology.kubernetes.io/region", "topology.kubernetes.io/zone",
      ], key)
    ])
    error_message = "labels: NodeRestriction lets no kubelet set some of these on its own node; use node.kubernetes.io/… or a domain of your own."
  }
}

variable "taints" {
  description = "Taints that the nodes register with, like `example.com/gpu=yes:NoSchedule`. Where not given, a controller has its usual one."
  type        = list(string)
  default     = null

  validation {
    condition = alltrue([
      for taint in coalesce(var.taints, []) :
      can(regex("^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?(=([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?)?:(NoSchedule|PreferNoSchedule|NoExecute)$", taint))
    ])
    error_message = "taints: write key=value:Effect or key:Effect, Effect being NoSchedule, PreferNoSchedule or NoExecute."
  }
}

variable "control_plane" {
  description = <<-TEXT
    How controllers run the control plane: `static` or `self-hosted`; whether the agent raises it by
    itself; the image of a component, `{component}` being its name (Kubernetes' own registry and
    `cluster.kubernetes_version` where not given); where Vault keeps what controllers share.
  TEXT
  type = object({
    style         = optional(string, "static")
    automatic     = optional(bool, true)
    image         = optional(string)
    secrets_mount = optional(string, "kv-control-plane")
    secrets_path  = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["static", "self-hosted"], var.control_plane.style)
    error_message = "control_plane.style is `${var.control_plane.style}`; take static or self-hosted."
  }
  validation {
    condition     = var.control_plane.image == null || can(regex("^[^{} ]*\\{component\\}[^{} ]*$", coalesce(var.control_plane.image, "x")))
    error_message = "control_plane.image has to say with {component} which image is which component's, like registry.example/{component}:v1.36.3."
  }
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9/_.-]*$", var.control_plane.secrets_mount)) && !endswith(var.control_plane.secrets_mount, "/")
    error_message = "control_plane.secrets_mount is `${var.control_plane.secrets_mount}`; write the mount like kv-control-plane."
  }
}
