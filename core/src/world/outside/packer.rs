//! Images in frames, as a server may have them.

use crate::update::Compression;
use std::io::Write;

/// Of a frame, before it is packed: more than one of them to a checkpoint, and more than one checkpoint to
/// an image.
const FRAME: usize = 400;

pub(super) fn pack(image: &[u8], compression: Compression) -> Vec<u8> {
    let frames = image.chunks(FRAME).map(|bytes| frame(bytes, compression));
    frames.collect::<Vec<_>>().concat()
}

fn frame(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Zstd => {
            let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
            let length = zstd_safe::compress(&mut packed[..], bytes, 1).unwrap();
            packed.truncate(length);
            packed
        }
        Compression::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}
