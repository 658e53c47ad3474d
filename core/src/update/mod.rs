//! What an update is: the request, its phases and outcome, the codes a failure has, the checks an
//! image must pass, and the policy it runs under. Data and pure functions; no I/O.

mod check;
mod failure;
mod transfer;
mod uri;

pub use check::{Check, Checks, Digests};
pub use failure::{Code, Failure};
pub use transfer::{Checkpoint, Ended, Job, Progress, Retry};
pub use uri::{Scheme, redact, scheme_of};
