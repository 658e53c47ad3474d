//! Keys that sign.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use ring::{
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use serde_json::Value;
use twinflash::update::trust::{Algorithm, Jws, KeySet, Kind, PublicKey};

/// A private key, and the public one.
pub struct Signer {
    pair: Pair,
    pub public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    /// An Ed25519 key; the same for the same number.
    pub fn ed25519(number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        Self::new(Pair::Ed25519(pair))
    }

    /// Another P-256 key each time.
    pub fn p256() -> Self {
        let (algorithm, random) = (
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &SystemRandom::new(),
        );
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), random).unwrap();
        Self::new(Pair::P256(pair))
    }

    /// An RSA key of a PKCS#8 file.
    pub fn rsa(pkcs8: &[u8]) -> Self {
        Self::new(Pair::Rsa(RsaKeyPair::from_pkcs8(pkcs8).unwrap()))
    }

    fn new(pair: Pair) -> Self {
        let public = match &pair {
            Pair::Ed25519(pair) => {
                PublicKey::from_bytes(Algorithm::EdDsa, pair.public_key().as_ref())
            }
            Pair::P256(pair) => PublicKey::from_bytes(Algorithm::Es256, pair.public_key().as_ref()),
            Pair::Rsa(pair) => PublicKey::from_bytes(Algorithm::Rs256, pair.public_key().as_ref()),
        };
        Self {
            pair,
            public: public.unwrap(),
        }
    }

    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().into(),
            Pair::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().into()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let (padding, random) = (&signature::RSA_PKCS1_SHA256, &SystemRandom::new());
                pair.sign(padding, random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// Adds this key's signature.
    pub fn add_to(&self, jws: &mut Jws, kind: Kind) {
        let (protected, message) = jws.to_sign(kind, &self.public);
        jws.add(protected, &self.sign_bytes(&message));
    }

    /// A compact JWS with any header, right or wrong.
    pub fn with_header(&self, header: &str, payload: &str) -> String {
        let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
        let message = format!("{}.{}", encode(header), encode(payload));
        let signature = self.sign_bytes(message.as_bytes());
        let signature = Base64UrlUnpadded::encode_string(&signature);
        format!("{message}.{signature}")
    }

    /// A manifest of any content, right or wrong.
    pub fn manifest(&self, payload: &Value) -> String {
        signed(Kind::Manifest, &[self], payload.to_string().as_bytes())
    }
}

/// A document that these keys have signed.
pub fn signed(kind: Kind, signers: &[&Signer], payload: &[u8]) -> String {
    let mut jws = Jws::new(payload);
    for signer in signers {
        signer.add_to(&mut jws, kind);
    }
    jws.to_string()
}

/// These keys, of which so many must sign.
pub fn key_set(version: u64, threshold: u32, signers: &[&Signer]) -> KeySet {
    let keys = signers.iter().map(|signer| signer.public.clone()).collect();
    KeySet::new(version, threshold, keys, Vec::new()).unwrap()
}
