//! What time lifts: deferral, a delayed start, windows.

use super::*;

/// Open from one time to another, in seconds of the wall clock, for downloads or for all.
#[derive(Debug)]
pub(super) struct One(pub(super) u64, pub(super) u64, pub(super) Option<Stage>);

impl Calendar for One {
    fn at(&self, stage: Stage, wall: Option<u64>) -> Opening {
        if self.2.is_some_and(|only| only != stage) {
            return Opening::Open { until: None };
        }
        let (from, to) = (WALL + self.0 * 1000, WALL + self.1 * 1000);
        match wall {
            Some(wall) if wall < from => Opening::Closed { until: Some(from) },
            Some(wall) if wall < to => Opening::Open { until: Some(to) },
            _ => Opening::Closed { until: None },
        }
    }
}

#[test]
fn a_deferral_survives_restarts_and_clocks() {
    let mut engine = new(|_| {});
    boot(&mut engine, None, ImageState::Old);
    ask(&mut engine, 1);
    let outputs = give(&mut engine, Input::Defer(Duration::from_secs(1000)), 2);
    let record = last_saved(&outputs).unwrap();
    for (wall, left) in [
        (Some(602), 400),
        (Some(2000), 0),
        // A clock that was set back does not make it longer; and without one nobody knows.
        (Some(2), 1000),
        (None, 1000),
    ] {
        let (mut engine, outputs) = again(|_| {}, &record, wall);
        assert_eq!(
            downloads(&outputs).len(),
            usize::from(left == 0),
            "{wall:?}"
        );
        if left > 0 {
            assert_eq!(waits_for(&engine), Some((Wait::Deferral, Stage::Download)));
            assert_eq!(engine.wake_at(), Some(Duration::from_secs(left)));
        }
        if wall.is_none() {
            // The clock is set: most of it had passed.
            let now = Now {
                monotonic: Duration::from_secs(10),
                wall: Some(WALL + 990_000),
            };
            engine.handle(Input::ClockSet, now);
            assert_eq!(engine.wake_at(), Some(Duration::from_secs(22)));
        }
    }
    // During a download it is for what comes after it.
    let mut engine = new(|_| {});
    asked(&mut engine);
    give(&mut engine, Input::Defer(Duration::from_secs(1000)), 6);
    assert!(!applies(&arrives(&mut engine, 7)));
    assert_eq!(waits_for(&engine), Some((Wait::Deferral, Stage::Apply)));
    assert!(applies(&give(&mut engine, Input::Tick, 1006)));
}

#[test]
fn a_start_is_delayed_once() {
    let delayed = |policy: &mut Policy| policy.start_delay = Duration::from_secs(1000);
    let mut delays = Vec::new();
    for seed in 0..50 {
        let mut engine = with("iothub-dm", seed, delayed);
        let record = last_saved(&asked(&mut engine)).unwrap();
        let delay = record.update.as_ref().unwrap().start_delay.unwrap();
        assert!(delay.millis <= 1_000_000);
        delays.push(delay.millis);
        if delay.millis < 6000 {
            continue;
        }
        assert_eq!(
            waits_for(&engine),
            Some((Wait::StartDelay, Stage::Download))
        );
        let due = Duration::from_millis(1000 + delay.millis);
        assert_eq!(engine.wake_at(), Some(due));
        // After a restart it is what is left of the same one.
        let (engine, _) = again(delayed, &record, Some(5));
        let left = Duration::from_millis(delay.millis - 4000);
        assert_eq!(engine.wake_at(), Some(left));
    }
    // Anywhere in the time.
    let mean = delays.iter().sum::<u64>() / 50;
    assert!((350_000..650_000).contains(&mean), "{delays:?}");
    delays.dedup();
    assert_eq!(delays.len(), 50);
}

#[test]
fn a_window_opens_and_closes() {
    let mut engine = new(|_| {});
    engine.set_calendar(One(100, 200, None));
    let outputs = asked(&mut engine);
    assert_eq!(told(&outputs), [(Wait::Window, Stage::Download)]);
    assert_eq!(engine.status().waiting.unwrap().until, Some(WALL + 100_000));
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(100)));
    assert!(downloads(&give(&mut engine, Input::Tick, 99)).is_empty());
    assert_eq!(downloads(&give(&mut engine, Input::Tick, 100)).len(), 1);
    assert_eq!(
        engine.wake_at(),
        Some(Duration::from_secs(200)),
        "it closes"
    );
    let received = Progress::Received(5);
    assert!(!give(&mut engine, Input::Transfer(received), 199).contains(&Output::StopDownload));
    let outputs = give(&mut engine, Input::Tick, 200);
    assert!(outputs.contains(&Output::StopDownload));
    let failure = Failure::new(Code::Network, "cut");
    let ended = Ended::Failed(failure, twinflash::update::Retry::Never);
    give(&mut engine, Input::TransferEnded(ended), 200);
    assert_eq!(
        engine.status().phase,
        Some(Phase::Downloading),
        "it has not failed"
    );
    assert_eq!(waits_for(&engine), Some((Wait::Clock, Stage::Download)));

    // Of a window for what comes after the download the download knows nothing.
    let mut engine = new(|_| {});
    engine.set_calendar(One(100, 200, Some(Stage::Apply)));
    assert_eq!(downloads(&asked(&mut engine)).len(), 1);
    assert!(!applies(&arrives(&mut engine, 10)));
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(100)));
    assert!(applies(&give(&mut engine, Input::Tick, 100)));
    // What has begun is not stopped.
    let outputs = give(&mut engine, Input::Done(Step::Finish, Ok(())), 201);
    assert!(outputs.contains(&Output::Install(Step::Activate)));
}

#[test]
fn a_clock_that_jumps_moves_the_windows() {
    let now = |monotonic, wall: Option<u64>| Now {
        monotonic: Duration::from_secs(monotonic),
        wall: Some(wall.map_or(0, |seconds| WALL + seconds * 1000)),
    };
    let mut engine = new(|_| {});
    engine.set_calendar(One(100_000, 200_000, None));
    asked(&mut engine);
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(100_000)));
    // Forward, and back again.
    engine.handle(Input::ClockSet, now(10, Some(99_000)));
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(1010)));
    engine.handle(Input::ClockSet, now(20, Some(50_000)));
    assert_eq!(engine.wake_at(), Some(Duration::from_secs(50_020)));
    // Into the window, and out of it.
    engine.handle(Input::ClockSet, now(30, Some(150_000)));
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert_eq!(downloads(&outputs).len(), 1);
    engine.handle(Input::ClockSet, now(40, Some(250_000)));
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert!(outputs.contains(&Output::StopDownload));
    // A clock that cannot be believed: closed.
    let mut engine = new(|_| {});
    engine.set_calendar(One(0, 200_000, None));
    engine.handle(
        Input::Boot {
            stored: twinflash::engine::Stored::Empty,
            image: ImageState::Old,
        },
        now(0, None),
    );
    let payload = br#"{"fwPackageUri":"https://host/new","fwVersion":"2"}"#;
    let (id, name) = (1, "firmwareUpdate");
    engine.handle(Input::Method { id, name, payload }, now(1, None));
    engine.handle(Input::Tick, now(5, None));
    assert_eq!(waits_for(&engine), Some((Wait::Clock, Stage::Download)));
    let waiting = engine.status().waiting.unwrap();
    assert_eq!((waiting.after, waiting.until), (None, None));
    engine.handle(Input::ClockSet, now(6, Some(6)));
    assert_eq!(engine.status().phase, Some(Phase::Downloading));
}
