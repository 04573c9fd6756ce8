# What a controller may ask for: a worker's certificates, and those of the control plane and of etcd.
path "pki/sign/kubelet-client" { capabilities = ["create", "update"] }
path "pki/sign/kubelet-server" { capabilities = ["create", "update"] }
path "pki/sign/kube-apiserver" { capabilities = ["create", "update"] }
path "pki/sign/apiserver-kubelet-client" { capabilities = ["create", "update"] }
path "pki/sign/controller-manager" { capabilities = ["create", "update"] }
path "pki/sign/scheduler" { capabilities = ["create", "update"] }
path "pki-etcd/sign/etcd-server" { capabilities = ["create", "update"] }
path "pki-etcd/sign/etcd-peer" { capabilities = ["create", "update"] }
path "pki-etcd/sign/apiserver-etcd-client" { capabilities = ["create", "update"] }
path "pki-front-proxy/sign/front-proxy-client" { capabilities = ["create", "update"] }
