//! Device-to-cloud messages as they come: `/twinflash/telemetry`, which is this hub's own.

use super::{Hub, parameter};
use crate::{
    error::{Code, Refusal},
    sas::decode,
};
use axum::{
    body::Body,
    extract::State,
    http::{Uri, header},
    response::IntoResponse,
};

/// `device=` is the id of the one whose messages are wanted.
pub(super) async fn read(State(hub): Hub, uri: Uri) -> Result<impl IntoResponse, Refusal> {
    let device = parameter(&uri, "device")
        .map(|id| decode(id).ok_or_else(|| Refusal::argument("device is no id.")))
        .transpose()?;
    if let Some(id) = &device {
        hub.get_device(id)?;
    }
    let messages = hub
        .telemetry
        .read(device.map(Into::into), hub.stopped())
        .ok_or_else(|| {
            Refusal::new(
                Code::THROTTLED,
                "Too many read the devices' messages already.",
            )
        })?;
    let kind = (header::CONTENT_TYPE, "application/x-ndjson");
    Ok(([kind], Body::new(messages)))
}
