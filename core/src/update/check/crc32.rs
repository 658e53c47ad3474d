//! CRC-32/ISO-HDLC that can be gone on with: fast where there is `std`, small where there is not.

#[cfg(feature = "std")]
pub(super) use crc32fast::{Hasher, hash};
#[cfg(not(feature = "std"))]
pub(super) use small::{Hasher, hash};

/// One kilobyte of constants; the fast one has sixteen.
#[cfg(any(test, not(feature = "std")))]
mod small {
    use crc::{CRC_32_ISO_HDLC, Crc, Table};

    static CRC32: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

    /// The sum of the bytes so far.
    #[derive(Clone, Default)]
    pub(in super::super) struct Hasher(u32);

    impl Hasher {
        pub(in super::super) fn new_with_initial(sum: u32) -> Self {
            Self(sum)
        }

        pub(in super::super) fn update(&mut self, bytes: &[u8]) {
            // What the algorithm starts with is the register, before it is reflected.
            let register = (self.0 ^ CRC_32_ISO_HDLC.xorout).reverse_bits();
            let mut digest = CRC32.digest_with_initial(register);
            digest.update(bytes);
            self.0 = digest.finalize();
        }

        pub(in super::super) fn finalize(self) -> u32 {
            self.0
        }
    }

    pub(in super::super) fn hash(bytes: &[u8]) -> u32 {
        CRC32.checksum(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::small;

    #[test]
    fn both_are_the_same() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
        for cut in [0, 1, 9, 500, 1000] {
            let (first, rest) = bytes.split_at(cut);
            let mut sum = small::Hasher::default();
            sum.update(first);
            let mut sum = small::Hasher::new_with_initial(sum.finalize());
            sum.update(rest);
            assert_eq!(sum.finalize(), crc32fast::hash(&bytes), "{cut}");
        }
        assert_eq!(small::hash(b"123456789"), 0xcbf4_3926);
    }
}
