//! Single situations that the simulated world does not come to.

use serde_json::json;
use std::time::Duration;
use twinflash::{
    contract::Contract,
    engine::{Config, Engine, Event, Input, Now, Output, Step, Stored},
    update::{
        Check, Checkpoint, Checks, Code, Ended, Failure, ImageState, Job, Outcome, Phase, Policy,
        Progress, Record, Restart, Retry, Sealed, Update,
    },
};

pub(super) fn config(contract: &str, restart: Restart, boot: u32) -> Config {
    Config {
        contract: Contract::built_in(contract).unwrap(),
        policy: Policy::default(),
        current_version: None,
        restart,
        boot_id: boot.to_string(),
        installer: None,
        seed: 7,
    }
}

pub(super) fn at(seconds: u64) -> Now {
    Now {
        monotonic: Duration::from_secs(seconds),
        wall: Some(1_800_000_000_000 + seconds * 1000),
    }
}

/// Gives an input; the outputs.
pub(super) fn give(engine: &mut Engine, input: Input<'_>, seconds: u64) -> Vec<Output> {
    engine.handle(input, at(seconds));
    std::iter::from_fn(|| engine.poll()).collect()
}

pub(super) fn boot(engine: &mut Engine, record: Option<&Record>, image: ImageState) -> Vec<Output> {
    let stored = record.map_or(Stored::Empty, |record| Stored::Record(record.to_json()));
    give(engine, Input::Boot { stored, image }, 0)
}

pub(super) fn ask(engine: &mut Engine, seconds: u64) -> Vec<Output> {
    let payload = br#"{"fwPackageUri":"https://host/new","fwVersion":"2"}"#;
    let name = "firmwareUpdate";
    give(
        engine,
        Input::Method {
            id: 1,
            name,
            payload,
        },
        seconds,
    )
}

pub(super) fn last_saved(outputs: &[Output]) -> Option<Record> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Save { record, .. } => Some((**record).clone()),
        _ => None,
    })
}

pub(super) fn downloads(outputs: &[Output]) -> Vec<&Job> {
    let mut jobs = Vec::new();
    for output in outputs {
        if let Output::Download(job, _) = output {
            jobs.push(&**job);
        }
    }
    jobs
}

/// The twin is read, of this version; its configuration asks for this image.
pub(super) fn twin(engine: &mut Engine, version: u64, image: &str) -> Vec<Output> {
    let desired = json!({"$version": version, "firmware": {
        "fwPackageURI": format!("https://host/{image}"), "fwVersion": image, "fwPackageCheckValue": "1234",
    }});
    let json = json!({"desired": desired, "reported": {}}).to_string();
    let read = Input::Twin {
        complete: true,
        json: json.as_bytes(),
    };
    give(engine, read, version)
}

#[test]
fn extreme_policies_do_not_overflow() {
    let mut config = config("iothub-dm", Restart::None, 0);
    config.policy.answer_wait = Duration::MAX;
    config.policy.confirm_time = Duration::MAX;
    config.policy.retry.first = Duration::MAX;
    let mut engine = Engine::new(config);
    boot(&mut engine, None, ImageState::Old);
    give(&mut engine, Input::Connected, 1);
    let twin = json!({"desired": {"$version": 1}, "reported": {}}).to_string();
    let twin = || Input::Twin {
        complete: true,
        json: twin.as_bytes(),
    };
    give(&mut engine, twin(), 1);
    let outputs = ask(&mut engine, 2);
    for output in outputs {
        if let Output::Report(report) = output {
            let done = Input::ReportDone {
                id: report.id,
                status: 204,
            };
            give(&mut engine, done, 2);
        }
    }
    let failure = Failure::new(Code::Network, "cut");
    let ended = Ended::Failed(failure, Retry::Resume(Some(Duration::MAX)));
    give(&mut engine, Input::TransferEnded(ended), 3);
    assert!(engine.wake_at().is_some());
}

/// Whoever calls a method may be the thread that would bring the answers to reports: what was in flight
/// holds nothing up.
#[test]
fn an_answer_that_waits_for_nothing_comes_after_its_own_first_report() {
    let mut config = config("iothub-dm", Restart::None, 0);
    config.policy.answer_wait = Duration::ZERO;
    let mut engine = Engine::new(config);
    boot(&mut engine, None, ImageState::Old);
    give(&mut engine, Input::Connected, 1);
    let twin = br#"{"desired": {"$version": 1}, "reported": {}}"#;
    let read = Input::Twin {
        complete: true,
        json: twin,
    };
    let reports = |outputs: &[Output]| {
        let mut reports = Vec::new();
        for output in outputs {
            if let Output::Report(report) = output {
                reports.push(report.clone());
            }
        }
        reports
    };
    let idle = reports(&give(&mut engine, read, 1));
    assert_eq!(idle.len(), 1, "what is so before any update");
    // Nothing of all this is acknowledged: before the last, more and more waits to be handed over.
    for second in 2..5 {
        let outputs = ask(&mut engine, second);
        let answered = outputs
            .iter()
            .position(|output| matches!(output, Output::Answer { status: 200, .. }))
            .expect("it waits for the answer to a report");
        let before = reports(outputs.get(..answered).unwrap());
        let last = before.last().expect("no report comes before it");
        let patch: serde_json::Value = serde_json::from_str(&last.patch).unwrap();
        let state = patch.pointer("/iothubDM/firmwareUpdate").unwrap();
        let time = format!("2027-01-15T08:00:0{second}.000Z");
        assert_eq!(state["startedWaitingTime"], time, "{patch}");
        assert_eq!(state["status"], "waiting", "the whole: {patch}");
        let failure = Failure::new(Code::HttpStatus, "404");
        let ended = Ended::Failed(failure, Retry::Never);
        give(&mut engine, Input::TransferEnded(ended), second);
        give(&mut engine, Input::Done(Step::Abort, Ok(())), second);
        assert!(engine.status().phase.is_none());
    }
}

/// A rollback that is reported done, but after which the new image runs again and again.
#[test]
fn a_rollback_without_effect_does_not_restart_for_ever() {
    for image in [ImageState::New, ImageState::Unknown] {
        let mut engine = Engine::new(config("iothub-dm", Restart::System, 0));
        boot(&mut engine, None, ImageState::Old);
        let mut record = last_saved(&ask(&mut engine, 1)).unwrap();
        if let Some(update) = &mut record.update {
            update.phase = Phase::RollingBack;
            update.boot_id = Some("0".into());
            update.reason = Some(Failure::new(Code::NotConfirmed, "it is no good"));
            update.checkpoint = Some(checkpoint(1000));
        }
        let mut restarts = 0;
        for start in 1..20 {
            let mut engine = Engine::new(config("iothub-dm", Restart::System, start));
            let mut outputs = boot(&mut engine, Some(&record), image);
            if outputs.contains(&Output::Install(Step::Rollback)) {
                outputs.extend(give(&mut engine, Input::Done(Step::Rollback, Ok(())), 1));
                outputs.extend(give(&mut engine, Input::Tick, 60));
            }
            record = last_saved(&outputs).unwrap_or(record);
            restarts += usize::from(outputs.contains(&Output::Restart));
            // The new one runs, and is told to: at once, and after each start.
            let ended = record.update.as_ref().unwrap().outcome.is_some();
            let running = engine.status().running_version;
            assert_eq!(running.as_deref(), ended.then_some("2"));
        }
        let update = record.update.unwrap();
        let outcome = update.outcome;
        println!("{image:?}: {restarts} restarts, {outcome:?}");
        assert!(restarts <= 3, "{restarts}");
        assert!(
            matches!(&outcome, Some(Outcome::Failed { failure, .. }) if failure.code == Code::RollbackFailed),
            "{outcome:?}"
        );
        // Its bytes are of no use to the next request, nor do they go with it.
        assert_eq!(update.checkpoint, None);
    }
}

/// Of 1000 bytes, so many are there.
fn checkpoint(offset: usize) -> Checkpoint {
    let mut checks = Checks::new();
    checks.update(&[7; 1000][..offset]);
    Checkpoint {
        packed: None,
        sealed: None,
        content: "https://host/new".into(),
        validator: None,
        total: Some(1000),
        offset: offset as u64,
        checks: checks.save(),
    }
}

/// The newest copy of the record, that the image was being applied, cannot be read; the one before it has
/// the checkpoint at the last byte. Fetched again, the image would take the place of the old one, too.
#[test]
fn the_new_image_runs_and_the_record_still_downloads_it() {
    let started = |change: &dyn Fn(&mut Update), image| {
        let mut engine = Engine::new(config("iothub-dm", Restart::System, 0));
        boot(&mut engine, None, ImageState::Old);
        ask(&mut engine, 1);
        let mut record = last_saved(&give(&mut engine, Input::Tick, 5)).unwrap();
        let update = record.update.as_mut().unwrap();
        assert_eq!(update.phase, Phase::Downloading);
        update.checkpoint = Some(checkpoint(1000));
        change(update);
        let mut engine = Engine::new(config("iothub-dm", Restart::System, 1));
        let mut outputs = boot(&mut engine, Some(&record), image);
        outputs.extend(give(&mut engine, Input::Tick, 60));
        (engine.status().phase, outputs)
    };
    let mut whole = Checks::new();
    whole.update(&[7; 1000]);
    let sha256 = whole.finish().sha256;
    let known_by_its_hash = |update: &mut Update| {
        update.request.checks = vec![Check::Sha256(sha256)];
        let checkpoint = update.checkpoint.as_mut().unwrap();
        checkpoint.content = update.request.content();
        checkpoint.total = None;
    };
    let changes: [&dyn Fn(&mut Update); 4] = [
        &|_| {},
        &|it| it.paused = true,
        &known_by_its_hash,
        // Held up before it was applied.
        &|it| {
            it.phase = Phase::Verifying;
            it.bytes = Some(1000);
            it.sha256 = Some(base16ct::lower::encode_string(&sha256));
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (phase, outputs) = started(change, ImageState::New);
        assert_eq!(phase, Some(Phase::Rebooting), "{n}");
        assert!(outputs.contains(&Output::Restart), "{n}: {outputs:?}");
        let update = last_saved(&outputs).unwrap().update.unwrap();
        let hex = base16ct::lower::encode_string(&sha256);
        assert_eq!((update.bytes, update.sha256), (Some(1000), Some(hex)));
        assert!(!update.paused && update.starts_allowed > 0, "{n}");
    }

    // Any other says nothing of this image: a new one may run since the update before.
    type Other = (fn(&mut Checkpoint), ImageState);
    let others: [Other; 10] = [
        (|_| {}, ImageState::Old),
        (|_| {}, ImageState::Partial),
        (|_| {}, ImageState::Unknown),
        (|it| *it = checkpoint(999), ImageState::New),
        (|it| it.offset = 999, ImageState::New),
        (|it| it.total = None, ImageState::New),
        (|it| it.packed = Some(1000), ImageState::New),
        (
            |it| {
                it.sealed = Some(Sealed {
                    header: 0,
                    key: String::new(),
                })
            },
            ImageState::New,
        ),
        (|it| it.content.push('2'), ImageState::New),
        (|it| it.checks.clear(), ImageState::New),
    ];
    for (n, (change, image)) in others.into_iter().enumerate() {
        let (phase, outputs) = started(&|it| change(it.checkpoint.as_mut().unwrap()), image);
        assert_eq!(phase, Some(Phase::Downloading), "{n}");
        assert_eq!(downloads(&outputs).len(), 1, "{n}");
    }
    let another = |update: &mut Update| {
        known_by_its_hash(update);
        update.request.checks = vec![Check::Sha256([1; 32])];
        update.checkpoint.as_mut().unwrap().content = update.request.content();
    };
    for change in [
        &|it: &mut Update| it.checkpoint = None,
        &another as &dyn Fn(&mut Update),
    ] {
        let (phase, outputs) = started(change, ImageState::New);
        assert_eq!(phase, Some(Phase::Downloading));
        assert_eq!(downloads(&outputs).len(), 1);
    }
}

/// Cancelled while it stops for another request: that one is run, and the cancelled one is not.
#[test]
fn a_cancel_is_not_forgotten() {
    let mut engine = Engine::new(config("configuration", Restart::None, 0));
    boot(&mut engine, None, ImageState::Old);
    let outputs = twin(&mut engine, 1, "a");
    assert_eq!(downloads(&outputs).len(), 1);
    let outputs = twin(&mut engine, 2, "b");
    assert!(outputs.contains(&Output::StopDownload));
    let outputs = give(&mut engine, Input::Cancel, 2);
    assert!(!outputs.contains(&Output::StopDownload), "{outputs:?}");
    assert_eq!(
        engine.status().outcome,
        Some(Outcome::Cancelled(Phase::Downloading))
    );
    // What the cancelled one's download still says is of no matter.
    let ended = Ended::Failed(Failure::new(Code::Network, "cut"), Retry::Never);
    give(&mut engine, Input::TransferEnded(ended), 4);
    let outputs = give(&mut engine, Input::Done(Step::Abort, Ok(())), 4);
    let jobs = downloads(&outputs);
    assert_eq!((jobs.len(), jobs[0].uri.as_str()), (1, "https://host/b"));
}

/// A reboot that is asked for, and does not come.
#[test]
fn a_restart_that_does_not_come_is_asked_for_again() {
    let mut engine = Engine::new(config("iothub-dm", Restart::System, 0));
    boot(&mut engine, None, ImageState::Old);
    let mut record = last_saved(&ask(&mut engine, 1)).unwrap();
    if let Some(update) = &mut record.update {
        update.phase = Phase::Rebooting;
        update.boot_id = Some("0".into());
    }
    let mut engine = Engine::new(config("iothub-dm", Restart::System, 0));
    let mut outputs = boot(&mut engine, Some(&record), ImageState::New);
    outputs.extend(give(&mut engine, Input::Tick, 10));
    let restarts = |outputs: &[Output]| outputs.iter().filter(|o| **o == Output::Restart).count();
    assert_eq!(restarts(&outputs), 1);
    assert_eq!(restarts(&give(&mut engine, Input::Tick, 500)), 0);
    assert!(engine.wake_at().is_some());
    assert_eq!(restarts(&give(&mut engine, Input::Tick, 700)), 1);
}

fn durable(content: &str, offset: u64) -> Input<'static> {
    Input::Transfer(Progress::Durable(Checkpoint {
        packed: None,
        sealed: None,
        content: content.to_owned(),
        validator: None,
        total: Some(1000),
        offset,
        checks: String::new(),
    }))
}

/// A fast download has more checkpoints a second than anybody wants to hear of.
#[test]
fn a_checkpoint_is_no_news_of_progress() {
    let mut engine = Engine::new(config("iothub-dm", Restart::None, 0));
    boot(&mut engine, None, ImageState::Old);
    ask(&mut engine, 1);
    let outputs = give(&mut engine, Input::Tick, 5);
    let told = |outputs: Vec<Output>| {
        let progress = |output: &Output| match output {
            Output::Event(Event::Progress { bytes, .. }) => Some(*bytes),
            _ => None,
        };
        outputs.iter().filter_map(progress).collect::<Vec<_>>()
    };
    let durable = durable(&downloads(&outputs)[0].content, 100);
    assert!(told(give(&mut engine, durable, 6)).is_empty());
    assert_eq!(engine.status().bytes, 100);
    let received = Input::Transfer(Progress::Received(150));
    assert_eq!(told(give(&mut engine, received, 6)), [150]);
}

/// Before a download starts over, what says that its first bytes are there is durably gone.
#[test]
fn a_checkpoint_goes_when_the_download_starts_from_zero() {
    let mut engine = Engine::new(config("iothub-dm", Restart::None, 0));
    boot(&mut engine, None, ImageState::Old);
    ask(&mut engine, 1);
    let outputs = give(&mut engine, Input::Tick, 5);
    let durable = durable(&downloads(&outputs)[0].content, 100);
    let record = last_saved(&give(&mut engine, durable, 6)).unwrap();
    assert!(record.update.unwrap().checkpoint.is_some());
    let outputs = give(&mut engine, Input::Transfer(Progress::StartingOver), 7);
    let must_be_saved = |output: &Output| match output {
        Output::Save {
            record,
            checkpoint: false,
        } => record.update.as_ref().unwrap().checkpoint.is_none(),
        _ => false,
    };
    assert!(outputs.iter().any(must_be_saved), "{outputs:?}");
    // With none, there is nothing to save.
    assert_eq!(
        give(&mut engine, Input::Transfer(Progress::StartingOver), 7),
        []
    );
}

/// What one request's image was compared with says nothing of the next request's.
#[test]
fn a_comparison_is_its_own_requests() {
    let record = Record {
        confirmed_sha256: Some("ab".repeat(32)),
        ..Record::default()
    };
    let mut engine = Engine::new(config("configuration", Restart::None, 0));
    boot(&mut engine, Some(&record), ImageState::Old);
    let twin = |number: u64, check: String| {
        json!({"desired": {"$version": number, "firmware": {
            "fwPackageURI": "https://host/a", "fwVersion": "2", "fwPackageCheckValue": check,
        }}, "reported": {}})
        .to_string()
    };
    let (installed, other) = (twin(1, "ab".repeat(32)), twin(2, "cd".repeat(32)));
    let read = |json: &'static str| Input::Twin {
        complete: true,
        json: json.as_bytes(),
    };
    let outputs = give(&mut engine, read(installed.leak()), 1);
    assert!(outputs.contains(&Output::Install(Step::Compare)));
    give(&mut engine, read(other.leak()), 2);
    let outputs = give(&mut engine, Input::Done(Step::Compare, Ok(())), 3);
    assert_eq!(engine.status().outcome, None);
    assert_eq!(downloads(&outputs).len(), 1);
}
