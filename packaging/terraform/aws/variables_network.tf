# The network, who may reach what in it, and the names.

locals {
  most_nodes = var.controllers.count + sum(concat([0], [for pool in values(var.worker_pools) : pool.max]))
}

variable "network" {
  description = <<-TEXT
    A VPC to make: its range, its zones, and whether one NAT gateway is enough for all of them
    (cheaper; when its zone is lost, so is the way out).
  TEXT
  type = object({
    cidr    = string
    zones   = list(string)
    one_nat = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.network == null || try(cidrhost(var.network.cidr, 0) == split("/", var.network.cidr)[0] && contains(["16", "17", "18", "19", "20"], split("/", var.network.cidr)[1]), false)
    error_message = "network.cidr is `${try(var.network.cidr, "")}`; write the first address of a /16 to /20, like 10.0.0.0/16."
  }
  validation {
    condition     = length(distinct(try(var.network.zones, []))) == length(try(var.network.zones, [])) && length(try(var.network.zones, [""])) <= 6
    error_message = "network.zones: a zone is there twice, or there are more than 6; list each once, like eu-central-1a."
  }
  validation {
    condition     = var.network == null || length(try(var.network.zones, [])) >= min(3, var.controllers.count)
    error_message = "network.zones has ${length(try(var.network.zones, []))} zones for ${var.controllers.count} controllers; list at least ${min(3, var.controllers.count)}, or the loss of one takes etcd's majority with it."
  }
}

variable "existing_network" {
  description = <<-TEXT
    A VPC that exists: its range; for each controller a private subnet and a free address in it;
    private subnets of workers (the internal balancer goes there too); public ones for api.public. The
    ways out, to S3 and to Vault have to be there.
  TEXT
  type = object({
    vpc_id = string
    cidr   = string
    controllers = list(object({
      subnet_id = string
      address   = string
    }))
    worker_subnet_ids = list(string)
    public_subnet_ids = optional(list(string), [])
  })
  default = null

  validation {
    condition     = (var.network == null) != (var.existing_network == null)
    error_message = "Give one of network (a VPC is made) and existing_network (one is used), and not both."
  }
  validation {
    condition     = var.existing_network == null || can(cidrhost(var.existing_network.cidr, 0))
    error_message = "existing_network.cidr is `${try(var.existing_network.cidr, "")}`; write the VPC's range like 10.0.0.0/16."
  }
  validation {
    condition     = var.existing_network == null || length(try(var.existing_network.controllers, [])) == var.controllers.count
    error_message = "existing_network.controllers has ${length(try(var.existing_network.controllers, []))} places for ${var.controllers.count} controllers; list one each."
  }
  validation {
    condition     = var.existing_network == null || length(distinct(try(var.existing_network.worker_subnet_ids, []))) == length(try(var.existing_network.worker_subnet_ids, [])) && length(try(var.existing_network.worker_subnet_ids, [])) > 0
    error_message = "existing_network.worker_subnet_ids: list at least one subnet, and each once."
  }
  validation {
    condition     = var.existing_network == null || var.api.public == null || length(try(var.existing_network.public_subnet_ids, [])) > 0
    error_message = "existing_network.public_subnet_ids is empty and api.public is asked for; list the public subnets that its balancer goes to."
  }
}

variable "pod_cidr" {
  description = "The range that pods get addresses from, a /24 for each node."
  type        = string
  default     = "10.244.0.0/16"
  nullable    = false

  validation {
    # Two ranges overlap where they are one once both are cut to the shorter prefix. What is no range
    # at all is told by another rule.
    condition = try(length(distinct([for range in [var.pod_cidr, local.cidr] : cidrhost(format("%s/%d",
      split("/", range)[0], min(split("/", var.pod_cidr)[1], split("/", local.cidr)[1])), 0)
    ])) == 2, true)
    error_message = "pod_cidr (${var.pod_cidr}) overlaps the network (${coalesce(local.cidr, "none")}); move one of them."
  }
  validation {
    condition     = try(pow(2, 24 - tonumber(split("/", var.pod_cidr)[1])) >= local.most_nodes, true)
    error_message = "pod_cidr (${var.pod_cidr}) has fewer /24 than there may be nodes (${local.most_nodes}); take a larger range, or a smaller max of worker_pools."
  }
}

variable "service_cidr" {
  description = "The range that services get addresses from."
  type        = string
  default     = "10.96.0.0/16"
  nullable    = false

  validation {
    # Two ranges overlap where they are one once both are cut to the shorter prefix. What is no range
    # at all is told by another rule.
    condition = try(length(distinct([for range in [var.service_cidr, local.cidr] : cidrhost(format("%s/%d",
      split("/", range)[0], min(split("/", var.service_cidr)[1], split("/", local.cidr)[1])), 0)
    ])) == 2, true)
    error_message = "service_cidr (${var.service_cidr}) overlaps the network (${coalesce(local.cidr, "none")}); move one of them."
  }
}

variable "dns_domain" {
  description = "The DNS domain of services, inside the cluster."
  type        = string
  default     = "cluster.local"
  nullable    = false
}

variable "dns" {
  description = "The domain of the cluster's own names (api.DOMAIN). A private zone is made for it; `zone_id` gives an existing one that the VPC sees."
  type = object({
    domain  = string
    zone_id = optional(string)
  })
  nullable = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.dns.domain))
    error_message = "dns.domain is `${var.dns.domain}`; write a DNS name of two labels or more in lower case, like prod.example.com."
  }
}

variable "api" {
  description = <<-TEXT
    Who may reach the API, beside the nodes: `client_cidrs` the internal balancer (a VPN, an office by a
    private line); with `public`, its `cidrs` a second balancer, which gets the same name in the public zone.
  TEXT
  type = object({
    client_cidrs = optional(list(string), [])
    public = optional(object({
      zone_id = string
      cidrs   = list(string)
    }))
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for cidr in var.api.client_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "api.client_cidrs: write each range like 10.8.0.0/16. For everybody (/0) there is api.public."
  }
  validation {
    condition     = var.api.public == null || try(length(var.api.public.cidrs) > 0 && alltrue([for cidr in var.api.public.cidrs : can(cidrhost(cidr, 0))]), false)
    error_message = "api.public.cidrs: list the ranges that may reach the API, like 198.51.100.0/24; 0.0.0.0/0 only if everybody is meant."
  }
}

variable "pod_network" {
  description = <<-TEXT
    What the network plugin needs between nodes: `ports`, or `routed` where pods' addresses are on the
    wire (the source/destination check of controllers is off; docs/terraform.md has the workers').
  TEXT
  type = object({
    routed = optional(bool, false)
    ports = optional(map(object({
      protocol = string
      port     = number
    })), { vxlan = { protocol = "udp", port = 8472 } })
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for it in values(var.pod_network.ports) : contains(["tcp", "udp"], it.protocol) && it.port >= 1 && it.port <= 65535]) && length(distinct(values(var.pod_network.ports))) == length(var.pod_network.ports)
    error_message = "pod_network.ports: the protocol is tcp or udp, the port 1 to 65535, and each once, like { protocol = \"udp\", port = 8472 }."
  }
}

variable "egress_cidrs" {
  description = "Where nodes may go by HTTPS: registries of images, and AWS. Everywhere, because these tell no ranges; narrow it where there is a mirror."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.egress_cidrs : can(cidrhost(cidr, 0))])
    error_message = "egress_cidrs: write each range like 10.8.0.0/16."
  }
}

variable "access" {
  description = <<-TEXT
    How a person gets onto a node: by Systems Manager (`ssm`: no port is open), or by SSH with a key
    pair of EC2 from trusted ranges. By default not at all.
  TEXT
  type = object({
    ssm          = optional(bool, false)
    ssh_key_name = optional(string)
    ssh_cidrs    = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for cidr in var.access.ssh_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "access.ssh_cidrs: write trusted ranges like 10.8.0.0/24, never everybody's (/0)."
  }
  validation {
    condition     = length(var.access.ssh_cidrs) == 0 || var.access.ssh_key_name != null
    error_message = "access.ssh_cidrs opens port 22 and no key could be used there; give ssh_key_name, or take the ranges out."
  }
}
