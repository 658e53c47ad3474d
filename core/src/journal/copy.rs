//! One copy of the record as it lies on disk.
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

use sha2::{Digest, Sha256};
use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"TWFLASHJ";
const FORMAT: u32 = 1;
const HEADER: usize = 64;
const CHECKED: usize = 32;

/// A file is a multiple of this long, in bytes: a record that grows within it needs no new block,
/// which a full disk would refuse, and no change of the file's size, which would be more to sync.
const ROOM: usize = 16 * 1024;

/// The longest payload, in bytes. No record comes near: a twin's desired section is at most 32 KB.
pub(super) const MAX_PAYLOAD: usize = 1024 * 1024;

/// A copy that was read and whose checksum holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    header: [u8; HEADER],
    pub(super) sequence: u64,
    pub(super) payload: Vec<u8>,
}

impl Copy {
    /// By the sequence numbers, whose last is followed by the first: whatever number is found, what is
    /// saved next is newer.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }

    /// As it was read.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.header, &*self.payload].concat()
    }
}

/// The bytes of a copy: header and payload, and zeros up to the end of its room if `whole`.
///
/// `payload` is no longer than [`MAX_PAYLOAD`].
pub(super) fn encode(sequence: u64, payload: &[u8], whole: bool) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut head = Vec::with_capacity(HEADER + payload.len() + ROOM);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&sequence.to_le_bytes());
    head.resize(CHECKED, 0);
    let checksum = checksum(&head, payload);
    head.extend_from_slice(&checksum);
    head.extend_from_slice(payload);
    if whole {
        head.resize(head.len().next_multiple_of(ROOM), 0);
    }
    head
}

/// Reads a copy; `None` if it is none, or not whole. Never reads more than the longest one has.
pub(super) fn decode(mut file: impl Read) -> io::Result<Option<Copy>> {
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (head, sum) = header.split_at(CHECKED);
    let Some(rest) = head.strip_prefix(MAGIC) else {
        return Ok(None);
    };
    let number = |at: usize, bytes: usize| {
        let bytes = rest.get(at..at + bytes).unwrap_or_default();
        bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b))
    };
    // The format (at 0) says nothing yet: what a later version writes is checked and handed over.
    let (length, sequence) = (number(4, 4), number(8, 8));
    if length > MAX_PAYLOAD as u64 {
        return Ok(None);
    }
    let mut payload = Vec::new();
    file.take(length).read_to_end(&mut payload)?;
    let whole = payload.len() as u64 == length && checksum(head, &payload).as_slice() == sum;
    Ok(whole.then_some(Copy {
        header,
        sequence,
        payload,
    }))
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
        decode(bytes).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        for payload in [&b""[..], b"{}", &[7; 20_000], &vec![1; MAX_PAYLOAD]] {
            for whole in [false, true] {
                let bytes = encode(5, payload, whole);
                assert!(!whole || bytes.len().is_multiple_of(ROOM));
                let copy = read(&bytes).unwrap();
                assert_eq!((copy.sequence, copy.payload.as_slice()), (5, payload));
                assert_eq!(copy.bytes(), encode(5, payload, false));
            }
        }
    }

    /// A copy as the first release writes it, which every later one must read.
    #[test]
    fn the_layout_stays() {
        let bytes = encode(0x0102, b"{\"a\":1}", false);
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        assert_eq!(
            hex,
            "5457464c4153484a010000000700000002010000000000000000000000000000\
             374e8ac1acc1b7883460882307a702635df3d721f458a41da392e6b546919a99\
             7b2261223a317d"
        );
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let bytes = encode(77, b"{\"phase\":\"downloading\"}", false);
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(read(&bad), None, "bit {at}");
        }
    }

    #[test]
    fn no_cut_goes_unseen() {
        let bytes = encode(77, b"{\"phase\":\"downloading\"}", false);
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_later_format_is_read() {
        let mut bytes = encode(9, b"new", false);
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

    #[test]
    fn a_length_that_is_too_long_is_not_read() {
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(0xff);
                self.0 += buffer.len();
                assert!(self.0 <= HEADER + 2 * MAX_PAYLOAD);
                Ok(buffer.len())
            }
        }
        assert_eq!(decode(Endless(0)).unwrap(), None);
        let mut head = encode(1, b"", false);
        head[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(head.chain(Endless(0))).unwrap(), None);
        head[12..16].copy_from_slice(&(MAX_PAYLOAD as u32).to_le_bytes());
        assert_eq!(decode(head.chain(Endless(0))).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
