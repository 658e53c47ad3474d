//! The configuration's table `trust`: the keys that must vouch for an image, and what the device is.

use super::wrong;
use crate::update::{
    Failure,
    trust::{Identity, KeyId, KeySet, PublicKey, Trust},
};
use serde::Deserialize;
use std::{fs, path::Path};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustTable {
    /// Files in PEM, or PEM texts.
    keys: Vec<String>,
    threshold: Option<u32>,
    version: Option<u64>,
    #[serde(default)]
    revoked: Vec<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    hardware_revision: Option<String>,
}

impl TrustTable {
    pub(super) fn trust(&self, directory: &Path) -> Result<Trust, Failure> {
        let refused = |place: &str, failure: Failure| {
            wrong(format_args!("trust.{place}: {}", failure.message))
        };
        let mut keys = Vec::new();
        for given in &self.keys {
            let (shown, pem) = match given.trim_start().starts_with("-----BEGIN ") {
                true => ("keys".to_owned(), given.clone()),
                false => {
                    let file = directory.join(given);
                    let pem = fs::read_to_string(&file).map_err(|error| {
                        wrong(format_args!(
                            "trust.keys: cannot read {}: {error}",
                            file.display()
                        ))
                    })?;
                    (format!("keys, {}", file.display()), pem)
                }
            };
            keys.extend(PublicKey::from_pem(&pem).map_err(|failure| refused(&shown, failure))?);
        }
        let revoked = self.revoked.iter().map(|id| KeyId::parse(id));
        let revoked = revoked
            .collect::<Result<_, _>>()
            .map_err(|failure| refused("revoked", failure))?;
        let (version, threshold) = (self.version.unwrap_or(1), self.threshold.unwrap_or(1));
        let keys = KeySet::new(version, threshold, keys, revoked)
            .map_err(|failure| refused("keys", failure))?;
        let identity = Identity {
            manufacturer: self.manufacturer.clone(),
            model: self.model.clone(),
            hardware_revision: self.hardware_revision.clone(),
        };
        Ok(Trust::new(keys, identity))
    }
}
