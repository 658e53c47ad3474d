//! Who vouches for images.

use crate::update::Compression;
use crate::update::trust::{Algorithm, Identity, Jws, KeySet, Kind, Manifest, PublicKey, Trust};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn public() -> PublicKey {
    PublicKey::from_bytes(Algorithm::EdDsa, pair().public_key().as_ref()).unwrap()
}

/// What a device trusts.
pub(in super::super) fn trust() -> Trust {
    let keys = KeySet::new(1, 1, vec![public()], Vec::new()).unwrap();
    Trust::new(keys, Identity::default())
}

/// An image's manifest: once it is confirmed, nothing older is taken any more.
pub(super) fn manifest(image: &[u8], version: &str, packed: Option<Compression>) -> String {
    let (size, sha256) = (image.len() as u64, Sha256::digest(image).into());
    let mut manifest = Manifest::new(version.into(), size, sha256, 1_799_000_000);
    manifest.floor = Some(version.into());
    manifest.compression = packed;
    let mut jws = Jws::new(&manifest.to_json().unwrap());
    let (protected, message) = jws.to_sign(Kind::Manifest, &public());
    jws.add(protected, pair().sign(&message).as_ref());
    jws.to_string()
}
