//! Runs one scenario: see `tests/scenarios/README.md` for the format.

use super::{
    hub::{Hub, Line, Treat},
    support::{
        pattern::{Names, SECRET, expect, image},
        server::{Reply, Server},
    },
    values::{copy_tree, named, outcome_of, policy, status_of, text},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    contract::Contract,
    device::{Answer, Builder, Guarded, Updater},
    install::{FileInstall, Restart},
    update::{Code, Failure},
};

/// How long is waited for what is expected, if the scenario does not say.
const WITHIN: f64 = 10.0;

pub(super) type Checked = Result<(), String>;
type Plans = Arc<Mutex<HashMap<String, VecDeque<Value>>>>;

/// Everything a scenario plays with.
pub(super) struct Stage {
    scenario: Value,
    names: Names,
    pub(super) images: BTreeMap<String, Vec<u8>>,
    root: tempfile::TempDir,
    /// Where state and target lie now: a kill leaves the directory behind and goes on in a copy.
    pub(super) directory: PathBuf,
    copies: u32,
    pub(super) server: Server,
    plans: Plans,
    pub(super) hub: Hub,
    updater: Option<(Arc<Updater>, Line)>,
    /// What was said to anybody; searched for secrets at the end.
    said: Arc<Mutex<Vec<String>>>,
    pub(super) warnings: Arc<Mutex<Vec<String>>>,
    pub(super) restarts: Arc<AtomicU64>,
    /// Of the methods that were not waited for.
    pub(super) answers: Arc<Mutex<Vec<String>>>,
}

/// Plays a scenario to its end. The error says at which step it went wrong, and how.
pub(super) fn play(scenario: &Value) -> Checked {
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
        done.map_err(|why| match step["of"].as_str() {
            Some(of) => format!("step {of}\n    here {step}\n    {why}"),
            None => format!("step {}: {step}\n    {why}", number + 1),
        })?;
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
        let hub = Hub::new(&scenario["follow"]);
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

    pub(super) fn updater(&self) -> Result<&Arc<Updater>, String> {
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
            "guard" => return self.guard(what),
            "kill" => self.kill(),
            "start" => return self.start(what),
            "journal" => self.break_journal(what == "broken"),
            "target" => self.take_target(what == "taken"),
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
            Some(quiet) => {
                match quiet {
                    "pause" => updater.pause(),
                    "resume" => updater.resume(),
                    "confirm" => updater.confirm(),
                    _ => return Err("there is no such call".into()),
                }
                Value::Null
            }
            None => return Err("there is no such call".into()),
        };
        let expected = step.get("answer").unwrap_or(&found);
        expect(expected, &found, "answer")
    }

    fn start(&mut self, what: &Value) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(WITHIN);
        loop {
            let started = self.builder(what)?.start();
            match (started, what.get("error")) {
                (Ok(updater), None) => {
                    let updater = Arc::new(updater);
                    self.hub.twin().connected = false;
                    let line = self.hub.serve(&updater);
                    self.updater = Some((updater, line));
                    return Ok(());
                }
                (Ok(_), Some(expected)) => {
                    return Err(format!("it was started, in place of {expected}"));
                }
                // The last one returned from `close` before a slow disk did.
                (Err(failure), None)
                    if failure.code == Code::Locked && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(20));
                }
                (Err(failure), None) => return Err(failure.to_string()),
                (Err(failure), Some(expected)) => {
                    return expect(expected, &self.failure_of(&failure), "error");
                }
            }
        }
    }

    fn builder(&self, what: &Value) -> Result<Builder, String> {
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
        Ok(builder)
    }

    /// What is called before the application: counts its start, or rolls back.
    fn guard(&self, expected: &Value) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(WITHIN);
        let guarded = loop {
            let guarded = twinflash::device::guard(self.directory.join("state"));
            let locked = guarded.as_ref().err().map(|failure| failure.code) == Some(Code::Locked);
            if !locked || expected.is_object() || Instant::now() > deadline {
                break guarded;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let found = match guarded {
            Ok(Guarded::Nothing) => json!("nothing"),
            Ok(Guarded::Counted { starts, allowed }) => json!(format!("{starts} of {allowed}")),
            Ok(Guarded::RolledBack) => json!("rolled-back"),
            Ok(other) => return Err(format!("{other:?}")),
            Err(failure) => self.failure_of(&failure),
        };
        expect(expected, &found, "guard")
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

    /// Directories in the place of the copies: nothing can be saved. Or the copies again.
    fn break_journal(&self, broken: bool) {
        let state = self.directory.join("state");
        for copy in ["a", "b"] {
            let (path, away) = (
                state.join(format!("journal.{copy}")),
                state.join(format!("away.{copy}")),
            );
            if broken {
                let _ = fs::rename(&path, &away);
                fs::create_dir(&path).unwrap();
            } else {
                fs::remove_dir(&path).unwrap();
                let _ = fs::rename(&away, &path);
            }
        }
    }

    /// A directory in the target's place, or the target again.
    fn take_target(&self, taken: bool) {
        let (target, away) = (
            self.directory.join("app.bin"),
            self.root.path().join("away"),
        );
        if taken {
            fs::rename(&target, away).unwrap();
            fs::create_dir(target).unwrap();
        } else {
            fs::remove_dir(&target).unwrap();
            fs::rename(away, target).unwrap();
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
    "journal", "target", "guard", "twins", "connect", "method", "desired", "notify", "twin",
    "server", "reports", "release", "call", "wait", "until", "pause", "stop", "kill", "start",
    "corrupt", "expect",
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
    let others = plan["headers"].as_object().into_iter().flatten();
    let others = others.map(|(name, text)| (name.as_str(), text.as_str().unwrap()));
    if let Some(status) = plan["status"].as_u64() {
        let retry_after = plan["retryAfter"].as_u64().map(|s| s.to_string());
        let retry_after = retry_after.iter().map(|s| ("Retry-After", s.as_str()));
        let headers: Vec<_> = retry_after.chain(others).collect();
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
    if number("hang").is_some() {
        reply.pause_before_last = Duration::from_millis(300);
    }
    let most = number("cut").or(number("hang")).unwrap_or(usize::MAX);
    if let Some(length) = plan["announced"].as_u64() {
        let length = length.to_string();
        let length = [("Content-Length", length.as_str())].into_iter();
        reply.head("200 OK", &length.chain(others).collect::<Vec<_>>());
        return;
    }
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
