//! What the application brings: its configuration, and the functions of its board.

use crate::status::failed;
use alloc::vec::Vec;
use core::ffi::{c_char, c_void};
use core::ptr;
use twinflash::engine::Stored;
use twinflash::journal::copy::{self, Copy};
use twinflash::update::{Code, Failure, ImageInfo, ImageState};

/// How a new version proves itself.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_sansio_confirm {
    /// It reaches its hub: a twin was read or a report acknowledged since it runs.
    Connected = 0,
    /// The application calls twinflash_sansio_confirm_now.
    Call = 1,
    /// It need not.
    None = 2,
}

/// What an engine is made with. Zeros are the defaults.
#[repr(C)]
pub struct twinflash_sansio_config {
    /// sizeof(twinflash_sansio_config): later versions have more members at its end.
    pub size: usize,
    /// A built-in contract's name, such as "devkit", or the JSON of one of your own. Not NULL.
    pub contract: *const c_char,
    /// The version that runs now; NULL where only the record knows, which has the last one confirmed.
    pub current_version: *const c_char,
    /// Another number at each start, such as a hardware random number, or a count of starts. It tells
    /// starts from each other, and makes the pauses of this device differ from others'.
    pub seed: u64,
    /// The largest image, in bytes; 0: 4 GiB.
    pub max_size: u64,
    /// Bytes between two checkpoints of a download; 0: 64 KiB. There is one each second in any case.
    pub checkpoint_bytes: u64,
    /// A twinflash_sansio_confirm.
    pub confirm: i32,
    /// Seconds the new version has to prove itself; 0: 300.
    pub confirm_seconds: u32,
    /// Starts it has for that; 0: 3.
    pub confirm_starts: u32,
    /// http: addresses are let in, with a check.
    pub allow_http: bool,
    /// A request must carry a check, even where its contract does not ask for one.
    pub require_check: bool,
    /// The answer to a method goes out with the first report, without waiting for its
    /// acknowledgement: for a hub's client whose callback must return the answer.
    pub answer_at_once: bool,
    /// The image is used with no restart of the board.
    pub no_restart: bool,
    /// With keys, nothing is installed but what they have signed, by a manifest that is part of the
    /// request: a key set as JSON, {"version":1,"threshold":1,"keys":["MCow…"]}. A key is what stands
    /// between the lines BEGIN and END of a public key's PEM (Ed25519 or P-256); `threshold` is how many of
    /// them must sign. NULL: no keys. The library must be built with the feature `signed`.
    pub trust: *const c_char,
    /// What the device is, for manifests that are not for all. May be NULL.
    pub manufacturer: *const c_char,
    /// As `manufacturer`.
    pub model: *const c_char,
    /// As `manufacturer`.
    pub hardware_revision: *const c_char,
}

/// The functions of the board. Each is called inside a function of the engine, on its thread, and may
/// take its time; none may call the engine. They return 0, or a failure's number, such as
/// TWINFLASH_SANSIO_STATUS_STORAGE. All but `write` may be called again after a power cut in the middle
/// of them, and must end the same. What is not said to be optional must be there.
#[repr(C)]
pub struct twinflash_sansio_board {
    /// sizeof(twinflash_sansio_board): later versions have more members at its end.
    pub size: usize,
    /// Given to each function.
    pub user_data: *mut c_void,
    /// Where one of the two copies (0 and 1) of the record lies: `*bytes` and how many can be read
    /// there, until the next call. It may be more than was saved, such as a whole sector; 0 where there is
    /// nothing.
    pub load: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            copy: i32,
            bytes: *mut *const u8,
            length: *mut usize,
        ) -> i32,
    >,
    /// Replaces a copy, durably. A power cut may leave it in any state, and must leave the other one
    /// alone: two sectors, or two files. A record has 2 to 16 KiB.
    pub save: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            copy: i32,
            bytes: *const u8,
            length: usize,
        ) -> i32,
    >,
    /// Which image runs: TWINFLASH_SANSIO_IMAGE_NEW where it is the one written last, also once it is
    /// confirmed (power may fail before that is saved); TWINFLASH_SANSIO_IMAGE_OLD where it is the other.
    /// From `begin` on the new one is the one being written, which does not run.
    pub inspect: Option<unsafe extern "C" fn(user_data: *mut c_void, image: *mut i32) -> i32>,
    /// An image is going to be written, of `size` bytes (0: not known): erases what it needs.
    /// `resume_at` bytes of it were synced before; `*start_at` is to be set to that, or to 0 where they
    /// are not there any more.
    pub begin: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            size: u64,
            resume_at: u64,
            start_at: *mut u64,
        ) -> i32,
    >,
    /// Writes bytes of the image; they follow each other without gaps.
    pub write: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            offset: u64,
            bytes: *const u8,
            length: usize,
        ) -> i32,
    >,
    /// Makes durable what was written, and sets `*durable` to how many bytes of the image are.
    pub sync: Option<unsafe extern "C" fn(user_data: *mut c_void, durable: *mut u64) -> i32>,
    /// Every byte is there and passed its checks. To be read back and compared here, by a board that
    /// does not trust its flash: twinflash_sansio_checks. May be NULL.
    pub finish:
        Option<unsafe extern "C" fn(user_data: *mut c_void, size: u64, sha256: *const u8) -> i32>,
    /// From the next start on the new image runs.
    pub activate: Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>,
    /// The new image has proved itself: it is now the old one.
    pub confirm: Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>,
    /// From the next start on the old image runs.
    pub rollback: Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>,
    /// The update ended before it was activated: what was written may go. May be NULL.
    pub abort: Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>,
    /// Sets `*holds` where the image that runs has this SHA-256 (32 bytes). May be NULL: then one that
    /// is asked for again is fetched again.
    pub holds: Option<
        unsafe extern "C" fn(user_data: *mut c_void, sha256: *const u8, holds: *mut bool) -> i32,
    >,
}

/// Which image runs.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_sansio_image {
    /// The old one: the one written last is not activated, or was rolled back.
    Old = 0,
    /// The one written last.
    New = 1,
    /// It cannot be told.
    Unknown = 3,
}

/// The board, called from Rust.
pub(crate) struct Board {
    table: twinflash_sansio_board,
    /// The last save's number, and the copy that is written next.
    sequence: u64,
    next: i32,
}

/// Calls a function of the table, or goes on with `Ok` where it has none.
macro_rules! call {
    ($board:expr, $name:ident, $code:expr $(, $argument:expr)*) => {
        match $board.table.$name {
            // SAFETY: the application gave the function for this.
            Some(function) => match unsafe { function($board.table.user_data $(, $argument)*) } {
                0 => Ok(()),
                number => Err(failed(number, $code, stringify!($name))),
            },
            None => Ok(()),
        }
    };
}

impl Board {
    /// `Err` names the function that is missing.
    pub(crate) fn new(table: twinflash_sansio_board) -> Result<Self, &'static str> {
        for (name, missing) in [
            ("load", table.load.is_none()),
            ("save", table.save.is_none()),
            ("inspect", table.inspect.is_none()),
            ("begin", table.begin.is_none()),
            ("write", table.write.is_none()),
            ("sync", table.sync.is_none()),
            ("activate", table.activate.is_none()),
            ("confirm", table.confirm.is_none()),
            ("rollback", table.rollback.is_none()),
        ] {
            if missing {
                return Err(name);
            }
        }
        Ok(Self {
            table,
            sequence: 0,
            next: 0,
        })
    }

    /// The newer copy of the record.
    pub(crate) fn load(&mut self) -> Stored {
        let mut found: Option<Copy> = None;
        let mut damaged = 0;
        for index in 0..2 {
            let (mut bytes, mut length) = (ptr::null(), 0);
            if call!(self, load, Code::State, index, &mut bytes, &mut length).is_err() {
                damaged += 1;
                continue;
            }
            // SAFETY: the board vouches that so many bytes can be read there until it is called again.
            let bytes = unsafe { crate::bytes(bytes, length) };
            match Copy::read(bytes) {
                Some(copy) if found.as_ref().is_none_or(|other| copy.is_newer_than(other)) => {
                    self.sequence = copy.sequence;
                    self.next = 1 - index;
                    found = Some(copy);
                }
                Some(_) => {}
                None => damaged += u8::from(bytes.iter().any(|byte| !matches!(byte, 0 | 0xff))),
            }
        }
        match found {
            Some(copy) => Stored::Record(copy.payload),
            // One alone, beside erased flash, is a first save that was cut short.
            None if damaged == 2 => Stored::Lost,
            None => Stored::Empty,
        }
    }

    pub(crate) fn save(&mut self, record: &[u8]) -> Result<(), Failure> {
        let sequence = self.sequence.wrapping_add(1);
        let bytes: Vec<u8> = copy::encode(sequence, record);
        call!(
            self,
            save,
            Code::State,
            self.next,
            bytes.as_ptr(),
            bytes.len()
        )?;
        self.sequence = sequence;
        self.next = 1 - self.next;
        Ok(())
    }

    pub(crate) fn inspect(&self) -> ImageState {
        let mut image = twinflash_sansio_image::Unknown as i32;
        if call!(self, inspect, Code::Storage, &mut image).is_err() {
            return ImageState::Unknown;
        }
        match image {
            0 => ImageState::Old,
            1 => ImageState::New,
            _ => ImageState::Unknown,
        }
    }

    /// Where writing starts: `resume_at` or 0.
    pub(crate) fn begin(&self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        let mut start_at = 0;
        let size = image.size.unwrap_or_default();
        call!(self, begin, Code::Storage, size, resume_at, &mut start_at)?;
        match start_at {
            0 => Ok(0),
            at if at == resume_at => Ok(at),
            at => Err(Failure::new(
                Code::Storage,
                alloc::format!(
                    "the board's begin wants to start at {at}; 0 and {resume_at} can be"
                ),
            )),
        }
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        call!(
            self,
            write,
            Code::Storage,
            offset,
            bytes.as_ptr(),
            bytes.len()
        )
    }

    /// So many bytes are durable.
    pub(crate) fn sync(&self) -> Result<u64, Failure> {
        let mut durable = 0;
        call!(self, sync, Code::Storage, &mut durable)?;
        Ok(durable)
    }

    pub(crate) fn finish(&self, image: Option<(u64, [u8; 32])>) -> Result<(), Failure> {
        match image {
            Some((size, sha256)) => {
                call!(self, finish, Code::InstallFailed, size, sha256.as_ptr())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn activate(&self) -> Result<(), Failure> {
        call!(self, activate, Code::InstallFailed)
    }

    pub(crate) fn confirm(&self) -> Result<(), Failure> {
        call!(self, confirm, Code::InstallFailed)
    }

    pub(crate) fn rollback(&self) -> Result<(), Failure> {
        call!(self, rollback, Code::RollbackFailed)
    }

    pub(crate) fn abort(&self) -> Result<(), Failure> {
        call!(self, abort, Code::Storage)
    }

    pub(crate) fn holds(&self, sha256: Option<[u8; 32]>) -> Result<(), Failure> {
        let mut holds = false;
        if let Some(sha256) = sha256 {
            call!(self, holds, Code::Storage, sha256.as_ptr(), &mut holds)?;
        }
        match holds {
            true => Ok(()),
            false => Err(Failure::new(
                Code::HashMismatch,
                "the active image is another one",
            )),
        }
    }
}
