//! The pipeline's thread: downloads, and the installer's steps, one at a time.

use super::shared::Shared;
use crate::command;
use crate::download::{Downloader, Stop};
use crate::engine::{Ask, Input, Question, Reply, Step};
use crate::install::{DryInstall, Installer};
use crate::update::{Code, Ended, Failure, ImageInfo, ImageState, Job, Progress, Retry};
use serde_json::Value;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The time a health command has; it is run again.
const HEALTH_TIME: Duration = Duration::from_secs(60);
/// The time a command has that is asked for consent or readiness; it is asked again.
const ASK_TIME: Duration = Duration::from_secs(60);
/// The status of a command that cannot say yet: `EX_TEMPFAIL`.
const NOT_YET: i32 = 75;

/// Something to do.
pub(super) enum Task {
    Download(Box<Job>, ImageInfo, Stop),
    Manifest(Box<Job>, Stop),
    Ask(Ask),
    Step(Step),
}

/// The application's own answer to whether the device is ready.
pub(super) struct ReadyHandler(pub(super) Box<dyn FnMut(&Ask) -> Reply + Send>);

impl fmt::Debug for ReadyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadyHandler")
    }
}

/// Who is asked what; a command that is empty is none.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) health: Vec<String>,
    pub(super) consent: Vec<String>,
    pub(super) ready: Vec<String>,
    pub(super) on_ready: Option<ReadyHandler>,
}

impl Asked {
    fn ask(&mut self, ask: &Ask) -> Reply {
        let command = match (ask.question, &mut self.on_ready) {
            (Question::Ready, Some(ReadyHandler(handler))) => return handler(ask),
            (Question::Ready, None) => &self.ready,
            (Question::Consent, _) => &self.consent,
        };
        let values = [
            ("stage", ask.stage.as_str()),
            ("version", ask.version.as_deref().unwrap_or_default()),
            (
                "size",
                &ask.size.map_or(String::new(), |size| size.to_string()),
            ),
        ];
        match command::ask(&command::fill(command, &values), ASK_TIME) {
            Ok((0, _)) => Reply::Yes,
            Ok((status, printed)) if ask.question == Question::Ready || status == NOT_YET => {
                Reply::Later(seconds(&printed))
            }
            Ok(_) => Reply::No,
            Err(failure) => {
                log::warn!("asked for {:?}: {failure}", ask.question);
                Reply::Later(None)
            }
        }
    }
}

/// What a command prints in its first line, where that is a number of seconds: as JSON has them, as `date +%S` (`05`) or
/// as `bc` (`.5`).
fn seconds(printed: &str) -> Option<Duration> {
    let line = printed
        .lines()
        .next()?
        .trim()
        .trim_start_matches(['+', '0']);
    let number: Value = serde_json::from_slice(line.as_bytes())
        .or_else(|_| serde_json::from_slice(format!("0{line}").as_bytes()))
        .ok()?;
    Duration::try_from_secs_f64(number.as_f64()?)
        .ok()
        .filter(|time| !time.is_zero())
}

impl Task {
    /// What its end is when it panics.
    fn broken(&self) -> Input<'static> {
        let failure = Failure::new(Code::InstallFailed, "the installer panicked");
        match self {
            Self::Download(..) | Self::Manifest(..) => {
                Input::TransferEnded(Ended::Failed(failure, Retry::Never))
            }
            Self::Ask(ask) => Input::Reply {
                id: ask.id,
                reply: Reply::Later(None),
            },
            Self::Step(step) => Input::Done(*step, Err(failure)),
        }
    }
}

/// The driver's end of the pipeline.
pub(super) struct Pipeline {
    /// `None` while it is dropped.
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    pending: Arc<AtomicUsize>,
}

impl Drop for Pipeline {
    /// Who closed an updater finds its installer gone, too.
    fn drop(&mut self) {
        drop(self.tasks.take());
        if self.is_idle()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The other end, where the work is done.
pub(super) struct Worker {
    tasks: mpsc::Receiver<Task>,
    pending: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    installer: Box<dyn Installer>,
    downloader: Downloader,
    asked: Asked,
    unsure: bool,
}

impl Pipeline {
    /// `unsure`: the installer failed to say which image runs.
    pub(super) fn new(
        shared: Arc<Shared>,
        installer: Box<dyn Installer>,
        downloader: Downloader,
        asked: Asked,
        unsure: bool,
    ) -> (Self, Worker) {
        let (tasks, receiver) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            tasks: receiver,
            pending: Arc::clone(&pending),
            shared,
            installer,
            downloader,
            asked,
            unsure,
        };
        let pipeline = Self {
            tasks: Some(tasks),
            thread: None,
            pending,
        };
        (pipeline, worker)
    }

    pub(super) fn run(&self, task: Task) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        if self
            .tasks
            .as_ref()
            .is_none_or(|tasks| tasks.send(task).is_err())
        {
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }
}

impl Worker {
    /// Works on a thread of its own, until the driver has gone, which waits for it.
    pub(super) fn start(mut self, pipeline: &mut Pipeline) -> Result<(), Failure> {
        let thread = thread::Builder::new()
            .name("twinflash-image".into())
            .spawn(move || {
                self.shared.warn_of_commands();
                while let Ok(task) = self.tasks.recv() {
                    // An application's installer may panic; the update fails, nothing hangs.
                    let broken = task.broken();
                    let run = AssertUnwindSafe(|| self.perform(task));
                    let done = catch_unwind(run).unwrap_or(broken);
                    self.done(done);
                }
            })
            .map_err(|error| {
                Failure::new(Code::State, format!("cannot start a thread: {error}"))
            })?;
        pipeline.thread = Some(thread);
        Ok(())
    }

    /// Does what there is to do now, on this thread.
    #[cfg(test)]
    pub(super) fn work(&mut self) -> bool {
        let Ok(task) = self.tasks.try_recv() else {
            return false;
        };
        let done = self.perform(task);
        self.done(done);
        true
    }

    fn done(&self, input: Input<'static>) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
        self.shared.end_of_task(input);
    }

    fn perform(&mut self, task: Task) -> Input<'static> {
        let (shared, installer) = (&self.shared, self.installer.as_mut());
        let step = match task {
            Task::Download(job, image, stop) => {
                let mut on = |progress| {
                    let starting_over = progress == Progress::StartingOver;
                    shared.input(Input::Transfer(progress));
                    if starting_over && !shared.until_performed() {
                        stop.stop();
                    }
                };
                let installer: &mut dyn Installer = match job.dry_run {
                    true => &mut DryInstall::default(),
                    false => installer,
                };
                let ended = self
                    .downloader
                    .fetch(&job, installer, image, &stop, &mut on);
                return Input::TransferEnded(ended);
            }
            Task::Manifest(job, stop) => {
                return Input::TransferEnded(self.downloader.fetch_manifest(&job, &stop));
            }
            Task::Ask(ask) => {
                let reply = self.asked.ask(&ask);
                return Input::Reply { id: ask.id, reply };
            }
            Task::Step(step) => step,
        };
        let result = match step {
            Step::Finish => installer.finish().and_then(|()| match shared.image() {
                Some((size, sha256)) => installer.read_back(size, &sha256),
                None => Ok(()),
            }),
            Step::Activate => installer.activate(),
            Step::Confirm => {
                make_sure(installer, &mut self.unsure).and_then(|()| installer.confirm())
            }
            Step::Rollback => installer.rollback(),
            Step::Abort => installer.abort(),
            Step::Compare => match shared
                .wanted_sha256()
                .map(|sha256| installer.holds(&sha256))
            {
                Some(Ok(true)) => Ok(()),
                Some(Err(failure)) => Err(failure),
                Some(Ok(false)) | None => Err(Failure::new(
                    Code::HashMismatch,
                    "the active image is another one",
                )),
            },
            Step::CheckHealth => command::run(&self.asked.health, HEALTH_TIME).map(drop),
        };
        Input::Done(step, result)
    }
}

/// Before a new image is confirmed it is asked once more whether it runs, where the start could not tell.
fn make_sure(installer: &mut dyn Installer, unsure: &mut bool) -> Result<(), Failure> {
    if *unsure {
        if let ImageState::Old | ImageState::Partial = installer.inspect()? {
            return Err(Failure::new(Code::BootFailed, "the old image runs"));
        }
        *unsure = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_number_of_seconds() {
        let ms = |printed| seconds(printed).map(|time| time.as_millis());
        for (printed, wanted) in [
            ("90\nmore", 90_000),
            (" 1.5 ", 1500),
            ("0.5", 500),
            (".5", 500),
            ("05", 5000),
            ("+7", 7000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(ms(printed), Some(wanted), "{printed}");
        }
        for printed in [
            "", "\n5", "0", "00.0", "-1", "5 s", "0x5", "nan", "inf", "true", "1e400",
        ] {
            assert_eq!(ms(printed), None, "{printed}");
        }
    }
}
