//! Faults of the line: silence, drips, nobody there, a proxy.

use crate::device::*;
use std::io::{Read, Write};

#[test]
fn whole() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    let ended = device.fetch(&job(server.url("/image?sig=1")));
    device.assert_complete(ended, &image(1));
    assert_eq!(device.started(), Some(0));
    assert_eq!(device.staging.begun, [(Some(LENGTH as u64), 0)]);
    let asked = &server.asked()[0];
    assert_eq!(asked.path, "/image?sig=1");
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert!(
        asked
            .header("user-agent")
            .unwrap()
            .starts_with("twinflash/")
    );
    assert_eq!(asked.header("range"), None);
}

#[test]
fn a_drip_is_a_stall() {
    let server = Server::http(|reply| {
        reply.head(
            "200 OK",
            &[("Content-Length", "1000000"), ("ETag", "\"one\"")],
        );
        reply.body(&[1; 10_000]);
        while reply.body(&[1]) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut device = Device::new();
    let stall_time = Duration::from_millis(400);
    let begun = Instant::now();
    let (code, retry, message) = failed(device.fetch(&Job {
        stall_time,
        ..job(server.url("/"))
    }));
    assert_eq!(
        (code, retry),
        (Code::Stalled, Retry::Resume(None)),
        "{message}"
    );
    assert!(begun.elapsed() >= stall_time && begun.elapsed() < Duration::from_secs(3));
    let durable = device.checkpoint().unwrap().offset;
    assert!(
        (10_000..10_100).contains(&durable),
        "what came is kept: {durable}"
    );
}

#[test]
fn slow_is_not_stalled() {
    let server = Server::http(|reply| {
        reply.head("200 OK", &[("Content-Length", "40000")]);
        for _ in 0..40 {
            reply.body(&[1; 1000]);
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut device = Device::new();
    let stall_time = Duration::from_millis(600);
    let ended = device.fetch(&Job {
        stall_time,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &[1; 40_000]);
}

#[test]
fn a_silent_server_is_a_stall() {
    let server = Server::http(|reply| reply.hang());
    let mut device = Device::new();
    let stall_time = Duration::from_millis(300);
    let (code, retry, _) = failed(device.fetch(&Job {
        stall_time,
        ..job(server.url("/"))
    }));
    assert_eq!((code, retry), (Code::Stalled, Retry::Resume(None)));
    assert_eq!(device.started(), None);
}

/// What has come is told while the server is silent, not only with the next checkpoint.
#[test]
fn what_came_before_the_silence_is_told() {
    let server = Server::http(|reply| {
        reply.head("200 OK", &[("Content-Length", "1000000")]);
        reply.body(&[1; 10_000]);
        reply.hang();
    });
    let mut device = Device::new();
    let stop = Stop::new();
    let job = Job {
        stall_time: Duration::from_secs(20),
        checkpoint_interval: Duration::from_secs(3600),
        ..job(server.url("/"))
    };
    let ended = device.fetch_until(&job, &stop, &mut |progress| {
        if *progress == Progress::Received(10_000) {
            stop.stop();
        }
    });
    assert_eq!(ended, Ended::Stopped);
}

/// The time the installer takes is not the network's.
#[test]
fn a_slow_installer_is_not_a_stall() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    let job = Job {
        stall_time: Duration::from_millis(500),
        checkpoint_bytes: 100_000,
        ..job(server.url("/"))
    };
    let ended = device.fetch_until(&job, &Stop::new(), &mut |progress| {
        if matches!(progress, Progress::Durable(_)) {
            thread::sleep(Duration::from_millis(700));
        }
    });
    device.assert_complete(ended, &image(1));
}

#[test]
fn a_stop_does_not_wait_for_the_network() {
    let server = Server::http(|reply| match reply.asked.path.as_str() {
        "/silent" => reply.hang(),
        _ => {
            reply.serve(&image(1), TAG, LENGTH / 2);
            reply.hang();
        }
    });
    for path in ["/silent", "/half"] {
        let mut device = Device::new();
        let stop = Stop::new();
        let (told, later) = std::sync::mpsc::channel();
        let other = stop.clone();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            told.send(Instant::now()).unwrap();
            other.stop();
        });
        let ended = device.fetch_until(&job(server.url(path)), &stop, &mut |_| {});
        assert!(
            later.recv().unwrap().elapsed() < Duration::from_millis(900),
            "{path}"
        );
        stopper.join().unwrap();
        assert_eq!(ended, Ended::Stopped);
        // Nor does the thread that reads it stay behind.
        let patience = Instant::now() + Duration::from_secs(2);
        while !server.asked().last().unwrap().gone {
            assert!(
                Instant::now() < patience,
                "{path}: the connection is still open"
            );
            thread::sleep(Duration::from_millis(5));
        }
        // What had come is kept, to the last byte.
        let kept = device.checkpoint().map_or(0, |c| c.offset as usize);
        assert_eq!(kept, if path == "/half" { LENGTH / 2 } else { 0 }, "{path}");
        assert_eq!(device.staging.bytes(), &image(1)[..kept]);
    }
    let stopped = Stop::new();
    stopped.stop();
    let ended = Device::new().fetch_until(&job(server.url("/half")), &stopped, &mut |_| {});
    assert_eq!(ended, Ended::Stopped);
}

#[test]
fn no_http_at_all() {
    for answer in [
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 999999\r\n\r\n",
        "220 ready\r\n\r\n",
        "",
    ] {
        let server = Server::http(move |reply| {
            reply.body(answer.as_bytes());
        });
        let (code, _, message) = failed(Device::new().fetch(&job(server.url("/"))));
        assert!(
            matches!(code, Code::HttpProtocol | Code::Network),
            "{answer:?}: {message}"
        );
    }
    let server = Server::http(|reply| {
        while reply.body(b"HTTP/1.1 200 OK\r\nX: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx") {
        }
    });
    let (code, retry, message) = failed(Device::new().fetch(&job(server.url("/"))));
    assert_eq!(
        (code, retry),
        (Code::HttpProtocol, Retry::Never),
        "{message}"
    );
}

#[test]
fn nobody_there() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut device = Device::new();
    let (code, retry, message) =
        failed(device.fetch(&job(format!("http://me:pw@127.0.0.1:{port}/x?sig=1"))));
    assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
    assert_eq!(
        message,
        format!("cannot download http://127.0.0.1:{port}/x: Connection refused")
    );

    let (code, retry, message) = failed(device.fetch(&job("http://no.such.host.invalid/x".into())));
    assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
    assert!(
        message.starts_with("cannot download http://no.such.host.invalid/x: "),
        "{message}"
    );

    for (uri, code) in [
        ("http://h/x", Code::InsecureUri),
        ("ftp://h/x", Code::InvalidUri),
    ] {
        let (seen, retry, _) = failed(device.fetch(&Job {
            https_only: true,
            ..job(uri.into())
        }));
        assert_eq!((seen, retry), (code, Retry::Never));
    }
}

#[test]
fn through_a_proxy() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let address = server.address();
    let proxy = Server::http(move |reply| reply.tunnel(address));
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Url(proxy.url("").replace("//", "//me:pw@"));
    let mut device = Device::new();
    device.downloader = Downloader::new(options).unwrap();
    // Only the proxy can know this host.
    let ended = device.fetch(&job("http://firmware.invalid/image".into()));
    device.assert_complete(ended, &image(1));
    let asked = &proxy.asked()[0];
    assert_eq!(asked.path, "firmware.invalid:80");
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6cHc="));
    assert_eq!(server.asked()[0].header("host"), Some("firmware.invalid"));
}

/// Not an orderly end: the connection is torn down, at whatever point.
#[test]
fn a_reset() {
    for bytes in [0, 20, 1000] {
        let server = Server::raw(move |number, mut stream| {
            // The request is there, and is never read: closing resets.
            stream.peek(&mut [0]).unwrap();
            let whole = image(1);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nETag: \"one\"\r\n\r\n");
            let mut answer = head.into_bytes();
            answer.extend(&whole);
            if number == 0 {
                answer.truncate(bytes);
            }
            stream.write_all(&answer).unwrap();
            if number > 0 {
                // A good end.
                let _ = stream.read(&mut [0; 4096]).unwrap();
            }
        });
        let mut device = Device::new();
        let (code, retry, message) = failed(device.fetch(&job(server.url("/"))));
        assert_eq!(
            (code, retry),
            (Code::Network, Retry::Resume(None)),
            "{message}"
        );
        assert!(
            message.ends_with("the connection broke off") || message.contains("after"),
            "{message}"
        );
        let ended = device.fetch(&job(server.url("/")));
        device.assert_complete(ended, &image(1));
    }
}

/// However fast the body comes behind an interim answer.
#[test]
fn early_hints_and_all_the_rest_at_once() {
    let server = Server::http(|reply| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        let head = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        reply.body(&[head.as_bytes(), &image(1)].concat());
    });
    for _ in 0..20 {
        let mut device = Device::new();
        let ended = device.fetch(&job(server.url("/")));
        device.assert_complete(ended, &image(1));
    }
}
