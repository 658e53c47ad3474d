//! Why a command did not do what it was asked for.

use std::fmt;

/// One line for the person at the terminal: what failed, with which value, and what to do.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    status: u8,
}

impl Error {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        let mut message = message.to_string();
        // The number of the operating system's error says no more than its words.
        if let Some((words, rest)) = message.split_once(" (os error ")
            && let Some((_, rest)) = rest.split_once(')')
        {
            message = format!("{words}{rest}");
        }
        Self { message, status: 1 }
    }

    /// Ended by a signal, with the exit status a shell gives that.
    pub(crate) fn interrupted(signal: i32) -> Self {
        Self {
            message: "interrupted".into(),
            status: u8::try_from(128 + signal).unwrap_or(1),
        }
    }

    /// The process's exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Errors that say all there is to say by themselves.
macro_rules! from {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        })*
    };
}

from!(
    twinflash::contract::ContractError,
    twinflash::iothub::ConnectionStringError,
    twinflash::tls::RootsError,
    twinflash_hub::Error,
);

impl From<twinflash::update::Failure> for Error {
    /// The code is for programs.
    fn from(failure: twinflash::update::Failure) -> Self {
        Self::new(failure.message)
    }
}
