//! An installer that is disturbed from outside: a slow disk, a worn one, somebody who may write beside it.

use serde_json::Value;
use std::fmt;
use twinflash::{
    install::{ImageInfo, ImageState, Installer, Restart},
    update::Failure,
};

/// When it is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Before bytes are written at this offset.
    Write(u64),
    /// Before it is finished.
    Finish,
    /// After that.
    Finished,
    /// Before it is activated.
    Activate,
}

pub struct Disturbed<I> {
    installer: I,
    by: Box<dyn FnMut(At) + Send>,
}

impl<I> Disturbed<I> {
    pub fn new(installer: I, by: impl FnMut(At) + Send + 'static) -> Self {
        let by = Box::new(by);
        Self { installer, by }
    }
}

impl<I: fmt::Debug> fmt::Debug for Disturbed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.installer.fmt(f)
    }
}

impl<I: Installer> Installer for Disturbed<I> {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        self.installer.inspect()
    }
    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.installer.begin(image, resume_at)
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        (self.by)(At::Write(offset));
        self.installer.write(offset, bytes)
    }
    fn sync(&mut self) -> Result<u64, Failure> {
        self.installer.sync()
    }
    fn finish(&mut self) -> Result<(), Failure> {
        (self.by)(At::Finish);
        self.installer.finish()?;
        (self.by)(At::Finished);
        Ok(())
    }
    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        self.installer.read_back(size, sha256)
    }
    fn activate(&mut self) -> Result<(), Failure> {
        (self.by)(At::Activate);
        self.installer.activate()
    }
    fn confirm(&mut self) -> Result<(), Failure> {
        self.installer.confirm()
    }
    fn rollback(&mut self) -> Result<(), Failure> {
        self.installer.rollback()
    }
    fn abort(&mut self) -> Result<(), Failure> {
        self.installer.abort()
    }
    fn restart(&self) -> Restart {
        self.installer.restart()
    }
    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        self.installer.holds(sha256)
    }
    fn describe(&self) -> Option<Value> {
        self.installer.describe()
    }
}
