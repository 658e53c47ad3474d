//! The state of all checks while an image streams by.

use super::{crc16, crc32};
use alloc::{string::String, vec::Vec};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use core::fmt;
use serde::{Deserialize, Serialize};
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// What the checks came to over a whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// CRC-16/XMODEM.
    pub crc16: u16,
    /// CRC-32/ISO-HDLC.
    pub crc32: u32,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// The running state of all checks. Can be saved at any byte and restored later, in another process
/// or after a restart.
///
/// ```
/// use twinflash::update::{Check, Checks};
///
/// let mut checks = Checks::new();
/// checks.update(b"12345");
/// let mut later = Checks::restore(&checks.save()).unwrap();
/// later.update(b"6789");
/// assert!(Check::parse("31c3", false).unwrap().matches(&later.finish()));
/// ```
#[derive(Clone, Default)]
pub struct Checks {
    bytes: u64,
    crc16: u16,
    crc32: crc32::Hasher,
    sha256: Sha256,
}

/// The layout of [`Checks::save`]. Another one gets another number: a checkpoint may be read by
/// older or newer firmware.
const LAYOUT: u8 = 1;

impl Checks {
    /// The state before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it has seen.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes of the image.
    pub fn update(&mut self, bytes: &[u8]) {
        // In pieces that stay in the processor's first cache from one check to the next.
        for piece in bytes.chunks(16 * 1024) {
            self.sha256.update(piece);
            self.crc32.update(piece);
            self.crc16 = crc16::update(self.crc16, piece);
        }
        self.bytes += bytes.len() as u64;
    }

    /// What the checks come to over the bytes so far.
    pub fn finish(&self) -> Digests {
        Digests {
            crc16: self.crc16,
            crc32: self.crc32.clone().finalize(),
            sha256: self.sha256.clone().finalize().into(),
        }
    }

    /// The state as a line of text for a checkpoint, with a checksum of its own.
    pub fn save(&self) -> String {
        let mut state = Vec::with_capacity(128);
        state.push(LAYOUT);
        state.extend_from_slice(&self.bytes.to_be_bytes());
        state.extend_from_slice(&self.crc16.to_be_bytes());
        state.extend_from_slice(&self.crc32.clone().finalize().to_be_bytes());
        state.extend_from_slice(&self.sha256.serialize());
        state.extend_from_slice(&crc32::hash(&state).to_be_bytes());
        Base64UrlUnpadded::encode_string(&state)
    }

    /// The state that [`save`](Self::save) made this text of; `None` if it is of another layout or
    /// damaged. Whether it belongs to the bytes at hand is for the caller to compare:
    /// [`bytes`](Self::bytes).
    pub fn restore(text: &str) -> Option<Self> {
        let state = Base64UrlUnpadded::decode_vec(text).ok()?;
        let (state, checksum) = state.split_last_chunk::<4>()?;
        if crc32::hash(state) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (&layout, state) = state.split_first()?;
        let (bytes, state) = state.split_first_chunk::<8>()?;
        let (crc16, state) = state.split_first_chunk::<2>()?;
        let (crc32, state) = state.split_first_chunk::<4>()?;
        let sha256 = SerializedState::<Sha256>::try_from(state).ok()?;
        (layout == LAYOUT).then_some(())?;
        Some(Self {
            bytes: u64::from_be_bytes(*bytes),
            crc16: u16::from_be_bytes(*crc16),
            crc32: crc32::Hasher::new_with_initial(u32::from_be_bytes(*crc32)),
            sha256: Sha256::deserialize(&sha256).ok()?,
        })
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Digests {
        let mut checks = Checks::new();
        checks.update(bytes);
        checks.finish()
    }

    /// The catalogue's check values, and FIPS 180-4's.
    #[test]
    fn known_vectors() {
        let digests = all(b"123456789");
        assert_eq!(digests.crc16, 0x31c3);
        assert_eq!(digests.crc32, 0xcbf4_3926);
        assert_eq!(
            base16ct::lower::encode_string(&all(b"abc").sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let nothing = all(b"");
        assert_eq!((nothing.crc16, nothing.crc32), (0, 0));
        assert_eq!(
            base16ct::lower::encode_string(&nothing.sha256),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            base16ct::lower::encode_string(&all(&alloc::vec![b'a'; 1_000_000]).sha256),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn what_is_damaged_or_foreign_is_refused() {
        let mut checks = Checks::new();
        checks.update(b"some bytes");
        let text = checks.save();
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(
                Checks::restore(core::str::from_utf8(&damaged).unwrap()).is_none(),
                "{at}"
            );
            assert!(Checks::restore(&text[..at]).is_none(), "{at}");
        }
        assert!(Checks::restore(&(text.clone() + "AAAA")).is_none());
        // Another layout, its checksum right.
        let mut state = Base64UrlUnpadded::decode_vec(&text).unwrap();
        state.truncate(state.len() - 4);
        state[0] = 2;
        state.extend_from_slice(&crc32::hash(&state).to_be_bytes());
        assert!(Checks::restore(&Base64UrlUnpadded::encode_string(&state)).is_none());
    }

    /// A checkpoint written by a released version is read by all later ones.
    #[test]
    fn the_layout_stays() {
        let text = "AQAAAAAAAABGnmQjJkLel-ikuMPceDibbEuQG2HE34AQ7Lr9pGf3XrGoEjlbb-EBAAAAAAAAAAYBAQEBAQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAYQzoZ";
        let mut checks = Checks::restore(text).unwrap();
        assert_eq!(checks.bytes(), 70);
        checks.update(&[2; 30]);
        let mut image = alloc::vec![1; 70];
        image.resize(100, 2);
        assert_eq!(checks.finish(), all(&image));
    }

    proptest! {
        #[test]
        fn any_split_and_any_restart_give_the_same(
            image in proptest::collection::vec(any::<u8>(), 0..5000),
            cuts in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..6),
        ) {
            let mut cuts: Vec<_> =
                cuts.into_iter().map(|(at, restart)| (at.index(image.len() + 1), restart)).collect();
            cuts.sort();
            let mut checks = Checks::new();
            let mut from = 0;
            for (to, restart) in cuts {
                checks.update(&image[from..to]);
                from = to;
                if restart {
                    checks = Checks::restore(&checks.save()).unwrap();
                    prop_assert_eq!(checks.bytes(), to as u64);
                }
            }
            checks.update(&image[from..]);
            prop_assert_eq!(checks.finish(), all(&image));
        }

        #[test]
        fn any_text_is_restored_or_refused(text in ".{0,300}") {
            let _ = Checks::restore(&text);
        }
    }

    /// Sizes are 64 bits: the state goes on beyond 4 GiB.
    #[test]
    fn beyond_four_gigabytes() {
        let mut checks = Checks::new();
        checks.bytes = u64::from(u32::MAX);
        checks.update(&[0; 10]);
        assert_eq!(
            Checks::restore(&checks.save()).unwrap().bytes(),
            u64::from(u32::MAX) + 10
        );
    }
}
