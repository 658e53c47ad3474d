use super::*;
use crate::update::Sealed;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io::Read, io::Write, path::Path};

/// What comes of a file in pieces of this size, and what ends it.
fn decrypt(identities: &Identities, file: &[u8], piece: usize) -> (Vec<u8>, Result<(), Wrong>) {
    run(Decryptor::new(identities.clone()), file, piece)
}

fn run(mut decryptor: Decryptor, file: &[u8], piece: usize) -> (Vec<u8>, Result<(), Wrong>) {
    let mut all = Vec::new();
    for mut bytes in file.chunks(piece) {
        while !bytes.is_empty() {
            match decryptor.take(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(wrong) => return (all, Err(wrong)),
            }
            all.extend_from_slice(decryptor.output());
            assert!(decryptor.held() <= 2 * (header::LONGEST + NONCE));
        }
    }
    let ended = decryptor.finish();
    if ended.is_ok() {
        all.extend_from_slice(decryptor.output());
    }
    (all, ended)
}

fn encrypt(recipients: &[Recipient], image: &[u8]) -> Vec<u8> {
    let mut encryptor = Encryptor::new(recipients, Vec::new()).unwrap();
    encryptor.write_all(image).unwrap();
    encryptor.finish().unwrap()
}

fn image(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 3 % 251) as u8).collect()
}

fn identity() -> Identities {
    Identity::generate().unwrap().into()
}

/// The format's own test vectors: what they expect, of each, in pieces of several sizes.
#[test]
fn vectors_of_the_format() {
    // A whole last chunk that nothing follows may be the last one; it is given when that is known.
    const HELD_BACK: [&str; 7] = [
        "stream_no_final_full",
        "stream_no_final_two_chunks_full",
        "stream_trailing_garbage_long",
        "stream_trailing_garbage_short",
        "stream_two_final_chunks",
        "stream_two_final_chunks_full",
        "stream_two_final_chunks_second",
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/age");
    let mut seen = BTreeMap::<String, usize>::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        let vector = fs::read(&path).unwrap();
        let head = vector.windows(2).position(|two| two == b"\n\n").unwrap();
        let (head, mut file) = (
            std::str::from_utf8(&vector[..head]).unwrap(),
            vector[head + 2..].to_vec(),
        );
        let of = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let of = lines.filter(|(key, _)| *key == name);
            of.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        if of("compressed") == ["zlib"] {
            let mut unpacked = Vec::new();
            let mut decoder = flate2::read::ZlibDecoder::new(&file[..]);
            decoder.read_to_end(&mut unpacked).unwrap();
            file = unpacked;
        }
        let identities = Identities::from_text(&of("identity").join("\n"));
        let identities = identities.unwrap_or_else(|_| identity());
        for piece in [1, 100, 70_000, file.len().max(1)] {
            if piece == 1 && file.len() > 1_000_000 {
                continue;
            }
            let (released, ended) = decrypt(&identities, &file, piece);
            let came_to = match &ended {
                Ok(()) => "success",
                Err(Wrong::NotAge | Wrong::Version | Wrong::Header(_)) => "header failure",
                Err(Wrong::ForOthers(_)) => "no match",
                Err(Wrong::Altered) => "HMAC failure",
                Err(Wrong::Chunk(_)) => "payload failure",
            };
            assert_eq!([came_to], of("expect")[..], "{name}: {ended:?}");
            let hash = base16ct::lower::encode_string(&Sha256::digest(&released));
            match of("payload").first() {
                Some(payload) if !HELD_BACK.contains(&&*name) => {
                    assert_eq!(hash, *payload, "{name}")
                }
                Some(_) => assert!(released.len().is_multiple_of(CHUNK), "{name}"),
                None => assert!(released.is_empty(), "{name}"),
            }
        }
        *seen.entry(of("expect")[0].clone()).or_default() += 1;
    }
    let expected = [
        ("HMAC failure", 1),
        ("header failure", 32),
        ("no match", 3),
        ("payload failure", 18),
        ("success", 14),
    ];
    let seen: Vec<_> = seen.iter().map(|(k, n)| (k.as_str(), *n)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn sizes_around_a_chunk_in_pieces_of_any_size_and_from_any_byte() {
    let identities = identity();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 17] {
        let image = image(length);
        let file = encrypt(&identities.recipients(), &image);
        let mut first = Decryptor::new(identities.clone());
        let taken = first.take(&file[..200]).unwrap();
        let sealed = first.sealed().unwrap().clone();
        assert_eq!(taken as u64, sealed.header);
        let total = file.len() as u64;
        for piece in [1, 4096, CHUNK + 16, file.len()] {
            let (all, ended) = decrypt(&identities, &file, piece);
            assert!(ended.is_ok() && all == image, "{length} {piece}");
        }
        for from in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]
            .into_iter()
            .filter(|from| *from < length)
        {
            let place = Decryptor::place(&sealed, from as u64, Some(total));
            let rest = Decryptor::resume(identities.clone(), &sealed, from as u64).unwrap();
            let (all, ended) = run(rest, &file[place as usize..], 5000);
            assert!(ended.is_ok() && all == image[from..], "{length} {from}");
        }
        if length > 0 {
            assert_eq!(Decryptor::place(&sealed, length as u64, Some(total)), total);
        }
        // Others cannot go on with it, nor can these with what is no such thing.
        assert!(Decryptor::resume(identity(), &sealed, 0).is_none());
        for key in ["", "AAAA", &"A".repeat(sealed.key.len())] {
            let sealed = Sealed {
                key: key.into(),
                ..sealed.clone()
            };
            assert!(Decryptor::resume(identities.clone(), &sealed, 0).is_none());
        }
    }
}

#[test]
fn every_bit_counts_and_every_cut_is_noticed() {
    let identities = identity();
    let file = encrypt(&identities.recipients(), b"an image");
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut altered = file.clone();
            altered[at] ^= 1 << bit;
            let (all, ended) = decrypt(&identities, &altered, 4096);
            assert!(ended.is_err() && all.is_empty(), "byte {at}, bit {bit}");
        }
        let (all, ended) = decrypt(&identities, &file[..at], 4096);
        assert!(ended.is_err() && all.is_empty(), "cut at {at}");
    }
    let longer = [&file[..], b"x"].concat();
    assert!(decrypt(&identities, &longer, 4096).1.is_err());
}

#[test]
fn chunks_in_another_order_or_of_another_file() {
    let identities = identity();
    let image = image(3 * CHUNK);
    let (file, other) = (
        encrypt(&identities.recipients(), &image),
        encrypt(&identities.recipients(), &image),
    );
    let start = file.len() - 3 * (CHUNK + TAG);
    let chunk = |file: &[u8], n: usize| file[start + n * (CHUNK + TAG)..][..CHUNK + TAG].to_vec();
    let made = |chunks: &[Vec<u8>]| [&file[..start], &chunks.concat()].concat();
    let of = |n| chunk(&file, n);
    for (chunks, good) in [
        ([of(0), of(1), of(2)], 3),
        ([of(1), of(0), of(2)], 0),
        ([of(0), of(0), of(2)], 1),
        ([of(0), of(2), of(1)], 1),
        ([of(0), chunk(&other, 1), of(2)], 1),
    ] {
        let (all, ended) = decrypt(&identities, &made(&chunks), 30_000);
        assert_eq!((all.len(), ended.is_ok()), (good * CHUNK, good == 3));
    }
    // Cut between two chunks, and what was the last one repeated.
    for chunks in [
        &[of(0), of(1)][..],
        &[of(0), of(2)],
        &[of(0), of(1), of(2), of(2)],
    ] {
        assert!(matches!(
            decrypt(&identities, &made(chunks), 30_000).1,
            Err(Wrong::Chunk(_))
        ));
    }
}

#[test]
fn a_header_is_bounded_and_ours_among_many_is_found() {
    let (ours, others) = (identity(), identity());
    let mut recipients = vec![others.recipients()[0]; 600];
    recipients.extend(ours.recipients());
    let file = encrypt(&recipients, b"an image");
    assert!(file.len() < header::LONGEST);
    let (all, ended) = decrypt(&ours, &file, 1000);
    assert!(ended.is_ok() && all == b"an image");
    let (_, ended) = decrypt(&identity(), &file, 1000);
    assert_eq!(ended, Err(Wrong::ForOthers(601)));
    let many = vec![others.recipients()[0]; 700];
    assert!(Encryptor::new(&many, Vec::new()).is_err());
    assert!(Encryptor::new(&[], Vec::new()).is_err());
    // One that never ends: of many lines, or of one.
    for line in ["-> grease\n\n".repeat(20_000), "-".repeat(200_000)] {
        let endless = format!("age-encryption.org/v1\n{line}");
        let (_, ended) = decrypt(&ours, endless.as_bytes(), 1000);
        assert_eq!(ended, Err(Wrong::Header("it is longer than 64 KiB")));
    }
    let (_, ended) = decrypt(&ours, &image(200_000), 1000);
    assert_eq!(ended, Err(Wrong::NotAge));
    for armored in ["-----BEGIN AGE ENCRYPTED FILE-----\n", "", "age"] {
        assert_eq!(decrypt(&ours, armored.as_bytes(), 7).1, Err(Wrong::NotAge));
    }
}

#[test]
fn identities_of_files_and_nothing_of_them_shown() {
    let one = Identity::generate().unwrap();
    let (text, recipient) = (one.to_text(), one.recipient().to_string());
    assert!(text.starts_with("AGE-SECRET-KEY-1") && text.len() == 74);
    assert!(recipient.starts_with("age1") && recipient.len() == 62);
    assert_eq!(recipient.parse::<Recipient>().unwrap(), one.recipient());
    let both = format!(
        "# created: today\n\n{text}\r\n{}\n",
        Identity::generate().unwrap().to_text()
    );
    let identities = Identities::from_text(&both).unwrap();
    assert_eq!(identities.recipients().len(), 2);
    let shown = format!(
        "{one:?} {identities:?} {:?}",
        Decryptor::new(identities.clone())
    );
    assert!(!shown.contains(&text[16..30]) && shown.contains(&recipient));
    for (bad, why) in [
        ("", "no age identity"),
        ("# nothing", "no age identity"),
        (&recipient, "line 1"),
        (&text[..73], "line 1"),
        (&text.replace("KEY-1", "KEY-2"), "line 1"),
        (&format!("{text}\nAGE-PLUGIN-YUBIKEY-1QQQ"), "line 2"),
    ] {
        let failure = Identities::from_text(bad).unwrap_err();
        assert!(failure.message.contains(why), "{bad}: {failure}");
        assert!(!failure.message.contains(&text[16..30]));
    }
    for bad in ["", "age1", &recipient[..61], &text, "age1pq1xyz"] {
        assert!(bad.parse::<Recipient>().is_err());
    }
}

proptest! {
    #[test]
    fn headers_of_strangers_do_no_harm(
        stanzas in prop::collection::vec("-> [X25519 a-zA-Z0-9+/]{0,60}\n[a-zA-Z0-9+/=\n]{0,80}\n", 0..4),
        end in "(--- [a-zA-Z0-9+/]{43}\n)?[ -~]{0,40}",
        piece in 1_usize..100,
    ) {
        let file = format!("age-encryption.org/v1\n{}{end}", stanzas.concat());
        let (all, ended) = decrypt(&identity(), file.as_bytes(), piece);
        prop_assert!(all.is_empty() && ended.is_err());
    }
}
