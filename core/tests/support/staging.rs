//! An installer that writes to a real file and syncs it, and fails where it is told to.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use twinflash::{
    install::{ImageInfo, ImageState, Installer},
    update::{Code, Failure},
};

#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    /// What `begin` was told, in order.
    pub begun: Vec<(Option<u64>, u64)>,
    /// How often it was synced.
    pub syncs: u32,
    /// `begin` goes on from no checkpoint.
    pub forgets: bool,
    /// `write` fails at this offset.
    pub fails_at: Option<u64>,
    /// `sync` answers so many bytes less, but for a multiple of this when nothing was written since.
    pub lags: u64,
    synced: u64,
}

impl Staging {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
            written: 0,
            begun: Vec::new(),
            syncs: 0,
            forgets: false,
            fails_at: None,
            lags: 0,
            synced: 0,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap_or_default()
    }
}

fn storage(error: std::io::Error) -> Failure {
    Failure::new(Code::Storage, error)
}

impl Installer for Staging {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        Ok(ImageState::Unknown)
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.begun.push((image.size, resume_at));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)
            .map_err(storage)?;
        let there = file.metadata().map_err(storage)?.len();
        let from = if there >= resume_at && !self.forgets {
            resume_at
        } else {
            0
        };
        file.set_len(from).map_err(storage)?;
        self.file = Some(file);
        self.written = from;
        self.synced = from;
        Ok(from)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        assert_eq!(offset, self.written, "a gap");
        if self
            .fails_at
            .is_some_and(|at| offset + bytes.len() as u64 > at)
        {
            return Err(Failure::new(Code::NoSpace, "the disk is full"));
        }
        self.file
            .as_ref()
            .unwrap()
            .write_all_at(bytes, offset)
            .map_err(storage)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        self.syncs += 1;
        self.file.as_ref().unwrap().sync_data().map_err(storage)?;
        // The second time in a row nothing is left behind.
        let behind = if self.synced == self.written {
            0
        } else {
            self.lags
        };
        self.synced = self.written;
        Ok(self.written.saturating_sub(behind))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn activate(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.file = None;
        std::fs::remove_file(&self.path).map_err(storage)
    }
}
