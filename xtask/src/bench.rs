//! `cargo xtask bench download`: our pipeline against curl, on this machine, in one run.
//!
//! Three ways to get the same image from the same server into a synced file, taken in turn:
//! ours (verified, installed by the file installer); `curl -o` and a sync (no verification: the
//! floor); `curl | tee | sha256sum` and a sync (what people do). Then ours and the floor over HTTPS.

mod c;
mod node;
mod python;
mod scale;

pub(crate) use c::run as c;
pub(crate) use node::node;
pub(crate) use python::python;
pub(crate) use scale::scale;

use rcgen::{CertificateParams, KeyPair};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

type Error = Box<dyn std::error::Error>;

/// What is to be measured.
struct Options {
    mebibytes: u64,
    runs: usize,
}

/// Measures, and prints what came out; whether it could be measured.
pub(crate) fn download(arguments: &[&str]) -> bool {
    let mut options = Options {
        mebibytes: 256,
        runs: 9,
    };
    for pair in arguments.chunks(2) {
        match (
            pair,
            pair.get(1).and_then(|value| value.parse::<u32>().ok()),
        ) {
            (["--mib", _], Some(value @ 1..)) => options.mebibytes = value.into(),
            (["--runs", _], Some(value @ 1..)) => options.runs = value as usize,
            _ => {
                eprintln!("bench download: {pair:?} is no option with a number above 0");
                return false;
            }
        }
    }
    match measure(&options) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("bench download: {error}");
            false
        }
    }
}

fn measure(options: &Options) -> Result<(), Error> {
    let fetch = build_fetch()?;
    // On the disk the build is on: a directory in memory would have nothing to sync.
    let target = fs::canonicalize("target")?;
    let directory = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(target)?;
    let directory = directory.path();
    let image = directory.join("image.bin");
    let sha256 = make_image(&image, options.mebibytes)?;
    let server = Server::start(directory)?;
    println!(
        "{} MiB from {}, {} runs of each, in turn; medians",
        options.mebibytes, server.name, options.runs
    );
    let schemes = [
        Some(("http", &server.http)),
        server.https.as_ref().map(|url| ("https", url)),
    ];
    for (scheme, url) in schemes.into_iter().flatten() {
        let url = format!("{url}/image.bin");
        compare(scheme, &url, &sha256, &fetch, directory, options)?;
    }
    if server.https.is_none() {
        println!("https was not measured: it needs nginx");
    }
    Ok(())
}

fn compare(
    scheme: &str,
    url: &str,
    sha256: &str,
    fetch: &Path,
    directory: &Path,
    options: &Options,
) -> Result<(), Error> {
    let ca = directory.join("certificate.pem");
    let out = directory.join("out.bin");
    let (to, fetch) = (out.display(), fetch.display());
    let (our_ca, curls_ca) = match scheme {
        "https" => (
            format!("--ca {}", ca.display()),
            format!("--cacert {}", ca.display()),
        ),
        _ => Default::default(),
    };
    let curl = format!("curl -sS --fail --noproxy '*' {curls_ca}");
    let commands = [
        (
            "ours",
            format!("exec {fetch} {url} {to} --check sha256:{sha256} {our_ca}"),
        ),
        (
            "curl -o, sync",
            format!("{curl} -o {to} {url} && sync {to}"),
        ),
        (
            "curl | tee | sha256sum, sync",
            format!("{curl} {url} | tee {to} | sha256sum && sync {to}"),
        ),
    ];
    let mut times = vec![Vec::new(); commands.len()];
    let mut memory = Vec::new();
    // The first round warms the caches and is not counted.
    for round in 0..=options.runs {
        for ((_, command), times) in commands.iter().zip(&mut times) {
            let begun = Instant::now();
            let output = Command::new("sh")
                .args(["-c", command])
                .stderr(Stdio::inherit())
                .output()?;
            let took = begun.elapsed();
            if !output.status.success() {
                return Err(format!("failed: {command}").into());
            }
            if round > 0 {
                times.push(took);
            }
            let said = String::from_utf8_lossy(&output.stdout);
            if let Ok(said) = serde_json::from_str::<serde_json::Value>(&said) {
                let kib = |name: &str| {
                    said.get(name)
                        .and_then(serde_json::Value::as_u64)
                        .unwrap_or(0)
                };
                memory.push(kib("peakKiB").saturating_sub(kib("idleKiB")));
            } else if !said.is_empty() && !said.starts_with(sha256) {
                return Err(format!("another image came: {said}").into());
            }
            // The next one finds the disk as this one did.
            fs::remove_file(&out)?;
            for left in fs::read_dir(directory)? {
                let left = left?.path();
                if left.to_string_lossy().contains(".twinflash-") {
                    fs::remove_file(left)?;
                }
            }
            File::open(directory)?.sync_all()?;
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let ours = medians.first().copied().unwrap_or_default();
    for ((name, _), (median, times)) in commands.iter().zip(medians.iter().zip(&times)) {
        let fastest = times.first().map_or(0.0, Duration::as_secs_f64);
        let slowest = times.last().map_or(0.0, Duration::as_secs_f64);
        println!(
            "{scheme:5}  {name:28}  {:6.0} ms  ({:.0} to {:.0})  ours is {:.2} of it",
            median * 1e3,
            fastest * 1e3,
            slowest * 1e3,
            ours / median
        );
    }
    let peak = memory.iter().max().copied().unwrap_or_default();
    println!(
        "{scheme:5}  peak memory of ours over idle: {:.1} MiB",
        peak as f64 / 1024.0
    );
    Ok(())
}

/// Sorts, and picks the middle one, in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
}

/// Builds the example that is measured; where it lies.
fn build_fetch() -> Result<PathBuf, Error> {
    let arguments = [
        "build",
        "--release",
        "-p",
        "twinflash",
        "--no-default-features",
        "--features",
        "http",
    ];
    let built = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--example", "fetch"])
        .status()?;
    if !built.success() {
        return Err("the example `fetch` does not build".into());
    }
    Ok(fs::canonicalize("target/release/examples/fetch")?)
}

/// Writes an image that does not compress; its SHA-256 as `sha256sum` says it.
fn make_image(path: &Path, mebibytes: u64) -> Result<String, Error> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..mebibytes {
        block.clear();
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let output = Command::new("sha256sum").arg(path).output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

/// A server of the directory's files on the loopback interface; ends when dropped.
struct Server {
    name: &'static str,
    http: String,
    https: Option<String>,
    nginx: Option<Child>,
}

impl Server {
    fn start(directory: &Path) -> Result<Self, Error> {
        // Debian keeps it where a user's PATH does not look.
        let nginx = ["nginx", "/usr/sbin/nginx"].into_iter().find(|nginx| {
            Command::new(nginx)
                .arg("-v")
                .stderr(Stdio::null())
                .status()
                .is_ok()
        });
        match nginx {
            Some(nginx) => Self::nginx(nginx, directory),
            None => Self::own(directory),
        }
    }

    fn nginx(nginx: &str, directory: &Path) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()])?.self_signed(&key)?;
        fs::write(directory.join("certificate.pem"), certificate.pem())?;
        fs::write(directory.join("key.pem"), key.serialize_pem())?;
        let (http, https) = (free_port()?, free_port()?);
        let root = directory.display();
        let config = format!(
            "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr crit;
events {{}}
http {{
    access_log off; sendfile on; tcp_nopush on;
    client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
    uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {root}/certificate.pem;
        ssl_certificate_key {root}/key.pem;
        root {root};
    }}
}}
"
        );
        let path = directory.join("nginx.conf");
        fs::write(&path, config)?;
        let mut child = Command::new(nginx)
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg("stderr")
            .spawn()?;
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", https)).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("nginx ended: {status}").into());
            }
            if Instant::now() > patience {
                return Err("nginx does not listen".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            name: "nginx",
            http: format!("http://127.0.0.1:{http}"),
            https: Some(format!("https://127.0.0.1:{https}")),
            nginx: Some(child),
        })
    }

    fn own(directory: &Path) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let http = format!("http://{}", listener.local_addr()?);
        let image = directory.join("image.bin");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let image = image.clone();
                thread::spawn(move || serve(stream, &image));
            }
        });
        Ok(Self {
            name: "a server of ours",
            http,
            https: None,
            nginx: None,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(nginx) = &mut self.nginx {
            let _ = nginx.kill();
            let _ = nginx.wait();
        }
    }
}

/// Answers one request with the file, whatever was asked for.
fn serve(mut stream: TcpStream, image: &Path) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let mut file = File::open(image)?;
    let length = file.metadata()?.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    io::copy(&mut file, &mut stream)?;
    Ok(())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
