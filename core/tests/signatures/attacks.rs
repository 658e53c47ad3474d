//! What must be refused, whoever made it.

use crate::signer::{Signer, key_set, signed};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use twinflash::update::{
    Code, Failure,
    trust::{Identity, Jws, KeySet, Kind, MAX_LENGTH, Manifest, Trust},
};

const SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
/// 2026-11-21T00:00:00Z
const NOW: u64 = 1_795_219_200;

/// Every member that a manifest can have.
pub(super) fn whole() -> Value {
    json!({
        "version": "2.1.0",
        "size": 9,
        "sha256": SHA256,
        "compatibility": {
            "manufacturer": "Contoso",
            "model": ["Toaster", "Toaster Pro"],
            "hardwareRevision": "B",
        },
        "iat": NOW,
        "exp": NOW + 1000,
        "floor": "2.0.0",
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut manifest = whole();
    manifest[member] = value;
    manifest
}

pub(super) fn trust(threshold: u32, signers: &[&Signer]) -> Trust {
    Trust::new(key_set(1, threshold, signers), Identity::default())
}

pub(super) fn refused(trust: &Trust, text: &str) -> Failure {
    match trust.open(text) {
        Ok(manifest) => panic!("let in: {manifest:?}"),
        Err(failure) => failure,
    }
}

#[test]
fn what_is_right_is_let_in_and_says_what_was_signed() {
    let (one, two) = (Signer::ed25519(1), Signer::p256());
    let manifest = trust(1, &[&one]).open(&one.manifest(&whole())).unwrap();
    assert_eq!((manifest.version.as_str(), manifest.size), ("2.1.0", 9));
    assert_eq!(base16ct::lower::encode_string(&manifest.sha256), SHA256);
    assert_eq!(manifest.compatibility.model, ["Toaster", "Toaster Pro"]);
    assert_eq!(manifest.compatibility.hardware_revision, ["B"]);
    assert_eq!((manifest.issued, manifest.expires), (NOW, Some(NOW + 1000)));
    assert_eq!(manifest.floor.as_deref(), Some("2.0.0"));
    // What is written is what was read.
    let again: Value = serde_json::from_slice(&manifest.to_json().unwrap()).unwrap();
    assert_eq!(again, whole());
    // The end of a file's line, and both serialisations.
    let text = format!("{}\n", two.manifest(&whole()));
    assert_eq!(trust(1, &[&one, &two]).open(&text).unwrap(), manifest);
    let text = signed(
        Kind::Manifest,
        &[&one, &two],
        whole().to_string().as_bytes(),
    );
    assert!(text.starts_with("{\"payload\":"), "{text}");
    assert_eq!(trust(2, &[&one, &two]).open(&text).unwrap(), manifest);
    // RFC 9864's name of the same algorithm, and no kid.
    let header = r#"{"alg":"Ed25519","typ":"twinflash-manifest+jws"}"#;
    let text = one.with_header(header, &whole().to_string());
    assert_eq!(trust(1, &[&one]).open(&text).unwrap(), manifest);
}

#[test]
fn every_bit_of_a_manifest_counts() {
    let (one, two) = (Signer::ed25519(1), Signer::ed25519(2));
    let both = signed(
        Kind::Manifest,
        &[&one, &two],
        whole().to_string().as_bytes(),
    );
    for (trust, text) in [
        (trust(1, &[&one]), one.manifest(&whole())),
        (trust(2, &[&one, &two]), both),
    ] {
        trust.open(&text).unwrap();
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut altered = text.clone().into_bytes();
                altered[place] ^= 1 << bit;
                let Ok(altered) = String::from_utf8(altered) else {
                    continue;
                };
                refused(&trust, &altered);
            }
            // Cut off, and one character taken out or doubled.
            refused(&trust, &text[..place]);
            refused(&trust, &format!("{}{}", &text[..place], &text[place + 1..]));
            refused(&trust, &format!("{}{}", &text[..=place], &text[place..]));
        }
    }
}

/// As [`every_bit_of_a_manifest_counts`], below the Base64.
#[test]
fn every_bit_of_what_is_signed_counts() {
    let signer = Signer::p256();
    let trust = trust(1, &[&signer]);
    let text = signer.manifest(&whole());
    let parts: Vec<_> = text.split('.').collect();
    for (part, coded) in parts.iter().enumerate() {
        let bytes = Base64UrlUnpadded::decode_vec(coded).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = Base64UrlUnpadded::encode_string(&altered);
            let mut parts = parts.clone();
            parts[part] = &altered;
            let failure = refused(&trust, &parts.join("."));
            assert_eq!(failure.code, Code::Untrusted, "{failure}");
        }
    }
}

/// Under the signature of another manifest.
#[test]
fn every_member_altered() {
    let signer = Signer::ed25519(1);
    let trust = trust(1, &[&signer]);
    let text = signer.manifest(&whole());
    let (header, _) = text.split_once('.').unwrap();
    let (_, signature) = text.rsplit_once('.').unwrap();
    for (member, value) in [
        ("version", json!("2.1.1")),
        ("size", json!(10)),
        ("sha256", json!(SHA256.replace('1', "2"))),
        ("compatibility", json!({})),
        ("compatibility", json!({"model": "Kettle"})),
        ("iat", json!(NOW + 1)),
        ("exp", json!(NOW + 1_000_000)),
        ("floor", json!("1.0.0")),
    ] {
        let payload = Base64UrlUnpadded::encode_string(with(member, value).to_string().as_bytes());
        let failure = refused(&trust, &format!("{header}.{payload}.{signature}"));
        assert_eq!(failure.code, Code::Untrusted, "{failure}");
        assert!(failure.message.contains("it was altered"), "{failure}");
    }
}

#[test]
fn other_algorithms_and_headers_that_bring_their_own_trust() {
    let signer = Signer::ed25519(1);
    let trust = trust(1, &[&signer]);
    let payload = whole().to_string();
    let typ = Kind::Manifest.as_str();
    // Nobody signed: none, and the public key as a secret all know.
    let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    for (alg, signature) in [
        ("none", Vec::new()),
        (
            "HS256",
            ring::hmac::sign(
                &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.public.bytes()),
                format!(
                    "{}.{}",
                    encode(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#)),
                    encode(&payload)
                )
                .as_bytes(),
            )
            .as_ref()
            .to_vec(),
        ),
    ] {
        let header = encode(&format!(r#"{{"alg":"{alg}","typ":"{typ}"}}"#));
        let signature = Base64UrlUnpadded::encode_string(&signature);
        let text = format!("{header}.{}.{signature}", encode(&payload));
        assert_eq!(refused(&trust, &text).code, Code::Untrusted);
    }
    // The trusted key itself signed, but what it says of it is wrong, or more than may be said.
    let kid = signer.public.id();
    let other = Signer::ed25519(2).public.id();
    for (header, why) in [
        (format!(r#"{{"alg":"none","typ":"{typ}"}}"#), "alg none"),
        (format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), "alg ES256"),
        (format!(r#"{{"alg":"eddsa","typ":"{typ}"}}"#), "alg eddsa"),
        (format!(r#"{{"typ":"{typ}"}}"#), "missing field `alg`"),
        (r#"{"alg":"EdDSA"}"#.into(), "missing field `typ`"),
        (r#"{"alg":"EdDSA","typ":"JWT"}"#.into(), "typ JWT"),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{}"}}"#, Kind::Keys.as_str()),
            "typ twinflash-keys",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{other}"}}"#),
            "its header names key",
        ),
        (
            format!(r#"{{"alg":"EdDSA","alg":"EdDSA","typ":"{typ}"}}"#),
            "duplicate field `alg`",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","crit":["b64"],"b64":false}}"#),
            "unknown field `b64`",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","b64":false}}"#),
            "unknown field `b64`",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{kid}","jwk":{{}}}}"#),
            "unknown field `jwk`",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","jku":"https://h/"}}"#),
            "unknown field `jku`",
        ),
        (
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","x5c":[]}}"#),
            "unknown field `x5c`",
        ),
        ("[]".into(), "header may have"),
        (format!(r#"["EdDSA","{typ}",null]"#), "expected an object"),
        ("x".into(), "header may have"),
    ] {
        let failure = refused(&trust, &signer.with_header(&header, &payload));
        assert_eq!(failure.code, Code::ManifestInvalid, "{header}");
        assert!(failure.message.contains(why), "{header}: {failure}");
    }
    // An attacker's key, sent along.
    let attacker = Signer::ed25519(3);
    let x = Base64UrlUnpadded::encode_string(attacker.public.bytes());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let header = json!({"alg": "EdDSA", "typ": typ, "jwk": jwk}).to_string();
    let failure = refused(&trust, &attacker.with_header(&header, &payload));
    assert_eq!(failure.code, Code::Untrusted);
}

#[test]
fn a_manifest_s_own_form() {
    let signer = Signer::ed25519(1);
    let trust = trust(1, &[&signer]);
    let refused = |payload: &str, why: &str| {
        let text = signed(Kind::Manifest, &[&signer], payload.as_bytes());
        let failure = refused(&trust, &text);
        assert_eq!(failure.code, Code::ManifestInvalid, "{payload}");
        assert!(failure.message.contains(why), "{payload}: {failure}");
    };
    for member in ["version", "size", "sha256", "iat"] {
        let mut manifest = whole();
        manifest.as_object_mut().unwrap().remove(member);
        refused(&manifest.to_string(), &format!("missing field `{member}`"));
    }
    for (member, value, why) in [
        ("version", json!(2), "expected a string"),
        ("version", json!(""), "\"version\" must be"),
        ("version", json!("../../etc/passwd"), "\"version\" must be"),
        ("version", json!("/etc/passwd"), "\"version\" must be"),
        ("version", json!("-rf"), "\"version\" must be"),
        ("version", json!("2\n3"), "\"version\" must be"),
        ("version", json!("2".repeat(65)), "\"version\" must be"),
        ("size", json!(0), "\"size\" is 0"),
        ("size", json!(-1), "invalid value"),
        ("size", json!(9.0), "invalid type"),
        ("size", json!("9"), "invalid type"),
        ("sha256", Value::Null, "expected a string"),
        ("sha256", json!(""), "64 hexadecimal digits"),
        ("sha256", json!(&SHA256[1..]), "64 hexadecimal digits"),
        ("sha256", json!("crc16:31c3"), "64 hexadecimal digits"),
        ("iat", json!("2026"), "invalid type"),
        ("exp", json!(NOW), "does not come after"),
        ("exp", json!(0), "does not come after"),
        ("floor", json!("2.1.1"), "higher than its own version"),
        (
            "floor",
            json!("999999999999999999999"),
            "higher than its own version",
        ),
        ("floor", json!("../x"), "\"floor\" must be"),
        ("compatibility", json!([]), "is no manifest"),
        (
            "compatibility",
            json!({"model": 1}),
            "a text or a list of texts",
        ),
        (
            "compatibility",
            json!({"modell": "x"}),
            "unknown field `modell`",
        ),
        (
            "compression",
            json!("xz"),
            "unknown variant `xz`, expected `zstd` or `gzip`",
        ),
        (
            "encryption",
            json!("pgp"),
            "unknown variant `pgp`, expected `age`",
        ),
        (
            "download",
            json!({"size": 1}),
            "\"download\" is there, but nothing",
        ),
        ("notBefore", json!(1), "unknown field `notBefore`"),
    ] {
        refused(&with(member, value).to_string(), why);
    }
    // A member twice: which one counts must not depend on who reads it.
    for member in ["version", "size", "sha256", "iat", "exp", "floor"] {
        let twice = format!("{{\"{member}\":1,{}", &whole().to_string()[1..]);
        let twice = twice.replacen(":1,", &format!(":{},", whole()[member]), 1);
        refused(&twice, &format!("duplicate field `{member}`"));
    }
    let members = [
        &json!("1"),
        &json!(9),
        &json!(SHA256),
        &json!({}),
        &json!(NOW),
    ];
    refused(&json!(members).to_string(), "expected an object");
    for text in ["", "null", "[]", "\"x\"", "{}{}", "{\"version\""] {
        refused(text, "it is no manifest");
    }
    let deep = format!("{{\"download\":{}", "[".repeat(10_000));
    refused(&deep, "it is no manifest");
}

#[test]
fn texts_that_are_no_jws() {
    let signer = Signer::ed25519(1);
    let trust = trust(1, &[&signer]);
    let text = signer.manifest(&whole());
    let (header, rest) = text.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    for text in [
        String::new(),
        "x".into(),
        "..".into(),
        format!("{text}."),
        format!("{text}.x"),
        format!("{header}.{payload}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{signature}="),
        format!("{header}.{payload}\n.{signature}"),
        format!("{header}={}.{payload}.{signature}", ""),
        "x".repeat(MAX_LENGTH + 1),
        format!("{}{text}", " ".repeat(10)).replace('.', " ."),
        "{}".into(),
        "{".into(),
        json!({"payload": payload, "signatures": []}).to_string(),
        json!({"payload": payload, "protected": header, "signature": signature}).to_string(),
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature, "header": {}}]}).to_string(),
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}], "x": 1}).to_string(),
        json!({"payload": payload, "signatures": vec![json!({"protected": header, "signature": signature}); 17]}).to_string(),
        format!("{{\"payload\":\"{payload}\",\"payload\":\"{payload}\",\"signatures\":[{{\"protected\":\"{header}\",\"signature\":\"{signature}\"}}]}}"),
    ] {
        let failure = refused(&trust, &text);
        let codes = [Code::ManifestInvalid, Code::Untrusted];
        assert!(codes.contains(&failure.code), "{text}: {failure}");
    }
}

#[test]
fn too_few_signatures() {
    let [a, b, c, stranger] = [1, 2, 3, 4].map(Signer::ed25519);
    let trust = trust(2, &[&a, &b, &c]);
    let payload = whole().to_string();
    let open =
        |signers: &[&Signer]| trust.open(&signed(Kind::Manifest, signers, payload.as_bytes()));
    for signers in [
        &[&a, &b][..],
        &[&c, &a],
        &[&stranger, &b, &c],
        &[&a, &b, &c],
    ] {
        open(signers).unwrap();
    }
    for (signers, why) in [
        (&[&a][..], "signed by 1 trusted key; 2 are needed"),
        // One key that signs twice is one key.
        (&[&a, &a], "signed by 1 trusted key; 2 are needed"),
        (&[&a, &stranger], "signed by 1 trusted key; 2 are needed"),
        (&[&stranger, &stranger], "which is not trusted"),
    ] {
        let failure = open(signers).unwrap_err();
        assert_eq!(failure.code, Code::Untrusted);
        assert!(failure.message.contains(why), "{failure}");
    }
    // Signatures of two payloads do not add up.
    let one: Value =
        serde_json::from_str(&signed(Kind::Manifest, &[&a, &b], payload.as_bytes())).unwrap();
    let other = with("version", json!("3.0.0")).to_string();
    let mut two: Value =
        serde_json::from_str(&signed(Kind::Manifest, &[&a, &b], other.as_bytes())).unwrap();
    two["signatures"][0] = one["signatures"][0].clone();
    let failure = refused(&trust, &two.to_string());
    assert!(
        failure.message.contains("signed by 1 trusted key"),
        "{failure}"
    );
}

#[test]
fn a_revoked_key() {
    let (old, new) = (Signer::ed25519(1), Signer::ed25519(2));
    let keys = vec![old.public.clone(), new.public.clone()];
    let set = KeySet::new(1, 1, keys.clone(), vec![old.public.id()]).unwrap();
    let trust = Trust::new(set, Identity::default());
    trust.open(&new.manifest(&whole())).unwrap();
    let failure = refused(&trust, &old.manifest(&whole()));
    assert_eq!(failure.code, Code::Untrusted);
    let id = old.public.id();
    assert!(
        failure
            .message
            .contains(&format!("key {id} has signed it, which is revoked")),
        "{failure}"
    );
    // Fewer keys than must sign would let nothing in for ever.
    let failure = KeySet::new(1, 2, keys, vec![old.public.id()]).unwrap_err();
    assert_eq!(failure.code, Code::InvalidKey);
}

#[test]
fn at_another_time() {
    let mut manifest = Manifest::new("1.0".into(), 1, [0; 32], NOW);
    manifest.expires = Some(NOW + 1000);
    let check = |seconds: u64| manifest.check_time(seconds * 1000);
    check(NOW).unwrap();
    check(NOW + 999).unwrap();
    // Clocks differ.
    check(NOW - 600).unwrap();
    for (seconds, why) in [
        (
            NOW + 1000,
            "expired at 2026-11-21T00:16:40Z, and it is 2026-11-21T00:16:40Z",
        ),
        (NOW * 2, "expired at"),
        (
            NOW - 601,
            "was issued at 2026-11-21T00:00:00Z, and it is 2026-11-20T23:49:59Z",
        ),
        (0, "and it is 1970-01-01T00:00:00Z"),
    ] {
        let failure = check(seconds).unwrap_err();
        assert_eq!(failure.code, Code::Expired);
        assert!(failure.message.contains(why), "{failure}");
    }
    let mut manifest = Manifest::new("1.0".into(), 1, [0; 32], u64::MAX);
    manifest.check_time(u64::MAX).unwrap_err();
    manifest.issued = 0;
    manifest.check_time(u64::MAX).unwrap();
}

#[test]
fn below_the_floor() {
    let manifest = |version: &str| Manifest::new(version.into(), 1, [0; 32], NOW);
    for version in [
        "2.0.0",
        "2.0",
        "v2.0.0",
        "2.0.1",
        "10",
        "99999999999999999999999",
    ] {
        manifest(version).check_floor("2.0.0").unwrap();
    }
    for version in [
        "1.99999999999999999999999",
        "2.0.0-rc.1",
        "0",
        "1.9.9+build.3",
    ] {
        let failure = manifest(version).check_floor("2.0.0").unwrap_err();
        assert_eq!(failure.code, Code::VersionRefused);
        assert!(failure.message.contains("is lower than 2.0.0"), "{failure}");
    }
}

#[test]
fn of_another_device() {
    let signer = Signer::ed25519(1);
    let trust = trust(1, &[&signer]);
    let manifest = trust.open(&signer.manifest(&whole())).unwrap();
    let identity = |manufacturer: &str, model: &str, revision: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut identity = Identity::default();
        identity.manufacturer = some(manufacturer);
        identity.model = some(model);
        identity.hardware_revision = some(revision);
        identity
    };
    for model in ["Toaster", "Toaster Pro"] {
        manifest
            .check_device(&identity("Contoso", model, "B"))
            .unwrap();
    }
    for (device, why) in [
        (
            identity("Fabrikam", "Toaster", "B"),
            "for manufacturer Contoso; this device's is Fabrikam",
        ),
        (
            identity("Contoso", "Kettle", "B"),
            "for model Toaster, Toaster Pro; this device's is Kettle",
        ),
        (
            identity("Contoso", "toaster", "B"),
            "this device's is toaster",
        ),
        (
            identity("Contoso", "Toaster", "A"),
            "hardware revision B; this device's is A",
        ),
        (identity("Contoso", "", "B"), "has not been told its own"),
        (Identity::default(), "has not been told its own"),
    ] {
        let failure = manifest.check_device(&device).unwrap_err();
        assert_eq!(failure.code, Code::Incompatible);
        assert!(failure.message.contains(why), "{failure}");
    }
    let mut for_all = whole();
    for_all.as_object_mut().unwrap().remove("compatibility");
    let manifest = trust.open(&signer.manifest(&for_all)).unwrap();
    manifest.check_device(&Identity::default()).unwrap();
}

/// Costs what is signed by nobody no more than it must.
#[test]
fn many_signatures_and_keys_end() {
    let signers: Vec<_> = (0..32).map(Signer::ed25519).collect();
    let stranger = Signer::ed25519(99);
    let trust = trust(1, &signers.iter().collect::<Vec<_>>());
    let mut jws = Jws::new(whole().to_string().as_bytes());
    for _ in 0..16 {
        stranger.add_to(&mut jws, Kind::Manifest);
    }
    assert_eq!(refused(&trust, &jws.to_string()).code, Code::Untrusted);
}
