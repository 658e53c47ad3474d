//! Keys that decrypt images on devices, in the age format.

use super::{create, read};
use crate::{
    error::Error,
    screen::{Screen, Tone, iso},
};
use serde_json::json;
use std::path::Path;
use time::OffsetDateTime;
use twinflash::age::{Identities, Identity, Recipient};

/// Makes an identity, and writes its file as `age-keygen` does.
pub(super) fn new(file: &Path, screen: &Screen) -> Result<(), Error> {
    let identity = Identity::generate()?;
    let recipient = identity.recipient().to_string();
    let now = iso(OffsetDateTime::now_utc());
    let secret = identity.to_text();
    let text = format!("# created: {now}\n# public key: {recipient}\n{secret}\n");
    create(file, &text, 0o600)?;
    let shown = file.display().to_string();
    if screen.is_json() {
        screen.json(&json!({"identity": shown, "recipient": recipient}));
        return Ok(());
    }
    for (name, value, what) in [
        (
            "identity",
            &shown,
            "decrypts; for the devices, as trust.decryption_key",
        ),
        (
            "recipient",
            &recipient,
            "for twinflash image sign --encrypt-to",
        ),
    ] {
        screen.pair(11, name, value, what, Tone::Normal);
    }
    Ok(())
}

/// Whom to encrypt for: recipients, and files of them.
pub(crate) fn recipients(given: &[String]) -> Result<Vec<Recipient>, Error> {
    let mut all = Vec::new();
    for given in given {
        if given.starts_with("age1") {
            all.push(given.parse()?);
            continue;
        }
        let text = read(Path::new(given))?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim);
        let before = all.len();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // Should it be an identity, it is not shown.
            let recipient = line.parse().map_err(|_| {
                Error::new(format_args!(
                    "{given}: a line in it is no age recipient (age1…)"
                ))
            });
            all.push(recipient?);
        }
        if all.len() == before {
            return Err(Error::new(format_args!(
                "{given}: there is no age recipient in it (age1…)"
            )));
        }
    }
    Ok(all)
}

/// What decrypts, from its file.
pub(crate) fn identities(file: &Path) -> Result<Identities, Error> {
    let text = read(file)?;
    Identities::from_text(&String::from_utf8_lossy(&text))
        .map_err(|failure| Error::new(format_args!("{}: {}", file.display(), failure.message)))
}
