//! Encrypted images: the header of a stranger's file, and files of ours.

use std::io::Write;
use twinflash::age::{Decryptor, Encryptor, Identities, Wrong};

/// That of the format's own test vectors, which are among the seeds.
const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

fn run(mut decryptor: Decryptor, file: &[u8], piece: usize) -> (Vec<u8>, Result<(), Wrong>) {
    let mut all = Vec::new();
    for mut bytes in file.chunks(piece) {
        while !bytes.is_empty() {
            match decryptor.take(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(wrong) => return (all, Err(wrong)),
            }
            all.extend_from_slice(decryptor.output());
        }
    }
    let ended = decryptor.finish();
    if ended.is_ok() {
        all.extend_from_slice(decryptor.output());
    }
    (all, ended)
}

/// The first byte is the size of the pieces in which the rest comes: it does not matter to what comes of it. And the rest as
/// an image: encrypted, it is decrypted, from the beginning and from its middle.
pub(crate) fn age(data: &[u8]) {
    let Some((piece, file)) = data.split_first() else {
        return;
    };
    let piece = usize::from(*piece) + 1;
    let identities = Identities::from_text(IDENTITY).expect("an identity");
    let whole = run(Decryptor::new(identities.clone()), file, file.len().max(1));
    let pieces = run(Decryptor::new(identities.clone()), file, piece);
    assert_eq!(whole, pieces);
    if let Err(wrong) = whole.1 {
        let shown = wrong.to_string();
        assert!(!shown.is_empty() && !shown.contains('\n'));
    }

    let recipients = identities.recipients();
    let mut encryptor = Encryptor::new(&recipients, Vec::new()).expect("a recipient");
    encryptor.write_all(file).expect("memory");
    let sealed = encryptor.finish().expect("memory");
    let (image, ended) = run(Decryptor::new(identities.clone()), &sealed, piece);
    assert!(ended.is_ok() && image == file);
    let mut begun = Decryptor::new(identities.clone());
    begun.take(&sealed).expect("a header");
    let kept = begun.sealed().expect("a header").clone();
    let middle = file.len() / 2;
    let place = Decryptor::place(&kept, middle as u64, Some(sealed.len() as u64));
    let rest = Decryptor::resume(identities, &kept, middle as u64).expect("its own");
    let from = usize::try_from(place).expect("in memory");
    let (rest, ended) = run(rest, &sealed[from..], piece);
    if from < sealed.len() {
        assert!(ended.is_ok() && rest == file[middle..]);
    }
}
