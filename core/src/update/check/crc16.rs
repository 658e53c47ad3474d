//! CRC-16/XMODEM that can be gone on with: fast where that is asked for, small where there is no `std`.

#[cfg(feature = "crc-fast")]
pub(super) use fast::update;
#[cfg(not(feature = "crc-fast"))]
pub(super) use tables::update;

/// By the processor's carry-less multiplication, where it has one: ten times as fast as by tables, which
/// would take as long as SHA-256.
#[cfg(feature = "crc-fast")]
mod fast {
    use crc_fast::{CrcAlgorithm, Digest};

    /// The sum of some bytes and those that come after them. It is its own register.
    pub(in super::super) fn update(sum: u16, bytes: &[u8]) -> u16 {
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc16Xmodem, sum.into());
        digest.update(bytes);
        u16::try_from(digest.finalize()).unwrap_or_default()
    }
}

/// Half a kilobyte of constants a table: one, or 16 that are four times as fast.
#[cfg(any(test, not(feature = "crc-fast")))]
mod tables {
    use crc::{CRC_16_XMODEM, Crc, Table};

    const TABLES: usize = if cfg!(feature = "std") { 16 } else { 1 };
    static XMODEM: Crc<u16, Table<TABLES>> = Crc::<u16, Table<TABLES>>::new(&CRC_16_XMODEM);

    /// As the fast one.
    pub(in super::super) fn update(sum: u16, bytes: &[u8]) -> u16 {
        let mut digest = XMODEM.digest_with_initial(sum);
        digest.update(bytes);
        digest.finalize()
    }
}

#[cfg(all(test, feature = "crc-fast"))]
mod tests {
    use super::{fast, tables};

    #[test]
    fn both_are_the_same() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
        for cut in [0, 1, 9, 500, 991, 1000] {
            let (first, rest) = bytes.split_at(cut);
            let sum = tables::update(0, first);
            assert_eq!(fast::update(0, first), sum, "{cut}");
            assert_eq!(fast::update(sum, rest), tables::update(0, &bytes), "{cut}");
        }
        assert_eq!(tables::update(0, b"123456789"), 0x31c3);
    }
}
