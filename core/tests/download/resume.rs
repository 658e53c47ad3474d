//! Going on where it stopped, and when that must not be.

use crate::device::*;
use twinflash::update::Progress;

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
    // Told first: the checkpoint must be gone before its bytes are.
    assert_eq!(device.progress[0], Progress::StartingOver);
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
