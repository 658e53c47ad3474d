//! Keys that sign: private ones in files of their own, and those that only a command can reach.

use crate::{error::Error, screen::Screen};
use ring::{
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};
use twinflash::update::trust::{Algorithm, PublicKey, Ring, Verifier};

/// The longest signature a command may print, in bytes: that of an RSA key of 8192 bits.
const LONGEST: u64 = 1024;

/// Which keys sign.
#[derive(clap::Args)]
pub(crate) struct Keys {
    /// A private key that signs (PEM; made by "twinflash key new" or openssl). Given several times, each
    /// signs. With --sign-with: the public key of the one that the command signs with
    #[arg(long = "key", value_name = "PEM", required = true)]
    keys: Vec<PathBuf>,
    /// Let this command sign, for keys in an HSM or in a cloud: it gets the bytes to be signed on
    /// standard input and prints the signature, raw or in DER. All that follows is the command
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    sign_with: Vec<String>,
}

impl Keys {
    /// Makes ready; nothing is signed yet.
    pub(crate) fn open(&self, screen: &Screen) -> Result<Vec<Signer>, Error> {
        if self.sign_with.is_empty() {
            let open = |file: &PathBuf| Signer::from_file(file, screen);
            return self.keys.iter().map(open).collect();
        }
        let [file] = self.keys.as_slice() else {
            return Err(Error::new(
                "--sign-with needs one --key: the public key of the one that the command signs with",
            ));
        };
        let public = super::public_keys(file)?;
        let [public] = public.as_slice() else {
            return Err(Error::new(format_args!(
                "{} holds {} keys; with --sign-with it must be the one that signs",
                file.display(),
                public.len()
            )));
        };
        Ok(vec![Signer {
            public: public.clone(),
            pair: Pair::Command(self.sign_with.clone()),
        }])
    }
}

/// A key that signs.
pub(crate) struct Signer {
    public: PublicKey,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Command(Vec<String>),
}

impl Signer {
    /// A private key in a PEM file: PKCS#8, or PKCS#1 for RSA.
    fn from_file(file: &Path, screen: &Screen) -> Result<Self, Error> {
        let shown = file.display();
        let pem = read(file)?;
        let wrong = |why: &str| Error::new(format_args!("cannot sign with {shown}: {why}"));
        let text = String::from_utf8_lossy(&pem);
        if text.contains("ENCRYPTED") {
            return Err(wrong(
                "it is encrypted; \"openssl pkey -in FILE -out PLAIN\" decrypts it, or --sign-with a command that asks for the password",
            ));
        }
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            return Err(wrong("it is a public key; the private one signs"));
        }
        note_readable(file, screen);
        let pair = match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(PrivateKeyDer::Pkcs8(der)) => pair_of(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(Pair::Rsa)
                .ok(),
            Ok(PrivateKeyDer::Sec1(_)) => {
                return Err(wrong(
                    "it is in the older form of elliptic curves; \"openssl pkcs8 -topk8 -nocrypt -in FILE -out NEW\" converts it",
                ));
            }
            _ => return Err(wrong("there is no private key in it")),
        };
        let pair = pair.ok_or_else(|| {
            wrong("it is no Ed25519, P-256 or RSA key (of 2048 to 4096 bits) that can be used")
        })?;
        let public = match &pair {
            Pair::Ed25519(pair) => (Algorithm::EdDsa, pair.public_key().as_ref()),
            Pair::P256(pair) => (Algorithm::Es256, pair.public_key().as_ref()),
            Pair::Rsa(pair) => (Algorithm::Rs256, pair.public_key().as_ref()),
            Pair::Command(_) => (Algorithm::EdDsa, &[][..]),
        };
        let public = PublicKey::from_bytes(public.0, public.1)?;
        Ok(Self { public, pair })
    }

    /// The public key.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs, and makes sure that the signature is right.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = || Error::new("the key cannot sign");
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.map_err(|_| failed())?.as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let (padding, random) = (&signature::RSA_PKCS1_SHA256, &SystemRandom::new());
                pair.sign(padding, random, message, &mut signature)
                    .map_err(|_| failed())?;
                signature
            }
            Pair::Command(command) => {
                let printed = ask(command, message)?;
                self.public
                    .algorithm()
                    .jws_signature(&printed)
                    .unwrap_or(printed)
            }
        };
        if !Ring.verify(&self.public, message, &signature) {
            return Err(Error::new(format_args!(
                "what was printed is not the {} signature of key {} over what was to be signed",
                self.public.algorithm(),
                self.public.id()
            )));
        }
        Ok(signature)
    }
}

/// What a PKCS#8 key is, is found by trying. openssl writes an Ed25519 key without its public half.
fn pair_of(pkcs8: &[u8]) -> Option<Pair> {
    let p256 = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
        return Some(Pair::Ed25519(pair));
    }
    if let Ok(pair) = EcdsaKeyPair::from_pkcs8(p256, pkcs8, &SystemRandom::new()) {
        return Some(Pair::P256(pair));
    }
    RsaKeyPair::from_pkcs8(pkcs8).map(Pair::Rsa).ok()
}

/// Runs the command that signs. It may ask a person: the terminal is its own, but for the two streams.
fn ask(command: &[String], message: &[u8]) -> Result<Vec<u8>, Error> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Error::new("no command"))?;
    let failed = |why: &dyn std::fmt::Display| Error::new(format_args!("{program}: {why}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let message = message.to_vec();
    // A command may sign without reading all; whether it signed the right bytes is looked at later.
    let writer = thread::spawn(move || input.map(|mut input| input.write_all(&message)));
    let mut printed = Vec::new();
    let read = output.map(|output| output.take(LONGEST + 1).read_to_end(&mut printed));
    let length = match read {
        Some(Ok(length)) => length as u64,
        Some(Err(error)) => return Err(failed(&error)),
        None => 0,
    };
    if length > LONGEST {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    let _ = writer.join();
    match status.success() {
        _ if length > LONGEST => Err(failed(&"it printed more than a signature")),
        true => Ok(printed),
        false => Err(failed(&format_args!("it ended with {status}"))),
    }
}

/// A file's content; the message names it.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file)
        .map_err(|error| Error::new(format_args!("cannot read {}: {error}", file.display())))
}

/// Says so where others can read a private key.
fn note_readable(file: &Path, screen: &Screen) {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(file)
        && std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0
    {
        let shown = file.display();
        screen.note(&format!(
            "others than you may read the private key {shown}: chmod 600 {shown}"
        ));
    }
}
