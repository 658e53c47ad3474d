//! Who computes signatures: ring, or pure Rust where it is not built in.

#[cfg(any(feature = "ring", feature = "rustcrypto"))]
use super::Algorithm;
use super::PublicKey;
use core::fmt;

/// Verifies signatures. All of a JWS but the arithmetic is done elsewhere.
pub trait Verifier: fmt::Debug + Send + Sync {
    /// Whether `signature` is the key's own over `message`, by the key's algorithm. ECDSA signatures
    /// are 64 bytes, r then s.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool;
}

/// Verifies with [ring].
///
/// [ring]: https://docs.rs/ring
#[cfg(feature = "ring")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Ring;

#[cfg(feature = "ring")]
impl Verifier for Ring {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        use ring::signature as by;
        let algorithm: &dyn by::VerificationAlgorithm = match key.algorithm() {
            Algorithm::EdDsa => &by::ED25519,
            Algorithm::Es256 => &by::ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &by::RSA_PKCS1_2048_8192_SHA256,
        };
        by::UnparsedPublicKey::new(algorithm, key.bytes())
            .verify(message, signature)
            .is_ok()
    }
}

/// Verifies with `ed25519-dalek` and `p256`, which need no `std`. RSA is left out: a device without an
/// operating system has no room for it, and its signatures never verify here.
#[cfg(feature = "rustcrypto")]
#[derive(Debug, Clone, Copy, Default)]
pub struct RustCrypto;

#[cfg(feature = "rustcrypto")]
impl Verifier for RustCrypto {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match key.algorithm() {
            Algorithm::EdDsa => ed25519(key.bytes(), message, signature).is_some(),
            Algorithm::Es256 => es256(key.bytes(), message, signature).is_some(),
            Algorithm::Rs256 => false,
        }
    }
}

#[cfg(feature = "rustcrypto")]
fn ed25519(key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
    let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
    key.verify_strict(message, &signature).ok()
}

#[cfg(feature = "rustcrypto")]
fn es256(key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
    let key = VerifyingKey::from_sec1_bytes(key).ok()?;
    let signature = Signature::from_slice(signature).ok()?;
    key.verify(message, &signature).ok()
}
