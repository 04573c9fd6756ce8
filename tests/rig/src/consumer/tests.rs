//! The consumer over published directories like the agent's.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A directory with generations and the `current` link.
struct Published {
    root: tempfile::TempDir,
    ca: Ca,
}

impl Published {
    fn new() -> Self {
        let published = Self { root: tempfile::tempdir().expect("a directory"), ca: Ca::new("ca") };
        published.publish("1");
        published
    }

    fn current(&self) -> PathBuf {
        self.root.path().join("current")
    }

    fn file(&self, generation: &str, name: &str) -> PathBuf {
        self.root.path().join(generation).join(name)
    }

    /// Writes a generation and swaps the link, nothing else.
    fn publish(&self, generation: &str) {
        let leaf = self.ca.issue(&["127.0.0.1"]);
        fs::create_dir(self.root.path().join(generation)).expect("a directory");
        fs::write(self.file(generation, "cert.pem"), leaf.cert_pem).expect("a file");
        fs::write(self.file(generation, "key.pem"), leaf.key_pem).expect("a file");
        let next = self.root.path().join("next");
        symlink(generation, &next).expect("a link");
        fs::rename(next, self.current()).expect("a swap");
    }

    fn unlink(&self, generation: &str) {
        fs::remove_file(self.file(generation, "cert.pem")).expect("it was there");
        fs::remove_file(self.file(generation, "key.pem")).expect("it was there");
    }

    fn start(&self, mode: Mode) -> Consumer {
        Consumer::start(self.current(), mode).expect("it starts")
    }
}

/// Waits for what the consumer's own thread does.
fn eventually(holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// The serial number that a client of it is shown.
fn shown(consumer: &Consumer, ca: &Ca) -> Result<String, String> {
    let config = Arc::new(ca.client_config());
    let name = "127.0.0.1".try_into().expect("an address");
    let mut tls = rustls::ClientConnection::new(config, name).expect("a client");
    let mut stream = std::net::TcpStream::connect(consumer.addr()).map_err(|e| e.to_string())?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    let chain = tls.peer_certificates().expect("it showed one");
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).expect("a certificate");
    Ok(crate::pki::serial_text(parsed.raw_serial()))
}

#[test]
fn an_old_one_serves_the_new_pair_only_after_a_restart() {
    let published = Published::new();
    let consumer = published.start(Mode::RereadNever);
    let first = shown(&consumer, &published.ca).expect("served");
    published.publish("2");
    published.unlink("1");
    assert_eq!(shown(&consumer, &published.ca).expect("served"), first);
    consumer.restart().expect("it starts");
    let second = shown(&consumer, &published.ca).expect("served");
    assert_ne!(second, first);
    assert_eq!((consumer.serial(), consumer.handshakes()), (Some(second), 3));
    let record = Record { restarts: 1, starts: 2, ..Record::default() };
    assert_eq!(consumer.record(), record);
}

#[test]
fn a_watching_one_notices_the_unlink_and_never_the_swap() {
    let published = Published::new();
    let consumer = published.start(Mode::RereadOnDelete);
    let first = consumer.serial();
    published.publish("2");
    // A hard link keeps the inode named: the watch stays silent for it.
    let kept = published.root.path().join("kept.pem");
    fs::hard_link(published.file("1", "cert.pem"), kept).expect("a link");
    fs::remove_file(published.file("1", "cert.pem")).expect("it was there");
    consumer.shared.look();
    assert_eq!((consumer.serial(), consumer.record().rereads), (first.clone(), 0));
    fs::remove_file(published.file("1", "key.pem")).expect("it was there");
    assert!(eventually(|| consumer.record().rereads == 1));
    assert_ne!(consumer.serial(), first);
}

#[test]
fn a_torn_pair_and_a_missing_file_are_recorded_and_the_last_pair_is_kept() {
    let published = Published::new();
    let consumer = published.start(Mode::RereadOnDelete);
    let first = consumer.serial();
    let foreign = published.ca.issue(&["127.0.0.1"]).key_pem;
    fs::remove_file(published.file("1", "key.pem")).expect("it was there");
    assert!(eventually(|| consumer.record().missing > 0));
    fs::write(published.file("1", "key.pem"), foreign).expect("a file");
    assert!(eventually(|| consumer.record().mismatches > 0));
    assert_eq!(shown(&consumer, &published.ca).ok(), first);
    let refused = consumer.restart().expect_err("a starting one exits");
    assert!(refused.contains("key"), "{refused}");
    assert!(!consumer.is_running() && consumer.serial().is_none());
}

#[test]
fn it_fails_and_lies_as_told() {
    let published = Published::new();
    let consumer = published.start(Mode::Slow(Duration::from_millis(1)));
    let first = consumer.serial();
    consumer.set_mode(Mode::ServesOther);
    consumer.restart().expect("it starts");
    assert_ne!(consumer.serial(), first);
    shown(&consumer, &published.ca).expect_err("not of our authority");
    consumer.set_mode(Mode::FailsToStart);
    consumer.restart().expect_err("it was told to");
    shown(&consumer, &published.ca).expect_err("refused");
    consumer.set_mode(Mode::RereadNever);
    consumer.restart().expect("it starts");
    assert_eq!(consumer.serial(), first);
    assert_eq!(consumer.record(), Record { restarts: 3, starts: 3, ..Record::default() });
}

#[test]
fn a_unit_s_jobs_restart_and_stop_it() {
    let published = Published::new();
    let consumer = Consumer::new(published.current(), Mode::RereadNever).expect("a port");
    let unit = consumer.unit();
    assert!(unit.state.is_down());
    let (Behaviour::Run(restart), Behaviour::Run(stop)) = (unit.on_restart, unit.on_stop) else {
        panic!("the unit acts on its consumer");
    };
    restart().expect("it starts");
    assert!(consumer.is_running() && consumer.unit().state.is_up());
    stop().expect("it stops");
    assert!(!consumer.is_running());
}
