//! A model of AWS as far as a node and its Vault see it: a world of instances that are launched,
//! stopped, started and terminated, the EC2, STS and IAM calls that Vault's `aws` method makes,
//! and one instance metadata service per instance. Identity documents are signed by a key of the
//! model's own, whose certificate a real Vault accepts through `auth/aws/config/certificate`.

pub mod credentials;
pub mod document;
mod ec2;
pub mod imds;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::Timestamp;

use crate::clock::{ModelClock, lock};
use crate::server::{Place, Server, ServerOptions};
use credentials::{Issued, Keys, RoleCredentials};
use document::Signer;
use imds::Imds;

/// The account of the model, and of Vault's own credentials as STS tells it.
pub const ACCOUNT: &str = "123456789012";
/// The region unless a launch says otherwise.
pub const REGION: &str = "us-east-1";
/// The cluster that instances are launched for: their profiles are named after it.
pub const CLUSTER: &str = "rig";
/// Instance ids count up from here, so that screens and goldens are stable.
const FIRST_ID: u64 = 0x0a1b_2c3d_4e00_0001;

/// The state of an instance as DescribeInstances names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs.
    Running,
    /// Stopped; may be started.
    Stopped,
    /// Terminated; still described, as AWS does for about an hour.
    Terminated,
}

impl State {
    /// EC2's code and name.
    #[must_use]
    pub fn wire(self) -> (u16, &'static str) {
        match self {
            Self::Running => (16, "running"),
            Self::Terminated => (48, "terminated"),
            Self::Stopped => (80, "stopped"),
        }
    }
}

/// What an instance is launched with.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// The machine image.
    pub image_id: String,
    /// The owner.
    pub account: String,
    /// The region.
    pub region: String,
    /// The zone within it.
    pub availability_zone: String,
    /// The type.
    pub instance_type: String,
    /// The subnet.
    pub subnet_id: String,
    /// Its network.
    pub vpc_id: String,
    /// The name of the instance profile and of its one role; how Vault tells a controller from a
    /// worker.
    pub instance_profile: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The IP hop limit of the metadata service's token answers, 1..64.
    pub hop_limit: u32,
    /// What `latest/user-data` answers; 404 without.
    pub user_data: Option<Bytes>,
    /// The primary private address; the next of 10.0.0.0/8 without.
    pub private_ip: Option<Ipv4Addr>,
}

impl Default for LaunchSpec {
    fn default() -> Self {
        Self {
            image_id: "ami-0f1a7ca100000001".into(),
            account: ACCOUNT.into(),
            region: REGION.into(),
            availability_zone: format!("{REGION}a"),
            instance_type: "m6i.large".into(),
            subnet_id: "subnet-0000000000000001a".into(),
            vpc_id: "vpc-0000000000000001".into(),
            instance_profile: Some(format!("{CLUSTER}-worker")),
            tags: BTreeMap::new(),
            hop_limit: 1,
            user_data: None,
            private_ip: None,
        }
    }
}

impl LaunchSpec {
    /// The default node with the cluster's instance profile for a role (`controller`, `worker`).
    #[must_use]
    pub fn profile(role: &str) -> Self {
        Self { instance_profile: Some(format!("{CLUSTER}-{role}")), ..Self::default() }
    }

    /// The same at the address that a machine of the rig really has.
    #[must_use]
    pub fn at(self, address: Ipv4Addr) -> Self {
        Self { private_ip: Some(address), ..self }
    }
}

/// An instance as the world knows it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `i-` and 17 hexadecimal digits.
    pub id: String,
    /// What it was launched with; the image may change.
    pub spec: LaunchSpec,
    /// The primary private address.
    pub private_ip: Ipv4Addr,
    /// Whether it runs.
    pub state: State,
    /// When it was launched or last started; a reboot keeps it.
    pub pending_time: Timestamp,
}

impl Instance {
    /// The ARN of the instance profile.
    #[must_use]
    pub fn profile_arn(&self) -> Option<String> {
        let name = self.spec.instance_profile.as_ref()?;
        Some(format!("arn:aws:iam::{}:instance-profile/{name}", self.spec.account))
    }

    /// The ARN of the profile's role, what `bound_iam_role_arn` names.
    #[must_use]
    pub fn role_arn(&self) -> Option<String> {
        let name = self.spec.instance_profile.as_ref()?;
        Some(format!("arn:aws:iam::{}:role/{name}", self.spec.account))
    }

    /// The private DNS name, as AWS makes it of the address.
    #[must_use]
    pub fn private_dns(&self) -> String {
        let domain = match self.spec.region.as_str() {
            "us-east-1" => "ec2.internal".to_owned(),
            region => format!("{region}.compute.internal"),
        };
        format!("ip-{}.{domain}", self.private_ip.to_string().replace('.', "-"))
    }
}

/// How DescribeInstances and GetInstanceProfile misbehave. STS goes on working, as throttling and
/// permissions are per call at AWS too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ec2Fault {
    /// Well.
    #[default]
    None,
    /// 503 RequestLimitExceeded.
    Throttle,
    /// 403 UnauthorizedOperation.
    Deny,
    /// 500 InternalError.
    Internal,
    /// No answer.
    Hang,
}

/// What the servers share.
#[derive(Debug)]
struct World {
    clock: ModelClock,
    instances: Mutex<BTreeMap<String, Instance>>,
    issued: Issued,
    fault: Mutex<Ec2Fault>,
}

impl World {
    fn instance(&self, id: &str) -> Option<Instance> {
        lock(&self.instances).get(id).cloned()
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Instance)) {
        let mut instances = lock(&self.instances);
        change(instances.get_mut(id).expect("the test names an instance that it launched"));
    }
}

/// The model; dropping it stops the EC2 endpoint.
#[derive(Debug)]
pub struct Aws {
    world: Arc<World>,
    ec2: Server,
}

impl Aws {
    /// An empty world, its EC2, STS and IAM endpoint on a free port of loopback.
    pub fn start(clock: ModelClock) -> io::Result<Self> {
        let world = Arc::new(World {
            clock: clock.clone(),
            instances: Mutex::default(),
            issued: Issued::default(),
            fault: Mutex::default(),
        });
        let ec2 = Server::start(ServerOptions::new(ec2::handler(Arc::clone(&world)), clock))?;
        Ok(Self { world, ec2 })
    }

    /// Where EC2, STS and IAM answer: Vault's `endpoint`, `sts_endpoint` and `iam_endpoint`.
    #[must_use]
    pub fn ec2_url(&self) -> String {
        self.ec2.url()
    }

    /// The server under [`Self::ec2_url`], to script it, to stop it and to count its requests.
    #[must_use]
    pub fn ec2(&self) -> &Server {
        &self.ec2
    }

    /// Makes the EC2 and IAM calls fail, or work again.
    pub fn set_ec2_fault(&self, fault: Ec2Fault) {
        *lock(&self.world.fault) = fault;
    }

    /// The PEM that `auth/aws/config/certificate/<name>` takes, as `pkcs7` and as `identity`.
    #[must_use]
    pub fn signing_certificate_pem(&self) -> String {
        Signer::shared().certificate_pem().to_owned()
    }

    /// Launches an instance, which runs at once, and returns its id.
    pub fn launch(&self, spec: LaunchSpec) -> String {
        let mut instances = lock(&self.world.instances);
        let number = u32::try_from(instances.len()).expect("a test launches few instances");
        let id = format!("i-{:017x}", FIRST_ID + u64::from(number));
        let next = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 10)) + number);
        let private_ip = spec.private_ip.unwrap_or(next);
        let pending_time = self.world.clock.now();
        let state = State::Running;
        let instance = Instance { id: id.clone(), spec, private_ip, state, pending_time };
        instances.insert(id.clone(), instance);
        id
    }

    /// The instance as it is now.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<Instance> {
        self.world.instance(id)
    }

    /// Stops a running instance.
    pub fn stop(&self, id: &str) {
        self.world.change(id, |instance| instance.state = State::Stopped);
    }

    /// Starts a stopped instance: its document gets a new `pendingTime`.
    pub fn start_instance(&self, id: &str) {
        let now = self.world.clock.now();
        self.world.change(id, |instance| {
            instance.state = State::Running;
            instance.pending_time = now;
        });
    }

    /// Reboots an instance: to AWS nothing happens, `pendingTime` stays.
    pub fn reboot(&self, id: &str) {
        self.world.change(id, |instance| assert_eq!(instance.state, State::Running));
    }

    /// Terminates an instance for good.
    pub fn terminate(&self, id: &str) {
        self.world.change(id, |instance| instance.state = State::Terminated);
    }

    /// Gives an instance another image, as if it had been launched from it.
    pub fn change_image(&self, id: &str, image_id: &str) {
        self.world.change(id, |instance| instance.spec.image_id = image_id.into());
    }

    /// Gives an instance another instance profile, or takes it away.
    pub fn change_profile(&self, id: &str, profile: Option<&str>) {
        self.world.change(id, |instance| {
            instance.spec.instance_profile = profile.map(str::to_owned);
        });
    }

    /// Gives an instance other user data, which it sees at its next first boot.
    pub fn change_user_data(&self, id: &str, user_data: Option<Bytes>) {
        self.world.change(id, |instance| instance.spec.user_data = user_data);
    }

    /// The credentials that the metadata service hands out on an instance; none without a profile.
    #[must_use]
    pub fn role_credentials(&self, id: &str) -> Option<RoleCredentials> {
        self.world.issued.of(&self.world.instance(id)?)
    }

    /// For the model of a service that checks who asks.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys(Arc::clone(&self.world))
    }

    /// The metadata service of an instance on a free port of loopback.
    pub fn imds(&self, id: &str) -> io::Result<Imds> {
        self.imds_at(id, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// The same at an address, such as 169.254.169.254:80 in a network namespace; the caller's
    /// thread must be in that namespace.
    pub fn imds_at(&self, id: &str, bind: SocketAddr) -> io::Result<Imds> {
        Imds::start(Arc::clone(&self.world), id, bind, Place::Thread)
    }

    /// The same on a free port, as a task of the caller's runtime.
    pub fn imds_here(&self, id: &str) -> io::Result<Imds> {
        let bind = (Ipv4Addr::LOCALHOST, 0).into();
        Imds::start(Arc::clone(&self.world), id, bind, Place::Here)
    }
}

#[cfg(test)]
mod tests;
