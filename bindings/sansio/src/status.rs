//! What became of a call.

use twinflash::update::{Code, Failure};

/// What became of a call. The numbers are those of twinflash_status in twinflash.h, which has more;
/// failures from 100 on are described there.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_sansio_status {
    /// Done.
    Ok = 0,
    /// The direct method is not one of the engine's: it is the application's to answer.
    NotMine = 1,
    /// Nothing is being fetched, or no longer: close the connection to the server.
    Closed = 3,
    /// A pointer is NULL that may not be.
    NullArgument = 10,
    /// A text is not UTF-8.
    InvalidUtf8 = 11,
    /// An argument has a value it cannot have.
    InvalidArgument = 12,
    /// It was called in a function of the board, which may call none.
    InCallback = 15,
    /// A board's functions may give this: its memory is worn out, or does not answer.
    Storage = 402,
    /// The contract or another part of the configuration is wrong.
    InvalidConfig = 602,
}

/// The failure a board's function gave as a number; what is no failure's is `otherwise`.
pub(crate) fn failed(number: i32, otherwise: Code, what: &str) -> Failure {
    let mut codes = Code::ALL.iter().copied();
    let code = codes.find(|code| i32::from(code.number()) == number);
    let why = alloc::format!("the board's {what} failed with status {number}");
    Failure::new(code.unwrap_or(otherwise), why)
}
