//! A cloud in which machines are launched with nothing but user data: AWS and its S3 as models,
//! the real Vault, and machines whose disk holds an image without anything of the agent. What the
//! agent needs comes by Ignition, which here is the real one.
//!
//! `launch` is RunInstances: a disk, a network with the metadata service at its own address, no
//! power. `ignite` is what the initramfs does at the first boot, `boot` the boot after it.

mod image;
mod loops;
pub mod release;
mod user_data;
pub mod written;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::LaunchSpec;
use crate::aws::imds::Imds;
use crate::controllers::api::{Api, Identity};
use crate::ignition::{self, Ignition, Run, Stage};
use crate::machine::{Flavour, Lan, Machine, MachineOptions};
use crate::node::{Node, Site};
use crate::s3::S3;
use crate::setup::SetupOptions;
use crate::terraform::Terraform;
use written::Disk;

/// The bucket of the site.
pub const BUCKET: &str = "rig-artifacts";
/// Where every instance finds its metadata service.
const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Not /tmp, which may be memory: etcd waits for its disk.
const VOLUMES: &str = "/var/tmp";
/// A stage takes a second, and downloads 10 MB; a busy machine gets much more.
const STAGE_LIMIT: Duration = Duration::from_secs(120);

/// The cloud. Instances are dropped before it.
#[derive(Debug)]
pub struct Cloud {
    /// The bucket.
    pub s3: S3,
    /// Vault, the proxy before it, AWS.
    pub site: Site,
    lan: Arc<Lan>,
}

/// An instance. Fields drop in this order.
#[derive(Debug)]
pub struct Instance {
    /// Its machine, switched off until it is booted.
    pub machine: Machine,
    /// Its metadata service.
    pub imds: Imds,
    /// Its instance id, which is the name of its node.
    pub id: String,
    ignition: Ignition,
    // The volume of etcd, on a controller.
    _volume: Option<tempfile::TempDir>,
}

impl Cloud {
    /// Why there can be none here; `None` where there can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        Node::unavailable()
            .or_else(|| ignition::program().err())
            .or_else(|| Terraform::copy().err())
    }

    /// Why no system extension can be mounted here; `None` where they can.
    #[must_use]
    pub fn without_loops() -> Option<String> {
        loops::nodes().err()
    }

    /// A cloud without instances.
    pub async fn open(setup: SetupOptions) -> Result<Cloud, String> {
        let lan = Lan::make().map_err(text)?;
        let site = Site::start(lan.host_ip(), setup).await?;
        let s3 = S3::start(&site.aws, lan.host_ip(), BUCKET)?;
        Ok(Cloud { s3, site, lan })
    }

    /// Launches an instance of this role (`controller`, `worker`), without user data so far, and
    /// leaves it switched off: its address may have to be in the user data.
    pub fn launch(&self, name: &str, role: &str) -> Result<Instance, String> {
        self.launch_on(MachineOptions::new(name, Flavour::Kube), role)
    }

    /// The same with loop devices of the host, through which systemd mounts the images of system
    /// extensions.
    pub fn launch_with_loops(&self, name: &str, role: &str) -> Result<Instance, String> {
        let mut options = MachineOptions::new(name, Flavour::Kube);
        for device in loops::nodes()? {
            options = options.volume(&device, &device.to_string_lossy());
        }
        self.launch_on(options, role)
    }

    fn launch_on(&self, options: MachineOptions, role: &str) -> Result<Instance, String> {
        let mut options = options.on(&self.lan);
        let volume = match role {
            "controller" => Some(tempfile::tempdir_in(VOLUMES).map_err(text)?),
            _ => None,
        };
        if let Some(volume) = &volume {
            options = options.volume(volume.path(), "/var/lib/etcd");
        }
        let machine = Machine::prepare(options).map_err(text)?;
        image::install(&machine)?;
        let aws = &self.site.aws;
        let id = aws.launch(LaunchSpec::profile(role).at(machine.ip()));
        machine.add_local_address(IMDS).map_err(text)?;
        let imds = machine.in_network(|| aws.imds_at(&id, (IMDS, 80).into()));
        let imds = imds.map_err(text)?.map_err(text)?;
        let ignition = Ignition::of(&machine, &self.s3)?;
        Ok(Instance { machine, imds, id, ignition, _volume: volume })
    }

    /// A super-user of the API server on an instance.
    pub async fn api(&self, instance: &Instance) -> Result<Api, String> {
        let vault = self.site.vault.handle().admin();
        let root = &self.site.configured.roots["pki"];
        let admin = Identity::issue(&vault, ("pki", root), &["system:masters"]).await?;
        Api::new(format!("https://{}:6443", instance.machine.ip()), &admin)
    }

    /// Sets what an instance is launched with.
    pub fn user_data(&self, instance: &Instance, user_data: &str) {
        self.site.aws.change_user_data(&instance.id, Some(user_data.to_owned().into()));
    }
}

impl Instance {
    /// What the initramfs does at the first boot: the user data are fetched, and what they say is
    /// written.
    pub fn ignite(&self) -> Result<(), String> {
        for stage in [Stage::Fetch, Stage::Files] {
            self.start(stage)?.pass(STAGE_LIMIT)?;
        }
        Ok(())
    }

    /// Starts one stage of that.
    pub fn start(&self, stage: Stage) -> Result<Run, String> {
        self.ignition.start(stage)
    }

    /// The configuration as Ignition understood it.
    #[must_use]
    pub fn ignition(&self) -> &Ignition {
        &self.ignition
    }

    /// Switches it on.
    pub fn boot(&mut self) -> Result<(), String> {
        self.machine.boot().map_err(text)
    }

    /// Takes its metadata service away: connections are refused.
    pub fn take_imds(&self) {
        self.imds.server().stop();
    }

    /// Brings it back.
    pub fn bring_imds(&self) -> Result<(), String> {
        let restart = || self.imds.server().restart();
        self.machine.in_network(restart).map_err(text)?.map_err(text)
    }

    /// Everything that is on its disk.
    pub fn disk(&self) -> Result<Disk, String> {
        written::read(self.machine.root())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
