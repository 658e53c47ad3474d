//! IoT Hub's topics. "Communicate with an IoT hub using the MQTT protocol" lists them; there are no others.

/// What a device publishes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published<'a> {
    /// A device-to-cloud message.
    Telemetry {
        /// Its properties, as they stand there.
        properties: &'a str,
    },
    /// The answer to a direct method.
    MethodAnswer {
        status: i64,
        request: &'a str,
    },
    GetTwin {
        request: &'a str,
    },
    PatchReported {
        request: &'a str,
        /// The version the device believes the reported properties have; the Java SDK sends it.
        version: Option<&'a str>,
    },
}

impl<'a> Published<'a> {
    /// `None` when it is no topic that this device may publish to.
    pub(crate) fn parse(device: &str, topic: &'a str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("$iothub/") {
            if let Some(query) = rest.strip_prefix("twin/GET/") {
                return Some(Self::GetTwin {
                    request: request(query)?,
                });
            }
            if let Some(query) = rest.strip_prefix("twin/PATCH/properties/reported/") {
                return Some(Self::PatchReported {
                    request: request(query)?,
                    version: field(query, "$version="),
                });
            }
            let (status, query) = rest.strip_prefix("methods/res/")?.split_once('/')?;
            return Some(Self::MethodAnswer {
                status: status.parse().ok()?,
                request: request(query)?,
            });
        }
        let rest = topic.strip_prefix("devices/")?.strip_prefix(device)?;
        let rest = rest.strip_prefix("/messages/events")?;
        let properties = match rest {
            "" => "",
            rest => rest.strip_prefix('/')?,
        };
        Some(Self::Telemetry { properties })
    }
}

/// The `$rid` of a topic's query. It goes back as it came, so it must not hold what a topic cannot.
fn request(query: &str) -> Option<&str> {
    field(query, "$rid=").filter(|request| !request.contains(['#', '+', '\0']))
}

fn field<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let fields = query.strip_prefix('?')?;
    fields.split('&').find_map(|field| field.strip_prefix(name))
}

/// The longest filter; those documented are far shorter.
const MAX_FILTER: usize = 512;

/// Whether a device may subscribe to a filter.
pub(crate) fn may_subscribe(device: &str, filter: &str) -> bool {
    let own = format!("devices/{device}/messages/devicebound/");
    let known = [
        own.as_str(),
        "$iothub/methods/POST/",
        "$iothub/twin/res/",
        "$iothub/twin/PATCH/properties/desired/",
    ];
    let levels_are_sound = || {
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            let sound = match level {
                "#" => levels.peek().is_none(),
                "+" => true,
                other => !other.contains(['#', '+']),
            };
            if !sound {
                return false;
            }
        }
        true
    };
    filter.len() <= MAX_FILTER
        && known.iter().any(|known| match filter.strip_prefix(known) {
            // The device's own id may hold + and #; what follows may not, but as a wildcard.
            Some(rest) if *known == own => rest == "#" || !rest.contains(['#', '+']),
            Some(_) => levels_are_sound(),
            None => false,
        })
}

/// Whether a filter takes a topic: MQTT 3.1.1, section 4.7.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(found)) if level == found => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_publishes() {
        let parse = |topic| Published::parse("d", topic);
        assert_eq!(
            parse("devices/d/messages/events/"),
            Some(Published::Telemetry { properties: "" })
        );
        assert_eq!(
            parse("devices/d/messages/events/a=b&$.ct=x"),
            Some(Published::Telemetry {
                properties: "a=b&$.ct=x"
            })
        );
        assert_eq!(
            parse("$iothub/methods/res/200/?$rid=7"),
            Some(Published::MethodAnswer {
                status: 200,
                request: "7"
            })
        );
        assert_eq!(
            parse("$iothub/methods/res/-1/?a=b&$rid=7"),
            Some(Published::MethodAnswer {
                status: -1,
                request: "7"
            })
        );
        assert_eq!(
            parse("$iothub/twin/GET/?$rid=a-b"),
            Some(Published::GetTwin { request: "a-b" })
        );
        assert_eq!(
            parse("$iothub/twin/PATCH/properties/reported/?$rid="),
            Some(Published::PatchReported {
                request: "",
                version: None
            })
        );
        assert_eq!(
            parse("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7"),
            Some(Published::PatchReported {
                request: "1",
                version: Some("7")
            })
        );
        for topic in [
            "devices/e/messages/events/",
            "devices/d/messages/eventsx",
            "devices/d/messages/devicebound/",
            "x",
            "",
            "$iothub/twin/GET/",
            "$iothub/twin/GET/?rid=1",
            "$iothub/twin/GET/?$rid=#",
            "$iothub/methods/res/x/?$rid=1",
            "$iothub/methods/res/200",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
        ] {
            assert_eq!(parse(topic), None, "{topic}");
        }
    }

    #[test]
    fn what_a_device_subscribes_to() {
        for filter in [
            "devices/a+b/messages/devicebound/#",
            "$iothub/methods/POST/#",
            "$iothub/methods/POST/+/?$rid=1",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
        ] {
            assert!(may_subscribe("a+b", filter), "{filter}");
        }
        for filter in [
            "#",
            "+/methods/POST/#",
            "devices/c/messages/devicebound/#",
            "$iothub/#",
            "$iothub/methods/POST/#/x",
            "$iothub/methods/POST/a#",
            &format!("$iothub/methods/POST/{}", "x".repeat(512)),
            "",
        ] {
            assert!(!may_subscribe("a+b", filter), "{filter}");
        }
    }

    #[test]
    fn filters() {
        for (filter, topic, taken) in [
            (
                "$iothub/methods/POST/#",
                "$iothub/methods/POST/m/?$rid=1",
                true,
            ),
            ("$iothub/methods/POST/#", "$iothub/methods/POST", true),
            (
                "$iothub/methods/POST/+/#",
                "$iothub/methods/POST/m/?$rid=1",
                true,
            ),
            (
                "$iothub/methods/POST/m/#",
                "$iothub/methods/POST/n/?$rid=1",
                false,
            ),
            ("a/+", "a/b/c", false),
            ("a/b", "a/b", true),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), taken, "{filter} {topic}");
        }
    }
}
