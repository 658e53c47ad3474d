//! Encrypts a file.

use super::{Aead, CHUNK, Recipient, TAG, chunk_nonce, header, keys::random, mac_key};
use base64ct::{Base64Unpadded, Encoding as _};
use ring::hmac;
use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

/// Encrypts what is written to it, and writes that. Ends with [`finish`](Self::finish): without it the file is cut, and no
/// device takes it.
pub struct Encryptor<W: Write> {
    to: W,
    aead: Aead,
    /// Of the next chunk.
    number: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Encryptor<W> {
    /// For these recipients; writes the header.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: there are no recipients, more than fit a header of 64 KiB (some 600), or one is no
    /// point of the curve. What `to` fails with. The system gives no random numbers.
    pub fn new(recipients: &[Recipient], mut to: W) -> io::Result<Self> {
        let input = |why: &str| io::Error::new(ErrorKind::InvalidInput, why);
        let none = || io::Error::other("the system gives no random numbers");
        if recipients.is_empty() {
            return Err(input("there is no recipient to encrypt for"));
        }
        let (file_key, nonce) = (random().ok_or_else(none)?, random().ok_or_else(none)?);
        let mut wrapped = Vec::new();
        for recipient in recipients {
            let why = "a recipient is no point of the curve";
            wrapped.push(recipient.wrap(&file_key).ok_or_else(|| input(why))?);
        }
        let header = header::write(&wrapped);
        let mac = hmac::sign(&mac_key(&file_key), header.as_bytes());
        let header = format!("{header} {}\n", Base64Unpadded::encode_string(mac.as_ref()));
        if header.len() > header::LONGEST {
            return Err(input("there are more recipients than a header holds"));
        }
        to.write_all(header.as_bytes())?;
        to.write_all(&nonce)?;
        Ok(Self {
            to,
            aead: Aead::of_payload(&file_key, &nonce).ok_or_else(none)?,
            number: 0,
            buffer: Vec::with_capacity(CHUNK + TAG),
        })
    }

    /// Writes the last chunk, and gives back what was written to.
    ///
    /// # Errors
    /// What it fails with.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.to)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = chunk_nonce(self.number, last);
        let sealed = self.aead.seal(nonce, &mut self.buffer);
        sealed.ok_or_else(|| io::Error::other("a chunk cannot be encrypted"))?;
        self.number += 1;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK && !bytes.is_empty() {
            // It is not the last one.
            self.seal(false)?;
        }
        let (bytes, _) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Whole chunks are written as they come; of the last one nobody knows yet that it is.
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> fmt::Debug for Encryptor<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").finish_non_exhaustive()
    }
}
