//! What each controller is told of its cluster: the configuration that a site would write.

use serde_json::Value;

use super::{Controllers, ControllersOptions, Raising, Style};
use crate::peer::kube::in_a_container;

impl Controllers {
    pub(super) fn configure(&self, options: &ControllersOptions) -> Result<(), String> {
        let plane = match options.raising {
            Raising::ByHand => format!(
                "[variables]\napi_server = \"{}\"\nservice_ip = \"{}\"\n",
                super::by_hand::API_NAME,
                super::by_hand::SERVICE_IP
            ),
            Raising::Automatic | Raising::Told => self.plane(options),
        };
        for node in &self.nodes {
            node.write("/etc/nodeagent/config.d/20-plane.toml", &plane)?;
            node.write("/etc/nodeagent/config.d/30-more.toml", &options.config)?;
        }
        match options.raising {
            Raising::ByHand => self.nodes.iter().try_for_each(|node| self.raise_by_hand(node)),
            Raising::Automatic | Raising::Told => Ok(()),
        }
    }

    fn plane(&self, options: &ControllersOptions) -> String {
        let members =
            self.nodes.iter().map(|node| format!("{} = \"{}\"\n", node.member, node.machine.ip()));
        let members: String = members.collect();
        let style = match options.style {
            Style::Static => "static",
            Style::SelfHosted => "self-hosted",
        };
        format!(
            "[cluster]\napi_server = \"https://{}:6443\"\n\
             [etcd.members]\n{members}\
             [control_plane]\nimage = \"localhost/{{component}}:1\"\nstyle = \"{style}\"\n\
             automatic = {}\n{}",
            self.api_ip(),
            options.raising == Raising::Automatic,
            kubelet_in_a_container(),
        )
    }
}

/// What a site would never write: see `peer::kube::in_a_container`.
pub(crate) fn kubelet_in_a_container() -> String {
    let settings = in_a_container();
    let settings = settings.iter().map(|(key, value)| format!("{key} = {}\n", toml(value)));
    format!("[kubelet.config]\n{}", settings.collect::<String>())
}

/// A value as TOML writes it in a line; numbers, texts and lists are those of JSON.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(all) => {
            let all = all.iter().map(|(key, value)| format!("\"{key}\" = {}", toml(value)));
            format!("{{ {} }}", all.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
