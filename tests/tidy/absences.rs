//! What is nowhere, because it did harm elsewhere: nothing of ours reboots a machine, changes the
//! list of etcd's members, has a group replace controllers, or works around Terraform; and what a
//! node fetches has a hash.

use serde_json::Value;

use crate::source::{Finding, Source};

/// Words that some files may not say, and what to do instead.
struct Absence {
    rule: &'static str,
    places: &'static [&'static str],
    words: &'static [&'static str],
    advice: &'static str,
}

const AGENT: &str = "agent/src/";
const TERRAFORM: &str = "packaging/terraform/";
const PLACED: [&str; 4] = ["units/", "ignition/", "packaging/sysext/", TERRAFORM];

const REBOOTS: [Absence; 2] = [
    Absence {
        rule: "reboots",
        places: &PLACED,
        words: &[
            "FailureAction=",
            "SuccessAction=",
            "StartLimitAction=",
            "JobTimeoutAction=",
            "RebootArgument=",
            "REBOOT_STRATEGY=reboot",
            "REBOOT_STRATEGY=best-effort",
            "REBOOT_STRATEGY=etcd-lock",
            "systemctl reboot",
        ],
        advice: "no failure reboots a machine: its workloads outlive it",
    },
    Absence {
        rule: "reboots",
        places: &[AGENT],
        words: &["Reboot", "PowerOff", "KExec", "Halt", "system::reboot", "login1"],
        advice: "the agent restarts its consumers' units and nothing else",
    },
];

const WORKAROUNDS: [Absence; 1] = [Absence {
    rule: "workarounds",
    places: &PLACED,
    words: &[
        "provisioner \"",
        "local-exec",
        "remote-exec",
        "null_resource",
        "time_sleep",
        "killall",
        "pkill",
        "/sleep ",
        "=sleep ",
    ],
    advice: "whoever needs something waits for it; Ignition places files, the agent does the rest",
}];

const GROUPS: [Absence; 1] = [Absence {
    rule: "groups",
    places: &[TERRAFORM],
    words: &["\"ELB\"", "\"VPC_LATTICE\"", "aws_autoscaling_attachment", "aws_autoscaling_policy"],
    advice: "a balancer's opinion would end nodes; controllers are replaced by a person",
}];

const FETCHES: [Absence; 2] = [
    Absence {
        rule: "fetches",
        places: &PLACED,
        words: &["=curl ", "/curl ", "=wget ", "/wget ", "git clone", ":latest"],
        advice: "name it with its hash among the files that Ignition fetches",
    },
    Absence {
        rule: "fetches",
        places: &[AGENT],
        words: &[":latest"],
        advice: "a site says which version of an image it runs",
    },
];

impl Absence {
    fn findings(&self, source: &Source) -> Vec<Finding> {
        let here = self.places.iter().any(|place| source.path.starts_with(place));
        if !here || source.path.ends_with(".md") || source.path.contains("/tests/") {
            return Vec::new();
        }
        let places = self.words.iter().flat_map(|word| Source::words(&source.text, word));
        places.map(|at| source.finding(at, self.rule, self.advice)).collect()
    }
}

fn all(absences: &[Absence], sources: &[Source]) -> Vec<Finding> {
    let found = |source| absences.iter().flat_map(move |absence| absence.findings(source));
    sources.iter().flat_map(found).collect()
}

/// What would reboot a machine or turn it off.
pub(crate) fn reboots(sources: &[Source]) -> Vec<Finding> {
    all(&REBOOTS, sources)
}

/// What works around Terraform.
pub(crate) fn workarounds(sources: &[Source]) -> Vec<Finding> {
    all(&WORKAROUNDS, sources)
}

/// Calls of etcd that would change who is a member, or what a member has.
pub(crate) fn members(sources: &[Source]) -> Vec<Finding> {
    const MAY: [(&str, &str); 2] =
        [("/v3/cluster/", "member/list\""), ("/v3/maintenance/", "status\"")];
    let advice = "the agent reads the list of members and never changes it: that is a person's";
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with(AGENT)) {
        for (prefix, only) in MAY {
            let places = source.text.match_indices(prefix).map(|(at, _)| at);
            let other = places.filter(|at| !source.text[at + prefix.len()..].starts_with(only));
            findings.extend(other.map(|at| source.finding(at, "members", advice)));
        }
    }
    findings
}

/// Groups of anything but workers, and groups that go by another opinion than EC2's.
pub(crate) fn groups(sources: &[Source]) -> Vec<Finding> {
    let mut findings = all(&GROUPS, sources);
    let head = "resource \"aws_autoscaling_group\" \"";
    for source in sources.iter().filter(|source| source.path.starts_with(TERRAFORM)) {
        for (at, _) in source.text.match_indices(head) {
            let rest = &source.text[at + head.len()..];
            let block = &rest[..rest.find("\n}").unwrap_or(rest.len())];
            let own = block.contains("health_check_type = \"EC2\"");
            if !rest.starts_with("worker\"") || !own {
                let advice = "only workers are in groups, and those go by EC2's own health check";
                findings.push(source.finding(at, "groups", advice));
            }
        }
    }
    findings
}

/// What a node fetches without a hash.
pub(crate) fn fetches(sources: &[Source]) -> Vec<Finding> {
    let mut findings = all(&FETCHES, sources);
    for source in sources.iter().filter(|source| source.path.ends_with(".ign")) {
        let Ok(config) = serde_json::from_str::<Value>(&source.text) else {
            findings.push(source.finding(0, "fetches", "is no JSON"));
            continue;
        };
        for file in config["storage"]["files"].as_array().into_iter().flatten() {
            let contents = &file["contents"];
            let from = contents["source"].as_str().unwrap_or_default();
            let here = from.is_empty() || from.starts_with("data:");
            if !here && !contents["verification"]["hash"].is_string() {
                findings.push(source.finding(0, "fetches", format!("{from} has no hash")));
            }
        }
    }
    // What a release names: one line each.
    for source in sources.iter().filter(|source| source.path.starts_with(TERRAFORM)) {
        let line = "contents = { source = file.source";
        for (at, _) in source.text.match_indices(line) {
            if !source.text[at + line.len()..].starts_with(", verification = { hash = \"sha512-") {
                findings.push(source.finding(at, "fetches", "what is fetched has a hash"));
            }
        }
    }
    findings
}

#[test]
fn what_has_no_place_is_found() {
    type Rule = fn(&[Source]) -> Vec<Finding>;
    let unnamed = r#"{"storage": {"files": [{"contents": {"source": "https://x/y"}}]}}"#;
    let group = "resource \"aws_autoscaling_group\" \"worker\" {
  health_check_type = \"EC2\"
}
";
    let table: [(Rule, &str, &str); 13] = [
        (reboots, "units/system/x.service", "[Unit]\nStartLimitAction=reboot\n"),
        (reboots, "ignition/x.bu", "REBOOT_STRATEGY=reboot\n"),
        (reboots, "agent/src/x.rs", "call(\"Reboot\")"),
        (workarounds, "packaging/terraform/aws/x.tf", "provisioner \"local\" {"),
        (workarounds, "ignition/units/x.service", "ExecStartPre=/usr/bin/sleep 30\n"),
        (members, "agent/src/x.rs", "call(\"/v3/cluster/member/remove\")"),
        (members, "agent/src/x.rs", "call(\"/v3/maintenance/snapshot\")"),
        (groups, "packaging/terraform/aws/x.tf", &group.replace("worker", "controller")),
        (groups, "packaging/terraform/aws/x.tf", &group.replace("EC2", "elb")),
        (groups, "packaging/terraform/aws/x.tf", "health_check_type = \"ELB\""),
        (fetches, "packaging/terraform/aws/x.ign", unnamed),
        (fetches, "packaging/terraform/aws/x.tf", "contents = { source = file.source }"),
        (fetches, "units/system/x.service", "ExecStart=/usr/bin/curl https://x\n"),
    ];
    for (rule, path, text) in table {
        assert_eq!(rule(&[Source::new(path, text)]).len(), 1, "{path}: {text}");
    }
    let good = [
        Source::new("ignition/x.bu", "REBOOT_STRATEGY=off\n"),
        Source::new("agent/src/x.rs", "call(\"/v3/cluster/member/list\") // after a reboot"),
        Source::new("packaging/terraform/aws/x.tf", group),
        Source::new("docs/x.md", "provisioner \"local-exec\""),
    ];
    let rules: [Rule; 5] = [reboots, workarounds, members, groups, fetches];
    assert!(rules.iter().all(|rule| rule(&good).is_empty()));
}
