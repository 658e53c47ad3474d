//! Keys as their owner's files have them.

use crate::signer::Signer;
use base64ct::{Base64, Encoding as _};
use twinflash::update::{
    Code,
    trust::{Algorithm, KeyId, PublicKey},
};

fn refused(pem: &str, why: &str) {
    let failure = PublicKey::from_pem(pem).unwrap_err();
    assert_eq!(failure.code, Code::InvalidKey);
    assert!(failure.message.contains(why), "{failure}");
}

#[test]
fn read_as_written() {
    let keys = [Signer::ed25519(1).public, Signer::p256().public];
    let mut file = String::from("# the keys of the toasters\n");
    for key in &keys {
        assert_eq!(&PublicKey::from_pem(&key.to_pem()).unwrap()[0], key);
        let json = serde_json::to_string(key).unwrap();
        assert_eq!(&serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        let id = key.id();
        assert_eq!(KeyId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(KeyId::parse(&id.to_string().to_uppercase()).unwrap(), id);
        file.push_str(&key.to_pem());
        file.push_str("a comment, and an empty line\r\n\n");
    }
    assert_eq!(PublicKey::from_pem(&file).unwrap(), keys);
    let windows = file.replace('\n', "\r\n");
    assert_eq!(PublicKey::from_pem(&windows).unwrap(), keys);
    for text in ["", "12", &"g".repeat(64)] {
        assert_eq!(KeyId::parse(text).unwrap_err().code, Code::InvalidKey);
    }
}

#[test]
fn what_is_no_public_key_is_named_and_not_shown() {
    let secret = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp";
    let block = |label: &str| format!("-----BEGIN {label}-----\n{secret}\n-----END {label}-----\n");
    for (text, why) in [
        (String::new(), "there is no key in it"),
        (secret.into(), "there is no key in it"),
        (block("PRIVATE KEY"), "openssl pkey -in FILE -pubout"),
        (block("ENCRYPTED PRIVATE KEY"), "a private key"),
        (block("EC PRIVATE KEY"), "a private key"),
        (block("CERTIFICATE"), "openssl x509"),
        (block("RSA PUBLIC KEY"), "openssl rsa -RSAPublicKey_in"),
        (block("OPENSSH PRIVATE KEY"), "something else"),
        (block("PUBLIC KEY"), "it is no"),
        ("-----BEGIN PUBLIC KEY-----".into(), "it is no PEM"),
        ("-----BEGIN PUBLIC KEY".into(), "something else"),
        (block("PUBLIC KEY").replace("MC4", "!!!"), "it is no PEM"),
        (
            format!(
                "{}{}",
                Signer::ed25519(1).public.to_pem(),
                block("PRIVATE KEY")
            ),
            "a private key",
        ),
    ] {
        refused(&text, why);
        let failure = PublicKey::from_pem(&text).unwrap_err();
        assert!(!failure.message.contains("MC4C"), "{failure}");
    }
}

#[test]
fn a_key_that_can_verify_nothing_is_refused_at_once() {
    for (algorithm, key) in [
        (Algorithm::EdDsa, vec![0; 31]),
        (Algorithm::EdDsa, vec![]),
        (Algorithm::Es256, vec![4; 64]),
        // Compressed, and the point at infinity.
        (Algorithm::Es256, vec![2; 33]),
        (Algorithm::Es256, vec![0]),
        (Algorithm::Rs256, vec![]),
        (Algorithm::Rs256, vec![0x30, 0]),
        // A modulus of 16 bits.
        (Algorithm::Rs256, vec![0x30, 7, 2, 2, 0x7f, 0xff, 2, 1, 3]),
    ] {
        let failure = PublicKey::from_bytes(algorithm, &key).unwrap_err();
        assert_eq!(failure.code, Code::InvalidKey, "{algorithm} {key:?}");
    }
}

#[test]
fn every_byte_of_a_key_counts() {
    let key = Signer::p256().public;
    let json = serde_json::to_string(&key).unwrap();
    let der = Base64::decode_vec(json.trim_matches('"')).unwrap();
    assert_eq!(PublicKey::from_spki(&der).unwrap(), key);
    for length in 0..der.len() {
        PublicKey::from_spki(&der[..length]).unwrap_err();
    }
    PublicKey::from_spki(&[&der[..], &[0]].concat()).unwrap_err();
    for place in 0..der.len() {
        let mut altered = der.clone();
        altered[place] ^= 1;
        // Another point, perhaps none of the curve: another key in any case.
        if let Ok(other) = PublicKey::from_spki(&altered) {
            assert_ne!(other.id(), key.id());
            assert_ne!(other.bytes(), key.bytes());
        }
    }
}
