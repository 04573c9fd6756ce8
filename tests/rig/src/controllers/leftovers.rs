//! What a bootstrap must not leave behind: a certificate of a super-user, anywhere a reader of the
//! machine's disks, its memory file systems or its processes' environment could find it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

use super::{Controller, Controllers, text};

/// The group that nothing is refused to.
const MASTERS: &str = "system:masters";
/// The parts of a machine that somebody writes to while it runs.
const PLACES: &str = "/etc /home /opt /root /run /srv /tmp /usr/local /var /dev/shm";
/// `-----BEGIN ` in base64, as kubeconfigs embed it.
const EMBEDDED: &str = "LS0tLS1CRUdJTi";

/// An organization in DER: its identifier, a type of text and the length before the text. The
/// identifier holds a line feed, so that lines have to end elsewhere.
const DER: &str = r"\x55\x04\x0a[\x0c\x13]\x0esystem:masters";

impl Controllers {
    /// Leaves a super-user's certificate in a machine, in each form that is searched for: what
    /// finds nothing has to be seen to find something. Gives the places, in their order.
    pub fn plant_super_user(&self, node: usize) -> Result<Vec<String>, String> {
        let machine = &self.nodes[node].machine;
        let block = Pem::iter_from_buffer(&self.admin.pem).next().ok_or("no certificate")?;
        let certificate = block.map_err(text)?.contents;
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(&certificate)
        );
        let embedded = format!("client-certificate-data: {}\n", STANDARD.encode(&pem));
        let planted = [
            ("/run/planted.conf", embedded.into_bytes()),
            ("/tmp/planted.pem", pem.into_bytes()),
            ("/var/lib/planted.der", certificate),
        ];
        for (path, bytes) in &planted {
            machine.write(path, bytes, 0o600).map_err(text)?;
        }
        Ok(planted.map(|(path, _)| path.to_owned()).to_vec())
    }
}

impl Controller {
    /// The places of the running machine where a certificate of a super-user lies.
    pub fn super_user_material(&self) -> Result<Vec<String>, String> {
        // Files vanish while they are searched, which is an error (2) to grep.
        let der = format!("LC_ALL=C grep -zrlasP '{DER}' $0 || [ $? -le 2 ]");
        let mut found = self.lines(&der)?;
        let texts = format!("grep -rlIs -e 'BEGIN CERT' -e {EMBEDDED} $0 || [ $? -le 2 ]");
        for path in self.lines(&texts)? {
            let Ok(bytes) = self.machine.read(&path) else { continue };
            if holds_super_user(&bytes) {
                found.push(path);
            }
        }
        let environ = ["sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null"];
        let environ = self.machine.exec(&environ).map_err(text)?;
        if holds_super_user(environ.stdout.as_bytes()) {
            found.push("the environment of a process".to_owned());
        }
        found.sort();
        Ok(found)
    }

    fn lines(&self, script: &str) -> Result<Vec<String>, String> {
        let script = script.replace("$0", PLACES);
        let printed = self.machine.exec_ok(&["sh", "-c", &script]).map_err(text)?;
        Ok(printed.lines().map(str::to_owned).collect())
    }
}

/// Whether a text holds a super-user's certificate as PEM, or that in base64 once more.
fn holds_super_user(bytes: &[u8]) -> bool {
    let blocks = Pem::iter_from_buffer(bytes).flatten();
    if blocks.into_iter().any(|block| is_super_user(&block)) {
        return true;
    }
    let text = String::from_utf8_lossy(bytes);
    let embedded = text.match_indices(EMBEDDED).map(|(at, _)| {
        let end = |c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c));
        text[at..].split(end).next().unwrap_or_default()
    });
    embedded.into_iter().any(|word| {
        let inner = STANDARD.decode(word).unwrap_or_default();
        Pem::iter_from_buffer(&inner).flatten().any(|block| is_super_user(&block))
    })
}

fn is_super_user(block: &Pem) -> bool {
    let Ok(certificate) = block.parse_x509() else { return false };
    let mut organizations = certificate.subject().iter_organization();
    organizations.any(|name| name.as_str().is_ok_and(|name| name == MASTERS))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(organization: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        params.self_signed(&key).expect("it signs itself").pem()
    }

    #[test]
    fn a_super_user_is_found_as_pem_and_embedded_in_a_kubeconfig() {
        let (masters, nodes) = (certificate(MASTERS), certificate("system:nodes"));
        assert!(holds_super_user(format!("text\n{nodes}{masters}").as_bytes()));
        let embedded = STANDARD.encode(&masters);
        let config = format!("users:\n- client-certificate-data: {embedded}\n  other: x\n");
        assert!(holds_super_user(config.as_bytes()));
        assert!(!holds_super_user(nodes.as_bytes()));
        assert!(!holds_super_user(b"system:masters"));
        // What the machine is searched for by its bytes.
        let block = Pem::iter_from_buffer(masters.as_bytes()).next().expect("one").expect("PEM");
        let needle = [b"\x55\x04\x0a\x0c\x0e".as_slice(), MASTERS.as_bytes()].concat();
        assert!(block.contents.windows(needle.len()).any(|window| window == needle));
    }
}
