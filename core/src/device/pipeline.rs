//! The pipeline's thread: downloads, and the installer's steps, one at a time.

use super::shared::Shared;
use crate::command;
use crate::download::{Downloader, Stop};
use crate::engine::{Input, Step};
use crate::install::Installer;
use crate::update::{Code, Ended, Failure, ImageInfo, Job, Progress, Retry};
use std::{
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

/// Something to do.
pub(super) enum Task {
    Download(Box<Job>, ImageInfo, Stop),
    Manifest(Box<Job>, Stop),
    Step(Step),
}

impl Task {
    /// What its end is when it panics.
    fn broken(&self) -> Input<'static> {
        let failure = Failure::new(Code::InstallFailed, "the installer panicked");
        match self {
            Self::Download(..) | Self::Manifest(..) => {
                Input::TransferEnded(Ended::Failed(failure, Retry::Never))
            }
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
    health: Vec<String>,
}

impl Pipeline {
    pub(super) fn new(
        shared: Arc<Shared>,
        installer: Box<dyn Installer>,
        downloader: Downloader,
        health: Vec<String>,
    ) -> (Self, Worker) {
        let (tasks, receiver) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            tasks: receiver,
            pending: Arc::clone(&pending),
            shared,
            installer,
            downloader,
            health,
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
                let ended = self
                    .downloader
                    .fetch(&job, installer, image, &stop, &mut on);
                return Input::TransferEnded(ended);
            }
            Task::Manifest(job, stop) => {
                return Input::TransferEnded(self.downloader.fetch_manifest(&job, &stop));
            }
            Task::Step(step) => step,
        };
        let result = match step {
            Step::Finish => installer.finish().and_then(|()| match shared.image() {
                Some((size, sha256)) => installer.read_back(size, &sha256),
                None => Ok(()),
            }),
            Step::Activate => installer.activate(),
            Step::Confirm => installer.confirm(),
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
            Step::CheckHealth => command::run(&self.health, HEALTH_TIME).map(drop),
        };
        Input::Done(step, result)
    }
}
