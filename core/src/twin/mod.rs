//! A twin's document: JSON merge patch as Azure has it, and the reporter, which brings the reported
//! properties to what they should be.

pub mod limits;
mod patch;
mod reporter;

pub use patch::{diff, merge};
pub use reporter::{Report, Reported, Reporter};
