//! Who is judged: an updater in whatever language. Each does what it is asked for in the words that
//! "A subject" in `tests/scenarios/README.md` describes; this one is the updater in this process.

use super::values::{outcome_of, status_of};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use twinflash::{
    config::Config,
    device::{Answer, Event, Guarded, Outbound, Updater, guard},
    update::Failure,
};

/// What was asked for, or the failure as `{code, message}`.
pub(super) type Answered = Result<Value, Value>;
/// Is given what the updater of one start says unasked: `{report}`, `{readTwin}`, `{event}`, `{warning}`
/// or `{restart}`.
pub(super) type Hear = Arc<dyn Fn(Value) + Send + Sync>;

/// Where one updater after the other is started, one at a time. All may be called by several threads.
pub(super) trait Subject: Send + Sync {
    fn start(&self, config: &Value, hear: Hear) -> Answered;

    /// Asks `what` with its arguments, and waits for the answer.
    fn ask(&self, what: &str, with: Value) -> Answered;

    /// Calls a method without waiting for the answer, which is given to `then`.
    fn method_then(&self, with: Value, then: Box<dyn FnOnce(Answered) + Send>);

    /// Ends the updater as a power cut does, if that can be done; says whether it was.
    fn kill(&self) -> bool;
}

/// The updater in this process.
#[derive(Default)]
pub(super) struct InProcess {
    updater: Mutex<Option<Arc<Updater>>>,
}

impl InProcess {
    fn updater(&self) -> Result<Arc<Updater>, Value> {
        let updater = self.updater.lock().unwrap();
        updater.clone().ok_or(fault("the updater is not started"))
    }
}

/// A mistake of a scenario's or of a subject's: no failure of the updater.
pub(super) fn fault(message: impl ToString) -> Value {
    json!({"code": "fault", "message": message.to_string()})
}

impl Subject for InProcess {
    fn start(&self, config: &Value, hear: Hear) -> Answered {
        let (events, restarts, outbound) = (Arc::clone(&hear), Arc::clone(&hear), hear);
        let config = Config::from_json(config.to_string().as_bytes()).map_err(failed)?;
        let builder = config.builder().map_err(failed)?;
        let started = builder
            .on_event(move |event| {
                events(match event {
                    Event::Warning(warning) => json!({ "warning": warning }),
                    other => json!({"event": format!("{other:?}")}),
                });
            })
            .on_restart(move |restart| {
                restarts(json!({"restart": format!("{restart:?}")}));
                Ok(())
            })
            .on_outbound(move |out| {
                outbound(match out {
                    Outbound::ReadTwin => json!({"readTwin": true}),
                    Outbound::Report(report) => {
                        let patch: Value = serde_json::from_str(&report.patch).unwrap();
                        json!({"report": {"id": report.id, "patch": patch}})
                    }
                });
            })
            .start();
        let updater = Arc::new(started.map_err(failed)?);
        *self.updater.lock().unwrap() = Some(updater);
        Ok(Value::Null)
    }

    fn ask(&self, what: &str, with: Value) -> Answered {
        let text = |name: &str| with[name].as_str().unwrap_or_default().to_owned();
        if what == "guard" {
            return match guard(text("state_dir")).map_err(failed)? {
                Guarded::Nothing => Ok(json!("nothing")),
                Guarded::Counted { starts, allowed } => Ok(json!(format!("{starts} of {allowed}"))),
                Guarded::RolledBack => Ok(json!("rolled-back")),
                other => Err(fault(format!("{other:?}"))),
            };
        }
        let updater = self.updater()?;
        match what {
            "method" => {
                let answer = updater.handle_method(&text("name"), text("payload").as_bytes());
                return answer.map_or(Ok(Value::Null), answered);
            }
            "twin" => updater.handle_twin(with["complete"] == true, text("json").as_bytes()),
            "connected" => updater.connected(with["connected"] == true),
            "report_done" => {
                let number = |name: &str| with[name].as_u64().unwrap_or_default();
                updater.report_done(number("report"), number("status") as u16);
            }
            "cancel" => return updater.cancel().map(Value::Bool).map_err(failed),
            "pause" => updater.pause(),
            "resume" => updater.resume(),
            "confirm" => updater.confirm(),
            "wait" => {
                let within = Duration::from_secs_f64(with["seconds"].as_f64().unwrap_or_default());
                let outcome = updater.wait(within);
                return Ok(outcome.map_or(Value::Null, |outcome| outcome_of(&outcome)));
            }
            "status" => return Ok(status_of(&updater.status())),
            "close" => {
                updater.close();
                *self.updater.lock().unwrap() = None;
            }
            other => return Err(fault(format!("nobody knows what {other} is"))),
        }
        Ok(Value::Null)
    }

    fn method_then(&self, with: Value, then: Box<dyn FnOnce(Answered) + Send>) {
        if let (Ok(updater), Some(name)) = (self.updater(), with["name"].as_str()) {
            let payload = with["payload"].as_str().unwrap_or_default();
            let then = move |answer| then(answered(answer));
            updater.handle_method_then(name, payload.as_bytes(), then);
        }
    }

    fn kill(&self) -> bool {
        false
    }
}

fn answered(answer: Answer) -> Answered {
    let payload: Value = serde_json::from_str(&answer.payload)
        .map_err(|_| fault(format!("the answer {} is no JSON", answer.payload)))?;
    Ok(json!({"status": answer.status, "payload": payload}))
}

fn failed(failure: Failure) -> Value {
    json!({"code": failure.code, "message": failure.message})
}
