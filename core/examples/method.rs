//! How long a direct method that starts nothing takes, from its call to its answer: a refusal and a
//! repetition of the running request.
//!
//! `cargo run --release -p twinflash --example method`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};
use twinflash::{contract::Contract, device::Updater, install::FileInstall, update::Policy};

const CALLS: u32 = 20_000;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = Policy::default();
    policy.answer_wait = Duration::from_millis(1);
    let contract = Contract::built_in("iothub-dm").unwrap();
    let target = dir.path().join("app.bin");
    let updater = Updater::builder(dir.path(), contract, FileInstall::new(target))
        .policy(policy)
        .start()
        .unwrap();
    updater.on_outbound(|_| {});
    // Nobody listens there: the update stays in its retries.
    let running = br#"{"fwPackageUri":"https://127.0.0.1:9/image.bin","fwVersion":"2.0"}"#;
    let started = updater.handle_method("firmwareUpdate", running).unwrap();
    assert_eq!(started.status, 200);
    std::thread::sleep(Duration::from_millis(300));
    for (what, payload, status) in [
        ("refusal", &br#"{"fwPackageUri":"test.com"}"#[..], 400),
        ("repetition", running, 200),
        ("busy", br#"{"fwPackageUri":"https://h/other.bin"}"#, 409),
    ] {
        let mut times: Vec<_> = (0..CALLS)
            .map(|_| {
                let start = Instant::now();
                let answer = updater.handle_method("firmwareUpdate", payload).unwrap();
                assert_eq!(answer.status, status);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at =
            |share: usize| times.get(times.len() * share / 100).unwrap().as_nanos() as f64 / 1000.0;
        println!(
            "{what}: median {:.1} µs, 99 % within {:.1} µs",
            at(50),
            at(99)
        );
    }
}
