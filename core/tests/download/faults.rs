//! What servers and networks do wrong, one by one: how each is played, and how an update that meets it ends.

use crate::device::*;
use Ends::{Failed, Waits};
use std::ops::RangeInclusive;

/// How an update ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ends {
    Completed,
    /// With this code.
    Failed(&'static str),
    /// Not so soon: it does as the server says, and waits.
    Waits,
}

/// The check an update is asked for with. Only a SHA-256 vouches for bytes that were put together from two
/// answers without a validator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum With {
    Either,
    Crc,
    Sha256,
    /// The size is announced, too.
    Size,
}

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) with: With,
    pub(crate) ends: Ends,
    /// How many are made.
    pub(crate) requests: RangeInclusive<usize>,
    pub(crate) answer: fn(&mut Reply, &[u8]),
}

type Play = fn(&mut Reply, &[u8]);

const fn fault(
    name: &'static str,
    ends: Ends,
    requests: RangeInclusive<usize>,
    answer: Play,
) -> Fault {
    Fault {
        name,
        with: With::Either,
        ends,
        requests,
        answer,
    }
}

/// It succeeds with so many requests.
const fn good(name: &'static str, requests: usize, answer: Play) -> Fault {
    fault(name, Ends::Completed, requests..=requests, answer)
}

/// It fails at the first answer.
const fn at_once(name: &'static str, code: &'static str, answer: Play) -> Fault {
    fault(name, Ends::Failed(code), 1..=1, answer)
}

/// It is tried again until the time for it is spent.
const fn given_up(name: &'static str, code: &'static str, answer: Play) -> Fault {
    fault(name, Ends::Failed(code), 2..=usize::MAX, answer)
}

const fn with(with: With, fault: Fault) -> Fault {
    Fault { with, ..fault }
}

/// Only the first request is answered so; the others as they should be.
fn first(reply: &mut Reply, image: &[u8], answer: Play) {
    match reply.number() {
        0 => answer(reply, image),
        _ => reply.serve(image, TAG, ALL),
    }
}

/// The first answer is cut at half; the second is this one; the others are as they should be.
fn second(reply: &mut Reply, image: &[u8], answer: Play) {
    match reply.number() {
        0 => reply.serve(image, TAG, LENGTH / 2),
        1 => answer(reply, image),
        _ => reply.serve(image, TAG, ALL),
    }
}

/// This status, and the whole image for a body.
fn whole(reply: &mut Reply, image: &[u8], status: &str, headers: &[(&str, &str)]) {
    let length = image.len().to_string();
    let mut all = vec![("Content-Length", length.as_str())];
    all.extend(headers);
    reply.head(status, &all);
    reply.body(image);
}

/// Another image of the same size.
fn other(image: &[u8]) -> Vec<u8> {
    image.iter().map(|byte| !byte).collect()
}

/// 206 with the rest of these bytes, whatever `If-Range` says.
fn rest(reply: &mut Reply, image: &[u8], headers: &[(&str, &str)]) {
    let from = reply.asked.range_start().unwrap_or(0);
    let range = format!("bytes {from}-{}/{}", image.len() - 1, image.len());
    let length = (image.len() - from).to_string();
    let mut all = vec![
        ("Content-Range", range.as_str()),
        ("Content-Length", length.as_str()),
    ];
    all.retain(|(name, _)| headers.iter().all(|(other, _)| name != other));
    all.extend(headers);
    reply.head("206 Partial Content", &all);
    reply.body(&image[from..]);
}

fn chunks(reply: &mut Reply, image: &[u8], extension: &str) {
    reply.head(
        "200 OK",
        &[("Transfer-Encoding", "chunked"), ("ETag", "\"one\"")],
    );
    for piece in image.chunks(40_000) {
        reply.body(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        reply.body(piece);
        reply.body(b"\r\n");
    }
}

/// Half of it in chunks, then this in place of a chunk.
fn bad_chunk(reply: &mut Reply, image: &[u8], bad: &[u8]) {
    chunks(reply, &image[..LENGTH / 2], "");
    reply.body(bad);
}

/// Until the client goes.
fn endless(reply: &mut Reply, bytes: &[u8]) {
    while reply.body(bytes) {}
}

fn drip(reply: &mut Reply, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if !reply.body(&[*byte]) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The head of an answer of which nothing more is said.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nETag: \"one\"\r\n";
// One fault, one line, where it fits.
#[rustfmt::skip]
pub(crate) const FAULTS: &[Fault] = &[
    // Cuts.
    good("closed before a byte", 2, |r, i| first(r, i, |_, _| {})),
    good("cut in the status line", 2, |r, i| first(r, i, |r, _| { r.body(b"HTTP/1.1 20"); })),
    good("cut in the headers", 2, |r, i| first(r, i, |r, _| { r.body(HEAD); })),
    good("cut after the headers", 2, |r, i| first(r, i, |r, i| r.serve(i, TAG, 0))),
    good("cut at half", 2, |r, i| first(r, i, |r, i| r.serve(i, TAG, LENGTH / 2))),
    good("cut before the last byte", 2, |r, i| first(r, i, |r, i| r.serve(i, TAG, LENGTH - 1))),
    good("cut again and again", 10, |r, i| r.serve(i, TAG, LENGTH / 10)),
    given_up("cut always before a byte", "network", |_, _| {}),

    // Ranges and validators.
    good("ignores ranges", 2, |r, i| second(r, i, |r, i| whole(r, i, "200 OK", &[("ETag", "\"one\"")]))),
    given_up("ignores ranges and is cut always", "network", |r, i| { r.asked.headers.clear(); r.serve(i, TAG, LENGTH / 2); }),
    good("another image under another tag", 2, |r, i| match r.number() {
        0 => r.serve(&other(i), Some("\"two\""), LENGTH / 2),
        _ => r.serve(i, TAG, ALL),
    }),
    good("another image under another tag, If-Range ignored", 3, |r, i| match r.number() {
        0 => r.serve(&other(i), Some("\"two\""), LENGTH / 2),
        1 => rest(r, i, &[("ETag", "\"one\"")]),
        _ => r.serve(i, TAG, ALL),
    }),
    good("another image under the same tag", 3, |r, i| match r.number() {
        0 => r.serve(&other(i), TAG, LENGTH / 2),
        1 => rest(r, i, &[("ETag", "\"one\"")]),
        _ => r.serve(i, TAG, ALL),
    }),
    with(With::Sha256, good("another image without a tag", 3, |r, i| match r.number() {
        0 => r.serve(&other(i), None, LENGTH / 2),
        1 => rest(r, i, &[]),
        _ => r.serve(i, None, ALL),
    })),
    with(With::Crc, good("another image without a tag, and no hash", 2, |r, i| match r.number() {
        0 => r.serve(&other(i), None, LENGTH / 2),
        _ => r.serve(i, None, ALL),
    })),
    good("another size under another tag", 2, |r, i| match r.number() {
        0 => r.serve(&i[1000..], Some("\"two\""), LENGTH / 2),
        _ => r.serve(i, TAG, ALL),
    }),
    good("a weak tag", 2, |r, i| match r.number() {
        0 => r.serve(i, Some("W/\"one\""), LENGTH / 2),
        _ => r.serve(i, Some("W/\"one\""), ALL),
    }),
    good("no tag", 2, |r, i| r.serve(i, None, if r.number() == 0 { LENGTH / 2 } else { ALL })),
    good("a tag that goes", 2, |r, i| match r.number() {
        0 => r.serve(i, TAG, LENGTH / 2),
        _ => whole(r, i, "200 OK", &[]),
    }),
    good("a tag that comes", 2, |r, i| match r.number() {
        0 => r.serve(i, None, LENGTH / 2),
        _ => r.serve(i, TAG, ALL),
    }),
    good("a tag of 4 KiB", 2, |r, i| {
        let tag = format!("\"{}\"", "x".repeat(4096));
        r.serve(i, Some(&tag), if r.number() == 0 { LENGTH / 2 } else { ALL });
    }),
    good("a tag of no text", 2, |r, i| match r.number() {
        0 => { r.body(HEAD.strip_suffix(b"ETag: \"one\"\r\n").unwrap()); r.body(b"ETag: \"\xff\xfe\"\r\n\r\n"); r.body(&i[..1000]); }
        _ => r.serve(i, TAG, ALL),
    }),
    good("206 from another byte", 3, |r, i| second(r, i, |r, i| {
        let range = format!("bytes {}-{}/{LENGTH}", LENGTH / 2 + 1, LENGTH - 1);
        rest(r, i, &[("Content-Range", &range), ("ETag", "\"one\"")]);
    })),
    good("206 of another total", 3, |r, i| second(r, i, |r, i| {
        let range = format!("bytes {}-{}/{}", LENGTH / 2, LENGTH - 1, LENGTH + 1);
        rest(r, i, &[("Content-Range", &range), ("ETag", "\"one\"")]);
    })),
    good("206 without a range", 3, |r, i| second(r, i, |r, i| rest(r, i, &[("Content-Range", "none"), ("ETag", "\"one\"")]))),
    good("206 of an unknown total", 2, |r, i| second(r, i, |r, i| {
        let range = format!("bytes {}-{}/*", LENGTH / 2, LENGTH - 1);
        rest(r, i, &[("Content-Range", &range), ("ETag", "\"one\"")]);
    })),
    good("multipart/byteranges", 3, |r, i| second(r, i, |r, i| {
        let half = LENGTH / 2;
        let body = format!("--b\r\nContent-Range: bytes {half}-{}/{LENGTH}\r\n\r\n", LENGTH - 1).into_bytes();
        let body = [&body, &i[half..], b"\r\n--b--\r\n"].concat();
        let length = body.len().to_string();
        r.head("206 Partial Content", &[("Content-Type", "multipart/byteranges; boundary=b"), ("ETag", "\"one\""), ("Content-Length", &length)]);
        r.body(&body);
    })),
    good("multipart/byteranges under a single range's header", 3, |r, i| second(r, i, |r, i| {
        let range = format!("bytes {}-{}/{LENGTH}", LENGTH / 2, LENGTH - 1);
        r.head("206 Partial Content", &[("Content-Type", "multipart/byteranges; boundary=b"), ("ETag", "\"one\""), ("Content-Range", &range), ("Transfer-Encoding", "chunked")]);
        r.body(b"1000\r\n--b\r\n");
        r.body(&i[..0x1000 - 5]);
        r.body(b"\r\n0\r\n\r\n");
    })),
    at_once("206 that was not asked for", "http-protocol", |r, i| rest(r, i, &[])),
    good("416 to a resume", 3, |r, i| second(r, i, |r, _| r.empty("416 Range Not Satisfiable", &[("Content-Range", "bytes */10")]))),
    at_once("416 to no range", "http-status", |r, _| r.empty("416 Range Not Satisfiable", &[])),

    // Lies about the length.
    good("announces too much, once", 2, |r, i| first(r, i, |r, i| {
        r.head("200 OK", &[("Content-Length", "300001"), ("ETag", "\"old\"")]);
        r.body(i);
    })),
    given_up("announces too much", "network", |r, i| {
        r.head("200 OK", &[("Content-Length", "300001")]);
        r.body(i);
    }),
    fault("announces too little", Failed("{any}-mismatch"), 1..=1, |r, i| {
        r.head("200 OK", &[("Content-Length", "299999")]);
        r.body(i);
    }),
    at_once("announces more than is allowed", "too-large", |r, _| {
        r.head("200 OK", &[("Content-Length", "18446744073709551615")]);
        r.body(b"x");
    }),
    good("sends more than it announced", 1, |r, i| { whole(r, i, "200 OK", &[]); r.body(&[7; 100_000]); }),
    at_once("a length that is no number", "http-protocol", |r, i| { r.head("200 OK", &[("Content-Length", "many")]); r.body(i); }),
    at_once("a length below zero", "http-protocol", |r, i| { r.head("200 OK", &[("Content-Length", "-1")]); r.body(i); }),
    at_once("two lengths", "http-protocol", |r, i| whole(r, i, "200 OK", &[("Content-Length", "7")])),
    good("a length and chunks", 1, |r, i| {
        r.head("200 OK", &[("Content-Length", "7"), ("Transfer-Encoding", "chunked")]);
        r.body(b"493e0\r\n"); r.body(i); r.body(b"\r\n0\r\n\r\n");
    }),
    at_once("nothing for an image", "size-mismatch", |r, _| r.empty("200 OK", &[])),
    at_once("no chunk for an image", "size-mismatch", |r, _| { r.head("200 OK", &[("Transfer-Encoding", "chunked")]); r.body(b"0\r\n\r\n"); }),
    fault("a page for people", Failed("{any}-mismatch"), 1..=1, |r, _| whole(r, b"<html>Please log in</html>", "200 OK", &[("Content-Type", "text/html")])),
    at_once("chunks without an end", "too-large", |r, _| {
        r.head("200 OK", &[("Transfer-Encoding", "chunked")]);
        endless(r, &[b"2710\r\n", &[7; 10_000][..], b"\r\n"].concat());
    }),
    with(With::Sha256, at_once("a body without an end", "too-large", |r, _| { r.head("200 OK", &[]); endless(r, &[7; 10_000]); })),

    // HTTP/1.0, and a body that ends with the connection.
    with(With::Crc, at_once("HTTP/1.0 without a length, and no hash", "http-protocol", |r, i| { r.body(b"HTTP/1.0 200 OK\r\n\r\n"); r.body(i); })),
    with(With::Sha256, good("HTTP/1.0 without a length", 1, |r, i| { r.body(b"HTTP/1.0 200 OK\r\n\r\n"); r.body(i); })),
    with(With::Sha256, fault("HTTP/1.0 without a length, cut", Failed("hash-mismatch"), 1..=1, |r, i| { r.body(b"HTTP/1.0 200 OK\r\n\r\n"); r.body(&i[..1000]); })),
    // What the request says is all that tells it from a whole one.
    with(With::Size, good("HTTP/1.0 without a length, cut, of an announced size", 2, |r, i| first(r, i, |r, i| { r.body(b"HTTP/1.0 200 OK\r\n\r\n"); r.body(&i[..1000]); }))),
    with(With::Size, given_up("HTTP/1.0 without a length, cut always, of an announced size", "network", |r, i| { r.body(b"HTTP/1.0 200 OK\r\n\r\n"); r.body(&i[..1000]); })),
    good("HTTP/1.0 with a length, cut", 2, |r, i| match r.number() {
        0 => { r.body(b"HTTP/1.0 200 OK\r\nContent-Length: 300000\r\n\r\n"); r.body(&i[..1000]); }
        _ => r.serve(i, TAG, ALL),
    }),

    // Chunks.
    good("chunks with extensions and trailers", 1, |r, i| { chunks(r, i, ";name=\"value\""); r.body(b"0\r\nX-Sum: 7\r\n\r\n"); }),
    good("chunks, cut", 2, |r, i| first(r, i, |r, i| bad_chunk(r, i, b""))),
    good("a chunk's size is no number", 2, |r, i| first(r, i, |r, i| bad_chunk(r, i, b"zz\r\n"))),
    good("a chunk's size is below zero", 2, |r, i| first(r, i, |r, i| bad_chunk(r, i, b"-5\r\n"))),
    good("a chunk's size is beyond 64 bits", 2, |r, i| first(r, i, |r, i| bad_chunk(r, i, b"ffffffffffffffffff\r\n"))),
    good("a chunk's size does not end", 2, |r, i| first(r, i, |r, i| { bad_chunk(r, i, b"1"); endless(r, &[b'0'; 1000]); })),
    good("a chunk is longer than its size", 2, |r, i| first(r, i, |r, i| bad_chunk(r, i, b"2\r\nabcdefgh\r\n"))),
    given_up("bad chunks always", "{any}", |r, i| bad_chunk(r, i, b"zz\r\n")),

    // Silence and drips.
    good("silent at once", 2, |r, i| first(r, i, |r, _| r.hang())),
    good("silent in the headers", 2, |r, i| first(r, i, |r, _| { r.body(HEAD); r.hang(); })),
    good("silent after the headers", 2, |r, i| first(r, i, |r, i| { r.serve(i, TAG, 0); r.hang(); })),
    good("silent at half", 2, |r, i| first(r, i, |r, i| { r.serve(i, TAG, LENGTH / 2); r.hang(); })),
    good("silent before the last byte", 2, |r, i| first(r, i, |r, i| { r.serve(i, TAG, LENGTH - 1); r.hang(); })),
    good("silent between chunks", 2, |r, i| first(r, i, |r, i| { bad_chunk(r, i, b"5"); r.hang(); })),
    good("headers in drips", 2, |r, i| first(r, i, |r, _| { r.body(HEAD); drip(r, b"X: y\r\n"); })),
    good("a body in drips", 2, |r, i| first(r, i, |r, i| { r.serve(i, TAG, 10_000); drip(r, &i[10_000..]); })),
    given_up("silent always", "stalled", |r, _| r.hang()),

    // Statuses.
    at_once("301 to nowhere", "redirect", |r, _| r.empty("301 Moved", &[])),
    fault("302 for ever", Failed("redirect"), 6..=6, |r, _| r.empty("302 Found", &[("Location", "/image")])),
    at_once("307 to another scheme", "redirect", |r, _| r.empty("307 Elsewhere", &[("Location", "file:///etc/passwd?S3CR3T")])),
    at_once("302 to no URL", "redirect", |r, _| r.empty("302 Found", &[("Location", "http://S3CR3T:S3CR3T@[bad?S3CR3T")])),
    good("308 to the image", 2, |r, i| first(r, i, |r, _| r.empty("308 Moved", &[("Location", "/there?S3CR3T")]))),
    at_once("204", "http-status", |r, _| r.head("204 No Content", &[])),
    at_once("205", "http-status", |r, _| r.empty("205 Reset Content", &[])),
    at_once("203 with an image", "http-status", |r, i| whole(r, i, "203 Transformed", &[])),
    at_once("300", "http-status", |r, _| r.empty("300 Multiple Choices", &[("Location", "/other")])),
    at_once("304", "http-status", |r, _| r.head("304 Not Modified", &[])),
    at_once("400", "http-status", |r, _| r.empty("400 Bad Request", &[])),
    at_once("401", "http-status", |r, _| r.empty("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")])),
    at_once("403", "http-status", |r, _| r.empty("403 Forbidden", &[])),
    at_once("404 with a page", "http-status", |r, _| whole(r, b"<html>not here</html>", "404 Not Found", &[])),
    at_once("404 with an endless page", "http-status", |r, _| { r.head("404 Not Found", &[]); endless(r, &[b'x'; 1000]); }),
    at_once("407", "http-status", |r, _| r.empty("407 Proxy Authentication Required", &[])),
    at_once("410", "http-status", |r, _| r.empty("410 Gone", &[("Retry-After", "1")])),
    at_once("451", "http-status", |r, _| r.empty("451 Unavailable For Legal Reasons", &[])),
    at_once("a status of 600", "http-status", |r, _| r.empty("600 What", &[])),
    good("408", 2, |r, i| first(r, i, |r, _| r.empty("408 Request Timeout", &[]))),
    good("425", 2, |r, i| first(r, i, |r, _| r.empty("425 Too Early", &[]))),
    good("429", 2, |r, i| first(r, i, |r, _| r.empty("429 Too Many Requests", &[("Retry-After", "0")]))),
    good("500 with an endless page", 2, |r, i| first(r, i, |r, _| { r.head("500 Error", &[]); endless(r, &[b'x'; 1000]); })),
    good("502", 2, |r, i| first(r, i, |r, _| r.empty("502 Bad Gateway", &[]))),
    good("503 in the middle", 3, |r, i| second(r, i, |r, _| r.empty("503 Busy", &[("Retry-After", "soon")]))),
    good("504", 2, |r, i| first(r, i, |r, _| r.empty("504 Gateway Timeout", &[]))),
    fault("404 in the middle", Failed("http-status"), 2..=2, |r, i| second(r, i, |r, _| r.empty("404 Not Found", &[]))),
    given_up("503 always", "http-status", |r, _| r.empty("503 Busy", &[])),
    good("Retry-After in the past", 2, |r, i| first(r, i, |r, _| r.empty("503 Busy", &[("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")]))),
    good("Retry-After of nonsense", 2, |r, i| first(r, i, |r, _| r.empty("429 Slow", &[("Retry-After", "-99999999999999999999999999")]))),
    good("Retry-After beyond 64 bits", 2, |r, i| first(r, i, |r, _| r.empty("429 Slow", &[("Retry-After", "99999999999999999999999999")]))),
    fault("Retry-After of a thousand years", Waits, 1..=1, |r, _| r.empty("503 Busy", &[("Retry-After", "31557600000")])),
    fault("Retry-After in the year 9999", Waits, 1..=1, |r, _| r.empty("503 Busy", &[("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT")])),
    good("100 and 103 before the answer", 1, |r, i| {
        r.body(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
        r.serve(i, TAG, ALL);
    }),
    good("102 a hundred times", 1, |r, i| {
        for _ in 0..100 { r.body(b"HTTP/1.1 102 Processing\r\n\r\n"); }
        r.serve(i, TAG, ALL);
    }),
    good("102 for ever", 2, |r, i| first(r, i, |r, _| endless(r, b"HTTP/1.1 102 Processing\r\n\r\n"))),
    at_once("101", "http-status", |r, _| r.head("101 Switching Protocols", &[("Upgrade", "websocket")])),

    // Encodings and headers.
    at_once("gzip", "http-protocol", |r, i| whole(r, i, "200 OK", &[("Content-Encoding", "gzip")])),
    at_once("gzip behind identity", "http-protocol", |r, i| whole(r, i, "200 OK", &[("Content-Encoding", "identity, gzip")])),
    at_once("br in a second header", "http-protocol", |r, i| whole(r, i, "200 OK", &[("Content-Encoding", "identity"), ("Content-Encoding", "br")])),
    at_once("gzip as a transfer coding", "http-protocol", |r, i| whole(r, i, "200 OK", &[("Transfer-Encoding", "gzip, chunked")])),
    good("100 headers", 1, |r, i| {
        r.body(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n");
        for n in 0..100 { r.body(format!("X-{n}: {n}\r\n").as_bytes()); }
        r.body(b"\r\n"); r.body(i);
    }),
    at_once("1000 headers", "http-protocol", |r, i| {
        r.body(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n");
        for n in 0..1000 { r.body(format!("X-{n}: {n}\r\n").as_bytes()); }
        r.body(b"\r\n"); r.body(i);
    }),
    given_up("a header of a megabyte", "network", |r, i| { let x = "x".repeat(1 << 20); whole(r, i, "200 OK", &[("X", &x)]); }),
    at_once("headers without an end", "http-protocol", |r, _| { r.body(b"HTTP/1.1 200 OK\r\n"); endless(r, b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"); }),
    at_once("no HTTP", "http-protocol", |r, _| { r.body(b"220 mail.example ESMTP\r\n\r\n"); }),
    at_once("HTTP/2", "http-protocol", |r, _| { r.body(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\x01\0\0"); }),
];
