//! Key sets that take another one's place, and those that must not.

use crate::attacks::{refused, trust, whole};
use crate::signer::{Signer, key_set, signed};
use serde_json::{Map, Value, json};
use twinflash::update::{
    Code,
    trust::{KeySet, Kind},
};

/// The keys of a rotation, as JSON.
fn keys_json(version: u64, threshold: u32, signers: &[&Signer]) -> Value {
    serde_json::from_slice(&key_set(version, threshold, signers).to_json()).unwrap()
}

#[test]
fn a_rotation() {
    let [a, b, c, d] = [1, 2, 3, 4].map(Signer::ed25519);
    let mut trust = trust(2, &[&a, &b]);
    let next = keys_json(2, 1, &[&c]).to_string();
    let next = |signers: &[&Signer]| signed(Kind::Keys, signers, next.as_bytes());
    // Not by the new key, not by one of the old ones alone, not as a manifest.
    for (text, code) in [
        (next(&[&c]), Code::Untrusted),
        (next(&[&a, &c]), Code::Untrusted),
        (next(&[&d]), Code::Untrusted),
        (
            signed(
                Kind::Manifest,
                &[&a, &b],
                keys_json(2, 1, &[&c]).to_string().as_bytes(),
            ),
            Code::ManifestInvalid,
        ),
    ] {
        assert_eq!(trust.rotate(&text).unwrap_err().code, code);
    }
    assert_eq!(trust.keys.version(), 1);
    let rotation = next(&[&a, &b]);
    trust.rotate(&rotation).unwrap();
    assert_eq!((trust.keys.version(), trust.keys.threshold()), (2, 1));
    trust.open(&c.manifest(&whole())).unwrap();
    refused(
        &trust,
        &signed(Kind::Manifest, &[&a, &b], whole().to_string().as_bytes()),
    );
    // The same again, and back.
    trust.rotate(&rotation).unwrap_err();
    for version in [0, 1, 2] {
        let back = keys_json(version, 1, &[&c, &d]).to_string();
        let failure = trust
            .rotate(&signed(Kind::Keys, &[&c], back.as_bytes()))
            .unwrap_err();
        assert!(
            failure.message.contains("only one higher than 2"),
            "{failure}"
        );
    }
    // A manifest is no key set.
    let text = signed(Kind::Keys, &[&c], whole().to_string().as_bytes());
    assert_eq!(trust.rotate(&text).unwrap_err().code, Code::InvalidKey);
}

#[test]
fn a_key_set_that_would_lock_everybody_out_or_let_everybody_in() {
    let [a, b] = [1, 2].map(Signer::ed25519);
    let mut trust = trust(1, &[&a]);
    let good = keys_json(2, 1, &[&b]);
    let set = |member: &str, value: Value| {
        let mut set = good.clone();
        set[member] = value;
        set.to_string()
    };
    let key = good["keys"][0].clone();
    let mut without_threshold: Map<String, Value> = good.as_object().unwrap().clone();
    without_threshold.remove("threshold");
    for (text, why) in [
        (set("threshold", json!(0)), "a threshold of 0"),
        (set("threshold", json!(2)), "there are only 1"),
        (set("threshold", json!(-1)), "invalid value"),
        (set("keys", json!([])), "there are only 0"),
        (set("keys", json!([&key, &key])), "is there twice"),
        (set("keys", json!(["AAAA"])), "it is no public key"),
        (set("keys", json!(["!"])), "Base64"),
        (set("keys", json!(vec![key; 33])), "too many"),
        (set("revoked", json!([b.public.id()])), "there are only 0"),
        (set("revoked", json!(["12"])), "64 hexadecimal digits"),
        (set("expires", json!(1)), "unknown field `expires`"),
        (
            Value::from(without_threshold).to_string(),
            "missing field `threshold`",
        ),
    ] {
        let failure = trust
            .rotate(&signed(Kind::Keys, &[&a], text.as_bytes()))
            .unwrap_err();
        assert_eq!(failure.code, Code::InvalidKey, "{text}");
        assert!(failure.message.contains(why), "{text}: {failure}");
    }
    // What was revoked once stays so.
    let text = set("revoked", json!([a.public.id()]));
    trust
        .rotate(&signed(Kind::Keys, &[&a], text.as_bytes()))
        .unwrap();
    let back = keys_json(3, 1, &[&a]).to_string();
    let failure = trust
        .rotate(&signed(Kind::Keys, &[&b], back.as_bytes()))
        .unwrap_err();
    assert!(failure.message.contains("there are only 0"), "{failure}");
    let both = keys_json(3, 1, &[&a, &b]).to_string();
    trust
        .rotate(&signed(Kind::Keys, &[&b], both.as_bytes()))
        .unwrap();
    assert!(trust.keys.is_revoked(&a.public.id()));
    refused(&trust, &a.manifest(&whole()));
}

#[test]
fn the_newer_of_two_sets_counts_and_what_either_revokes_is_revoked() {
    let [a, b, c] = [1, 2, 3].map(Signer::ed25519);
    let set = |version, signers: &[&Signer], revoked: &[&Signer]| {
        let keys = signers.iter().map(|signer| signer.public.clone()).collect();
        let revoked = revoked.iter().map(|signer| signer.public.id()).collect();
        KeySet::new(version, 1, keys, revoked).unwrap()
    };
    let usable = |set: &KeySet| set.usable().map(|key| key.id()).collect::<Vec<_>>();
    let configured = set(1, &[&a, &b], &[&a]);
    let newer = configured.clone().newer_of(set(2, &[&a, &c], &[])).unwrap();
    assert_eq!((newer.version(), usable(&newer)), (2, vec![c.public.id()]));
    for version in [0, 1] {
        let kept = set(version, &[&c, &a], &[&c]);
        let newer = configured.clone().newer_of(kept).unwrap();
        assert_eq!((newer.version(), usable(&newer)), (1, vec![b.public.id()]));
        assert!(newer.is_revoked(&c.public.id()));
    }
    let failure = configured.newer_of(set(2, &[&a], &[])).unwrap_err();
    assert_eq!(failure.code, Code::InvalidKey);
}
