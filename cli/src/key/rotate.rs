//! `twinflash key rotate`

use super::{Keys, public_keys};
use crate::{
    error::Error,
    image::{add_signatures, read_text, write},
    screen::{Screen, Tone},
};
use serde_json::json;
use std::path::PathBuf;
use twinflash::update::trust::{Jws, KeyId, KeySet, Kind};

/// Sign a new set of keys that devices are to trust from now on
///
/// As many of the keys that they trust now must sign it as they want signatures of a manifest. Devices
/// take it only if its version is higher than that of the set they have; a device's first one is 1.
#[derive(clap::Args)]
pub(crate) struct Rotate {
    /// The new set's version
    #[arg(long, value_name = "N", required_unless_present = "add")]
    version: Option<u64>,
    /// The public keys of the new set (PEM; may be given several times)
    #[arg(long, value_name = "PEM", required_unless_present = "add")]
    trust: Vec<PathBuf>,
    /// How many of them must sign a manifest
    #[arg(long, default_value_t = 1, value_name = "N")]
    threshold: u32,
    /// A key that never counts again, by its id (may be given several times)
    #[arg(long, value_name = "ID")]
    revoke: Vec<String>,
    /// Add signatures to a set that others have signed, and change nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["version", "trust", "threshold", "revoke"])]
    add: Option<PathBuf>,
    /// Where the signed set goes [default: keys.jws, or with --add the same file]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

impl Rotate {
    pub(super) fn run(self, screen: &Screen) -> Result<(), Error> {
        let signers = self.keys.open(screen)?;
        let mut jws = match &self.add {
            Some(file) => Jws::parse(&read_text(file)?)?,
            None => {
                let mut keys = Vec::new();
                for file in &self.trust {
                    keys.extend(public_keys(file)?);
                }
                let revoked = self.revoke.iter().map(|id| KeyId::parse(id));
                let revoked = revoked.collect::<Result<_, _>>()?;
                let version = self.version.unwrap_or_default();
                Jws::new(&KeySet::new(version, self.threshold, keys, revoked)?.to_json())
            }
        };
        add_signatures(&mut jws, Kind::Keys, &signers)?;
        let output = self.output.or(self.add);
        let output = output.unwrap_or_else(|| PathBuf::from("keys.jws"));
        let text = jws.to_string();
        write(&output, &text)?;
        let shown = output.display().to_string();
        if screen.is_json() {
            screen.json(&json!({"keys": shown, "fwKeys": text}));
        } else {
            screen.pair(11, "key set", &shown, "", Tone::Normal);
            for signer in &signers {
                let id = signer.public().id().to_string();
                screen.pair(11, "signed by", &id, "", Tone::Normal);
            }
        }
        Ok(())
    }
}
