//! Downloads an image, verifies it, and installs it as a file: the updater's pipeline without a hub.
//!
//! ```text
//! cargo run --release --example fetch -- URL FILE [--check VALUE] [--size BYTES] [--ca FILE]
//! ```
//!
//! Interrupt it and start it again: this example keeps no journal, so it begins at zero; within a
//! run a broken connection is gone on from. It ends with one line of JSON: what was installed, and
//! the memory it took (Linux; in KiB, before and at most).
#![allow(clippy::print_stdout)]

use std::{error::Error, process::ExitCode, thread, time::Duration};
use twinflash::{
    download::{Downloader, HttpOptions, Proxy, Stop},
    install::{FileInstall, ImageInfo, Installer},
    tls::Roots,
    update::{Check, Ended, Failure, Job, Progress, Retry},
};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fetch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<String, Box<dyn Error>> {
    const USAGE: &str = "usage: fetch URL FILE [--check VALUE] [--size BYTES] [--ca FILE]";
    let idle = peak_memory();
    let uri = arguments.next().ok_or(USAGE)?;
    let file = arguments.next().ok_or(USAGE)?;
    let mut options = HttpOptions::default();
    if uri.contains("://127.0.0.1:") {
        options.proxy = Proxy::None;
    }
    let (mut check, mut size) = (None, None);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--check" => check = Some(Check::parse(&value, false)?),
            "--size" => size = Some(value.parse()?),
            "--ca" => options.roots = Roots::from_pem_file(value)?,
            _ => return Err(USAGE.into()),
        }
    }

    let downloader = Downloader::new(options)?;
    let mut installer = FileInstall::new(file);
    let mut job = Job {
        uri,
        resume: None,
        size,
        max_size: 1 << 40,
        hash_judges: matches!(check, Some(Check::Sha256(_))),
        content: "example".into(),
        compression: None,
        encryption: None,
        file_size: None,
        local: false,
        https_only: false,
        max_redirects: 10,
        checkpoint_interval: Duration::from_secs(1),
        checkpoint_bytes: 16 << 20,
        stall_time: Duration::from_secs(30),
        stall_bytes: 1024,
        bandwidth: None,
        dry_run: false,
    };
    let mut attempts = 0;
    let (bytes, digests) = loop {
        let mut resume = job.resume.take();
        let ended = downloader.fetch(
            &Job {
                resume: resume.clone(),
                ..job.clone()
            },
            &mut installer,
            ImageInfo::default(),
            &Stop::new(),
            &mut |progress| match progress {
                Progress::Started { offset: 0, .. } => resume = None,
                Progress::Durable(checkpoint) => resume = Some(checkpoint),
                _ => {}
            },
        );
        attempts += 1;
        match ended {
            Ended::Complete { bytes, digests } => break (bytes, digests),
            Ended::Failed(failure, Retry::Resume(wait)) if attempts < 5 => {
                eprintln!("fetch: {failure}; once more");
                thread::sleep(wait.unwrap_or(Duration::from_secs(1 << attempts)));
                job.resume = resume;
            }
            Ended::Failed(failure, Retry::FromZero) if attempts < 5 => {
                eprintln!("fetch: {failure}; from zero");
            }
            Ended::Failed(failure, _) => return Err(abort(&mut installer, failure)),
            Ended::Stopped | Ended::Manifest(_) => return Err("stopped".into()),
        }
    };
    if let Some(check) = check.filter(|check| !check.matches(&digests)) {
        return Err(abort(&mut installer, format!("the image is not {check}")));
    }
    installer.finish()?;
    installer.activate()?;
    Ok(format!(
        r#"{{"bytes":{bytes},"crc16":"{:04x}","crc32":"{:08x}","sha256":"{}","idleKiB":{idle},"peakKiB":{}}}"#,
        digests.crc16,
        digests.crc32,
        digests
            .sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
        peak_memory(),
    ))
}

/// Removes what was written, and hands the error on.
fn abort(installer: &mut FileInstall, error: impl Into<Box<dyn Error>>) -> Box<dyn Error> {
    match installer.abort() {
        Ok(()) => error.into(),
        Err(failure) => Box::<dyn Error>::from(Failure::to_string(&failure)),
    }
}

/// The most memory this process has held, in KiB; 0 where that cannot be told.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
