//! Identities, which decrypt, and their recipients, for which is encrypted.

use super::{Aead, FILE_KEY, derived, open::Wrong};
use crate::update::{Code, Failure};
use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};
use ring::rand::{SecureRandom, SystemRandom};
use std::{fmt, str::FromStr, sync::Arc};
use x25519_dalek::{PublicKey, StaticSecret};

const IDENTITY: &str = "age-secret-key-";
const RECIPIENT: &str = "age";
const INFO: &str = "age-encryption.org/v1/X25519";

/// Whom a file is encrypted for; `age1…` as text. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient(pub(super) [u8; 32]);

impl FromStr for Recipient {
    type Err = Failure;

    /// # Errors
    /// [`Code::InvalidKey`]: it is no recipient of this kind.
    fn from_str(text: &str) -> Result<Self, Failure> {
        decode(text, RECIPIENT).map(Self).ok_or_else(|| {
            let why = format!("\"{text}\" is no age recipient of the kind X25519: \"age1\" and 58 letters and digits");
            Failure::new(Code::InvalidKey, why)
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0, RECIPIENT))
    }
}

impl Recipient {
    /// The file's key, for this recipient: a share, and the key encrypted by it.
    pub(super) fn wrap(&self, file_key: &[u8; FILE_KEY]) -> Option<([u8; 32], Vec<u8>)> {
        let once = StaticSecret::from(random()?);
        let share = PublicKey::from(&once).to_bytes();
        let shared = once.diffie_hellman(&PublicKey::from(self.0));
        if !shared.was_contributory() {
            return None;
        }
        let key = derived(shared.as_bytes(), &salt(&share, self), INFO);
        let mut body = file_key.to_vec();
        Aead::new(&key)?.seal([0; 12], &mut body)?;
        Some((share, body))
    }
}

/// What decrypts. A secret: its `Debug` shows the recipient only.
#[derive(Clone)]
pub struct Identity {
    secret: StaticSecret,
    recipient: Recipient,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// [`Code::InvalidKey`]: the system gives no random numbers.
    pub fn generate() -> Result<Self, Failure> {
        let bytes = random().ok_or_else(|| {
            let why = "the system gives no random numbers to make a key of";
            Failure::new(Code::InvalidKey, why)
        })?;
        Ok(Self::new(bytes))
    }

    fn new(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from(bytes);
        let recipient = Recipient(PublicKey::from(&secret).to_bytes());
        Self { secret, recipient }
    }

    /// Whom to encrypt for, so that this one decrypts it.
    pub fn recipient(&self) -> Recipient {
        self.recipient
    }

    /// The secret as text, `AGE-SECRET-KEY-1…`, as it is kept in a file.
    pub fn to_text(&self) -> String {
        encode(self.secret.as_bytes(), IDENTITY).to_uppercase()
    }

    /// The file's key, where it was encrypted for this one.
    pub(super) fn unwrap(
        &self,
        share: &[u8; 32],
        body: &[u8; FILE_KEY + super::TAG],
    ) -> Result<Option<[u8; FILE_KEY]>, Wrong> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*share));
        if !shared.was_contributory() {
            return Err(Wrong::Header("a share in it is none"));
        }
        let key = derived(shared.as_bytes(), &salt(share, &self.recipient), INFO);
        let mut body = *body;
        let opened = Aead::new(&key).and_then(|aead| {
            let opened = aead.open([0; 12], &mut body)?;
            opened.as_ref().try_into().ok()
        });
        Ok(opened)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {})", self.recipient)
    }
}

/// The identities of a device: one, and perhaps older ones. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<[Identity]>);

impl Identities {
    /// Reads an identity file, as `age-keygen` and `twinflash key new --encryption` write it: an identity a line; empty lines
    /// and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`Code::InvalidKey`]: there is no identity in it, or a line is none; no line is shown.
    pub fn from_text(text: &str) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = decode(line, IDENTITY).ok_or_else(|| {
                let why = format!(
                    "line {} is no age identity of the kind X25519 (AGE-SECRET-KEY-1…)",
                    number + 1
                );
                Failure::new(Code::InvalidKey, why)
            })?;
            all.push(Identity::new(bytes));
        }
        match all.is_empty() {
            true => Err(Failure::new(
                Code::InvalidKey,
                "there is no age identity in it",
            )),
            false => Ok(Self(all.into())),
        }
    }

    /// Whom to encrypt for, so that one of these decrypts it.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.0.iter().map(Identity::recipient).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter()
    }
}

impl From<Identity> for Identities {
    fn from(identity: Identity) -> Self {
        Self([identity].into())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

fn salt(share: &[u8; 32], recipient: &Recipient) -> Vec<u8> {
    [&share[..], &recipient.0].concat()
}

pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// 32 bytes in Bech32 (BIP 173).
fn encode(bytes: &[u8; 32], prefix: &str) -> String {
    let encoded = Hrp::parse(prefix).map(|hrp| bech32::encode::<Bech32>(hrp, bytes));
    // Neither a prefix of ours nor 32 bytes are refused.
    encoded.ok().and_then(Result::ok).unwrap_or_default()
}

fn decode(text: &str, prefix: &str) -> Option<[u8; 32]> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    checked.validate_segwit_padding().ok()?;
    let of_kind = checked.hrp() == Hrp::parse(prefix).ok()?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    of_kind.then(|| bytes.try_into().ok())?
}
