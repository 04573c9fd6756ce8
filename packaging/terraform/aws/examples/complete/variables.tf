# What is on the disk of whoever applies, and in no repository.

variable "nodeagent_image" {
  description = "Path of nodeagent-VERSION-x86-64.raw, from the release."
  type        = string
}

variable "kubernetes_image" {
  description = "Path of the sysext with kubelet, containerd, etcd and CNI plugins, .raw."
  type        = string
}

variable "site_vpc_id" {
  description = "The VPC with Vault and the VPN, 10.8.0.0/16 here. Its own routes back are the site's."
  type        = string
}

variable "authorities" {
  description = "Directory with vault.pem, cluster.pem, etcd.pem and front-proxy.pem: certificates, no keys."
  type        = string
  default     = "authorities"
}
