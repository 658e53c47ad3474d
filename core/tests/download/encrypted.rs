//! Images that are decrypted while they come: what a hostile or broken file comes to, and how little is fetched twice.

use crate::device::*;
use std::io::Write;
use twinflash::{
    age::{Encryptor, Identities, Identity},
    update::{Compression, Encryption},
};

const CHUNK: usize = 64 * 1024;

fn identities() -> Identities {
    Identity::generate().unwrap().into()
}

fn encrypt(to: &Identities, bytes: &[u8]) -> Vec<u8> {
    let mut encryptor = Encryptor::new(&to.recipients(), Vec::new()).unwrap();
    encryptor.write_all(bytes).unwrap();
    encryptor.finish().unwrap()
}

/// In frames of 50 000 bytes.
fn pack(image: &[u8]) -> Vec<u8> {
    let frame = |bytes: &[u8]| {
        let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
        let length = zstd_safe::compress(&mut packed[..], bytes, 3).unwrap();
        packed.truncate(length);
        packed
    };
    image.chunks(50_000).flat_map(frame).collect()
}

fn encrypted_job(server: &Server) -> Job {
    Job {
        encryption: Some(Encryption::Age),
        size: Some(LENGTH as u64),
        hash_judges: true,
        checkpoint_bytes: 1,
        ..job(server.url("/image"))
    }
}

fn device(of: &Identities) -> Device {
    let mut device = Device::new();
    device.downloader = device.downloader.decrypting(of.clone());
    device
}

#[test]
fn decrypted_and_unpacked_while_it_comes() {
    let ours = identities();
    for compression in [None, Some(Compression::Zstd)] {
        let inside = match compression {
            None => image(1),
            Some(_) => pack(&image(1)),
        };
        let file = encrypt(&ours, &inside);
        let length = file.len() as u64;
        let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
        let mut device = device(&ours);
        let mut job = Job {
            compression,
            file_size: Some(length),
            ..encrypted_job(&server)
        };
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        // What is said is of the image, not of the file.
        assert_eq!(device.received(), Some(LENGTH as u64));
        assert_eq!(device.staging.begun, [(Some(LENGTH as u64), 0)]);
        // The very last checkpoint: nothing is left to be asked for.
        job.resume = device.checkpoint();
        let ended = device.fetch(&job);
        assert!(
            matches!(&ended, Ended::Complete { digests: found, .. } if *found == digests(&image(1)))
        );
        assert_eq!(server.asked().len(), 1);
        // Of the file, the size is the file's; of the image it is what comes out.
        job.resume = None;
        for (file_size, size, code) in [
            (Some(length - 1), LENGTH, Code::SizeMismatch),
            (None, LENGTH - 1, Code::TooLarge),
            (None, LENGTH + 1, Code::SizeMismatch),
        ] {
            let job = Job {
                file_size,
                size: Some(size as u64),
                ..job.clone()
            };
            let (found, retry, message) = failed(device.fetch(&job));
            assert_eq!((found, retry), (code, Retry::Never), "{message}");
        }
    }
}

#[test]
fn what_broke_goes_on_at_its_chunk() {
    let ours = identities();
    for (compression, tag) in [
        (None, TAG),
        (None, None),
        (Some(Compression::Zstd), TAG),
        (Some(Compression::Zstd), None),
    ] {
        let inside = match compression {
            None => image(1),
            Some(_) => pack(&image(1)),
        };
        let file = encrypt(&ours, &inside);
        let header = file.len() - inside.len() - inside.len().div_ceil(CHUNK) * 16;
        let server = Server::http(move |reply| cut_first(reply, &file, tag));
        let mut device = device(&ours);
        let mut job = Job {
            compression,
            ..encrypted_job(&server)
        };
        let (code, retry, _) = failed(device.fetch(&job));
        assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
        let checkpoint = device.checkpoint().unwrap();
        // Of 150 000 bytes two chunks are whole, and the second is known not to be the last.
        let (offset, whole) = match compression {
            None => (2 * CHUNK, 2),
            // Two frames, of which the second ends in the second chunk.
            Some(_) => (100_000, 1),
        };
        assert_eq!(checkpoint.offset as usize, offset);
        let chunk = header + whole * (CHUNK + 16);
        job.resume = Some(checkpoint.clone());
        let ended = device.fetch(&job);
        device.assert_complete(ended, &image(1));
        assert_eq!(server.ranges()[1], Some(format!("bytes={chunk}-")));
        assert_eq!(device.started(), Some(checkpoint.offset));
        // Neither what is of no encrypted file, nor what others would decrypt, is gone on with.
        for change in [
            &mut (|c: &mut Checkpoint| c.sealed = None) as &mut dyn FnMut(&mut Checkpoint),
            &mut |c| c.sealed.as_mut().unwrap().key = "AAAA".into(),
            &mut |c| c.sealed.as_mut().unwrap().header = u64::MAX,
            &mut |c| c.packed = c.packed.xor(Some(1)),
        ] {
            let mut checkpoint = checkpoint.clone();
            change(&mut checkpoint);
            job.resume = Some(checkpoint);
            let ended = device.fetch(&job);
            device.assert_complete(ended, &image(1));
            assert_eq!(server.ranges().last(), Some(&None));
        }
    }
}

/// What is served, and how the attempt ends. Nothing of it was given to the installer but what is the image's.
fn refused(of: &Identities, file: Vec<u8>) -> (Code, Retry, String) {
    let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
    let mut device = device(of);
    let ended = failed(device.fetch(&encrypted_job(&server)));
    let written = device.staging.bytes();
    assert!(image(1).starts_with(&written), "{}", ended.2);
    ended
}

#[test]
fn a_file_that_is_altered_cut_or_for_others() {
    let ours = identities();
    let file = encrypt(&ours, &image(1));
    let header = file.len() - LENGTH - LENGTH.div_ceil(CHUNK) * 16;
    let chunk = |n: usize| {
        let chunk = &file[header + n * (CHUNK + 16)..];
        &chunk[..chunk.len().min(CHUNK + 16)]
    };
    let altered = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 1;
        file
    };
    let order = |chunks: &[usize]| {
        let chunks: Vec<_> = chunks.iter().map(|n| chunk(*n)).collect();
        [&file[..header], &chunks.concat()].concat()
    };
    assert_eq!(order(&[0, 1, 2, 3, 4]), file);
    let line = file.iter().position(|byte| *byte == b'\n').unwrap();
    // Another one that may stand there.
    let letter = |at: usize| {
        let mut file = file.clone();
        file[at] = if file[at] == b'A' { b'B' } else { b'A' };
        file
    };
    for (name, wrong, why) in [
        ("a bit of the magic", altered(3), "it is no age file"),
        (
            "a letter of the share",
            letter(line + 14),
            "one recipient, which is not",
        ),
        (
            "a letter of the checksum",
            letter(header - 30),
            "header was altered",
        ),
        (
            "a bit of the nonce",
            altered(header - 1),
            "chunk 0 was altered",
        ),
        (
            "a bit of the first chunk",
            altered(header + 9),
            "chunk 0 was altered",
        ),
        (
            "the last bit",
            altered(file.len() - 1),
            "chunk 4 was altered",
        ),
        (
            "chunks in another order",
            order(&[0, 2, 1, 3, 4]),
            "chunk 1 was altered",
        ),
        (
            "a chunk left out",
            order(&[0, 1, 3, 4]),
            "chunk 2 was altered",
        ),
        (
            "cut between chunks",
            order(&[0, 1, 2, 3]),
            "chunk 3 was altered",
        ),
        (
            "cut within a chunk",
            file[..file.len() - 9].to_vec(),
            "chunk 4 was altered",
        ),
        (
            "cut in the header",
            file[..50].to_vec(),
            "the file ends in it",
        ),
        (
            "something after it",
            [&file[..], b"?"].concat(),
            "chunk 4 was altered",
        ),
        ("not encrypted", image(1), "it is no age file"),
        (
            "for others",
            encrypt(&identities(), &image(1)),
            "one recipient, which is not",
        ),
        (
            "endless",
            [&file[..line + 1], "-> x\n\n".repeat(20_000).as_bytes()].concat(),
            "longer than 64 KiB",
        ),
    ] {
        let (code, retry, message) = refused(&ours, wrong);
        assert_eq!(
            (code, retry),
            (Code::DecryptionFailed, Retry::Never),
            "{name}: {message}"
        );
        assert!(message.contains(why), "{name}: {message}");
    }
}

#[test]
fn without_a_key_nothing_is_asked_for() {
    let file = encrypt(&identities(), &image(1));
    let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
    let (code, retry, message) = failed(Device::new().fetch(&encrypted_job(&server)));
    assert_eq!((code, retry), (Code::DecryptionFailed, Retry::Never));
    assert!(
        message.contains("configure trust.decryption_key"),
        "{message}"
    );
    assert!(server.asked().is_empty());
}

#[test]
fn without_a_length_a_broken_line_is_no_altered_file() {
    let ours = identities();
    let file = encrypt(&ours, &image(1));
    let server = Server::http(move |reply| {
        reply.head("200 OK", &[]);
        let most = if reply.number() == 0 { LENGTH / 2 } else { ALL };
        reply.body(&file[..file.len().min(most)]);
    });
    let mut device = device(&ours);
    let job = encrypted_job(&server);
    let (code, retry, message) = failed(device.fetch(&job));
    assert_eq!(
        (code, retry),
        (Code::Network, Retry::Resume(None)),
        "{message}"
    );
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
}

#[test]
fn another_file_behind_a_checkpoint_is_fetched_from_zero() {
    let ours = identities();
    let (file, other) = (encrypt(&ours, &image(1)), encrypt(&ours, &image(1)));
    let server = Server::http(move |reply| match reply.number() {
        0 => cut_first(reply, &file, None),
        // Of the same image, but encrypted anew: its chunks are others.
        1 => reply.serve(&other, None, ALL),
        _ => reply.serve(&file, None, ALL),
    });
    let mut device = device(&ours);
    let mut job = encrypted_job(&server);
    failed(device.fetch(&job));
    job.resume = device.checkpoint();
    let (code, retry, message) = failed(device.fetch(&job));
    assert_eq!(
        (code, retry),
        (Code::DecryptionFailed, Retry::FromZero),
        "{message}"
    );
    job.resume = None;
    let ended = device.fetch(&job);
    device.assert_complete(ended, &image(1));
}

/// A bomb within: the bound is on what comes out of all of it.
#[test]
fn what_is_unpacked_of_it_is_bounded() {
    let ours = identities();
    let mut bomb = vec![0; zstd_safe::compress_bound(64 << 20)];
    let length = zstd_safe::compress(&mut bomb[..], &vec![0; 64 << 20], 3).unwrap();
    let file = encrypt(&ours, &bomb[..length]);
    let server = Server::http(move |reply| reply.serve(&file, TAG, ALL));
    let mut device = device(&ours);
    let (code, retry, message) = failed(device.fetch(&Job {
        compression: Some(Compression::Zstd),
        ..encrypted_job(&server)
    }));
    assert_eq!((code, retry), (Code::TooLarge, Retry::Never), "{message}");
    assert!(device.staging.bytes().len() <= LENGTH);
}
