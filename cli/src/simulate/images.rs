//! The images the devices ask for: fetched by the real downloader, on a few threads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    download::{Downloader, Stop},
    install::{ImageInfo, ImageState, Installer},
    update::{Checks, Code, Digests, Ended, Failure, Job},
};

/// A shared image is fetched again for those who ask later than that.
const FRESH: Duration = Duration::from_secs(60);

/// How the devices get their images.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fetch {
    /// Each image is fetched once for all devices that ask for it within a minute
    Shared,
    /// Each device fetches it for itself
    Each,
}

/// A device's attempt at a download; the second number tells its attempts apart.
pub(super) type Waiting = (usize, u64);

/// What came of an attempt.
pub(super) struct Fetched {
    pub(super) ended: Ended,
    /// What the checks come to over the image with one bit wrong.
    pub(super) damaged: Digests,
}

/// An attempt on its way to a thread that makes it.
struct Task {
    job: Box<Job>,
    image: ImageInfo,
    origin: Origin,
}

/// Who wants to hear of it.
enum Origin {
    Device(Waiting),
    All(Key),
}

/// What makes two jobs the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uri: String,
    size: Option<u64>,
}

enum Shared {
    Running(Vec<Waiting>),
    Done(Arc<Fetched>, Instant),
}

/// Fetches images. What is there is told by [`Images::take`].
pub(super) struct Images {
    fetch: Fetch,
    tasks: mpsc::Sender<Task>,
    shared: HashMap<Key, Shared>,
    stop: Stop,
}

/// An attempt that has ended, for [`Images::take`].
pub(super) struct Arrived {
    origin: Origin,
    fetched: Fetched,
}

impl Images {
    /// `tell` is called on the threads that fetch.
    pub(super) fn start(
        fetch: Fetch,
        downloader: &Downloader,
        threads: usize,
        tell: impl Fn(Arrived) + Send + Clone + 'static,
    ) -> std::io::Result<Self> {
        let (tasks, receiver) = mpsc::channel::<Task>();
        let receiver = Arc::new(Mutex::new(receiver));
        let stop = Stop::new();
        for _ in 0..threads.max(1) {
            let (receiver, downloader) = (Arc::clone(&receiver), downloader.clone());
            let (tell, stop) = (tell.clone(), stop.clone());
            let next = move || {
                let tasks = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                tasks.recv().ok()
            };
            thread::Builder::new()
                .name("images".into())
                .spawn(move || {
                    while let Some(task) = next() {
                        let mut sink = Sink::default();
                        let image = task.image;
                        let ended =
                            downloader.fetch(&task.job, &mut sink, image, &stop, &mut |_| {});
                        tell(Arrived {
                            origin: task.origin,
                            fetched: Fetched {
                                ended,
                                damaged: sink.damaged.finish(),
                            },
                        });
                    }
                })?;
        }
        Ok(Self {
            fetch,
            tasks,
            shared: HashMap::new(),
            stop,
        })
    }

    /// Begins an attempt for a device. The answer, if it is there at once.
    pub(super) fn get(
        &mut self,
        device: Waiting,
        job: Box<Job>,
        image: ImageInfo,
    ) -> Option<Arc<Fetched>> {
        let origin = match self.fetch {
            Fetch::Each => Origin::Device(device),
            Fetch::Shared => {
                let key = Key {
                    uri: job.uri.clone(),
                    size: job.size,
                };
                match self.shared.get_mut(&key) {
                    Some(Shared::Running(waiting)) => {
                        waiting.push(device);
                        return None;
                    }
                    Some(Shared::Done(fetched, at)) if at.elapsed() < FRESH => {
                        return Some(Arc::clone(fetched));
                    }
                    _ => {}
                }
                self.shared
                    .insert(key.clone(), Shared::Running(vec![device]));
                Origin::All(key)
            }
        };
        // The threads live as long as this end of the channel.
        let _ = self.tasks.send(Task { job, image, origin });
        None
    }

    /// An attempt has ended: for whom, and how.
    pub(super) fn take(&mut self, arrived: Arrived) -> (Vec<Waiting>, Arc<Fetched>) {
        let fetched = Arc::new(arrived.fetched);
        let key = match arrived.origin {
            Origin::Device(device) => return (vec![device], fetched),
            Origin::All(key) => key,
        };
        let before = match &fetched.ended {
            Ended::Complete { .. } => {
                let done = Shared::Done(Arc::clone(&fetched), Instant::now());
                self.shared.insert(key, done)
            }
            // Who tries again tries anew.
            _ => self.shared.remove(&key),
        };
        match before {
            Some(Shared::Running(waiting)) => (waiting, fetched),
            _ => (Vec::new(), fetched),
        }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// Keeps nothing of an image.
#[derive(Debug, Default)]
struct Sink {
    damaged: Checks,
}

impl Installer for Sink {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        Ok(ImageState::Old)
    }

    fn begin(&mut self, _: &ImageInfo, _: u64) -> Result<u64, Failure> {
        self.damaged = Checks::new();
        Ok(0)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        match bytes.split_first() {
            Some((first, rest)) if offset == 0 => {
                self.damaged.update(&[first ^ 1]);
                self.damaged.update(rest);
            }
            _ => self.damaged.update(bytes),
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        Ok(self.damaged.bytes())
    }

    // What follows is each device's own.

    fn finish(&mut self) -> Result<(), Failure> {
        unused()
    }

    fn activate(&mut self) -> Result<(), Failure> {
        unused()
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        unused()
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        unused()
    }

    fn abort(&mut self) -> Result<(), Failure> {
        unused()
    }
}

fn unused() -> Result<(), Failure> {
    Err(Failure::new(Code::InstallFailed, "nothing is kept of it"))
}
