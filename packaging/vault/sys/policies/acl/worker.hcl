# What a worker may ask for: its kubelet's certificates. Their names are held to its own by the roles.
path "${prefix}pki/sign/kubelet-client" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/kubelet-server" { capabilities = ["create", "update"] }
