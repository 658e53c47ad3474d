//! Answers that are refused, and how long is waited after them.

use crate::device::*;

#[test]
fn statuses() {
    let soon = Some(Duration::from_secs(7));
    let cases = [
        ("404 Not Found", None, Retry::Never),
        ("403 Forbidden", None, Retry::Never),
        ("410 Gone", Some("7"), Retry::Never),
        ("416 Range Not Satisfiable", None, Retry::Never),
        ("304 Not Modified", None, Retry::Never),
        ("204 No Content", None, Retry::Never),
        ("408 Request Timeout", None, Retry::Resume(None)),
        ("425 Too Early", None, Retry::Resume(None)),
        ("429 Too Many Requests", Some("7"), Retry::Resume(soon)),
        (
            "429 Too Many Requests",
            Some("Sun, 06 Nov 1994 08:49:44 GMT"),
            Retry::Resume(soon),
        ),
        ("500 Internal Server Error", None, Retry::Resume(None)),
        ("503 Service Unavailable", Some("7"), Retry::Resume(soon)),
        (
            "503 Service Unavailable",
            Some("later"),
            Retry::Resume(None),
        ),
    ];
    for (status, after, expected) in cases {
        let server = Server::http(move |reply| {
            let mut headers = vec![("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
            headers.extend(after.map(|after| ("Retry-After", after)));
            reply.empty(status, &headers);
        });
        let mut device = Device::new();
        let (code, retry, message) = failed(device.fetch(&job(server.url("/a/b?sig=secret"))));
        assert_eq!((code, retry), (Code::HttpStatus, expected), "{status}");
        let shown = format!(
            "127.0.0.1:{}/a/b: the server answered {status}",
            server.address().port()
        );
        assert!(message.ends_with(&shown), "{message}");
        assert!(!device.staging.path().exists(), "{status}");
    }
}

#[test]
fn a_size_that_is_not_the_announced_one_is_refused_at_once() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    let (code, retry, message) = failed(device.fetch(&Job {
        size: Some(299_999),
        ..job(server.url("/"))
    }));
    assert_eq!((code, retry), (Code::SizeMismatch, Retry::Never));
    assert!(
        message.contains("it has 300000 bytes, 299999 were announced"),
        "{message}"
    );
    assert!(!device.staging.path().exists());

    let small = Job {
        max_size: 1000,
        ..job(server.url("/"))
    };
    let (code, retry, _) = failed(device.fetch(&small));
    assert_eq!((code, retry), (Code::TooLarge, Retry::Never));
    let before = server.asked().len();
    let (code, retry, _) = failed(device.fetch(&Job {
        size: Some(1001),
        ..small
    }));
    assert_eq!((code, retry), (Code::TooLarge, Retry::Never));
    assert_eq!(server.asked().len(), before, "nothing is asked for");
}

#[test]
fn redirects() {
    let server = Server::http(|reply| {
        let to = match reply.asked.path.as_str() {
            "/a/loop" => Some("loop"),
            "/a/relative" => Some("../b/image?x=1"),
            "/a/nowhere" => None,
            "/a/no-url" => Some("http://h/a b"),
            "/a/ftp" => Some("ftp://h/x?sig=secret"),
            "/b/image?x=1" => return reply.serve(&image(1), TAG, ALL),
            other => panic!("{other}"),
        };
        let headers: Vec<_> = to.map(|to| ("Location", to)).into_iter().collect();
        reply.empty("302 Found", &headers);
    });
    let mut device = Device::new();
    let ended = device.fetch(&job(server.url("/a/relative")));
    device.assert_complete(ended, &image(1));
    let before = server.asked().len();
    let (code, retry, message) = failed(device.fetch(&job(server.url("/a/loop"))));
    assert_eq!((code, retry), (Code::Redirect, Retry::Never));
    assert!(
        message.ends_with("/a/loop: more than 5 redirects"),
        "{message}"
    );
    assert_eq!(server.asked().len() - before, 6);
    for path in ["/a/nowhere", "/a/no-url", "/a/ftp"] {
        let (code, retry, message) = failed(device.fetch(&job(server.url(path))));
        assert_eq!((code, retry), (Code::Redirect, Retry::Never), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn an_encoding_nobody_asked_for_is_refused() {
    for header in ["Content-Encoding", "Transfer-Encoding"] {
        let server = Server::http(move |reply| {
            reply.head("200 OK", &[(header, "gzip"), ("Content-Length", "5")]);
            reply.body(b"12345");
        });
        let (code, retry, message) = failed(Device::new().fetch(&job(server.url("/"))));
        assert_eq!(
            (code, retry),
            (Code::HttpProtocol, Retry::Never),
            "{message}"
        );
        assert!(message.contains("\"gzip\""), "{message}");
    }
    let server = Server::http(|reply| {
        reply.head(
            "200 OK",
            &[("Content-Encoding", "Identity"), ("Content-Length", "5")],
        );
        reply.body(b"12345");
    });
    let mut device = Device::new();
    let ended = device.fetch(&job(server.url("/")));
    device.assert_complete(ended, b"12345");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: HttpOptions| Downloader::new(options).unwrap_err();
    let mut options = HttpOptions::default();
    options.user_agent = "two\nlines".into();
    assert_eq!(refused(options).code, Code::InvalidConfig);
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Url("http://me:secret@".into());
    assert!(!format!("{options:?}").contains("secret"));
    let failure = refused(options);
    assert_eq!(failure.code, Code::InvalidConfig);
    assert!(!failure.message.contains("secret"), "{failure}");
}

/// Neither user name nor query of a URL goes to where a redirect leads.
#[test]
fn credentials_stay_with_the_server_they_are_for() {
    let elsewhere = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let to = elsewhere.url("/new?sig=theirs");
    let server = Server::http(move |reply| {
        let headers = [("Location", to.as_str()), ("Set-Cookie", "id=secret")];
        reply.empty("302 Found", &headers);
    });
    let mut device = Device::new();
    let url = server.url("/old?sig=secret").replace("//", "//me:secret@");
    let ended = device.fetch(&job(url));
    device.assert_complete(ended, &image(1));
    assert!(server.asked()[0].header("authorization").is_some());
    let asked = &elsewhere.asked()[0];
    assert_eq!(asked.path, "/new?sig=theirs");
    for name in ["authorization", "cookie", "referer"] {
        assert_eq!(asked.header(name), None);
    }
    let shown = format!("{asked:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("me:"),
        "{shown}"
    );
}
