//! The MQTT topics of Azure IoT Hub: Microsoft's "Communicate with an IoT hub using MQTT".

/// Where methods are called.
pub(super) const METHODS: &str = "$iothub/methods/POST/#";

/// Everything a device subscribes to: method calls, answers about its twin, desired properties.
pub(super) const SUBSCRIPTIONS: [&str; 3] = [
    METHODS,
    "$iothub/twin/res/#",
    "$iothub/twin/PATCH/properties/desired/#",
];

/// A topic the hub publishes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// A direct method is called.
    Method { name: &'a str, request: &'a str },
    /// The answer to a twin request of ours.
    TwinAnswer {
        status: u16,
        request: &'a str,
        version: Option<u64>,
    },
    /// Desired properties have changed.
    Desired,
}

impl<'a> Incoming<'a> {
    /// `None` for a topic that is none of [`SUBSCRIPTIONS`]'.
    pub(super) fn parse(topic: &'a str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("$iothub/methods/POST/") {
            let (name, query) = rest.split_once("/?")?;
            let request = parameter(query, "$rid")?;
            return Some(Self::Method { name, request });
        }
        if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
            let (status, query) = rest.split_once("/?")?;
            return Some(Self::TwinAnswer {
                status: status.parse().ok()?,
                request: parameter(query, "$rid")?,
                version: parameter(query, "$version").and_then(|text| text.parse().ok()),
            });
        }
        topic
            .starts_with("$iothub/twin/PATCH/properties/desired/")
            .then_some(Self::Desired)
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// Where the answer to a method call goes.
pub(super) fn method_answer(request: &str, status: u16) -> String {
    format!("$iothub/methods/res/{status}/?$rid={request}")
}

/// Where the twin is asked for.
pub(super) fn get_twin(request: &str) -> String {
    format!("$iothub/twin/GET/?$rid={request}")
}

/// Where a patch of the reported properties goes.
pub(super) fn report(request: &str) -> String {
    format!("$iothub/twin/PATCH/properties/reported/?$rid={request}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_publishes() {
        for (topic, expected) in [
            (
                "$iothub/methods/POST/firmwareUpdate/?$rid=1a",
                Some(Incoming::Method {
                    name: "firmwareUpdate",
                    request: "1a",
                }),
            ),
            (
                "$iothub/twin/res/200/?$rid=7",
                Some(Incoming::TwinAnswer {
                    status: 200,
                    request: "7",
                    version: None,
                }),
            ),
            (
                "$iothub/twin/res/204/?$version=6&$rid=7",
                Some(Incoming::TwinAnswer {
                    status: 204,
                    request: "7",
                    version: Some(6),
                }),
            ),
            (
                "$iothub/twin/PATCH/properties/desired/?$version=8",
                Some(Incoming::Desired),
            ),
            ("$iothub/methods/POST/x", None),
            ("$iothub/methods/POST/x/?rid=1", None),
            ("$iothub/twin/res/ok/?$rid=7", None),
            ("$iothub/twin/res/70000/?$rid=7", None),
            ("devices/d/messages/devicebound/x", None),
            ("", None),
        ] {
            assert_eq!(Incoming::parse(topic), expected, "{topic}");
        }
    }
}
