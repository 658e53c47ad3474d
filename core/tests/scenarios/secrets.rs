//! Every scenario is played with secrets wherever one can be, and everything that came of it is looked through for them.

use super::{signed, stage::Checked, support::pattern::SECRET};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::Value;
use std::{fs, path::Path, sync::Mutex};

/// A header of every request; its value is a secret.
pub(super) const HEADER: &str = "X-Api-Key";

/// Whether there is one: what URLs and [`HEADER`] hold, or a piece of the key that decrypts.
pub(super) fn is_in(text: &[u8]) -> bool {
    let has = |secret: &str| text.windows(secret.len()).any(|at| at == secret.as_bytes());
    has(SECRET) || has(signed::PIECE)
}

/// A step whose requests name the server by a URL with a user, a password and a query.
pub(super) fn put_into(step: &mut Value, server: &str) {
    for (verb, what) in step.as_object_mut().into_iter().flatten() {
        match verb.as_str() {
            "payload" | "text" | "desired" | "notify" | "twin" => put(what, server),
            "server" => {
                let plans = what.as_object_mut().into_iter().flatten();
                let plans = plans.flat_map(|(_, plans)| plans.as_array_mut().unwrap());
                for location in plans.filter_map(|plan| plan.pointer_mut("/headers/Location")) {
                    *location = format!("{}?sig={SECRET}", location.as_str().unwrap()).into();
                }
            }
            _ => {}
        }
    }
}

fn put(what: &mut Value, server: &str) {
    match what {
        Value::String(text) => {
            let query = !text.contains('?') && text.starts_with(server);
            *text = text.replace(
                server,
                &server.replace("://", &format!("://user:{SECRET}@")),
            );
            if query {
                text.push_str(&format!("?sig={SECRET}"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, server)),
        Value::Object(members) => members.values_mut().for_each(|item| put(item, server)),
        _ => {}
    }
}

/// Looks through all files an updater has left. A journal holds the last request's URL, so that a download goes on
/// after a restart: that member may tell, and nothing else.
pub(super) fn none_in_files(directory: &Path) -> Checked {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            none_in_files(&path)?;
            continue;
        }
        let mut content = fs::read(&path).unwrap_or_default();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with("journal.") && content.starts_with(b"TWFLASHJ") {
            // One that was damaged on purpose is no JSON.
            content = match serde_json::from_slice::<Value>(payload(&content)) {
                Ok(mut record) => {
                    if let Some(uri) = record.pointer_mut("/update/request/uri") {
                        uri.take();
                    }
                    record.to_string().into_bytes()
                }
                Err(_) => Vec::new(),
            };
        }
        if is_in(&content) {
            return Err(format!("a secret is in {}", path.display()));
        }
    }
    Ok(())
}

/// What a copy of the journal holds; after it lies what a longer record has left.
fn payload(copy: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(copy[12..16].try_into().unwrap());
    copy.get(64..64 + length as usize).unwrap_or_default()
}

/// All that was logged in this process: ours at every level, the libraries' up to `debug`. (At `trace` they write the
/// bytes of requests.)
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug || metadata.target().starts_with("twinflash")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{}: {}", record.target(), record.args());
            LOGGED.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

pub(super) fn listen_to_the_log() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(LevelFilter::Trace);
}

/// How many lines were logged; it fails if there is a secret in one.
pub(super) fn none_in_the_log() -> Result<usize, String> {
    let logged = LOGGED.lock().unwrap();
    match logged.iter().find(|line| is_in(line.as_bytes())) {
        None => Ok(logged.len()),
        Some(line) => Err(format!("a secret was logged: {line}")),
    }
}

#[test]
fn a_secret_would_be_found() {
    let directory = tempfile::tempdir().unwrap();
    let record = |record: &str| {
        let mut copy = b"TWFLASHJ\x01\0\0\0".to_vec();
        copy.extend((record.len() as u32).to_le_bytes());
        copy.resize(64, 0);
        copy.extend(record.as_bytes());
        fs::write(directory.path().join("journal.a"), copy).unwrap();
        none_in_files(directory.path())
    };
    record(&format!(
        r#"{{"update":{{"request":{{"uri":"{SECRET}"}}}}}}"#
    ))
    .unwrap();
    record(&format!(
        r#"{{"update":{{"request":{{"url":"{SECRET}"}}}}}}"#
    ))
    .unwrap_err();
    record(&format!(r#"{{"uri":"{SECRET}"}}"#)).unwrap_err();
    record(&format!(r#"{{"key":"{}"}}"#, signed::PIECE)).unwrap_err();
    record("{}").unwrap();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("x"), format!("x{SECRET}x")).unwrap();
    record("{}").unwrap_err();
}
