//! Keys and signatures made by the openssl command.

use crate::signer::Signer;
use serde_json::json;
use std::{fs, path::Path, process::Command};
use twinflash::update::trust::{
    Algorithm, Identity, Jws, KeySet, Kind, PublicKey, Ring, Trust, Verifier,
};

fn openssl(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("the openssl command is needed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    output.stdout
}

#[test]
fn keys_and_signatures() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let payload =
        json!({"version": "1.0.0", "size": 1, "sha256": "00".repeat(32), "iat": 0}).to_string();
    for (algorithm, new, sign) in [
        (
            Algorithm::EdDsa,
            &["-algorithm", "ed25519"][..],
            &[
                "pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "message",
            ][..],
        ),
        (
            Algorithm::Es256,
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            &["dgst", "-sha256", "-sign", "key", "message"],
        ),
        (
            Algorithm::Rs256,
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            &["dgst", "-sha256", "-sign", "key", "message"],
        ),
    ] {
        openssl(at, &[&["genpkey", "-out", "key"], new].concat());
        let pem = openssl(at, &["pkey", "-in", "key", "-pubout"]);
        let key = PublicKey::from_pem(str::from_utf8(&pem).unwrap())
            .unwrap()
            .remove(0);
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.to_pem().as_bytes(), pem);
        // The id as its documentation says to compute it.
        fs::write(at.join("public"), &pem).unwrap();
        openssl(
            at,
            &[
                "pkey", "-pubin", "-in", "public", "-outform", "DER", "-out", "der",
            ],
        );
        let digest = openssl(at, &["dgst", "-sha256", "-r", "der"]);
        let digest = String::from_utf8(digest).unwrap();
        assert_eq!(
            digest.split(' ').next(),
            Some(key.id().to_string().as_str())
        );

        let mut jws = Jws::new(payload.as_bytes());
        let (protected, message) = jws.to_sign(Kind::Manifest, &key);
        fs::write(at.join("message"), message).unwrap();
        let signature = openssl(at, sign);
        jws.add(protected, &algorithm.jws_signature(&signature).unwrap());
        let keys = KeySet::new(1, 1, vec![key], vec![]).unwrap();
        let manifest = Trust::new(keys, Identity::default())
            .open(&jws.to_string())
            .unwrap();
        assert_eq!(manifest.version, "1.0.0");
    }

    // PSS with the same key and hash is another algorithm.
    let pem = openssl(at, &["pkey", "-in", "key", "-pubout"]);
    let key = PublicKey::from_pem(str::from_utf8(&pem).unwrap())
        .unwrap()
        .remove(0);
    let message = fs::read(at.join("message")).unwrap();
    let pss = openssl(
        at,
        &[
            "dgst",
            "-sha256",
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sign",
            "key",
            "message",
        ],
    );
    assert!(!Ring.verify(&key, &message, &pss));
    // The same key signs here.
    openssl(
        at,
        &[
            "pkcs8", "-topk8", "-nocrypt", "-in", "key", "-outform", "DER", "-out", "pkcs8",
        ],
    );
    let signer = Signer::rsa(&fs::read(at.join("pkcs8")).unwrap());
    assert_eq!(signer.public, key);
    assert!(Ring.verify(&key, &message, &signer.sign_bytes(&message)));
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (new, why) in [
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..],
            "its elliptic curve is not P-256",
        ),
        (
            &[
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:secp256k1",
            ],
            "its elliptic curve is not P-256",
        ),
        (
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
            "an RSA key of 1024 bits",
        ),
        (&["-algorithm", "X25519"], "1.3.101.110 is not supported"),
        (&["-algorithm", "ed448"], "1.3.101.113 is not supported"),
    ] {
        openssl(at, &[&["genpkey", "-out", "key"], new].concat());
        let pem = openssl(at, &["pkey", "-in", "key", "-pubout"]);
        let failure = PublicKey::from_pem(str::from_utf8(&pem).unwrap()).unwrap_err();
        assert!(failure.message.contains(why), "{failure}");
    }
    openssl(
        at,
        &[
            "genpkey",
            "-out",
            "key",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ],
    );
    let pem = openssl(
        at,
        &["ec", "-in", "key", "-pubout", "-conv_form", "compressed"],
    );
    let failure = PublicKey::from_pem(str::from_utf8(&pem).unwrap()).unwrap_err();
    assert!(
        failure.message.contains("-conv_form uncompressed"),
        "{failure}"
    );
}
