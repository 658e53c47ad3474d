//! Who is not the owner, or is not for this device, or not now.

use super::{desk::*, *};
use base64ct::{Base64UrlUnpadded, Encoding as _};

#[test]
fn nothing_unsigned_is_installed_whatever_the_contract() {
    for contract in Contract::names() {
        let mut desk = Desk::new();
        desk.contract = contract;
        let uri = desk.server.url("/image.bin");
        let contract = Contract::built_in(contract).unwrap();
        let sha256 = claims("2.0.0", &image(SIZE, 7))["sha256"].clone();
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        let check = match contract.name() {
            "devkit" => format!("{:x}", crc.checksum(&image(SIZE, 7))),
            _ => sha256.as_str().unwrap().to_owned(),
        };
        let asked = contract.ask(&uri, Some("2.0.0"), Some(&check), Some(SIZE as u64), None);
        let updater = desk.updater();
        match contract.methods().next() {
            Some(method) => {
                assert!(updater.handle_method_then(method, asked.to_string().as_bytes(), |_| ()));
            }
            None => {
                let path = contract.desired_path().unwrap();
                let twin = json!({"desired": {path: asked, "$version": 1}, "reported": {}});
                updater.connected(true);
                updater.handle_twin(true, twin.to_string().as_bytes());
            }
        }
        let Outcome::Failed { failure, .. } = desk.end().outcome else {
            panic!("{}: no failure", contract.name());
        };
        assert_eq!(failure.code.as_str(), "manifest-required", "{failure}");
        assert!(failure.message.contains("/image.bin.jws"), "{failure}");
        assert!(failure.message.contains("404"), "{failure}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
        assert_eq!(desk.asked("/image.bin"), 0);
    }
}

#[test]
fn an_altered_manifest() {
    let mut desk = Desk::new();
    let good = desk.manifest("2.0.0");
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    // Each claim, with the signature of the others.
    for (member, value) in [
        ("version", json!("9.0.0")),
        ("size", json!(1)),
        ("sha256", json!("00".repeat(32))),
        ("compatibility", json!({})),
        ("iat", json!(0)),
        ("exp", json!(now() * 2)),
        ("floor", json!("2.0.0")),
        ("encryption", json!("age")),
        ("compression", json!("gzip")),
    ] {
        let mut claims = claims("2.0.0", &image(SIZE, 7));
        claims[member] = value;
        let payload = Base64UrlUnpadded::encode_string(claims.to_string().as_bytes());
        let altered = format!("{head}.{payload}.{signature}");
        desk.refused(json!({ "fwManifest": altered }), "it was altered");
    }
    // Some of the bits; all of them are the matter of another test.
    for place in (0..good.len()).step_by(29) {
        let mut altered = good.clone().into_bytes();
        altered[place] ^= 1;
        let altered = String::from_utf8(altered).unwrap();
        desk.refused(json!({ "fwManifest": altered }), "the signed document");
    }
    for nothing in ["", "x", "..", "e30.e30."] {
        desk.refused(json!({ "fwManifest": nothing }), "the signed document");
    }
    desk.refused(json!({ "fwManifest": 1 }), "text is needed");
    desk.installed(json!({ "fwManifest": good }));
}

#[test]
fn an_algorithm_that_is_none_and_keys_that_come_along() {
    let mut desk = Desk::new();
    let stranger = Signer::ed25519(9);
    let payload = claims("2.0.0", &image(SIZE, 7)).to_string();
    let typ = Kind::Manifest.as_str();
    let x = Base64UrlUnpadded::encode_string(stranger.public.bytes());
    for header in [
        json!({"alg": "none", "typ": typ}),
        json!({"alg": "HS256", "typ": typ}),
        json!({"alg": "EdDSA", "typ": typ, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}),
        json!({"alg": "EdDSA", "typ": typ, "jku": desk.server.url("/keys")}),
        json!({"alg": "EdDSA", "typ": typ, "kid": desk.owner.public.id()}),
    ] {
        let text = stranger.with_header(&header.to_string(), &payload);
        desk.refused(json!({ "fwManifest": text }), "is not trusted");
    }
    for header in [
        json!({"alg": "none", "typ": typ}),
        json!({"alg": "EdDSA", "typ": typ, "crit": ["x"], "x": 1}),
        json!({"alg": "EdDSA", "typ": typ, "b64": false}),
    ] {
        let text = desk.owner.with_header(&header.to_string(), &payload);
        desk.refused(json!({ "fwManifest": text }), "is refused: its header");
    }
}

#[test]
fn an_expired_manifest_and_one_of_tomorrow() {
    let mut desk = Desk::new();
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["exp"] = (now() - 1).into();
    let expired = desk.owner.manifest(&claims);
    desk.refused(json!({ "fwManifest": expired }), "expired at");
    claims["iat"] = (now() + 86_400).into();
    claims["exp"] = (now() + 90_000).into();
    let tomorrow = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": tomorrow }),
        "one of the two clocks is wrong",
    );
    // Beside the image it is no better.
    desk.serve("/image.bin.jws", expired.into_bytes());
    desk.fails(json!({}), "expired", "expired at");
    assert_eq!(desk.asked("/image.bin"), 0);
}

#[test]
fn an_older_version_below_the_floor_and_a_replay() {
    let mut desk = Desk::new();
    let with_floor = |desk: &Desk, version: &str, floor: &str| {
        let mut claims = claims(version, &image(SIZE, 7));
        claims["floor"] = floor.into();
        desk.owner.manifest(&claims)
    };
    let old = desk.manifest("1.5.0");
    desk.installed(json!({ "fwManifest": old }));
    // A floor counts once its image has proved itself, not before.
    let mut broken = claims("3.0.0", &image(SIZE, 9));
    broken["floor"] = "3.0.0".into();
    let broken = desk.owner.manifest(&broken);
    let good = desk.server.url("/image.bin");
    desk.serve("/broken.bin", image(SIZE, 8));
    let uri = desk.server.url("/broken.bin");
    desk.serve("/broken.bin.jws", broken.clone().into_bytes());
    // In the request, and beside the image.
    for (retry, asked) in [
        (1, json!({"fwPackageUri": uri, "fwManifest": broken})),
        (2, json!({ "fwPackageUri": uri })),
    ] {
        desk.fails(asked, "hash-mismatch", "was announced");
        desk.installed(json!({"fwPackageUri": good, "fwManifest": old, "fwRetry": retry}));
    }
    let raises = with_floor(&desk, "2.5.0", "2.0.0");
    desk.installed(json!({ "fwManifest": raises }));
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 3}),
        "version 1.5.0 is lower than 2.0.0",
    );
    // A lower one, above the floor, is a deliberate downgrade; the floor never falls.
    let lower = with_floor(&desk, "2.1.0", "1.0.0");
    desk.installed(json!({ "fwManifest": lower }));
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 3}),
        "is lower than 2.0.0",
    );
    desk.stop();
    desk.refused(
        json!({"fwManifest": old, "fwRetry": 4}),
        "is lower than 2.0.0",
    );
    // The owner's own floor.
    desk.stop();
    desk.policy.floor = Some("2.2".into());
    desk.refused(
        json!({"fwManifest": lower, "fwRetry": 5}),
        "is lower than 2.2",
    );
}

#[test]
fn an_absurdly_high_version_locks_nobody_out() {
    let mut desk = Desk::new();
    let high = desk.manifest("99999999999999999999999999.0");
    desk.installed(json!({ "fwManifest": high }));
    let next = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": next }));
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["floor"] = "99999999999999999999999999".into();
    let lock = desk.owner.manifest(&claims);
    desk.refused(json!({ "fwManifest": lock }), "higher than its own version");
}

#[test]
fn another_model() {
    let mut desk = Desk::new();
    let mut claims = claims("2.0.0", &image(SIZE, 7));
    claims["compatibility"] = json!({"model": ["Kettle", "Fridge"]});
    let other = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": other }),
        "for model Kettle, Fridge; this device's is Toaster",
    );
    claims["compatibility"] = json!({"model": ["Kettle", MODEL], "hardwareRevision": "B"});
    let revision = desk.owner.manifest(&claims);
    desk.refused(
        json!({ "fwManifest": revision }),
        "has not been told its own",
    );
}

#[test]
fn a_manifest_of_another_file() {
    let mut desk = Desk::new();
    // Of the same size, and of another.
    desk.serve("/same.bin", image(SIZE, 8));
    desk.serve("/longer.bin", image(SIZE + 1, 7));
    let manifest = desk.manifest("2.0.0");
    for (file, code, why) in [
        ("/same.bin", "hash-mismatch", "was announced"),
        ("/longer.bin", "size-mismatch", "were announced"),
    ] {
        let uri = desk.server.url(file);
        desk.fails(
            json!({"fwPackageUri": uri, "fwManifest": manifest}),
            code,
            why,
        );
    }
    // What the request itself says must be what is signed.
    for (member, value) in [
        ("fwVersion", json!("2.0.1")),
        ("fwSize", json!(SIZE + 1)),
        ("fwPackageCheckValue", json!("11".repeat(32))),
    ] {
        desk.refused(
            json!({"fwManifest": manifest, member: value}),
            "the request is for",
        );
    }
    // A wrong check of another kind is found when the image is there.
    desk.fails(
        json!({"fwManifest": manifest, "fwPackageCheckValue": "0001"}),
        "crc-mismatch",
        "crc16:0001 was announced",
    );
}

#[test]
fn content_that_changes_in_mid_download() {
    let mut desk = Desk::new();
    let number = AtomicUsize::new(0);
    desk.serve_by("/image.bin", move |reply| {
        match number.fetch_add(1, Ordering::Relaxed) {
            0 => reply.serve(&image(SIZE, 8), None, SIZE / 2),
            1 => reply.serve(&image(SIZE, 7), None, usize::MAX),
            _ => reply.serve(&image(SIZE, 8), None, usize::MAX),
        }
    });
    let manifest = desk.manifest("2.0.0");
    // Half of one and half of the other; then from zero, which is another one.
    desk.fails(
        json!({ "fwManifest": manifest }),
        "hash-mismatch",
        "was announced",
    );
}

#[test]
fn versions_that_are_paths() {
    let mut desk = Desk::new();
    for version in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "2/..",
        "2 0",
        "-o",
        "$(x)",
    ] {
        let manifest = desk.manifest(version);
        desk.refused(json!({ "fwManifest": manifest }), "\\\"version\\\" must be");
    }
}

#[test]
fn a_manifest_that_never_ends_or_is_none() {
    let mut desk = Desk::new();
    desk.serve_by("/image.bin.jws", |reply| {
        reply.head("200 OK", &[]);
        while reply.body(&[b'x'; 1000]) {}
    });
    desk.fails(json!({}), "too-large", "more than 32768 bytes");
    desk.serve_by("/image.bin.jws", |reply| {
        reply.head("200 OK", &[("Content-Length", "99999999")]);
    });
    desk.fails(
        json!({"fwRetry": 1}),
        "too-large",
        "the manifest beside the image",
    );
    desk.serve("/image.bin.jws", vec![0xff; 100]);
    desk.fails(json!({"fwRetry": 2}), "manifest-invalid", "it is no text");
    desk.serve("/image.bin.jws", b"<html>not here</html>".to_vec());
    desk.fails(json!({"fwRetry": 3}), "manifest-invalid", "it is no JWS");
    let stranger = Signer::ed25519(9).manifest(&claims("2.0.0", &image(SIZE, 7)));
    desk.serve("/image.bin.jws", stranger.into_bytes());
    desk.fails(json!({"fwRetry": 4}), "untrusted", "is not trusted");
    // A silent server, and one that comes to its senses.
    desk.stop();
    desk.policy.stall_time = Duration::from_millis(200);
    desk.policy.retry.first = Duration::from_millis(10);
    let manifest = desk.manifest("2.0.0");
    let number = AtomicUsize::new(0);
    desk.serve_by("/image.bin.jws", move |reply| {
        match number.fetch_add(1, Ordering::Relaxed) {
            0 => reply.hang(),
            1 => reply.empty("503 Service Unavailable", &[]),
            _ => reply.serve(manifest.as_bytes(), None, usize::MAX),
        }
    });
    desk.installed(json!({"fwRetry": 5}));
    assert_eq!(desk.asked("/image.bin"), 1);
}

#[test]
fn a_key_that_is_revoked() {
    let (lost, kept) = (Signer::ed25519(1), Signer::ed25519(2));
    let keys = [&lost, &kept].map(|signer| signer.public.clone());
    let keys = KeySet::new(1, 1, keys.to_vec(), vec![lost.public.id()]).unwrap();
    let mut desk = Desk::trusting(lost, keys);
    let claims = claims("2.0.0", &image(SIZE, 7));
    let stolen = desk.owner.manifest(&claims);
    desk.refused(json!({ "fwManifest": stolen }), "is revoked");
    // It does not sign away its own end, and takes nothing from what another key has signed.
    let keys = key_set(2, 1, &[&desk.owner]).to_json();
    let rotation = signed(Kind::Keys, &[&desk.owner], &keys);
    desk.refused(
        json!({"fwKeys": rotation, "fwManifest": stolen}),
        "is revoked",
    );
    let both = signed(
        Kind::Manifest,
        &[&desk.owner, &kept],
        claims.to_string().as_bytes(),
    );
    desk.installed(json!({ "fwManifest": both }));
}
