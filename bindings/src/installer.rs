//! Installers of the application's own.

use crate::status::twinflash_status as Status;
use crate::{
    boundary::{Identity, UserData, c_text, callback, message_of, no_error, null},
    callbacks::{twinflash_destroy_callback, twinflash_restart},
    status::{Error, to_code, twinflash_error},
};
use engine::{
    install::{ImageInfo, ImageState, Installer, Restart},
    update::{Code, Failure},
};
use std::{
    ffi::{c_char, c_void},
    fmt, ptr,
    sync::Arc,
};

/// Which image runs, or would run at the next start.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_image_state {
    /// It cannot be told.
    Unknown = 0,
    /// The old image: the new one is not activated, or was rolled back.
    Old = 1,
    /// The new image: it is activated.
    New = 2,
    /// The old image, and a new one that is only partly written.
    Partial = 3,
}

use twinflash_image_state as Image;

/// What is to be installed, as far as it is known before its bytes come.
#[repr(C)]
pub struct twinflash_image {
    /// `size` is known.
    pub has_size: bool,
    /// The image's size in bytes, if announced by request or server.
    pub size: u64,
    /// The version asked for; NULL where the request names none.
    pub version: *const c_char,
}

/// How the application installs. Set `size` to sizeof(twinflash_installer) and what is not there to
/// NULL: the structure may grow in later versions, which take this one, too.
///
/// Each function returns 0, or the number of a status from 100 on (such as
/// TWINFLASH_STATUS_NO_SPACE) and writes what failed, and with what, to `error->message` (never NULL).
/// One is called at a time; they may block. `inspect` is called in twinflash_builder_start on its thread,
/// before there is a handle, the others on a thread of the updater that has only them, so that they may
/// run while another callback does. What may not be called in twinflash_event_callback may not be called
/// in these.
///
/// Every function but `write` may be called again after a crash in the middle of it, and must then end
/// in the same state. The order is: `inspect` at every start; for an update `begin`, many `write` and
/// `sync`, `finish`, `activate`, a restart if `restart` says so, then `confirm` or `rollback`.
/// `abort` ends an update before `activate`.
#[repr(C)]
pub struct twinflash_installer {
    /// sizeof(twinflash_installer).
    pub size: usize,
    /// Given to every function.
    pub user_data: *mut c_void,
    /// Frees `user_data`, once. May be NULL.
    pub destroy: twinflash_destroy_callback,
    /// What makes an activated image run: a twinflash_restart, but not TWINFLASH_RESTART_COMMAND.
    pub restart: i32,
    /// Which image runs: a twinflash_image_state. Asked at every start, and after a crash. The new one is
    /// the one written last, also once it is confirmed: power may fail before that is remembered. From
    /// `begin` on it is the one being written, which does not run.
    pub inspect: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            state: *mut i32,
            error: *mut twinflash_error,
        ) -> i32,
    >,
    /// Makes ready to write an image. `resume_at` is the offset of the last checkpoint, in bytes;
    /// `*start_at` is to be where writing really starts: `resume_at` where the bytes before it are
    /// still there, else 0 (what it is before). Checks that there is room.
    pub begin: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            image: *const twinflash_image,
            resume_at: u64,
            start_at: *mut u64,
            error: *mut twinflash_error,
        ) -> i32,
    >,
    /// Writes bytes at an offset. Offsets follow one another without gaps from where `begin` said.
    pub write: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            offset: u64,
            bytes: *const u8,
            length: usize,
            error: *mut twinflash_error,
        ) -> i32,
    >,
    /// Makes durable what was written; `*durable` is to be the offset up to which that is.
    pub sync: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            durable: *mut u64,
            error: *mut twinflash_error,
        ) -> i32,
    >,
    /// All bytes are written, synced and verified: make the image ready to be activated.
    pub finish: twinflash_installer_step,
    /// Switches to the new image, in one step that no power cut can halve.
    pub activate: twinflash_installer_step,
    /// The new image has proved itself: it stays.
    pub confirm: twinflash_installer_step,
    /// Switches back to the old image, which is then active again, or will be after a restart.
    pub rollback: twinflash_installer_step,
    /// Ends an update that was not activated: what was written of the new image goes.
    pub abort: twinflash_installer_step,
    /// May be NULL. After `finish`: reads the image from its medium and compares it with its size in
    /// bytes and its SHA-256 (32 bytes).
    pub read_back: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            size: u64,
            sha256: *const u8,
            error: *mut twinflash_error,
        ) -> i32,
    >,
    /// May be NULL. `*holds` is to be whether the active image is, byte for byte, one of this SHA-256
    /// (32 bytes), so that it need not be fetched again.
    pub holds: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            sha256: *const u8,
            holds: *mut bool,
            error: *mut twinflash_error,
        ) -> i32,
    >,
}

/// A step of twinflash_installer that is told nothing more.
pub type twinflash_installer_step =
    Option<unsafe extern "C" fn(user_data: *mut c_void, error: *mut twinflash_error) -> i32>;

/// A table with nothing in it.
const fn none() -> twinflash_installer {
    twinflash_installer {
        size: 0,
        user_data: ptr::null_mut(),
        destroy: None,
        restart: twinflash_restart::None as i32,
        inspect: None,
        begin: None,
        write: None,
        sync: None,
        finish: None,
        activate: None,
        confirm: None,
        rollback: None,
        abort: None,
        read_back: None,
        holds: None,
    }
}

/// A table of functions as an installer.
pub(crate) struct TableInstaller {
    table: twinflash_installer,
    data: UserData,
    restart: Restart,
    /// Of which updater, for who calls back in; there before anything is called.
    updater: Option<Arc<Identity>>,
}

// SAFETY: the header asks for functions and data that may be used on the updater's thread.
unsafe impl Send for TableInstaller {}

impl fmt::Debug for TableInstaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableInstaller")
    }
}

impl TableInstaller {
    /// # Safety
    /// As [`twinflash_builder_set_installer`](crate::builder::twinflash_builder_set_installer).
    pub(crate) unsafe fn new(table: *const twinflash_installer) -> Result<Self, Error> {
        if table.is_null() {
            return Err(null("installer"));
        }
        // SAFETY: the caller vouches for at least the size.
        let size = unsafe { ptr::addr_of!((*table).size).read() };
        // A program made with an older header would have a shorter one, of one of these sizes.
        let sizes = [size_of::<twinflash_installer>()];
        if !sizes.contains(&size) {
            return Err(Error::new(
                Status::InvalidArgument,
                format_args!(
                    "installer.size is {size}; it must be sizeof(twinflash_installer), which is {}",
                    size_of::<twinflash_installer>()
                ),
            ));
        }
        let mut copy = none();
        // SAFETY: as many bytes can be read and written, of types for which any bytes the caller
        // vouches for will do.
        unsafe {
            ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut copy).cast::<u8>(), size);
        }
        let table = copy;
        let data = UserData::new(table.user_data, table.destroy);
        let restart = match table.restart {
            0 => Restart::None,
            1 => Restart::Exit,
            3 => Restart::System,
            other => {
                return Err(Error::new(
                    Status::InvalidArgument,
                    format_args!(
                        "installer.restart is {other}; 0 (none), 1 (exit) and 3 (system) can be"
                    ),
                ));
            }
        };
        for (name, missing) in [
            ("inspect", table.inspect.is_none()),
            ("begin", table.begin.is_none()),
            ("write", table.write.is_none()),
            ("sync", table.sync.is_none()),
            ("finish", table.finish.is_none()),
            ("activate", table.activate.is_none()),
            ("confirm", table.confirm.is_none()),
            ("rollback", table.rollback.is_none()),
            ("abort", table.abort.is_none()),
        ] {
            if missing {
                return Err(null(&format!("installer.{name}")));
            }
        }
        Ok(Self {
            table,
            data,
            restart,
            updater: None,
        })
    }

    pub(crate) fn of(&mut self, updater: Arc<Identity>) {
        self.updater = Some(updater);
    }

    /// Calls a function of the table; `None` where it has none.
    fn call(
        &self,
        name: &str,
        call: impl FnOnce(*mut c_void, &mut twinflash_error) -> Option<i32>,
    ) -> Result<(), Failure> {
        let mut error = no_error();
        let Some(updater) = &self.updater else {
            return Ok(());
        };
        match callback(updater, || call(self.data.pointer, &mut error)) {
            None | Some(0) => Ok(()),
            Some(number) => {
                let message = match message_of(&error) {
                    text if text.is_empty() => {
                        format!("the installer's {name} failed with status {number}")
                    }
                    text => text,
                };
                Err(Failure::new(to_code(number, Code::InstallFailed), message))
            }
        }
    }

    fn step(&self, name: &str, step: twinflash_installer_step) -> Result<(), Failure> {
        // SAFETY: the application gave the function for this.
        self.call(name, |data, error| Some(unsafe { step?(data, error) }))
    }
}

impl Installer for TableInstaller {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        let mut state = Image::Unknown as i32;
        self.call("inspect", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.inspect?(data, &mut state, error) })
        })?;
        Ok(match state {
            state if state == Image::Old as i32 => ImageState::Old,
            state if state == Image::New as i32 => ImageState::New,
            state if state == Image::Partial as i32 => ImageState::Partial,
            _ => ImageState::Unknown,
        })
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        let version = image.version.as_deref().map(c_text);
        let image = twinflash_image {
            has_size: image.size.is_some(),
            size: image.size.unwrap_or_default(),
            version: version.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
        };
        let mut start_at = 0;
        self.call("begin", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.begin?(data, &image, resume_at, &mut start_at, error) })
        })?;
        match start_at {
            0 => Ok(0),
            at if at == resume_at => Ok(at),
            at => Err(Failure::new(
                Code::InstallFailed,
                format!("the installer's begin wants to start at {at}; 0 and {resume_at} can be"),
            )),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.call("write", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.write?(data, offset, bytes.as_ptr(), bytes.len(), error) })
        })
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        let mut durable = 0;
        self.call("sync", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.sync?(data, &mut durable, error) })
        })?;
        Ok(durable)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step("finish", self.table.finish)
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        self.call("read_back", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.read_back?(data, size, sha256.as_ptr(), error) })
        })
    }

    fn activate(&mut self) -> Result<(), Failure> {
        self.step("activate", self.table.activate)
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        self.step("confirm", self.table.confirm)
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        self.step("rollback", self.table.rollback)
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.step("abort", self.table.abort)
    }

    fn restart(&self) -> Restart {
        self.restart.clone()
    }

    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        let mut holds = false;
        self.call("holds", |data, error| {
            // SAFETY: the application gave the function for this.
            Some(unsafe { self.table.holds?(data, sha256.as_ptr(), &mut holds, error) })
        })?;
        Ok(holds)
    }
}
