//! Mosquitto, a broker none of us wrote, with TLS certificates made for the test.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rumqttc::{
    Client, Event, MqttOptions, NetworkOptions, Packet, PublishOptions, QoS, TlsConfiguration,
    Transport,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;
use twinflash::tls::{ClientIdentity, Roots, client_config};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "the test's CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).unwrap()
    }

    /// Certificate and key of a server, good in the years 2020 to 2039.
    fn server(&self, name: &str) -> (String, String) {
        self.issue(name, 2020)
    }

    /// Certificate and key for a device, good until the begin of this year.
    pub(crate) fn device(&self, until: i32) -> ClientIdentity {
        let (certificate, key) = self.issue("d1", until - 20);
        ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// Good for twenty years from the begin of this one.
    fn issue(&self, name: &str, from: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(from + 20, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

impl Authority {
    /// How a server at 127.0.0.1 speaks TLS.
    pub(crate) fn server_config(&self) -> rustls::ServerConfig {
        let (certificate, key) = self.server("127.0.0.1");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap()
    }
}

/// A running mosquitto.
pub(crate) struct Broker {
    pub(crate) authority: Authority,
    pub(crate) port: u16,
    directory: TempDir,
    process: Child,
}

impl Broker {
    /// For `localhost`, accepting everybody.
    pub(crate) fn start() -> Self {
        Self::with("localhost", "allow_anonymous true")
    }

    /// With a certificate for `name`, and these lines of configuration.
    pub(crate) fn with(name: &str, configuration: &str) -> Self {
        let authority = Authority::new();
        let directory = TempDir::new().unwrap();
        let path = |file: &str| directory.path().join(file);
        let (certificate, key) = authority.server(name);
        fs::write(path("certificate.pem"), certificate).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        fs::write(path("passwords"), "").unwrap();
        fs::write(path("authority.pem"), &authority.pem).unwrap();
        let port = free_port();
        fs::write(
            path("mosquitto.conf"),
            format!(
                "user root\nset_tcp_nodelay true\nlog_dest file {log}\nlog_type all\nlistener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n{configuration}\n",
                log = path("log").display(),
                certificate = path("certificate.pem").display(),
                key = path("key.pem").display(),
                configuration = configuration.replace("DIRECTORY", &directory.path().display().to_string()),
            ),
        )
        .unwrap();
        let process = spawn(directory.path(), port);
        Self {
            authority,
            port,
            directory,
            process,
        }
    }

    /// Ends it without a good-bye.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.directory.path(), self.port);
    }

    /// Stops it where it is (`false`: lets it go on): the connections stay, nothing answers.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Broker {
    /// Waits until it has logged this.
    pub(crate) fn logs(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "no \"{text}\" in {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &Path, port: u16) -> Child {
    let configuration = directory.join("mosquitto.conf");
    let start = |program: &str| {
        Command::new(program)
            .arg("-c")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    // Debian keeps it where only administrators look.
    let process = start("mosquitto").or_else(|error| match error.kind() {
        ErrorKind::NotFound => start("/usr/sbin/mosquitto"),
        _ => Err(error),
    });
    let mut process = process.expect("mosquitto is needed: apt-get install mosquitto");
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = process.try_wait().unwrap() {
            let log = fs::read_to_string(directory.join("log"));
            panic!("mosquitto has ended at once ({status}): {log:?}");
        }
        assert!(Instant::now() < end, "mosquitto does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    process
}

/// A port nothing listens on, below those the system hands out by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id()
            .wrapping_mul(64)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + u16::try_from(next % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The hub's side of the conversation, played over the broker by the test.
pub(crate) struct Hub {
    client: Client,
    messages: mpsc::Receiver<(String, Vec<u8>)>,
}

impl Hub {
    pub(crate) fn join(broker: &Broker) -> Self {
        let clock: twinflash::tls::Clock = Arc::new(|| Some(SystemTime::now()));
        let tls = client_config(&broker.authority.roots(), None, clock).unwrap();
        let mut options = MqttOptions::new("the-hub", ("localhost", broker.port));
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)))
            .set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::builder(options).build();
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        connection.eventloop.set_network_options(network);
        let (sender, messages) = mpsc::channel();
        let (ready, subscribed) = mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).unwrap(),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        if sender.send((topic, publish.payload.to_vec())).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        for filter in [
            "$iothub/methods/res/#",
            "$iothub/twin/GET/#",
            "$iothub/twin/PATCH/properties/reported/#",
        ] {
            client.subscribe(filter, QoS::AtLeastOnce).unwrap();
            subscribed.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        Self { client, messages }
    }

    pub(crate) fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let payload: Vec<u8> = payload.into();
        self.client
            .publish(topic, payload, PublishOptions::at_least_once())
            .unwrap();
    }

    /// The next message of the device: its topic and its payload.
    pub(crate) fn next(&self) -> (String, Vec<u8>) {
        self.messages
            .recv_timeout(Duration::from_secs(10))
            .expect("a message of the device")
    }

    /// The next message, which must be on a topic that starts like this, and the rest of it.
    pub(crate) fn expect(&self, start: &str) -> (String, Vec<u8>) {
        let (topic, payload) = self.next();
        let rest = topic.strip_prefix(start);
        let rest = rest.unwrap_or_else(|| panic!("{topic} does not start with {start}"));
        (rest.to_owned(), payload)
    }
}
