output "user_data" {
  description = "The user-data, as EC2 gives it to the instance."
  value       = local.user_data

  precondition {
    condition     = local.bytes <= 16384
    error_message = local.too_large
  }
}

output "user_data_base64" {
  description = "The same in base64, as launch templates want it."
  value       = base64encode(local.user_data)

  precondition {
    condition     = local.bytes <= 16384
    error_message = local.too_large
  }
}

output "user_data_bytes" {
  description = "How many bytes it has, of the 16384 that EC2 takes."
  value       = local.bytes
}

output "site_toml" {
  description = "What the agent is told: /etc/nodeagent/config.d/50-site.toml, for a person to read."
  value       = local.site_toml
}
