//! No secret in user data, and none in a file of the node that everybody may read.

use std::collections::BTreeMap;
use std::path::Path;

use rig::launch::Instance;

use super::{Story, read, told};
use crate::scan::{Secrets, open_files};

/// Where something is written while a node is launched and runs. Not the programs of the image.
const PLACES: [&str; 6] = ["etc", "home", "opt", "root", "run", "var"];
/// What a secret looks like, whoever it belongs to: keys, tokens of Vault, keys of AWS.
const LOOKS: [&str; 6] = ["PRIVATE KEY", "hvs.", "hvb.", "AKIA", "ASIA", "SecretAccessKey"];

/// What was told to the instance, as Ignition understood it, holds no secret.
pub(super) fn assert_none_told(story: &Story, instance: &Instance) {
    let credentials = story.site.aws.role_credentials(&instance.id).expect("it has a role");
    let token = story.site.vault.root_token().expose().to_owned();
    let mut secrets = Secrets::default();
    secrets.add("key of the role", &credentials.secret_access_key);
    secrets.add("root token", &token);
    LOOKS.iter().for_each(|look| secrets.add_look(look));
    let mut texts = BTreeMap::new();
    let config = instance.ignition().config();
    texts.insert("the configuration".to_owned(), config.to_string().into_bytes());
    for place in PLACES {
        // Written by Ignition, so decoded; the program itself knows what keys look like.
        open_files(&instance.machine.root().join(place), &mut texts);
    }
    texts.retain(|path, _| !path.ends_with("/opt/bin/nodeagent"));
    assert!(texts.keys().any(|path| path.ends_with("/50-site.toml")), "{:?}", texts.keys());
    assert_eq!(secrets.leaks(&texts), [""; 0]);
}

/// What the running node keeps secret is in no file that everybody may read. The search is proved
/// on a secret that is planted.
pub(super) fn assert_none_shown(instance: &Instance) {
    let key = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/key.pem";
    let secrets = Secrets::of_node(|path| read(instance, path), &instance.id, &[key]);
    assert_eq!(secrets.leaks(&shown(instance)), [""; 0]);

    let planted = read(instance, "/run/nodeagent/token");
    let written = instance.machine.write("/run/oops.txt", planted.as_bytes(), 0o644);
    told(written.map_err(super::text));
    let found = secrets.leaks(&shown(instance));
    assert!(found.len() == 1 && found[0].ends_with("/run/oops.txt"), "{found:?}");
}

/// Every file for everybody of the running machine, through its process 1, which also has /run.
fn shown(instance: &Instance) -> BTreeMap<String, Vec<u8>> {
    let init = instance.machine.init().expect("it runs");
    let mut texts = BTreeMap::new();
    for place in PLACES {
        open_files(&Path::new(&format!("/proc/{init}/root")).join(place), &mut texts);
    }
    texts
}
