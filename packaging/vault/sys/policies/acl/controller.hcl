# What a controller may ask for: a worker's certificates, and those of the control plane and of etcd.
path "${prefix}pki/sign/kubelet-client" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/kubelet-server" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/kube-apiserver" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/apiserver-kubelet-client" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/controller-manager" { capabilities = ["create", "update"] }
path "${prefix}pki/sign/scheduler" { capabilities = ["create", "update"] }
path "${prefix}pki-etcd/sign/etcd-server" { capabilities = ["create", "update"] }
path "${prefix}pki-etcd/sign/etcd-peer" { capabilities = ["create", "update"] }
path "${prefix}pki-etcd/sign/apiserver-etcd-client" { capabilities = ["create", "update"] }
path "${prefix}pki-etcd/sign/etcd-client" { capabilities = ["create", "update"] }
path "${prefix}pki-front-proxy/sign/front-proxy-client" { capabilities = ["create", "update"] }

# A super-user for the minutes in which the control plane is raised; the role holds it to ten.
path "${prefix}pki/sign/bootstrap-admin" { capabilities = ["create", "update"] }

# What all controllers share: written once by the first of them and never again. Without "update"
# a controller that was broken into cannot put its own keys in the place of the cluster's.
path "${prefix}kv-control-plane/data/${cluster}" { capabilities = ["create", "read"] }
