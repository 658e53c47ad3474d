//! Decrypts a file while it comes, in constant memory.

use super::{Aead, CHUNK, FILE_KEY, Identities, NONCE, TAG, chunk_nonce, header};
use crate::update::Sealed;
use base64ct::{Base64Unpadded, Encoding as _};
use std::{fmt, ops::Range};

/// Of a whole chunk, encrypted.
const SEALED: usize = CHUNK + TAG;

/// Why a file cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// It is no age file.
    NotAge,
    /// It is of another version of the format.
    Version,
    /// Its header is not as the format has it; why.
    Header(&'static str),
    /// It is encrypted for so many recipients, of which none is ours.
    ForOthers(usize),
    /// Its header was altered: its checksum is wrong.
    Altered,
    /// This chunk, counted from 0, was altered, is not in its place, or the file was cut.
    Chunk(u64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAge => f.write_str("it is no age file in its binary form"),
            Self::Version => f.write_str("it is of another version of age than v1"),
            Self::Header(why) => write!(f, "its age header is broken: {why}"),
            Self::ForOthers(1) => {
                f.write_str("it is encrypted for one recipient, which is not this device")
            }
            Self::ForOthers(count) => write!(
                f,
                "it is encrypted for {count} recipients, of which none is this device"
            ),
            Self::Altered => f.write_str("its age header was altered"),
            Self::Chunk(number) => write!(
                f,
                "chunk {number} was altered or is not in its place, or the file was cut there"
            ),
        }
    }
}

impl std::error::Error for Wrong {}

/// Decrypts one file. It is [given](Self::take) the bytes as they come, and holds one chunk of 64 KiB of them.
///
/// ```
/// # use std::io::Write;
/// use twinflash::age::{Decryptor, Encryptor, Identity};
/// # let identity = Identity::generate()?;
/// # let mut encryptor = Encryptor::new(&[identity.recipient()], Vec::new())?;
/// # encryptor.write_all(b"an image")?;
/// # let file = encryptor.finish()?;
/// let mut decryptor = Decryptor::new(identity.into());
/// let (mut bytes, mut image) = (&file[..], Vec::new());
/// while !bytes.is_empty() {
///     let taken = decryptor.take(bytes)?;
///     bytes = &bytes[taken..];
///     image.extend_from_slice(decryptor.output());
/// }
/// decryptor.finish()?;
/// image.extend_from_slice(decryptor.output());
/// assert_eq!(image, b"an image");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Decryptor {
    identities: Identities,
    /// Of the header, or of the chunk that is coming. What was decrypted last lies there, too.
    buffer: Vec<u8>,
    /// Where the header's line begins that has not ended.
    line: usize,
    output: Range<usize>,
    /// Once the header is there.
    payload: Option<Payload>,
}

struct Payload {
    aead: Aead,
    /// Of the next chunk.
    number: u64,
    /// Bytes of the next chunk that are not wanted.
    skip: usize,
    sealed: Sealed,
}

impl Decryptor {
    /// For a file of which nothing is there yet.
    pub fn new(identities: Identities) -> Self {
        Self {
            identities,
            buffer: Vec::new(),
            line: 0,
            output: 0..0,
            payload: None,
        }
    }

    /// For the rest of a file: what [`sealed`](Self::sealed) gave, and of the decrypted bytes the first that is wanted.
    /// The bytes to be given are those from [`place`](Self::place) on. `None` where these identities cannot decrypt it.
    pub fn resume(identities: Identities, sealed: &Sealed, from: u64) -> Option<Self> {
        let bytes = Base64Unpadded::decode_vec(&sealed.key).ok()?;
        let (share, rest) = bytes.split_first_chunk::<32>()?;
        let (body, nonce) = rest.split_first_chunk::<{ FILE_KEY + TAG }>()?;
        let nonce = nonce.try_into().ok()?;
        let unwrapped = |identity: &super::Identity| identity.unwrap(share, body).ok().flatten();
        let key = identities.iter().find_map(unwrapped)?;
        let payload = Payload {
            aead: Aead::of_payload(&key, nonce)?,
            number: from / CHUNK as u64,
            skip: usize::try_from(from % CHUNK as u64).ok()?,
            sealed: sealed.clone(),
        };
        Some(Self {
            identities,
            buffer: Vec::new(),
            line: 0,
            output: 0..0,
            payload: Some(payload),
        })
    }

    /// What is to be kept to go on with this file later, once its header has come. It is no secret.
    pub fn sealed(&self) -> Option<&Sealed> {
        self.payload.as_ref().map(|payload| &payload.sealed)
    }

    /// Where in the file the chunk begins that holds this byte of what is decrypted. Where `at` is its end and `total` the
    /// file's size: that end.
    pub fn place(sealed: &Sealed, at: u64, total: Option<u64>) -> u64 {
        let (whole, rest) = (at / CHUNK as u64, at % CHUNK as u64);
        let chunk = whole.saturating_mul(SEALED as u64);
        let chunk = chunk.saturating_add(sealed.header);
        let end = chunk.saturating_add(rest).saturating_add(TAG as u64);
        match total {
            Some(total) if rest > 0 && end == total => end,
            _ => chunk,
        }
    }

    /// Takes some of these bytes, and answers how many; what they gave is in [`output`](Self::output). To be called until all
    /// are taken.
    ///
    /// # Errors
    /// [`Wrong`]: the file cannot be decrypted. What was given before was authentic, but is not all of it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        if self.output.end > 0 {
            self.output = 0..0;
            self.buffer.clear();
        }
        if self.payload.is_none() {
            return self.take_header(bytes);
        }
        if self.buffer.len() == SEALED && !bytes.is_empty() {
            // It is not the last one.
            return self.open(false).map(|()| 0);
        }
        let room = bytes.len().min(SEALED - self.buffer.len());
        let (bytes, _) = bytes.split_at(room);
        self.buffer.reserve_exact(SEALED - self.buffer.len());
        self.buffer.extend_from_slice(bytes);
        Ok(room)
    }

    /// All bytes were taken: decrypts the last chunk.
    ///
    /// # Errors
    /// As [`take`](Self::take); the file was cut.
    pub fn finish(&mut self) -> Result<(), Wrong> {
        if self.output.end > 0 {
            self.output = 0..0;
            self.buffer.clear();
        }
        match self.payload {
            Some(_) => self.open(true),
            None if header::is_age(&self.buffer) => Err(Wrong::Header("the file ends in it")),
            None => Err(Wrong::NotAge),
        }
    }

    /// What the last call decrypted.
    pub fn output(&self) -> &[u8] {
        self.buffer.get(self.output.clone()).unwrap_or_default()
    }

    /// The memory it uses for the file, in bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let before = self.buffer.len();
        let room = bytes.len().min(header::LONGEST + NONCE - before);
        let (bytes, _) = bytes.split_at(room);
        self.buffer.extend_from_slice(bytes);
        let end = header::end(&self.buffer, &mut self.line);
        let Some(end) = end.filter(|end| *end <= header::LONGEST) else {
            return match self.buffer.len() <= header::LONGEST {
                true => Ok(bytes.len()),
                false if !header::is_age(&self.buffer) => Err(Wrong::NotAge),
                false => Err(Wrong::Header("it is longer than 64 KiB")),
            };
        };
        let nonce = self.buffer.get(end..end + NONCE);
        let Some(nonce) = nonce.and_then(|nonce| <[u8; NONCE]>::try_from(nonce).ok()) else {
            return Ok(bytes.len());
        };
        let header = self.buffer.get(..end).unwrap_or_default();
        let (key, stanza) = header::open(header, &self.identities)?;
        let aead = Aead::of_payload(&key, &nonce).ok_or(Wrong::Altered)?;
        let kept = [&stanza.share[..], &stanza.body, &nonce].concat();
        self.payload = Some(Payload {
            aead,
            number: 0,
            skip: 0,
            sealed: Sealed {
                header: (end + NONCE) as u64,
                key: Base64Unpadded::encode_string(&kept),
            },
        });
        self.buffer.clear();
        Ok(end + NONCE - before)
    }

    fn open(&mut self, last: bool) -> Result<(), Wrong> {
        let Some(payload) = &mut self.payload else {
            return Ok(());
        };
        let number = payload.number;
        let opened = payload
            .aead
            .open(chunk_nonce(number, last), &mut self.buffer);
        let opened = opened.map(|opened| opened.len());
        // Only a file without any content ends with an empty chunk.
        let length = opened.filter(|length| *length > 0 || number == 0);
        let length = length.ok_or(Wrong::Chunk(number))?;
        payload.number += 1;
        let skip = std::mem::take(&mut payload.skip);
        if skip > length {
            return Err(Wrong::Chunk(number));
        }
        self.output = skip..length;
        Ok(())
    }
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").finish_non_exhaustive()
    }
}
