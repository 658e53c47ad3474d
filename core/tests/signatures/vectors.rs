//! The RFCs' own examples, and the Wycheproof project's vectors.

use base64ct::{Base64UrlUnpadded, Encoding as _};
#[cfg(feature = "rustcrypto")]
use twinflash::update::trust::RustCrypto;
use twinflash::update::{
    Code,
    trust::{Algorithm, Jws, KeySet, Kind, PublicKey, Ring, Verifier},
};
use wycheproof::TestResult;

/// Each verifier, and whether it knows RSA.
fn verifiers() -> Vec<(&'static dyn Verifier, bool)> {
    vec![
        (&Ring, true),
        #[cfg(feature = "rustcrypto")]
        (&RustCrypto, false),
    ]
}

fn bytes(text: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text).unwrap()
}

/// A right signature gets as far as its header, which is not a manifest's; an altered one does not.
fn example(key: &PublicKey, jws: &str, verifier: &dyn Verifier) {
    let keys = KeySet::new(1, 1, vec![key.clone()], vec![]).unwrap();
    let open = |text: &str| {
        let jws = Jws::parse(text).unwrap();
        jws.verified(Kind::Manifest, &keys, verifier).unwrap_err()
    };
    let failure = open(jws);
    assert_eq!(failure.code, Code::ManifestInvalid, "{failure}");
    assert!(failure.message.contains("missing field `typ`"), "{failure}");
    let (message, signature) = jws.rsplit_once('.').unwrap();
    let mut signature = bytes(signature);
    signature[10] ^= 1;
    let altered = format!("{message}.{}", Base64UrlUnpadded::encode_string(&signature));
    assert_eq!(open(&altered).code, Code::Untrusted);
}

/// RFC 8037, appendix A.4.
#[test]
fn rfc_8037_ed25519() {
    let x = bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let key = PublicKey::from_bytes(Algorithm::EdDsa, &x).unwrap();
    let jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
        hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    for (verifier, _) in verifiers() {
        example(&key, jws, verifier);
    }
}

/// RFC 7515, appendix A.3.
#[test]
fn rfc_7515_es256() {
    let mut point = vec![4];
    point.extend(bytes("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"));
    point.extend(bytes("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
    let key = PublicKey::from_bytes(Algorithm::Es256, &point).unwrap();
    let jws = "eyJhbGciOiJFUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (verifier, _) in verifiers() {
        example(&key, jws, verifier);
    }
}

/// RFC 7515, appendix A.2.
#[test]
fn rfc_7515_rs256() {
    let n = bytes(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
         T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
         dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
         GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    // RSAPublicKey: a sequence of the modulus and of 65537.
    let mut key = vec![0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    key.extend(n);
    key.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let key = PublicKey::from_bytes(Algorithm::Rs256, &key).unwrap();
    let jws = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
        uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
        _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
        Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    example(&key, jws, &Ring);
}

/// Judges one vector by each verifier.
fn judge(key: &PublicKey, id: usize, message: &[u8], signature: &[u8], expected: &TestResult) {
    let rsa = key.algorithm() == Algorithm::Rs256;
    for (verifier, knows_rsa) in verifiers() {
        let valid = verifier.verify(key, message, signature);
        match expected {
            TestResult::Valid => assert_eq!(valid, !rsa || knows_rsa, "{verifier:?} {id}"),
            TestResult::Invalid => assert!(!valid, "{verifier:?} {id}"),
            TestResult::Acceptable => {}
        }
    }
}

#[test]
fn wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut judged = 0;
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        assert_eq!(PublicKey::from_pem(&group.pem).unwrap()[0], key);
        for test in group.tests {
            judge(&key, test.tc_id, &test.msg, &test.sig, &test.result);
            judged += 1;
        }
    }
    assert!(judged > 140, "{judged}");
}

#[test]
fn wycheproof_ecdsa_p256() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut judged = 0;
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        for test in group.tests {
            judge(&key, test.tc_id, &test.msg, &test.sig, &test.result);
            judged += 1;
        }
    }
    assert!(judged > 250, "{judged}");
}

/// DER becomes r and s, and never makes a wrong signature right.
#[test]
fn wycheproof_ecdsa_p256_in_der() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        for test in group.tests {
            let signature = Algorithm::Es256.jws_signature(&test.sig);
            match (signature, test.result) {
                (Some(signature), result) => {
                    judge(&key, test.tc_id, &test.msg, &signature, &result);
                    valid += usize::from(result == TestResult::Valid);
                }
                (None, result) => {
                    assert_eq!(result, TestResult::Invalid);
                    invalid += 1;
                }
            }
        }
    }
    assert!(valid > 150 && invalid > 50, "{valid} {invalid}");
}

#[test]
fn wycheproof_rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut judged = 0;
    for name in [
        TestName::Rsa2048Sha256,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha256,
        TestName::Rsa8192Sha256,
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_spki(&group.der).unwrap();
            for test in group.tests {
                judge(&key, test.tc_id, &test.msg, &test.sig, &test.result);
                judged += 1;
            }
        }
    }
    assert!(judged > 900, "{judged}");
}

/// A right signature of another hash is none of ours.
#[test]
fn other_algorithms_of_the_same_keys() {
    use wycheproof::{ecdsa, rsa_pkcs1_verify as rsa};
    let set = rsa::TestSet::load(rsa::TestName::Rsa2048Sha512).unwrap();
    let mut judged = 0;
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        let right = |test: &&rsa::Test| test.result == TestResult::Valid;
        for test in group.tests.iter().filter(right) {
            judge(&key, test.tc_id, &test.msg, &test.sig, &TestResult::Invalid);
            judged += 1;
        }
    }
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha512P1363).unwrap();
    for group in set.test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        let right = |test: &&ecdsa::Test| test.result == TestResult::Valid;
        for test in group.tests.iter().filter(right) {
            judge(&key, test.tc_id, &test.msg, &test.sig, &TestResult::Invalid);
            judged += 1;
        }
    }
    assert!(judged > 100, "{judged}");
    let curve = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp384r1Sha384).unwrap();
    let failure = PublicKey::from_spki(&curve.test_groups[0].der).unwrap_err();
    assert_eq!(failure.message, "its elliptic curve is not P-256");
}
