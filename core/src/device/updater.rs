//! The updater: what an application holds.

use super::driver;
use super::shared::{Shared, Slot, State};
use super::{Builder, Event};
use crate::contract::Contract;
use crate::download::local_uri;
use crate::engine::{Engine, Input, Status};
use crate::install::Installer;
use crate::seconds::Seconds;
use crate::twin::Report;
use crate::update::{Code, Failure, LocalImage, Outcome, trust};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

/// The answer to a direct method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status for the caller.
    pub status: u16,
    /// JSON, never empty.
    pub payload: String,
}

/// What is to be sent to the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// Send this patch of the reported properties, then call [`Updater::report_done`].
    Report(Report),
    /// Read the twin, then call [`Updater::handle_twin`].
    ReadTwin,
}

/// Firmware updates for one device, without a connection of its own: methods, twins and results
/// come in by `handle_…`, reports go out as [`Outbound`].
///
/// Every call may be made from any thread. Dropping it closes it.
///
/// ```
/// use twinflash::{contract::Contract, device::{Outbound, Updater}, install::FileInstall};
/// # let dir = tempfile::tempdir()?;
/// # let (state, target) = (dir.path().join("state"), dir.path().join("app.bin"));
/// let contract = Contract::built_in("iothub-dm")?;
/// let updater = Updater::builder(&state, contract, FileInstall::new(&target))
///     .current_version("1.0.0")
///     .start()?;
///
/// // A method that cannot be done is refused, with a reason.
/// let answer = updater.handle_method("firmwareUpdate", br#"{"fwPackageUri":"test.com"}"#).unwrap();
/// assert_eq!(answer.status, 400);
/// assert!(answer.payload.contains("test.com"));
///
/// // A method of the application is left to the application.
/// assert_eq!(updater.handle_method("reboot", b"{}"), None);
///
/// // What is to be sent to the hub.
/// updater.connected(true);
/// assert!(updater.next_outbound(std::time::Duration::from_secs(5)).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Updater {
    pub(super) shared: Arc<Shared>,
}

impl Updater {
    /// An updater that keeps its state in `state_dir`, is asked and reports by `contract`, and
    /// installs by `installer`. The directory is made where it is not there; it must not lie in what
    /// is replaced by an update.
    pub fn builder(
        state_dir: impl AsRef<Path>,
        contract: Contract,
        installer: impl Installer + 'static,
    ) -> Builder {
        Builder::new(state_dir.as_ref(), contract, Box::new(installer))
    }

    pub(super) fn start(builder: Builder) -> Result<Self, Failure> {
        Ok(Self {
            shared: driver::start(builder)?,
        })
    }

    /// A direct method was called. Returns its answer, or `None` where it is not one of the
    /// contract's, nor one that [every contract has](crate::engine::Engine::takes_method): the
    /// application's own handlers get it then.
    ///
    /// Returns at once, but for a method that starts an update: then the hub has the first report
    /// (or two seconds have passed), so that no back end reads the last update's outcome.
    /// [`report_done`](Self::report_done) must be called from another thread meanwhile; where that
    /// cannot be, use [`handle_method_then`](Self::handle_method_then), or a
    /// [policy](crate::update::Policy::answer_wait) without a wait.
    pub fn handle_method(&self, name: &str, payload: &[u8]) -> Option<Answer> {
        self.shared.method(name, payload)
    }

    /// As [`handle_method`](Self::handle_method), without a wait: `then` is called with the answer,
    /// on this thread or on the updater's own. `false` where the method is not one of the updater's; then
    /// `then` is not called.
    pub fn handle_method_then(
        &self,
        name: &str,
        payload: &[u8],
        then: impl FnOnce(Answer) + Send + 'static,
    ) -> bool {
        let slot = Slot::Then(Box::new(then));
        self.shared.method_then(name, payload, slot)
    }

    /// A twin was read (`complete`, `{"desired": …, "reported": …}`), or its desired properties were
    /// patched. What is no JSON is ignored, with an [`Event::Warning`].
    pub fn handle_twin(&self, complete: bool, json: &[u8]) {
        self.shared.input(Input::Twin { complete, json });
    }

    /// The twin could not be read: the hub refused ([`Outbound::ReadTwin`] was answered with an error). It
    /// is asked for again after a pause. Without this it is, too, but only after a minute.
    pub fn twin_failed(&self) {
        self.shared.input(Input::TwinFailed);
    }

    /// The hub is connected, or no longer.
    pub fn connected(&self, connected: bool) {
        self.shared.input(match connected {
            true => Input::Connected,
            false => Input::Disconnected,
        });
    }

    /// A report's result: the hub's status, such as 204, or 0 if the report was lost.
    pub fn report_done(&self, id: u64, status: u16) {
        self.shared.input(Input::ReportDone { id, status });
    }

    /// The next thing to send to the hub; `None` when there was none within `timeout`, or the
    /// updater was closed. Only where no [handler](Self::on_outbound) takes them.
    pub fn next_outbound(&self, timeout: Duration) -> Option<Outbound> {
        self.shared
            .wait_for(timeout, |state| state.outbound.pop_front())
    }

    /// From now on `handler` is called with everything that is to be sent to the hub, on the
    /// updater's own thread. It must not wait for the network; it may call `handle_twin` and
    /// `report_done`.
    pub fn on_outbound(&self, handler: impl FnMut(Outbound) + Send + 'static) {
        self.shared.set_outbound(Box::new(handler));
    }

    /// Everything that happens from now on, to be read from one thread. Who is more than 1000
    /// events behind misses some.
    pub fn events(&self) -> Events {
        Events(self.shared.subscribe())
    }

    /// Where everything stands.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Waits until an update has ended, none runs, and the hub has been told (if it is connected):
    /// the outcome, which is durable then; what a failed update had written is removed. Where it could
    /// not be told or saved within `timeout`, the outcome all the same. `None` when there was no end
    /// within `timeout`, or the updater was closed.
    ///
    /// With [`Confirm::Connected`](crate::update::Confirm::Connected) an update ends by what comes
    /// over the connection: it must not be served by the thread that waits here.
    pub fn wait(&self, timeout: Duration) -> Option<Outcome> {
        self.wait_told(timeout)
            .or_else(|| self.shared.wait_for(Duration::ZERO, ended))
    }

    /// As [`wait`](Self::wait), but `None` also where the hub could not be told within `timeout`: for
    /// who must wait in slices, to look at signals in between.
    pub fn wait_told(&self, timeout: Duration) -> Option<Outcome> {
        self.shared.wait_for(timeout, |state| {
            let told = state.engine.is_reported() && state.engine.save_failure().is_none();
            ended(state).filter(|_| told)
        })
    }

    /// The application says that the new version is good (needed for
    /// [`Confirm::Call`](crate::update::Confirm::Call); taken under any policy).
    pub fn confirm(&self) {
        self.shared.input(Input::Confirm);
    }

    /// Cancels the update that runs; `false` where none does. It has ended when this returns, and that
    /// is durable after [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Code::Busy`]: the image is being applied, or has been, which can no longer be cancelled.
    /// [`Code::State`]: the updater was closed.
    pub fn cancel(&self) -> Result<bool, Failure> {
        self.shared.input_if(Input::Cancel, Engine::can_cancel)
    }

    /// Installs an image from a file of this device, such as one on a USB stick: under the same rules as any
    /// other (keys, floor, compatibility, versions, windows for applying), and reported like any other in the
    /// contract's words. Who calls this agrees to it, so nobody is asked for consent. It has begun, durably after
    /// [`flush`](Self::flush), when this returns; the file is read by this process, and must stay until
    /// [`Phase::Applying`](crate::update::Phase::Applying). What its manifest says is known before that: where it
    /// does not let the image in, nothing begins, and nothing is reported.
    ///
    /// # Errors
    /// [`Code::Busy`]: an update runs. [`Code::Storage`] or [`Code::NoPermission`]: the file, or that of its
    /// manifest, cannot be read. [`Code::ManifestRequired`]: there are keys, and no manifest. Else why it is refused. [`Code::State`]: the updater was closed.
    pub fn install_file(&self, path: &Path, options: &InstallFile) -> Result<(), Failure> {
        let path = readable(path)?;
        let manifest = match &options.manifest {
            Some(file) => Some(read_manifest(file)?),
            None if self.shared.lock().engine.needs_manifest() => Some(read_beside(&path)?),
            None => None,
        };
        let image = LocalImage {
            uri: local_uri(&path),
            version: options.version.clone(),
            check: options.check.clone(),
            manifest,
        };
        let may = |engine: &Engine| engine.can_install(&image);
        self.shared.input_if(Input::Install(&image), may)
    }

    /// The user agrees to what the update waits for: see [`Policy::consent`](crate::update::Policy::consent)
    /// and [`Event::Waiting`]. `false` where nobody is asked. Durable after [`flush`](Self::flush); another
    /// request is asked for anew. Who does not agree [cancels](Self::cancel).
    ///
    /// # Errors
    /// [`Code::State`]: the updater was closed.
    pub fn approve(&self) -> Result<bool, Failure> {
        let asked = |engine: &Engine| Ok(engine.asks_consent().is_some());
        self.shared.input_if(Input::Approve, asked)
    }

    /// The user wants to be left alone for so long: until then nobody is asked, no attempt at the download is
    /// begun (one that runs goes on), and nothing applied. `false` where no update runs. Durable after
    /// [`flush`](Self::flush); it outlives restarts, and ends with the update.
    ///
    /// # Errors
    /// [`Code::Busy`]: the image is being applied, or has been. [`Code::State`]: the updater was closed.
    pub fn defer(&self, time: Duration) -> Result<bool, Failure> {
        self.shared.input_if(Input::Defer(time), Engine::can_defer)
    }

    /// Pauses the download of the update that runs, or keeps it from starting; what is there stays.
    /// Where there is none, nothing happens: the next update is not paused. It stays paused over a
    /// restart of program and device, until it is [resumed](Self::resume), cancelled, or replaced by
    /// another request; a paused download uses up no retry budget. Durable after
    /// [`flush`](Self::flush).
    pub fn pause(&self) {
        self.shared.input(Input::Pause);
    }

    /// Goes on with a paused download; at once also with one that waits for its next attempt.
    pub fn resume(&self) {
        self.shared.input(Input::Resume);
    }

    /// Waits until everything that was decided so far is done and durable: a download that was paused
    /// has stopped, and its last bytes are safe. Not in a callback: it would wait for
    /// the very thread it is on.
    ///
    /// # Errors
    /// [`Code::State`]: it could not be saved (and is tried again), not within `timeout`, or the updater
    /// was closed.
    pub fn flush(&self, timeout: Duration) -> Result<(), Failure> {
        let saved = |state: &mut State| {
            let saved =
                state.outputs.is_empty() && !state.performing && !state.engine.is_stopping();
            saved.then(|| state.engine.save_failure())
        };
        match self.shared.wait_for(timeout, saved) {
            Some(None) => Ok(()),
            Some(Some(failure)) => Err(failure),
            None => Err(Failure::new(
                Code::State,
                format!("nothing was saved within {} s", Seconds(timeout)),
            )),
        }
    }

    /// The wall time, where the clock can be believed: see
    /// [`Engine::wall_time`](crate::engine::Engine::wall_time).
    pub fn wall_time(&self) -> Option<SystemTime> {
        self.shared.wall_time()
    }

    /// Stops with a checkpoint and gives the state directory back. Returns within a second of the first
    /// call, whatever network and disk do. Everything after it does nothing.
    pub fn close(&self) {
        self.shared.close();
    }

    /// That it can still be used.
    #[cfg(feature = "mqtt")]
    pub(super) fn check_open(&self) -> Result<(), Failure> {
        self.shared.lock_open().map(drop)
    }

    /// Begins to close; returns at once with the time until which that may take. An installer of the
    /// application's own may fail from then on: what fails is done again at the next start.
    pub fn begin_close(&self) -> std::time::Instant {
        self.shared.begin_close()
    }
}

/// What is known of a file that is to be [installed](Updater::install_file).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InstallFile {
    /// Its manifest's file. Where there are keys and this is none, it is the file's own name and `.jws`.
    pub manifest: Option<PathBuf>,
    /// Its version.
    pub version: Option<String>,
    /// A check value it must pass: CRC-16, CRC-32 or SHA-256.
    pub check: Option<String>,
}

/// The absolute path of a file that can be read.
fn readable(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).map_err(|error| unreadable(path, &error))?;
    // A name that is waited for, as that of a pipe, would never be opened.
    let is_file = std::fs::metadata(&path).map(|data| data.is_file());
    match is_file.and_then(|is_file| File::open(&path).map(|_| is_file)) {
        Ok(true) => Ok(path),
        Ok(false) => {
            let text = format!("{} is no file", path.display());
            Err(Failure::new(Code::Storage, text))
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::NoPermission,
        _ => Code::Storage,
    };
    Failure::new(code, format!("cannot read {}: {error}", path.display()))
}

fn read_manifest(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let longest = trust::MAX_LENGTH as u64 + 1;
    let path = readable(path)?;
    let read = File::open(&path).and_then(|file| file.take(longest).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

/// The manifest whose file has the image's name and `.jws`.
fn read_beside(image: &Path) -> Result<String, Failure> {
    let mut beside = image.as_os_str().to_owned();
    beside.push(".jws");
    read_manifest(beside.as_ref()).map_err(|failure| {
        let text = format!(
            "nothing signed vouches for {}, neither given with it nor beside it: {}",
            image.display(),
            failure.message
        );
        Failure::new(Code::ManifestRequired, text)
    })
}

/// The outcome of an update that has ended, once everything it left to do is done.
fn ended(state: &mut State) -> Option<Outcome> {
    let status = state.engine.status();
    status
        .outcome
        .filter(|_| status.phase.is_none() && state.is_settled())
}

impl Drop for Updater {
    fn drop(&mut self) {
        self.close();
    }
}

/// The events of an [`Updater`], as an iterator that waits for the next one and ends when the
/// updater is closed.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when there was none within `timeout`, or the updater was closed.
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        self.0.recv_timeout(timeout).ok()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv().ok()
    }
}
