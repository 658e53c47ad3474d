//! The downloader against servers that keep no promise. Every test says what was installed, what was
//! fetched, and how the attempt ended.
#![cfg(feature = "http")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};
use support::{
    server::{Reply, Server},
    staging::Staging,
};
use tempfile::TempDir;
use twinflash::{
    download::{Downloader, HttpOptions, Proxy, Stop},
    install::ImageInfo,
    tls::Roots,
    update::{Checkpoint, Checks, Code, Digests, Ended, Job, Progress, Retry},
};

const ALL: usize = usize::MAX;
const TAG: Option<&str> = Some("\"one\"");
const LENGTH: usize = 300_000;

/// Bytes that repeat nowhere near each other, different for each seed.
fn image(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(LENGTH).collect()
}

fn digests(bytes: &[u8]) -> Digests {
    let mut checks = Checks::new();
    checks.update(bytes);
    checks.finish()
}

fn job(uri: String) -> Job {
    Job {
        uri,
        resume: None,
        size: None,
        max_size: 10_000_000,
        hash_judges: false,
        content: "content".into(),
        https_only: false,
        max_redirects: 5,
        checkpoint_interval: Duration::from_secs(3600),
        checkpoint_bytes: u64::MAX,
        stall_time: Duration::from_secs(20),
        stall_bytes: 1024,
    }
}

/// One device: a downloader, a file, and what the last attempt said.
struct Device {
    downloader: Downloader,
    staging: Staging,
    progress: Vec<Progress>,
    _directory: TempDir,
}

impl Device {
    fn new() -> Self {
        Self::trusting(Roots::BuiltIn)
    }

    fn trusting(roots: Roots) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = HttpOptions::default();
        options.roots = roots;
        options.proxy = Proxy::None;
        options.connect_timeout = Duration::from_secs(5);
        Self {
            downloader: Downloader::new(options).unwrap(),
            staging: Staging::new(directory.path().join("image")),
            progress: Vec::new(),
            _directory: directory,
        }
    }

    fn fetch(&mut self, job: &Job) -> Ended {
        self.fetch_until(job, &Stop::new(), &mut |_| {})
    }

    fn fetch_until(&mut self, job: &Job, stop: &Stop, seen: &mut dyn FnMut(&Progress)) -> Ended {
        self.progress.clear();
        let progress = &mut self.progress;
        self.downloader.fetch(
            job,
            &mut self.staging,
            ImageInfo::default(),
            stop,
            &mut |p| {
                seen(&p);
                progress.push(p);
            },
        )
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.progress.iter().rev().find_map(|p| match p {
            Progress::Durable(checkpoint) => Some(checkpoint.clone()),
            _ => None,
        })
    }

    fn received(&self) -> Option<u64> {
        self.progress.iter().rev().find_map(|p| match p {
            Progress::Received(bytes) => Some(*bytes),
            _ => None,
        })
    }

    fn started(&self) -> Option<u64> {
        self.progress.iter().find_map(|p| match p {
            Progress::Started { offset, .. } => Some(*offset),
            _ => None,
        })
    }

    /// One attempt is cut at half; the job of the next one.
    fn cut(&mut self, mut job: Job) -> Job {
        let (code, retry, _) = failed(self.fetch(&job));
        assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
        job.resume = self.checkpoint();
        assert_eq!(job.resume.as_ref().unwrap().offset, LENGTH as u64 / 2);
        assert_eq!(self.received(), Some(LENGTH as u64 / 2));
        job
    }

    #[track_caller]
    fn assert_complete(&self, ended: Ended, image: &[u8]) {
        let bytes = image.len() as u64;
        assert_eq!(
            ended,
            Ended::Complete {
                bytes,
                digests: digests(image)
            }
        );
        assert!(self.staging.bytes() == image, "other bytes were installed");
        assert_eq!(self.checkpoint().map(|c| c.offset), Some(bytes));
        assert_eq!(self.received(), Some(bytes));
    }
}

#[track_caller]
fn failed(ended: Ended) -> (Code, Retry, String) {
    match ended {
        Ended::Failed(failure, retry) => (failure.code, retry, failure.message),
        other => panic!("not failed: {other:?}"),
    }
}

/// Cuts the first answer at half, serves the others whole.
fn cut_first(reply: &mut Reply, image: &[u8], etag: Option<&str>) {
    let most = if reply.number() == 0 { LENGTH / 2 } else { ALL };
    reply.serve(image, etag, most);
}

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
fn resumed_on_a_strong_validator() {
    let server = Server::http(|reply| cut_first(reply, &image(1), TAG));
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    let half = LENGTH as u64 / 2;
    assert_eq!(device.started(), Some(half));
    let asked = server.asked();
    assert_eq!(asked[1].range_start(), Some(LENGTH / 2));
    assert_eq!(asked[1].header("if-range"), TAG);
    assert_eq!([asked[0].sent, asked[1].sent], [half, half]);
}

#[test]
fn resumed_after_a_restart_of_the_process() {
    let server = Server::http(|reply| cut_first(reply, &image(1), TAG));
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    let json = serde_json::to_string(job.resume.as_ref().unwrap()).unwrap();
    let job = Job {
        resume: Some(serde_json::from_str(&json).unwrap()),
        ..job
    };
    let path = device.staging.path().to_owned();
    device.staging = Staging::new(path);
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    assert_eq!(device.started(), Some(LENGTH as u64 / 2));
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_zero_in_the_same_answer() {
    let server = Server::http(|reply| {
        reply.asked.headers.retain(|(name, _)| name != "range");
        cut_first(reply, &image(1), TAG);
    });
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    assert_eq!(device.started(), Some(0));
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_changed_image_is_fetched_from_zero() {
    let server = Server::http(|reply| match reply.number() {
        0 => reply.serve(&image(1), TAG, LENGTH / 2),
        _ => reply.serve(&image(2), Some("\"two\""), ALL),
    });
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(2));
    assert_eq!(
        device.checkpoint().unwrap().validator.as_deref(),
        Some("\"two\"")
    );
    assert_eq!(server.asked().len(), 2);
}

/// A server that ignores `If-Range`: its 206 is of another image.
#[test]
fn a_changed_image_is_never_appended() {
    let server = Server::http(|reply| match reply.number() {
        0 => reply.serve(&image(1), TAG, LENGTH / 2),
        _ => {
            reply.asked.headers.retain(|(name, _)| name != "if-range");
            reply.serve(&image(2), Some("\"two\""), ALL);
        }
    });
    let mut device = Device::new();
    let mut job = device.cut(job(server.url("/")));
    let (code, retry, message) = failed(device.fetch(&job));
    assert_eq!(
        (code, retry),
        (Code::HttpProtocol, Retry::FromZero),
        "{message}"
    );
    assert_eq!(
        device.staging.bytes(),
        &image(1)[..LENGTH / 2],
        "nothing was appended"
    );
    job.resume = None;
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(2));
}

#[test]
fn without_a_strong_validator_resumed_only_if_a_hash_judges() {
    for tag in [None, Some("W/\"one\"")] {
        let server = Server::http(move |reply| cut_first(reply, &image(1), tag));
        let mut device = Device::new();
        let first = job(server.url("/"));
        let job = device.cut(first);
        assert_eq!(job.resume.as_ref().unwrap().validator, None);
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges(), [None, None]);

        let server = Server::http(move |reply| cut_first(reply, &image(1), tag));
        let mut device = Device::new();
        let job = device.cut(Job {
            hash_judges: true,
            ..self::job(server.url("/"))
        });
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.asked()[1].range_start(), Some(LENGTH / 2));
        assert_eq!(server.asked()[1].header("if-range"), None);
    }
}

#[test]
fn a_206_without_the_validator_is_used_only_if_a_hash_judges() {
    for hash_judges in [false, true] {
        let server = Server::http(|reply| {
            let tag = if reply.number() == 0 { TAG } else { None };
            if reply.number() > 0 {
                reply.asked.headers.retain(|(name, _)| name != "if-range");
            }
            cut_first(reply, &image(1), tag);
        });
        let mut device = Device::new();
        let job = device.cut(Job {
            hash_judges,
            ..job(server.url("/"))
        });
        let ended = device.fetch(&job);
        if hash_judges {
            device.assert_complete(ended, &image(1));
        } else {
            let (code, retry, _) = failed(ended);
            assert_eq!((code, retry), (Code::HttpProtocol, Retry::FromZero));
        }
    }
}

/// 206 for another range, another total, no range; lengths that contradict.
#[test]
fn a_wrong_206_is_never_appended() {
    let half = LENGTH / 2;
    let rest = (LENGTH - half).to_string();
    let last = LENGTH - 1;
    let cases: Vec<Vec<(&'static str, String)>> = vec![
        vec![("Content-Range", format!("bytes 0-{last}/{LENGTH}"))],
        vec![(
            "Content-Range",
            format!("bytes {}-{last}/{LENGTH}", half + 1),
        )],
        vec![(
            "Content-Range",
            format!("bytes {half}-{LENGTH}/{}", LENGTH + 1),
        )],
        vec![("Content-Range", format!("bytes {half}-{LENGTH}/{LENGTH}"))],
        vec![("Content-Range", "bytes half-all/much".into())],
        vec![("Content-Length", rest)],
        vec![
            ("Content-Range", format!("bytes {half}-{last}/{LENGTH}")),
            ("Content-Length", "7".into()),
        ],
    ];
    for headers in cases {
        let shown = format!("{headers:?}");
        let server = Server::http(move |reply| match reply.number() {
            0 => reply.serve(&image(1), TAG, half),
            _ => {
                let mut all: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                all.push(("ETag", "\"one\""));
                reply.head("206 Partial Content", &all);
                reply.body(&image(3)[half..]);
            }
        });
        let mut device = Device::new();
        let job = device.cut(job(server.url("/")));
        let (code, retry, message) = failed(device.fetch(&job));
        assert_eq!(
            (code, retry),
            (Code::HttpProtocol, Retry::FromZero),
            "{shown}: {message}"
        );
        assert_eq!(device.staging.bytes(), &image(1)[..half], "{shown}");
    }
}

#[test]
fn a_206_that_was_not_asked_for_is_refused() {
    let server = Server::http(|reply| {
        reply.head(
            "206 Partial Content",
            &[("Content-Range", "bytes 0-9/10"), ("Content-Length", "10")],
        );
        reply.body(&[0; 10]);
    });
    let (code, retry, _) = failed(Device::new().fetch(&job(server.url("/"))));
    assert_eq!((code, retry), (Code::HttpProtocol, Retry::Never));
}

#[test]
fn a_shorter_range_than_asked_for_is_gone_on_from() {
    let server = Server::http(|reply| {
        let from = reply.asked.range_start().unwrap_or(0);
        let to = (from + LENGTH / 2).min(LENGTH);
        if from == 0 {
            return reply.serve(&image(1), TAG, LENGTH / 2);
        }
        let to = if from == LENGTH / 2 { from + 1000 } else { to };
        let range = format!("bytes {from}-{}/{LENGTH}", to - 1);
        let length = (to - from).to_string();
        reply.head(
            "206 Partial Content",
            &[
                ("Content-Range", &range),
                ("Content-Length", &length),
                ("ETag", "\"one\""),
            ],
        );
        reply.body(&image(1)[from..to]);
    });
    let mut device = Device::new();
    let mut job = device.cut(job(server.url("/")));
    let (code, retry, _) = failed(device.fetch(&job));
    assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
    job.resume = device.checkpoint();
    assert_eq!(
        job.resume.as_ref().unwrap().offset,
        LENGTH as u64 / 2 + 1000
    );
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
}

#[test]
fn a_checkpoint_that_does_not_fit_is_not_used() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let good = {
        let mut device = Device::new();
        device.fetch(&Job {
            checkpoint_bytes: 1000,
            ..job(server.url("/"))
        });
        device.checkpoint().unwrap()
    };
    let bad = [
        Checkpoint {
            content: "other".into(),
            ..good.clone()
        },
        Checkpoint {
            checks: "damaged".into(),
            ..good.clone()
        },
        Checkpoint {
            offset: good.offset - 1,
            ..good.clone()
        },
        Checkpoint {
            total: Some(good.offset - 1),
            ..good.clone()
        },
    ];
    for checkpoint in bad {
        let mut device = Device::new();
        // The bytes are there, the checkpoint is not theirs.
        std::fs::write(device.staging.path(), image(1)).unwrap();
        let before = server.asked().len();
        let ended = device.fetch(&Job {
            resume: Some(checkpoint),
            ..job(server.url("/"))
        });
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges()[before..], [None]);
    }
}

#[test]
fn an_installer_without_the_bytes_begins_at_zero() {
    let server = Server::http(|reply| cut_first(reply, &image(1), TAG));
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    device.staging.forgets = true;
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn with_every_byte_durable_nothing_is_asked_for() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    device.fetch(&job(server.url("/")));
    let resume = device.checkpoint();
    let ended = device.fetch(&Job {
        resume,
        ..job(server.url("/"))
    });
    assert_eq!(
        ended,
        Ended::Complete {
            bytes: LENGTH as u64,
            digests: digests(&image(1))
        }
    );
    assert_eq!(server.asked().len(), 1);
}

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
fn a_416_to_a_resume_is_from_zero() {
    let server = Server::http(|reply| match reply.number() {
        1 => reply.empty("416 Range Not Satisfiable", &[]),
        _ => cut_first(reply, &image(1), TAG),
    });
    let mut device = Device::new();
    let mut job = device.cut(job(server.url("/")));
    let (code, retry, _) = failed(device.fetch(&job));
    assert_eq!((code, retry), (Code::HttpStatus, Retry::FromZero));
    job.resume = None;
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
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

fn chunk(reply: &mut Reply, bytes: &[u8]) -> bool {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    reply.body(&framed)
}

#[test]
fn chunked() {
    let server = Server::http(|reply| {
        reply.head("200 OK", &[("Transfer-Encoding", "chunked")]);
        for piece in image(1).chunks(7000) {
            chunk(reply, piece);
        }
        if reply.asked.path == "/whole" {
            chunk(reply, b"");
        }
    });
    let mut device = Device::new();
    let ended = device.fetch(&job(server.url("/whole")));
    device.assert_complete(ended, &image(1));
    assert_eq!(device.checkpoint().unwrap().total, None);

    let longer = Job {
        size: Some(LENGTH as u64 + 1),
        ..job(server.url("/whole"))
    };
    let (code, retry, _) = failed(device.fetch(&longer));
    assert_eq!((code, retry), (Code::SizeMismatch, Retry::Never));

    let (code, retry, _) = failed(device.fetch(&job(server.url("/cut"))));
    assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
}

#[test]
fn an_endless_body_is_stopped_at_the_limit() {
    let server = Server::http(|reply| {
        reply.head("200 OK", &[("Transfer-Encoding", "chunked")]);
        while chunk(reply, &[7; 10_000]) {}
    });
    let mut device = Device::new();
    for (size, most) in [(Some(50_000), 50_000), (None, 200_000)] {
        let job = Job {
            size,
            max_size: 200_000,
            ..job(server.url("/"))
        };
        let (code, retry, message) = failed(device.fetch(&job));
        assert_eq!((code, retry), (Code::TooLarge, Retry::Never), "{message}");
        assert!(device.staging.bytes().len() <= most);
    }
}

/// HTTP/1.0's way: only the connection's end says that the body is over.
#[test]
fn a_body_without_an_end_needs_a_size_or_a_hash() {
    let server = Server::http(|reply| {
        reply.head("200 OK", &[]);
        reply.body(&image(1));
    });
    let mut device = Device::new();
    let (code, retry, message) = failed(device.fetch(&job(server.url("/"))));
    assert_eq!((code, retry), (Code::HttpProtocol, Retry::Never));
    assert!(message.contains("does not say how long it is"), "{message}");
    let ended = device.fetch(&Job {
        hash_judges: true,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));
    let ended = device.fetch(&Job {
        size: Some(LENGTH as u64),
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));
    let longer = Job {
        size: Some(LENGTH as u64 + 1),
        ..job(server.url("/"))
    };
    let (code, retry, _) = failed(device.fetch(&longer));
    assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
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
fn checkpoints_by_bytes_and_by_time() {
    let server = Server::http(|reply| {
        reply.head(
            "200 OK",
            &[("Content-Length", "300000"), ("ETag", "\"one\"")],
        );
        for piece in image(1).chunks(30_000) {
            reply.body(piece);
            if reply.asked.path == "/slow" {
                thread::sleep(Duration::from_millis(60));
            }
        }
    });
    let offsets = |device: &Device| -> Vec<u64> {
        let durable = device.progress.iter().filter_map(|p| match p {
            Progress::Durable(checkpoint) => Some(checkpoint.offset),
            _ => None,
        });
        durable.collect()
    };
    let mut device = Device::new();
    let ended = device.fetch(&Job {
        checkpoint_bytes: 100_000,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));
    let seen = offsets(&device);
    assert!(
        (2..=3).contains(&seen.len()) && seen.is_sorted(),
        "{seen:?}"
    );

    let checkpoint_interval = Duration::from_millis(100);
    let ended = device.fetch(&Job {
        checkpoint_interval,
        ..job(server.url("/slow"))
    });
    device.assert_complete(ended, &image(1));
    assert!(offsets(&device).len() >= 4, "{:?}", offsets(&device));

    // Every one of them can be gone on from.
    for checkpoint in device.progress.clone() {
        let Progress::Durable(checkpoint) = checkpoint else {
            continue;
        };
        let mut checks = Checks::restore(&checkpoint.checks).unwrap();
        checks.update(&image(1)[checkpoint.offset as usize..]);
        assert_eq!(checks.finish(), digests(&image(1)));
    }
}

/// A checkpoint never covers more than `sync` answered.
#[test]
fn an_installer_whose_sync_lags() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    device.staging.lags = 40_000;
    let ended = device.fetch(&Job {
        checkpoint_bytes: 10_000,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));

    device.staging.lags = 1;
    let mut checkpoints = 0;
    let ended = device.fetch_until(&job(server.url("/")), &Stop::new(), &mut |progress| {
        checkpoints += u32::from(matches!(progress, Progress::Durable(_)));
    });
    device.assert_complete(ended, &image(1));
    assert_eq!(checkpoints, 1);
}

#[test]
fn an_installer_that_fails_ends_the_attempt() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    device.staging.fails_at = Some(100_000);
    let (code, retry, message) = failed(device.fetch(&job(server.url("/"))));
    assert_eq!((code, retry), (Code::NoSpace, Retry::Never));
    assert_eq!(message, "the disk is full");
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

/// The range goes to where the redirect leads.
#[test]
fn resumed_through_a_redirect() {
    let server = Server::http(|reply| match reply.asked.path.as_str() {
        "/" => reply.empty("307 Temporary Redirect", &[("Location", "/image")]),
        _ => {
            let most = if reply.number() == 1 { LENGTH / 2 } else { ALL };
            reply.serve(&image(1), TAG, most);
        }
    });
    let mut device = Device::new();
    let job = device.cut(job(server.url("/")));
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
    assert_eq!(device.started(), Some(LENGTH as u64 / 2));
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

mod tls {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };
    use rustls::{ServerConfig, crypto::ring};
    use std::sync::Arc;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        fn roots(&self) -> Roots {
            Roots::from_pem(self.0.pem().as_bytes()).unwrap()
        }

        fn server(&self, host: &str, expired: bool) -> ServerConfig {
            let mut params = CertificateParams::new(vec![host.into()]).unwrap();
            if expired {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    key.serialize_der().try_into().unwrap(),
                )
                .unwrap()
        }
    }

    #[test]
    fn resumed_over_https() {
        let authority = Authority::new();
        let config = authority.server("127.0.0.1", false);
        let server = Server::https(config, |reply| cut_first(reply, &image(1), TAG));
        let mut device = Device::trusting(authority.roots());
        let job = device.cut(Job {
            https_only: true,
            ..job(server.url("/"))
        });
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(device.started(), Some(LENGTH as u64 / 2));
    }

    #[test]
    fn a_certificate_that_is_not_good() {
        let authority = Authority::new();
        let good = authority.server("127.0.0.1", false);
        let cases = [
            (Roots::BuiltIn, good.clone(), Retry::Never, "name a CA file"),
            (
                Authority::new().roots(),
                good,
                Retry::Never,
                "name a CA file",
            ),
            (
                authority.roots(),
                authority.server("other.host", false),
                Retry::Never,
                "for another host",
            ),
            (
                authority.roots(),
                authority.server("127.0.0.1", true),
                Retry::Resume(None),
                "has expired",
            ),
        ];
        for (roots, config, expected, why) in cases {
            let server = Server::https(config, |reply| reply.serve(&image(1), TAG, ALL));
            let mut device = Device::trusting(roots);
            let (code, retry, message) = failed(device.fetch(&job(server.url("/x?sig=secret"))));
            assert_eq!((code, retry), (Code::Tls, expected), "{message}");
            assert!(
                message.contains(why) && !message.contains("secret"),
                "{message}"
            );
            assert_eq!(server.asked().len(), 0);
        }
    }

    #[test]
    fn no_tls_at_that_port() {
        let server = Server::http(|_| {});
        let url = server.url("/").replace("http:", "https:");
        let (code, _, message) = failed(Device::new().fetch(&job(url)));
        assert!(matches!(code, Code::Tls | Code::Network), "{message}");
    }

    #[test]
    fn never_from_https_to_http() {
        let plain = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
        let authority = Authority::new();
        let to = plain.url("/image");
        let secure = Server::https(authority.server("127.0.0.1", false), move |reply| {
            reply.empty("302 Found", &[("Location", &to)]);
        });
        let to = secure.url("/");
        let first = Server::http(move |reply| reply.empty("302 Found", &[("Location", &to)]));
        let mut device = Device::trusting(authority.roots());
        // Also when the first step was from http to https.
        for url in [secure.url("/"), first.url("/")] {
            let (code, retry, message) = failed(device.fetch(&job(url)));
            assert_eq!((code, retry), (Code::Redirect, Retry::Never));
            assert!(message.ends_with("/image, which is not https"), "{message}");
        }
        assert_eq!(plain.asked().len(), 0);
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: HttpOptions| Downloader::new(options).unwrap_err();
    let mut options = HttpOptions::default();
    options.user_agent = "two\nlines".into();
    assert_eq!(refused(options).code, Code::InvalidRequest);
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Url("http://me:secret@".into());
    assert!(!format!("{options:?}").contains("secret"));
    let failure = refused(options);
    assert_eq!(failure.code, Code::InvalidUri);
    assert!(!failure.message.contains("secret"), "{failure}");
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
