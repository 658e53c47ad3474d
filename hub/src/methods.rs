//! Direct methods: a back end's call, handed to the device, waits here for the answer.
//!
//! "Understand and invoke direct methods from IoT Hub": response timeout 5 to 300 s (30 if not given), connect timeout 0
//! to 300 s (0), 128 KB each way.

use crate::{
    error::{Code, Refusal},
    event::Event,
    state::Shared,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

/// The largest payload, in bytes of JSON, each way.
const MAX_PAYLOAD: usize = 128 * 1024;
/// How much of a payload counts as one call when calls are limited.
const METER: usize = 4 * 1024;
/// How many calls of one device may be open at once.
const MAX_OPEN: usize = 100;

/// A back end's call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    name: String,
    /// Nothing at all is an empty body for the device, which is not the same as `null`.
    payload: Option<Value>,
    response_timeout: Duration,
    connect_timeout: Duration,
}

impl Call {
    /// Reads the body of `POST /twins/{id}/methods`.
    pub(crate) fn parse(mut body: Value) -> Result<Self, Refusal> {
        let name = body
            .get("methodName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        // The name becomes a level of a topic.
        let allowed = |c: char| c.is_ascii_graphic() && !"/#+?%".contains(c);
        if name.is_empty() || name.len() > 100 || !name.chars().all(allowed) {
            return Err(Refusal::argument(
                "methodName should be 1 to 100 printable ASCII characters, none of / # + ? % or a space.",
            ));
        }
        let response_timeout = seconds(&body, "responseTimeoutInSeconds", 30, 5)?;
        let connect_timeout = seconds(&body, "connectTimeoutInSeconds", 0, 0)?;
        let payload = body.as_object_mut().and_then(|body| body.remove("payload"));
        let call = Self {
            name,
            payload,
            response_timeout,
            connect_timeout,
        };
        if call.body().len() > MAX_PAYLOAD {
            return Err(Refusal::new(
                Code::TOO_LARGE,
                format!("payload should be at most {MAX_PAYLOAD} bytes of JSON."),
            ));
        }
        Ok(call)
    }

    /// As how many calls it counts when calls are limited.
    pub(crate) fn units(&self) -> u32 {
        let units = self.body().len().div_ceil(METER).max(1);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn body(&self) -> Vec<u8> {
        self.payload
            .as_ref()
            .map(Value::to_string)
            .unwrap_or_default()
            .into_bytes()
    }
}

fn seconds(body: &Value, name: &str, default: u64, least: u64) -> Result<Duration, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|seconds| (least..=300).contains(seconds))
            .ok_or_else(|| {
                Refusal::argument(format!(
                    "{name} should be a whole number from {least} to 300."
                ))
            }),
    }
    .map(Duration::from_secs)
}

/// A device's answer.
pub(crate) struct Answer {
    pub(crate) status: i64,
    pub(crate) body: Vec<u8>,
}

struct Waiting {
    device: String,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Open {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

/// The calls that wait for an answer.
#[derive(Default)]
pub(crate) struct Calls(Mutex<Open>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, device: &str) -> Result<(OpenCall<'_>, oneshot::Receiver<Answer>), Refusal> {
        let mut open = self.lock();
        if open
            .waiting
            .values()
            .filter(|waiting| waiting.device == device)
            .count()
            >= MAX_OPEN
        {
            return Err(Refusal::new(
                Code::TOO_MANY_METHODS,
                format!(
                    "More than {MAX_OPEN} direct methods of the device are waiting for their answer."
                ),
            ));
        }
        open.last += 1;
        let request = open.last;
        let (answer, answered) = oneshot::channel();
        open.waiting.insert(
            request,
            Waiting {
                device: device.into(),
                answer,
            },
        );
        Ok((
            OpenCall {
                calls: self,
                request,
            },
            answered,
        ))
    }

    /// Takes a device's answer; false when nobody waits for it any more. A device that reconnected may still answer.
    pub(crate) fn answer(&self, device: &str, request: &str, answer: Answer) -> bool {
        let Ok(request) = request.parse() else {
            return false;
        };
        let mut open = self.lock();
        if open
            .waiting
            .get(&request)
            .is_none_or(|waiting| waiting.device != device)
        {
            return false;
        }
        open.waiting
            .remove(&request)
            .is_some_and(|waiting| waiting.answer.send(answer).is_ok())
    }
}

/// Forgets the call when it ends, however it ends: the back end may have hung up.
struct OpenCall<'a> {
    calls: &'a Calls,
    request: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.calls.lock().waiting.remove(&self.request);
    }
}

/// Calls a method and waits for its answer: the body of the REST response.
pub(crate) async fn invoke(hub: &Shared, device: &str, call: Call) -> Result<Value, Refusal> {
    let result = tokio::select! {
        result = run(hub, device, &call) => result,
        () = hub.stopped() => Err(Refusal::stopping()),
    };
    if let Err(refusal) = &result {
        hub.tell(&Event::MethodFailed {
            device: device.into(),
            method: call.name,
            code: refusal.code.0,
        });
    }
    result
}

async fn run(hub: &Shared, device: &str, call: &Call) -> Result<Value, Refusal> {
    let deadline = Instant::now() + call.connect_timeout;
    let (open, answered) = hub.calls.open(device)?;
    let request = open.request;
    let topic = format!("$iothub/methods/POST/{}/?$rid={request}", call.name);
    loop {
        let mut reachable = std::pin::pin!(hub.reachable.notified());
        // Registered before it is tried, so that a device that comes in between is not missed.
        reachable.as_mut().enable();
        if hub.send(device, topic.clone(), call.body())? {
            break;
        }
        timeout_at(deadline, reachable)
            .await
            .map_err(|_| not_online(call.connect_timeout))?;
    }
    hub.tell(&Event::MethodCalled {
        device: device.into(),
        method: call.name.clone(),
        request,
        payload: call.payload.clone(),
    });
    let answer = timeout(call.response_timeout, answered)
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| {
            Refusal::new(
                Code::TIMEOUT,
                "Timed out waiting for the response from device.",
            )
        })?;
    let payload = read(&answer.body)?;
    hub.tell(&Event::MethodAnswered {
        device: device.into(),
        method: call.name.clone(),
        request,
        status: answer.status,
        payload: payload.clone(),
    });
    Ok(json!({"status": answer.status, "payload": payload}))
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    if body.len() > MAX_PAYLOAD {
        return Err(Refusal::new(
            Code::TOO_LARGE,
            format!("The device's answer is longer than {MAX_PAYLOAD} bytes."),
        ));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(
            Code::DESERIALIZATION,
            format!("The device's answer is not JSON: {error}."),
        )
    })
}

fn not_online(waited: Duration) -> Refusal {
    let seconds = waited.as_secs();
    let timeout = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    Refusal::new(
        Code::DEVICE_NOT_ONLINE,
        "The operation failed because the requested device isn't online or hasn't registered the direct method \
         callback. To learn more, see https://aka.ms/iothub404103",
    )
    .with_info(json!({"timeout": timeout}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_and_its_limits_are_kept() {
        let call = Call::parse(json!({"methodName": "m"})).unwrap();
        assert_eq!(call.body(), b"");
        assert_eq!(
            (
                call.response_timeout.as_secs(),
                call.connect_timeout.as_secs()
            ),
            (30, 0)
        );
        assert_eq!(
            Call::parse(json!({"methodName": "m", "payload": null}))
                .unwrap()
                .body(),
            b"null"
        );
        assert_eq!(
            Call::parse(json!({"methodName": "m", "payload": ""}))
                .unwrap()
                .body(),
            b"\"\""
        );
        let code = |body| Call::parse(body).unwrap_err().code;
        for body in [
            json!(null),
            json!({"payload": 1}),
            json!({"methodName": ""}),
            json!({"methodName": "a/b"}),
            json!({"methodName": "a b"}),
            json!({"methodName": "m", "responseTimeoutInSeconds": 4}),
            json!({"methodName": "m", "responseTimeoutInSeconds": "30"}),
            json!({"methodName": "m", "connectTimeoutInSeconds": 301}),
        ] {
            assert_eq!(code(body), Code::ARGUMENT_INVALID);
        }
        assert_eq!(
            code(json!({"methodName": "m", "payload": "x".repeat(MAX_PAYLOAD)})),
            Code::TOO_LARGE
        );
    }

    #[test]
    fn an_answer_is_taken_once_and_only_from_its_device() {
        let calls = Calls::default();
        let (open, mut answered) = calls.open("a").unwrap();
        let request = open.request.to_string();
        let answer = || Answer {
            status: 200,
            body: vec![],
        };
        assert!(!calls.answer("b", &request, answer()));
        assert!(!calls.answer("a", "x", answer()));
        assert!(calls.answer("a", &request, answer()));
        assert!(!calls.answer("a", &request, answer()));
        assert_eq!(answered.try_recv().unwrap().status, 200);
        drop(open);
        let many: Vec<_> = (0..MAX_OPEN).map(|_| calls.open("a").unwrap()).collect();
        assert_eq!(calls.open("a").err().unwrap().code, Code::TOO_MANY_METHODS);
        calls.open("b").unwrap();
        drop(many);
        assert!(calls.lock().waiting.is_empty());
    }
}
