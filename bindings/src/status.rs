//! Status codes and errors.

use engine::update::{Code, Failure};
use std::ffi::c_char;

/// What became of a call. The numbers are stable: a retired one is never used again. From 100 on they
/// are the failure codes the device's twin shows by name (see twinflash_status_name).
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_status {
    /// Done.
    Ok = 0,
    /// The direct method is not one of the updater's: it is the application's to answer.
    NotMine = 1,
    /// There was nothing within the time given.
    Timeout = 2,
    /// The updater is closed.
    Closed = 3,
    /// The bytes that are offered are not wanted, or no longer: end the request, and ask what is.
    NotWanted = 4,

    /// A pointer is NULL that may not be.
    NullArgument = 10,
    /// A text is not UTF-8.
    InvalidUtf8 = 11,
    /// An argument has a value it cannot have: a length beyond the address space, an unknown key.
    InvalidArgument = 12,
    /// It was given already: a key of the configuration, a callback, an installer.
    AlreadySet = 13,
    /// The builder was used up by twinflash_builder_start.
    Used = 14,
    /// It would wait for the very callback it is called in.
    InCallback = 15,
    /// A fault of the library, which it caught: please report it. (A library built with the profile `small`
    /// ends the process instead.)
    Panic = 16,
    /// The system refused what is needed: a thread, memory, a descriptor.
    System = 17,

    /// The request is not of the form its contract asks for.
    InvalidRequest = 100,
    /// The URI cannot be parsed, is relative, or has a scheme that is not known.
    InvalidUri = 101,
    /// The URI is http, and the policy wants https.
    InsecureUri = 102,
    /// The check value is of no known kind.
    InvalidCheck = 103,
    /// The contract or the policy requires a check, and the request has none.
    CheckRequired = 104,
    /// The version asked for is not one the contract or the policy lets in.
    VersionRefused = 105,
    /// An update runs already; or it can no longer be cancelled.
    Busy = 106,

    /// Keys are configured, and nothing signed vouches for the image.
    ManifestRequired = 150,
    /// A signed document is not of the form it must have, or does not fit the request.
    ManifestInvalid = 151,
    /// A signed document is not signed by as many trusted keys as must sign.
    Untrusted = 152,
    /// A manifest has expired, or was issued at a time to come.
    Expired = 153,
    /// The image is for another model, manufacturer or hardware revision.
    Incompatible = 154,
    /// A key, or a set of keys, cannot be used.
    InvalidKey = 155,

    /// The server answered with a status that ends the download.
    HttpStatus = 200,
    /// The server's answer breaks HTTP or what was asked of it.
    HttpProtocol = 201,
    /// Too many redirects, or one that leads where it must not.
    Redirect = 202,
    /// The connection could not be made, or broke.
    Network = 203,
    /// TLS failed: an unknown certificate authority, a wrong host name, an expired certificate.
    Tls = 204,
    /// Too few bytes came for too long.
    Stalled = 205,
    /// The image is larger than announced, or than the policy allows.
    TooLarge = 206,

    /// The image's size is not the one announced.
    SizeMismatch = 300,
    /// The image's CRC-16 or CRC-32 is not the one announced.
    CrcMismatch = 301,
    /// The image's SHA-256 is not the one announced.
    HashMismatch = 302,
    /// The image cannot be decrypted: it is encrypted for others, was altered, or this device has no key.
    DecryptionFailed = 303,

    /// There is not enough free space for the image.
    NoSpace = 400,
    /// A file or directory may not be read or written.
    NoPermission = 401,
    /// Reading or writing the image failed in another way.
    Storage = 402,
    /// The installer could not finish or activate the image.
    InstallFailed = 403,
    /// The new version did not confirm itself in time, or in the starts it is given.
    NotConfirmed = 404,
    /// The boot loader went back to the old image.
    BootFailed = 405,
    /// The old image could not be brought back.
    RollbackFailed = 406,

    /// The update was cancelled.
    Cancelled = 500,
    /// A newer request took over.
    Superseded = 501,
    /// The policy wants a dry run: the image is good, and is not installed.
    DryRun = 502,

    /// The state directory or the journal in it cannot be used.
    State = 600,
    /// Another process holds the state directory.
    Locked = 601,
    /// The configuration is wrong, or what it names cannot be read.
    InvalidConfig = 602,
}

use twinflash_status as Status;

impl twinflash_status {
    /// Of one that is an answer, and no failure.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NotMine => "the direct method is not one of the updater's",
            Self::Timeout => "there was nothing within the time given",
            Self::Closed => "the updater is closed",
            Self::NotWanted => "these bytes are not wanted, or no longer",
            _ => "",
        }
    }
}

/// Why a call failed: filled in by the call, where its argument is not NULL and it returns anything but
/// TWINFLASH_STATUS_OK. Memory is the caller's; there is nothing to free.
#[repr(C)]
pub struct twinflash_error {
    /// The call's own result.
    pub status: twinflash_status,
    /// What failed, with which value, and what to do about it: one line of UTF-8, ended by a zero.
    /// Never holds a secret.
    pub message: [c_char; 520],
}

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(status: Status, message: impl ToString) -> Self {
        Self {
            status,
            message: message.to_string(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(of_code(failure.code), failure.message)
    }
}

/// Every status that is a failure code, by its number.
pub(crate) fn of_code(code: Code) -> twinflash_status {
    FAILURES
        .iter()
        .copied()
        .find(|status| *status as i32 == i32::from(code.number()))
        // A test sees to it that there is none without a number here.
        .unwrap_or(Status::State)
}

/// The failure code a callback of the application gave; what is none is `otherwise`.
pub(crate) fn to_code(number: i32, otherwise: Code) -> Code {
    let found = Code::ALL.iter().copied();
    found
        .into_iter()
        .find(|code| i32::from(code.number()) == number)
        .unwrap_or(otherwise)
}

const FAILURES: &[Status] = &[
    Status::InvalidRequest,
    Status::InvalidUri,
    Status::InsecureUri,
    Status::InvalidCheck,
    Status::CheckRequired,
    Status::VersionRefused,
    Status::Busy,
    Status::ManifestRequired,
    Status::ManifestInvalid,
    Status::Untrusted,
    Status::Expired,
    Status::Incompatible,
    Status::InvalidKey,
    Status::HttpStatus,
    Status::HttpProtocol,
    Status::Redirect,
    Status::Network,
    Status::Tls,
    Status::Stalled,
    Status::TooLarge,
    Status::SizeMismatch,
    Status::CrcMismatch,
    Status::HashMismatch,
    Status::DecryptionFailed,
    Status::NoSpace,
    Status::NoPermission,
    Status::Storage,
    Status::InstallFailed,
    Status::NotConfirmed,
    Status::BootFailed,
    Status::RollbackFailed,
    Status::Cancelled,
    Status::Superseded,
    Status::DryRun,
    Status::State,
    Status::Locked,
    Status::InvalidConfig,
];

/// The name of a status: of a failure, what the device's twin shows, such as "http-status". "unknown"
/// for a number that is none. Never NULL, never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn twinflash_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"ok",
        1 => c"not-mine",
        2 => c"timeout",
        3 => c"closed",
        4 => c"not-wanted",
        10 => c"null-argument",
        11 => c"invalid-utf8",
        12 => c"invalid-argument",
        13 => c"already-set",
        14 => c"used",
        15 => c"in-callback",
        16 => c"panic",
        17 => c"system",
        100 => c"invalid-request",
        101 => c"invalid-uri",
        102 => c"insecure-uri",
        103 => c"invalid-check",
        104 => c"check-required",
        105 => c"version-refused",
        106 => c"busy",
        150 => c"manifest-required",
        151 => c"manifest-invalid",
        152 => c"untrusted",
        153 => c"expired",
        154 => c"incompatible",
        155 => c"invalid-key",
        200 => c"http-status",
        201 => c"http-protocol",
        202 => c"redirect",
        203 => c"network",
        204 => c"tls",
        205 => c"stalled",
        206 => c"too-large",
        300 => c"size-mismatch",
        301 => c"crc-mismatch",
        302 => c"hash-mismatch",
        303 => c"decryption-failed",
        400 => c"no-space",
        401 => c"no-permission",
        402 => c"storage",
        403 => c"install-failed",
        404 => c"not-confirmed",
        405 => c"boot-failed",
        406 => c"rollback-failed",
        500 => c"cancelled",
        501 => c"superseded",
        502 => c"dry-run",
        600 => c"state",
        601 => c"locked",
        602 => c"invalid-config",
        _ => c"unknown",
    };
    name.as_ptr()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn every_failure_code_has_its_status_and_its_name() {
        assert_eq!(FAILURES.len(), Code::ALL.len());
        for (code, status) in Code::ALL.iter().zip(FAILURES) {
            assert_eq!(*status as i32, i32::from(code.number()), "{code}");
            assert_eq!(of_code(*code), *status);
            assert_eq!(to_code(*status as i32, Code::State), *code);
            // SAFETY: a literal.
            let name = unsafe { CStr::from_ptr(twinflash_status_name(*status as i32)) };
            assert_eq!(name.to_str().unwrap(), code.as_str());
            assert_eq!(
                format!("{status:?}").to_lowercase(),
                code.as_str().replace('-', "")
            );
        }
    }
}
