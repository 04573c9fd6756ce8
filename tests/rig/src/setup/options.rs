//! The values of a site that the shipped data leave open, as the test bench has them.

use std::collections::BTreeMap;

use crate::aws;

/// The values of a site, and the test bench around it.
#[derive(Debug, Clone)]
pub struct SetupOptions {
    /// Where EC2 and STS answer.
    pub ec2_url: String,
    /// The certificate that instance identity documents are signed with.
    pub aws_signing_cert_pem: String,
    /// Path of the auth mount: `aws`, `aws-ec2`…
    pub auth_mount: String,
    /// AWS account of the nodes.
    pub account_id: String,
    /// AWS region of the nodes.
    pub region: String,
    /// Goes before the names of mounts, policies, quotas and login roles; empty for the only
    /// cluster of a Vault.
    pub prefix: String,
    /// Goes into the names of the authorities and of the instance profiles.
    pub cluster: String,
    /// DNS name of the API server.
    pub api_name: String,
    /// The domain of services.
    pub dns_domain: String,
    /// From where tokens may be used, CIDRs with commas between; empty for anywhere.
    pub node_cidrs: String,
    /// Life of a certificate.
    pub leaf_ttl: String,
    /// Longest life that may be asked for.
    pub leaf_max_ttl: String,
    /// Life of the authorities.
    pub ca_ttl: String,
    /// Lease of a node's token.
    pub token_ttl: String,
    /// Longest life of a node's token.
    pub token_max_ttl: String,
}

impl SetupOptions {
    /// The values that docs/vault.md proposes, for the rig's own AWS.
    pub fn new(ec2_url: impl Into<String>, aws_signing_cert_pem: impl Into<String>) -> Self {
        SetupOptions {
            ec2_url: ec2_url.into(),
            aws_signing_cert_pem: aws_signing_cert_pem.into(),
            auth_mount: "aws".into(),
            account_id: aws::ACCOUNT.into(),
            region: aws::REGION.into(),
            prefix: String::new(),
            cluster: aws::CLUSTER.into(),
            api_name: "api.rig.test".into(),
            dns_domain: "cluster.local".into(),
            // Loopback, private networks, and the one that the rig's machines are in.
            node_cidrs: "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,198.18.0.0/15".into(),
            leaf_ttl: "24h".into(),
            leaf_max_ttl: "72h".into(),
            ca_ttl: "87600h".into(),
            token_ttl: "1h".into(),
            token_max_ttl: "24h".into(),
        }
    }

    pub(super) fn values(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("auth_mount", self.auth_mount.clone()),
            ("account_id", self.account_id.clone()),
            ("region", self.region.clone()),
            ("prefix", self.prefix.clone()),
            ("cluster", self.cluster.clone()),
            ("api_name", self.api_name.clone()),
            ("dns_domain", self.dns_domain.clone()),
            ("node_cidrs", self.node_cidrs.clone()),
            ("sts_endpoint", self.ec2_url.clone()),
            ("leaf_ttl", self.leaf_ttl.clone()),
            ("leaf_max_ttl", self.leaf_max_ttl.clone()),
            ("ca_ttl", self.ca_ttl.clone()),
            ("token_ttl", self.token_ttl.clone()),
            ("token_max_ttl", self.token_max_ttl.clone()),
        ])
    }
}
