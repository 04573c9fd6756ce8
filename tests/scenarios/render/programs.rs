//! The real programs of `tests/peers/build kube etcd`, told what is rendered: paths and ports are
//! those of a private directory and of this moment, all else is as it would be on a node.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nodeagent::config::names::Values;
use nodeagent::render::{self, Bundles, File, Membership, Place};
use rig::pki::Ca;
use serde_json::Value;

use super::{Told, secrets};
use crate::play::{SOON, skip};

/// Between two looks at a program that is starting.
const PAUSE: Duration = Duration::from_millis(50);

const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The directory with the programs of a peer, or nothing, told, where it is not built.
fn programs(peer: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = var("NODEAGENT_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|path| path.join("nodeagent")))
        .or_else(|| var("HOME").map(|path| path.join(".cache/nodeagent")))?;
    let entries = fs::read_dir(cache.join("peers")).into_iter().flatten().flatten();
    let built = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{peer}-")));
    let age = |entry: &fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    match built.max_by_key(age) {
        Some(entry) => Some(entry.path()),
        None => skip(&format!("there is no real {peer}: build it with tests/peers/build {peer}")),
    }
}

/// The words of a container's command line, as the kubelet reads them from its manifest.
fn command(text: &str) -> Vec<String> {
    let pod: Value = serde_saphyr::from_str(text).expect("a manifest is YAML");
    let words = pod["spec"]["containers"][0]["command"].as_array().expect("it has a command");
    words.iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
}

fn flags_of(text: &str) -> BTreeSet<String> {
    let name = |word: &str| {
        let flag = word.strip_prefix("--").expect("a flag has two dashes");
        flag.split('=').next().expect("it has a name").to_owned()
    };
    command(text).iter().skip(1).map(|word| name(word)).collect()
}

/// The flags that a program says it has.
fn known(program: &Path) -> BTreeSet<String> {
    let output = Command::new(program).arg("--help").output().expect("it prints its help");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    words.map(|word| word.trim_end_matches(',').to_owned()).collect()
}

#[test]
fn each_flag_of_the_control_plane_is_one_that_the_program_knows() {
    let Some(kube) = programs("kube") else { return };
    for style in ["static", "self-hosted"] {
        let told = Told::controller(&format!("style = \"{style}\"\n"));
        for place in [Place::Static, Place::Temporary] {
            for manifest in render::manifests(&told.input(), place).expect("they are rendered") {
                let known = known(&kube.join(manifest.component.name()));
                let ours = flags_of(manifest.file.content.text());
                let unknown: Vec<_> = ours.difference(&known).collect();
                assert!(ours.len() > 5 && known.len() > 50, "{}", manifest.component);
                assert!(unknown.is_empty(), "{}: {unknown:?}", manifest.component);
            }
        }
    }
}

#[test]
fn each_key_of_etcd_s_file_is_one_that_etcd_knows() {
    let Some(etcd) = programs("etcd") else { return };
    let known = known(&etcd.join("etcd"));
    let told = Told::controller("");
    let files = render::etcd(&told.input(), Membership::Forming).expect("it is rendered");
    let file: Value = serde_saphyr::from_str(files[0].content.text()).expect("it is YAML");
    for (key, value) in file.as_object().expect("it is a table") {
        let prefix = match key.as_str() {
            "client-transport-security" => "",
            "peer-transport-security" => "peer-",
            _ => {
                assert!(known.contains(key), "etcd knows no {key}");
                continue;
            }
        };
        for inner in value.as_object().expect("it is a table").keys() {
            assert!(known.contains(&format!("{prefix}{inner}")), "etcd knows no {key}.{inner}");
        }
    }
}

/// A private directory in which a node's files lie, with its certificates.
struct Site {
    directory: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    roots: [Ca; 3],
}

impl Site {
    /// Signs for every certificate of a node, and tells it the authorities.
    fn new(told: &mut Told) -> Site {
        rig::pki::install_crypto();
        let roots = ["cluster", "etcd", "front-proxy"].map(Ca::new);
        let [cluster, etcd, front_proxy] = [0, 1, 2].map(|at| roots[at].pem().to_owned());
        told.bundles = Bundles { cluster, etcd, front_proxy };
        let held: Vec<TcpListener> =
            (0..6).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let ports = [2379, 2380, 2381, 6443, 10257, 10259]
            .into_iter()
            .zip(&held)
            .map(|(from, to)| (from, to.local_addr().expect("it is bound").port()));
        let site = Site {
            ports: ports.collect(),
            directory: tempfile::tempdir().expect("a directory"),
            roots,
        };
        site.certificates(told);
        site
    }

    fn certificates(&self, told: &Told) {
        let input = told.input();
        let values = Values {
            identity: input.identity,
            cluster: &input.config.cluster,
            variables: &input.config.variables,
        };
        for spec in &input.config.certificates {
            let at = ["cluster", "etcd", "front-proxy"].iter().position(|it| *it == spec.authority);
            let root = &self.roots[at.expect("one of the three")];
            let name = spec.common_name.fill(&values).expect("all is known");
            let leaf = root.issue(&[&name, "127.0.0.1", "127.0.0.2", "localhost"]);
            let place = format!("certs/{}/{}/current", spec.consumer, spec.name);
            self.write(&format!("{place}/cert.pem"), &leaf.cert_pem);
            self.write(&format!("{place}/key.pem"), &leaf.key_pem);
            self.write(&format!("{place}/ca.pem"), root.pem());
        }
    }

    /// A text of the node with the paths and ports of this place.
    fn here(&self, text: &str) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        let mut text = text
            .replace("/var/lib/nodeagent-certs", &at("certs"))
            .replace("/etc/kubernetes/nodeagent", &at("plane"))
            .replace("/var/lib/etcd", &at("etcd"));
        for (from, to) in &self.ports {
            text = text
                .replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"))
                .replace(&format!("10.0.0.11:{from}"), &format!("127.0.0.2:{to}"))
                .replace(&format!("--secure-port={from}"), &format!("--secure-port={to}"));
        }
        text
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn place(&self, files: &[File]) {
        for file in files {
            let name = file.path.strip_prefix(render::DIRECTORY).expect("it is ours");
            let name = format!("plane/{}", name.display());
            self.write(&name, &self.here(file.content.text()));
        }
    }

    fn port(&self, usual: u16) -> u16 {
        let found = self.ports.iter().find(|(from, _)| *from == usual);
        found.expect("it is one of ours").1
    }

    fn start(&self, program: &Path, arguments: &[String]) -> Program {
        let name = program.file_name().expect("it has a name").to_string_lossy().into_owned();
        let log = self.path(&format!("{name}.log"));
        let output = fs::File::create(&log).expect("a log");
        let errors = output.try_clone().expect("a second handle");
        let child = Command::new(program)
            .args(arguments.iter().map(|argument| self.here(argument)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn();
        Program { child: child.expect("it starts"), log }
    }
}

/// A program that ends with its test.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until a URL answers 200.
    async fn wait_well(&mut self, client: &reqwest::Client, url: &str) {
        let start = Instant::now();
        loop {
            let answer = client.get(url).send().await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            let ended = self.child.try_wait().expect("it is ours");
            let late = start.elapsed() > SOON;
            if ended.is_some() || late {
                let said = self.said();
                let tail = &said[said.floor_char_boundary(said.len().saturating_sub(4000))..];
                panic!("{url}: {answer:?}, ended: {ended:?}\n{tail}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The flags of a component, with what keeps it on loopback and in its directory.
fn arguments(told: &Told, component: &str, more: &[&str]) -> Vec<String> {
    let manifests = render::manifests(&told.input(), Place::Static).expect("they are rendered");
    let mut manifests = manifests.into_iter();
    let manifest = manifests.find(|manifest| manifest.component.name() == component);
    let manifest = manifest.expect("it is there");
    let words = command(manifest.file.content.text());
    words.into_iter().skip(1).chain(more.iter().map(|word| (*word).to_owned())).collect()
}

fn client(root: &Ca) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(root.pem().as_bytes()).expect("our own PEM");
    let builder = reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(5));
    builder.build().expect("a client")
}

#[tokio::test]
async fn the_real_programs_start_with_what_they_are_told() {
    let (Some(kube), Some(etcd)) = (programs("kube"), programs("etcd")) else { return };
    let mut told = Told::controller("");
    let site = Site::new(&mut told);
    let input = told.input();
    let key = rcgen::KeyPair::generate().expect("ring makes P-256 keys");
    let shared = secrets(&key.serialize_pem(), &key.public_key_pem());
    site.place(&render::plane(&input).expect("it is rendered"));
    site.place(&render::shared(&shared).expect("it is rendered"));
    site.place(&render::etcd(&input, Membership::Forming).expect("it is rendered"));
    let client = client(&site.roots[0]);

    let file = format!("--config-file={}", site.path("plane/etcd.yaml").display());
    let mut store = site.start(&etcd.join("etcd"), &[file]);
    store.wait_well(&client, &format!("http://127.0.0.1:{}/health", site.port(2381))).await;

    let flex = format!("--flex-volume-plugin-dir={}", site.path("flex").display());
    let [api, manager, scheduler] = COMPONENTS;
    let run = |name, more: &[&str]| site.start(&kube.join(name), &arguments(&told, name, more));
    let mut api = run(api, &["--bind-address=127.0.0.1"]);
    let mut manager = run(manager, &[&flex]);
    let mut scheduler = run(scheduler, &[]);
    let url = format!("https://127.0.0.1:{}", site.port(6443));
    api.wait_well(&client, &format!("{url}/readyz")).await;
    let live = client.get(format!("{url}/livez?exclude=etcd")).send().await.expect("it answers");
    assert_eq!(live.status(), 200, "the kubelet's probe has no name either");
    for closed in ["/version", "/api", "/metrics", "/api/v1/nodes", "/livez/etcd"] {
        let answer = client.get(format!("{url}{closed}")).send().await.expect("it answers");
        assert_eq!(answer.status(), 401, "{closed} is for nobody without a name");
    }
    for (program, port, path) in
        [(&mut manager, 10257, "healthz"), (&mut scheduler, 10259, "readyz")]
    {
        let url = format!("https://127.0.0.1:{}/{path}", site.port(port));
        program.wait_well(&client, &url).await;
    }
    assert!(api.said().contains("\"apiVersion\":\"audit.k8s.io/v1\""), "the audit is told");
}

#[test]
fn the_kubelet_takes_its_configuration_and_flags() {
    let Some(kube) = programs("kube") else { return };
    // A machine that runs tests may still have the first kind of cgroups.
    let more = "[kubelet.labels]\n\"example.com/rack\" = \"7\"\n\
                [kubelet.config]\nfailCgroupV1 = false\n";
    let mut told = Told::controller(more);
    let site = Site::new(&mut told);
    let files = render::kubelet(&told.input()).expect("it is rendered");
    site.place(&files);
    let said = kubelet(&site, &kube, &files);
    assert!(said.contains(READ) && !said.contains("strict decoding"), "{said}");
    let wrong = fs::read_to_string(site.path("plane/kubelet.yaml")).expect("it is there");
    site.write("plane/kubelet.yaml", &format!("{wrong}noSuchKey: true\n"));
    let said = kubelet(&site, &kube, &files);
    assert!(said.contains("strict decoding") && said.contains("noSuchKey"), "{said}");
}

#[test]
fn kube_proxy_takes_its_configuration() {
    let Some(kube) = programs("kube") else { return };
    let told = Told::controller("");
    let site = tempfile::tempdir().expect("a directory");
    let objects = render::kube_proxy(&told.input()).expect("they are rendered");
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("it is there");
    let text = map["data"]["config.yaml"].as_str().expect("a text");
    let (read, written) = (site.path().join("read.yaml"), site.path().join("written.yaml"));
    fs::write(&read, text).expect("a file");
    let output = Command::new(kube.join("kube-proxy"))
        .arg(format!("--config={}", read.display()))
        .arg(format!("--write-config-to={}", written.display()))
        .output();
    let said = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    let written = fs::read_to_string(written).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(written.contains("clusterCIDR: 10.244.0.0/16"), "{written}");
    assert!(!said.contains("strict decoding") && !said.contains("unknown field"), "{said}");
}

/// What a kubelet says that has read and checked its configuration and was asked for a lock it
/// was not told the place of: it ends there, before it touches the machine.
const READ: &str = "cannot exit on lock file contention: no lock file specified";

fn kubelet(site: &Site, kube: &Path, files: &[File]) -> String {
    let environment = files.iter().find(|file| file.path.ends_with("kubelet.env"));
    let environment = environment.expect("it is there").content.text();
    let flags = environment.lines().find_map(|line| line.strip_prefix("KUBELET_FLAGS="));
    let output = Command::new(kube.join("kubelet"))
        .args(site.here(flags.expect("it has flags")).split(' '))
        .arg("--exit-on-lock-contention")
        .arg(format!("--root-dir={}", site.path("kubelet").display()))
        .output();
    let output = output.expect("it runs");
    assert!(!output.status.success(), "it was given no lock to take");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
