//! A subject that is a program: requests go to its standard input, answers and what it says unasked come from
//! its standard output, one JSON object a line.

use super::subject::{Answered, Hear, Subject, fault};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// The longest a request may take beyond what it is told to wait.
const ANSWERS: Duration = Duration::from_secs(30);
/// The longest a program may take to end where its input has.
const ENDS: Duration = Duration::from_secs(10);

type Then = Box<dyn FnOnce(Answered) + Send>;

/// Starts the program where it is needed: at first, and after a kill.
pub(super) struct Program {
    command: Vec<String>,
    running: Mutex<Option<Arc<Running>>>,
}

struct Running {
    child: Mutex<Child>,
    input: Mutex<ChildStdin>,
    line: Arc<Incoming>,
    last: AtomicU64,
}

/// Who waits for an answer, and who hears what the updater of the last start says.
#[derive(Default)]
struct Incoming {
    waiting: Mutex<Waiting>,
    hear: Mutex<Option<(u64, Hear)>>,
}

#[derive(Default)]
struct Waiting {
    by_id: HashMap<u64, Then>,
    gone: bool,
}

impl Program {
    pub(super) fn new(command: &str) -> Self {
        Self {
            command: command.split_whitespace().map(str::to_owned).collect(),
            running: Mutex::default(),
        }
    }

    fn running(&self) -> Result<Arc<Running>, Value> {
        let mut running = self.running.lock().unwrap();
        if let Some(running) = &*running {
            return Ok(Arc::clone(running));
        }
        let started =
            Arc::new(Running::start(&self.command).map_err(|error| {
                fault(format_args!("cannot start {:?}: {error}", self.command))
            })?);
        *running = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Ends the program as it wants to be ended; the error says what was wrong with that.
    pub(super) fn end(&self) -> Result<(), String> {
        let Some(running) = self.running.lock().unwrap().take() else {
            return Ok(());
        };
        let running = Arc::into_inner(running).ok_or("the program is still asked")?;
        drop(running.input);
        let mut child = running.child.into_inner().unwrap();
        let deadline = Instant::now() + ENDS;
        while Instant::now() < deadline {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the program ended with {status}")),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!(
            "the program did not end within {ENDS:?} of its input"
        ))
    }
}

impl Running {
    fn start(command: &[String]) -> std::io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            .args(arguments)
            // Where whoever names a program by a path most likely is.
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let line = Arc::new(Incoming::default());
        let theirs = Arc::clone(&line);
        let output = output.ok_or(std::io::ErrorKind::BrokenPipe)?;
        thread::spawn(move || theirs.read(output));
        Ok(Self {
            child: Mutex::new(child),
            input: Mutex::new(input.ok_or(std::io::ErrorKind::BrokenPipe)?),
            line,
            last: AtomicU64::new(0),
        })
    }

    fn send(&self, what: &str, with: Value, hear: Option<Hear>, then: Then) {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(hear) = hear {
            *self.line.hear.lock().unwrap() = Some((id, hear));
        }
        {
            let mut waiting = self.line.waiting.lock().unwrap();
            if waiting.gone {
                drop(waiting);
                return then(Err(fault("the program has ended")));
            }
            waiting.by_id.insert(id, then);
        }
        let mut request = with;
        request["id"] = id.into();
        request["do"] = what.into();
        let line = format!("{request}\n");
        // Where it cannot be written the program has ended, and whoever waits is told so by its output's end.
        let _ = self.input.lock().unwrap().write_all(line.as_bytes());
    }
}

impl Incoming {
    fn read(&self, output: ChildStdout) {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str::<Value>(&line) {
                Ok(said) => self.take(said),
                Err(error) => self.say(None, json!({"fault": format!("{line}: {error}")})),
            }
        }
        let mut waiting = self.waiting.lock().unwrap();
        waiting.gone = true;
        let left: Vec<_> = waiting.by_id.drain().collect();
        drop(waiting);
        for (_, then) in left {
            then(Err(fault("the program ended in the middle of it")));
        }
    }

    fn take(&self, mut said: Value) {
        let Some(id) = said["id"].as_u64() else {
            return self.say(said["of"].as_u64(), said);
        };
        let then = self.waiting.lock().unwrap().by_id.remove(&id);
        match then {
            Some(then) if said.get("error").is_some() => then(Err(said["error"].take())),
            Some(then) => then(Ok(said["ok"].take())),
            None => self.say(None, json!({"fault": format!("nobody asked for {said}")})),
        }
    }

    /// What the updater of an earlier start still says is nobody's.
    fn say(&self, of: Option<u64>, said: Value) {
        let hear = self.hear.lock().unwrap().clone();
        match hear {
            Some((start, hear)) if of.is_none_or(|of| of == start) => hear(said),
            _ => {}
        }
    }
}

impl Subject for Program {
    fn start(&self, config: &Value, hear: Hear) -> Answered {
        self.wait_for("start", json!({ "config": config }), Some(hear))
    }

    fn ask(&self, what: &str, with: Value) -> Answered {
        self.wait_for(what, with, None)
    }

    fn method_then(&self, with: Value, then: Then) {
        match self.running() {
            Ok(running) => running.send("method", with, None, then),
            Err(why) => then(Err(why)),
        }
    }

    fn kill(&self) -> bool {
        if let Some(running) = self.running.lock().unwrap().take() {
            let mut child = running.child.lock().unwrap();
            let _ = child.kill();
            let _ = child.wait();
        }
        true
    }
}

impl Program {
    fn wait_for(&self, what: &str, with: Value, hear: Option<Hear>) -> Answered {
        let (sender, receiver) = mpsc::sync_channel(1);
        let waits = Duration::from_secs_f64(with["seconds"].as_f64().unwrap_or_default());
        let then = move |answered| drop(sender.send(answered));
        self.running()?.send(what, with, hear, Box::new(then));
        let answered = receiver.recv_timeout(waits + ANSWERS);
        answered
            .unwrap_or_else(|_| Err(fault(format!("{what} was not answered within {ANSWERS:?}"))))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
