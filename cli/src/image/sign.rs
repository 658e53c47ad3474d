//! `twinflash image sign`

use super::{
    add_signatures, digest, note_length, opened,
    pack::{How, Made},
    verify, write,
};
use crate::{
    error::Error,
    key::{Keys, recipients},
    screen::{Screen, Tone, parse_time},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};
use twinflash::{
    contract::Contract,
    update::{
        Encryption,
        trust::{Compatibility, Download, Jws, KeySet, Kind, Manifest, Trust},
    },
};

/// Sign an image: write the manifest that vouches for it
///
/// Serve it beside the image, as its URL followed by .jws, or send it in the request: what is printed is
/// ready to paste.
#[derive(clap::Args)]
pub(crate) struct Sign {
    /// The image, as it will be installed
    file: PathBuf,
    /// The image's version
    #[arg(long, value_name = "V", required_unless_present = "add")]
    version: Option<String>,
    /// Which devices it is for: manufacturer=…, model=… or hardwareRevision=…, each as often as there
    /// are such. What is not said is not looked at
    #[arg(long, value_name = "NAME=VALUE")]
    compatible: Vec<String>,
    /// From when on no device accepts it any more: so many days (90d), a date (2027-06-30) or a time
    /// (2027-06-30T12:00:00Z)
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Once it is confirmed, its device accepts no lower version any more
    #[arg(long, value_name = "V")]
    floor: Option<String>,
    /// Pack the image into a file beside it (.zst or .gz), which is served in its place: devices unpack
    /// it while it comes. A download that breaks goes on at the last 4 MiB of the image
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "add")]
    compress: Option<How>,
    /// Encrypt the file for these devices (.age), after it is packed: an age recipient (age1…), or a file of them, one a
    /// line; may be given several times. "twinflash key new --encryption" and age-keygen make them
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "add")]
    encrypt_to: Vec<String>,
    /// The image as somebody else has encrypted it, with age itself, which is served in its place. It may be another file
    /// for each device: the manifest says nothing of its size
    #[arg(long, value_name = "FILE", conflicts_with_all = ["add", "compress", "encrypt_to"])]
    encrypted: Option<PathBuf>,
    /// Add signatures to a manifest that others have signed, and change nothing else
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["version", "compatible", "expires", "floor"])]
    add: Option<PathBuf>,
    /// Where the manifest goes [default: the image's name followed by .jws, or with --add the same file]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where devices will get the image from, for what is printed
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    keys: Keys,
}

/// What was signed, ready to paste.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    manifest: String,
    signed_by: Vec<String>,
    fw_manifest: String,
    desired: Value,
    method: Value,
    configuration: Value,
}

impl Sign {
    pub(super) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let (size, digests) = digest(&self.file)?;
        let encrypted = recipients(&self.encrypt_to)?;
        let made = Made {
            packed: self.compress,
            encrypted: &encrypted,
        };
        // What is served.
        let served = match &self.encrypted {
            Some(file) => file.clone(),
            None => made.beside(&self.file),
        };
        let signers = self.keys.open(screen)?;
        let (mut jws, manifest) = match &self.add {
            Some(file) => {
                let (jws, manifest) = opened(file)?;
                verify::check_image(&manifest, size, &digests.sha256)?;
                (jws, manifest)
            }
            None => {
                let mut manifest = self.manifest(size, digests.sha256)?;
                manifest.encryption = self.encrypted.as_ref().map(|_| Encryption::Age);
                if !made.is_nothing() {
                    manifest.compression = self.compress.map(How::compression);
                    if !encrypted.is_empty() {
                        manifest.encryption = Some(Encryption::Age);
                    }
                    let size = made.make(&self.file, &served)?;
                    manifest.download = Some(Download::new(size));
                }
                (Jws::new(&manifest.to_json()?), manifest)
            }
        };
        add_signatures(&mut jws, Kind::Manifest, &signers)?;
        let text = jws.to_string();
        // As a device reads it.
        let keys: Vec<_> = signers.iter().map(|s| s.public().clone()).collect();
        let threshold = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let trust = Trust::new(
            KeySet::new(1, threshold, keys, Vec::new())?,
            Default::default(),
        );
        trust.open(&text)?;

        let output = self.output.clone().or(self.add.clone());
        let output = output.unwrap_or_else(|| {
            let mut name = served.clone().into_os_string();
            name.push(".jws");
            name.into()
        });
        write(&output, &text)?;
        let name = served.file_name().unwrap_or_default().to_string_lossy();
        let url = self
            .url
            .clone()
            .unwrap_or_else(|| format!("https://example.com/{name}"));
        let asked = |contract: &str| -> Result<(Contract, Value), Error> {
            let contract = Contract::built_in(contract)?;
            let check = base16ct::lower::encode_string(&digests.sha256);
            let asked = contract.ask(
                &url,
                Some(&manifest.version),
                Some(&check),
                Some(manifest.size),
                Some(&text),
            );
            Ok((contract, asked))
        };
        let (contract, desired) = asked("configuration")?;
        let path = contract.desired_path().unwrap_or_default();
        let (_, method) = asked("iothub-dm")?;
        let signed = Signed {
            file: (!made.is_nothing()).then(|| served.display().to_string()),
            manifest: output.display().to_string(),
            signed_by: signers
                .iter()
                .map(|s| s.public().id().to_string())
                .collect(),
            configuration: json!({"deviceContent": {(format!("properties.desired.{path}")): &desired}}),
            desired: json!({ path: desired }),
            method,
            fw_manifest: text,
        };
        signed.show(screen, &manifest);
        Ok(true)
    }

    fn manifest(&self, size: u64, sha256: [u8; 32]) -> Result<Manifest, Error> {
        let now = OffsetDateTime::now_utc();
        let issued = u64::try_from(now.unix_timestamp())
            .map_err(|_| Error::new("this machine's clock is before 1970"))?;
        let version = self.version.clone().unwrap_or_default();
        let mut manifest = Manifest::new(version, size, sha256, issued);
        manifest.compatibility = compatibility(&self.compatible)?;
        manifest.floor.clone_from(&self.floor);
        if let Some(expires) = &self.expires {
            let at = expiry(expires, now).ok_or_else(|| {
                Error::new(format_args!(
                    "--expires {expires}: so many days (90d), a date (2027-06-30) or a time (2027-06-30T12:00:00Z) is needed"
                ))
            })?;
            manifest.expires = Some(u64::try_from(at.unix_timestamp()).unwrap_or_default());
        }
        Ok(manifest)
    }
}

fn compatibility(given: &[String]) -> Result<Compatibility, Error> {
    let mut compatibility = Compatibility::default();
    for text in given {
        let list = match text.split_once('=') {
            Some((name, value)) if !value.is_empty() => match name {
                "manufacturer" => Some((&mut compatibility.manufacturer, value)),
                "model" => Some((&mut compatibility.model, value)),
                "hardwareRevision" => Some((&mut compatibility.hardware_revision, value)),
                _ => None,
            },
            _ => None,
        };
        let Some((list, value)) = list else {
            return Err(Error::new(format_args!(
                "--compatible {text}: manufacturer=…, model=… or hardwareRevision=… is needed"
            )));
        };
        list.push(value.into());
    }
    Ok(compatibility)
}

fn expiry(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    if let Some(days) = text.strip_suffix('d') {
        return now.checked_add(Duration::days(days.parse::<u32>().ok()?.into()));
    }
    parse_time(text).or_else(|| parse_time(&format!("{text}T00:00:00Z")))
}

impl Signed {
    fn show(&self, screen: &Screen, manifest: &Manifest) {
        if screen.is_json() {
            return screen.json(self);
        }
        if let Some(file) = &self.file {
            screen.pair(14, "file to serve", file, "", Tone::Good);
        }
        screen.pair(14, "manifest", &self.manifest, "", Tone::Good);
        for id in &self.signed_by {
            screen.pair(14, "signed by", id, "", Tone::Normal);
        }
        verify::show(screen, manifest);
        for (what, value) in [
            ("Desired properties (contract configuration)", &self.desired),
            ("Payload of a method", &self.method),
            ("Content of a configuration", &self.configuration),
        ] {
            screen.text("", Tone::Normal);
            screen.text(what, Tone::Dim);
            let pretty = serde_json::to_string_pretty(value).unwrap_or_default();
            for line in pretty.lines() {
                screen.text(line, Tone::Normal);
            }
        }
        if manifest.compatibility == Compatibility::default() {
            screen.note("no --compatible: it is for every device that trusts the key");
        }
        note_length(screen, &self.fw_manifest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_expiry() {
        let now = parse_time("2026-11-21T10:00:00Z").unwrap();
        for (text, expected) in [
            ("90d", "2027-02-19T10:00:00Z"),
            ("2027-06-30", "2027-06-30T00:00:00Z"),
            ("2027-06-30T12:00:00+02:00", "2027-06-30T10:00:00Z"),
        ] {
            assert_eq!(expiry(text, now), parse_time(expected), "{text}");
        }
        for text in ["", "d", "-1d", "90", "tomorrow", "2027-02-30"] {
            assert_eq!(expiry(text, now), None, "{text}");
        }
    }
}
