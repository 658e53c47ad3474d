//! What the programs talk to: a hub, and a server of images.

use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const IMAGE_SIZE: u32 = 400_000;

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hub and image server, and what the programs are told of them.
pub(super) struct Servers {
    environment: Vec<(&'static str, String)>,
    _hub: Running,
    _nginx: Running,
    directory: tempfile::TempDir,
}

impl Servers {
    /// Starts both. `twinflash` is the command.
    pub(super) fn start(twinflash: &Path) -> Result<Self, String> {
        let directory = tempfile::tempdir()
            .map_err(|error| format!("cannot make a directory for the servers: {error}"))?;
        let image = directory.path().join("www/image.bin");
        let (nginx, port) = nginx(directory.path(), &image)?;
        let certificate = directory.path().join("device.pem");
        let (hub, ready) = hub(twinflash, &own_certificate(&certificate)?)?;
        let of = |pointer: &str| {
            let text = ready.pointer(pointer).and_then(Value::as_str);
            text.map(str::to_owned)
                .ok_or_else(|| format!("the hub does not say {pointer}: {ready}"))
        };
        let environment = vec![
            ("TEST_SERVER", format!("http://127.0.0.1:{port}")),
            ("TEST_IMAGE", image.display().to_string()),
            ("TEST_DEVICE", of("/devices/device1")?),
            ("TEST_X509_DEVICE", of("/devices/certified")?),
            ("TEST_CERTIFICATE", certificate.display().to_string()),
            ("TEST_CA", of("/ca")?),
            ("TEST_TWINFLASH", twinflash.display().to_string()),
            ("TWINFLASH_SERVICE", of("/serviceConnectionString")?),
        ];
        Ok(Self {
            environment,
            _hub: hub,
            _nginx: nginx,
            directory,
        })
    }

    /// For a program that is run.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// An empty directory for a program.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(path)
    }
}

/// Makes a certificate that a device has signed itself, in one file with its key; gives its thumbprint.
fn own_certificate(file: &Path) -> Result<String, String> {
    let openssl = |arguments: String| {
        let output = Command::new("openssl").args(arguments.split(' ')).output();
        let output = output.map_err(|error| format!("cannot run openssl: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("openssl {arguments}: {}", output.status)),
        }
    };
    let file = file.display();
    openssl(format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=certified -keyout {file} -out {file}"
    ))?;
    let thumbprint = openssl(format!("x509 -noout -fingerprint -sha256 -in {file}"))?;
    let (_, thumbprint) = thumbprint.trim().split_once('=').unwrap_or_default();
    Ok(thumbprint.replace(':', ""))
}

fn hub(twinflash: &Path, thumbprint: &str) -> Result<(Running, Value), String> {
    let mut hub = Command::new(twinflash);
    hub.args(["hub", "--json", "--mqtt-port", "0", "--https-port", "0"]);
    hub.args(["--device", "device1", "--x509-device"]);
    hub.arg(format!("certified={thumbprint}"));
    hub.stdout(Stdio::piped());
    let mut hub = Running(
        hub.spawn()
            .map_err(|error| format!("cannot start the hub: {error}"))?,
    );
    let output = hub.0.stdout.take().ok_or("the hub has no output")?;
    let mut lines = BufReader::new(output).lines();
    let line = match lines.next() {
        Some(Ok(line)) => line,
        _ => return Err("the hub says nothing".into()),
    };
    let ready = serde_json::from_str(&line)
        .map_err(|error| format!("the hub says {line:?}, which is no JSON: {error}"))?;
    // What else it says is taken from it, so that it goes on.
    thread::spawn(move || lines.for_each(drop));
    Ok((hub, ready))
}

/// nginx, with the image, and with the image so slow that things can be done meanwhile.
fn nginx(directory: &Path, image: &Path) -> Result<(Running, u16), String> {
    let failed = |error: std::io::Error| format!("cannot set nginx up: {error}");
    let shown = directory.display();
    let free = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let port = free.local_addr().map_err(failed)?.port();
    drop(free);
    fs::create_dir_all(directory.join("www")).map_err(failed)?;
    // No two pieces of it are the same.
    let bytes: Vec<u8> = (0..IMAGE_SIZE / 4)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    fs::write(image, bytes).map_err(failed)?;
    let configuration = directory.join("nginx.conf");
    fs::write(
        &configuration,
        format!(
            "daemon off; master_process off; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
             events {{}}\n\
             http {{\n\
               access_log off;\n\
               client_body_temp_path {shown}/t; proxy_temp_path {shown}/t; scgi_temp_path {shown}/t;\n\
               fastcgi_temp_path {shown}/t; uwsgi_temp_path {shown}/t;\n\
               server {{\n\
                 listen 127.0.0.1:{port}; root {shown}/www;\n\
                 location /slow/ {{ alias {shown}/www/; limit_rate 150k; }}\n\
               }}\n\
             }}\n"
        ),
    )
    .map_err(failed)?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(&configuration).arg("-e");
    nginx.arg(directory.join("error.log"));
    let mut nginx = Running(nginx.spawn().map_err(failed)?);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = nginx.0.try_wait().map_err(failed)?;
        if ended.is_some() || start.elapsed() > Duration::from_secs(20) {
            let why = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            return Err(format!("nginx does not listen: {why}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok((nginx, port))
}
