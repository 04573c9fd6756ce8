//! User data as a site has them: Terraform's own module, given what a person would give it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::release::Release;
use super::{Cloud, Instance, text};
use crate::controllers::configure::kubelet_in_a_container;
use crate::peer::process::find;

const MODULE: &str = "../../packaging/terraform/aws/modules/user-data";
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

/// Where the program is, or what to do to have it.
pub(super) fn terraform() -> Result<PathBuf, String> {
    find("terraform", "terraform")
}

/// What the module makes of its inputs, by the real Terraform; or what that says against them.
pub fn render(inputs: &Value) -> Result<String, String> {
    let terraform = terraform()?;
    let directory = tempfile::tempdir().map_err(text)?;
    copy_module(directory.path())?;
    let inputs_file = directory.path().join("terraform.tfvars.json");
    fs::write(inputs_file, inputs.to_string()).map_err(text)?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&terraform);
        command.current_dir(directory.path()).args(arguments).env_clear();
        // It asks its maker for a newer version otherwise.
        command.env("CHECKPOINT_DISABLE", "1").env("HOME", directory.path());
        let output = command.output().map_err(text)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    run(&["init", "-input=false", "-no-color"])?;
    run(&["apply", "-input=false", "-auto-approve", "-no-color"])?;
    run(&["output", "-raw", "user_data"])
}

fn copy_module(to: &Path) -> Result<(), String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODULE);
    for entry in fs::read_dir(&module).map_err(text)? {
        let path = entry.map_err(text)?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).map_err(text)?;
        }
    }
    Ok(())
}
