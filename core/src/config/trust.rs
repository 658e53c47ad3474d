//! The configuration's table `trust`: the keys that must vouch for an image, and what the device is.

#[cfg(feature = "encryption")]
use super::secret;
use super::wrong;
#[cfg(feature = "encryption")]
use crate::age::Identities;
use crate::update::{Failure, trust::Trust};
use serde::Deserialize;
use std::{fmt, path::Path};

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
    decryption_key: Option<KeyFile>,
}

/// A file's name. Should somebody have put the key itself in its place, it is not shown.
#[derive(PartialEq, Deserialize)]
#[serde(transparent)]
struct KeyFile(String);

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile")
    }
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
        #[cfg(not(feature = "encryption"))]
        if self.decryption_key.is_some() {
            return Err(wrong(
                "trust.decryption_key: this program was built without support for encrypted images",
            ));
        }
        self.of_keys(given_keys, directory).map(Some)
    }

    /// There is nobody to verify a signature: keys that would not count are refused.
    #[cfg(not(any(feature = "ring", feature = "rustcrypto")))]
    fn of_keys(&self, _: &[String], _: &Path) -> Result<Trust, Failure> {
        Err(wrong(
            "trust.keys: this program was built without support for signatures",
        ))
    }

    #[cfg(any(feature = "ring", feature = "rustcrypto"))]
    fn of_keys(&self, given_keys: &[String], directory: &Path) -> Result<Trust, Failure> {
        use crate::update::trust::{Identity, KeyId, KeySet, PublicKey};
        let refused = |place: &str, failure: Failure| {
            wrong(format_args!("trust.{place}: {}", failure.message))
        };
        let mut keys = Vec::new();
        for given in given_keys {
            let (shown, pem) = match given.trim_start().starts_with("-----BEGIN ") {
                true => ("keys".to_owned(), given.clone()),
                false => {
                    let file = directory.join(given);
                    let pem = std::fs::read_to_string(&file).map_err(|error| {
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

    /// What decrypts images.
    #[cfg(feature = "encryption")]
    pub(super) fn identities(&self, directory: &Path) -> Result<Option<Identities>, Failure> {
        let Some(KeyFile(file)) = &self.decryption_key else {
            return Ok(None);
        };
        let wrong = |why: &dyn fmt::Display| wrong(format_args!("trust.decryption_key: {why}"));
        if file
            .trim_start()
            .to_ascii_uppercase()
            .starts_with("AGE-SECRET-KEY-")
        {
            return Err(wrong(
                &"it is the name of a file; the key itself does not belong here",
            ));
        }
        let file = directory.join(file);
        let shown = file.display();
        let (text, open_to_all) = secret::read(&file)
            .map_err(|error| wrong(&format_args!("cannot read {shown}: {error}")))?;
        if open_to_all {
            return Err(wrong(&secret::exposed(&file)));
        }
        let identities = Identities::from_text(&text);
        let named = |failure: Failure| wrong(&format_args!("{shown}: {}", failure.message));
        identities.map(Some).map_err(named)
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

    #[cfg(feature = "encryption")]
    #[test]
    fn a_decryption_key_is_a_file_of_the_owner_s() {
        use crate::age::Identity;
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let key = PublicKey::from_bytes(Algorithm::EdDsa, &[1; 32]).unwrap();
        let get = |file: &str| {
            let trust = json!({"keys": [key.to_pem()], "decryption_key": file});
            let config = json!({"state_dir": "s", "trust": trust}).to_string();
            let config = Config::from_json(config.as_bytes()).unwrap();
            assert!(!format!("{config:?}").contains("AGE-SECRET"));
            let config = config.in_directory(directory.path());
            let identities = config.identities().map_err(|failure| failure.message);
            Ok::<_, String>(identities?.unwrap().recipients())
        };
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let identity = Identity::generate().unwrap();
        let text = identity.to_text();
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            write("key", &format!("# mine\n{text}\n"), mode);
            let found = get("key");
            assert_eq!(found.is_ok(), good, "{mode:o}: {found:?}");
        }
        write("key", &text, 0o600);
        assert_eq!(get("key"), Ok(vec![identity.recipient()]));
        write("other", &text[1..], 0o600);
        for (file, why) in [
            ("none", "cannot read"),
            ("other", "line 1 is no age identity"),
            (&text, "the key itself does not belong here"),
        ] {
            let error = get(file).unwrap_err();
            assert!(
                error.contains(why) && !error.contains(&text[20..40]),
                "{error}"
            );
        }
        let alone = json!({"state_dir": "s", "trust": {"decryption_key": "key"}}).to_string();
        let config = Config::from_json(alone.as_bytes()).unwrap();
        let error = config.trust().unwrap_err();
        assert!(error.message.contains("trust.keys is missing"), "{error}");
    }
}
