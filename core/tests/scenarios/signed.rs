//! What the owner of a device has who signs: keys, manifests, and images in the forms in which a server may have them.

use super::support::signer::Signer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::SystemTime,
};
use twinflash::age::{Encryptor, Identities, Identity, Recipient};

/// What the device decrypts by; a secret that everybody knows: that of the format's test vectors.
const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
/// A piece of it: where this is, the secret is.
pub(super) const PIECE: &str = "YV6270LXYVK2VKNX2MMDKW";
const MODEL: &str = "Toaster";

fn owner() -> Signer {
    Signer::ed25519(1)
}

/// The table `trust` of a device that decrypts, too. Its key lies in this directory.
pub(super) fn trust(directory: &Path) -> Value {
    let file = directory.join("identity");
    fs::write(&file, IDENTITY).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    json!({"keys": [owner().public.to_pem()], "model": MODEL, "decryption_key": file})
}

/// The manifests of an image, by the name of the file each is for.
pub(super) fn manifests(name: &str, image: &[u8]) -> BTreeMap<String, String> {
    let forms = [
        ("", json!({})),
        (".age", json!({"encryption": "age"})),
        (".gz", json!({"compression": "gzip"})),
        (".zst", json!({"compression": "zstd"})),
    ];
    let signed = forms.into_iter().map(|(form, how)| {
        let mut claims = claims(image);
        twinflash::twin::merge(&mut claims, &how);
        (format!("{name}{form}"), owner().manifest(&claims))
    });
    signed.collect()
}

fn claims(image: &[u8]) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    json!({
        "version": "2.0.0",
        "size": image.len(),
        "sha256": base16ct::lower::encode_string(&Sha256::digest(image)),
        "compatibility": {"model": MODEL},
        "iat": now - 60,
        "exp": now + 3600,
    })
}

/// An image, encrypted for the device and for others only, and packed.
pub(super) fn forms(name: &str, image: &[u8]) -> [(String, Vec<u8>); 4] {
    let ours = Identities::from_text(IDENTITY).unwrap().recipients()[0];
    let other = Identity::generate().unwrap().recipient();
    [
        (format!("{name}.age"), encrypted(ours, image)),
        (format!("{name}.others.age"), encrypted(other, image)),
        (format!("{name}.gz"), gzip(image).unwrap()),
        (format!("{name}.zst"), zstd(image)),
    ]
}

fn encrypted(to: Recipient, image: &[u8]) -> Vec<u8> {
    let mut encryptor = Encryptor::new(&[to], Vec::new()).unwrap();
    encryptor.write_all(image).unwrap();
    encryptor.finish().unwrap()
}

fn gzip(image: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(image)?;
    encoder.finish()
}

fn zstd(image: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; zstd_safe::compress_bound(image.len())];
    let length = zstd_safe::compress(&mut packed[..], image, 1).unwrap();
    packed.truncate(length);
    packed
}

#[test]
fn the_piece_is_of_the_identity() {
    let identity = Identities::from_text(IDENTITY).unwrap();
    assert_eq!(identity.recipients().len(), 1);
    assert!(IDENTITY.contains(PIECE));
}
