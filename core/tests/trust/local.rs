//! A file of the device, such as one on a USB stick, where the owner's keys are configured.

use super::{desk::*, *};
use std::path::Path;
use twinflash::{device::InstallFile, update::Failure};

/// A stick with an image on it.
fn stick(desk: &Desk) -> PathBuf {
    let file = desk.dir.path().join("stick.bin");
    fs::write(&file, image(SIZE, 7)).unwrap();
    file
}

fn install(desk: &mut Desk, file: &Path) -> Result<(), Failure> {
    desk.updater().install_file(file, &InstallFile::default())
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("bin.jws")
}

/// What the twin says is what it says of any other update: during it, and after.
#[test]
fn what_was_signed_beside_it_is_installed_and_the_twin_says_so() {
    let mut desk = Desk::new();
    let file = stick(&desk);
    fs::write(beside(&file), desk.manifest("2.0.0")).unwrap();
    desk.start().connected(true);
    let twin = json!({"desired": {"$version": 1}, "reported": {}});
    desk.updater()
        .handle_twin(true, twin.to_string().as_bytes());
    desk.pump();
    desk.statuses.clear();
    install(&mut desk, &file).unwrap();
    let end = desk.end();
    assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
    desk.pump();
    let said = [
        "downloading",
        "downloadComplete",
        "applying",
        "applyComplete",
    ];
    assert_eq!(desk.statuses, said);
    let firmware = at_path(&desk.reported, "iothubDM").unwrap();
    assert_eq!(firmware["firmwareVersion"], "2.0.0");
    assert_eq!(firmware["firmwareUpdate"]["status"], "applyComplete");
    let uri = firmware["firmwareUpdate"]["fwPackageUri"].as_str();
    assert!(uri.unwrap().starts_with("file:///"), "{firmware}");
    // Nobody was asked for anything.
    assert!(desk.server.asked().is_empty());
}

#[test]
fn a_file_that_nobody_signed() {
    let mut desk = Desk::new();
    let file = stick(&desk);
    let missing = |desk: &mut Desk, code: &str| {
        desk.statuses.clear();
        let refused = install(desk, &file);
        let end = match refused {
            Err(failure) => failure.code.as_str().to_owned(),
            Ok(()) => {
                let outcome = desk.end().outcome;
                outcome.failure().unwrap().code.as_str().to_owned()
            }
        };
        assert_eq!(end, code);
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
    };
    missing(&mut desk, "manifest-required");
    // Signed by another; for another image; of an older version than the floor; for another model.
    let other = Signer::ed25519(9).manifest(&claims("2.0.0", &image(SIZE, 7)));
    fs::write(beside(&file), other).unwrap();
    missing(&mut desk, "untrusted");
    let other = desk.owner.manifest(&claims("2.0.0", &image(SIZE, 8)));
    fs::write(beside(&file), other).unwrap();
    missing(&mut desk, "hash-mismatch");
    let mut of_another = claims("2.0.0", &image(SIZE, 7));
    of_another["compatibility"]["model"] = "Kettle".into();
    fs::write(beside(&file), desk.owner.manifest(&of_another)).unwrap();
    missing(&mut desk, "incompatible");
    let mut expired = claims("2.0.0", &image(SIZE, 7));
    expired["iat"] = (now() - 100).into();
    expired["exp"] = (now() - 50).into();
    fs::write(beside(&file), desk.owner.manifest(&expired)).unwrap();
    missing(&mut desk, "expired");
    desk.stop();
    desk.policy.floor = Some("3.0.0".into());
    fs::write(beside(&file), desk.manifest("2.0.0")).unwrap();
    missing(&mut desk, "version-refused");
}

/// The back end cannot reach the device's files by it: `file:` is for those at the device.
#[test]
fn a_file_that_a_back_end_asks_for() {
    let mut desk = Desk::new();
    let file = stick(&desk);
    let manifest = desk.manifest("2.0.0");
    let uri = twinflash::download::local_uri(&file);
    desk.refused(json!({"fwPackageUri": uri, "fwManifest": manifest}), "file");
}
