//! A hub in a few lines: `cargo run -p twinflash-hub --example hub -- [--device ID]… [--state DIR] [--mqtt-port N]
//! [--https-port N] [--device-x509 ID[=THUMBPRINT]]… [--trust-ca FILE]… [--throttle S1]`. Prints how it is reached and then what happens, one JSON object a line; ends with its standard input.
#![allow(clippy::print_stdout)]

use std::{error::Error, io::Read, sync::Arc};
use twinflash_hub::{Hub, Limits, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options {
        observer: Some(Arc::new(|event| println!("{}", serde_json::json!(event)))),
        ..Options::default()
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--device" => options.devices.push(value),
            "--device-x509" => options.x509_devices.push(match value.split_once('=') {
                Some((id, thumbprint)) => (id.into(), Some(thumbprint.into())),
                None => (value, None),
            }),
            "--trust-ca" => options.trusted_authorities.push(value.into()),
            "--throttle" if value == "S1" => options.throttle = Some(Limits::S1),
            "--state" => options.state = Some(value.into()),
            "--mqtt-port" => options.mqtt_port = value.parse()?,
            "--https-port" => options.https_port = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    let hub = Hub::start(options)?;
    let mut ready = serde_json::to_value(hub.info())?;
    if let Some(members) = ready.as_object_mut() {
        members.insert("event".into(), "ready".into());
    }
    println!("{ready}");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    hub.stop();
    Ok(())
}
