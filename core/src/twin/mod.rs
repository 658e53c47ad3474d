//! A twin's document: JSON merge patch as Azure has it, and the limits of a section.

pub mod limits;
mod patch;

pub use patch::{diff, merge};
