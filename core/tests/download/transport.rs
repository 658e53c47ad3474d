//! What an owner sets for the image server: hosts, a client certificate, headers, a proxy. Against nginx and
//! tinyproxy, where they are what it is for.

use crate::{device::*, tls::Authority};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};
use twinflash::tls::ClientIdentity;

/// A server program; ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn start(program: &str, arguments: &[&str], port: u16) -> Running {
    let child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let running = Running(child);
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return running;
        }
        thread::sleep(Duration::from_millis(25));
    }
    panic!("{program} does not listen");
}

/// nginx with what `location` says, on https; its clients must have a certificate of the authority.
fn nginx(directory: &Path, authority: &Authority) -> (Running, String) {
    let shown = directory.display();
    let (certificate, key) = authority.issue("127.0.0.1", |_| {});
    fs::write(directory.join("server.pem"), certificate).unwrap();
    fs::write(directory.join("server.key"), key).unwrap();
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    fs::write(directory.join("image"), image(1)).unwrap();
    let port = free_port();
    let text = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {shown}/body; proxy_temp_path {shown}/p;\n\
         fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl; root {shown};\n\
         ssl_certificate {shown}/server.pem; ssl_certificate_key {shown}/server.key;\n\
         ssl_client_certificate {shown}/ca.pem; ssl_verify_client on;\n\
         location /keyed/ {{ if ($http_x_api_key != S3CR3T) {{ return 403; }} alias {shown}/; }} }} }}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let log = directory.join("error.log").display().to_string();
    let arguments = ["-c", file.to_str().unwrap(), "-e", &log];
    let running = start("nginx", &arguments, port);
    (running, format!("https://127.0.0.1:{port}"))
}

fn client(authority: &Authority) -> (String, String) {
    authority.issue("device", |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

fn options(authority: &Authority) -> HttpOptions {
    let mut options = HttpOptions::default();
    options.roots = authority.roots();
    options.proxy = Proxy::None;
    options
}

#[test]
fn a_server_that_asks_who_the_device_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (_nginx, url) = nginx(directory.path(), &authority);
    let fetch = |options, path: &str| {
        let mut device = Device::new();
        device.downloader = Downloader::new(options).unwrap();
        let ended = device.fetch(&job(format!("{url}{path}")));
        (device, ended)
    };
    // No certificate: nginx answers 400.
    let (_, ended) = fetch(options(&authority), "/image");
    let (code, retry, message) = failed(ended);
    assert_eq!((code, retry), (Code::HttpStatus, Retry::Never), "{message}");
    // Another authority's.
    let mut foreign = options(&authority);
    let (certificate, key) = client(&Authority::new());
    foreign.identity =
        Some(ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap());
    // nginx answers, or breaks off: TLS 1.3 is done before it has looked.
    let (code, _, message) = failed(fetch(foreign, "/image").1);
    let refused = matches!(code, Code::HttpStatus | Code::Tls | Code::Network);
    assert!(refused, "{message}");
    // Its own; with a header that the server wants to see, and without.
    let (certificate, key) = client(&authority);
    let identity = ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let shown = format!("{identity:?}");
    assert_eq!(shown, "ClientIdentity(1)");
    let mut own = options(&authority);
    own.identity = Some(identity);
    let (device, ended) = fetch(own.clone(), "/image");
    device.assert_complete(ended, &image(1));
    let (code, _, message) = failed(fetch(own.clone(), "/keyed/image").1);
    assert_eq!(code, Code::HttpStatus, "{message}");
    own.headers = vec![("X-Api-Key".into(), "S3CR3T".into())];
    let (device, ended) = fetch(own, "/keyed/image");
    device.assert_complete(ended, &image(1));
}

#[test]
fn a_key_that_is_not_the_certificates() {
    let authority = Authority::new();
    let ((certificate, key), (_, other)) = (client(&authority), client(&authority));
    let pair = |certificate: &str, key: &str| {
        ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).map(drop)
    };
    assert_eq!(pair(&certificate, &key), Ok(()));
    assert_eq!(pair(&format!("{key}{certificate}"), &key), Ok(()));
    for (certificate, key, why) in [
        (&certificate, &other, "is not that of its certificate"),
        (&certificate, &certificate, "is no private key in PEM"),
        (&key, &key, "holds no certificate"),
    ] {
        let error = pair(certificate, key).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
    }
}

#[test]
fn only_hosts_that_are_allowed_at_first_and_after_redirects() {
    let server = Server::http(|reply| match reply.asked.path.as_str() {
        "/elsewhere" => {
            reply.empty(
                "302 Found",
                &[("Location", "http://localhost:1/x?sig=secret")],
            );
        }
        "/here" => reply.empty("302 Found", &[("Location", "/image")]),
        _ => reply.serve(&image(1), TAG, ALL),
    });
    let mut device = Device::new();
    let mut allow = |hosts: &[&str]| {
        let mut options = HttpOptions::default();
        options.proxy = Proxy::None;
        options.hosts = hosts.iter().map(|host| (*host).into()).collect();
        device.downloader = Downloader::new(options).unwrap();
    };
    allow(&["127.0.0.1", "*.example.com"]);
    let ended = device.fetch(&job(server.url("/here")));
    device.assert_complete(ended, &image(1));
    let (code, retry, message) = failed(device.fetch(&job(server.url("/elsewhere"))));
    assert_eq!((code, retry), (Code::Redirect, Retry::Never));
    assert!(
        message.contains("the host localhost is not among"),
        "{message}"
    );
    assert!(!message.contains("secret"), "{message}");
    let asked = server.asked().len();
    let mut options = HttpOptions::default();
    options.proxy = Proxy::None;
    options.hosts = vec!["*.example.com".into()];
    device.downloader = Downloader::new(options).unwrap();
    let job = job(server.url("/image"));
    let (code, retry, message) = failed(device.fetch(&job));
    assert_eq!((code, retry), (Code::InvalidUri, Retry::Never));
    assert!(
        message.contains("the host 127.0.0.1 is not among"),
        "{message}"
    );
    // The manifest beside it, too.
    let ended = device.downloader.fetch_manifest(&job, &Stop::new());
    assert_eq!(failed(ended).0, Code::InvalidUri);
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn headers_are_for_the_server_they_were_meant_for() {
    let other = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let to = other.url("/image");
    let server = Server::http(move |reply| match reply.asked.path.as_str() {
        "/first" => reply.empty("302 Found", &[("Location", "/second")]),
        _ => reply.empty("302 Found", &[("Location", &to)]),
    });
    let mut options = HttpOptions::default();
    options.proxy = Proxy::None;
    options.headers = vec![("X-Api-Key".into(), "S3CR3T".into())];
    let mut device = Device::new();
    device.downloader = Downloader::new(options).unwrap();
    let ended = device.fetch(&job(server.url("/first")));
    device.assert_complete(ended, &image(1));
    for asked in server.asked() {
        assert_eq!(asked.header("x-api-key"), Some("S3CR3T"));
    }
    assert_eq!(other.asked()[0].header("x-api-key"), None);
}

/// A proxy that lets in who knows its password.
fn tinyproxy(directory: &Path) -> (Running, u16) {
    let (port, file) = (free_port(), directory.join("tinyproxy.conf"));
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 10\nBasicAuth me pw-S3CR3T\nLogLevel Critical\n"
    );
    fs::write(&file, text).unwrap();
    let arguments = ["-d", "-c", file.to_str().unwrap()];
    (start("tinyproxy", &arguments, port), port)
}

#[test]
fn through_tinyproxy() {
    let directory = tempfile::tempdir().unwrap();
    let (_proxy, port) = tinyproxy(directory.path());
    let authority = Authority::new();
    let secure = Server::https(authority.server("127.0.0.1", false), |reply| {
        reply.serve(&image(1), TAG, ALL);
    });
    let plain = Server::http(|reply| reply.serve(&image(2), TAG, ALL));
    let through = |password: &str| {
        let mut options = options(&authority);
        options.proxy = Proxy::Url(format!("http://me:{password}@127.0.0.1:{port}"));
        let mut device = Device::new();
        device.downloader = Downloader::new(options).unwrap();
        device
    };
    let mut device = through("pw-S3CR3T");
    let ended = device.fetch(&job(secure.url("/x")));
    device.assert_complete(ended, &image(1));
    let ended = device.fetch(&job(plain.url("/x")));
    device.assert_complete(ended, &image(2));
    let (code, _, message) = failed(through("no-S3CR3T").fetch(&job(secure.url("/x"))));
    assert_eq!(code, Code::Network, "{message}");
    assert!(
        message.contains("proxy") && !message.contains("S3CR3T"),
        "{message}"
    );
    assert_eq!(secure.asked().len(), 1);
}

/// What the environment says is a process's: this test runs itself once more.
#[test]
fn by_the_environment_s_proxy_but_for_hosts_in_no_proxy() {
    const URL: &str = "TWINFLASH_TEST_URL";
    const NAME: &str = "transport::by_the_environment_s_proxy_but_for_hosts_in_no_proxy";
    if let Ok(url) = std::env::var(URL) {
        let mut device = Device::new();
        device.downloader = Downloader::new(HttpOptions::default()).unwrap();
        let ended = device.fetch(&job(url));
        if std::env::var("TWINFLASH_TEST_FAILS").is_ok() {
            let (code, _, message) = failed(ended);
            assert_eq!(code, Code::Network, "{message}");
            assert!(message.contains("proxy"), "{message}");
            assert!(!message.contains("S3CR3T"), "{message}");
            return;
        }
        return device.assert_complete(ended, &image(1));
    }
    let directory = tempfile::tempdir().unwrap();
    let (_proxy, port) = tinyproxy(directory.path());
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let direct = server.url("/x");
    let other = direct.replace("127.0.0.1", "localhost");
    let mut asked = 0;
    // With a wrong password nothing comes through the proxy: what comes has gone around it.
    for (password, url, comes) in [
        ("pw-S3CR3T", &other, true),
        ("no-S3CR3T", &other, false),
        ("no-S3CR3T", &direct, true),
    ] {
        let mut itself = Command::new(std::env::current_exe().unwrap());
        itself.args([NAME, "--exact"]).env(URL, url);
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
            itself.env_remove(name).env_remove(name.to_lowercase());
        }
        itself
            .env(
                "HTTPS_PROXY",
                format!("http://me:{password}@127.0.0.1:{port}"),
            )
            .env("NO_PROXY", "*.example.com,127.0.0.1");
        if !comes {
            itself.env("TWINFLASH_TEST_FAILS", "");
        }
        let output = itself.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{url}: {said}");
        assert!(said.contains("1 passed"), "{said}");
        asked += usize::from(comes);
        assert_eq!(server.asked().len(), asked, "{url}");
    }
}
