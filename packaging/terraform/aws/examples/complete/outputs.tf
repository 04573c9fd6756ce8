output "api_server" {
  description = "For kubectl."
  value       = module.cluster.api_server
}

output "controllers" {
  description = "Instances, addresses and volumes."
  value       = module.cluster.controllers
}

output "vault_values" {
  description = "For packaging/vault."
  value       = module.cluster.vault_values
}

output "outdated_controllers" {
  description = "To be replaced, one at a time."
  value       = module.cluster.outdated_controllers
}

output "next" {
  description = "What to do now."
  value       = module.cluster.next
}
