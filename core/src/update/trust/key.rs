//! Public keys: what signs a manifest, as an owner's PEM file has it.

use super::invalid_key;
use crate::update::Failure;
use alloc::{string::String, vec::Vec};
use base64ct::{Base64, Encoding as _};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use spki::{
    AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{
        Decode, Document, Encode, Reader, SliceReader,
        asn1::{AnyRef, BitStringRef, UintRef},
        pem::LineEnding,
    },
};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// What a PEM file calls a `SubjectPublicKeyInfo` (RFC 7468, section 13).
const LABEL: &str = "PUBLIC KEY";

/// How a key signs. A key has one algorithm; what a signature says of it is never believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032), in a JWS `EdDSA` (RFC 8037) or `Ed25519` (RFC 9864).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256,
}

impl Algorithm {
    /// Its name in a JWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// A signature as a JWS has it. openssl and some key services give ECDSA's as DER (RFC 3279, section
    /// 2.2.3), which becomes r and s of 32 bytes each; all others stay as they are. `None` is an ECDSA
    /// signature that is neither.
    pub fn jws_signature(self, signature: &[u8]) -> Option<Vec<u8>> {
        if self != Self::Es256 || signature.len() == 64 {
            return Some(signature.to_vec());
        }
        let (r, s) = two_numbers(signature).ok()?;
        let mut fixed = [0; 64];
        let (left, right) = fixed.split_at_mut(32);
        for (number, place) in [(r, left), (s, right)] {
            let bytes = number.as_bytes();
            let from = place.len().checked_sub(bytes.len())?;
            place.get_mut(from..)?.copy_from_slice(bytes);
        }
        Some(fixed.into())
    }

    /// Whether there is somebody in this build who verifies it: all but RSA without ring.
    pub(super) fn is_built_in(self) -> bool {
        self != Self::Rs256 || cfg!(feature = "ring")
    }

    /// Whether a JWS may call it so.
    pub(super) fn is_named(self, name: &str) -> bool {
        name == self.as_str() || (self == Self::EdDsa && name == "Ed25519")
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key's name: the SHA-256 of its `SubjectPublicKeyInfo`, shown in hexadecimal. Anybody can compute
/// it: `openssl pkey -pubin -in key.pub.pem -outform DER | sha256sum`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): it is something else.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        base16ct::mixed::decode_vec(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                invalid_key(
                    "a key's id is 64 hexadecimal digits, as \"twinflash key show\" prints them",
                )
            })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(|e| D::Error::custom(e.message))
    }
}

/// A public key that may vouch for images.
///
/// In JSON it is the Base64 of its `SubjectPublicKeyInfo`: a PEM file's lines in one.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    id: KeyId,
    spki: Vec<u8>,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): it is none, or no Ed25519, P-256
    /// (uncompressed) or RSA key of 2048 to 8192 bits.
    pub fn from_spki(der: &[u8]) -> Result<Self, Failure> {
        let info = SubjectPublicKeyInfoRef::try_from(der)
            .map_err(|error| invalid_key(format_args!("it is no public key: {error}")))?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| invalid_key("it is no public key: it ends within a byte"))?;
        let algorithm = match info.algorithm.oid {
            ED25519 if info.algorithm.parameters.is_none() => Algorithm::EdDsa,
            EC => match info.algorithm.parameters_oid() {
                Ok(P256) => Algorithm::Es256,
                _ => return Err(invalid_key("its elliptic curve is not P-256")),
            },
            RSA if info.algorithm.parameters_any() == Ok(AnyRef::NULL) => Algorithm::Rs256,
            other => {
                return Err(invalid_key(format_args!(
                    "a key of algorithm {other} is not supported; Ed25519, P-256 and RSA are"
                )));
            }
        };
        check_form(algorithm, key)?;
        Ok(Self {
            algorithm,
            id: KeyId(Sha256::digest(der).into()),
            spki: der.to_vec(),
            key: key.to_vec(),
        })
    }

    /// Makes a key of the bytes [`bytes`](Self::bytes) answers.
    ///
    /// # Errors
    /// As [`from_spki`](Self::from_spki).
    pub fn from_bytes(algorithm: Algorithm, key: &[u8]) -> Result<Self, Failure> {
        let (oid, parameters) = match algorithm {
            Algorithm::EdDsa => (ED25519, None),
            Algorithm::Es256 => (EC, Some(AnyRef::from(&P256))),
            Algorithm::Rs256 => (RSA, Some(AnyRef::NULL)),
        };
        let algorithm = AlgorithmIdentifierRef { oid, parameters };
        let spki = BitStringRef::from_bytes(key)
            .and_then(|subject_public_key| {
                SubjectPublicKeyInfoRef {
                    algorithm,
                    subject_public_key,
                }
                .to_der()
            })
            .map_err(|error| invalid_key(format_args!("it cannot be encoded: {error}")))?;
        Self::from_spki(&spki)
    }

    /// Reads every public key of a PEM file.
    ///
    /// # Errors
    /// [`Code::InvalidKey`](crate::update::Code::InvalidKey): it holds none, or something else,
    /// such as a private key; says what, and how to get the public key from it.
    pub fn from_pem(pem: &str) -> Result<Vec<Self>, Failure> {
        let mut keys = Vec::new();
        let mut rest = pem;
        while let Some(start) = rest.find("-----BEGIN ") {
            let from = rest.get(start..).unwrap_or_default();
            let length = match from.get(1..).unwrap_or_default().find("-----BEGIN ") {
                Some(next) => next + 1,
                None => from.len(),
            };
            let (block, after) = from.split_at(length);
            keys.push(Self::from_pem_block(block)?);
            rest = after;
        }
        if keys.is_empty() {
            return Err(invalid_key(
                "there is no key in it: \"-----BEGIN PUBLIC KEY-----\" is needed",
            ));
        }
        Ok(keys)
    }

    fn from_pem_block(block: &str) -> Result<Self, Failure> {
        let label = block
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.split_once("-----"))
            .map_or("", |(label, _)| label);
        if label != LABEL {
            // What else is in the file is not shown: it may be a secret.
            let how = match label {
                "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {
                    "a private key, which must not leave the place where manifests are signed; \
                     openssl pkey -in FILE -pubout prints the public one"
                }
                "CERTIFICATE" => {
                    "a certificate; openssl x509 -in FILE -noout -pubkey prints its public key"
                }
                "RSA PUBLIC KEY" => {
                    "a key in another form; openssl rsa -RSAPublicKey_in -in FILE -pubout prints it in this one"
                }
                _ => "something else",
            };
            return Err(invalid_key(format_args!(
                "\"-----BEGIN PUBLIC KEY-----\" is needed, but it holds {how}"
            )));
        }
        // What stands after the block is a comment.
        let end = block.find("-----END ").unwrap_or(block.len());
        let line = block.get(end..).unwrap_or_default();
        let end = end + line.find('\n').unwrap_or(line.len());
        let (_, der) = Document::from_pem(block.get(..end).unwrap_or_default())
            .map_err(|error| invalid_key(format_args!("it is no PEM: {error}")))?;
        Self::from_spki(der.as_bytes())
    }

    /// The key as a PEM file.
    pub fn to_pem(&self) -> String {
        // Of any bytes there is a PEM file.
        Document::try_from(self.spki.as_slice())
            .and_then(|document| document.to_pem(LABEL, LineEnding::LF))
            .unwrap_or_default()
    }

    /// How it signs.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What a [`Verifier`](super::Verifier) needs of it: 32 bytes of an Ed25519 key (RFC 8032), the 65
    /// bytes of an uncompressed point of P-256 (SEC 1), a DER `RSAPublicKey` (RFC 8017).
    pub fn bytes(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm, self.id)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64::encode_string(&self.spki))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let der = Base64::decode_vec(&text)
            .map_err(|_| D::Error::custom("a key is the Base64 of a SubjectPublicKeyInfo"))?;
        Self::from_spki(&der).map_err(|failure| D::Error::custom(failure.message))
    }
}

/// Whether a key's bytes have the form its algorithm wants. A key that cannot verify anything is
/// found here, not at the first update.
fn check_form(algorithm: Algorithm, key: &[u8]) -> Result<(), Failure> {
    match algorithm {
        Algorithm::EdDsa if key.len() == 32 => Ok(()),
        Algorithm::EdDsa => Err(invalid_key("an Ed25519 key has 32 bytes")),
        Algorithm::Es256 if key.len() == 65 && key.first() == Some(&4) => Ok(()),
        Algorithm::Es256 => Err(invalid_key(
            "its point is not uncompressed; openssl ec -pubin -in FILE -conv_form uncompressed -pubout prints it so",
        )),
        Algorithm::Rs256 => {
            let bits = modulus_bits(key)
                .ok_or_else(|| invalid_key("it is no RSA key: modulus and exponent are needed"))?;
            match bits {
                2048..=8192 => Ok(()),
                _ => Err(invalid_key(format_args!(
                    "an RSA key of {bits} bits is not accepted; it needs 2048 to 8192"
                ))),
            }
        }
    }
}

/// The modulus' length, of an `RSAPublicKey` (RFC 8017, appendix A.1.1).
fn modulus_bits(key: &[u8]) -> Option<u32> {
    let (modulus, _) = two_numbers(key).ok()?;
    let bytes = modulus.as_bytes();
    let first = bytes.first()?;
    u32::try_from(bytes.len())
        .ok()?
        .checked_mul(8)?
        .checked_sub(first.leading_zeros())
}

/// A DER sequence of two numbers that are not negative, and nothing else.
fn two_numbers(der: &[u8]) -> spki::der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader.sequence(|reader| {
        let first = UintRef::decode(reader)?;
        Ok::<_, spki::der::Error>((first, UintRef::decode(reader)?))
    })?;
    reader.finish()?;
    Ok(numbers)
}
