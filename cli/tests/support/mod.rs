//! Runs the built command, reads what it prints, and ends it whatever happens.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod secrets;
#[path = "../../../core/tests/support/server.rs"]
pub mod server;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring};
use secrets::Tells;
use serde_json::Value;
use server::{Reply, Server};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The command with these arguments and nothing of this process's environment that matters to it.
pub fn twinflash(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinflash"));
    command.args(arguments).stdin(Stdio::null());
    for name in [
        "TWINFLASH_SERVICE",
        "TWINFLASH_DEVICE",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Done {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Its lines, each a JSON object.
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect(line);
        self.out.lines().map(parse).collect()
    }
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Done {
    Running::start(twinflash(arguments)).wait()
}

/// A running command; killed when it is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    /// Everything it printed so far.
    seen: Vec<String>,
    err: Option<thread::JoinHandle<String>>,
    tells: Tells,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let tells = Tells::of(&command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            child,
            lines: read_lines(lines),
            seen: Vec::new(),
            err: Some(thread::spawn(move || {
                let mut text = String::new();
                let _ = err.read_to_string(&mut text);
                text
            })),
            tells,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output that holds this.
    pub fn line_with(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub fn json_with(&mut self, text: &str) -> Value {
        serde_json::from_str(&self.line_with(text)).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("no end: {:#?}", self.seen),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let (out, err) = self.printed();
        Done {
            status: status.code(),
            out,
            err,
        }
    }

    /// All it has printed, once it has ended; it fails if there is a secret in it.
    fn printed(&mut self) -> (String, String) {
        self.seen.extend(self.lines.iter());
        let out: String = self.seen.iter().map(|line| format!("{line}\n")).collect();
        let err = self
            .err
            .take()
            .map_or_else(String::new, |err| err.join().unwrap());
        for printed in [&out, &err] {
            secrets::none_in(printed, self.tells);
        }
        (out, err)
    }

    pub fn stop(self, signal: &str) -> Done {
        self.signal(signal);
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            self.printed();
        }
    }
}

/// A running command nobody reads from; killed when it is dropped.
pub struct Unread(pub Child);

impl Unread {
    pub fn start(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_lines(out: ChildStdout) -> Receiver<String> {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A hub, a firmware server and a directory for a device.
pub struct World {
    /// Before the directory: it looks at it in the end.
    pub kept: secrets::State,
    pub dir: tempfile::TempDir,
    pub hub: Running,
    pub ready: Value,
    pub firmware: Server,
}

/// The image that [`World::firmware`] serves at `/image`, with the version it says in its first line.
pub fn image() -> Vec<u8> {
    let mut image = b"1.0.1\n".to_vec();
    image.extend((0..300_000_u32).map(|n| (n % 251) as u8));
    image
}

pub const DEVICE: &str = "device#1";

impl World {
    pub fn new() -> Self {
        Self::with_hub(&[])
    }

    /// With further options of the hub.
    pub fn with_hub(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = ["--mqtt-port", "0", "--https-port", "0"];
        let mut hub = twinflash(&["hub", "--json", "--device", DEVICE]);
        hub.args(ports).args(options);
        let mut hub = Running::start(hub);
        let ready = hub.json_with("");
        secrets::keep(&ready);
        let (pem, config) = authority();
        fs::write(dir.path().join("firmware.pem"), pem).unwrap();
        fs::write(dir.path().join("app.bin"), "1.0.0\n").unwrap();
        let firmware = Server::https(config, |reply: &mut Reply| {
            match reply.asked.path.split('?').next() {
                Some("/image") => reply.serve(&image(), Some("\"1\""), usize::MAX),
                // In ten seconds.
                Some("/slow") => {
                    (reply.piece, reply.pause) = (3000, Duration::from_millis(100));
                    reply.serve(&image(), Some("\"1\""), usize::MAX);
                }
                _ => reply.empty("404 Not Found", &[]),
            }
        });
        let world = Self {
            kept: secrets::State(dir.path().join("state")),
            dir,
            hub,
            ready,
            firmware,
        };
        world.write(
            "service",
            world.ready["serviceConnectionString"].as_str().unwrap(),
        );
        world.write("device", world.connection());
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new file is its owner's alone, as those with secrets must be.
    pub fn write(&self, name: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub fn installed(&self) -> Vec<u8> {
        fs::read(self.path("app.bin")).unwrap()
    }

    pub fn connection(&self) -> &str {
        self.ready["devices"][DEVICE].as_str().unwrap()
    }

    /// A URL on the firmware server, with secrets in it.
    pub fn url(&self, path: &str) -> String {
        secrets::put_into(&self.shown(path))
    }

    /// The same as it may be shown.
    pub fn shown(&self, path: &str) -> String {
        self.firmware.url(path).replace("127.0.0.1", "localhost")
    }

    /// A device's command, with these lines in its configuration: before the tables and in `[install]`.
    pub fn device_command(&self, lines: &str, install: &str) -> Command {
        let ca = self.ready["ca"].as_str().unwrap();
        self.write(
            "twinflash.toml",
            &format!(
                "connection_string = \"@device\"\nca = \"{ca}\"\nstate_dir = \"state\"\n{lines}\n\
                 [install]\nfile = \"app.bin\"\n{install}\n[http]\nca = \"firmware.pem\"\n"
            ),
        );
        let config = self.path("twinflash.toml");
        twinflash(&["device", "--json", "--config", config.to_str().unwrap()])
    }

    /// A device that is connected.
    pub fn device(&self, lines: &str, install: &str) -> Running {
        let mut device = Running::start(self.device_command(lines, install));
        device.line_with("\"connected\"");
        device
    }

    pub fn back_end(&self, arguments: &[&str]) -> Command {
        let mut command = self.people(arguments);
        command.arg("--json");
        command
    }

    /// A back end's command that prints what people read.
    pub fn people(&self, arguments: &[&str]) -> Command {
        let mut command = twinflash(arguments);
        let service = format!("@{}", self.path("service").display());
        command
            .args(["--ca", self.ready["ca"].as_str().unwrap()])
            .env("TWINFLASH_SERVICE", service);
        command
    }

    /// Runs a back end's command to its end, for what people read.
    pub fn show(&self, arguments: &[&str]) -> Done {
        Running::start(self.people(arguments)).wait()
    }

    /// Runs a back end's command with the rights of one of the hub's policies.
    pub fn ask_as(&self, policy: &str, arguments: &[&str]) -> Done {
        let mut command = self.back_end(arguments);
        let connection = self.ready["policies"][policy].as_str().unwrap();
        command.env("TWINFLASH_SERVICE", connection);
        Running::start(command).wait()
    }

    /// Runs a back end's command to its end.
    pub fn ask(&self, arguments: &[&str]) -> Done {
        Running::start(self.back_end(arguments)).wait()
    }
}

/// An authority's certificate as PEM, and a server it vouches for.
pub fn authority() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (issuer.pem(), config)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
