//! The core's device client with a certificate, against this hub.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fs,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};
use time::OffsetDateTime;
use twinflash::iothub::{Cause, Client, ClientIdentity, Event, Options, Roots, Session};
use twinflash_hub::Hub;

const SECOND: Duration = Duration::from_secs(1);

/// For the common name `device`, ending in so many days.
fn params(days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "device");
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(9);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
    params
}

/// Signed by itself.
fn self_signed(days: i64) -> ClientIdentity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(days).self_signed(&key).unwrap().pem();
    ClientIdentity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

/// An authority, and another one that signs for it.
fn authorities() -> [CertifiedIssuer<'static, KeyPair>; 2] {
    let mut root = params(9);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "root");
    let mut middle = root.clone();
    middle.distinguished_name.push(DnType::CommonName, "middle");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let middle = CertifiedIssuer::signed_by(middle, KeyPair::generate().unwrap(), &root).unwrap();
    [root, middle]
}

struct Device {
    client: Client,
    events: Receiver<Event>,
}

impl Device {
    fn connect(hub: &Hub, identity: ClientIdentity) -> Self {
        let connection = &hub.info().devices["device"];
        assert!(connection.ends_with(";x509=true"));
        let mut options = Options::new(connection.parse().unwrap());
        options.roots = Roots::from_pem(hub.info().ca_pem.as_bytes()).unwrap();
        options.identity = Some(identity);
        options.token_lifetime = SECOND;
        let (sender, events) = channel();
        let client = Client::connect(options, move |event| {
            let _ = sender.send(event);
        });
        let client = client.unwrap();
        Self { client, events }
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(30 * SECOND).expect("an event")
    }

    fn connected(&self) -> Session {
        match self.next() {
            Event::Connected(session) => session,
            event => panic!("{event:?}"),
        }
    }

    /// What it is told that is not let in.
    fn refused(&self) -> String {
        match self.next() {
            Event::Disconnected(why) if why.cause == Cause::Refused => why.reason,
            event => panic!("{event:?}"),
        }
    }
}

fn start(thumbprint: Option<String>, authorities: Vec<std::path::PathBuf>) -> Hub {
    Hub::start(twinflash_hub::Options {
        mqtt_port: 0,
        https_port: 0,
        x509_devices: vec![("device".into(), thumbprint)],
        trusted_authorities: authorities,
        ..twinflash_hub::Options::default()
    })
    .unwrap()
}

#[test]
fn a_device_known_by_its_thumbprint() {
    // Such a certificate may have ended.
    for days in [9, -1] {
        let own = self_signed(days);
        let hub = start(Some(own.thumbprint()), Vec::new());
        let device = Device::connect(&hub, own);
        assert_eq!(device.connected().token_expires, None);
        device.client.read_twin();
        assert!(matches!(device.next(), Event::Twin(_)));
        // There is no token to be renewed.
        assert!(device.events.recv_timeout(SECOND).is_err());
    }

    let hub = start(Some(self_signed(9).thumbprint()), Vec::new());
    let other = self_signed(9);
    let reason = Device::connect(&hub, other.clone()).refused();
    for words in [
        "that it is registered with X.509 and the thumbprint of its certificate",
        &format!("(SHA-256 thumbprint {}, good from 20", other.thumbprint()),
    ] {
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_device_whose_certificate_an_authority_signed() {
    let directory = tempfile::tempdir().unwrap();
    let [root, middle] = authorities();
    let file = directory.path().join("root.pem");
    fs::write(&file, root.pem()).unwrap();
    let hub = start(None, vec![file]);
    let signed = |days, chain: bool| {
        let key = KeyPair::generate().unwrap();
        let own = params(days).signed_by(&key, &middle).unwrap().pem();
        let chain = if chain { middle.pem() } else { String::new() };
        let pem = format!("{own}{chain}{}", key.serialize_pem());
        ClientIdentity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap()
    };
    Device::connect(&hub, signed(9, true)).connected();

    let ended = signed(-1, true);
    let (_, end) = ended.validity().unwrap();
    let end = OffsetDateTime::from(end).date();
    let reason = Device::connect(&hub, ended).refused();
    assert!(reason.contains(&format!(" to {end} ")), "{reason}");
    // Without what leads to the authority.
    let reason = Device::connect(&hub, signed(9, false)).refused();
    assert!(
        reason.contains("for the common name \"device\""),
        "{reason}"
    );
}
