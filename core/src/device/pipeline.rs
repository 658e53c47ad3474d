//! The pipeline's thread: downloads, and the installer's steps, one at a time.

use super::shared::Shared;
use crate::command;
use crate::download::{Downloader, Stop};
use crate::engine::{Input, Step};
use crate::install::Installer;
use crate::update::{Code, Ended, Failure, ImageInfo, Job, Retry};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// The time a health command has; it is run again.
const HEALTH_TIME: Duration = Duration::from_secs(60);

/// Something to do.
pub(super) enum Task {
    Download(Box<Job>, ImageInfo, Stop),
    Step(Step),
}

impl Task {
    /// What its end is when it panics.
    fn broken(&self) -> Input<'static> {
        let failure = Failure::new(Code::InstallFailed, "the installer panicked");
        match self {
            Self::Download(..) => Input::TransferEnded(Ended::Failed(failure, Retry::Never)),
            Self::Step(step) => Input::Done(*step, Err(failure)),
        }
    }
}

/// The driver's end of the pipeline.
pub(super) struct Pipeline {
    tasks: mpsc::Sender<Task>,
    pending: Arc<AtomicUsize>,
}

impl Pipeline {
    pub(super) fn start(
        shared: Arc<Shared>,
        mut installer: Box<dyn Installer>,
        downloader: Downloader,
        health: Vec<String>,
    ) -> Result<Self, Failure> {
        let (tasks, receiver) = mpsc::channel::<Task>();
        let pending = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&pending);
        thread::Builder::new()
            .name("twinflash-image".into())
            .spawn(move || {
                for task in receiver {
                    // An application's installer may panic; the update fails, nothing hangs.
                    let broken = task.broken();
                    let run = AssertUnwindSafe(|| {
                        perform(&shared, installer.as_mut(), &downloader, &health, task)
                    });
                    let done = catch_unwind(run).unwrap_or(broken);
                    left.fetch_sub(1, Ordering::AcqRel);
                    shared.end_of_task(done);
                }
            })
            .map_err(|error| {
                Failure::new(Code::State, format!("cannot start a thread: {error}"))
            })?;
        Ok(Self { tasks, pending })
    }

    pub(super) fn run(&self, task: Task) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        if self.tasks.send(task).is_err() {
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }
}

fn perform(
    shared: &Shared,
    installer: &mut dyn Installer,
    downloader: &Downloader,
    health: &[String],
    task: Task,
) -> Input<'static> {
    let step = match task {
        Task::Download(job, image, stop) => {
            let mut on = |progress| shared.input(Input::Transfer(progress));
            return Input::TransferEnded(downloader.fetch(&job, installer, image, &stop, &mut on));
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
        Step::CheckHealth => command::run(health, HEALTH_TIME).map(drop),
    };
    Input::Done(step, result)
}
