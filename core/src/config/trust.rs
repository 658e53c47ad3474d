//! The configuration's table `trust`: the keys that must vouch for an image, and what the device is.

use super::wrong;
use crate::update::{
    Failure,
    trust::{Identity, KeyId, KeySet, PublicKey, Trust},
};
use serde::Deserialize;
use std::{fs, path::Path};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TrustTable {
    /// Files in PEM, or PEM texts.
    keys: Option<Vec<String>>,
    threshold: Option<u32>,
    version: Option<u64>,
    revoked: Vec<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    hardware_revision: Option<String>,
}

impl TrustTable {
    /// An empty table is none; one that has no keys but something else is a mistake.
    pub(super) fn trust(&self, directory: &Path) -> Result<Option<Trust>, Failure> {
        let Some(given_keys) = &self.keys else {
            return match *self == Self::default() {
                true => Ok(None),
                false => Err(wrong("trust.keys is missing: the public keys to trust")),
            };
        };
        let refused = |place: &str, failure: Failure| {
            wrong(format_args!("trust.{place}: {}", failure.message))
        };
        let mut keys = Vec::new();
        for given in given_keys {
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
        Ok(Some(Trust::new(keys, identity)))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::update::trust::{Algorithm, KeyId, PublicKey};
    use serde_json::{Value, json};

    fn trust(table: Value, directory: &std::path::Path) -> Result<(usize, u32, u64), String> {
        let config = json!({"state_dir": "s", "trust": table}).to_string();
        let config = Config::from_json(config.as_bytes()).map_err(|failure| failure.message)?;
        let trust = config.in_directory(directory).trust();
        let Some(trust) = trust.map_err(|failure| failure.message)? else {
            return Ok((0, 0, 0));
        };
        let keys = trust.keys;
        Ok((keys.usable().count(), keys.threshold(), keys.version()))
    }

    #[test]
    fn keys_of_files_and_texts() {
        let directory = tempfile::tempdir().unwrap();
        let key = |number| PublicKey::from_bytes(Algorithm::EdDsa, &[number; 32]).unwrap();
        let both = key(1).to_pem() + &key(2).to_pem();
        std::fs::write(directory.path().join("keys.pem"), both).unwrap();
        let get = |table: Value| trust(table, directory.path());
        let keys = json!(["keys.pem", key(3).to_pem()]);
        assert_eq!(get(json!({})), Ok((0, 0, 0)));
        assert_eq!(get(json!({ "keys": keys })), Ok((3, 1, 1)));
        let revoked = [key(1).id()];
        let table = json!({"keys": keys, "threshold": 2, "version": 7, "revoked": revoked});
        assert_eq!(get(table), Ok((2, 2, 7)));
        let nobody = KeyId([0; 32]);
        for (table, why) in [
            (json!({"keys": []}), "trust.keys: 1 keys must sign"),
            (json!({"model": "x"}), "trust.keys is missing"),
            (json!({"keys": ["no.pem"]}), "no.pem: No such file"),
            (json!({"keys": keys, "threshold": 4}), "there are only 3"),
            (json!({"keys": keys, "threshold": 0}), "a threshold of 0"),
            (
                json!({"keys": keys, "revoked": ["1"]}),
                "trust.revoked: a key's id is",
            ),
            (
                json!({"keys": [key(1).to_pem()], "revoked": [key(1).id(), nobody]}),
                "there are only 0",
            ),
            (json!({"key": keys}), "unknown field `key`"),
        ] {
            let error = get(table.clone()).unwrap_err();
            assert!(error.contains(why), "{table}: {error}");
        }
    }
}
