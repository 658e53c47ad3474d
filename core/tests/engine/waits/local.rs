//! A file of the device.

use super::{time::One, *};

fn file(version: Option<&str>) -> LocalImage {
    let mut image = LocalImage::default();
    image.uri = "file:///media/new.bin".into();
    image.version = version.map(Into::into);
    image
}

#[test]
fn a_file_is_installed_without_being_asked_for_but_in_its_window() {
    let mut engine = new(|policy| {
        policy.consent = vec![Stage::Download, Stage::Apply];
        policy.start_delay = Duration::from_secs(1000);
        policy.bandwidth = Some(2000);
    });
    engine.set_calendar(One(100, 200, None));
    boot(&mut engine, None, ImageState::Old);
    let outputs = give(&mut engine, Input::Install(&file(Some("2"))), 1);
    let job = downloads(&outputs)[0];
    assert!(job.local);
    assert_eq!(
        (job.uri.as_str(), job.bandwidth),
        ("file:///media/new.bin", None)
    );
    let busy = engine.can_install(&file(Some("3"))).unwrap_err();
    assert_eq!(busy.code, Code::Busy);
    assert!(!applies(&arrives(&mut engine, 7)));
    assert_eq!(waits_for(&engine), Some((Wait::Window, Stage::Apply)));
    assert!(applies(&give(&mut engine, Input::Tick, 100)));
}

#[test]
fn a_file_keeps_to_the_rules() {
    let mut engine = with("configuration", 7, |policy| {
        policy.version = VersionRule::Higher;
        policy.require_check = true;
    });
    boot(&mut engine, None, ImageState::Old);
    for (image, code) in [
        (file(None), Code::VersionRefused),
        (file(Some("2")), Code::CheckRequired),
    ] {
        assert_eq!(engine.can_install(&image).unwrap_err().code, code);
        give(&mut engine, Input::Install(&image), 1);
        assert_eq!(engine.status().phase, None);
    }
    let mut image = file(Some("2"));
    image.check = Some("nonsense".into());
    let failure = engine.can_install(&image).unwrap_err();
    assert_eq!(failure.code, Code::InvalidCheck);
    // With keys a manifest vouches for it: it is fetched from beside the file.
    let mut engine = new(|policy| policy.require_manifest = true);
    boot(&mut engine, None, ImageState::Old);
    let outputs = give(&mut engine, Input::Install(&file(None)), 1);
    assert!(downloads(&outputs).is_empty());
}

#[test]
fn what_was_desired_is_not_wished_anew_by_a_file() {
    let mut engine = with("configuration", 7, |_| {});
    boot(&mut engine, None, ImageState::Old);
    twin(&mut engine, 1, "2");
    give(&mut engine, Input::Cancel, 2);
    give(&mut engine, Input::TransferEnded(Ended::Stopped), 2);
    give(&mut engine, Input::Done(Step::Abort, Ok(())), 3);
    assert_eq!(engine.can_install(&file(Some("9"))), Ok(()));
    give(&mut engine, Input::Install(&file(Some("9"))), 3);
    // The twin comes again, and another wish, which waits for the end.
    assert!(!twin(&mut engine, 4, "2").contains(&Output::StopDownload));
    assert!(!twin(&mut engine, 5, "3").contains(&Output::StopDownload));
    assert_eq!(engine.status().version.as_deref(), Some("9"));
    twin(&mut engine, 6, "2");
    give(&mut engine, Input::Cancel, 7);
    give(&mut engine, Input::TransferEnded(Ended::Stopped), 7);
    give(&mut engine, Input::Done(Step::Abort, Ok(())), 8);
    assert_eq!(engine.status().phase, None, "{:?}", engine.status());
    twin(&mut engine, 9, "3");
    assert_eq!(engine.status().version.as_deref(), Some("3"));
}
