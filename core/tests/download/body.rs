//! Where a body ends.

use crate::device::*;

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
