//! Whether what a source of bytes says of itself fits what was asked for: where its bytes belong, or why the
//! attempt ends here.

use crate::update::{Code, Failure, Job, Retry};
use std::time::Duration;

/// What was asked for, if it was the rest of an image.
pub(super) struct Resume {
    pub(super) offset: u64,
    pub(super) validator: Option<String>,
    pub(super) total: Option<u64>,
}

/// A body that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Where in the image its first byte belongs.
    pub(crate) offset: u64,
    /// The whole image's size.
    pub(crate) total: Option<u64>,
    pub(crate) validator: Option<String>,
    /// Nothing but the connection's end marks the body's end.
    pub(crate) until_close: bool,
}

/// Longer waits than this are not believed.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Longer validators are as good as none: they would fill the journal.
const LONGEST_VALIDATOR: usize = 512;

pub(super) const RESUME: Retry = Retry::Resume(None);

pub(super) fn failure(code: Code, shown: &str, why: &str) -> Failure {
    Failure::new(code, format!("cannot download {shown}: {why}"))
}

/// The answer, where its bytes are those that `job` asked for, from `resume` on. A `total` it does not know
/// is the one known before.
pub(super) fn fits(
    shown: &str,
    mut answer: Answer,
    resume: Option<&Resume>,
    job: &Job,
) -> Result<Answer, (Failure, Retry)> {
    // Bytes that cannot be appended: the next attempt asks for all of it.
    let again = |why: &str| (failure(Code::HttpProtocol, shown, why), Retry::FromZero);
    if answer.offset > 0 {
        let asked = resume.map_or(0, |resume| resume.offset);
        let before = resume.and_then(|resume| resume.total);
        if answer.offset != asked {
            let why = format!("byte {asked} was asked for, byte {} came", answer.offset);
            return Err(again(&why));
        }
        answer.total = answer.total.or(before);
        let Some(total) = answer.total else {
            return Err(again("the server does not say how long the whole is"));
        };
        announced(shown, answer.total, job)?;
        if before.is_some_and(|before| before != total) {
            return Err(again(&format!("it changed its size to {total} bytes")));
        }
        let known = resume.and_then(|resume| resume.validator.as_ref());
        let same = match (known, &answer.validator) {
            (Some(before), Some(now)) => before == now,
            (Some(_), None) => job.hash_judges,
            (None, _) => true,
        };
        if !same {
            return Err(again("it changed on the server since the download began"));
        }
    } else {
        announced(shown, answer.total, job)?;
    }
    if answer.until_close && job.size.is_none() && !job.hash_judges {
        let why =
            "the server does not say how long it is; give a size or a SHA-256 with the request";
        return Err((failure(Code::HttpProtocol, shown, why), Retry::Never));
    }
    Ok(answer)
}

/// What comes of a status that brings no body.
pub(super) fn refused(
    shown: &str,
    status: u16,
    words: &str,
    resumed: bool,
    wait: Option<Duration>,
) -> (Failure, Retry) {
    let retry = match status {
        416 if resumed => Retry::FromZero,
        408 | 425 | 429 | 500..=599 => Retry::Resume(wait.map(|wait| wait.min(LONGEST_WAIT))),
        _ => Retry::Never,
    };
    let why = format!("the server answered {words}");
    (failure(Code::HttpStatus, shown, &why), retry)
}

/// An entity tag that is not weak (RFC 9110 section 8.8.3): only such a one may be used with `If-Range`.
pub(super) fn strong_validator(tag: &str) -> Option<String> {
    let strong = tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"');
    let plain = tag.bytes().all(|b| (0x20..0x7f).contains(&b));
    (strong && plain && tag.len() <= LONGEST_VALIDATOR).then(|| tag.to_owned())
}

/// Compares the size the server says with what the request announced and the policy allows.
fn announced(shown: &str, total: Option<u64>, job: &Job) -> Result<(), (Failure, Retry)> {
    let Some(total) = total else { return Ok(()) };
    let (code, why) = match job.announced() {
        Some(size) if size != total => (
            Code::SizeMismatch,
            format!("it has {total} bytes, {size} were announced"),
        ),
        _ if total == 0 => (Code::SizeMismatch, "it is empty".into()),
        _ if total > job.max_size => (
            Code::TooLarge,
            format!("it has {total} bytes, {} are allowed", job.max_size),
        ),
        _ => return Ok(()),
    };
    Err((failure(code, shown, &why), Retry::Never))
}

/// The connection ended before the body did.
pub(super) fn too_short(shown: &str, received: u64, of: u64) -> (Failure, Retry) {
    let why = format!("the connection broke off after {received} of {of} bytes");
    (failure(Code::Network, shown, &why), RESUME)
}
