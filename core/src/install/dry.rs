//! An installer for a dry run: it takes an image and keeps nothing of it.

use super::{ImageInfo, ImageState, Installer};
use crate::update::Failure;

/// Takes every byte, and says that it is safe: what has been checked of a download is not fetched twice.
/// It is only ever written to.
#[derive(Debug, Default)]
pub struct DryInstall {
    taken: u64,
}

impl Installer for DryInstall {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        Ok(ImageState::Old)
    }

    fn begin(&mut self, _: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.taken = resume_at;
        Ok(resume_at)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.taken = offset.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        Ok(self.taken)
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
        Ok(())
    }
}
