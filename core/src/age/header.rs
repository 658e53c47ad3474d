//! A file's header: for whom its key is encrypted.

use super::{FILE_KEY, Identities, TAG, mac_key, open::Wrong};
use base64ct::{Base64Unpadded, Encoding as _};
use ring::hmac;

/// No header is longer than this, in bytes: some 600 recipients.
pub(super) const LONGEST: usize = 64 * 1024;

const MAGIC: &str = "age-encryption.org/v1";
const KIND: &str = "X25519";
/// Of the lines in which a stanza's body is written.
const COLUMNS: usize = 64;

/// A file's key, encrypted for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) share: [u8; 32],
    pub(super) body: [u8; FILE_KEY + TAG],
}

/// Whether it begins as an age file does, of whatever version.
pub(super) fn is_age(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/")
}

/// Where the header ends, behind its last line break; `None` where it goes on. `line` is where its last line begins, so
/// that none is looked at twice.
pub(super) fn end(bytes: &[u8], line: &mut usize) -> Option<usize> {
    loop {
        let rest = bytes.get(*line..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let next = *line + length + 1;
        if rest.starts_with(b"---") {
            return Some(next);
        }
        *line = next;
    }
}

/// The file's key, where one of these identities can have it, and what it was encrypted in. `header` ends behind its
/// last line break.
pub(super) fn open(
    header: &[u8],
    identities: &Identities,
) -> Result<([u8; FILE_KEY], Stanza), Wrong> {
    let parsed = parse(header)?;
    for identity in identities.iter() {
        for stanza in &parsed.stanzas {
            let Some(key) = identity.unwrap(&stanza.share, &stanza.body)? else {
                continue;
            };
            let of = header.get(..parsed.authenticated).unwrap_or_default();
            return match hmac::verify(&mac_key(&key), of, &parsed.mac) {
                Ok(()) => Ok((key, stanza.clone())),
                Err(_) => Err(Wrong::Altered),
            };
        }
    }
    Err(Wrong::ForOthers(parsed.recipients))
}

struct Parsed {
    /// Those of our kind.
    stanzas: Vec<Stanza>,
    /// Of any kind.
    recipients: usize,
    mac: [u8; 32],
    /// So many bytes are authenticated by it.
    authenticated: usize,
}

/// Letter for letter as the format has it: what is read in another way than it was meant would be no header.
fn parse(header: &[u8]) -> Result<Parsed, Wrong> {
    let broken = Wrong::Header;
    let text = std::str::from_utf8(header)
        .ok()
        .filter(|text| text.is_ascii());
    let text = text.and_then(|text| text.strip_suffix('\n'));
    let mut lines = text.ok_or(broken("it is no text"))?.split('\n');
    match lines.next() {
        Some(MAGIC) => {}
        Some(line) if line.starts_with("age-encryption.org/") => return Err(Wrong::Version),
        _ => return Err(Wrong::NotAge),
    }
    let (mut stanzas, mut recipients, mut passphrase) = (Vec::new(), 0, false);
    loop {
        let line = lines.next().ok_or(broken("it has no end"))?;
        if line.starts_with("---") {
            let mac = line.strip_prefix("--- ").and_then(decode);
            // A passphrase stands alone, or somebody who knows it could have made a file for others.
            if passphrase && recipients > 1 {
                return Err(broken("a passphrase is not the only recipient"));
            }
            return Ok(Parsed {
                stanzas,
                recipients,
                mac: mac.ok_or(broken("its end is no checksum"))?,
                authenticated: header.len() - line.len() - 1 + 3,
            });
        }
        let arguments = line
            .strip_prefix("-> ")
            .ok_or(broken("a line in it is none"))?;
        let arguments: Vec<_> = arguments.split(' ').collect();
        let printable =
            |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !arguments.iter().all(printable) {
            return Err(broken("a recipient in it is none"));
        }
        let mut body = Vec::new();
        loop {
            let line = lines.next().ok_or(broken("a recipient has no end"))?;
            let bytes = Base64Unpadded::decode_vec(line).ok();
            let bytes = bytes.filter(|_| line.len() <= COLUMNS);
            body.extend(bytes.ok_or(broken("a recipient's text is no Base64 of 64 columns"))?);
            if line.len() < COLUMNS {
                break;
            }
        }
        recipients += 1;
        match arguments.as_slice() {
            [KIND, share] => {
                let share = decode(share).ok_or(broken("a share in it is none"))?;
                let body = body.try_into().ok();
                let body = body.ok_or(broken("an encrypted key is of the wrong length"))?;
                stanzas.push(Stanza { share, body });
            }
            [KIND, ..] => return Err(broken("a recipient has too many parts, or too few")),
            ["scrypt", ..] => passphrase = true,
            // Of other kinds there may be any.
            _ => {}
        }
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    Base64Unpadded::decode_vec(text).ok()?.try_into().ok()
}

/// A header, without the checksum in its last line.
pub(super) fn write(wrapped: &[([u8; 32], Vec<u8>)]) -> String {
    let mut text = format!("{MAGIC}\n");
    for (share, body) in wrapped {
        let (share, body) = (
            Base64Unpadded::encode_string(share),
            Base64Unpadded::encode_string(body),
        );
        // It is one short line: 43 columns.
        text.push_str(&format!("-> {KIND} {share}\n{body}\n"));
    }
    text.push_str("---");
    text
}
