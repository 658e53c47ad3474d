//! Unpacks a compressed image while it comes, in constant memory.
//!
//! A file is one or several independent frames (zstd, RFC 8878) or members (gzip, RFC 1952) one after the
//! other. Between two of them nothing needs to be known of what came before: there a download can go on.

use super::answer::failure;
use crate::update::{Code, Compression, Failure};
use std::fmt;

/// What was unpacked is handed on in pieces of at most so many bytes.
const OUTPUT: usize = 128 * 1024;

/// What came of some bytes.
pub(super) struct Step {
    /// So many of the bytes given were taken…
    pub(super) taken: usize,
    /// …and so many are in [`Unpacker::output`].
    pub(super) given: usize,
    /// A frame ends here.
    pub(super) boundary: bool,
}

/// Unpacks one file.
pub(super) struct Unpacker {
    format: Box<dyn Format>,
    output: Vec<u8>,
    /// Within a frame.
    pub(super) within: bool,
}

/// A format, frame after frame.
trait Format {
    /// Takes some of the input, and fills some of the output.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String>;
}

impl Unpacker {
    pub(super) fn new(compression: Compression) -> Result<Self, Failure> {
        Ok(Self {
            format: format(compression)?,
            output: vec![0; OUTPUT],
            within: false,
        })
    }

    /// Unpacks some of these bytes. To be called, also with none left, until nothing is given any more.
    pub(super) fn step(&mut self, bytes: &[u8], shown: &str) -> Result<Step, Failure> {
        let step = self.format.step(bytes, &mut self.output).map_err(|why| {
            let why = format!("it cannot be unpacked: {why}");
            failure(Code::HashMismatch, shown, &why)
        })?;
        self.within = match step.boundary {
            true => false,
            false => self.within || step.taken > 0,
        };
        Ok(step)
    }

    /// What the last step gave.
    pub(super) fn output(&self, step: &Step) -> &[u8] {
        self.output.get(..step.given).unwrap_or_default()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

#[cfg(not(feature = "compression"))]
fn format(compression: Compression) -> Result<Box<dyn Format>, Failure> {
    let how = compression.as_str();
    let text =
        format!("this program was built without support for images in {how}: serve it unpacked");
    Err(Failure::new(Code::ManifestInvalid, text))
}

#[cfg(feature = "compression")]
fn format(compression: Compression) -> Result<Box<dyn Format>, Failure> {
    Ok(match compression {
        Compression::Zstd => Box::new(zstd::Zstd::new()?),
        Compression::Gzip => Box::new(gzip::Gzip::new()),
    })
}

#[cfg(feature = "compression")]
mod zstd {
    use super::{Format, Step};
    use crate::update::{Code, Failure};
    use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

    /// The largest window, 8 MiB: what RFC 8878 asks of every decoder, and the memory it costs.
    const WINDOW_LOG: u32 = 23;

    pub(super) struct Zstd(DCtx<'static>);

    impl Zstd {
        pub(super) fn new() -> Result<Self, Failure> {
            let failed = |why: &str| {
                let text = format!("no image can be unpacked: {why}");
                Failure::new(Code::Storage, text)
            };
            let mut context = DCtx::try_create().ok_or_else(|| failed("no memory"))?;
            context
                .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
                .map_err(|code| failed(get_error_name(code)))?;
            Ok(Self(context))
        }
    }

    impl Format for Zstd {
        fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
            let mut input = InBuffer::around(input);
            let mut output = OutBuffer::around(output);
            // Zero is a frame's end, with all of it given; without any input it says nothing.
            let left = self
                .0
                .decompress_stream(&mut output, &mut input)
                .map_err(|code| get_error_name(code).to_owned())?;
            let (taken, given) = (input.pos(), output.pos());
            Ok(Step {
                taken,
                given,
                boundary: left == 0 && taken + given > 0,
            })
        }
    }
}

#[cfg(feature = "compression")]
mod gzip {
    use super::{Format, Step};
    use flate2::{Decompress, FlushDecompress, Status};

    /// A member's header with its name and comment is not longer than this.
    const HEADER: usize = 4096;
    const TRAILER: usize = 8;

    /// Where in a member it is. The bytes of a header or trailer may come one by one.
    enum Place {
        Header(Vec<u8>),
        Body,
        Trailer(Vec<u8>),
    }

    pub(super) struct Gzip {
        place: Place,
        inflate: Decompress,
        crc: crc32fast::Hasher,
        size: u32,
    }

    impl Gzip {
        pub(super) fn new() -> Self {
            Self {
                place: Place::Header(Vec::new()),
                inflate: Decompress::new(false),
                crc: crc32fast::Hasher::new(),
                size: 0,
            }
        }

        fn body(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, output, FlushDecompress::None)
                .map_err(|error| error.to_string())?;
            let taken = to_usize(self.inflate.total_in() - before_in);
            let given = to_usize(self.inflate.total_out() - before_out);
            self.crc.update(output.get(..given).unwrap_or_default());
            #[expect(clippy::cast_possible_truncation, reason = "RFC 1952: modulo 2^32")]
            let more = given as u32;
            self.size = self.size.wrapping_add(more);
            if status == Status::StreamEnd {
                self.place = Place::Trailer(Vec::new());
            }
            Ok(Step {
                taken,
                given,
                boundary: false,
            })
        }

        /// The trailer is whole: the next member begins.
        fn ended(&mut self, trailer: &[u8]) -> Result<(), String> {
            let mut expected = [0; TRAILER];
            let (crc, size) = expected.split_at_mut(4);
            crc.copy_from_slice(&self.crc.clone().finalize().to_le_bytes());
            size.copy_from_slice(&self.size.to_le_bytes());
            if trailer != expected {
                return Err("a member's checksum or size is wrong".into());
            }
            self.place = Place::Header(Vec::new());
            self.inflate.reset(false);
            self.crc.reset();
            self.size = 0;
            Ok(())
        }
    }

    fn to_usize(count: u64) -> usize {
        // It is of a slice.
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    impl Format for Gzip {
        fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, String> {
            let mut taken = 0;
            loop {
                let rest = input.get(taken..).unwrap_or_default();
                match &mut self.place {
                    Place::Body => {
                        let mut step = self.body(rest, output)?;
                        step.taken += taken;
                        if step.given > 0 || step.taken == taken {
                            return Ok(step);
                        }
                        taken = step.taken;
                    }
                    Place::Header(header) => {
                        let Some((byte, _)) = rest.split_first() else {
                            break;
                        };
                        header.push(*byte);
                        taken += 1;
                        if is_header(header)? {
                            self.place = Place::Body;
                        }
                    }
                    Place::Trailer(trailer) => {
                        let Some((byte, _)) = rest.split_first() else {
                            break;
                        };
                        trailer.push(*byte);
                        taken += 1;
                        if trailer.len() == TRAILER {
                            let trailer = std::mem::take(trailer);
                            self.ended(&trailer)?;
                            return Ok(Step {
                                taken,
                                given: 0,
                                boundary: true,
                            });
                        }
                    }
                }
            }
            Ok(Step {
                taken,
                given: 0,
                boundary: false,
            })
        }
    }

    /// Whether these bytes are a whole header; `false` where it goes on.
    fn is_header(bytes: &[u8]) -> Result<bool, String> {
        let magic = [0x1f, 0x8b, 8];
        if bytes.iter().zip(magic).any(|(is, must)| *is != must) {
            return Err("it is no gzip, or something comes after it".into());
        }
        if bytes.len() > HEADER {
            return Err(format!("a header is longer than {HEADER} bytes"));
        }
        let (Some(flags), true) = (bytes.get(3).copied(), bytes.len() >= 10) else {
            return Ok(false);
        };
        if flags & 0xe0 != 0 {
            return Err("a header has flags that are not known".into());
        }
        let mut at = 10;
        if flags & 4 != 0 {
            let Some([low, high]) = bytes.get(at..at + 2) else {
                return Ok(false);
            };
            at += 2 + usize::from(u16::from_le_bytes([*low, *high]));
        }
        for text in [8, 16] {
            if flags & text != 0 {
                let rest = bytes.get(at..).unwrap_or_default();
                let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                    return Ok(false);
                };
                at += end + 1;
            }
        }
        if flags & 2 != 0 {
            at += 2;
        }
        Ok(bytes.len() >= at)
    }
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn image() -> Vec<u8> {
        (0..700_000_u32).map(|n| (n / 7 % 251) as u8).collect()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
        let length = zstd_safe::compress(&mut packed[..], bytes, 3).unwrap();
        packed.truncate(length);
        packed
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("a name")
            .comment("a comment")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The bytes, where frames end (packed and unpacked), whether one has begun and not ended.
    type Unpacked = (Vec<u8>, Vec<(usize, usize)>, bool);

    /// What comes of it in pieces of this size.
    fn unpack(compression: Compression, packed: &[u8], piece: usize) -> Result<Unpacked, Failure> {
        let mut unpacker = Unpacker::new(compression)?;
        let (mut all, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
        for mut bytes in packed.chunks(piece) {
            loop {
                let step = unpacker.step(bytes, "x")?;
                all.extend_from_slice(unpacker.output(&step));
                at += step.taken;
                bytes = &bytes[step.taken..];
                if step.boundary {
                    ends.push((at, all.len()));
                }
                if bytes.is_empty() && step.given == 0 {
                    break;
                }
            }
        }
        Ok((all, ends, unpacker.within))
    }

    #[test]
    fn frame_after_frame_in_pieces_of_any_size() {
        let image = image();
        for (compression, pack) in [
            (Compression::Zstd, zstd as fn(&[u8]) -> Vec<u8>),
            (Compression::Gzip, gzip),
        ] {
            let frames: Vec<_> = image.chunks(300_000).map(pack).collect();
            let packed = frames.concat();
            let mut ends = Vec::new();
            let mut at = (0, 0);
            for (frame, bytes) in frames.iter().zip(image.chunks(300_000)) {
                at = (at.0 + frame.len(), at.1 + bytes.len());
                ends.push(at);
            }
            for piece in [1, 7, 4096, packed.len()] {
                let unpacked = unpack(compression, &packed, piece).unwrap();
                assert_eq!((unpacked.1, unpacked.2), (ends.clone(), false));
                assert!(unpacked.0 == image);
            }
            // Cut anywhere, it is within a frame.
            for cut in [1, 5, packed.len() - 1] {
                assert!(unpack(compression, &packed[..cut], 64).unwrap().2);
            }
            // What comes after the last frame is not passed over.
            for garbage in [&b"garbage"[..], &[0; 8]] {
                let more = [&packed[..], garbage].concat();
                let failure = unpack(compression, &more, 4096).unwrap_err();
                assert_eq!(failure.code, Code::HashMismatch, "{failure}");
            }
        }
    }

    #[test]
    fn a_window_beyond_eight_mebibytes_is_refused() {
        // RFC 8878, 3.1.1: magic, no single segment, a window of 2^24 bytes.
        let frame = |log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0];
        assert!(unpack(Compression::Zstd, &frame(23), 9).is_ok());
        let failure = unpack(Compression::Zstd, &frame(24), 9).unwrap_err();
        assert!(failure.message.contains("memory"), "{failure}");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_grows(
            mut packed in prop_oneof![Just(zstd(&image()[..5000])), Just(gzip(&image()[..5000]))],
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            gzipped in any::<bool>(),
        ) {
            let at = at.index(packed.len());
            packed[at] ^= flip;
            let compression = if gzipped { Compression::Gzip } else { Compression::Zstd };
            if let Ok((all, ..)) = unpack(compression, &packed, 100) {
                prop_assert!(all.len() <= 20_000_000);
            }
        }
    }
}
