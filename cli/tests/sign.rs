//! `twinflash key` and `twinflash image sign` and `verify`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use support::{DEVICE, Done, World, image, run, text};
use tempfile::TempDir;

const SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";

/// A directory with an image in it.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        fs::write(desk.at("image"), "123456789").unwrap();
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the command; a word that begins with `@` is a file of this desk.
    fn run(&self, line: &str) -> Done {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| match word.strip_prefix('@') {
                Some(name) => text(&self.at(name)).to_owned(),
                None => word.to_owned(),
            })
            .collect();
        run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn done(&self, line: &str) -> Done {
        let done = self.run(line);
        assert_eq!(done.status, Some(0), "{line}: {done:?}");
        done
    }

    fn refused(&self, line: &str, why: &str) {
        let done = self.run(line);
        assert_eq!(done.status, Some(1), "{line}: {done:?}");
        assert!(done.err.contains(why), "{line}: {done:?}");
    }

    fn openssl(&self, line: &str) -> Vec<u8> {
        let output = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("the openssl command is needed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {errors}");
        output.stdout
    }
}

/// The lines of Base64 in a PEM file.
fn secret(file: &Path) -> String {
    let pem = fs::read_to_string(file).unwrap();
    pem.lines().nth(1).unwrap().into()
}

#[test]
fn a_new_key_is_its_owner_s_alone_and_openssl_reads_it() {
    let desk = Desk::new();
    for (kind, algorithm, named) in [
        ("ed25519", "EdDSA", "ED25519"),
        ("p256", "ES256", "prime256v1"),
    ] {
        let private = desk.at(&format!("{kind}.pem"));
        let done = desk.done(&format!("key new --type {kind} @{kind}.pem --json"));
        let shown = &done.json()[0];
        assert_eq!(shown["algorithm"], algorithm);
        let mode = fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!done.out.contains(&secret(&private)) && done.err.is_empty());
        // openssl's own idea of the public key and of its id.
        let text = desk.openssl(&format!("pkey -in {kind}.pem -noout -text"));
        assert!(String::from_utf8_lossy(&text).contains(named), "{kind}");
        let public = desk.openssl(&format!("pkey -in {kind}.pem -pubout"));
        assert_eq!(
            public,
            fs::read(desk.at(&format!("{kind}.pub.pem"))).unwrap()
        );
        desk.openssl(&format!(
            "pkey -in {kind}.pem -pubout -outform DER -out der"
        ));
        let id = String::from_utf8(desk.openssl("dgst -sha256 -r der")).unwrap();
        assert_eq!(shown["id"], id.split(' ').next().unwrap());
        let again = desk.done(&format!("key show @{kind}.pub.pem --json"));
        assert_eq!(again.json()[0]["id"], shown["id"]);
        // Never overwritten: neither of the two.
        let before = fs::read(&private).unwrap();
        desk.refused(&format!("key new @{kind}.pem"), "is never overwritten");
        fs::remove_file(desk.at(&format!("{kind}.pub.pem"))).unwrap();
        desk.refused(&format!("key new @{kind}.pem"), "is never overwritten");
        assert_eq!(fs::read(&private).unwrap(), before);
    }
    desk.refused("key show @ed25519.pem", "a private key");
}

#[test]
fn signed_and_verified() {
    let desk = Desk::new();
    desk.done("key new @a.pem");
    desk.done("key new --type p256 @b.pem");
    let sign = "image sign @image --key @a.pem --version 2.1.0 --floor 2.0.0 --expires 90d \
        --compatible model=Toaster --compatible model=Kettle --compatible manufacturer=Contoso";
    let done = desk.done(&format!("{sign} --url https://h/i.bin --json"));
    let signed = &done.json()[0];
    let manifest = fs::read_to_string(desk.at("image.jws")).unwrap();
    assert_eq!(signed["fwManifest"], manifest.trim_end());
    // Ready to paste, for every contract.
    let asked = json!({
        "fwPackageURI": "https://h/i.bin",
        "fwVersion": "2.1.0",
        "fwPackageCheckValue": SHA256,
        "fwSize": 9,
        "fwManifest": manifest.trim_end(),
    });
    assert_eq!(signed["desired"], json!({ "firmware": asked }));
    let content = &signed["configuration"]["deviceContent"];
    assert_eq!(content["properties.desired.firmware"], asked);
    assert_eq!(signed["method"]["fwPackageUri"], "https://h/i.bin");
    assert_eq!(signed["method"]["fwManifest"], asked["fwManifest"]);

    let verify = "image verify @image --manifest @image.jws --trust @a.pub.pem";
    let verified = &desk.done(&format!("{verify} --json")).json()[0];
    let claims = &verified["manifest"];
    assert_eq!(claims["sha256"], SHA256);
    assert_eq!(
        (&claims["version"], &claims["floor"]),
        (&json!("2.1.0"), &json!("2.0.0"))
    );
    assert_eq!(
        claims["compatibility"],
        json!({"manufacturer": "Contoso", "model": ["Toaster", "Kettle"]})
    );
    let (issued, expires) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    assert_eq!(expires - issued, 90 * 86400);
    for line in [sign, verify] {
        let people = desk.done(line);
        for part in ["2.1.0", "Toaster, Kettle", "Contoso"] {
            assert!(people.out.contains(part), "{people:?}");
        }
        assert!(!people.out.contains(&secret(&desk.at("a.pem"))));
    }

    // By another key, by too few, by a revoked one, of another image, altered.
    let id = desk.done("key show @a.pub.pem --json").json()[0]["id"].clone();
    let id = id.as_str().unwrap();
    let other = "image verify @image --manifest @image.jws --trust @b.pub.pem";
    desk.refused(other, &format!("it names key {id}, which is not trusted"));
    desk.refused(
        &format!("{other} --trust @a.pub.pem --threshold 2"),
        "2 are needed",
    );
    desk.refused(
        &format!("{verify} --trust @b.pub.pem --revoked {id}"),
        "is revoked",
    );
    fs::write(desk.at("other"), "123456780").unwrap();
    desk.refused(
        &verify.replace("@image ", "@other "),
        "the image's SHA-256 is",
    );
    fs::write(desk.at("other"), "1234567890").unwrap();
    desk.refused(
        &verify.replace("@image ", "@other "),
        "the image has 10 bytes",
    );
    let text = manifest.replacen('.', ".A", 1);
    fs::write(desk.at("image.jws"), text).unwrap();
    desk.refused(verify, "it was altered");
    fs::write(desk.at("image.jws"), "{}").unwrap();
    desk.refused(verify, "it is no JWS in JSON");
}

#[test]
fn two_keys_on_two_desks() {
    let desk = Desk::new();
    desk.done("key new @a.pem");
    desk.done("key new --type p256 @b.pem");
    desk.done("image sign @image --key @a.pem --version 1.0.0");
    desk.done("image sign @image --key @b.pem --add @image.jws --output @both.jws");
    let both = "image verify @image --trust @a.pub.pem --trust @b.pub.pem --threshold 2 --manifest";
    desk.done(&format!("{both} @both.jws"));
    desk.refused(&format!("{both} @image.jws"), "2 are needed");
    let json: Value = serde_json::from_slice(&fs::read(desk.at("both.jws")).unwrap()).unwrap();
    assert_eq!(json["signatures"].as_array().unwrap().len(), 2);
    // Both at once.
    desk.done("image sign @image --key @a.pem --key @b.pem --version 1.0.0 --output @once.jws");
    desk.done(&format!("{both} @once.jws"));
    // Nobody signs what is of another image, and no claim is changed.
    fs::write(desk.at("other"), "x").unwrap();
    desk.refused(
        "image sign @other --key @b.pem --add @image.jws",
        "the image has 1 bytes",
    );
    let done = desk.run("image sign @image --key @b.pem --add @image.jws --version 2");
    assert_eq!(done.status, Some(2));
}

#[test]
fn keys_of_openssl_and_commands_that_sign() {
    let desk = Desk::new();
    for (name, new) in [
        ("ed", "-algorithm ed25519"),
        ("ec", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
    ] {
        desk.openssl(&format!("genpkey {new} -out {name}.pem"));
        desk.openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub"));
        desk.done(&format!(
            "image sign @image --key @{name}.pem --version 1 --output @{name}.jws"
        ));
        desk.done(&format!(
            "image verify @image --manifest @{name}.jws --trust @{name}.pub"
        ));
    }
    // A key this process never sees: the command prints DER for a curve, raw bytes for RSA.
    for name in ["ec", "rsa"] {
        let command = format!(
            "openssl dgst -sha256 -sign {}",
            text(&desk.at(&format!("{name}.pem")))
        );
        let sign =
            format!("image sign @image --version 1 --output @by.jws --key @{name}.pub --sign-with");
        desk.done(&format!("{sign} {command}"));
        desk.done(&format!(
            "image verify @image --manifest @by.jws --trust @{name}.pub"
        ));
        let other = if name == "ec" { "rsa" } else { "ec" };
        let wrong = command.replace(&format!("{name}.pem"), &format!("{other}.pem"));
        desk.refused(&format!("{sign} {wrong}"), "is not the");
        desk.refused(
            &format!("{sign} false"),
            "false: it ended with exit status: 1",
        );
        desk.refused(&format!("{sign} cat /dev/zero"), "more than a signature");
        desk.refused(&format!("{sign} true"), "is not the");
        desk.refused(&format!("{sign} /no/such"), "/no/such: No such file");
    }
    let private = "image sign @image --version 1 --key @ec.pem --sign-with cat";
    desk.refused(private, "a private key, which must not leave");

    // PKCS#1 is read, what cannot be is named with what helps.
    desk.openssl("rsa -in rsa.pem -traditional -out pkcs1.pem");
    desk.done("image sign @image --version 1 --key @pkcs1.pem --output @rsa.jws");
    desk.done("image verify @image --manifest @rsa.jws --trust @rsa.pub");
    desk.openssl("ec -in ec.pem -out sec1.pem");
    desk.openssl("pkey -in ec.pem -aes128 -passout pass:x -out locked.pem");
    desk.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem");
    for (key, why) in [
        ("sec1.pem", "openssl pkcs8 -topk8 -nocrypt"),
        ("locked.pem", "it is encrypted"),
        ("p384.pem", "no Ed25519, P-256 or RSA key"),
        ("ec.pub", "it is a public key"),
        ("image", "there is no private key in it"),
        ("nowhere", "cannot read"),
    ] {
        desk.refused(&format!("image sign @image --version 1 --key @{key}"), why);
    }
    fs::set_permissions(desk.at("ec.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let done = desk.done("image sign @image --version 1 --key @ec.pem");
    assert!(
        done.err
            .contains("others than you may read the private key"),
        "{done:?}"
    );
}

#[test]
fn what_a_device_would_refuse_is_not_signed() {
    let desk = Desk::new();
    desk.done("key new @a.pem");
    let sign = "image sign @image --key @a.pem --output @m --version";
    for (rest, why) in [
        ("../x", "\"version\" must be"),
        ("1 --floor 2", "floor 2 is higher"),
        ("1 --expires 2026-01-01", "does not come after"),
        ("1 --expires soon", "--expires soon"),
        ("1 --compatible model", "--compatible model"),
        ("1 --compatible modell=x", "hardwareRevision=…"),
    ] {
        desk.refused(&format!("{sign} {rest}"), why);
        assert!(!desk.at("m").exists());
    }
    fs::write(desk.at("image"), "").unwrap();
    desk.refused(&format!("{sign} 1"), "\"size\" is 0");
}

#[test]
fn a_rotation_is_signed_by_the_old_keys() {
    let desk = Desk::new();
    for name in ["a", "b", "c"] {
        desk.done(&format!("key new @{name}.pem"));
    }
    let id = desk.done("key show @a.pub.pem --json").json()[0]["id"].clone();
    let id = id.as_str().unwrap();
    desk.done(&format!(
        "key rotate --version 2 --trust @b.pub.pem --trust @c.pub.pem --threshold 2 --revoke {id} --key @a.pem --output @keys.jws"
    ));
    desk.done("key rotate --add @keys.jws --key @b.pem");
    let keys: Value = serde_json::from_slice(&fs::read(desk.at("keys.jws")).unwrap()).unwrap();
    assert_eq!(keys["signatures"].as_array().unwrap().len(), 2);
    desk.refused(
        "key rotate --version 2 --trust @b.pub.pem --threshold 2 --key @a.pem --output @x",
        "there are only 1",
    );
}

/// A manifest goes with what a back end asks for, and says what else would have to be said.
#[test]
fn what_was_signed_is_asked_for() {
    let world = World::new();
    let at = |name: &str| text(&world.path(name)).to_owned();
    fs::write(world.path("new.bin"), image()).unwrap();
    let signed = |version: &str| {
        let (image, key) = (at("new.bin"), at("owner.pem"));
        let sign = ["image", "sign", &image, "--key", &key, "--version", version];
        assert_eq!(run(&sign).status, Some(0));
    };
    assert_eq!(run(&["key", "new", &at("owner.pem")]).status, Some(0));
    let manifest = ["--manifest", &at("new.bin.jws")];
    let url = world.url("/image");
    let trust = format!("[trust]\nkeys = [{:?}]", at("owner.pub.pem"));

    signed("1.0.1");
    let device = world.device("contract = \"iothub-dm\"", &trust);
    let unsigned = world.ask(&["update", DEVICE, &url, "--version", "1.0.1"]);
    assert_eq!(unsigned.status, Some(1), "{unsigned:?}");
    assert_eq!(world.installed(), b"1.0.0\n");
    let other = world.ask(&[&["update", DEVICE, &url, "--version", "2"], &manifest[..]].concat());
    assert!(other.out.contains("the request is for"), "{other:?}");
    let done = world.show(&[&["update", DEVICE, &url], &manifest[..]].concat());
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(world.installed(), image());
    // Nobody reads a manifest.
    assert!(done.out.lines().all(|line| line.len() < 200), "{done:?}");
    device.stop("TERM");

    world.write("app.bin", "1.0.0\n");
    let device = world.device(
        "contract = \"configuration\"\ncurrent_version = \"1.0.0\"",
        &trust,
    );
    let create = ["config", "create", "fw", "--target", "*", "--image", &url];
    signed("1.0.2");
    let neither = world.ask(&create);
    assert!(neither.err.contains("--from"), "{neither:?}");
    fs::write(world.path("other.bin"), "other").unwrap();
    let from = ["--from", &at("other.bin")];
    let other = world.ask(&[&create[..], &from, &manifest].concat());
    assert!(
        other.err.contains("the manifest is of one with"),
        "{other:?}"
    );
    let made = world.ask(&[&create[..], &manifest].concat());
    assert_eq!(made.status, Some(0), "{made:?}");
    let asked = &made.json()[0]["content"]["deviceContent"]["properties.desired.firmware"];
    assert_eq!(asked["fwVersion"], "1.0.2");
    let size = image().len();
    assert_eq!(asked["fwSize"], json!(size));
    let mut device = device;
    device.line_with("ended");
    assert_eq!(world.installed(), image());
}

#[test]
fn compressed_files_that_others_unpack() {
    let desk = Desk::new();
    let image: Vec<u8> = (0..9_000_000_u32).map(|n| (n / 1000 % 251) as u8).collect();
    fs::write(desk.at("image"), &image).unwrap();
    desk.done("key new @a.pem");
    for (how, ending, unpack) in [("zstd", "zst", "zstd"), ("gzip", "gz", "gzip")] {
        let line =
            format!("image sign @image --key @a.pem --version 1.0.0 --compress {how} --json");
        let done = desk.done(&line);
        let signed: Value = serde_json::from_str(&done.out).unwrap();
        let file = desk.at(&format!("image.{ending}"));
        assert_eq!(signed["file"], text(&file));
        assert_eq!(signed["manifest"], format!("{}.jws", text(&file)));
        let url = format!("https://example.com/image.{ending}");
        assert_eq!(signed["method"]["fwPackageUri"], url);
        assert_eq!(signed["method"]["fwSize"], image.len());
        let packed = fs::metadata(&file).unwrap().len();
        assert!(packed < 200_000, "{packed}");
        let unpacked = Command::new(unpack).arg("-dc").arg(&file).output().unwrap();
        assert!(unpacked.status.success() && unpacked.stdout == image);
        // What is verified is the image.
        let line = format!("image verify @image --manifest @image.{ending}.jws --trust @a.pub.pem");
        let done = desk.done(&line);
        assert!(done.out.contains(how), "{}", done.out);
        assert!(done.out.contains(&packed.to_string()), "{}", done.out);
    }
}

/// Runs a program of the age format's own authors.
fn age(desk: &Desk, program: &str, line: &str) -> Vec<u8> {
    let output = Command::new(program)
        .args(line.split(' '))
        .current_dir(desk.0.path())
        .output()
        .expect("Debian's package age is needed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {line}: {errors}");
    output.stdout
}

#[test]
fn encrypted_files_that_age_decrypts_and_files_of_age_that_are_decrypted() {
    let desk = Desk::new();
    let image: Vec<u8> = (0..300_000_u32).map(|n| (n / 100 % 251) as u8).collect();
    fs::write(desk.at("image"), &image).unwrap();
    desk.done("key new @a.pem");
    // An identity of ours is one of age's, and the other way round.
    let made = desk.done("key new --encryption @ours.txt --json");
    let ours = made.json()[0]["recipient"].as_str().unwrap().to_owned();
    let mode = fs::metadata(desk.at("ours.txt"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        age(&desk, "age-keygen", "-y ours.txt"),
        format!("{ours}\n").as_bytes()
    );
    let text = fs::read_to_string(desk.at("ours.txt")).unwrap();
    let secret = text.lines().last().unwrap();
    assert!(!made.out.contains(secret) && made.err.is_empty());
    desk.refused("key new --encryption @ours.txt", "is never overwritten");
    age(&desk, "age-keygen", "-o theirs.txt");
    let theirs = String::from_utf8(age(&desk, "age-keygen", "-y theirs.txt")).unwrap();
    fs::write(desk.at("fleet"), format!("# two\n{theirs}{ours}\n")).unwrap();

    // For two devices; age decrypts it with the identity of either.
    let sign = "image sign @image --key @a.pem --version 1.0.0 --encrypt-to @fleet";
    let done = desk.done(&format!("{sign} --json"));
    assert_eq!(done.json()[0]["file"], text_of(&desk, "image.age"));
    assert_eq!(done.json()[0]["method"]["fwSize"], image.len());
    for identity in ["ours.txt", "theirs.txt"] {
        let decrypted = age(&desk, "age", &format!("-d -i {identity} image.age"));
        assert!(decrypted == image, "{identity}");
    }
    desk.done(&format!("{sign} --compress zstd"));
    age(&desk, "age", "-d -i ours.txt -o out.zst image.zst.age");
    let unpacked = Command::new("zstd")
        .arg("-dc")
        .arg(desk.at("out.zst"))
        .output();
    assert!(unpacked.unwrap().stdout == image);

    // What is verified is the image, or the file that is served, as a device does it.
    let verify = |file: &str, rest: &str| {
        format!("image verify @{file} --manifest @image.zst.age.jws --trust @a.pub.pem {rest}")
            .trim_end()
            .to_owned()
    };
    let done = desk.done(&verify("image", ""));
    assert!(
        done.out.contains("encryption") && done.out.contains("age"),
        "{}",
        done.out
    );
    desk.done(&verify("image.zst.age", "--identity @theirs.txt"));
    desk.refused(&verify("image.zst.age", ""), "it is encrypted: --identity");
    desk.done("key new --encryption @other.txt");
    desk.refused(
        &verify("image.zst.age", "--identity @other.txt"),
        "it is encrypted for 2 recipients, of which none is this device",
    );
    let served = fs::read(desk.at("image.zst.age")).unwrap();
    let mut altered = served.clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(desk.at("altered"), altered).unwrap();
    desk.refused(&verify("altered", "--identity @ours.txt"), "was altered");

    // A file that age itself made, for ours among others.
    let recipients = format!("-r {} -r {ours}", theirs.trim());
    age(
        &desk,
        "age",
        &format!("-e {recipients} -o theirs.age image"),
    );
    let sign = "image sign @image --key @a.pem --version 1.0.0 --encrypted @theirs.age --json";
    let done = desk.done(sign);
    assert_eq!(done.json()[0]["manifest"], text_of(&desk, "theirs.age.jws"));
    let url = "https://example.com/theirs.age";
    assert_eq!(done.json()[0]["method"]["fwPackageUri"], url);
    for file in ["theirs.age", "image.age"] {
        desk.done(&format!(
            "image verify @{file} --manifest @theirs.age.jws --trust @a.pub.pem --identity @ours.txt"
        ));
    }

    for (to, why) in [
        ("age1xyz", "is no age recipient"),
        ("@ours.txt", "a line in it is no age recipient"),
        ("@nowhere", "cannot read"),
        ("@image", "no age recipient"),
    ] {
        let line = format!("image sign @image --key @a.pem --version 1 --encrypt-to {to}");
        let done = desk.run(&line);
        assert!(done.status == Some(1) && done.err.contains(why), "{done:?}");
        assert!(!done.err.contains(secret));
    }
}

fn text_of(desk: &Desk, name: &str) -> String {
    text(&desk.at(name)).to_owned()
}
