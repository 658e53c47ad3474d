//! Images that are encrypted for the device.

use super::{desk::*, *};
use std::io::Write;
use twinflash::{
    age::{Encryptor, Identities, Identity, Recipient},
    device::InstallFile,
    install::{CommandInstall, CommandOptions},
};

fn encrypt(to: &[Recipient], image: &[u8]) -> Vec<u8> {
    let mut encryptor = Encryptor::new(to, Vec::new()).unwrap();
    encryptor.write_all(image).unwrap();
    encryptor.finish().unwrap()
}

fn encrypted_claims() -> Value {
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["encryption"] = "age".into();
    claims
}

/// A device with an identity; its server has the image encrypted for it and another one.
fn desk() -> (Desk, Identities) {
    let mut desk = Desk::new();
    let ours = Identities::from(Identity::generate().unwrap());
    let other = Identity::generate().unwrap().recipient();
    let file = encrypt(&[other, ours.recipients()[0]], &image(SIZE, 7));
    desk.serve("/image.bin", file);
    desk.identities = Some(ours.clone());
    (desk, ours)
}

#[test]
fn what_was_encrypted_for_the_device_is_installed() {
    let (mut desk, _) = desk();
    let manifest = desk.owner.manifest(&encrypted_claims());
    desk.installed(json!({ "fwManifest": manifest }));
    // Beside the image, too, and from a stick.
    fs::write(desk.target(), b"old").unwrap();
    desk.serve("/image.bin.jws", manifest.clone().into_bytes());
    desk.installed(json!({}));
    let ours = desk.identities.clone().unwrap();
    let stick = desk.dir.path().join("stick.age");
    fs::write(&stick, encrypt(&ours.recipients(), &image(SIZE, 7))).unwrap();
    fs::write(desk.dir.path().join("stick.age.jws"), manifest).unwrap();
    fs::write(desk.target(), b"old").unwrap();
    let options = InstallFile::default();
    desk.updater().install_file(&stick, &options).unwrap();
    assert_eq!(desk.end().outcome, Outcome::Completed);
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
}

#[test]
fn a_command_gets_the_image_and_not_the_file() {
    let (mut desk, _) = desk();
    desk.installer = |target| {
        let command = ["cp", "{image}", target.to_str().unwrap()];
        let state = target.with_file_name("state");
        Box::new(CommandInstall::new(state, CommandOptions::new(command)))
    };
    let manifest = desk.owner.manifest(&encrypted_claims());
    desk.installed(json!({ "fwManifest": manifest }));
}

/// It goes on after a restart, and asks for neither the header nor what is there.
#[test]
fn a_restart_in_the_middle_of_it() {
    let (mut desk, ours) = desk();
    let file = encrypt(&ours.recipients(), &image(SIZE, 7));
    let (header, chunk) = (file.len() - SIZE - 4 * 16, 64 * 1024 + 16);
    let hold = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let held = Arc::clone(&hold);
    desk.serve_by("/image.bin", move |reply| {
        let most = if held.load(Ordering::SeqCst) {
            140_000
        } else {
            usize::MAX
        };
        reply.serve(&file, Some("\"1\""), most);
        if most < usize::MAX {
            reply.hang();
        }
    });
    let manifest = desk.owner.manifest(&encrypted_claims());
    assert_eq!(desk.call(json!({ "fwManifest": manifest })).0, 200);
    for _ in 0..1000 {
        desk.pump();
        if desk.updater().status().bytes >= 2 * 65_536 {
            break;
        }
    }
    desk.stop();
    // The key is in no file of the device's but its own.
    let journal = fs::read_to_string(desk.dir.path().join("state/journal.a"));
    let journal = journal.unwrap_or_default()
        + &String::from_utf8_lossy(&fs::read(desk.dir.path().join("state/journal.b")).unwrap());
    assert!(!journal.contains("AGE-SECRET-KEY"));
    hold.store(false, Ordering::SeqCst);
    desk.start();
    let end = desk.end();
    assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
    let ranges = desk.server.ranges();
    let from = ranges.last().unwrap().as_deref().unwrap();
    let from: usize = from
        .strip_prefix("bytes=")
        .unwrap()
        .trim_end_matches('-')
        .parse()
        .unwrap();
    assert!(
        from >= header + chunk && (from - header).is_multiple_of(chunk),
        "{ranges:?}"
    );
}

#[test]
fn for_another_device_or_with_no_key() {
    let (mut desk, ours) = desk();
    let manifest = desk.owner.manifest(&encrypted_claims());
    let other = Identity::generate().unwrap().recipient();
    desk.serve("/other.bin", encrypt(&[other], &image(SIZE, 7)));
    let uri = desk.server.url("/other.bin");
    let for_other = json!({"fwPackageUri": uri, "fwManifest": manifest});
    let why = "one recipient, which is not this device";
    desk.fails(for_other, "decryption-failed", why);
    desk.stop();
    desk.identities = None;
    let asked = desk.server.asked().len();
    let payload = json!({ "fwManifest": manifest });
    desk.fails(
        payload.clone(),
        "decryption-failed",
        "configure trust.decryption_key",
    );
    assert_eq!(desk.server.asked().len(), asked);
    // The next one can start.
    desk.stop();
    desk.identities = Some(ours);
    desk.installed(payload);
}

/// Anybody can encrypt for a device: it is the manifest that says what is installed.
#[test]
fn encrypted_by_somebody_else() {
    let (mut desk, ours) = desk();
    desk.serve("/image.bin", encrypt(&ours.recipients(), &image(SIZE, 8)));
    let manifest = desk.owner.manifest(&encrypted_claims());
    desk.fails(json!({ "fwManifest": manifest }), "hash-mismatch", "");
    desk.refused(json!({"encryption": "age", "fwManifest": "x"}), "");
    desk.fails(json!({"encryption": "age"}), "manifest-required", "");
}

/// What no manifest calls encrypted is installed as it is, whatever it looks like.
#[test]
fn a_file_that_only_looks_encrypted_is_not_decrypted() {
    let (mut desk, ours) = desk();
    let file = encrypt(&ours.recipients(), &image(SIZE, 7));
    desk.serve("/image.bin", file.clone());
    let manifest = desk.owner.manifest(&claims("2.0.0", &file));
    assert_eq!(desk.call(json!({ "fwManifest": manifest })).0, 200);
    assert_eq!(desk.end().outcome, Outcome::Completed);
    assert_eq!(fs::read(desk.target()).unwrap(), file);
    // And what is called encrypted and is not, not at all.
    desk.serve("/image.bin", image(SIZE, 7));
    let mut claims = encrypted_claims();
    claims["version"] = "3.0.0".into();
    let manifest = desk.owner.manifest(&claims);
    desk.fails(
        json!({ "fwManifest": manifest }),
        "decryption-failed",
        "it is no age file",
    );
}
