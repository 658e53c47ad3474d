//! `twinflash config create`

use super::{CONTRACT, metrics, show};
use crate::{
    Common,
    cloud::{Cloud, text},
    error::Error,
    image, query,
    screen::{Screen, Tone},
    service::{About, Request, Service},
};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use twinflash::{
    contract::{Contract, Verdict},
    update::{Origin, Policy},
};

/// Create a configuration that asks devices for an update
///
/// The hub checks condition and metrics before anything is created. Then: twinflash watch --config ID
#[derive(clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    cloud: Cloud,
    /// Where the devices get the image from
    #[arg(long, value_name = "URL")]
    image: String,
    /// The same image here, for its size and check value
    #[arg(long, value_name = "FILE", required_unless_present = "manifest")]
    from: Option<PathBuf>,
    /// The image's version
    #[arg(long, value_name = "V", required_unless_present = "manifest")]
    version: Option<String>,
    /// A signed manifest, which goes with the request; it says version and size, too (`twinflash image sign` makes it)
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Which devices: a condition such as "tags.devicetype = 'chiller'", or * for all
    #[arg(long, value_name = "CONDITION")]
    target: String,
    /// Where two configurations set the same, the greater number wins
    #[arg(long, default_value_t = 0, value_name = "N")]
    priority: u32,
    /// The contract the devices follow: devkit, configuration, or the file of another that is asked
    /// by desired properties. Its metrics become the configuration's
    #[arg(long, default_value = "configuration", value_name = "NAME|FILE")]
    contract: String,
    /// The new configuration's id: lower-case letters, digits and a few signs
    configuration: String,
}

impl Create {
    pub(super) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let contract = twinflash::config::contract(&self.contract, Path::new(""))?;
        let Some(path) = contract.desired_path() else {
            return Err(Error::new(format_args!(
                "contract {} is asked by a method: a configuration sets desired properties, as the contracts configuration and devkit have them",
                contract.name()
            )));
        };
        let desired = self.desired(&contract, screen)?;
        let mut policy = Policy::default();
        policy.require_manifest = self.manifest.is_some();
        if let Verdict::Refuse(_, failure) =
            contract.judge(&desired, Origin::Desired, None, &policy)
        {
            let why = failure.message;
            screen.note(&format!(
                "devices refuse this unless their policy allows it: {why}"
            ));
        }
        let content = json!({ (format!("properties.desired.{path}")): desired });
        let metrics = metrics::of(&contract, &self.configuration);
        let service = self.cloud.open(common)?;
        test(&service, screen, &self.target, &metrics)?;

        let id = &self.configuration;
        let path = ["configurations", id];
        let request = Request::new("PUT", &path, About::Configuration(id)).body(json!({
            "id": id,
            "schemaVersion": "1.0",
            "labels": { (CONTRACT): contract.name() },
            "content": {"deviceContent": content},
            "targetCondition": self.target,
            "priority": self.priority,
            "metrics": {"queries": metrics},
        }));
        let made = service.ask(request)?;
        show(screen, &made);
        screen.text(
            &format!("To follow it: twinflash watch --config {id}"),
            Tone::Dim,
        );
        Ok(true)
    }

    /// What the devices are asked for.
    fn desired(&self, contract: &Contract, screen: &Screen) -> Result<Value, Error> {
        let image = self.from.as_deref().map(image::digest).transpose()?;
        let signed = self.manifest.as_deref().map(image::opened).transpose()?;
        if let (Some((size, digests)), Some((_, manifest))) = (&image, &signed) {
            image::check_image(manifest, *size, &digests.sha256)?;
        }
        let check = image.as_ref().map(|(_, digests)| match contract.name() {
            // All that the board knows.
            "devkit" => format!("{:x}", digests.crc16),
            _ => base16ct::lower::encode_string(&digests.sha256),
        });
        let (text, manifest) = signed.unzip();
        let text = text.map(|jws| jws.to_string());
        if let Some(text) = &text {
            image::note_length(screen, text);
        }
        let manifest = manifest.as_ref();
        let version = manifest.map(|manifest| manifest.version.as_str());
        let size = image.map(|(size, _)| size).or(manifest.map(|m| m.size));
        let version = self.version.as_deref().or(version);
        Ok(contract.ask(
            &self.image,
            version,
            check.as_deref(),
            size,
            text.as_deref(),
        ))
    }
}

/// Has the hub check the condition and each metric.
fn test(
    service: &Service,
    screen: &Screen,
    target: &str,
    metrics: &Map<String, Value>,
) -> Result<(), Error> {
    let path = ["configurations", "testQueries"];
    let request = Request::new("POST", &path, About::Hub);
    let body = json!({"targetCondition": target, "customMetricQueries": metrics});
    let errors = service.ask(request.body(body))?;
    let said = text(&errors, "/targetConditionError");
    if !said.is_empty() {
        query::show_place(screen, target, &said);
        return Err(Error::new(format_args!("--target is refused: {said}")));
    }
    let errors = errors
        .get("customMetricQueryErrors")
        .and_then(Value::as_object);
    for (name, said) in errors.into_iter().flatten() {
        let said = said.as_str().unwrap_or_default();
        if !said.is_empty() {
            let text = metrics.get(name).and_then(Value::as_str);
            query::show_place(screen, text.unwrap_or_default(), said);
            return Err(Error::new(format_args!(
                "metric \"{name}\" is refused: {said}"
            )));
        }
    }
    Ok(())
}
