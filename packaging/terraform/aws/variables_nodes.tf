# The machines.

variable "image" {
  description = <<-TEXT
    Flatcar's image (x86-64): the newest of a channel, or a version of it (4230.2.1), or any AMI. Pin
    it in production: a new one rolls all pools at the next apply.
  TEXT
  type = object({
    channel = optional(string, "stable")
    version = optional(string, "*")
    ami_id  = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["stable", "beta", "alpha"], var.image.channel)
    error_message = "image.channel is `${var.image.channel}`; take stable, beta or alpha, or name another image by ami_id."
  }
  validation {
    condition     = var.image.version == "*" || can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.image.version))
    error_message = "image.version is `${var.image.version}`; write it like 4230.2.1, or leave it out for the newest."
  }
  validation {
    condition     = var.image.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.image.ami_id))
    error_message = "image.ami_id is no AMI; write it like ami-0123456789abcdef0."
  }
}

variable "controllers" {
  description = <<-TEXT
    Controllers: one, three or five, each with a volume of its own for etcd. The number is for the
    cluster's life: its list of members is not changed by a plan. `taints` not given is the usual one.
  TEXT
  type = object({
    count         = optional(number, 3)
    instance_type = optional(string, "m6i.large")
    disk_gib      = optional(number, 20)
    etcd_gib      = optional(number, 20)
    labels        = optional(map(string), {})
    taints        = optional(list(string))
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([1, 3, 5], var.controllers.count)
    error_message = "controllers.count is ${var.controllers.count}; take 1, 3 or 5: an even number of etcd members survives no more failures than one less."
  }
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.controllers.instance_type)) && !can(regex("^[a-z]+[0-9]+[a-z]*g[a-z]*\\.", var.controllers.instance_type))
    error_message = "controllers.instance_type is `${var.controllers.instance_type}`; write an x86-64 type like m6i.large (a g after the digit is ARM)."
  }
  validation {
    condition     = var.controllers.disk_gib >= 10 && var.controllers.etcd_gib >= 4 && var.controllers.etcd_gib <= 1024
    error_message = "controllers: disk_gib is at least 10 (the image and the components), etcd_gib 4 to 1024 (etcd's own limit is 8 GiB and it writes a second copy to defragment)."
  }
}

variable "worker_pools" {
  description = <<-TEXT
    Pools of workers by name. `min` and `max` are the group's; labels and taints are what nodes register
    with (the label node.kubernetes.io/pool is added); `security_group_ids` and `target_group_arns` join
    what the site has for its ingress; `warmup_seconds` is how long a new node is given in a roll-out.
  TEXT
  type = map(object({
    instance_type      = optional(string)
    disk_gib           = optional(number, 40)
    min                = number
    max                = number
    labels             = optional(map(string), {})
    taints             = optional(list(string), [])
    security_group_ids = optional(list(string), [])
    target_group_arns  = optional(list(string), [])
    warmup_seconds     = optional(number, 180)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.worker_pools) : can(regex("^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", name))])
    error_message = "worker_pools: name pools with a-z, 0-9 and inner -, at most 32."
  }
  validation {
    condition     = alltrue([for pool in values(var.worker_pools) : pool.instance_type != null])
    error_message = "worker_pools: ${join(", ", [for name, pool in var.worker_pools : name if pool.instance_type == null])} without a type; add instance_type = \"m6i.large\" or another."
  }
  validation {
    condition     = alltrue([for pool in values(var.worker_pools) : pool.instance_type == null || can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", pool.instance_type)) && !can(regex("^[a-z]+[0-9]+[a-z]*g[a-z]*\\.", pool.instance_type))])
    error_message = "worker_pools: each instance_type is an x86-64 type like m6i.large (a g after the digit is ARM)."
  }
  validation {
    condition     = alltrue([for pool in values(var.worker_pools) : pool.min >= 0 && pool.min <= pool.max && pool.max >= 1 && pool.max <= 1000])
    error_message = "worker_pools: ${join(", ", [for name, pool in var.worker_pools : "${name} has min ${pool.min} and max ${pool.max}" if pool.min < 0 || pool.min > pool.max || pool.max < 1 || pool.max > 1000])}; min is 0 or more and not above max, max 1 to 1000."
  }
  validation {
    condition     = alltrue([for pool in values(var.worker_pools) : pool.disk_gib >= 10 && pool.disk_gib <= 16384])
    error_message = "worker_pools: disk_gib is 10 to 16384 (the system, images and pods' files are on it)."
  }
}

variable "extra_policy_arns" {
  description = "Policies of IAM that nodes of a role carry beside their own: for a cloud controller, a network plugin, an autoscaler."
  type = object({
    controller = optional(list(string), [])
    worker     = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for arn in concat(var.extra_policy_arns.controller, var.extra_policy_arns.worker) : can(regex("^arn:aws[a-z-]*:iam::(aws|[0-9]{12}):policy/.+$", arn))])
    error_message = "extra_policy_arns: write ARNs of policies, like arn:aws:iam::123456789012:policy/NAME."
  }
  validation {
    condition     = !anytrue([for arn in concat(var.extra_policy_arns.controller, var.extra_policy_arns.worker) : can(regex("policy/(AdministratorAccess|PowerUserAccess)$", arn))])
    error_message = "extra_policy_arns: whoever breaks into a node has what it may; name the few rights instead of AdministratorAccess or PowerUserAccess."
  }
}
