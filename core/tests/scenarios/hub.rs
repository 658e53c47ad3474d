//! The hub and the back end, as far as an updater sees them: a twin by Azure's rules, and reports that
//! are acknowledged, or not, as a scenario says.

use super::{
    dialect::status,
    subject::{Answered, Subject, fault},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};
use twinflash::twin;

/// What the hub does with a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Treat {
    /// Takes it, or does not, and answers with a status. 0: the answer never comes, and the
    /// transport says so.
    Answer { status: u16, applied: bool },
    /// Takes it or does not, and the connection breaks before the answer.
    Disconnect { applied: bool },
    /// Keeps the answer back until the scenario releases it.
    Hold,
}

#[derive(Default)]
pub(super) struct Twin {
    pub(super) desired: Value,
    pub(super) reported: Value,
    pub(super) version: u64,
    pub(super) connected: bool,
    /// What is done with the next reports; after that they are accepted.
    pub(super) treat: VecDeque<Treat>,
    /// Reports whose answer is held back.
    pub(super) held: Vec<u64>,
    /// Twins that were read, and are kept back.
    twins: Option<Vec<String>>,
    /// Every status that was reported, in order; forgotten once they were looked at.
    pub(super) statuses: Vec<String>,
    /// The last one.
    status: String,
    /// Everything that was reported, as it came.
    pub(super) patches: Vec<String>,
    /// How often the twin was read.
    pub(super) reads: u64,
    /// It has not been, over this connection, and will be.
    pub(super) unread: bool,
    /// Reports and reads that came while the connection was there, ever.
    pub(super) came: u64,
}

impl Twin {
    /// From now on twins that are read are kept back, or no longer; those that were.
    pub(super) fn hold_twins(&mut self, hold: bool) -> Vec<String> {
        let held = self.twins.take().unwrap_or_default();
        self.twins = hold.then(Vec::new);
        held
    }
}

#[derive(Clone)]
pub(super) struct Hub {
    twin: Arc<Mutex<Twin>>,
    follow: Value,
}

/// Serves one updater until it is dropped.
pub(super) struct Line {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Hub {
    pub(super) fn new(follow: &Value) -> Self {
        let twin = Twin {
            desired: json!({}),
            reported: json!({}),
            version: 1,
            ..Twin::default()
        };
        Self {
            twin: Arc::new(Mutex::new(twin)),
            follow: follow.clone(),
        }
    }

    pub(super) fn twin(&self) -> MutexGuard<'_, Twin> {
        self.twin.lock().unwrap()
    }

    /// Takes what an updater wants to be sent.
    pub(super) fn serve(&self, subject: Arc<dyn Subject>, outbound: Receiver<Value>) -> Line {
        let ended = Arc::new(AtomicBool::new(false));
        let (hub, stop) = (self.clone(), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(outbound) = outbound.recv_timeout(Duration::from_millis(20)) {
                    // What the updater cannot be told any more does not matter: it has ended.
                    let _ = hub.take(&*subject, &outbound);
                }
            }
        });
        Line {
            ended,
            thread: Some(thread),
        }
    }

    /// The whole twin, as a GET answers it.
    pub(super) fn document(twin: &Twin) -> Value {
        let mut desired = twin.desired.clone();
        desired["$version"] = twin.version.into();
        json!({"desired": desired, "reported": twin.reported})
    }

    pub(super) fn connect(&self, subject: &dyn Subject, connected: bool) -> Result<(), String> {
        let mut twin = self.twin();
        twin.connected = connected;
        twin.held.clear();
        twin.unread = connected && twin.twins.is_none();
        drop(twin);
        let told = subject.ask("connected", json!({ "connected": connected }));
        told.map(drop).map_err(|failure| failure.to_string())
    }

    fn take(&self, subject: &dyn Subject, outbound: &Value) -> Answered {
        let mut twin = self.twin();
        if !twin.connected {
            return Ok(Value::Null);
        }
        twin.came += 1;
        let Some(report) = outbound.get("report") else {
            let document = Self::document(&twin).to_string();
            if let Some(twins) = &mut twin.twins {
                twins.push(document);
                twin.reads += 1;
                return Ok(Value::Null);
            }
            drop(twin);
            let answered = subject.ask("twin", json!({"complete": true, "json": document}));
            let mut twin = self.twin();
            twin.reads += 1;
            twin.unread = false;
            drop(twin);
            return answered;
        };
        let treat = twin.treat.pop_front().unwrap_or(Treat::Answer {
            status: 204,
            applied: true,
        });
        twin.patches.push(report["patch"].to_string());
        let applied = match treat {
            Treat::Answer { applied, .. } | Treat::Disconnect { applied } => applied,
            Treat::Hold => true,
        };
        if applied {
            self.apply(&mut twin, &report["patch"]);
        }
        match treat {
            Treat::Answer { status, .. } => {
                drop(twin);
                let done = json!({"report": report["id"], "status": status});
                return subject.ask("report_done", done);
            }
            Treat::Disconnect { .. } => {
                drop(twin);
                self.connect(subject, false).map_err(fault)?;
            }
            Treat::Hold => twin.held.push(report["id"].as_u64().unwrap_or_default()),
        }
        Ok(Value::Null)
    }

    fn apply(&self, twin: &mut Twin, patch: &Value) {
        twin::limits::check_patch(twin::limits::Section::Reported, patch).unwrap();
        twin::merge(&mut twin.reported, patch);
        let status = status(&self.follow, &twin.reported);
        if twin.status != status && !status.is_empty() {
            twin.statuses.push(status.clone());
        }
        twin.status = status;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
