//! What the libraries below write to an application's log. A library cannot choose that log's filter, so it is asked
//! what they say when it takes everything but `trace`.

use crate::device::*;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::Mutex;

/// All that was logged in this process; the other tests' as well.
static LOGGED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{}: {}", record.target(), record.args());
            LOGGED.lock().unwrap().push((record.level(), line));
        }
    }

    fn flush(&self) {}
}

/// A query, a user name and a password, in the request, in a redirect, and in those of an answer's headers and of a
/// proxy.
#[test]
fn no_secret_is_logged_up_to_debug() {
    const SECRET: &str = "S3CR3T";
    log::set_logger(&Logger).unwrap();
    // As where one other module is looked at more closely: `trace` is not off, but not on for the HTTP library.
    log::set_max_level(LevelFilter::Trace);
    let server = Server::http(|reply| match reply.asked.path.split('?').next().unwrap() {
        "/old" => reply.empty(
            "302 Found",
            &[("Location", "/new?sig=S3CR3T"), ("Set-Cookie", "id=S3CR3T")],
        ),
        "/gone" => reply.empty("404 Not Found", &[("X-Id", "S3CR3T")]),
        "/garbage" => drop(reply.body(b"HTTP/1.1 999999 S3CR3T\r\n\r\n")),
        _ => reply.serve(&image(1), TAG, ALL),
    });
    let address = server.address();
    let proxy = Server::http(move |reply| reply.tunnel(address));
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Url(proxy.url("").replace("//", "//me-S3CR3T:pw-S3CR3T@"));
    let proxied = Downloader::new(options).unwrap();
    let mut device = Device::new();
    let url = |path: &str| {
        let url = server.url(path);
        url.replace("//", "//me-S3CR3T:pw-S3CR3T@") + "?sig=S3CR3T#S3CR3T"
    };
    let ended = device.fetch(&job(url("/old")));
    device.assert_complete(ended, &image(1));
    for path in ["/gone", "/garbage"] {
        let (_, _, message) = failed(device.fetch(&job(url(path))));
        assert!(!message.contains(SECRET), "{message}");
    }
    device.downloader = proxied;
    let ended = device.fetch(&job(url("/old")));
    device.assert_complete(ended, &image(1));
    let asked = server.asked();
    let user = asked[0].header("authorization").unwrap();
    assert!(user.starts_with("Basic "), "{user}");

    let logged = LOGGED.lock().unwrap();
    // It is ureq that was listened to, and its log has not moved elsewhere.
    assert!(
        logged
            .iter()
            .any(|(level, line)| *level == Level::Debug && line.starts_with("ureq")),
        "{logged:?}"
    );
    for (_, line) in logged.iter() {
        assert!(!line.contains(SECRET), "{line}");
        let password = user.trim_start_matches("Basic ");
        assert!(!line.contains(password), "{line}");
    }
}
