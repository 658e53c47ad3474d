//! Encrypted images: the format of [age](https://age-encryption.org/v1), as far as they need it.
//!
//! A file is encrypted by a key of its own, and that key for each of its recipients (X25519): a few devices, or a
//! fleet that shares an identity. What follows the header is a row of chunks of 64 KiB, each of them authenticated,
//! in its place, the last as the last. So it is decrypted while it comes, and a download can go on at any chunk.
//!
//! Who encrypts proves nothing by it, for anybody can encrypt to a recipient: what an image must be, its signed
//! manifest says, and that alone makes a device decrypt one.
//!
//! ```
//! # use std::io::Write;
//! use twinflash::age::{Encryptor, Identities, Identity};
//! let identity = Identity::generate()?;
//! let mut encryptor = Encryptor::new(&[identity.recipient()], Vec::new())?;
//! encryptor.write_all(b"an image")?;
//! let file = encryptor.finish()?;
//! assert!(file.starts_with(b"age-encryption.org/v1\n-> X25519 "));
//!
//! // What `age-keygen` writes is read.
//! let identities = Identities::from_text(&format!("# a comment\n{}\n", identity.to_text()))?;
//! assert_eq!(identities.recipients()[0], identity.recipient());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod header;
mod keys;
mod open;
mod seal;
#[cfg(test)]
mod tests;

pub use keys::{Identities, Identity, Recipient};
pub use open::{Decryptor, Wrong};
pub use seal::Encryptor;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
};

/// Of what is encrypted in one chunk; the last may be shorter.
const CHUNK: usize = 64 * 1024;
/// What authenticates a chunk.
const TAG: usize = 16;
/// Before the first chunk.
const NONCE: usize = 16;
const FILE_KEY: usize = 16;

/// HKDF-SHA-256, of 32 bytes.
fn derived(secret: &[u8], salt: &[u8], info: &str) -> [u8; 32] {
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let mut out = [0; 32];
    let info = [info.as_bytes()];
    if let Ok(okm) = key.expand(&info, hkdf::HKDF_SHA256) {
        // It is as long as it says.
        let _ = okm.fill(&mut out);
    }
    out
}

/// What authenticates a header.
fn mac_key(file_key: &[u8; FILE_KEY]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derived(file_key, &[], "header"))
}

/// ChaCha20-Poly1305 with a key that is used for nothing else.
struct Aead(LessSafeKey);

impl Aead {
    /// `None` cannot be: a key has 32 bytes.
    fn new(key: &[u8; 32]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Of a file's chunks.
    fn of_payload(file_key: &[u8; FILE_KEY], nonce: &[u8; NONCE]) -> Option<Self> {
        Self::new(&derived(file_key, nonce, "payload"))
    }

    /// Decrypts in place: what was encrypted, or nothing where it was not by this key.
    fn open<'a>(&self, nonce: [u8; 12], bytes: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::empty(), bytes).ok()
    }

    /// Encrypts in place, and appends what authenticates it.
    fn seal(&self, nonce: [u8; 12], bytes: &mut Vec<u8>) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(nonce, Aad::empty(), bytes);
        sealed.ok()
    }
}

/// A chunk's nonce: its number, and whether it is the last.
fn chunk_nonce(number: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(place) = nonce.get_mut(3..11) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    if let Some(place) = nonce.get_mut(11) {
        *place = u8::from(last);
    }
    nonce
}
