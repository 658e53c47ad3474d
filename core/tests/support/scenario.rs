//! Runs one scenario: see `tests/scenarios/README.md` for the format.

use super::{
    hub::{Hub, Line, Treat},
    pattern::{Names, SECRET, expect, image},
    server::{Reply, Server},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    contract::Contract,
    device::{Answer, Status, Updater},
    install::{FileInstall, Restart},
    update::{Confirm, Failure, Outcome, Policy},
};

/// How long is waited for what is expected, if the scenario does not say.
const WITHIN: f64 = 10.0;

type Checked = Result<(), String>;
type Plans = Arc<Mutex<HashMap<String, VecDeque<Value>>>>;

/// Everything a scenario plays with.
pub struct Stage {
    scenario: Value,
    names: Names,
    images: BTreeMap<String, Vec<u8>>,
    root: tempfile::TempDir,
    /// Where state and target lie now: a kill leaves the directory behind and goes on in a copy.
    directory: PathBuf,
    copies: u32,
    server: Server,
    plans: Plans,
    hub: Hub,
    updater: Option<(Arc<Updater>, Line)>,
    /// What was said to anybody; searched for secrets at the end.
    said: Arc<Mutex<Vec<String>>>,
    warnings: Arc<Mutex<Vec<String>>>,
    restarts: Arc<AtomicU64>,
    /// Of the methods that were not waited for.
    answers: Arc<Mutex<Vec<String>>>,
}

/// Plays a scenario to its end. The error says at which step it went wrong, and how.
pub fn play(scenario: &Value) -> Checked {
    let mut stage = Stage::new(scenario);
    let steps = scenario["steps"].as_array().ok_or("there are no steps")?;
    let start = scenario["start"] != json!(false);
    let begin = if start {
        stage.start(&json!({}))
    } else {
        Ok(())
    };
    begin?;
    for (number, step) in steps.iter().enumerate() {
        let step = stage.names.fill(step);
        let done = stage.step(&step);
        done.map_err(|why| format!("step {}: {step}\n    {why}", number + 1))?;
    }
    stage.stop();
    stage.no_secrets()
}

impl Stage {
    fn new(scenario: &Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("0");
        fs::create_dir(&directory).unwrap();
        let mut names = Names::default();
        let mut images = BTreeMap::new();
        for (name, size) in scenario["images"].as_object().into_iter().flatten() {
            let size = size.as_u64().unwrap();
            let bytes = image(size as usize, size);
            names.add_image(name, &bytes);
            images.insert(name.clone(), bytes);
        }
        images.insert("old".into(), b"the old image".to_vec());
        if scenario["old"] != json!(false) {
            fs::write(directory.join("app.bin"), &images["old"]).unwrap();
        }
        let plans = Plans::default();
        let (theirs, bodies) = (Arc::clone(&plans), images.clone());
        let server = Server::http(move |reply| answer(reply, &theirs, &bodies));
        names.set("server", server.url(""));
        let with_user = server
            .url("")
            .replace("://", &format!("://user:{SECRET}user@"));
        names.set("user_server", with_user);
        names.set("secret", SECRET);
        let contract = Contract::built_in(scenario["contract"].as_str().unwrap()).unwrap();
        let hub = Hub::new(contract.follow());
        if let Some(reported) = scenario.get("reported") {
            hub.twin().reported = reported.clone();
        }
        Self {
            scenario: scenario.clone(),
            names,
            images,
            directory,
            root,
            copies: 0,
            server,
            plans,
            hub,
            updater: None,
            said: Arc::default(),
            warnings: Arc::default(),
            restarts: Arc::default(),
            answers: Arc::default(),
        }
    }

    fn updater(&self) -> Result<&Arc<Updater>, String> {
        let (updater, _) = self.updater.as_ref().ok_or("the updater is not started")?;
        Ok(updater)
    }

    fn step(&mut self, step: &Value) -> Checked {
        let (verb, what) = step
            .as_object()
            .and_then(|members| members.iter().find(|(name, _)| VERBS.contains(&&***name)))
            .ok_or(format!("a step is one of {VERBS:?}"))?;
        let within = step["within"].as_f64().unwrap_or(WITHIN);
        match verb.as_str() {
            "connect" => {
                let connected = what.as_bool().ok_or("true or false")?;
                self.hub.connect(self.updater()?, connected);
            }
            "method" => return self.method(what, step),
            "desired" => return self.desired(what, step),
            "notify" => self.updater()?.handle_twin(false, text(what).as_bytes()),
            "twin" => self.updater()?.handle_twin(true, text(what).as_bytes()),
            "server" => {
                let mut plans = self.plans.lock().unwrap();
                for (path, plan) in what.as_object().ok_or("an object is needed")? {
                    let plan = plan.as_array().ok_or("a list is needed")?;
                    plans.insert(path.clone(), plan.iter().cloned().collect());
                }
            }
            "reports" => {
                let plan = what.as_array().ok_or("a list is needed")?;
                let treat: Result<Vec<_>, _> = plan.iter().map(treat).collect();
                self.hub.twin().treat.extend(treat?);
            }
            "release" => {
                let held = std::mem::take(&mut self.hub.twin().held);
                let status = what.as_u64().ok_or("a status is needed")?;
                for id in held {
                    self.updater()?.report_done(id, status as u16);
                }
            }
            "twins" => {
                let held = self.hub.twin().hold_twins(what == "hold");
                for document in held {
                    self.updater()?.handle_twin(true, document.as_bytes());
                }
            }
            "call" => return self.call(what, step),
            "wait" => {
                let updater = self.updater()?;
                let outcome = updater.wait(Duration::from_secs_f64(within));
                let outcome = outcome.map_or(Value::Null, |outcome| outcome_of(&outcome));
                return expect(&named(what, "outcome"), &outcome, "outcome")
                    .map_err(|why| format!("{why}; {}", status_of(&updater.status())));
            }
            "until" => return self.hold(what, within),
            "pause" => thread::sleep(Duration::from_secs_f64(what.as_f64().ok_or("seconds")?)),
            "stop" => self.stop(),
            "kill" => self.kill(),
            "start" => return self.start(what),
            "corrupt" => self.corrupt(what),
            "expect" => return self.hold(what, within),
            other => return Err(format!("{other} is no step")),
        }
        Ok(())
    }

    fn method(&self, name: &Value, step: &Value) -> Checked {
        let payload = match (&step["text"], &step["payload"]) {
            (Value::String(text), _) => text.clone(),
            (_, payload) => payload.to_string(),
        };
        let name = name.as_str().ok_or("a method's name is needed")?;
        if step["asynchronous"] == json!(true) {
            let answers = Arc::clone(&self.answers);
            let then = move |answer: Answer| answers.lock().unwrap().push(answer.payload);
            let updater = self.updater()?;
            updater.handle_method_then(name, payload.as_bytes(), then);
            return Ok(());
        }
        let answer = self.updater()?.handle_method(name, payload.as_bytes());
        let reported = self.hub.twin().reported.clone();
        let found = match answer {
            None => Value::Null,
            Some(Answer { status, payload }) => {
                self.said.lock().unwrap().push(payload.clone());
                let payload: Value = serde_json::from_str(&payload)
                    .map_err(|_| format!("the answer {payload} is no JSON"))?;
                json!({"status": status, "payload": payload})
            }
        };
        if let Some(expected) = step.get("answer") {
            expect(expected, &found, "answer")?;
        }
        step.get("answered").map_or(Ok(()), |expected| {
            expect(expected, &reported, "reported, when answered,")
        })
    }

    fn desired(&self, patch: &Value, step: &Value) -> Checked {
        let mut twin = self.hub.twin();
        twinflash::twin::merge(&mut twin.desired, patch);
        twin.version += 1;
        let mut patch = patch.clone();
        patch["$version"] = twin.version.into();
        let delivered = twin.connected && step["delivered"] != json!(false);
        drop(twin);
        if delivered {
            self.updater()?
                .handle_twin(false, patch.to_string().as_bytes());
        }
        Ok(())
    }

    fn call(&self, what: &Value, step: &Value) -> Checked {
        let updater = self.updater()?;
        let found = match what.as_str() {
            Some("cancel") => match updater.cancel() {
                Ok(running) => running.into(),
                Err(failure) => self.failure_of(&failure),
            },
            Some("pause") => Value::from(updater.pause()),
            Some("resume") => Value::from(updater.resume()),
            Some("confirm") => Value::from(updater.confirm()),
            _ => return Err("there is no such call".into()),
        };
        let expected = step.get("answer").unwrap_or(&found);
        expect(expected, &found, "answer")
    }

    /// Waits until everything that is expected holds; then forgets the statuses that were.
    fn hold(&mut self, expected: &Value, within: f64) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(within);
        while let Err(why) = self.holds(expected) {
            if Instant::now() > deadline {
                return Err(why);
            }
            thread::sleep(Duration::from_millis(5));
        }
        if expected.get("statuses").is_some() {
            self.hub.twin().statuses.clear();
        }
        Ok(())
    }

    fn holds(&self, expected: &Value) -> Checked {
        for (name, expected) in expected.as_object().ok_or("an object is needed")? {
            let twin = self.hub.twin();
            match name.as_str() {
                "reported" => expect(expected, &twin.reported, "reported")?,
                "reportedExactly" => {
                    expect(expected, &twin.reported, "reported")?;
                    expect(&shape(&twin.reported), &shape(expected), "members")?;
                    expect(&shape(expected), &shape(&twin.reported), "members")?;
                }
                "statuses" => expect(expected, &json!(twin.statuses), "statuses")?,
                "reads" => expect(expected, &json!(twin.reads), "reads")?,
                "reports" => expect(expected, &json!(twin.patches.len()), "reports")?,
                "answers" => {
                    let answers = self.answers.lock().unwrap().len();
                    expect(expected, &json!(answers), "answers")?;
                }
                "connected" => expect(expected, &json!(twin.connected), "connected")?,
                "requests" => {
                    for (path, count) in expected.as_object().into_iter().flatten() {
                        let asked = self.ranges(path).len();
                        expect(count, &json!(asked), &format!("requests.{path}"))?;
                    }
                }
                "ranges" => {
                    for (path, ranges) in expected.as_object().into_iter().flatten() {
                        expect(ranges, &json!(self.ranges(path)), &format!("ranges.{path}"))?;
                    }
                }
                "lastRange" => {
                    for (path, range) in expected.as_object().into_iter().flatten() {
                        let last = self.ranges(path).pop().flatten();
                        expect(range, &json!(last), &format!("lastRange.{path}"))?;
                    }
                }
                "file" => expect(expected, &self.file(), "file")?,
                "files" => expect(expected, &self.files(), "files")?,
                "stateFiles" => expect(expected, &self.state_files(), "stateFiles")?,
                "status" => {
                    drop(twin);
                    let status = status_of(&self.updater()?.status());
                    expect(expected, &status, "status")?;
                }
                "restarts" => {
                    let restarts = self.restarts.load(Ordering::Relaxed);
                    expect(expected, &json!(restarts), "restarts")?;
                }
                "warning" => {
                    let warnings = self.warnings.lock().unwrap();
                    if !warnings
                        .iter()
                        .any(|warning| expect(expected, &json!(warning), "").is_ok())
                    {
                        return Err(format!("no warning is {expected}: {warnings:?}"));
                    }
                }
                other => return Err(format!("{other} cannot be expected")),
            }
        }
        Ok(())
    }

    /// The `Range` of each request for a path.
    fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let asked = self.server.asked();
        asked
            .iter()
            .filter(|asked| asked.path.split('?').next() == Some(path))
            .map(|asked| asked.header("range").map(str::to_owned))
            .collect()
    }

    /// The name of the image that is installed.
    fn file(&self) -> Value {
        let Ok(bytes) = fs::read(self.directory.join("app.bin")) else {
            return Value::Null;
        };
        let image = self.images.iter().find(|(_, image)| **image == bytes);
        image.map_or(json!("neither old nor new"), |(name, _)| json!(name))
    }

    fn files(&self) -> Value {
        listing(&self.directory).into()
    }

    fn state_files(&self) -> Value {
        listing(&self.directory.join("state")).into()
    }

    fn start(&mut self, what: &Value) -> Checked {
        let policy = policy(&self.scenario["policy"])?;
        let contract = Contract::built_in(self.scenario["contract"].as_str().unwrap()).unwrap();
        let restart = match self.scenario["restart"].as_str() {
            None | Some("none") => Restart::None,
            Some("exit") => Restart::Exit,
            Some("system") => Restart::System,
            other => return Err(format!("{other:?} is no restart")),
        };
        let target = self.scenario["target"].as_str().unwrap_or("app.bin");
        let installer = FileInstall::new(self.directory.join(target)).restart(restart);
        let (said, warnings) = (Arc::clone(&self.said), Arc::clone(&self.warnings));
        let restarts = Arc::clone(&self.restarts);
        let mut builder = Updater::builder(self.directory.join("state"), contract, installer)
            .policy(policy)
            .on_event(move |event| {
                said.lock().unwrap().push(format!("{event:?}"));
                if let twinflash::device::Event::Warning(warning) = event {
                    warnings.lock().unwrap().push(warning.clone());
                }
            })
            .on_restart(move |_| {
                restarts.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
        let version = what.get("currentVersion");
        if let Some(version) = version
            .or(self.scenario.get("currentVersion"))
            .and_then(Value::as_str)
        {
            builder = builder.current_version(version);
        }
        match (builder.start(), what.get("error")) {
            (Ok(updater), None) => {
                let updater = Arc::new(updater);
                self.hub.twin().connected = false;
                let line = self.hub.serve(&updater);
                self.updater = Some((updater, line));
                Ok(())
            }
            (Ok(_), Some(expected)) => Err(format!("it was started, in place of {expected}")),
            (Err(failure), None) => Err(failure.to_string()),
            (Err(failure), Some(expected)) => expect(expected, &self.failure_of(&failure), "error"),
        }
    }

    fn failure_of(&self, failure: &Failure) -> Value {
        self.said.lock().unwrap().push(failure.to_string());
        json!({"code": failure.code, "message": failure.message})
    }

    fn stop(&mut self) {
        if let Some((updater, line)) = self.updater.take() {
            self.said
                .lock()
                .unwrap()
                .push(format!("{:?}", updater.status()));
            updater.close();
            drop(line);
            self.hub.twin().connected = false;
        }
    }

    /// What a kill leaves: the files as they are at this moment. The old updater ends unheard.
    fn kill(&mut self) {
        self.copies += 1;
        let copy = self.root.path().join(self.copies.to_string());
        copy_tree(&self.directory, &copy);
        self.hub.twin().connected = false;
        self.stop();
        self.directory = copy;
    }

    fn corrupt(&self, which: &Value) {
        for name in which.as_array().into_iter().flatten() {
            let name = format!("journal.{}", name.as_str().unwrap());
            let path = self.directory.join("state").join(name);
            let mut bytes = fs::read(&path).unwrap();
            // In the payload.
            bytes[70] ^= 0x55;
            fs::write(&path, bytes).unwrap();
        }
    }

    fn no_secrets(&self) -> Checked {
        let twin = self.hub.twin();
        let said = self.said.lock().unwrap();
        let all = said.iter().chain(&twin.patches).chain(&twin.statuses);
        match all.into_iter().find(|text| text.contains(SECRET)) {
            None => Ok(()),
            Some(text) => Err(format!("a secret was told: {text}")),
        }
    }
}

const VERBS: &[&str] = &[
    "twins", "connect", "method", "desired", "notify", "twin", "server", "reports", "release",
    "call", "wait", "until", "pause", "stop", "kill", "start", "corrupt", "expect",
];

/// The server's answer to one request: the next of its path's plan; the last one stays.
fn answer(reply: &mut Reply, plans: &Plans, images: &BTreeMap<String, Vec<u8>>) {
    let path = reply
        .asked
        .path
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let plan = {
        let mut plans = plans.lock().unwrap();
        match plans.get_mut(&path) {
            Some(plan) if plan.len() > 1 => plan.pop_front(),
            Some(plan) => plan.front().cloned(),
            None => None,
        }
    };
    let plan = plan.unwrap_or(json!({"status": 404}));
    if let Some(status) = plan["status"].as_u64() {
        let retry_after = plan["retryAfter"].as_u64().map(|s| s.to_string());
        let headers: Vec<_> = retry_after
            .iter()
            .map(|s| ("Retry-After", s.as_str()))
            .collect();
        return reply.empty(&format!("{status} As Told"), &headers);
    }
    let Some(image) = plan["image"].as_str().and_then(|name| images.get(name)) else {
        // Nothing at all: the connection is closed.
        return;
    };
    let etag = plan.get("etag").unwrap_or(&json!("\"1\"")).clone();
    let number = |name: &str| plan[name].as_u64().map(|n| n as usize);
    if let Some(rate) = plan["bytesPerSecond"].as_f64() {
        reply.piece = 4096;
        reply.pause = Duration::from_secs_f64(4096.0 / rate);
    }
    let most = number("cut").or(number("hang")).unwrap_or(usize::MAX);
    reply.serve(image, etag.as_str(), most);
    if number("hang").is_some() {
        reply.hang();
    }
}

fn treat(plan: &Value) -> Result<Treat, String> {
    let applied = plan["applied"].as_bool();
    let status = plan.as_u64().or(plan["status"].as_u64());
    match (status, plan.as_str().or(plan["do"].as_str())) {
        (Some(status), _) => Ok(Treat::Answer {
            status: status as u16,
            applied: applied.unwrap_or(status / 100 == 2),
        }),
        (None, Some("disconnect")) => Ok(Treat::Disconnect {
            applied: applied.unwrap_or(false),
        }),
        (None, Some("hold")) => Ok(Treat::Hold),
        _ => Err(format!("{plan} is nothing that can be done with a report")),
    }
}

fn policy(members: &Value) -> Result<Policy, String> {
    let mut policy = Policy::default();
    policy.allow_http = true;
    policy.retry.first = Duration::from_millis(50);
    for (name, value) in members.as_object().into_iter().flatten() {
        let time = || Duration::from_secs_f64(value.as_f64().unwrap());
        let number = || value.as_u64().unwrap();
        match name.as_str() {
            "allowHttp" => policy.allow_http = value.as_bool().unwrap(),
            "requireCheck" => policy.require_check = value.as_bool().unwrap(),
            "maxSize" => policy.max_size = number(),
            "retryFirst" => policy.retry.first = time(),
            "retryTime" => policy.retry.time = time(),
            "stallTime" => policy.stall_time = time(),
            "checkpointInterval" => policy.checkpoint_interval = time(),
            "checkpointBytes" => policy.checkpoint_bytes = number(),
            "progressStep" => policy.progress_step = number() as u8,
            "progressInterval" => policy.progress_interval = time(),
            "answerWait" => policy.answer_wait = time(),
            "confirm" => {
                policy.confirm = match value.as_str() {
                    Some("connected") => Confirm::Connected,
                    Some("call") => Confirm::Call,
                    Some("none") => Confirm::None,
                    _ => {
                        let health = value["health"].as_array().ok_or("no such confirm")?;
                        Confirm::Health(health.iter().map(text).collect())
                    }
                }
            }
            "confirmTime" => policy.confirm_time = time(),
            "confirmAttempts" => policy.confirm_attempts = number() as u32,
            other => return Err(format!("{other} is no part of a policy")),
        }
    }
    Ok(policy)
}

fn outcome_of(outcome: &Outcome) -> Value {
    let phase = match outcome {
        Outcome::Failed { phase, .. } | Outcome::Cancelled(phase) => Some(phase.as_str()),
        _ => None,
    };
    let failure = outcome.failure();
    json!({
        "outcome": outcome.as_str(),
        "phase": phase,
        "code": failure.map(|failure| failure.code),
        "message": failure.map(|failure| &failure.message),
    })
}

fn status_of(status: &Status) -> Value {
    json!({
        "phase": status.phase.map(|phase| phase.as_str()),
        "version": status.version,
        "bytes": status.bytes,
        "size": status.size,
        "outcome": status.outcome.as_ref().map(outcome_of),
        "runningVersion": status.running_version,
        "paused": status.paused,
    })
}

/// A text as it is, anything else as JSON.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `"completed"` for `{"outcome": "completed"}`.
fn named(value: &Value, name: &str) -> Value {
    match value {
        Value::String(_) => json!({ name: value }),
        other => other.clone(),
    }
}

/// The same document with every leaf the same.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => json!(0),
    }
}

fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "state" && name != "lock")
        .collect();
    names.sort();
    names
}

/// Copies a directory's state first and hard links as such: what a kill leaves.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::create_dir(to.join("state")).unwrap();
    for name in listing(&from.join("state")) {
        fs::copy(from.join("state").join(&name), to.join("state").join(&name)).unwrap();
    }
    let mut seen = HashMap::new();
    for name in listing(from) {
        use std::os::unix::fs::MetadataExt;
        let source = from.join(&name);
        let inode = fs::metadata(&source).unwrap().ino();
        let copy = to.join(&name);
        match seen.get(&inode) {
            Some(first) => fs::hard_link(first, &copy).unwrap(),
            None => drop(fs::copy(&source, &copy).unwrap()),
        }
        seen.insert(inode, copy);
    }
}
