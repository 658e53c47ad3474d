//! JSON Web Signatures (RFC 7515), as far as manifests and key sets have them.
//!
//! Compact, or the general JSON serialisation where several keys sign. The protected header has `alg`,
//! `typ` and perhaps `kid`, and nothing else: what brings a key with it (`jwk`, `jku`, `x5c`), changes
//! what is signed (`b64`) or asks for more (`crit`) is refused, and so is a member given twice.
//!
//! Nothing of it is parsed before a trusted key is known to have signed it: which key that is, is found
//! by trying them, not by asking the header.

use super::{KeyId, KeySet, PublicKey, Verifier, invalid, untrusted};
use crate::{json, update::Failure};
use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use core::fmt;
use serde::{Deserialize, Serialize};

/// The longest text that is looked at, in bytes.
pub const MAX_LENGTH: usize = 32 << 10;
/// The most signatures that are looked at.
const MAX_SIGNATURES: usize = 16;

/// What is signed: keeps one kind of document from being taken for another (RFC 8725, section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A manifest.
    Manifest,
    /// A key set.
    Keys,
}

impl Kind {
    /// The header's `typ`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "twinflash-manifest+jws",
            Self::Keys => "twinflash-keys+jws",
        }
    }
}

/// A signed document, its signatures not yet verified. Shown in compact form where one key has signed,
/// as general JSON where several have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jws {
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    protected: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<KeyId>,
}

impl Jws {
    /// A document that is to be signed.
    pub fn new(payload: &[u8]) -> Self {
        Self {
            payload: Base64UrlUnpadded::encode_string(payload),
            signatures: Vec::new(),
        }
    }

    /// Takes a text apart; nothing is verified, and nothing but the serialisation's own frame is
    /// parsed.
    ///
    /// # Errors
    /// [`Code::ManifestInvalid`](crate::update::Code::ManifestInvalid): it is neither of the two
    /// serialisations, too long, or has no signature.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(invalid(format_args!(
                "it has {} bytes; {MAX_LENGTH} are allowed",
                text.len()
            )));
        }
        if text.starts_with('{') {
            let jws: Self = json::read(text.as_bytes())
                .map_err(|error| invalid(format_args!("it is no JWS in JSON: {error}")))?;
            return match jws.signatures.len() {
                0 => Err(invalid("it has no signature")),
                1..=MAX_SIGNATURES => Ok(jws),
                many => Err(invalid(format_args!(
                    "it has {many} signatures; {MAX_SIGNATURES} are allowed"
                ))),
            };
        }
        let mut parts = text.split('.').map(String::from);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(protected), Some(payload), Some(signature), None) => Ok(Self {
                payload,
                signatures: [Signature {
                    protected,
                    signature,
                }]
                .into(),
            }),
            _ => Err(invalid(
                "it is no JWS: neither JSON nor three parts joined by dots",
            )),
        }
    }

    /// What a key is to sign: the protected header, for [`add`](Self::add), and the bytes to be signed.
    pub fn to_sign(&self, kind: Kind, key: &PublicKey) -> (String, Vec<u8>) {
        let header = Header {
            alg: key.algorithm().as_str().into(),
            typ: kind.as_str().into(),
            kid: Some(key.id()),
        };
        // Texts alone: there is nothing about it that could fail.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let protected = Base64UrlUnpadded::encode_string(&header);
        let message = self.signed_bytes(&protected);
        (protected, message)
    }

    /// Adds a signature over what [`to_sign`](Self::to_sign) answered.
    pub fn add(&mut self, protected: String, signature: &[u8]) {
        self.signatures.push(Signature {
            protected,
            signature: Base64UrlUnpadded::encode_string(signature),
        });
    }

    /// The payload, whoever has signed it: for one who is about to sign it, too.
    ///
    /// # Errors
    /// [`Code::ManifestInvalid`](crate::update::Code::ManifestInvalid): it is no Base64url.
    pub fn payload(&self) -> Result<Vec<u8>, Failure> {
        Base64UrlUnpadded::decode_vec(&self.payload)
            .map_err(|_| invalid("its payload is no Base64url"))
    }

    /// RFC 7515, section 5.1, step 8.
    fn signed_bytes(&self, protected: &str) -> Vec<u8> {
        format!("{protected}.{}", self.payload).into_bytes()
    }

    /// The payload, once as many of the set's keys have signed it as the set wants.
    ///
    /// # Errors
    /// [`Code::Untrusted`](crate::update::Code::Untrusted): too few have.
    /// [`Code::ManifestInvalid`](crate::update::Code::ManifestInvalid): a trusted key has signed
    /// something that is not of this kind or form.
    pub fn verified(
        &self,
        kind: Kind,
        keys: &KeySet,
        verifier: &dyn Verifier,
    ) -> Result<Vec<u8>, Failure> {
        let signers = self.signers(kind, keys, verifier)?;
        let needed = usize::try_from(keys.threshold()).unwrap_or(usize::MAX);
        if signers.len() < needed {
            return Err(match signers.len() {
                0 => self.unsigned(keys),
                some => untrusted(format_args!(
                    "it is signed by {some} trusted {}; {needed} are needed",
                    if some == 1 { "key" } else { "keys" }
                )),
            });
        }
        self.payload()
    }

    /// Which of the set's usable keys have signed.
    fn signers(
        &self,
        kind: Kind,
        keys: &KeySet,
        verifier: &dyn Verifier,
    ) -> Result<BTreeSet<KeyId>, Failure> {
        let mut signers = BTreeSet::new();
        for Signature {
            protected,
            signature,
        } in &self.signatures
        {
            let Ok(signature) = Base64UrlUnpadded::decode_vec(signature) else {
                continue;
            };
            let message = self.signed_bytes(protected);
            let signer = keys
                .usable()
                .find(|key| verifier.verify(key, &message, &signature));
            if let Some(key) = signer {
                check_header(protected, kind, key)?;
                signers.insert(key.id());
            }
        }
        Ok(signers)
    }

    fn unsigned(&self, keys: &KeySet) -> Failure {
        let named = self
            .signatures
            .iter()
            .find_map(|signature| header_of(&signature.protected).ok()?.kid);
        match named {
            Some(id) if keys.is_revoked(&id) => {
                untrusted(format_args!("key {id} has signed it, which is revoked"))
            }
            Some(id) if keys.usable().any(|key| key.id() == id) => untrusted(format_args!(
                "its signature is not right: it was altered, or key {id} has not signed it"
            )),
            Some(id) => untrusted(format_args!("it names key {id}, which is not trusted")),
            None => untrusted("no trusted key has signed it"),
        }
    }
}

fn header_of(protected: &str) -> Result<Header, String> {
    let json = Base64UrlUnpadded::decode_vec(protected).map_err(|error| error.to_string())?;
    json::read(&json).map_err(|error| error.to_string())
}

/// A trusted key has signed this header: it must be of the form that this version knows.
fn check_header(protected: &str, kind: Kind, key: &PublicKey) -> Result<(), Failure> {
    let header = header_of(protected).map_err(|error| {
        invalid(format_args!(
            "its header may have alg, typ and kid only: {error}"
        ))
    })?;
    if !key.algorithm().is_named(&header.alg) {
        return Err(invalid(format_args!(
            "its header says alg {:.32}, but the key's is {}",
            header.alg,
            key.algorithm()
        )));
    }
    if header.typ != kind.as_str() {
        return Err(invalid(format_args!(
            "its header says typ {:.32}; {} is needed",
            header.typ,
            kind.as_str()
        )));
    }
    match header.kid {
        Some(kid) if kid != key.id() => Err(invalid(format_args!(
            "its header names key {kid}, but key {} has signed it",
            key.id()
        ))),
        _ => Ok(()),
    }
}

impl fmt::Display for Jws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signatures.as_slice() {
            // Another text would be read as something else where dots join it.
            [one]
                if [&one.protected, &self.payload, &one.signature]
                    .into_iter()
                    .all(|part| {
                        part.bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                    }) =>
            {
                write!(f, "{}.{}.{}", one.protected, self.payload, one.signature)
            }
            _ => f.write_str(&serde_json::to_string(self).unwrap_or_default()),
        }
    }
}
