//! What a site gives Terraform's module for user data.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::release::Release;
use super::{Cloud, Instance};
use crate::controllers::configure::kubelet_in_a_container;

/// The one of `tests/peers/kube`.
const KUBERNETES: &str = "1.36.3";
/// The PKI mounts by the names that the module has for them.
const AUTHORITIES: [(&str, &str); 3] =
    [("cluster", "pki"), ("etcd", "pki-etcd"), ("front-proxy", "pki-front-proxy")];

impl Cloud {
    /// The module's inputs for the workers of a pool, whose API the controller serves.
    #[must_use]
    pub fn worker_inputs(&self, release: &Release, api: Ipv4Addr) -> Value {
        let authorities = AUTHORITIES.iter().map(|(name, mount)| {
            let pem = &self.site.configured.roots[*mount];
            ((*name).to_owned(), json!({ "mount": mount, "ca_pem": pem }))
        });
        json!({
            "role": "worker",
            "release": release.input(),
            "vault": {
                "address": format!("https://{}", self.site.proxy.addr()),
                "ca_pem": self.site.vault.ca_pem(),
            },
            "pki": authorities.collect::<serde_json::Map<_, _>>(),
            "cluster": {
                "name": "rig",
                "api_server": format!("https://{api}:6443"),
                "kubernetes_version": KUBERNETES,
            },
            "labels": { "example.com/pool": "general" },
            "taints": ["example.com/quiet=yes:PreferNoSchedule"],
            "extra_config": kubelet_in_a_container(),
        })
    }

    /// The same for the one controller of a cluster.
    #[must_use]
    pub fn controller_inputs(&self, release: &Release, controller: &Instance) -> Value {
        let address = controller.machine.ip();
        let mut inputs = self.worker_inputs(release, address);
        inputs["role"] = "controller".into();
        inputs["etcd_members"] = json!({ controller.machine.name(): address });
        inputs["control_plane"] = json!({ "image": "localhost/{component}:1" });
        inputs["labels"] = json!({});
        inputs["taints"] = Value::Null;
        inputs
    }
}
