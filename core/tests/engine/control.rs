//! The update that runs, cancelled, paused, asked about; and what is wished for again.

use crate::corners::{ask, at, boot, config, downloads, give, last_saved, twin};
use serde_json::{Value, json};
use std::time::Duration;
use twinflash::{
    contract::Contract,
    engine::{CANCEL_METHOD, Engine, Event, Guard, Input, Output, STATUS_METHOD, Step, guard},
    update::{
        Checkpoint, Code, Confirm, Ended, Failure, ImageState, Outcome, Phase, Progress, Record,
        Restart, Retry,
    },
};

/// An engine with no record of anything.
fn new(contract: &str, restart: Restart) -> Engine {
    let mut engine = Engine::new(config(contract, restart, 0));
    boot(&mut engine, None, ImageState::Old);
    engine
}

/// Calls a method; what was saved before its answer, and the answer.
fn call(engine: &mut Engine, name: &str, seconds: u64) -> (Option<Record>, u16, Value) {
    let method = Input::Method {
        id: 77,
        name,
        payload: b"null",
    };
    let outputs = give(engine, method, seconds);
    let answered = |output: &Output| matches!(output, Output::Answer { id: 77, .. });
    let place = outputs.iter().position(answered).expect("no answer");
    let saved = last_saved(&outputs[..place]);
    match &outputs[place] {
        Output::Answer {
            status, payload, ..
        } => (saved, *status, serde_json::from_str(payload).unwrap()),
        _ => unreachable!(),
    }
}

fn network() -> Failure {
    Failure::new(Code::Network, "cannot download https://host/new: refused")
}

/// The attempt that runs fails.
fn fails(engine: &mut Engine, seconds: u64) -> Vec<Output> {
    let ended = Ended::Failed(network(), Retry::Resume(None));
    give(engine, Input::TransferEnded(ended), seconds)
}

/// Asked for, and its download runs.
fn downloading(contract: &str) -> Engine {
    let mut engine = new(contract, Restart::None);
    match contract {
        "configuration" | "devkit" => drop(twin(&mut engine, 1, "2")),
        _ => drop(ask(&mut engine, 1)),
    }
    give(&mut engine, Input::Tick, 5);
    assert_eq!(engine.status().phase, Some(Phase::Downloading));
    engine
}

#[test]
fn cancelled_by_a_method() {
    for contract in Contract::names().filter(|name| *name != "devkit") {
        let mut engine = new(contract, Restart::None);
        let nothing = (None, 200, json!({"cancelled": false}));
        assert_eq!(call(&mut engine, CANCEL_METHOD, 1), nothing);

        let mut engine = downloading(contract);
        let (saved, status, payload) = call(&mut engine, CANCEL_METHOD, 6);
        assert_eq!((status, payload), (200, json!({"cancelled": true})));
        let update = saved.expect("saved before it is answered").update;
        let cancelled = Outcome::Cancelled(Phase::Downloading);
        assert_eq!(update.unwrap().outcome, Some(cancelled));
        assert_eq!(call(&mut engine, CANCEL_METHOD, 7), nothing);
    }
}

#[test]
fn what_is_being_applied_is_not_cancelled() {
    for phase in [
        Phase::Applying,
        Phase::Rebooting,
        Phase::Confirming,
        Phase::RollingBack,
    ] {
        let mut record = last_saved(&ask(&mut new("iothub-dm", Restart::System), 1)).unwrap();
        record.update.as_mut().unwrap().phase = phase;
        record.update.as_mut().unwrap().boot_id = Some("0".into());
        let mut engine = Engine::new(config("iothub-dm", Restart::System, 0));
        boot(&mut engine, Some(&record), ImageState::New);
        let (saved, status, payload) = call(&mut engine, CANCEL_METHOD, 2);
        assert_eq!((saved, status), (None, 409), "{payload}");
        assert_eq!(payload["cancelled"], false);
        let message = payload["message"].as_str().unwrap();
        assert!(message.starts_with("the update can no longer be cancelled: it is "));
    }
}

#[test]
fn status_by_a_method() {
    let mut engine = new("node-direct-method", Restart::None);
    let (saved, status, payload) = call(&mut engine, STATUS_METHOD, 1);
    assert_eq!((saved, status), (None, 200));
    let nothing = json!({
        "phase": null, "version": null, "bytes": 0, "size": null, "outcome": null, "error": null,
        "retry": null, "paused": false, "waiting": null, "runningVersion": null,
    });
    assert_eq!(payload, nothing);

    let mut engine = downloading("node-direct-method");
    let started = Progress::Started {
        offset: 0,
        total: Some(1000),
    };
    give(&mut engine, Input::Transfer(started), 5);
    give(&mut engine, Input::Transfer(Progress::Received(250)), 5);
    let (_, _, payload) = call(&mut engine, STATUS_METHOD, 6);
    let expected = json!({
        "phase": "downloading", "version": "2", "bytes": 250, "size": 1000, "outcome": null, "error": null,
        "retry": null, "paused": false, "waiting": null, "runningVersion": null,
    });
    assert_eq!(payload, expected);

    let ended = Ended::Failed(network(), Retry::Never);
    give(&mut engine, Input::TransferEnded(ended), 7);
    let (_, _, payload) = call(&mut engine, STATUS_METHOD, 8);
    let error = json!({"code": "network", "message": network().message});
    assert_eq!(
        (&payload["phase"], &payload["outcome"], &payload["error"]),
        (&Value::Null, &json!("failed"), &error)
    );
}

#[test]
fn a_contracts_own_method_goes_before() {
    let json = r#"{"contract":"own","asked":{"methods":["cancelFirmwareUpdate"],"members":{"uri":"from"}},
        "check":"offered","version":"none","answers":{"started":"flashing"},
        "reported":{"always":{},"moments":{"idle":{},"waiting":{},"downloading":{},"applying":{},
        "completed":{"s":"good"},"failed":{"s":"bad"}}},"follow":{"status":"s","done":["good"],"failed":["bad"]}}"#;
    let mut config = config("iothub-dm", Restart::None, 0);
    config.contract = Contract::from_json(json.as_bytes()).unwrap();
    let mut engine = Engine::new(config);
    boot(&mut engine, None, ImageState::Old);
    let payload = br#"{"from":"https://host/new"}"#;
    let method = Input::Method {
        id: 1,
        name: "cancelFirmwareUpdate",
        payload,
    };
    give(&mut engine, method, 1);
    assert!(engine.status().phase.is_some());
}

/// The reason of the last failure, and the time of the next attempt.
#[test]
fn what_a_retry_waits_for_is_told() {
    let mut engine = downloading("iothub-dm");
    assert_eq!(engine.status().retry, None);
    let outputs = fails(&mut engine, 10);
    let after = outputs
        .iter()
        .find_map(|output| match output {
            Output::Event(Event::Retry { after, .. }) => Some(*after),
            _ => None,
        })
        .unwrap();
    let retry = engine.status().retry.unwrap();
    assert_eq!((retry.failure, retry.attempts), (network(), 1));
    assert_eq!(retry.after, Some(after));
    // Time goes by without an input.
    let mut later = at(10);
    later.monotonic += after / 2;
    let left = engine.status_at(later).retry.unwrap().after;
    assert_eq!(left, Some(after - after / 2));
    let (_, _, payload) = call(&mut engine, STATUS_METHOD, 10);
    assert_eq!(payload["retry"]["code"], "network");
    assert_eq!(payload["retry"]["attempts"], 1);
    assert!(payload["retry"]["afterSeconds"].as_f64().unwrap() > 0.0);

    // An attempt is made: none is waited for, and why it is made is still known until bytes come.
    let outputs = give(&mut engine, Input::Tick, 20);
    assert_eq!(downloads(&outputs).len(), 1);
    let retry = engine.status().retry.unwrap();
    assert_eq!((retry.failure, retry.after), (network(), None));
    give(&mut engine, Input::Transfer(Progress::Received(1)), 21);
    assert_eq!(engine.status().retry, None);
}

#[test]
fn resumed_while_it_waits_for_an_attempt_it_is_made_at_once() {
    let mut engine = downloading("iothub-dm");
    fails(&mut engine, 10);
    assert_eq!(downloads(&give(&mut engine, Input::Resume, 10)).len(), 1);
}

#[test]
fn a_pause_survives_a_restart_and_uses_up_no_budget() {
    let mut engine = downloading("iothub-dm");
    let started = Progress::Started {
        offset: 0,
        total: Some(1000),
    };
    give(&mut engine, Input::Transfer(started), 5);
    let outputs = give(&mut engine, Input::Tick, 6);
    assert!(downloads(&outputs).is_empty());
    let checkpoint = Checkpoint {
        packed: None,
        sealed: None,
        content: "https://host/new".into(),
        validator: None,
        total: Some(1000),
        offset: 400,
        checks: String::new(),
    };
    give(
        &mut engine,
        Input::Transfer(Progress::Durable(checkpoint)),
        7,
    );
    fails(&mut engine, 10);
    let outputs = give(&mut engine, Input::Pause, 10);
    let record = last_saved(&outputs).unwrap();
    let spent = record.update.as_ref().unwrap().spent;
    assert!(record.update.as_ref().unwrap().paused);
    // A day later, nothing has been tried and no budget used.
    let day = 24 * 3600;
    assert!(downloads(&give(&mut engine, Input::Tick, day)).is_empty());
    assert_eq!(
        downloads(&give(&mut engine, Input::Resume, 2 * day)).len(),
        1
    );
    let retried = last_saved(&fails(&mut engine, 2 * day + 1)).unwrap();
    let used = retried.update.unwrap().spent.millis - spent.millis;
    assert_eq!(used, 1000);

    let mut again = Engine::new(config("iothub-dm", Restart::None, 1));
    boot(&mut again, Some(&record), ImageState::Partial);
    assert!(downloads(&give(&mut again, Input::Tick, 50)).is_empty());
    let status = again.status();
    assert_eq!((status.paused, status.bytes), (true, 400));
    assert_eq!(status.size, Some(1000));
    assert_eq!(downloads(&give(&mut again, Input::Resume, 60)).len(), 1);
    give(&mut again, Input::Pause, 61);
    give(&mut again, Input::Cancel, 62);
    assert!(!again.status().paused, "nothing is left to be paused");
}

/// What is desired is asked for again by wishing for something else in between. A twin that is only
/// read again does not.
#[test]
fn back_to_what_was_desired_before_is_a_new_wish() {
    let mut engine = new("configuration", Restart::None);
    let mut fail = |version, image| {
        let outputs = twin(&mut engine, version, image);
        let started = downloads(&outputs).len();
        if started == 1 {
            let ended = Ended::Failed(network(), Retry::Never);
            give(&mut engine, Input::TransferEnded(ended), version);
            give(&mut engine, Input::Done(Step::Abort, Ok(())), version);
        }
        started
    };
    assert_eq!(fail(1, "a"), 1);
    assert_eq!(fail(1, "a"), 0, "read again");
    assert_eq!(fail(2, "a"), 0, "of another version, for something else");
    assert_eq!(fail(3, "b"), 1);
    assert_eq!(fail(4, "a"), 1);
    assert_eq!(fail(4, "a"), 0, "read again");
}

/// What is taken away and put back is not a new wish: who is not connected in between does not even
/// see it, and a configuration whose target condition wavers does it by itself.
#[test]
fn taken_away_and_put_back_is_no_new_wish() {
    let mut engine = new("configuration", Restart::None);
    assert_eq!(downloads(&twin(&mut engine, 1, "a")).len(), 1);
    let empty = json!({"desired": {"$version": 2}, "reported": {}}).to_string();
    let read = Input::Twin {
        complete: true,
        json: empty.as_bytes(),
    };
    give(&mut engine, read, 2);
    let cancelled = Some(Outcome::Cancelled(Phase::Downloading));
    assert_eq!(engine.status().outcome, cancelled);
    give(&mut engine, Input::Done(Step::Abort, Ok(())), 2);
    twin(&mut engine, 3, "a");
    assert_eq!(engine.status().outcome, cancelled);
}

/// An answer to a GET that was overtaken by a patch knows less than the patch.
#[test]
fn a_late_twin_is_read_again() {
    let mut engine = new("configuration", Restart::None);
    give(&mut engine, Input::Connected, 1);
    let patch = json!({"$version": 5, "firmware": {"fwVersion": "b"}}).to_string();
    let patch = Input::Twin {
        complete: false,
        json: patch.as_bytes(),
    };
    give(&mut engine, patch, 2);
    let outputs = twin(&mut engine, 4, "a");
    assert!(outputs.contains(&Output::ReadTwin), "{outputs:?}");
    let outputs = twin(&mut engine, 5, "b");
    assert!(!outputs.contains(&Output::ReadTwin), "{outputs:?}");
    give(&mut engine, Input::TransferEnded(Ended::Stopped), 5);
    assert_eq!(engine.status().version.as_deref(), Some("b"));
    // One that is older still is dropped.
    assert_eq!(twin(&mut engine, 3, "a"), []);
    assert_eq!(engine.status().version.as_deref(), Some("b"));
}

/// A hub that refuses to hand out the twin, or hands out none, is asked again: soon at first, then with
/// longer pauses, and never while it is not waited for.
#[test]
fn a_twin_that_is_refused_is_asked_for_again_soon() {
    let mut engine = new("configuration", Restart::None);
    give(&mut engine, Input::TwinFailed, 1);
    assert_eq!(engine.wake_at(), None);
    let outputs = give(&mut engine, Input::Connected, 1);
    assert!(outputs.contains(&Output::ReadTwin), "{outputs:?}");
    let garbled = Input::Twin {
        complete: true,
        json: b"[]",
    };
    let mut at = 1;
    for (refusal, longest) in [
        (Input::TwinFailed, 2),
        (garbled, 2),
        (Input::TwinFailed, 4),
        (Input::TwinFailed, 8),
    ] {
        give(&mut engine, refusal, at);
        let early = give(&mut engine, Input::Tick, at + longest / 2 - 1);
        assert!(!early.contains(&Output::ReadTwin), "{early:?}");
        at += longest;
        let outputs = give(&mut engine, Input::Tick, at);
        assert!(outputs.contains(&Output::ReadTwin), "{outputs:?}");
    }
    twin(&mut engine, 1, "a");
    give(&mut engine, Input::TransferEnded(Ended::Stopped), at);
    give(&mut engine, Input::TwinFailed, at);
    let outputs = give(&mut engine, Input::Tick, at + 90);
    assert!(!outputs.contains(&Output::ReadTwin), "{outputs:?}");
}

/// A rollback that fails ends the update; what is desired by then is looked at.
#[test]
fn after_a_failed_rollback_what_is_desired_is_started() {
    let mut engine = downloading("configuration");
    let mut record = last_saved(&give(&mut engine, Input::Pause, 6)).unwrap();
    let update = record.update.as_mut().unwrap();
    (update.phase, update.paused) = (Phase::RollingBack, false);
    update.reason = Some(Failure::new(Code::NotConfirmed, "it is no good"));
    let mut engine = Engine::new(config("configuration", Restart::None, 1));
    let outputs = boot(&mut engine, Some(&record), ImageState::New);
    assert!(outputs.contains(&Output::Install(Step::Rollback)));
    assert!(downloads(&twin(&mut engine, 2, "newer")).is_empty());
    let broken = || Err(Failure::new(Code::Storage, "it is broken"));
    for _ in 0..2 {
        let outputs = give(&mut engine, Input::Done(Step::Rollback, broken()), 2);
        assert!(outputs.contains(&Output::Install(Step::Rollback)));
    }
    let outputs = give(&mut engine, Input::Done(Step::Rollback, broken()), 2);
    assert_eq!(downloads(&outputs).len(), 1, "{outputs:?}");
    assert_eq!(engine.status().version.as_deref(), Some("newer"));
}

/// A start is counted once: by the guard, or by the engine where there is no guard.
#[test]
fn a_start_the_guard_has_counted_is_counted_once() {
    for guarded in [true, false] {
        let mut record = last_saved(&ask(&mut new("iothub-dm", Restart::Exit), 1)).unwrap();
        let update = record.update.as_mut().unwrap();
        (update.phase, update.starts_allowed) = (Phase::Rebooting, 3);
        update.boot_id = Some("0".into());
        for start in 1..=3 {
            if guarded {
                assert_eq!(guard(&mut record, ImageState::New), Guard::Counted);
            }
            let mut policy = config("iothub-dm", Restart::Exit, start);
            policy.policy.confirm = Confirm::Call;
            let mut engine = Engine::new(policy);
            let outputs = boot(&mut engine, Some(&record), ImageState::New);
            record = last_saved(&outputs).unwrap();
            assert_eq!(record.core.attempts, start, "guarded: {guarded}");
            assert_eq!(engine.status().phase, Some(Phase::Confirming));
        }
        if guarded {
            assert_eq!(guard(&mut record, ImageState::New), Guard::RollBack);
        }
        let mut engine = Engine::new(config("iothub-dm", Restart::Exit, 4));
        boot(&mut engine, Some(&record), ImageState::New);
        assert_eq!(engine.status().phase, Some(Phase::RollingBack));
    }
}

/// A command that restarts and ends this very process before it is known to have been started is run
/// again, but not for ever.
#[test]
fn a_command_that_ends_the_process_at_once_is_not_run_for_ever() {
    let restart = Restart::Command(vec!["restart".into()]);
    let mut record = last_saved(&ask(&mut new("iothub-dm", restart.clone()), 1)).unwrap();
    record.update.as_mut().unwrap().phase = Phase::Rebooting;
    let mut restarts = 0;
    for start in 1..=4 {
        let mut engine = Engine::new(config("iothub-dm", restart.clone(), start));
        let mut outputs = boot(&mut engine, Some(&record), ImageState::New);
        outputs.extend(give(&mut engine, Input::Tick, 10));
        // It ends there, and its last save is there.
        record = last_saved(&outputs).unwrap();
        restarts += outputs.iter().filter(|o| **o == Output::Restart).count();
    }
    assert_eq!(restarts, 3);
    assert_eq!(record.update.unwrap().phase, Phase::Confirming);
}

/// Once it is known to have been started, it is not run again.
#[test]
fn a_command_that_was_started_is_not_run_again() {
    let restart = Restart::Command(vec!["restart".into()]);
    let mut record = last_saved(&ask(&mut new("iothub-dm", restart.clone()), 1)).unwrap();
    record.update.as_mut().unwrap().phase = Phase::Rebooting;
    let mut engine = Engine::new(config("iothub-dm", restart.clone(), 1));
    let outputs = boot(&mut engine, Some(&record), ImageState::New);
    assert!(outputs.contains(&Output::Restart));
    record = last_saved(&give(&mut engine, Input::Restarting, 10)).unwrap();
    let mut engine = Engine::new(config("iothub-dm", restart, 2));
    let mut outputs = boot(&mut engine, Some(&record), ImageState::New);
    outputs.extend(give(&mut engine, Input::Tick, 10));
    assert!(!outputs.contains(&Output::Restart), "{outputs:?}");
    assert_eq!(engine.status().phase, Some(Phase::Confirming));
}

fn reports(outputs: &[Output]) -> Vec<Value> {
    let patch = |output: &Output| match output {
        Output::Report(report) => serde_json::from_str(&report.patch).ok(),
        _ => None,
    };
    outputs.iter().filter_map(patch).collect()
}

/// A success that cannot be saved is not told before it can; a failure is.
#[test]
fn a_success_is_reported_once_it_is_durable() {
    let status = |outputs: &[Output]| {
        let reports = reports(outputs);
        reports
            .last()
            .map(|r| r["iothubDM"]["firmwareUpdate"]["status"].clone())
    };
    for result in [Ok(()), Err(Failure::new(Code::Storage, "it is broken"))] {
        let mut record = last_saved(&ask(&mut new("iothub-dm", Restart::None), 1)).unwrap();
        record.update.as_mut().unwrap().phase = Phase::Applying;
        let mut policy = config("iothub-dm", Restart::None, 1);
        policy.policy.confirm = Confirm::None;
        let mut engine = Engine::new(policy);
        boot(&mut engine, Some(&record), ImageState::Partial);
        give(&mut engine, Input::Connected, 1);
        let json = json!({"desired": {"$version": 1}, "reported": {}}).to_string();
        let read = Input::Twin {
            complete: true,
            json: json.as_bytes(),
        };
        let accept = |engine: &mut Engine, outputs: Vec<Output>, seconds| {
            let mut outputs = outputs;
            let mut all = outputs.clone();
            while let Some(id) = outputs.iter().find_map(|output| match output {
                Output::Report(report) => Some(report.id),
                _ => None,
            }) {
                outputs = give(engine, Input::ReportDone { id, status: 204 }, seconds);
                all.extend(outputs.clone());
            }
            all
        };
        let outputs = give(&mut engine, read, 1);
        accept(&mut engine, outputs, 1);
        give(&mut engine, Input::Done(Step::Finish, Ok(())), 2);
        let success = result.is_ok();
        let outputs = match result {
            Ok(()) => {
                let outputs = give(&mut engine, Input::Done(Step::Activate, Ok(())), 2);
                accept(&mut engine, outputs, 2);
                give(&mut engine, Input::Done(Step::Confirm, Ok(())), 3)
            }
            Err(failure) => {
                give(&mut engine, Input::Done(Step::Activate, Err(failure)), 2);
                give(&mut engine, Input::Done(Step::Rollback, Ok(())), 3)
            }
        };
        // The save fails; what was to come after it is not performed, the report among it.
        assert!(last_saved(&outputs).is_some());
        let full = || Failure::new(Code::NoSpace, "disk full");
        let outputs = give(&mut engine, Input::SaveFailed(full()), 3);
        assert_eq!(engine.save_failure(), Some(full()));
        let told = accept(&mut engine, outputs, 3);
        if !success {
            assert_eq!(status(&told), Some(json!("applyFailed")));
            continue;
        }
        assert_eq!(status(&told), None, "{told:?}");
        assert_eq!(status(&give(&mut engine, Input::Tick, 5)), None);
        let outputs = give(&mut engine, Input::Tick, 9);
        let place = |find: fn(&Output) -> bool| outputs.iter().position(find).unwrap();
        let saved = place(|o| matches!(o, Output::Save { .. }));
        assert!(saved < place(|o| matches!(o, Output::Report(_))));
        assert_eq!(status(&outputs), Some(json!("applyComplete")));
        assert_eq!(engine.save_failure(), None);
    }
}

/// Saves fail for hours: nobody is woken but for the next try.
#[test]
fn an_unsaved_success_waits_for_its_save() {
    let mut engine = downloading("iothub-dm");
    give(&mut engine, Input::Cancel, 6);
    give(&mut engine, Input::SaveFailed(network()), 6);
    assert!(engine.wake_at().unwrap() > Duration::from_secs(6));
}
