output "user_data" {
  description = "The user-data, as EC2 gives it to the instance."
  value       = local.user_data

  precondition {
    # It is ASCII, so characters are bytes.
    condition     = length(local.user_data) <= 16384
    error_message = "The user-data of role ${var.role} has ${length(local.user_data)} bytes, and EC2 takes 16384: shorten extra_config, pin fewer authorities in each ca_pem, or make release.kind sysext, which brings its units."
  }
}

output "user_data_base64" {
  description = "The same in base64, as launch templates want it."
  value       = base64encode(local.user_data)

  precondition {
    condition     = length(local.user_data) <= 16384
    error_message = "The user-data of role ${var.role} has ${length(local.user_data)} bytes, and EC2 takes 16384: shorten extra_config, pin fewer authorities in each ca_pem, or make release.kind sysext, which brings its units."
  }
}

output "user_data_bytes" {
  description = "How many bytes it has, of the 16384 that EC2 takes."
  value       = length(local.user_data)
}

output "site_toml" {
  description = "What the agent is told: /etc/nodeagent/config.d/50-site.toml, for a person to read."
  value       = local.site_toml
}
