//! Every fault of [`faults`](crate::faults) through a whole update: a method comes in, a twin goes out, a file is
//! installed or is not. And whatever happened, the next update succeeds.

use crate::{
    device::*,
    faults::{Ends, FAULTS, Fault, With},
    support::pattern::{Names, SECRET, expect, image},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use twinflash::{
    contract::Contract,
    device::{Event, Outbound, Updater},
    install::FileInstall,
    twin,
    update::{Outcome, Policy},
};

/// How long the policy tries what never succeeds: longer than a stall takes.
const SHORT: Duration = Duration::from_millis(1500);
/// They mostly wait.
const AT_ONCE: usize = 16;
const STATUS: &str = "iothubDM.firmwareUpdate.status";

/// Tries for so long; has patience with a machine that does other things, too.
fn policy(time: Duration) -> Policy {
    let mut policy = Policy::default();
    policy.allow_http = true;
    policy.max_size = 1_000_000;
    policy.stall_time = Duration::from_secs(1);
    policy.retry.first = Duration::from_millis(10);
    policy.retry.longest = Duration::from_millis(100);
    policy.retry.time = time;
    policy
}

/// An updater, and the hub's side of it in a few lines.
pub(crate) struct Run {
    pub(crate) updater: Arc<Updater>,
    reported: Arc<Mutex<Value>>,
    /// Everything that was told to anybody.
    told: Arc<Mutex<Vec<String>>>,
    /// The longest pause before another attempt.
    pause: Arc<Mutex<Duration>>,
    directory: TempDir,
}

impl Run {
    pub(crate) fn start(policy: Policy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("app.bin"), b"old").unwrap();
        let (told, pause, reported) = (
            Arc::default(),
            Arc::default(),
            Arc::new(Mutex::new(json!({}))),
        );
        Self {
            updater: updater(directory.path(), policy, &told, &pause, &reported),
            reported,
            told,
            pause,
            directory,
        }
    }

    /// Stops the updater, and starts another one that goes on.
    fn restart(&mut self, policy: Policy) {
        self.updater.close();
        let Self {
            told,
            pause,
            reported,
            ..
        } = self;
        self.updater = updater(self.directory.path(), policy, told, pause, reported);
    }

    pub(crate) fn ask(&self, payload: &Value) {
        let payload = payload.to_string();
        let answer = self
            .updater
            .handle_method("firmwareUpdate", payload.as_bytes());
        assert_eq!(answer.unwrap().status, 200);
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("app.bin")).unwrap()
    }

    fn reported(&self, path: &str) -> Value {
        let reported = self.reported.lock().unwrap();
        let found = twinflash::contract::at_path(&reported, path);
        found.cloned().unwrap_or_default()
    }
}

fn updater(
    directory: &Path,
    policy: Policy,
    told: &Arc<Mutex<Vec<String>>>,
    pause: &Arc<Mutex<Duration>>,
    reported: &Arc<Mutex<Value>>,
) -> Arc<Updater> {
    let (events, longest) = (told.clone(), pause.clone());
    let contract = Contract::built_in("iothub-dm").unwrap();
    let installer = FileInstall::new(directory.join("app.bin"));
    let updater = Updater::builder(directory.join("state"), contract, installer)
        .current_version("1.0.0")
        .policy(policy)
        .on_event(move |event| {
            events.lock().unwrap().push(format!("{event:?}"));
            if let Event::Retry { after, .. } = event {
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(*after);
            }
        })
        .start()
        .unwrap();
    let updater = Arc::new(updater);
    let (weak, document, patches) = (Arc::downgrade(&updater), reported.clone(), told.clone());
    updater.on_outbound(move |outbound| {
        let Some(updater) = weak.upgrade() else {
            return;
        };
        let mut reported = document.lock().unwrap();
        match outbound {
            Outbound::ReadTwin => {
                let twin = json!({"desired": {"$version": 1}, "reported": *reported});
                drop(reported);
                updater.handle_twin(true, twin.to_string().as_bytes());
            }
            Outbound::Report(report) => {
                let patch = serde_json::from_str(&report.patch).unwrap();
                twin::merge(&mut reported, &patch);
                drop(reported);
                patches.lock().unwrap().push(report.patch);
                updater.report_done(report.id, 204);
            }
        }
    });
    updater.connected(true);
    updater
}

/// The method's payload that asks for this image.
fn request(uri: &str, with: With, image: &[u8]) -> Value {
    let mut names = Names::default();
    names.add_image("it", image);
    let check = match with {
        With::Crc => "{crc16:it}",
        _ => "{sha256:it}",
    };
    let mut asked = json!({"fwPackageUri": uri, "fwPackageCheckValue": check});
    if with == With::Size {
        asked["fwSize"] = image.len().into();
    }
    names.fill(&asked)
}

fn play(fault: &Fault, with: With) -> Result<(), String> {
    let new = image(LENGTH, 1);
    let next = image(LENGTH / 3, 2);
    let answer = fault.answer;
    let (theirs, after) = (new.clone(), next.clone());
    let server = Server::http(move |reply| match reply.asked.path.as_str() {
        "/next" => reply.serve(&after, TAG, ALL),
        _ => answer(reply, &theirs),
    });
    let given_up = *fault.requests.end() == usize::MAX;
    let time = if given_up { SHORT } else { SHORT * 20 };
    let run = Run::start(policy(time));
    let uri = server.url(&format!("/image?sig={SECRET}"));
    run.ask(&request(&uri, with, &new));
    if fault.ends == Ends::Waits {
        return waits(&run, &server);
    }
    let outcome = run.updater.wait(Duration::from_secs(30));
    let outcome = outcome.ok_or("there was no end")?;
    let (status, file): (_, &[u8]) = match fault.ends {
        Ends::Completed => ("applyComplete", &new),
        _ => ("downloadFailed", b"old"),
    };
    let found = match &outcome {
        Outcome::Completed => json!("completed"),
        outcome => json!(outcome.failure().map(|failure| failure.code)),
    };
    let expected = match fault.ends {
        Ends::Failed(code) => json!(code),
        _ => json!("completed"),
    };
    let told = || format!("{:#?}", run.told.lock().unwrap());
    expect(&expected, &found, "outcome").map_err(|why| format!("{why}: {outcome:?} {}", told()))?;
    expect(&status.into(), &run.reported(STATUS), "status")?;
    if let Ends::Failed(code) = fault.ends {
        let reported = run.reported("iothubDM.firmwareUpdate.error.code");
        expect(&code.into(), &reported, "error.code")?;
    }
    if run.file() != file {
        return Err("another file is installed".into());
    }
    let requests = server.asked().len();
    if !fault.requests.contains(&requests) {
        return Err(format!("{requests} requests; {}", told()));
    }
    // A device takes another update, however the last one ended.
    run.ask(&request(&server.url("/next"), with, &next));
    let outcome = run.updater.wait(Duration::from_secs(30));
    if outcome != Some(Outcome::Completed) || run.file() != next {
        return Err(format!("the next update: {outcome:?}"));
    }
    match told().contains(SECRET) {
        true => Err(format!("a secret was told: {}", told())),
        false => Ok(()),
    }
}

/// It is to wait for very long, and can be cancelled meanwhile.
fn waits(run: &Run, server: &Server) -> Result<(), String> {
    let patience = Instant::now() + Duration::from_secs(10);
    while *run.pause.lock().unwrap() < Duration::from_secs(1000) {
        if Instant::now() > patience {
            return Err(format!("it does not wait: {:?}", run.updater.status()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let day = Duration::from_secs(24 * 3600);
    let pause = *run.pause.lock().unwrap();
    if pause > day || server.asked().len() != 1 {
        return Err(format!("{pause:?} after {} requests", server.asked().len()));
    }
    run.updater.cancel().map_err(|why| why.to_string())?;
    match run.updater.wait(Duration::from_secs(10)) {
        Some(Outcome::Cancelled(_)) if run.file() == b"old" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// `TWINFLASH_FAULT=text` plays only those whose name holds the text.
#[test]
fn every_fault_through_a_whole_update() {
    let only = std::env::var("TWINFLASH_FAULT").unwrap_or_default();
    let cases: Vec<_> = FAULTS
        .iter()
        .filter(|fault| fault.name.contains(&only))
        .flat_map(|fault| {
            let with: &[_] = match fault.with {
                With::Either => &[With::Crc, With::Sha256],
                With::Crc => &[With::Crc],
                With::Sha256 => &[With::Sha256],
                With::Size => &[With::Size],
            };
            with.iter().map(move |with| (fault, *with))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((fault, with)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = play(fault, *with) {
                        let why = format!("{} ({with:?}): {why}", fault.name);
                        failed.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{} faults, {} updates", FAULTS.len(), cases.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The time for trying is in the record: a device that restarts again and again gives up, too.
#[test]
fn a_restart_does_not_renew_the_time_for_trying() {
    let server = Server::http(|reply| reply.empty("503 Busy", &[]));
    let mut run = Run::start(policy(SHORT));
    run.ask(&request(&server.url("/image"), With::Crc, &[1; 1000]));
    // A part of its time each.
    for life in 1.. {
        if let Some(outcome) = run.updater.wait(Duration::from_millis(400)) {
            let failure = outcome.failure().unwrap();
            assert!(failure.message.contains("gave up after"), "{failure}");
            assert!(life > 1, "it gave up in its first life");
            break;
        }
        assert!(life < 10, "it goes on for ever: {:?}", run.updater.status());
        run.restart(policy(SHORT));
    }
}
