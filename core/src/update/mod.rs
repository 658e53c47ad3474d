//! What an update is: the request, its phases and outcome, the codes a failure has, the checks an
//! image must pass, and the policy it runs under. Data and pure functions; no I/O.

pub mod answer;
mod check;
mod failure;
mod image;
mod phase;
mod policy;
mod record;
mod request;
mod transfer;
pub mod trust;
mod uri;
pub mod version;

pub use check::{Check, Checks, Digests};
pub use failure::{Code, Failure};
pub use image::{ImageInfo, ImageState, Restart};
pub use phase::{Outcome, Phase};
pub use policy::{Confirm, ConsentBy, Policy, Ready, RetryPolicy, Stage, VersionRule};
pub use record::{Core, Record, Spent, Timer, Times, Update};
pub use request::{Key, LocalImage, Origin, Request, Signed};
pub use transfer::{Checkpoint, Compression, Encryption, Ended, Job, Progress, Retry, Sealed};
pub use uri::{Scheme, beside, redact, scheme_of};
