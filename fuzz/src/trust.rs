//! Who vouches for images: signed documents, manifests, key sets and keys.

use crate::device::Choices;
use crate::values::is_one_line;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;
use twinflash::{
    contract::Contract,
    engine::{Config, Engine, Input, Now, Output, Step, Stored},
    update::{
        Checks, Ended, ImageState, Policy, Restart,
        trust::{
            Algorithm, Identity, Jws, KeyId, KeySet, Kind, Manifest, PublicKey, Trust, Verifier,
        },
    },
};

/// Signs and verifies by a digest: what is fuzzed is all around the arithmetic. Nobody comes by such a
/// signature by chance.
#[derive(Debug)]
struct ByDigest;

fn sign(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let digest = Sha256::new()
        .chain_update(key.bytes())
        .chain_update(message);
    digest.finalize().to_vec()
}

impl Verifier for ByDigest {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        sign(key, message) == signature
    }
}

/// 2027-01-15
const WALL: u64 = 1_800_000_000_000;

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes(Algorithm::EdDsa, &[number; 32]).expect("32 bytes are a key")
}

/// Of the keys 1, 2, 3 and 4 the last one is revoked, and another one is not there.
fn keys(threshold: u32) -> KeySet {
    let keys = [1, 2, 3, 4].map(key).into();
    KeySet::new(1, threshold, keys, vec![key(4).id()]).expect("a key set")
}

fn signed(kind: Kind, payload: &[u8], by: &[u8]) -> String {
    let mut jws = Jws::new(payload);
    for number in by {
        let (protected, message) = jws.to_sign(kind, &key(*number));
        jws.add(protected, &sign(&key(*number), &message));
    }
    jws.to_string()
}

/// A JWS as it comes, and one put together: a header a line, each signed, then an empty line and
/// the payload. It is taken only where enough trusted keys have signed, each under a header of theirs.
pub(crate) fn jws(data: &[u8]) {
    let (mut choices, rest) = Choices::split(data);
    let text = String::from_utf8_lossy(rest);
    let threshold = 1 + u32::from(choices.below(3));
    let kind = if choices.below(2) == 0 {
        Kind::Manifest
    } else {
        Kind::Keys
    };
    let set = keys(threshold);
    match Jws::parse(&text) {
        Ok(jws) => {
            let again = Jws::parse(&jws.to_string());
            assert_eq!(again.as_ref(), Ok(&jws), "read as it is written");
            let refused = jws.verified(kind, &set, &ByDigest);
            is_one_line(&refused.expect_err("nobody has signed it"));
        }
        Err(failure) => is_one_line(&failure),
    }
    let (headers, payload) = text.split_once("\n\n").unwrap_or((&text, "{}"));
    let body = base64url(payload.as_bytes());
    let (mut signatures, mut good) = (Vec::new(), BTreeSet::new());
    for header in headers.lines().take(20) {
        let number = choices.below(6);
        let protected = base64url(header.as_bytes());
        let message = format!("{protected}.{body}");
        let signature = sign(&key(number), message.as_bytes());
        signatures.push(json!({"protected": protected, "signature": base64url(&signature)}));
        if matches!(number, 1..=3) && is_header(header, kind, &key(number)) {
            good.insert(number);
        }
    }
    let document = json!({"payload": body, "signatures": signatures}).to_string();
    let opened = Jws::parse(&document).and_then(|jws| jws.verified(kind, &set, &ByDigest));
    match opened {
        Ok(opened) => {
            assert_eq!(opened, payload.as_bytes());
            assert!(
                good.len() >= threshold as usize,
                "{good:?} of {threshold}: {document}"
            );
        }
        Err(failure) => is_one_line(&failure),
    }
}

/// Whether a header says what it must, told in another way than there.
fn is_header(header: &str, kind: Kind, key: &PublicKey) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_str(header) else {
        return false;
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let kid = members.get("kid").is_none_or(|kid| {
        kid.is_null() || kid.as_str().and_then(|kid| KeyId::parse(kid).ok()) == Some(key.id())
    });
    matches!(text("alg"), Some("EdDSA" | "Ed25519")) && text("typ") == Some(kind.as_str()) && kid
}

/// A manifest's payload, signed as it must be. Nothing is fetched but what it vouches for, for this
/// device and now; and what comes is not installed where it is something else.
pub(crate) fn manifest(data: &[u8]) {
    let (mut choices, payload) = Choices::split(data);
    let mut identity = Identity::default();
    if choices.below(2) == 1 {
        identity.manufacturer = Some("maker".into());
        identity.model = Some("model".into());
    }
    let text = signed(Kind::Manifest, payload, &[1]);
    let trust = Trust::with_verifier(keys(1), identity.clone(), &ByDigest);
    let good = trust.open(&text).and_then(|manifest| {
        let again = manifest
            .to_json()
            .and_then(|json| Manifest::from_json(&json));
        assert_eq!(again.as_ref(), Ok(&manifest), "read as it is written");
        manifest.check_device(&identity)?;
        manifest.check_time(WALL)?;
        manifest.check_floor("1.0.0")?;
        Ok(manifest)
    });
    if let Err(failure) = &good {
        is_one_line(failure);
    }
    let jobs = ask(&text, trust.clone());
    match &good {
        Ok(manifest) if manifest.size <= Policy::default().max_size => {
            assert_eq!(
                jobs,
                [Some(manifest.size)],
                "what is vouched for is fetched"
            );
        }
        _ => assert_eq!(jobs, [], "{good:?}"),
    }
    // The same words, and nobody has signed them.
    assert_eq!(
        ask(&signed(Kind::Manifest, payload, &[4, 5]), trust.clone()),
        []
    );
    assert_eq!(ask(&signed(Kind::Keys, payload, &[1]), trust.clone()), []);
    if !payload.trim_ascii().is_empty() {
        assert_eq!(ask(&String::from_utf8_lossy(payload), trust), []);
    }
}

/// Asks an engine for an image with this manifest. The answer is the sizes of what it fetches. What
/// comes is never what was asked for.
fn ask(manifest: &str, trust: Trust) -> Vec<Option<u64>> {
    let mut policy = Policy::default();
    policy.floor = Some("1.0.0".into());
    let mut engine = Engine::new(Config {
        contract: Contract::built_in("iothub-dm").expect("a built-in contract"),
        policy,
        current_version: None,
        restart: Restart::None,
        boot_id: String::new(),
        installer: None,
        seed: 0,
    });
    engine.set_trust(trust);
    let (now, mut jobs) = (
        Now {
            monotonic: Duration::ZERO,
            wall: Some(WALL),
        },
        Vec::new(),
    );
    let boot = Input::Boot {
        stored: Stored::Empty,
        image: ImageState::Old,
    };
    engine.handle(boot, now);
    let uri = "https://host/image";
    let payload = json!({"fwPackageUri": uri, "fwManifest": manifest}).to_string();
    let (id, name) = (1, "firmwareUpdate");
    engine.handle(
        Input::Method {
            id,
            name,
            payload: payload.as_bytes(),
        },
        now,
    );
    for seconds in 0..3 {
        let now = Now {
            monotonic: Duration::from_secs(10 * seconds),
            ..now
        };
        engine.handle(Input::Tick, now);
        while let Some(output) = engine.poll() {
            match output {
                Output::Download(job, _) => {
                    jobs.push(job.size);
                    let digests = Checks::new().finish();
                    let ended = Ended::Complete {
                        bytes: job.size.unwrap_or_default(),
                        digests,
                    };
                    engine.handle(Input::TransferEnded(ended), now);
                }
                Output::Install(Step::Finish | Step::Activate) => panic!("installed: {manifest}"),
                Output::Answer { status, .. } => assert!(matches!(status, 200 | 400)),
                _ => {}
            }
        }
    }
    jobs
}

/// A key set, and keys in each form. A rotation is taken only where it is of a higher version, and
/// brings back no key that was revoked.
pub(crate) fn key_set(data: &[u8]) {
    let (mut choices, rest) = Choices::split(data);
    let text = String::from_utf8_lossy(rest);
    if let Ok(set) = serde_json::from_slice::<KeySet>(rest) {
        let again = serde_json::from_slice::<KeySet>(&set.to_json());
        assert_eq!(again.ok().as_ref(), Some(&set), "read as it is written");
        let usable = set.usable().count();
        assert!(usable <= 32 && usable >= set.threshold() as usize && set.threshold() > 0);
        assert!(set.usable().all(|key| !set.is_revoked(&key.id())));
    }
    let trusted = keys(1 + u32::from(choices.below(2)));
    let by: &[u8] = [&[1][..], &[1, 2], &[1, 4], &[5, 5]][usize::from(choices.below(4))];
    let good = by.iter().filter(|number| **number < 4).count() >= trusted.threshold() as usize;
    match trusted.rotate(&signed(Kind::Keys, rest, by), &ByDigest) {
        Ok(next) => {
            assert!(good, "too few have signed");
            assert!(next.version() > trusted.version());
            assert!(next.is_revoked(&key(4).id()), "what is revoked stays so");
            assert!(next.usable().count() >= next.threshold() as usize);
            let kept = trusted.clone().newer_of(next.clone());
            assert_eq!(kept, Ok(next));
        }
        Err(failure) => is_one_line(&failure),
    }
    let (pem, der) = (PublicKey::from_pem(&text), PublicKey::from_spki(rest));
    let parsed = serde_json::from_value::<PublicKey>(text.trim().into()).ok();
    for failure in [pem.as_ref().err(), der.as_ref().err()]
        .into_iter()
        .flatten()
    {
        is_one_line(failure);
    }
    let keys = pem.into_iter().flatten().chain(der).chain(parsed);
    for key in keys {
        assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(vec![key.clone()]));
        assert_eq!(
            PublicKey::from_bytes(key.algorithm(), key.bytes()),
            Ok(key.clone())
        );
        assert_eq!(KeyId::parse(&key.id().to_string()), Ok(key.id()));
    }
    if let Err(failure) = KeyId::parse(text.trim()) {
        is_one_line(&failure);
    }
}

fn base64url(bytes: &[u8]) -> String {
    let document = serde_json::to_value(Jws::new(bytes)).expect("JSON");
    document["payload"].as_str().expect("a payload").into()
}
