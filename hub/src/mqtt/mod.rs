//! The device's side: MQTT 3.1.1 as IoT Hub speaks it.

mod link;
pub(crate) mod topic;
mod will;

use crate::{
    clock,
    error::Refusal,
    event::{DisconnectReason, Event},
    identity::check_device_id,
    methods::Answer,
    state::{Attached, Shared, without_port},
    telemetry::Message,
    throttle::Operation,
};
use link::Link;
use mqtt_protocol_core::mqtt::{
    packet::{Packet, Qos, v3_1_1},
    result_code::{ConnectReturnCode, SubackReturnCode},
};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use topic::Published;
use will::Will;

/// How long a peer may take to say CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence, whatever keep-alive a device asks for.
const MAX_SILENCE: Duration = Duration::from_secs(1767);
/// The largest device-to-cloud message.
const MAX_MESSAGE: usize = 256 * 1024;
/// How many filters one device may subscribe to.
const MAX_SUBSCRIPTIONS: usize = 5;

/// Serves one connection to its end. `certificates` are the peer's of the TLS handshake, its own first.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    peer: String,
    certificates: &[CertificateDer<'_>],
    stream: S,
) {
    let mut link = Link::new(stream);
    let admitted = tokio::select! {
        admitted = timeout(CONNECT_TIMEOUT, admit(hub, &mut link, certificates)) => Some(admitted),
        () = hub.stopped() => None,
    };
    let Some(admitted) = admitted else {
        return link.close().await;
    };
    let refused = match admitted {
        Ok(Ok(mut admitted)) => {
            let (id, connection) = (admitted.id.clone(), admitted.attached.connection);
            hub.tell(&Event::DeviceConnected {
                device: id.clone(),
                peer,
                session_present: admitted.attached.session_present,
            });
            let attached = Detach {
                hub,
                id: &id,
                connection,
            };
            let will = admitted.will.take();
            let reason = talk(hub, &mut link, admitted).await;
            drop(attached);
            if let Some(will) = will
                && reason != DisconnectReason::ByDevice
            {
                will.tell(hub, &id);
            }
            hub.tell(&Event::DeviceDisconnected { device: id, reason });
            return link.close().await;
        }
        Ok(Err(refused)) => refused,
        Err(_) => Refused {
            device: None,
            reason: "no CONNECT in time".into(),
        },
    };
    hub.tell(&Event::ConnectionRefused {
        device: refused.device,
        peer,
        reason: refused.reason,
    });
    link.close().await;
}

/// Takes the connection out of the hub, also if its task is dropped or panics.
struct Detach<'a> {
    hub: &'a Shared,
    id: &'a str,
    connection: u64,
}

impl Drop for Detach<'_> {
    fn drop(&mut self) {
        self.hub.detach(self.id, self.connection);
    }
}

struct Admitted {
    id: String,
    attached: Attached,
    /// When the token ends; a certificate lets it stay.
    expires: Instant,
    silence: Duration,
    will: Option<Will>,
}

struct Refused {
    device: Option<String>,
    reason: String,
}

/// Waits for CONNECT and answers it.
async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    link: &mut Link<S>,
    certificates: &[CertificateDer<'_>],
) -> Result<Admitted, Refused> {
    let refused = |device: Option<&str>, reason: &str| Refused {
        device: device.map(Into::into),
        reason: reason.into(),
    };
    let packet = link
        .next()
        .await
        .map_err(|reason| refused(None, &reason.to_string()))?;
    let Packet::V3_1_1Connect(connect) = packet else {
        return Err(refused(None, "the first packet is not CONNECT"));
    };
    let id = connect.client_id().to_owned();
    let checked = check(hub, &connect, &id, certificates);
    let (code, outcome) = match checked {
        Ok(expiry) => match hub
            .throttle
            .take(Operation::Connection)
            .and_then(|()| hub.attach(&id, connect.clean_session()))
        {
            Ok(attached) => (ConnectReturnCode::Accepted, Ok((expiry, attached))),
            Err(refusal) => (ConnectReturnCode::ServerUnavailable, Err(refusal.message)),
        },
        // The real hub tells no bad key from an unknown device.
        Err(reason) => (ConnectReturnCode::NotAuthorized, Err(reason.to_owned())),
    };
    let session_present = outcome
        .as_ref()
        .is_ok_and(|(_, attached)| attached.session_present);
    let connack = v3_1_1::Connack::builder()
        .return_code(code)
        .session_present(session_present)
        .build();
    if let Ok(connack) = connack {
        link.queue(connack.into());
    }
    let (expiry, attached) = outcome.map_err(|reason| Refused {
        // Anybody can say anything: only what can be an id is passed on.
        device: check_device_id(&id).is_ok().then(|| id.clone()),
        reason,
    })?;
    let left = expiry
        .unwrap_or(u64::MAX)
        .saturating_sub(clock::unix())
        .min(u64::from(u32::MAX));
    let silence = match connect.keep_alive() {
        0 => MAX_SILENCE,
        seconds => (Duration::from_secs(seconds.into()) * 3 / 2).min(MAX_SILENCE),
    };
    Ok(Admitted {
        id,
        attached,
        expires: Instant::now() + Duration::from_secs(left),
        silence,
        will: Will::of(&connect),
    })
}

/// Checks names, and token or certificate; returns when the token ends, in seconds since 1970.
fn check(
    hub: &Shared,
    connect: &v3_1_1::Connect,
    id: &str,
    certificates: &[CertificateDer<'_>],
) -> Result<Option<u64>, &'static str> {
    let user = connect.user_name().ok_or("CONNECT has no user name")?;
    let mut parts = user.splitn(3, '/');
    let (host, device, rest) = (parts.next(), parts.next(), parts.next());
    let (Some(host), Some(device)) = (host, device) else {
        return Err("the user name is not {hub}/{device}/?api-version=…");
    };
    // `…/?api-version=…`, and an older form without the question mark.
    let rest = rest.unwrap_or_default();
    if !(rest.is_empty() || rest.starts_with('?') || rest.starts_with("api-version=")) {
        return Err("the user name names a module; this hub has none");
    }
    if device != id {
        return Err("the client id is not the device of the user name");
    }
    let password = connect
        .password()
        .and_then(|password| std::str::from_utf8(password).ok());
    if without_port(host).is_empty() {
        return Err("the user name has no hub");
    }
    hub.authenticate(id, host, password, certificates)
}

/// Serves an admitted device until it goes, or must.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    link: &mut Link<S>,
    admitted: Admitted,
) -> DisconnectReason {
    let Admitted {
        id,
        attached,
        expires,
        silence,
        ..
    } = admitted;
    let Attached {
        connection,
        mut outgoing,
        mut closed,
        ..
    } = attached;
    let mut stopped = std::pin::pin!(hub.stopped());
    let mut silent_until = Instant::now() + silence;
    // Who sends too much is read later.
    let mut read_from = None;
    loop {
        if link.has_output()
            && let Err(refusal) = hub.durable().await
        {
            link.forget_output();
            return DisconnectReason::NotKept(refusal.message);
        }
        if let Err(reason) = link.flush().await {
            return reason;
        }
        tokio::select! {
            packet = async {
                if let Some(then) = read_from {
                    sleep_until(then).await;
                }
                link.next().await
            } => {
                let handled = match packet {
                    Ok(Packet::V3_1_1Disconnect(_)) => return DisconnectReason::ByDevice,
                    Ok(packet) => {
                        read_from = pause(hub, &id, &packet);
                        handle(hub, link, &id, connection, packet)
                    }
                    Err(reason) => Err(reason),
                };
                if let Err(reason) = handled {
                    return reason;
                }
                silent_until = read_from.unwrap_or_else(Instant::now) + silence;
            }
            Some(message) = outgoing.recv() => link.publish(&message.topic, &message.payload),
            reason = &mut closed => return reason.unwrap_or(DisconnectReason::Removed),
            () = sleep_until(silent_until) => return DisconnectReason::KeepAlive,
            () = sleep_until(expires) => return DisconnectReason::TokenExpired,
            () = &mut stopped => return DisconnectReason::HubStopped,
        }
    }
}

/// Until when a device has to wait with its next packet after this one.
fn pause(hub: &Shared, id: &str, packet: &Packet) -> Option<Instant> {
    let Packet::V3_1_1Publish(publish) = packet else {
        return None;
    };
    match Published::parse(id, publish.topic_name()) {
        Some(Published::Telemetry { .. }) => hub.throttle.reserve(Operation::Telemetry),
        _ => None,
    }
}

fn handle<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    link: &mut Link<S>,
    id: &str,
    connection: u64,
    packet: Packet,
) -> Result<(), DisconnectReason> {
    let protocol = |what: &str| DisconnectReason::Protocol(what.into());
    match packet {
        Packet::V3_1_1Publish(publish) => {
            if publish.qos() == Qos::ExactlyOnce {
                return Err(protocol("a message with QoS 2"));
            }
            let topic = publish.topic_name();
            let published = Published::parse(id, topic).ok_or_else(|| {
                DisconnectReason::Protocol(format!("a message to {:?}", shortened(topic)))
            })?;
            take(hub, link, id, connection, &published, &publish)?;
            if let Some(packet_id) = publish.packet_id()
                && let Ok(puback) = v3_1_1::Puback::builder().packet_id(packet_id).build()
            {
                link.queue(puback.into());
            }
            Ok(())
        }
        Packet::V3_1_1Subscribe(subscribe) => {
            let mut codes = Vec::new();
            hub.subscriptions(id, connection, |subscriptions| {
                for entry in subscribe.entries() {
                    let filter = entry.topic_filter();
                    let full = subscriptions.len() >= MAX_SUBSCRIPTIONS
                        && !subscriptions.contains_key(filter);
                    if full || !topic::may_subscribe(id, filter) {
                        codes.push(SubackReturnCode::Failure);
                        continue;
                    }
                    let (qos, code) = match entry.sub_opts().qos() {
                        Qos::AtMostOnce => (0, SubackReturnCode::SuccessMaximumQos0),
                        _ => (1, SubackReturnCode::SuccessMaximumQos1),
                    };
                    subscriptions.insert(filter.to_owned(), qos);
                    codes.push(code);
                }
            })
            .map_err(|refusal| DisconnectReason::Protocol(refusal.message))?;
            let suback = v3_1_1::Suback::builder()
                .packet_id(subscribe.packet_id())
                .return_codes(codes)
                .build();
            suback
                .map(|suback| link.queue(suback.into()))
                .map_err(|_| DisconnectReason::Replaced)
        }
        Packet::V3_1_1Unsubscribe(unsubscribe) => {
            hub.subscriptions(id, connection, |subscriptions| {
                for filter in unsubscribe.entries() {
                    subscriptions.remove(filter.as_str());
                }
            })
            .map_err(|refusal| DisconnectReason::Protocol(refusal.message))?;
            let unsuback = v3_1_1::Unsuback::builder()
                .packet_id(unsubscribe.packet_id())
                .build();
            unsuback
                .map(|unsuback| link.queue(unsuback.into()))
                .map_err(|_| protocol("UNSUBSCRIBE"))
        }
        Packet::V3_1_1Pingreq(_) => Ok(()),
        _ => Err(protocol("an unexpected packet")),
    }
}

/// Takes one message of a device.
fn take<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    link: &mut Link<S>,
    id: &str,
    connection: u64,
    published: &Published<'_>,
    publish: &v3_1_1::Publish,
) -> Result<(), DisconnectReason> {
    let payload = publish.payload().as_slice();
    hub.heard_of(id);
    match *published {
        Published::Telemetry { properties } => {
            if payload.len() > MAX_MESSAGE {
                return Err(DisconnectReason::Protocol(format!(
                    "a message of more than {MAX_MESSAGE} bytes"
                )));
            }
            hub.telemetry.tell(&Message {
                device: id,
                properties,
                retain: publish.retain(),
                will: false,
                body: payload,
            });
            hub.tell(&Event::Telemetry {
                device: id.into(),
                bytes: payload.len(),
            });
        }
        Published::MethodAnswer { status, request } => {
            if !hub.calls.answer(
                id,
                request,
                Answer {
                    status,
                    body: payload.to_vec(),
                },
            ) {
                log::info!(target: "twinflash_hub", "{id} answered a direct method that nobody waits for any more");
            }
        }
        Published::GetTwin { request } => {
            let twin = hub.throttle.take(Operation::TwinRead);
            let (status, body) = match twin.and_then(|()| hub.device_twin(id)) {
                Ok(twin) => (200, twin.to_string()),
                Err(refusal) => twin_error(&refusal),
            };
            let topic = format!("$iothub/twin/res/{status}/?$rid={request}");
            answer(hub, link, id, connection, &topic, &body);
        }
        Published::PatchReported { request, version } => {
            let patched = hub
                .throttle
                .take(Operation::TwinUpdate)
                .and_then(|()| {
                    serde_json::from_slice::<Value>(payload).map_err(|error| {
                        Refusal::argument(format!("The patch is not JSON: {error}."))
                    })
                })
                .and_then(|patch| Ok((hub.patch_reported(id, &patch, version)?, patch)));
            let (topic, body, event) = match patched {
                Ok((version, patch)) => (
                    format!("$iothub/twin/res/204/?$rid={request}&$version={version}"),
                    String::new(),
                    Event::ReportedPatched {
                        device: id.into(),
                        patch,
                        version,
                    },
                ),
                Err(refusal) => {
                    let (status, body) = twin_error(&refusal);
                    let event = Event::ReportedRefused {
                        device: id.into(),
                        code: refusal.code.0,
                        reason: refusal.message,
                    };
                    (
                        format!("$iothub/twin/res/{status}/?$rid={request}"),
                        body,
                        event,
                    )
                }
            };
            hub.tell(&event);
            answer(hub, link, id, connection, &topic, &body);
        }
    }
    Ok(())
}

/// Twin answers reach only who subscribed to them.
fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    link: &mut Link<S>,
    id: &str,
    connection: u64,
    topic: &str,
    body: &str,
) {
    if hub.is_subscribed(id, connection, topic) {
        link.publish(topic, body.as_bytes());
    } else {
        log::info!(target: "twinflash_hub", "{id} asks for its twin but is not subscribed to $iothub/twin/res/#");
    }
}

/// The Node SDK looks at the body's `errorCode` only: every refusal has one.
fn twin_error(refusal: &Refusal) -> (u16, String) {
    (refusal.code.status().as_u16(), refusal.body().to_string())
}

fn shortened(topic: &str) -> String {
    topic.chars().take(100).collect()
}

#[cfg(test)]
mod tests;
