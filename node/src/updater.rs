//! The updater, as `index.js` calls it.

use crate::{
    bridge::{Arguments, Bridge},
    event,
    failure::{Thrown, fault, from_application, thrown, to_json},
    installer::{OwnInstaller, image_state},
};
use engine::{
    config::Config,
    device::{Answer, Device, InstallFile, Outbound, Updater},
    engine::METHODS,
    install::{Installer, Restart},
    tls::{ClientIdentity, Roots},
    update::{Code, Failure},
};
use napi::{Env, bindgen_prelude::Function};
use napi_derive::napi;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    panic::RefUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// So long an installer has to answer once the updater is to be closed, which may take 900 ms in all.
const ANSWER_TIME: Duration = Duration::from_millis(600);

/// An installer in JavaScript, as far as it must be known beforehand.
#[napi(object)]
pub struct Own {
    /// `inspect`'s answer: it is called before the updater is started, which happens on
    /// JavaScript's own thread.
    pub inspected: String,
    /// `none`, `exit`, `system`, or nothing where `command` is given.
    pub restart: Option<String>,
    /// Restarts what uses the image.
    pub command: Option<Vec<String>>,
    /// It has a `readBack`.
    pub reads_back: bool,
    /// It has a `holds`.
    pub holds: bool,
}

/// What became of a method.
#[napi(object)]
pub struct Handled {
    /// The answer comes later, as `deliver("answer", [number, status, payload])`.
    pub number: Option<f64>,
    /// The status, where the answer is there.
    pub status: Option<u16>,
    /// The payload in JSON.
    pub payload: Option<String>,
}

/// What threads and JavaScript share.
pub(crate) struct Held {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) updater: Arc<Updater>,
    pub(crate) device: Mutex<Option<Device>>,
    pub(crate) connection: Option<String>,
    pub(crate) roots: Roots,
    pub(crate) certificate: Option<ClientIdentity>,
    methods: Vec<String>,
    waited_for: AtomicBool,
}

impl Held {
    /// Waits up to a second.
    fn close(&self) {
        let device = self
            .device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match device {
            Some(device) => device.close(),
            None => self.updater.close(),
        }
    }
}

thread_local! {
    /// The updaters of this thread's JavaScript, to be closed when it ends. `None` before the first.
    static HELD: RefCell<Option<Vec<Weak<Held>>>> = const { RefCell::new(None) };
}

/// Has an updater closed when its environment ends: the process, or a worker.
fn close_with(env: Env, held: &Arc<Held>) -> napi::Result<()> {
    HELD.with_borrow_mut(|all| {
        if all.is_none() {
            env.add_env_cleanup_hook((), |()| {
                let all = HELD.take().unwrap_or_default();
                let all: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
                for held in &all {
                    // Nobody answers any more: what waits for JavaScript is not waited for.
                    held.updater.begin_close();
                    held.bridge.abandon();
                }
                for held in &all {
                    held.close();
                    held.bridge.end();
                }
            })?;
        }
        let all = all.get_or_insert_default();
        all.retain(|held| held.strong_count() > 0);
        all.push(Arc::downgrade(held));
        Ok(())
    })
}

/// An updater. Every call returns at once.
#[napi]
pub struct NativeUpdater {
    pub(crate) held: Arc<Held>,
}

// A panic in one call leaves nothing half done: what is shared is behind locks.
impl RefUnwindSafe for NativeUpdater {}

#[napi]
impl NativeUpdater {
    /// Starts an updater with a configuration in JSON. `deliver` gets everything that comes from its
    /// threads. `restarts`: the application restarts by a function of its own.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: Env,
        config: String,
        own: Option<Own>,
        restarts: bool,
        deliver: Function<'_, Arguments, ()>,
    ) -> Result<Self, Thrown> {
        let config = Config::from_json(config.as_bytes()).map_err(thrown)?;
        let bridge = Arc::new(Bridge::new(&deliver).map_err(fault)?);
        let held = start(&config, own, restarts, &bridge).map_err(|failure| {
            bridge.end();
            thrown(failure)
        })?;
        close_with(env, &held).map_err(fault)?;
        Ok(Self { held })
    }

    /// The direct methods that are ours.
    #[napi(catch_unwind)]
    pub fn methods(&self) -> Vec<String> {
        self.held.methods.clone()
    }

    /// A direct method was called; nothing where it is not ours.
    #[napi(catch_unwind)]
    pub fn handle_method(&self, name: String, payload: String) -> Option<Handled> {
        /// Whether the answer comes before the call has returned, or after.
        enum Order {
            First(Option<Answer>),
            Later,
        }
        let number = self.held.bridge.number();
        let order = Arc::new(Mutex::new(Order::First(None)));
        let (of, bridge) = (Arc::clone(&order), Arc::clone(&self.held.bridge));
        let then = move |answer: Answer| {
            let mut order = of.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *order {
                Order::First(place) => *place = Some(answer),
                Order::Later => {
                    let Answer { status, payload } = answer;
                    bridge.send("answer", &json!([number, status, payload]));
                }
            }
        };
        let updater = &self.held.updater;
        if !updater.handle_method_then(&name, payload.as_bytes(), then) {
            return None;
        }
        let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match std::mem::replace(&mut *order, Order::Later) {
            Order::First(Some(answer)) => Handled {
                number: None,
                status: Some(answer.status),
                payload: Some(answer.payload),
            },
            // Exact: nobody calls 2^53 methods.
            #[allow(clippy::cast_precision_loss)]
            _ => Handled {
                number: Some(number as f64),
                status: None,
                payload: None,
            },
        })
    }

    /// A twin, or a patch of its desired properties, in JSON.
    #[napi(catch_unwind)]
    pub fn handle_twin(&self, complete: bool, json: String) {
        self.held.updater.handle_twin(complete, json.as_bytes());
    }

    /// The twin could not be read.
    #[napi(catch_unwind)]
    pub fn twin_failed(&self) {
        self.held.updater.twin_failed();
    }

    /// The hub is connected, or no longer.
    #[napi(catch_unwind)]
    pub fn connected(&self, connected: bool) {
        self.held.updater.connected(connected);
    }

    /// A report's result.
    #[napi(catch_unwind)]
    pub fn report_done(&self, id: f64, status: u16) {
        // The id is one of ours, which are small.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.held.updater.report_done(id as u64, status);
    }

    /// Where everything stands, in JSON.
    #[napi(catch_unwind)]
    pub fn status(&self) -> String {
        event::status(&self.held.updater.status()).to_string()
    }

    /// The application says that the new version is good.
    #[napi(catch_unwind)]
    pub fn confirm(&self) {
        self.held.updater.confirm();
    }

    /// Cancels; whether there was something to cancel.
    #[napi(catch_unwind)]
    pub fn cancel(&self) -> Result<bool, Thrown> {
        self.held.updater.cancel().map_err(thrown)
    }

    /// The user agrees; whether somebody was asked.
    #[napi(catch_unwind)]
    pub fn approve(&self) -> Result<bool, Thrown> {
        self.held.updater.approve().map_err(thrown)
    }

    /// Puts off; whether there was something to put off.
    #[napi(catch_unwind)]
    pub fn defer(&self, seconds: f64) -> Result<bool, Thrown> {
        let time = Duration::try_from_secs_f64(seconds).map_err(|error| {
            let text = format!("{seconds} seconds: {error}");
            thrown(Failure::new(Code::InvalidRequest, text))
        })?;
        self.held.updater.defer(time).map_err(thrown)
    }

    /// Installs a file.
    #[napi(catch_unwind)]
    pub fn install_file(
        &self,
        path: String,
        version: Option<String>,
        check: Option<String>,
        manifest: Option<String>,
    ) -> Result<(), Thrown> {
        let mut options = InstallFile::default();
        (options.version, options.check) = (version, check);
        options.manifest = manifest.map(Into::into);
        let updater = &self.held.updater;
        (updater.install_file(path.as_ref(), &options)).map_err(thrown)
    }

    /// Pauses the download.
    #[napi(catch_unwind)]
    pub fn pause(&self) {
        self.held.updater.pause();
    }

    /// Goes on with it.
    #[napi(catch_unwind)]
    pub fn resume(&self) {
        self.held.updater.resume();
    }

    /// Has `deliver("done", outcome or null)` called once an update has ended and the hub has been
    /// told, or the updater is closed. Only once, however often it is called until then.
    #[napi(catch_unwind)]
    pub fn wait(&self) -> Result<(), Thrown> {
        if self.held.waited_for.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let held = Arc::clone(&self.held);
        spawn("twinflash-wait", move || {
            let ended = held.updater.wait(Duration::MAX);
            held.waited_for.store(false, Ordering::Release);
            let ended = ended.as_ref().map_or(Value::Null, event::outcome);
            held.bridge.send("done", &ended);
        })
    }

    /// `deliver("answer", [number, failure or null])` follows once everything decided so far is durable, or
    /// could not be made so within a time in seconds; the number.
    #[napi(catch_unwind)]
    pub fn flush(&self, seconds: f64) -> Result<f64, Thrown> {
        let held = Arc::clone(&self.held);
        let number = held.bridge.number();
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        spawn("twinflash-flush", move || {
            let failure = held.updater.flush(time).err();
            let failure = failure.as_ref().map(to_json);
            held.bridge.send("answer", &json!([number, failure]));
        })?;
        // Exact: as in `handle_method`.
        #[allow(clippy::cast_precision_loss)]
        Ok(number as f64)
    }

    /// What a function of the application came to: what it answered with in JSON, or what it failed
    /// with.
    #[napi(catch_unwind)]
    pub fn answer(&self, number: f64, value: String, code: Option<String>) {
        let answer = match code {
            Some(code) => Err(from_application(&code, &value)),
            None => Ok(serde_json::from_str(&value).unwrap_or(Value::Null)),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.held.bridge.answer(number as u64, answer);
    }

    /// Closes; `deliver("closed", null)` follows within a second.
    #[napi(catch_unwind)]
    pub fn close(&self) -> Result<(), Thrown> {
        let held = Arc::clone(&self.held);
        spawn("twinflash-close", move || {
            // The events end when the updater has.
            let events = held.updater.events();
            held.updater.begin_close();
            let give_up = Instant::now() + ANSWER_TIME;
            while let Some(left) = give_up.checked_duration_since(Instant::now())
                && events.next_within(left).is_some()
            {}
            // Who has not answered by now is not waited for; the next start does it again.
            held.bridge.abandon();
            held.close();
            held.bridge.send("closed", &Value::Null);
        })
    }

    /// After `closed`: gives `deliver` back.
    #[napi(catch_unwind)]
    pub fn end(&self) {
        self.held.bridge.end();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Thrown> {
    let named = thread::Builder::new().name(name.into());
    named.spawn(run).map(drop).map_err(fault)
}

fn start(
    config: &Config,
    own: Option<Own>,
    restarts: bool,
    bridge: &Arc<Bridge>,
) -> Result<Arc<Held>, Failure> {
    let mut methods = Vec::from(METHODS.map(str::to_owned));
    methods.extend(config.contract()?.methods().map(str::to_owned));
    let installer: Box<dyn Installer> = match own {
        Some(own) => Box::new(own.installer(bridge)?),
        None => config.installer()?,
    };
    let restart = installer.restart();
    let to = Arc::clone(bridge);
    let out = Arc::clone(bridge);
    let mut builder = config
        .builder_with(installer)?
        .on_event(move |event| {
            if let Some(event) = event::event(event) {
                to.send("event", &event);
            }
        })
        .on_outbound(move |outbound| match outbound {
            Outbound::Report(report) => out.send("report", &json!([report.id, report.patch])),
            Outbound::ReadTwin => out.send("readTwin", &Value::Null),
        });
    if restarts || restart == Restart::Exit {
        let bridge = Arc::clone(bridge);
        builder = builder.on_restart(move |restart| restarting(&bridge, restart, restarts));
    }
    Ok(Arc::new(Held {
        updater: Arc::new(builder.start()?),
        bridge: Arc::clone(bridge),
        device: Mutex::new(None),
        connection: config.connection_string()?,
        roots: config.roots()?,
        certificate: config.identity()?,
        methods,
        waited_for: AtomicBool::new(false),
    }))
}

/// A process of Node's ends on JavaScript's thread, or its exit handlers are passed over.
fn restarting(bridge: &Bridge, restart: &Restart, by_function: bool) -> Result<(), Failure> {
    if !by_function {
        bridge.send("exit", &Value::Null);
        return Ok(());
    }
    let (kind, command) = match restart {
        Restart::None => ("none", None),
        Restart::Exit => ("exit", None),
        Restart::Command(command) => ("command", Some(command)),
        Restart::Reboot(command) => ("system", Some(command)),
        _ => ("system", None),
    };
    let restart = json!({"kind": kind, "command": command});
    match bridge.call("restart", &[restart], None) {
        // Its thread has ended, which is what was asked for or will be asked for again.
        Err(failure) if failure.code == Code::State => Ok(()),
        answer => answer.map(drop),
    }
}

impl Own {
    fn installer(self, bridge: &Arc<Bridge>) -> Result<OwnInstaller, Failure> {
        let wrong = |what| Failure::new(Code::InvalidConfig, what);
        Ok(OwnInstaller {
            bridge: Arc::clone(bridge),
            inspected: Some(image_state(&self.inspected).ok_or_else(|| {
                wrong("install.inspect must answer old, new, partial or unknown")
            })?),
            restart: match (self.restart.as_deref(), self.command) {
                (None, Some(command)) if !command.is_empty() => Restart::Command(command),
                (None | Some("none"), None) => Restart::None,
                (Some("exit"), None) => Restart::Exit,
                (Some("system"), None) => Restart::System,
                _ => {
                    return Err(wrong(
                        "install.restart must be \"none\", \"exit\", \"system\" or a command as an array of texts",
                    ));
                }
            },
            reads_back: self.reads_back,
            holds: self.holds,
        })
    }
}
