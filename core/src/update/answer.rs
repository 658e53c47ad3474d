//! Whether what a source of bytes says of itself fits what was asked for: where its bytes belong, or why the
//! attempt ends here. Without I/O, as the engine: who speaks HTTP otherwise has the same rules.

use super::{Code, Failure, Job, Retry};
use alloc::{borrow::ToOwned, format, string::String};
use core::time::Duration;

/// What was asked for, if it was the rest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The first byte that is wanted.
    pub offset: u64,
    /// The server's strong validator.
    pub validator: Option<String>,
    /// The whole's size, as the server said it.
    pub total: Option<u64>,
}

/// What a server answered, before the body. A header that is no text is as good as none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// HTTP's status.
    pub status: u16,
    /// The status, for people.
    pub words: &'a str,
    /// `Content-Length` in bytes, where the body has no transfer coding.
    pub length: Option<u64>,
    /// A transfer coding marks the body's end.
    pub chunked: bool,
    /// `Content-Range`.
    pub range: Option<&'a str>,
    /// `ETag`.
    pub etag: Option<&'a str>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// A body that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where in the image its first byte belongs.
    pub offset: u64,
    /// The whole image's size.
    pub total: Option<u64>,
    /// What a later attempt can go on by.
    pub validator: Option<String>,
    /// Nothing but the connection's end marks the body's end.
    pub until_close: bool,
}

/// Longer waits than this are not believed.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Longer validators are as good as none: they would fill the journal.
const LONGEST_VALIDATOR: usize = 512;

/// Another attempt, after the engine's own pause.
pub const RESUME: Retry = Retry::Resume(None);

/// `shown` is the address, as it may be shown.
pub fn failure(code: Code, shown: &str, why: &str) -> Failure {
    Failure::new(code, format!("cannot download {shown}: {why}"))
}

/// Judges a server's answer to `job`, which went on from `resume`.
///
/// # Errors
/// Why the attempt ends here, and whether there may be another.
pub fn judge(
    shown: &str,
    head: &Head<'_>,
    resume: Option<&Resume>,
    job: &Job,
) -> Result<Answer, (Failure, Retry)> {
    match (head.status, resume) {
        (200, _) => {
            let answer = Answer {
                offset: 0,
                total: head.length,
                validator: head.etag.and_then(strong_validator),
                until_close: head.length.is_none() && !head.chunked,
            };
            fits(shown, answer, None, job)
        }
        (206, Some(resume)) => rest(shown, head, resume, job),
        (206, None) => {
            let why = "206 Partial Content, though all of it was asked for";
            Err((failure(Code::HttpProtocol, shown, why), Retry::Never))
        }
        (status, _) => {
            let resumed = resume.is_some();
            Err(refused(
                shown,
                status,
                head.words,
                resumed,
                head.retry_after,
            ))
        }
    }
}

fn rest(
    shown: &str,
    head: &Head<'_>,
    resume: &Resume,
    job: &Job,
) -> Result<Answer, (Failure, Retry)> {
    // Bytes that cannot be appended: the next attempt asks for all of it.
    let again = |why: &str| (failure(Code::HttpProtocol, shown, why), Retry::FromZero);
    let Some((first, last, total)) = head.range.and_then(content_range) else {
        return Err(again("206 Partial Content without a range of bytes"));
    };
    if first != resume.offset {
        let why = format!("byte {} was asked for, byte {first} came", resume.offset);
        return Err(again(&why));
    }
    let answer = Answer {
        offset: first,
        total,
        validator: head.etag.and_then(strong_validator),
        until_close: false,
    };
    let answer = fits(shown, answer, Some(resume), job)?;
    if let Some(total) = answer.total.filter(|total| last >= *total) {
        let why = format!("byte {last} is not within its {total} bytes");
        return Err(again(&why));
    }
    if (head.length).is_some_and(|length| length != last - first + 1) {
        let why = "length and range of the server's answer contradict each other";
        return Err(again(why));
    }
    Ok(answer)
}

/// A number as HTTP has it: digits, and nothing else.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// `bytes first-last/total`, the total perhaps `*` (RFC 9110 section 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, range) = text.trim().split_once(' ')?;
    let (range, total) = range.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = match total {
        "*" => None,
        total => Some(number(total)?),
    };
    (unit.eq_ignore_ascii_case("bytes") && first <= last).then_some((first, last, total))
}

/// The answer, where its bytes are those that `job` asked for, from `resume` on. A `total` it does not know
/// is the one known before.
pub(crate) fn fits(
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

/// What comes of a status that brings no body. Its words are for people.
pub(crate) fn refused(
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
pub(crate) fn strong_validator(tag: &str) -> Option<String> {
    let tag = tag.trim();
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
pub fn too_short(shown: &str, received: u64, of: u64) -> (Failure, Retry) {
    let why = format!("the connection broke off after {received} of {of} bytes");
    (failure(Code::Network, shown, &why), RESUME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("Bytes 0-0/*"), Some((0, 0, None)));
        for bad in [
            "",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-/10",
            "items 5-9/10",
            "bytes +5-9/10",
            "bytes 5-99999999999999999999/*",
            "bytes=5-9/10",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_strong_validators() {
        assert_eq!(strong_validator("\"a\"").as_deref(), Some("\"a\""));
        let long = format!("\"{}\"", "a".repeat(600));
        for weak in ["W/\"a\"", "a", "\"", "", "\"a\r\nb\"", &long] {
            assert_eq!(strong_validator(weak), None, "{weak}");
        }
    }
}
