//! The table of faults in `docs/reliability.md`: how five servers that fail are lived through, with the default policy.
//!
//! `TWINFLASH_FULL=1` takes the 32 MiB that the others were measured with, and runs `curl` beside it, if there is one:
//! `TWINFLASH_FULL=1 cargo test --release -p twinflash --test download table -- --nocapture`.

use crate::{
    device::*,
    hostile::Run,
    support::pattern::{Names, image},
};
use serde_json::json;
use std::{env, fs, process::Command};
use twinflash::update::{Outcome, Policy};

struct Row {
    name: &'static str,
    answer: fn(&mut Reply, &[u8]),
    /// The failure to expect, if it is one.
    fails: Option<&'static str>,
    /// At most so many bytes, in halves of the image; `None` where the server cannot tell what was taken.
    halves: Option<u64>,
}

/// What was there before the image: other bytes, as many.
fn before(image: &[u8]) -> Vec<u8> {
    image.iter().map(|byte| !byte).collect()
}

const ROWS: &[Row] = &[
    Row {
        name: "cuts at half",
        answer: |reply, image| match reply.number() {
            0 => reply.serve(image, TAG, image.len() / 2),
            _ => reply.serve(image, TAG, ALL),
        },
        fails: None,
        halves: Some(2),
    },
    Row {
        name: "then ignores Range",
        answer: |reply, image| match reply.number() {
            0 => reply.serve(image, TAG, image.len() / 2),
            _ => {
                reply.asked.headers.clear();
                reply.serve(image, TAG, ALL);
            }
        },
        fails: None,
        halves: Some(3),
    },
    Row {
        name: "content and ETag change",
        answer: |reply, image| match reply.number() {
            0 => reply.serve(&before(image), Some("\"before\""), image.len() / 2),
            _ => reply.serve(image, TAG, ALL),
        },
        fails: None,
        halves: Some(3),
    },
    Row {
        name: "404",
        answer: |reply, _| {
            reply.head("404 Not Found", &[("Content-Length", "21")]);
            reply.body(b"<html>not here</html>");
        },
        fails: Some("http-status"),
        halves: Some(0),
    },
    Row {
        // Endless for a device: three times the image, so that curl comes to an end.
        name: "endless body",
        answer: |reply, image| {
            reply.head("200 OK", &[("Transfer-Encoding", "chunked")]);
            for piece in [image, image, image].iter().flat_map(|i| i.chunks(1 << 16)) {
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                if !reply.body(&chunk) {
                    return;
                }
            }
            reply.body(b"0\r\n\r\n");
        },
        fails: Some("too-large"),
        halves: None,
    },
];

/// What came of it, in a line.
fn line(result: &str, begun: Instant, server: &Server, file: &str) -> String {
    let seconds = begun.elapsed().as_secs_f64();
    let asked = server.asked();
    let sent: u64 = asked.iter().map(|asked| asked.sent).sum();
    format!(
        "{result}; {seconds:.1} s, {} requests, {:.1} MiB; {file}",
        asked.len(),
        sent as f64 / f64::from(1 << 20)
    )
}

fn ours(row: &Row, new: &[u8]) -> String {
    let (answer, served) = (row.answer, new.to_vec());
    let server = Server::http(move |reply| answer(reply, &served));
    let mut policy = Policy::default();
    policy.allow_http = true;
    let run = Run::start(policy);
    let mut names = Names::default();
    names.add_image("new", new);
    let payload = names.fill(&json!({
        "fwPackageUri": server.url("/image"),
        "fwPackageCheckValue": "{sha256:new}",
        "fwSize": "{size:new}",
    }));
    let begun = Instant::now();
    run.ask(&payload);
    let outcome = run.updater.wait(Duration::from_secs(60)).unwrap();
    let (result, right) = match &outcome {
        Outcome::Completed => ("succeeds".to_owned(), run.file() == new),
        outcome => {
            let failure = outcome.failure().unwrap();
            let code = json!(failure.code).as_str().unwrap().to_owned();
            assert_eq!(run.file(), b"old", "{}", row.name);
            (code, false)
        }
    };
    let file = if right { "new file" } else { "old file kept" };
    let line = line(&result, begun, &server, file);
    assert_eq!(
        result,
        row.fails.unwrap_or("succeeds"),
        "{}: {outcome:?}",
        row.name
    );
    assert_eq!(right, row.fails.is_none(), "{}", row.name);
    let sent: u64 = server.asked().iter().map(|asked| asked.sent).sum();
    if let Some(halves) = row.halves {
        let most = halves * new.len() as u64 / 2 + 30;
        assert!(sent <= most, "{}: {sent} bytes", row.name);
    }
    line
}

fn curl(row: &Row, new: &[u8], arguments: &[&str]) -> String {
    let (answer, served) = (row.answer, new.to_vec());
    let server = Server::http(move |reply| answer(reply, &served));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let begun = Instant::now();
    let status = Command::new("curl")
        .args(["-sS", "--noproxy", "*"])
        .args(arguments)
        .arg("-o")
        .arg(&file)
        .arg(server.url("/image"))
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    let result = format!("exit {}", status.code().unwrap_or(-1));
    let file = match fs::read(&file) {
        Ok(bytes) if bytes == new => "new file",
        Ok(_) => "another file",
        Err(_) => "no file",
    };
    line(&result, begun, &server, file)
}

#[test]
fn the_table_of_faults() {
    let full = env::var_os("TWINFLASH_FULL").is_some();
    let new = image(if full { 32 << 20 } else { 1 << 20 }, 1);
    for row in ROWS {
        println!("{}\n    twinflash: {}", row.name, ours(row, &new));
        if full && Command::new("curl").arg("--version").output().is_ok() {
            println!("    curl -o: {}", curl(row, &new, &[]));
            let best = ["--fail", "-C", "-", "--retry", "3", "--retry-all-errors"];
            println!("    curl {}: {}", best.join(" "), curl(row, &new, &best));
        }
    }
}
