//! Whom a device believes what it is to install: keys, signed manifests, and who the device is.
//!
//! With keys configured, nothing is installed but what as many of them as must sign have signed, for
//! this device, now, and not below the floor. `docs/signing.md` describes the formats.

mod jws;
mod key;
mod key_set;
mod manifest;
mod verifier;

pub use jws::{Jws, Kind, MAX_LENGTH};
pub use key::{Algorithm, KeyId, PublicKey};
pub use key_set::KeySet;
pub use manifest::{Compatibility, Download, Manifest};
#[cfg(feature = "ring")]
pub use verifier::Ring;
#[cfg(feature = "rustcrypto")]
pub use verifier::RustCrypto;
pub use verifier::Verifier;

use super::{Code, Failure};
use alloc::{format, string::String};
use core::fmt;

/// A manifest may be issued so many seconds after what the device takes for now: clocks differ.
const MAX_CLOCK_ERROR: u64 = 600;

/// What a device is, for manifests that are not for all. Texts are compared as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Identity {
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its hardware's revision.
    pub hardware_revision: Option<String>,
}

/// Whether a [`Trust`] can be made: there is somebody who computes signatures. Where there is not, a
/// compiler that knows it leaves all of this module out.
pub(crate) const CAN_BE: bool = cfg!(any(feature = "ring", feature = "rustcrypto"));

/// What an image must be vouched for by.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The keys.
    pub keys: KeySet,
    /// The device.
    pub identity: Identity,
    verifier: &'static dyn Verifier,
}

impl Trust {
    /// These keys; signatures are computed by ring, or by `RustCrypto` in a build without it.
    #[cfg(any(feature = "ring", feature = "rustcrypto"))]
    pub fn new(keys: KeySet, identity: Identity) -> Self {
        #[cfg(feature = "ring")]
        const VERIFIER: Ring = Ring;
        #[cfg(not(feature = "ring"))]
        const VERIFIER: RustCrypto = RustCrypto;
        Self::with_verifier(keys, identity, &VERIFIER)
    }

    /// These keys, and who computes signatures.
    #[cfg(any(feature = "ring", feature = "rustcrypto"))]
    pub fn with_verifier(
        keys: KeySet,
        identity: Identity,
        verifier: &'static dyn Verifier,
    ) -> Self {
        Self {
            keys,
            identity,
            verifier,
        }
    }

    /// A manifest's content, if it is signed as it must be. It may be of another device or another
    /// time: [`Manifest::check_device`], [`check_time`](Manifest::check_time) and
    /// [`check_floor`](Manifest::check_floor) look at that.
    ///
    /// # Errors
    /// [`Code::Untrusted`]: too few of the keys have signed it. [`Code::ManifestInvalid`]: it is none.
    pub fn open(&self, signed: &str) -> Result<Manifest, Failure> {
        let json = Jws::parse(signed)?.verified(Kind::Manifest, &self.keys, self.verifier)?;
        Manifest::from_json(&json)
    }

    /// Puts a new key set in the place of the old one; see [`KeySet::rotate`].
    ///
    /// # Errors
    /// As [`KeySet::rotate`]; nothing is changed then.
    pub fn rotate(&mut self, signed: &str) -> Result<(), Failure> {
        self.keys = self.keys.rotate(signed, self.verifier)?;
        Ok(())
    }
}

fn invalid(why: impl fmt::Display) -> Failure {
    Failure::new(
        Code::ManifestInvalid,
        format!("the signed document is refused: {why}"),
    )
}

fn untrusted(why: impl fmt::Display) -> Failure {
    Failure::new(
        Code::Untrusted,
        format!("the signed document is not trusted: {why}"),
    )
}

fn expired(why: impl fmt::Display) -> Failure {
    Failure::new(Code::Expired, why)
}

fn invalid_key(why: impl fmt::Display) -> Failure {
    Failure::new(Code::InvalidKey, why)
}
