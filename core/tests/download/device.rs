//! One device with a downloader, and images.

pub(crate) use crate::support::{
    server::{Reply, Server},
    staging::Staging,
};
pub(crate) use std::{
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
pub(crate) use twinflash::{
    download::{Downloader, HttpOptions, Proxy, Stop},
    install::ImageInfo,
    tls::Roots,
    update::{Checkpoint, Checks, Code, Digests, Ended, Job, Progress, Retry},
};

pub(crate) const ALL: usize = usize::MAX;
pub(crate) const TAG: Option<&str> = Some("\"one\"");
pub(crate) const LENGTH: usize = 300_000;

/// Bytes that repeat nowhere near each other, different for each seed.
pub(crate) fn image(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(LENGTH).collect()
}

pub(crate) fn digests(bytes: &[u8]) -> Digests {
    let mut checks = Checks::new();
    checks.update(bytes);
    checks.finish()
}

pub(crate) fn job(uri: String) -> Job {
    Job {
        uri,
        resume: None,
        size: None,
        max_size: 10_000_000,
        hash_judges: false,
        content: "content".into(),
        compression: None,
        encryption: None,
        file_size: None,
        local: false,
        https_only: false,
        max_redirects: 5,
        checkpoint_interval: Duration::from_secs(3600),
        checkpoint_bytes: u64::MAX,
        stall_time: Duration::from_secs(20),
        stall_bytes: 1024,
        bandwidth: None,
        dry_run: false,
    }
}

/// One device: a downloader, a file, and what the last attempt said.
pub(crate) struct Device {
    pub(crate) downloader: Downloader,
    pub(crate) staging: Staging,
    pub(crate) progress: Vec<Progress>,
    _directory: TempDir,
}

impl Device {
    pub(crate) fn new() -> Self {
        Self::trusting(Roots::BuiltIn)
    }

    pub(crate) fn trusting(roots: Roots) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = HttpOptions::default();
        options.roots = roots;
        options.proxy = Proxy::None;
        options.connect_timeout = Duration::from_secs(5);
        Self {
            downloader: Downloader::new(options).unwrap(),
            staging: Staging::new(directory.path().join("image")),
            progress: Vec::new(),
            _directory: directory,
        }
    }

    pub(crate) fn fetch(&mut self, job: &Job) -> Ended {
        self.fetch_until(job, &Stop::new(), &mut |_| {})
    }

    pub(crate) fn fetch_until(
        &mut self,
        job: &Job,
        stop: &Stop,
        seen: &mut dyn FnMut(&Progress),
    ) -> Ended {
        self.progress.clear();
        let progress = &mut self.progress;
        self.downloader.fetch(
            job,
            &mut self.staging,
            ImageInfo::default(),
            stop,
            &mut |p| {
                seen(&p);
                progress.push(p);
            },
        )
    }

    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.progress.iter().rev().find_map(|p| match p {
            Progress::Durable(checkpoint) => Some(checkpoint.clone()),
            _ => None,
        })
    }

    pub(crate) fn received(&self) -> Option<u64> {
        self.progress.iter().rev().find_map(|p| match p {
            Progress::Received(bytes) => Some(*bytes),
            _ => None,
        })
    }

    pub(crate) fn started(&self) -> Option<u64> {
        self.progress.iter().find_map(|p| match p {
            Progress::Started { offset, .. } => Some(*offset),
            _ => None,
        })
    }

    /// One attempt is cut at half; the job of the next one.
    pub(crate) fn cut(&mut self, mut job: Job) -> Job {
        let (code, retry, _) = failed(self.fetch(&job));
        assert_eq!((code, retry), (Code::Network, Retry::Resume(None)));
        job.resume = self.checkpoint();
        assert_eq!(job.resume.as_ref().unwrap().offset, LENGTH as u64 / 2);
        assert_eq!(self.received(), Some(LENGTH as u64 / 2));
        job
    }

    #[track_caller]
    pub(crate) fn assert_complete(&self, ended: Ended, image: &[u8]) {
        let bytes = image.len() as u64;
        assert_eq!(
            ended,
            Ended::Complete {
                bytes,
                digests: digests(image)
            }
        );
        assert!(self.staging.bytes() == image, "other bytes were installed");
        assert_eq!(self.checkpoint().map(|c| c.offset), Some(bytes));
        assert_eq!(self.received(), Some(bytes));
    }
}

#[track_caller]
pub(crate) fn failed(ended: Ended) -> (Code, Retry, String) {
    match ended {
        Ended::Failed(failure, retry) => (failure.code, retry, failure.message),
        other => panic!("not failed: {other:?}"),
    }
}

/// Cuts the first answer at half, serves the others whole.
pub(crate) fn cut_first(reply: &mut Reply, image: &[u8], etag: Option<&str>) {
    let most = if reply.number() == 0 { LENGTH / 2 } else { ALL };
    reply.serve(image, etag, most);
}
