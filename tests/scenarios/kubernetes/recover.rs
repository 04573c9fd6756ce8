//! A control plane comes back from what it is not made for: certificates that have ended while it
//! was switched off, a Vault that is away while it is raised again, DaemonSets that somebody has
//! deleted. The plain loss of all manifests is in `lost`.

use jiff::Timestamp;
use rig::clock::ModelClock;
use rig::controllers::{Controller, ControllersOptions, ETCD, Style};
use rig::proxy::Fault;
use serde_json::json;

use super::{BRIEF_LEASES, SOON, Story, installed, raised, raised_when_told, told};

/// Of a controller; the agent's own for etcd is the last.
const CERTIFICATES: [&str; 11] = [
    "kubelet-server",
    "kubelet-client",
    "etcd-server",
    "etcd-peer",
    "kube-apiserver",
    "apiserver-kubelet-client",
    "apiserver-etcd-client",
    "front-proxy-client",
    "controller-manager",
    "scheduler",
    "etcd-client",
];
/// Long enough for a control plane to be raised with: 8 s on an idle machine.
const LIFE: &str = "30s";
const MORE: &str = "/etc/nodeagent/config.d/30-more.toml";
const KEPT: &str = "/api/v1/namespaces/default/configmaps/kept";
const FINAL: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

#[tokio::test]
async fn a_controller_whose_certificates_ended_while_it_was_off_comes_back_with_its_data() {
    let Some(mut story) = raised(ControllersOptions::new(1).with(&brief())).await else { return };
    keep_something(&story).await;
    told(story.nodes[0].machine.power_off());
    let end = last_end(&story.nodes[0]);
    let over = async || match ModelClock::real().now() > end {
        true => Ok(()),
        false => Err(format!("the last ends at {end}")),
    };
    told(wait_off(over).await);
    told(story.nodes[0].write(MORE, ""));
    told(story.boot());
    story.wait_whole().await;
    told(told(story.api(0)).get(KEPT).await);

    // The daemon raises what is lost, and a person who asks for the same waits for that run.
    let mut seen = story.nodes[0].steps_journal().len();
    told(story.nodes[0].remove_manifests());
    told(story.nodes[0].kill_components());
    let begun = async || {
        let journal = story.nodes[0].steps_journal();
        let new = journal.get(seen..).unwrap_or_default();
        match new.iter().any(|entry| entry["event"] == "begun") {
            true => Ok(journal.len()),
            false => Err("no run".to_owned()),
        }
    };
    seen = told(story.wait(0, "the daemon has begun a run", SOON, begun).await);
    let second = told(story.nodes[0].bootstrap(&[]));
    assert!(second.status.success(), "{}{}", second.stdout, second.stderr);
    let waits = format!("{:27} another run of this node: ", "waiting for the lock");
    assert!(second.stdout.contains(&waits), "{}", second.stdout);
    assert!(story.nodes[0].steps_journal().len() > seen, "the daemon's run went on");
    story.wait_whole().await;
}

#[tokio::test]
async fn a_control_plane_is_raised_again_while_vault_is_away() {
    let Some(mut story) = raised_when_told().await else { return };
    keep_something(&story).await;

    story.site.proxy.set(Fault::Refuse);
    told(story.power_cut());
    let node = &story.nodes[0];
    told(node.machine.wait_unit(ETCD, "active", SOON));
    told(node.remove_manifests());
    let again = told(node.bootstrap(&["--recover"]));
    let printed = format!("{}{}", again.stdout, again.stderr);
    assert!(again.status.success(), "{printed}\n{}", node.evidence());
    for note in [
        "the shared keys were not compared with vault's: ",
        "assets: taken as applied before, not looked at: ",
        "leases and node were not looked at: ",
    ] {
        assert!(printed.contains(note), "no `{note}` in\n{printed}");
    }
    story.wait_whole().await;
    told(told(story.api(0)).get(KEPT).await);
    let status = story.wait_status(0, "that vault is away", |status| {
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().any(|problem| problem["code"] == "vault-unreachable")
    });
    let left = status["autonomy_s"].as_i64().expect("for how long the certificates will do");
    assert!((1..=24 * 3600).contains(&left), "{left} s");

    story.site.proxy.set(Fault::None);
    story.wait_status(0, "health", |status| status["health"] == "healthy");
    let last = told(story.nodes[0].bootstrap(&[]));
    assert!(last.stdout.ends_with("nothing is to do\n"), "{}{}", last.stdout, last.stderr);
}

#[tokio::test]
async fn a_self_hosted_control_plane_whose_pods_and_sets_are_deleted_is_raised_again() {
    let options = ControllersOptions { style: Style::SelfHosted, ..ControllersOptions::new(1) };
    let Some(mut story) = installed(options.with(BRIEF_LEASES)).await else { return };
    told(story.boot());
    super::self_hosted::wait_final(&story).await;
    keep_something(&story).await;

    let before = story.processes(0);
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=nodeagent%2Fplace%3Ddaemon-set";
    let pods = told(told(story.api(0)).list(pods).await);
    let mut names: Vec<_> =
        pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    // The API server last: it has to be asked for the others.
    names.sort_by_key(|name| name.starts_with(FINAL[0]));
    for name in names {
        let path = format!("/api/v1/namespaces/kube-system/pods/{name}");
        told(told(story.api(0)).call("DELETE", &path, None).await);
    }
    wait_others(&story, &before).await;
    wait_hosted(&story).await;

    let before = story.processes(0);
    for name in FINAL.iter().rev() {
        let path = format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}");
        told(told(story.api(0)).call("DELETE", &path, None).await);
    }
    wait_others(&story, &before).await;
    wait_hosted(&story).await;
    told(told(story.api(0)).get(KEPT).await);
}

/// Waits until three DaemonSets serve and no temporary pod does, all at one look: a status alone
/// may be older than the loss.
async fn wait_hosted(story: &Story) {
    let hosted = async || {
        let node = &story.nodes[0];
        let status = node.machine.agent_status();
        let (step, manifests) = (&status["control_plane"]["step"], node.manifests());
        if !step.is_null() || !manifests.is_empty() {
            return Err(format!("{step}, {manifests:?}"));
        }
        for name in FINAL {
            let path = format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}");
            let set = told(story.api(0)).get(&path).await?;
            let pids = node.pids(name);
            if set["status"]["numberReady"] != 1 || pids.len() != 1 {
                return Err(format!("{name}: {pids:?}, {}", set["status"]));
            }
        }
        Ok(())
    };
    told(story.wait(0, "the DaemonSets serve alone", SOON, hosted).await);
}

/// Waits until none of these processes is left.
async fn wait_others(story: &Story, before: &[u32]) {
    let others = async || match story.processes(0) {
        now if now.iter().all(|pid| !before.contains(pid)) => Ok(()),
        now => Err(format!("{now:?}, {before:?} before")),
    };
    told(story.wait(0, "the former processes are gone", SOON, others).await);
}

async fn keep_something(story: &Story) {
    let kept = json!({"metadata": {"name": "kept"}, "data": {"a": "b"}});
    let api = told(story.api(0));
    told(api.create("/api/v1/namespaces/default/configmaps", &kept).await);
}

/// Certificates that end soon after the power is off, and are renewed until then.
fn brief() -> String {
    let limits = "[rotation]\nsurvive_vault_outage = \"4s\"\nissues_per_hour = 3600\n".to_owned();
    let each =
        CERTIFICATES.map(|name| format!("[[certificate]]\nname = \"{name}\"\nttl = \"{LIFE}\"\n"));
    limits + &each.concat()
}

/// When the last of the published certificates of a controller ends, which is off.
fn last_end(node: &Controller) -> Timestamp {
    let published = node.machine.root().join("var/lib/nodeagent-certs");
    let consumers = std::fs::read_dir(published).expect("a directory").flatten();
    let pairs = consumers.filter_map(|entry| std::fs::read_dir(entry.path()).ok());
    let ends = pairs.flat_map(|pairs| {
        pairs.flatten().map(|pair| pair.path().join("current/cert.pem")).filter_map(|path| {
            let bytes = std::fs::read(path).ok()?;
            let (_, block) = x509_parser::pem::parse_x509_pem(&bytes).ok()?;
            let end = block.parse_x509().ok()?.validity().not_after.timestamp();
            Timestamp::from_second(end).ok()
        })
    });
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends.len(), CERTIFICATES.len(), "{ends:?}");
    ends.into_iter().max().expect("there are some")
}

/// For a machine that is off and has nothing to say.
async fn wait_off(mut probe: impl AsyncFnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = std::time::Instant::now() + SOON;
    while let Err(last) = probe().await {
        if std::time::Instant::now() >= deadline {
            return Err(format!("waited {SOON:?} in vain: {last}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}
