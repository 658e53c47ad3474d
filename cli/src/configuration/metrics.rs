//! The metrics a contract's tutorial counts its devices with.

use crate::cloud::quoted;
use serde_json::{Map, Value};
use twinflash::contract::Contract;

/// The most a configuration may have.
const MOST: usize = 5;

/// Each metric's name and query. A contract of one's own has one for each of its final statuses.
pub(super) fn of(contract: &Contract, configuration: &str) -> Map<String, Value> {
    let status = format!("properties.reported.{}", contract.follow().status);
    let applied = format!("configurations.[[{configuration}]].status='Applied'");
    let select =
        |condition: String| Value::from(format!("SELECT deviceId FROM devices WHERE {condition}"));
    match contract.name() {
        // The DevKit's tutorial, step 3.
        "devkit" => ["Current", "Downloading", "Verifying", "Applying", "Error"]
            .into_iter()
            .map(|name| {
                let section = status.rsplit_once('.').map_or("", |(section, _)| section);
                let condition = format!("{status}='{name}' AND {section}.type='IoTDevKit'");
                (name.into(), select(condition))
            })
            .collect(),
        // The sample configuration of the Node tutorial's later programs.
        "configuration" => {
            let applying = ["downloading", "verifying", "applying"];
            [
                ("Current", &["current"][..]),
                ("Applying", &applying),
                ("Rebooting", &["rebooting"]),
                ("Error", &["error"]),
                ("RolledBack", &["rolledback"]),
            ]
            .into_iter()
            .map(|(name, statuses)| {
                let any: Vec<_> = statuses
                    .iter()
                    .map(|text| format!("{status}='{text}'"))
                    .collect();
                let any = match any.as_slice() {
                    [one] => one.clone(),
                    several => format!("( {} )", several.join(" OR ")),
                };
                (name.into(), select(format!("{applied} AND {any}")))
            })
            .collect()
        }
        _ => {
            let follow = contract.follow();
            let last = follow.done.iter().chain(&follow.failed).take(MOST);
            last.map(|name| {
                (
                    name.clone(),
                    select(format!("{applied} AND {status}={}", quoted(name))),
                )
            })
            .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorials_own() {
        let of = |name| of(&Contract::built_in(name).unwrap(), "firmware285");
        let devkit = of("devkit");
        assert_eq!(devkit.len(), 5);
        assert_eq!(
            devkit["Verifying"],
            "SELECT deviceId FROM devices WHERE properties.reported.firmware.fwUpdateStatus='Verifying' AND properties.reported.firmware.type='IoTDevKit'"
        );
        let node = of("configuration");
        assert_eq!(node.len(), 5);
        assert_eq!(
            node["Current"],
            "SELECT deviceId FROM devices WHERE configurations.[[firmware285]].status='Applied' AND properties.reported.firmware.fwUpdateStatus='current'"
        );
        assert_eq!(
            node["Applying"],
            "SELECT deviceId FROM devices WHERE configurations.[[firmware285]].status='Applied' AND ( properties.reported.firmware.fwUpdateStatus='downloading' OR properties.reported.firmware.fwUpdateStatus='verifying' OR properties.reported.firmware.fwUpdateStatus='applying' )"
        );
    }
}
