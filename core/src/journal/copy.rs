//! One copy of the record as it lies on disk, or on a board in a sector of its flash.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | magic: `TWFLASHJ` |
//! | 8–11 | format of the payload |
//! | 12–15 | length of the payload in bytes |
//! | 16–23 | sequence number: the copy with the higher one is the newer |
//! | 24–31 | zero |
//! | 32–63 | SHA-256 of bytes 0–31 and the payload |
//! | 64– | payload |
//!
//! Numbers are little-endian. What follows the payload means nothing: it is what a longer record
//! before left there, or room for a longer one. The header keeps this layout for ever.

use alloc::vec::Vec;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"TWFLASHJ";
const FORMAT: u32 = 1;
/// Bytes before the payload.
pub const HEADER: usize = 64;
const CHECKED: usize = 32;

/// The longest payload, in bytes. No record comes near: a twin's desired section is at most 32 KB.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// A copy that was read and whose checksum holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Copy {
    header: [u8; HEADER],
    /// Numbers the saves.
    pub sequence: u64,
    /// The record.
    pub payload: Vec<u8>,
}

impl Copy {
    /// By the sequence numbers, whose last is followed by the first: whatever number is found, what is
    /// saved next is newer.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }

    /// Header and payload, whose checksum holds; else `None`. The format says nothing yet: what a later
    /// version writes is checked and handed over.
    pub fn new(header: [u8; HEADER], payload: Vec<u8>) -> Option<Self> {
        let whole = payload_length(&header) == Some(payload.len() as u64);
        let (head, sum) = header.split_at(CHECKED);
        (whole && checksum(head, &payload).as_slice() == sum).then(|| Self {
            header,
            sequence: number(&header, 16, 8),
            payload,
        })
    }

    /// The copy that these bytes begin with, if there is a whole one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let length = usize::try_from(payload_length(header)?).ok()?;
        Self::new(*header, rest.get(..length)?.to_vec())
    }

    /// As it was read.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.header, &*self.payload].concat()
    }
}

/// The bytes of a copy: header and payload.
///
/// `payload` is no longer than [`MAX_PAYLOAD`].
pub fn encode(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut head = Vec::with_capacity(HEADER + payload.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&sequence.to_le_bytes());
    head.resize(CHECKED, 0);
    let checksum = checksum(&head, payload);
    head.extend_from_slice(&checksum);
    head.extend_from_slice(payload);
    head
}

/// How long the payload is that follows a header; `None` where it is no header, or the payload longer
/// than one can be.
pub fn payload_length(header: &[u8; HEADER]) -> Option<u64> {
    let length = number(header, 12, 4);
    (header.starts_with(MAGIC) && length <= MAX_PAYLOAD as u64).then_some(length)
}

fn number(header: &[u8; HEADER], at: usize, bytes: usize) -> u64 {
    let bytes = header.get(at..at + bytes).unwrap_or_default();
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(head)
        .chain_update(payload)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<Copy> {
        Copy::read(bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        for payload in [&b""[..], b"{}", &[7; 20_000], &vec![1; MAX_PAYLOAD]] {
            let mut bytes = encode(5, payload);
            let copy = read(&bytes).unwrap();
            assert_eq!((copy.sequence, copy.payload.as_slice()), (5, payload));
            assert_eq!(copy.bytes(), bytes);
            // What follows means nothing.
            bytes.extend_from_slice(&[0xa5; 100]);
            assert_eq!(read(&bytes), Some(copy));
        }
    }

    /// A copy as the first release writes it, which every later one must read.
    #[test]
    fn the_layout_stays() {
        let bytes = encode(0x0102, b"{\"a\":1}");
        let hex = base16ct::lower::encode_string(&bytes);
        assert_eq!(
            hex,
            "5457464c4153484a010000000700000002010000000000000000000000000000\
             374e8ac1acc1b7883460882307a702635df3d721f458a41da392e6b546919a99\
             7b2261223a317d"
        );
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let bytes = encode(77, b"{\"phase\":\"downloading\"}");
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(read(&bad), None, "bit {at}");
        }
    }

    #[test]
    fn no_cut_goes_unseen() {
        let bytes = encode(77, b"{\"phase\":\"downloading\"}");
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_later_format_is_read() {
        let mut bytes = encode(9, b"new");
        bytes[8] = 2;
        let sum = checksum(&bytes[..CHECKED], b"new");
        bytes[CHECKED..HEADER].copy_from_slice(&sum);
        let copy = read(&bytes).unwrap();
        assert_eq!(copy.payload, b"new");
        assert_eq!(copy.bytes(), bytes, "not a byte of it is changed");
    }

    #[test]
    fn every_number_has_a_next_one() {
        let copy = |sequence| Copy {
            header: [0; HEADER],
            sequence,
            payload: Vec::new(),
        };
        for number in [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
            let (this, next) = (copy(number), copy(number.wrapping_add(1)));
            assert!(next.is_newer_than(&this) && !this.is_newer_than(&next));
            assert!(!this.is_newer_than(&this));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
