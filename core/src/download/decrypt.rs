//! Encrypted images, where this program was built for them and has a key.

#[cfg(feature = "encryption")]
pub(super) use crate::age::{Decryptor, Wrong};
#[cfg(not(feature = "encryption"))]
pub(super) use none::{Decryptor, Wrong};

#[cfg(feature = "encryption")]
use super::answer::failure;
#[cfg(feature = "encryption")]
use crate::age::Identities;
use crate::update::{Code, Failure, Job, Sealed};

/// What this device decrypts with.
#[derive(Clone, Default)]
pub(super) struct Keys(#[cfg(feature = "encryption")] pub(super) Option<Identities>);

#[cfg(feature = "encryption")]
impl Keys {
    /// What decrypts the job's file, where that is encrypted.
    pub(super) fn decryptor(&self, job: &Job, shown: &str) -> Result<Option<Decryptor>, Failure> {
        if job.encryption.is_none() {
            return Ok(None);
        }
        let identities = self.0.clone().ok_or_else(|| {
            let why = "it is encrypted, and this device has no key to decrypt it: configure trust.decryption_key";
            failure(Code::DecryptionFailed, shown, why)
        })?;
        Ok(Some(Decryptor::new(identities)))
    }

    /// What decrypts the rest of a file.
    pub(super) fn resumed(&self, sealed: &Sealed, at: u64) -> Option<Decryptor> {
        Decryptor::resume(self.0.clone()?, sealed, at)
    }
}

#[cfg(not(feature = "encryption"))]
impl Keys {
    pub(super) fn decryptor(&self, job: &Job, _: &str) -> Result<Option<Decryptor>, Failure> {
        match job.encryption {
            None => Ok(None),
            Some(how) => {
                let how = how.as_str();
                let why =
                    format!("this program was built without support for images encrypted by {how}");
                Err(Failure::new(Code::ManifestInvalid, why))
            }
        }
    }

    pub(super) fn resumed(&self, _: &Sealed, _: u64) -> Option<Decryptor> {
        None
    }
}

/// Nothing decrypts.
#[cfg(not(feature = "encryption"))]
mod none {
    use crate::update::Sealed;
    use std::fmt;

    pub(crate) enum Decryptor {}

    pub(crate) enum Wrong {
        #[expect(dead_code, reason = "there is no decryptor that could say so")]
        Chunk(u64),
    }

    impl Decryptor {
        pub(crate) fn place(_: &Sealed, at: u64, _: Option<u64>) -> u64 {
            at
        }

        pub(crate) fn sealed(&self) -> Option<&Sealed> {
            match *self {}
        }

        pub(crate) fn take(&mut self, _: &[u8]) -> Result<usize, Wrong> {
            match *self {}
        }

        pub(crate) fn finish(&mut self) -> Result<(), Wrong> {
            match *self {}
        }

        pub(crate) fn output(&self) -> &[u8] {
            match *self {}
        }
    }

    impl fmt::Display for Wrong {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it is encrypted")
        }
    }
}
