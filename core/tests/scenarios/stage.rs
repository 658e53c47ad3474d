//! Runs one scenario: see `tests/scenarios/README.md` for the format.

use super::{
    hub::{Hub, Line, Treat},
    secrets::{self, HEADER},
    signed,
    subject::{Answered, Subject},
    support::{
        pattern::{Names, SECRET, expect, image},
        server::{Reply, Server},
    },
    values::{copy_tree, named, policy, text},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
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
    /// Where the device's key lies that decrypts, so that it lies nowhere else.
    keys: tempfile::TempDir,
    /// Where state and target lie now: a kill leaves the directory behind and goes on in a copy.
    pub(super) directory: PathBuf,
    copies: u32,
    pub(super) server: Server,
    plans: Plans,
    pub(super) hub: Hub,
    subject: Arc<dyn Subject>,
    /// While an updater runs.
    line: Option<Line>,
    pub(super) heard: Arc<Heard>,
}

/// What came out of the updaters.
#[derive(Default)]
pub(super) struct Heard {
    /// What was said to anybody; searched for secrets at the end.
    said: Mutex<Vec<String>>,
    pub(super) warnings: Mutex<Vec<String>>,
    pub(super) restarts: AtomicU64,
    /// How many of the methods that were not waited for are answered.
    pub(super) answers: AtomicU64,
    /// What a subject should not have said.
    faults: Mutex<Vec<String>>,
}

impl Heard {
    fn says(&self, what: &Value) {
        self.said.lock().unwrap().push(what.to_string());
    }

    /// Takes what is said unasked, but for what is to be sent to the hub: that is given back.
    fn take(&self, said: Value) -> Option<Value> {
        if said.get("report").is_some() || said.get("readTwin").is_some() {
            return Some(said);
        }
        self.says(&said);
        if let Some(warning) = said["warning"].as_str() {
            self.warnings.lock().unwrap().push(warning.into());
        } else if said.get("restart").is_some() {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        } else if said.get("event").is_none() {
            self.faults.lock().unwrap().push(said.to_string());
        }
        None
    }
}

/// Plays a scenario to its end. The error says at which step it went wrong, and how.
pub(super) fn play(scenario: &Value, subject: &Arc<dyn Subject>) -> Checked {
    let mut stage = Stage::new(scenario, subject);
    let played = stage.play();
    if played.is_err() {
        stage.stop();
        subject.kill();
    }
    played
}

impl Stage {
    fn play(&mut self) -> Checked {
        let scenario = self.scenario.clone();
        let steps = scenario["steps"].as_array().ok_or("there are no steps")?;
        let start = scenario["start"] != json!(false);
        if start {
            self.start(&json!({}))?;
        }
        for (number, step) in steps.iter().enumerate() {
            let mut step = self.names.fill(step);
            secrets::put_into(&mut step, &self.server.url(""));
            let done = self.step(&step);
            done.map_err(|why| match step["of"].as_str() {
                Some(of) => format!("step {of}\n    here {step}\n    {why}"),
                None => format!("step {}: {step}\n    {why}", number + 1),
            })?;
        }
        self.stop();
        self.nothing_wrong_said()
    }

    fn new(scenario: &Value, subject: &Arc<dyn Subject>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("0");
        fs::create_dir(&directory).unwrap();
        let mut names = Names::default();
        let mut images = BTreeMap::new();
        for (name, size) in scenario["images"].as_object().into_iter().flatten() {
            let size = size.as_u64().unwrap();
            let bytes = image(size as usize, size);
            names.add_image(name, &bytes);
            if scenario["signed"] == json!(true) {
                for (file, manifest) in signed::manifests(name, &bytes) {
                    names.set(format!("signed:{file}"), &*manifest);
                    images.insert(format!("{file}.jws"), manifest.into());
                }
                images.extend(signed::forms(name, &bytes));
            }
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
            keys: tempfile::tempdir().unwrap(),
            copies: 0,
            server,
            plans,
            hub,
            subject: Arc::clone(subject),
            line: None,
            heard: Arc::default(),
        }
    }

    /// Asks the updater for what is not refused.
    pub(super) fn ask(&self, what: &str, with: Value) -> Result<Value, String> {
        let answered = self.heard_answer(self.subject.ask(what, with));
        answered.map_err(|failure| format!("{what}: {failure}"))
    }

    fn heard_answer(&self, answered: Answered) -> Answered {
        self.heard
            .says(answered.as_ref().unwrap_or_else(|failure| failure));
        answered
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
                self.hub.connect(&*self.subject, connected)?;
            }
            "method" => return self.method(what, step),
            "desired" => return self.desired(what, step),
            "notify" => self.twin(false, &text(what))?,
            "twin" => self.twin(true, &text(what))?,
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
                    self.ask("report_done", json!({"report": id, "status": status}))?;
                }
            }
            "twins" => {
                let held = self.hub.twin().hold_twins(what == "hold");
                for document in held {
                    self.twin(true, &document)?;
                }
            }
            "call" => return self.call(what, step),
            "wait" => {
                let outcome = self.ask("wait", json!({"seconds": within}))?;
                return expect(&named(what, "outcome"), &outcome, "outcome").map_err(|why| {
                    let status = self.ask("status", json!({}));
                    format!("{why}; {}", status.unwrap_or_default())
                });
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
        let with = json!({"name": name, "payload": payload});
        if step["asynchronous"] == json!(true) {
            let heard = Arc::clone(&self.heard);
            let then = move |answered: Answered| {
                if let Ok(answer) = answered {
                    heard.says(&answer);
                    heard.answers.fetch_add(1, Ordering::Relaxed);
                }
            };
            self.subject.method_then(with, Box::new(then));
            return Ok(());
        }
        let found = self.ask("method", with)?;
        let reported = self.hub.twin().reported.clone();
        if let Some(expected) = step.get("answer") {
            expect(expected, &found, "answer")?;
        }
        step.get("answered").map_or(Ok(()), |expected| {
            expect(expected, &reported, "reported, when answered,")
        })
    }

    fn desired(&self, patch: &Value, step: &Value) -> Checked {
        // One that overtakes the twin being read has that read again: that is a scenario of its own.
        let deadline = Instant::now() + Duration::from_secs_f64(WITHIN);
        let unread = || {
            let twin = self.hub.twin();
            twin.connected && twin.unread
        };
        while unread() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let mut twin = self.hub.twin();
        twinflash::twin::merge(&mut twin.desired, patch);
        twin.version += 1;
        let mut patch = patch.clone();
        patch["$version"] = twin.version.into();
        let delivered = twin.connected && step["delivered"] != json!(false);
        drop(twin);
        if delivered {
            self.twin(false, &patch.to_string())?;
        }
        Ok(())
    }

    fn twin(&self, complete: bool, json: &str) -> Checked {
        let with = json!({"complete": complete, "json": json});
        self.ask("twin", with).map(drop)
    }

    fn call(&self, what: &Value, step: &Value) -> Checked {
        let what = what.as_str().ok_or("a call's name is needed")?;
        let answered = self.heard_answer(self.subject.ask(what, json!({})));
        let found = answered.unwrap_or_else(|failure| failure);
        if found["code"] == "fault" {
            return Err(found.to_string());
        }
        let expected = step.get("answer").unwrap_or(&found);
        expect(expected, &found, "answer")
    }

    fn start(&mut self, what: &Value) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(WITHIN);
        let config = self.config(what)?;
        loop {
            let (sender, outbound) = mpsc::channel();
            let heard = Arc::clone(&self.heard);
            let hear = move |said| {
                if let Some(to_hub) = heard.take(said) {
                    let _ = sender.send(to_hub);
                }
            };
            let started = self.subject.start(&config, Arc::new(hear));
            match (self.heard_answer(started), what.get("error")) {
                (Ok(_), None) => {
                    self.hub.twin().connected = false;
                    self.line = Some(self.hub.serve(Arc::clone(&self.subject), outbound));
                    return Ok(());
                }
                (Ok(_), Some(expected)) => {
                    return Err(format!("it was started, in place of {expected}"));
                }
                // The last one returned from `close` before a slow disk did.
                (Err(failure), None)
                    if failure["code"] == "locked" && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(20));
                }
                (Err(failure), None) => return Err(failure.to_string()),
                (Err(failure), Some(expected)) => return expect(expected, &failure, "error"),
            }
        }
    }

    /// The updater's configuration, as the languages hand it over.
    fn config(&self, what: &Value) -> Result<Value, String> {
        let target = self.scenario["target"].as_str().unwrap_or("app.bin");
        let restart = self.scenario["restart"].as_str().unwrap_or("none");
        let mut config = json!({
            "state_dir": self.directory.join("state"),
            "contract": self.scenario["contract"],
            "install": {"file": self.directory.join(target), "restart": restart},
            "policy": policy(&self.scenario["policy"]),
            "http": {"headers": {HEADER: SECRET}},
        });
        if self.scenario["signed"] == json!(true) {
            config["trust"] = signed::trust(self.keys.path());
        }
        let version = what.get("currentVersion");
        if let Some(version) = version.or(self.scenario.get("currentVersion")) {
            config["current_version"] = version.clone();
        }
        Ok(config)
    }

    /// What is called before the application: counts its start, or rolls back.
    fn guard(&self, expected: &Value) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(WITHIN);
        let with = json!({"state_dir": self.directory.join("state")});
        let found = loop {
            let guarded = self.heard_answer(self.subject.ask("guard", with.clone()));
            let found = guarded.unwrap_or_else(|failure| failure);
            let locked = found["code"] == "locked";
            if !locked || expected.is_object() || Instant::now() > deadline {
                break found;
            }
            thread::sleep(Duration::from_millis(20));
        };
        expect(expected, &found, "guard")
    }

    fn stop(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = self.ask("status", json!({}));
            let _ = self.ask("close", json!({}));
            drop(line);
            self.hub.twin().connected = false;
        }
    }

    /// What a kill leaves: the files as they are at this moment. The old updater ends unheard.
    fn kill(&mut self) {
        if self.subject.kill() {
            self.line = None;
            self.hub.twin().connected = false;
            return;
        }
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

    fn nothing_wrong_said(&self) -> Checked {
        if let Some(fault) = self.heard.faults.lock().unwrap().first() {
            return Err(format!("the subject said {fault}"));
        }
        // A secret that is not used proves nothing.
        let first = self.server.asked().into_iter().next();
        if first.is_some_and(|asked| asked.header(HEADER) != Some(SECRET)) {
            return Err(format!("the server was asked without {HEADER}"));
        }
        let twin = self.hub.twin();
        let said = self.heard.said.lock().unwrap();
        let mut all = said.iter().chain(&twin.patches).chain(&twin.statuses);
        match all.find(|text| secrets::is_in(text.as_bytes())) {
            None => secrets::none_in_files(self.root.path()),
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
