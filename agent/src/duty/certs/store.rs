//! The private archive: every generation of a certificate as it was issued, the last three kept,
//! so that a publication can be healed and a consumer taken back without asking Vault. A
//! generation is there whole or not at all: it is made under another name and then renamed.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::leaf::{self, Authority, Leaf};
use crate::error::{Code, Context, Error, Result};
use crate::host::files::{self, FileKind, Root};
use crate::secret::Secret;

/// Where the archive lies; for the agent alone.
pub const ARCHIVE: &str = "/var/lib/nodeagent/archive";

/// How many generations are kept: the one in force, the one before it to go back to, and one
/// more, since going back makes a generation too.
pub const KEPT: usize = 3;

/// The largest file of a generation that is read, in bytes: a bundle and no more.
const FILE_LIMIT: usize = leaf::BUNDLE_LIMIT;

/// The files of an archived generation.
const FILES: [&str; 5] = ["cert.pem", "key.pem", "ca.pem", "pair.pem", "pinned.pem"];

/// The number of a generation of one certificate; each is larger than all before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation of a directory's name, if it is exactly one that we would give.
    pub fn parse(name: &str) -> Option<Generation> {
        let number = name.parse().ok().map(Generation)?;
        (number.to_string() == name).then_some(number)
    }

    /// The next number.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

/// The name of its directory.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// What a generation consists of.
#[derive(Clone, Debug)]
pub struct Material {
    /// The leaf and what a server sends after it, PEM.
    pub cert: String,
    /// The private key, PKCS#8 PEM.
    pub key: Secret,
    /// The authorities that its consumer trusts: those pinned now and those before, PEM.
    pub ca: String,
    /// The authorities that were pinned when it was issued, PEM.
    pub pinned: String,
    /// The issuers as they came with the answer, roots too; only to tell whose it is.
    pub(super) issuers: Vec<Authority>,
}

impl Material {
    /// From an answer of Vault; nothing is checked yet but that it can be read.
    pub fn new(
        certificate_pem: &str,
        chain_pem: &[String],
        key: Secret,
        pinned: &[Authority],
    ) -> Result<Material> {
        let answered = leaf::certificates(certificate_pem.as_bytes())
            .during("reading the certificate that vault signed")?;
        let mut issuers = Vec::new();
        for pem in chain_pem.iter().filter(|pem| !pem.trim().is_empty()) {
            issuers.extend(
                leaf::certificates(pem.as_bytes()).during("reading the chain that vault sent")?,
            );
        }
        let sent = leaf::intermediates(&issuers);
        Ok(Material {
            cert: leaf::pem(&leaf::union(&answered, &sent)),
            key,
            ca: leaf::pem(pinned),
            pinned: leaf::pem(pinned),
            issuers,
        })
    }

    /// The same, its consumer trusting these authorities too.
    pub fn trusting_also(self, before: &[Authority]) -> Result<Material> {
        let trusted = leaf::union(&leaf::certificates(self.ca.as_bytes())?, before);
        Ok(Material { ca: leaf::pem(&trusted), ..self })
    }

    /// As it was published, where what was pinned is not told.
    pub(super) fn published(cert: String, key: Secret, ca: String) -> Material {
        Material { cert, key, ca, pinned: String::new(), issuers: Vec::new() }
    }

    /// Certificate and key in one text, for who reads one file.
    pub fn pair(&self) -> Secret {
        Secret::new(format!("{}{}", self.cert, self.key.expose()))
    }

    /// It can be read, its key fits, its bundle is one.
    pub fn check(&self) -> Result<Leaf> {
        let leaf = Leaf::of(self)?;
        leaf::check_key(&leaf, self)?;
        leaf::bundle(&self.ca).at("ca.pem")?;
        Ok(leaf)
    }
}

/// The archive of one certificate.
#[derive(Clone, Debug)]
pub struct Archive {
    root: Root,
    dir: PathBuf,
}

impl Archive {
    /// The archive of the certificate of this name.
    pub fn of(root: &Root, certificate: &str) -> Archive {
        Archive { root: root.clone(), dir: Path::new(ARCHIVE).join(certificate) }
    }

    /// Keeps a generation. Once this has returned it survives a power cut.
    pub fn save(&self, generation: Generation, material: &Material) -> Result<()> {
        self.root.make_dir(&self.dir, 0o700, None)?;
        let making = self.dir.join(files::temporary(&generation.to_string()));
        self.discard(&making)?;
        let pair = material.pair();
        let contents = [
            material.cert.as_str(),
            material.key.expose(),
            &material.ca,
            pair.expose(),
            &material.pinned,
        ];
        let files = FILES.into_iter().zip(contents.map(str::as_bytes)).collect::<Vec<_>>();
        self.root.write_dir(&making, &files, 0o600, None)?;
        self.root.rename(&making, &generation.to_string())?;
        self.root.fsync_dir(&self.dir)
    }

    /// A generation as it was kept; an error if it is not whole or does not fit itself.
    pub fn load(&self, generation: Generation) -> Result<Material> {
        let dir = self.dir.join(generation.to_string());
        let read = |name: &str| self.text(&dir.join(name));
        let [cert, key, ca, pair, pinned] = FILES;
        let material = Material {
            cert: read(cert)?,
            key: Secret::new(read(key)?),
            ca: read(ca)?,
            pinned: read(pinned)?,
            issuers: Vec::new(),
        };
        let at = |error: Error| error.at(self.root.path(&dir).display());
        material.check().map_err(at)?;
        if Secret::new(read(pair)?).expose() != material.pair().expose() {
            let text = "pair.pem is not certificate and key";
            return Err(at(Error::new(Code::CertificateBad, text)));
        }
        Ok(material)
    }

    /// The generations that are kept, oldest first.
    pub fn list(&self) -> Result<Vec<Generation>> {
        let entries = self.root.list(&self.dir)?;
        let directories = entries.iter().filter(|entry| entry.stat.kind == FileKind::Directory);
        Ok(directories.filter_map(|entry| Generation::parse(&entry.name)).collect())
    }

    /// Drops all but the newest `kept`, and what a crash left half made. A generation is renamed
    /// first, so that none is ever there in part. One that a failing disk does not let go keeps
    /// none of the others: they would heap up behind it.
    pub fn prune(&self, kept: usize) -> Result<()> {
        let generations = self.list()?;
        let superseded = generations.len().saturating_sub(kept);
        let mut outcome = Ok(());
        for generation in generations.into_iter().take(superseded) {
            let name = generation.to_string();
            let renamed = self.root.rename(&self.dir.join(&name), &files::temporary(&name));
            outcome = outcome.and(renamed);
        }
        for entry in self.root.list(&self.dir)? {
            if files::is_temporary(&entry.name) && entry.stat.kind == FileKind::Directory {
                outcome = outcome.and(self.discard(&self.dir.join(&entry.name)));
            }
        }
        outcome
    }

    /// Removes a directory with our files; strangers in it stay, and so does the directory then.
    fn discard(&self, dir: &Path) -> Result<()> {
        let entries = self.root.list(dir)?;
        let (ours, strangers): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| FILES.contains(&entry.name.as_str()));
        for entry in ours {
            self.root.unlink(&dir.join(&entry.name))?;
        }
        if strangers.is_empty() { self.root.remove_dir(dir) } else { Ok(()) }
    }

    fn text(&self, path: &Path) -> Result<String> {
        let bytes = self.root.read(path, FILE_LIMIT)?;
        String::from_utf8(bytes).map_err(|_| {
            Error::new(Code::CertificateBad, "not text").at(self.root.path(path).display())
        })
    }
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
