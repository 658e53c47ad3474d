//! Images that are unpacked while they come: what a hostile or broken file comes to, and how little is fetched
//! twice.

use crate::device::*;
use std::io::Write;
use twinflash::update::Compression;

const FORMATS: [Compression; 2] = [Compression::Zstd, Compression::Gzip];
/// Of a frame, before it is packed.
const FRAME: usize = 50_000;

fn frame(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Zstd => {
            let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
            let length = zstd_safe::compress(&mut packed[..], bytes, 3).unwrap();
            packed.truncate(length);
            packed
        }
        _ => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn pack(compression: Compression, image: &[u8]) -> Vec<u8> {
    let frames = image.chunks(FRAME).map(|bytes| frame(compression, bytes));
    frames.collect::<Vec<_>>().concat()
}

fn packed_job(server: &Server, compression: Compression) -> Job {
    Job {
        compression: Some(compression),
        size: Some(LENGTH as u64),
        hash_judges: true,
        checkpoint_bytes: 1,
        ..job(server.url("/image"))
    }
}

#[test]
fn unpacked_while_it_comes() {
    for compression in FORMATS {
        let file = pack(compression, &image(1));
        let length = file.len() as u64;
        let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
        let mut device = Device::new();
        let ended = device.fetch(&Job {
            file_size: Some(length),
            ..packed_job(&server, compression)
        });
        device.assert_complete(ended, &image(1));
        // What is said is of the image, not of the file.
        assert_eq!(device.received(), Some(LENGTH as u64));
        assert_eq!(device.staging.begun, [(Some(LENGTH as u64), 0)]);
        let (code, retry, _) = failed(device.fetch(&Job {
            file_size: Some(length - 1),
            ..packed_job(&server, compression)
        }));
        assert_eq!((code, retry), (Code::SizeMismatch, Retry::Never));
    }
}

#[test]
fn what_broke_goes_on_at_the_last_frame() {
    for compression in FORMATS {
        let file = pack(compression, &image(1));
        let frames: Vec<_> = image(1)
            .chunks(FRAME)
            .map(|bytes| frame(compression, bytes).len())
            .collect();
        let half = LENGTH / 2;
        let server = Server::http(move |reply| cut_first(reply, &file, TAG));
        let mut device = Device::new();
        let mut job = packed_job(&server, compression);
        let (code, retry, _) = failed(device.fetch(&job));
        assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
        let checkpoint = device.checkpoint().unwrap();
        let whole = (1..)
            .take_while(|n| frames[..*n].iter().sum::<usize>() <= half)
            .count();
        let at = frames[..whole].iter().sum::<usize>() as u64;
        assert!(whole > 0);
        assert_eq!(checkpoint.offset, (whole * FRAME) as u64);
        assert_eq!(checkpoint.packed, Some(at));
        job.resume = Some(checkpoint);
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges()[1], Some(format!("bytes={at}-")));
        assert_eq!(device.started(), Some((whole * FRAME) as u64));
        // The very last checkpoint: nothing is left to be asked for.
        job.resume = device.checkpoint();
        let ended = device.fetch(&job);
        assert!(
            matches!(&ended, Ended::Complete { digests: found, .. } if *found == digests(&image(1)))
        );
        assert_eq!(server.asked().len(), 2);
        // One of a file that is not packed is not taken for one that is.
        job.resume.as_mut().unwrap().packed = None;
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges()[2], None);
    }
}

#[test]
fn a_single_frame_starts_from_zero() {
    for compression in FORMATS {
        let file = frame(compression, &image(1));
        let server = Server::http(move |reply| cut_first(reply, &file, TAG));
        let mut device = Device::new();
        let job = packed_job(&server, compression);
        let (_, retry, _) = failed(device.fetch(&job));
        assert_eq!(retry, Retry::Resume(None));
        assert_eq!(device.checkpoint(), None);
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges(), [None, None]);
    }
}

/// What is served, and how the attempt ends.
fn refused(compression: Compression, file: Vec<u8>) -> (Code, Retry, String) {
    let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
    let mut device = Device::new();
    let ended = failed(device.fetch(&packed_job(&server, compression)));
    assert!(device.staging.bytes().len() <= LENGTH, "{}", ended.2);
    ended
}

#[test]
fn a_bomb_is_cut_off_at_the_size_that_was_signed() {
    for compression in FORMATS {
        let bomb = frame(compression, &vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let (code, retry, message) = refused(compression, bomb);
        assert_eq!((code, retry), (Code::TooLarge, Retry::Never));
        assert!(
            message.ends_with("it unpacks to more than 300000 bytes"),
            "{message}"
        );
        // Many frames, each of them small.
        let many = pack(compression, &image(1)).repeat(2);
        assert_eq!(refused(compression, many).0, Code::TooLarge);
    }
}

#[test]
fn a_packed_file_that_is_cut_short() {
    for compression in FORMATS {
        let file = pack(compression, &image(1));
        // Within a frame; between two.
        let first = frame(compression, &image(1)[..FRAME]).len();
        for cut in [file.len() - 1, first + 3, first] {
            let (code, retry, message) = refused(compression, file[..cut].to_vec());
            assert_eq!(
                (code, retry),
                (Code::SizeMismatch, Retry::Never),
                "{message}"
            );
        }
    }
}

#[test]
fn a_packed_file_with_something_after_it() {
    for compression in FORMATS {
        let mut file = pack(compression, &image(1));
        file.extend(b"garbage, and more of it");
        let (code, retry, message) = refused(compression, file);
        assert_eq!(
            (code, retry),
            (Code::HashMismatch, Retry::Never),
            "{message}"
        );
        assert!(message.contains("it cannot be unpacked"), "{message}");
    }
}

#[test]
fn a_packed_file_that_is_damaged_or_of_another_kind() {
    for (compression, other) in [(FORMATS[0], FORMATS[1]), (FORMATS[1], FORMATS[0])] {
        let mut file = pack(compression, &image(1));
        for wrong in [pack(other, &image(1)), image(1)] {
            let (code, _, message) = refused(compression, wrong);
            assert_eq!(code, Code::HashMismatch, "{message}");
        }
        let middle = file.len() / 2;
        file[middle] ^= 1;
        // Random bytes are stored: the flip is noticed by the frame's checksum (gzip), or by the image's.
        let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
        let mut device = Device::new();
        match device.fetch(&packed_job(&server, compression)) {
            Ended::Complete { digests: found, .. } => assert_ne!(found, digests(&image(1))),
            ended => assert_eq!(failed(ended).0, Code::HashMismatch),
        }
    }
}

#[test]
fn another_file_behind_a_checkpoint_is_fetched_from_zero() {
    for compression in FORMATS {
        let (file, other) = (pack(compression, &image(1)), vec![b'?'; 400_000]);
        let length = file.len();
        let server = Server::http(move |reply| match reply.number() {
            0 => cut_first(reply, &file, None),
            1 => reply.serve(&other[..length], None, ALL),
            _ => reply.serve(&file, None, ALL),
        });
        let mut device = Device::new();
        let mut job = packed_job(&server, compression);
        failed(device.fetch(&job));
        job.resume = device.checkpoint();
        let (code, retry, message) = failed(device.fetch(&job));
        assert_eq!(
            (code, retry),
            (Code::HashMismatch, Retry::FromZero),
            "{message}"
        );
        job.resume = None;
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
    }
}
