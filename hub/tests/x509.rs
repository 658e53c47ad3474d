//! Devices with client certificates, which openssl makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Connect, Device, Fixture, start_with, tls_as, websocket::upgrade};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;
use twinflash_hub::{Error, Hub, Options};

/// A directory where openssl makes certificates.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes `{name}.pem` and `{name}.key`, signed by `issuer` or by itself.
    fn make(&self, name: &str, common_name: &str, issuer: Option<&str>, more: &[&str]) -> PathBuf {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let mut openssl = self.openssl();
        openssl
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-subj"])
            .arg(format!("/O=test/CN={common_name}"))
            .args(["-keyout", &key, "-out", &certificate])
            .args(more);
        if let Some(issuer) = issuer {
            openssl.args(["-CA", &format!("{issuer}.pem")]);
            openssl.args(["-CAkey", &format!("{issuer}.key")]);
        }
        run(&mut openssl);
        self.file(&certificate)
    }

    /// Signs a certificate for so many days, which may be negative; without extensions it is of version 1.
    fn signed(&self, name: &str, common_name: &str, issuer: &str, days: &str, extensions: &str) {
        let file = |end: &str| self.file(&format!("{name}.{end}"));
        let subject = format!("/CN={common_name}");
        self.make(name, common_name, Some(issuer), &["-days", "2"]);
        run(self
            .openssl()
            .args(["req", "-new", "-subj", &subject, "-key"])
            .args([file("key"), "-out".into(), file("csr")]));
        std::fs::write(file("ext"), extensions).unwrap();
        let [key, issuer] = ["key", "pem"].map(|end| format!("{issuer}.{end}"));
        run(self
            .openssl()
            .args(["x509", "-req", "-days", days, "-CAcreateserial"])
            .args(["-CA", &issuer, "-CAkey", &key, "-in"])
            .args([file("csr"), "-extfile".into(), file("ext")])
            .args(["-out".into(), file("pem")]));
    }

    fn openssl(&self) -> Command {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.0.path());
        openssl
    }

    fn authority(&self, name: &str, issuer: Option<&str>) -> PathBuf {
        self.make(name, name, issuer, &["-days", "2"])
    }

    fn device(&self, name: &str, common_name: &str, issuer: &str) {
        let end = "basicConstraints=critical,CA:FALSE";
        let of = Some(issuer);
        self.make(name, common_name, of, &["-days", "2", "-addext", end]);
    }

    /// As openssl prints it: with colons between the bytes.
    fn thumbprint(&self, name: &str, algorithm: &str) -> String {
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", algorithm, "-in"])
            .arg(self.file(&format!("{name}.pem")))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().split_once('=').unwrap().1.replace(':', "")
    }

    /// Connects as `id` with a certificate.
    fn connect(&self, hub: &Fixture, id: &str, name: &str) -> Result<Device, u8> {
        let [chain, key] = self.pair(name);
        connect(hub, id, Some((&chain, &key)))
    }

    /// The same over WebSockets, on the port of the REST interface.
    fn connect_over_websockets(&self, hub: &Fixture, id: &str, name: &str) -> Result<Device, u8> {
        let [chain, key] = self.pair(name);
        let stream = tls_as(hub.info(), hub.info().https_port, Some((&chain, &key)));
        hub.connect_over(Device::over(upgrade(stream)), &hello(id))
    }

    fn pair(&self, name: &str) -> [PathBuf; 2] {
        ["pem", "key"].map(|end| self.file(&format!("{name}.{end}")))
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn connect(hub: &Fixture, id: &str, own: Option<(&Path, &Path)>) -> Result<Device, u8> {
    let info = hub.info();
    let device = Device::over(tls_as(info, info.mqtt_port, own));
    hub.connect_over(device, &hello(id))
}

/// What a device with a certificate says first.
fn hello(id: &str) -> Connect {
    Connect {
        client_id: id.into(),
        user: Some(format!("localhost/{id}/?api-version=2021-04-12")),
        password: None,
        keep_alive: 60,
        clean: true,
    }
}

#[test]
fn a_thumbprint_lets_in_its_certificate_only() {
    let certificates = Certificates::new();
    certificates.authority("first", None);
    certificates.authority("second", None);
    certificates.authority("third", None);
    let sha1 = certificates.thumbprint("first", "-sha1");
    let sha256 = certificates.thumbprint("second", "-sha256");
    assert_eq!((sha1.len(), sha256.len()), (40, 64));
    let hub = start_with(Options {
        x509_devices: vec![("started".into(), Some(sha256.to_lowercase()))],
        ..Options::default()
    });
    assert!(hub.info().devices["started"].ends_with(";DeviceId=started;x509=true"));
    let x509 = json!({"primaryThumbprint": sha1, "secondaryThumbprint": sha256});
    let body = json!({"authentication": {"type": "selfSigned", "x509Thumbprint": x509}});
    let owner = hub.owner();
    let shown = owner.call("PUT", "/devices/x", Some(&body));
    assert_eq!(shown.status, 200, "{}", shown.body);
    let shown = &shown.body["authentication"];
    assert_eq!(shown["type"], "selfSigned");
    assert_eq!(shown["x509Thumbprint"], x509);
    assert_eq!(
        shown["symmetricKey"],
        json!({"primaryKey": null, "secondaryKey": null})
    );
    let twin = owner.get("/twins/x").body;
    assert_eq!(twin["authenticationType"], "selfSigned");
    assert_eq!(twin["x509Thumbprint"], x509);

    let mut device = certificates.connect(&hub, "x", "first").unwrap();
    device.subscribe_all();
    assert_eq!(device.get_twin()["desired"]["$version"], 1);
    certificates.connect(&hub, "x", "second").unwrap();
    certificates.connect(&hub, "started", "second").unwrap();
    assert_eq!(
        certificates.connect(&hub, "started", "first").err(),
        Some(5)
    );
    assert_eq!(certificates.connect(&hub, "x", "third").err(), Some(5));
    hub.refused_because("thumbprint is not one registered");
    assert_eq!(connect(&hub, "x", None).err(), Some(5));
    hub.refused_because("sent no client certificate");
    let over = |name: &str| certificates.connect_over_websockets(&hub, "x", name);
    let mut device = over("first").unwrap();
    device.subscribe_all();
    assert_eq!(device.get_twin()["desired"]["$version"], 1);
    assert_eq!(over("third").err(), Some(5));
    // A certificate is no way into a device with keys, a key none into one with a certificate.
    assert_eq!(certificates.connect(&hub, "d1", "first").err(), Some(5));
    hub.refused_because("no password");
    let with_key = Connect {
        client_id: "x".into(),
        user: Some("localhost/x/?api-version=2021-04-12".into()),
        ..hub.hello("d1")
    };
    assert_eq!(hub.connect(&with_key).err(), Some(5));

    // Another thumbprint takes the place of the first; then keys do.
    let body = |authentication| json!({"authentication": authentication});
    let third = certificates.thumbprint("third", "-sha1");
    let other = body(json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": third}}));
    assert_eq!(
        owner
            .call_if("PUT", "/devices/x", Some(&other), "\"*\"")
            .status,
        200
    );
    certificates.connect(&hub, "x", "third").unwrap();
    assert_eq!(certificates.connect(&hub, "x", "first").err(), Some(5));
    let sas = body(json!({"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}));
    let shown = owner.call_if("PUT", "/devices/x", Some(&sas), "\"*\"");
    assert!(shown.body["authentication"]["symmetricKey"]["primaryKey"].is_string());
    assert_eq!(certificates.connect(&hub, "x", "third").err(), Some(5));
}

#[test]
fn an_authority_lets_in_what_it_signed_under_the_device_s_name() {
    let certificates = Certificates::new();
    let root = certificates.authority("root", None);
    let intermediate = certificates.authority("intermediate", Some("root"));
    certificates.authority("stranger", None);
    certificates.device("good", "x", "root");
    certificates.device("named-else", "y", "root");
    certificates.device("strange", "x", "stranger");
    certificates.device("below", "x", "intermediate");
    let end = "basicConstraints=critical,CA:FALSE";
    certificates.signed("expired", "x", "root", "-1", end);
    let hub = start_with(Options {
        x509_devices: vec![("x".into(), None)],
        trusted_authorities: vec![root],
        ..Options::default()
    });
    let shown = hub.owner().get("/devices/x").body;
    assert_eq!(shown["authentication"]["type"], "certificateAuthority");

    let mut device = certificates.connect(&hub, "x", "good").unwrap();
    device.subscribe_all();
    device.get_twin();
    for (name, says) in [
        ("named-else", "common name (CN) is not"),
        ("strange", "no authority that the hub trusts"),
        ("expired", "expired"),
        // Its issuer is unknown until the device sends it along.
        ("below", "no authority that the hub trusts"),
    ] {
        assert_eq!(
            certificates.connect(&hub, "x", name).err(),
            Some(5),
            "{name}"
        );
        hub.refused_because(says);
        hub.events.lock().unwrap().clear();
    }
    let chain = certificates.file("chain.pem");
    let below = std::fs::read_to_string(certificates.file("below.pem")).unwrap();
    let above = std::fs::read_to_string(intermediate).unwrap();
    std::fs::write(&chain, below + &above).unwrap();
    connect(&hub, "x", Some((&chain, &certificates.file("below.key")))).unwrap();
    // A device that nobody registered: no certificate lets it in.
    assert_eq!(certificates.connect(&hub, "y", "named-else").err(), Some(5));
}

#[test]
fn without_a_trusted_authority_there_is_nothing_to_check_with() {
    let certificates = Certificates::new();
    certificates.authority("root", None);
    certificates.device("good", "x", "root");
    let hub = start_with(Options {
        x509_devices: vec![("x".into(), None)],
        ..Options::default()
    });
    assert_eq!(certificates.connect(&hub, "x", "good").err(), Some(5));
    hub.refused_because("the hub trusts none");
}

#[test]
fn an_old_certificate_is_refused_in_words_that_help() {
    let certificates = Certificates::new();
    certificates.authority("root", None);
    certificates.signed("old", "x", "root", "1", "");
    let hub = start_with(Options::default());
    let address = format!("127.0.0.1:{}", hub.info().mqtt_port);
    // rustls would not send it.
    let mut openssl = certificates.openssl();
    openssl.args([
        "s_client", "-cert", "old.pem", "-key", "old.key", "-connect",
    ]);
    openssl.arg(address).stdin(Stdio::null()).output().unwrap();
    hub.refused_because("not of X.509 version 3");
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    let start = |options: Options| {
        Hub::start(Options {
            mqtt_port: 0,
            https_port: 0,
            ..options
        })
        .unwrap_err()
    };
    let certificates = Certificates::new();
    certificates.authority("root", None);
    for file in ["missing.pem", "root.key"] {
        let error = start(Options {
            trusted_authorities: vec![certificates.file(file)],
            ..Options::default()
        });
        assert!(
            matches!(error, Error::TrustedAuthority { .. }) && error.to_string().contains(file),
            "{error}"
        );
    }
    let error = start(Options {
        x509_devices: vec![("x".into(), Some("AB:CD".into()))],
        ..Options::default()
    });
    assert!(error.to_string().contains("hexadecimal digits"), "{error}");
}
