//! The keys a device trusts: how many of them must sign, which are revoked, and how they are replaced.

use super::{Algorithm, Jws, KeyId, Kind, PublicKey, Verifier, invalid_key};
use crate::{json, update::Failure};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The most keys that a set may have.
const MAX_KEYS: usize = 32;

/// The keys a device trusts.
///
/// As JSON it is what a rotation signs: `version`, `threshold`, `keys` (Base64 of each key's
/// `SubjectPublicKeyInfo`) and `revoked` (key ids).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct KeySet {
    version: u64,
    threshold: u32,
    keys: Vec<PublicKey>,
    revoked: Vec<KeyId>,
}

/// A set's JSON: any member that is not one of these may mean what this version does not know of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    threshold: u32,
    keys: Vec<PublicKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<KeyId>,
}

impl KeySet {
    /// A set of which `threshold` keys must sign each manifest. `version` tells it from others: a
    /// device keeps the set of the highest version it has seen. What comes with a device is 1.
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): a key twice, more than 32, or fewer
    /// that are not revoked than must sign.
    pub fn new(
        version: u64,
        threshold: u32,
        keys: Vec<PublicKey>,
        revoked: Vec<KeyId>,
    ) -> Result<Self, Failure> {
        let set = Self {
            version,
            threshold,
            keys,
            revoked,
        };
        set.check()?;
        Ok(set)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.keys.len() > MAX_KEYS {
            return Err(invalid_key(format_args!(
                "{} keys are too many; {MAX_KEYS} are allowed",
                self.keys.len()
            )));
        }
        for (index, key) in self.keys.iter().enumerate() {
            if self.keys.iter().skip(index + 1).any(|other| other == key) {
                return Err(invalid_key(format_args!("key {} is there twice", key.id())));
            }
        }
        if self.threshold == 0 {
            return Err(invalid_key(
                "a threshold of 0 would let in what nobody signed; it must be 1 at least",
            ));
        }
        let verified = |key: &&PublicKey| key.algorithm().is_built_in();
        let usable = self.usable().filter(verified).count();
        if u32::try_from(usable).is_ok_and(|usable| usable < self.threshold) {
            let rsa = match Algorithm::Rs256.is_built_in() {
                true => "",
                false => " and not of RSA, which this program was built without",
            };
            return Err(invalid_key(format_args!(
                "{} keys must sign, but there are only {usable} that are not revoked{rsa}",
                self.threshold
            )));
        }
        Ok(())
    }

    /// Its version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How many keys must sign.
    pub const fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The keys that are not revoked.
    pub fn usable(&self) -> impl Iterator<Item = &PublicKey> {
        let usable = |key: &&PublicKey| !self.is_revoked(&key.id());
        self.keys.iter().filter(usable)
    }

    /// Whether a key counts for nothing, whoever has it among his keys.
    pub fn is_revoked(&self, id: &KeyId) -> bool {
        self.revoked.contains(id)
    }

    /// The ids of the revoked keys.
    pub fn revoked(&self) -> &[KeyId] {
        &self.revoked
    }

    /// This set, or the one a device has kept from a rotation: that of the higher version. What either
    /// revokes is revoked.
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): with what is revoked, too few keys are
    /// left.
    pub fn newer_of(self, kept: Self) -> Result<Self, Failure> {
        match kept.version > self.version {
            true => kept.also_revoking(&self.revoked),
            false => self.also_revoking(&kept.revoked),
        }
    }

    /// The set that a rotation puts in this one's place: signed by as many of this set's keys as must
    /// sign, and of a higher version. What is revoked stays so.
    ///
    /// # Errors
    /// [`Code::Untrusted`](crate::update::Code::Untrusted): too few of this set's keys have signed.
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): its version is not higher, or the set
    /// itself is not right.
    /// [`Code::ManifestInvalid`](crate::update::Code::ManifestInvalid): it is no signed document.
    pub fn rotate(&self, signed: &str, verifier: &dyn Verifier) -> Result<Self, Failure> {
        let json = Jws::parse(signed)?.verified(Kind::Keys, self, verifier)?;
        let next = Self::from_json(&json)?;
        if next.version <= self.version {
            return Err(invalid_key(format_args!(
                "its version is {}; only one higher than {} takes the place of the keys that are trusted now",
                next.version, self.version
            )));
        }
        next.also_revoking(&self.revoked)
    }

    /// The set that a JSON document describes.
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): it describes none, or one that is not right.
    pub fn from_json(json: &[u8]) -> Result<Self, Failure> {
        json::read(json).map_err(|error| invalid_key(format_args!("it is no key set: {error}")))
    }

    /// The set as a rotation signs it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn also_revoking(mut self, revoked: &[KeyId]) -> Result<Self, Failure> {
        for id in revoked {
            if !self.revoked.contains(id) {
                self.revoked.push(*id);
            }
        }
        self.check()?;
        Ok(self)
    }
}

impl TryFrom<Document> for KeySet {
    type Error = String;

    fn try_from(document: Document) -> Result<Self, String> {
        let Document {
            version,
            threshold,
            keys,
            revoked,
        } = document;
        Self::new(version, threshold, keys, revoked).map_err(|failure| failure.message)
    }
}

impl From<KeySet> for Document {
    fn from(set: KeySet) -> Self {
        Self {
            version: set.version,
            threshold: set.threshold,
            keys: set.keys,
            revoked: set.revoked,
        }
    }
}
