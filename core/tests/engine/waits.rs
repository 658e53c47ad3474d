//! What holds an update up: its user and the device.

mod local;
mod time;

use crate::corners::{ask, boot, config, downloads, give, last_saved, twin};
use serde_json::{Value, json};
use std::time::Duration;
use twinflash::{
    engine::{
        APPROVE_METHOD, Ask, Calendar, DEFER_METHOD, Engine, Event, Input, Now, Opening, Output,
        Question, Reply, STATUS_METHOD, Step, Wait, Waiting,
    },
    update::{
        Checkpoint, Checks, Code, ConsentBy, Ended, Failure, ImageState, LocalImage, Outcome,
        Phase, Policy, Progress, Ready, Record, Restart, Stage, VersionRule,
    },
};

const WALL: u64 = 1_800_000_000_000;
const IMAGE: &[u8] = b"the new image";

fn new(policy: impl FnOnce(&mut Policy)) -> Engine {
    with("iothub-dm", 7, policy)
}

fn with(contract: &str, seed: u64, policy: impl FnOnce(&mut Policy)) -> Engine {
    let mut config = config(contract, Restart::None, 0);
    config.seed = seed;
    policy(&mut config.policy);
    Engine::new(config)
}

fn consent(stages: &[Stage]) -> impl FnOnce(&mut Policy) {
    let stages = stages.to_vec();
    |policy| policy.consent = stages
}

/// Asked for, and its answer out; what came of it. The hub is away after it: with its timers.
fn asked(engine: &mut Engine) -> Vec<Output> {
    let mut outputs = boot(engine, None, ImageState::Old);
    outputs.extend(ask(engine, 1));
    outputs.extend(give(engine, Input::Tick, 5));
    give(engine, Input::Disconnected, 5);
    outputs
}

/// The whole image has come.
fn arrives(engine: &mut Engine, seconds: u64) -> Vec<Output> {
    let mut checks = Checks::new();
    checks.update(IMAGE);
    let checkpoint = Checkpoint {
        packed: None,
        sealed: None,
        content: "https://host/new".into(),
        validator: Some("\"1\"".into()),
        total: Some(IMAGE.len() as u64),
        offset: IMAGE.len() as u64,
        checks: checks.save(),
    };
    let durable = Input::Transfer(Progress::Durable(checkpoint));
    let mut outputs = give(engine, durable, seconds);
    let complete = Ended::Complete {
        bytes: checks.bytes(),
        digests: checks.finish(),
    };
    outputs.extend(give(engine, Input::TransferEnded(complete), seconds));
    outputs
}

fn waits_for(engine: &Engine) -> Option<(Wait, Stage)> {
    let waiting = engine.status().waiting;
    waiting.map(|waiting| (waiting.on, waiting.before))
}

fn told(outputs: &[Output]) -> Vec<(Wait, Stage)> {
    let mut told = Vec::new();
    for output in outputs {
        if let Output::Event(Event::Waiting(Waiting { on, before, .. })) = output {
            told.push((*on, *before));
        }
    }
    told
}

fn questions(outputs: &[Output]) -> Vec<&Ask> {
    let mut asked = Vec::new();
    for output in outputs {
        if let Output::Ask(ask) = output {
            asked.push(ask);
        }
    }
    asked
}

fn applies(outputs: &[Output]) -> bool {
    outputs.contains(&Output::Install(Step::Finish))
}

/// Calls a method; its answer, and what was saved before it.
fn call(
    engine: &mut Engine,
    name: &str,
    payload: &[u8],
    seconds: u64,
) -> (u16, Value, Option<Record>) {
    let id = 77;
    let outputs = give(engine, Input::Method { id, name, payload }, seconds);
    let answered = |output: &Output| matches!(output, Output::Answer { id: 77, .. });
    let place = outputs.iter().position(answered).expect("no answer");
    let Output::Answer {
        status, payload, ..
    } = &outputs[place]
    else {
        unreachable!()
    };
    let saved = last_saved(&outputs[..place]);
    (*status, serde_json::from_str(payload).unwrap(), saved)
}

/// Another start of the device, at this second of the wall clock; `None` is 1970.
fn again(
    policy: impl FnOnce(&mut Policy),
    record: &Record,
    wall: Option<u64>,
) -> (Engine, Vec<Output>) {
    let mut engine = new(policy);
    let stored = twinflash::engine::Stored::Record(record.to_json());
    let image = ImageState::Partial;
    let now = Now {
        monotonic: Duration::ZERO,
        wall: Some(wall.map_or(0, |seconds| WALL + seconds * 1000)),
    };
    engine.handle(Input::Boot { stored, image }, now);
    let outputs = std::iter::from_fn(|| engine.poll()).collect();
    (engine, outputs)
}

#[test]
fn nothing_is_downloaded_before_the_user_agrees() {
    let mut engine = new(consent(&[Stage::Download]));
    let outputs = asked(&mut engine);
    assert!(downloads(&outputs).is_empty());
    assert_eq!(told(&outputs), [(Wait::Consent, Stage::Download)]);
    assert_eq!(engine.status().phase, Some(Phase::Waiting));
    assert_eq!(engine.wake_at(), None, "nobody knows when the user comes");
    // Told once, however often it is looked.
    assert!(told(&give(&mut engine, Input::Tick, 50)).is_empty());
    let outputs = give(&mut engine, Input::Approve, 60);
    assert_eq!(downloads(&outputs).len(), 1);
    assert_eq!(engine.status().waiting, None);
    // The other stage was not asked for.
    assert!(applies(&arrives(&mut engine, 61)));
}

#[test]
fn agreed_to_before_it_is_applied_and_over_restarts() {
    let both = || consent(&[Stage::Download, Stage::Apply]);
    let mut engine = new(both());
    asked(&mut engine);
    give(&mut engine, Input::Approve, 6);
    assert_eq!(engine.asks_consent(), None, "the download runs");
    let outputs = arrives(&mut engine, 7);
    assert!(!applies(&outputs));
    assert_eq!(told(&outputs), [(Wait::Consent, Stage::Apply)]);
    assert_eq!(engine.status().phase, Some(Phase::Verifying));
    let record = last_saved(&outputs).unwrap();

    // A restart asks again, and fetches nothing again.
    let (mut engine, outputs) = again(both(), &record, Some(100));
    assert_eq!(told(&outputs), [(Wait::Consent, Stage::Apply)]);
    let status = engine.status();
    assert_eq!((status.phase, status.bytes), (Some(Phase::Verifying), 13));
    let outputs = give(&mut engine, Input::Approve, 101);
    assert!(downloads(&outputs).is_empty() && applies(&outputs));
    // What was agreed to is agreed to after a crash.
    let saved = |outputs: &[Output]| {
        outputs
            .iter()
            .find_map(|o| last_saved(std::slice::from_ref(o)))
    };
    let (_, outputs) = again(both(), &saved(&outputs).unwrap(), Some(200));
    assert!(applies(&outputs), "{outputs:?}");
}

#[test]
fn waiting_to_be_applied_it_can_be_cancelled_and_superseded() {
    let mut engine = new(consent(&[Stage::Apply]));
    asked(&mut engine);
    arrives(&mut engine, 7);
    let (status, payload, saved) = call(&mut engine, "cancelFirmwareUpdate", b"null", 8);
    assert_eq!((status, payload), (200, json!({"cancelled": true})));
    let outcome = saved.unwrap().update.unwrap().outcome;
    assert_eq!(outcome, Some(Outcome::Cancelled(Phase::Verifying)));

    let mut engine = with("configuration", 7, consent(&[Stage::Download]));
    boot(&mut engine, None, ImageState::Old);
    twin(&mut engine, 1, "2");
    give(&mut engine, Input::Approve, 5);
    assert_eq!(engine.asks_consent(), None);
    let outputs = twin(&mut engine, 6, "3");
    assert!(outputs.contains(&Output::StopDownload));
    give(&mut engine, Input::TransferEnded(Ended::Stopped), 7);
    let (version, asks) = (engine.status().version, engine.asks_consent());
    assert_eq!(
        (version.as_deref(), asks),
        (Some("3"), Some(Stage::Download))
    );
}

#[test]
fn by_methods() {
    let mut engine = new(consent(&[Stage::Download]));
    boot(&mut engine, None, ImageState::Old);
    for (name, member) in [(APPROVE_METHOD, "approved"), (DEFER_METHOD, "deferred")] {
        let (status, payload, saved) = call(&mut engine, name, br#"{"seconds":1}"#, 1);
        let nothing = (200, json!({ member: false }), None);
        assert_eq!((status, payload, saved), nothing);
    }
    ask(&mut engine, 1);
    give(&mut engine, Input::Tick, 5);
    for payload in [
        "",
        "null",
        "{}",
        r#"{"seconds":0}"#,
        r#"{"seconds":-1}"#,
        r#"{"seconds":"1"}"#,
    ] {
        let (status, answer, saved) = call(&mut engine, DEFER_METHOD, payload.as_bytes(), 6);
        assert_eq!((status, saved), (400, None), "{payload}: {answer}");
        assert_eq!(answer["deferred"], false);
    }
    let (status, payload, saved) = call(&mut engine, DEFER_METHOD, br#"{"seconds":3600.5}"#, 10);
    assert_eq!((status, payload), (200, json!({"deferred": true})));
    let timer = saved.unwrap().update.unwrap().deferred.unwrap();
    assert_eq!(
        (timer.millis, timer.until),
        (3_600_500, Some(WALL + 3_610_500))
    );
    let (_, status, _) = call(&mut engine, STATUS_METHOD, b"", 20);
    let waiting = json!({"for": "deferral", "before": "download", "afterSeconds": 3590.5, "until": "2027-01-15T09:00:10.500Z"});
    assert_eq!(status["waiting"], waiting);
    give(&mut engine, Input::Disconnected, 20);
    assert_eq!(engine.wake_at(), Some(Duration::from_millis(3_610_500)));
    // Asked anew then; and who agrees before that need not wait.
    let outputs = give(&mut engine, Input::Tick, 3611);
    assert_eq!(told(&outputs), [(Wait::Consent, Stage::Download)]);
    give(&mut engine, Input::Defer(Duration::from_secs(60)), 3612);
    let (status, payload, saved) = call(&mut engine, APPROVE_METHOD, b"", 3613);
    assert_eq!((status, payload), (200, json!({"approved": true})));
    assert_eq!(
        saved.unwrap().update.unwrap().approved,
        Some(Stage::Download)
    );
    assert_eq!(engine.status().phase, Some(Phase::Downloading));
    let (_, payload, _) = call(&mut engine, APPROVE_METHOD, b"", 3614);
    assert_eq!(payload, json!({"approved": false}));
    // Too late.
    arrives(&mut engine, 3615);
    let (status, payload, _) = call(&mut engine, DEFER_METHOD, br#"{"seconds":1}"#, 3616);
    assert_eq!((status, &payload["deferred"]), (409, &json!(false)));
}

/// Where the owner wants the user at the device to agree, no method does it for him.
#[test]
fn by_nobody_but_the_user() {
    for stage in [Stage::Download, Stage::Apply] {
        let mut engine = new(|policy| {
            consent(&[stage])(policy);
            policy.consent_by = ConsentBy::Local;
        });
        boot(&mut engine, None, ImageState::Old);
        ask(&mut engine, 1);
        give(&mut engine, Input::Tick, 5);
        if stage == Stage::Apply {
            arrives(&mut engine, 5);
        }
        let (status, payload, saved) = call(&mut engine, APPROVE_METHOD, b"", 6);
        assert_eq!((status, saved), (403, None), "{payload}");
        assert_eq!(payload["approved"], false);
        assert_eq!(waits_for(&engine), Some((Wait::Consent, stage)));
        give(&mut engine, Input::Approve, 7);
        assert_eq!(waits_for(&engine), None);
    }
}

#[test]
fn a_command_is_asked_for_consent() {
    let by_command = |policy: &mut Policy| {
        policy.consent = vec![Stage::Download];
        policy.consent_command = vec!["ask".into()];
    };
    let reply =
        |engine: &mut Engine, id, reply, seconds| give(engine, Input::Reply { id, reply }, seconds);
    let mut engine = new(by_command);
    let outputs = asked(&mut engine);
    let asked_for = questions(&outputs);
    let expected = Ask {
        id: 1,
        question: Question::Consent,
        stage: Stage::Download,
        version: Some("2".into()),
        size: None,
    };
    assert_eq!(asked_for, [&expected]);
    // Later, in the policy's time; in its own.
    reply(&mut engine, 1, Reply::Later(None), 10);
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(3610)));
    let outputs = give(&mut engine, Input::Tick, 3610);
    let again = questions(&outputs)[0].id;
    assert_eq!(again, 2);
    reply(
        &mut engine,
        2,
        Reply::Later(Some(Duration::from_secs(9))),
        3611,
    );
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(3620)));
    // In between somebody agrees by hand.
    assert_eq!(downloads(&give(&mut engine, Input::Approve, 3612)).len(), 1);

    // An answer to an update of before is none to this one.
    let mut engine = new(by_command);
    asked(&mut engine);
    give(&mut engine, Input::Cancel, 6);
    give(&mut engine, Input::Done(Step::Abort, Ok(())), 7);
    ask(&mut engine, 10);
    let outputs = give(&mut engine, Input::Tick, 15);
    assert_eq!(questions(&outputs)[0].id, 2);
    assert!(downloads(&reply(&mut engine, 1, Reply::Yes, 16)).is_empty());
    reply(&mut engine, 1, Reply::No, 16);
    assert_eq!(engine.status().phase, Some(Phase::Waiting));
    reply(&mut engine, 2, Reply::No, 17);
    let outcome = engine.status().outcome;
    assert_eq!(outcome, Some(Outcome::Cancelled(Phase::Waiting)));
}

#[test]
fn the_device_is_asked_before_each_attempt() {
    let mut engine = new(|policy| policy.ready = Ready::Call);
    let outputs = asked(&mut engine);
    assert_eq!(questions(&outputs)[0].question, Question::Ready);
    assert_eq!(told(&outputs), [(Wait::Ready, Stage::Download)]);
    let (id, reply) = (1, Reply::Later(None));
    give(&mut engine, Input::Reply { id, reply }, 10);
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(310)));
    assert_eq!(questions(&give(&mut engine, Input::Tick, 310)).len(), 1);
    // Paused while it is asked: what was said then is not true for ever.
    give(&mut engine, Input::Pause, 311);
    let (id, reply) = (2, Reply::Yes);
    assert!(downloads(&give(&mut engine, Input::Reply { id, reply }, 312)).is_empty());
    assert_eq!(engine.status().waiting, None, "it is paused");
    let outputs = give(&mut engine, Input::Resume, 10_000);
    assert_eq!(questions(&outputs).len(), 1);
    let (id, reply) = (3, Reply::Yes);
    let outputs = give(&mut engine, Input::Reply { id, reply }, 10_001);
    assert_eq!(downloads(&outputs).len(), 1);
    // An attempt that fails, and the next.
    let failure = Failure::new(Code::Network, "cut");
    let ended = Ended::Failed(failure, twinflash::update::Retry::Resume(None));
    give(&mut engine, Input::TransferEnded(ended), 10_002);
    let outputs = give(&mut engine, Input::Tick, 10_010);
    assert_eq!(questions(&outputs).len(), 1);
    // It refuses nothing.
    let (id, reply) = (4, Reply::No);
    give(&mut engine, Input::Reply { id, reply }, 10_011);
    assert_eq!(waits_for(&engine), Some((Wait::Ready, Stage::Download)));
}

#[test]
fn a_dry_run_ends_before_it_is_applied() {
    let mut engine = new(|policy| policy.dry_run = true);
    let outputs = asked(&mut engine);
    assert!(downloads(&outputs)[0].dry_run);
    let outputs = arrives(&mut engine, 7);
    assert!(!applies(&outputs));
    let Some(Outcome::Failed { phase, failure }) = engine.status().outcome else {
        panic!("{:?}", engine.status());
    };
    assert_eq!((phase, failure.code), (Phase::Verifying, Code::DryRun));
    assert!(failure.message.contains("13 bytes"), "{failure}");
    // One that waited to be applied, and then the policy is another.
    let mut engine = new(consent(&[Stage::Apply]));
    asked(&mut engine);
    let record = last_saved(&arrives(&mut engine, 7)).unwrap();
    let (engine, outputs) = again(|policy| policy.dry_run = true, &record, Some(10));
    assert!(!applies(&outputs));
    assert!(outputs.contains(&Output::Install(Step::Abort)));
    assert_eq!(engine.status().outcome.unwrap().as_str(), "failed");
}
