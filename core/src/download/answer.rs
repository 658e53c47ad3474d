//! What a server's answer means for the attempt: where its bytes belong, or why it ends here.

use super::failure::{RESUME, failure};
use super::network::Head;
use crate::update::{Code, Failure, Job, Retry};
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderMap, HeaderName, header};

/// What was asked for, if it was the rest of an image.
pub(super) struct Resume {
    pub(super) offset: u64,
    pub(super) validator: Option<String>,
    pub(super) total: Option<u64>,
}

/// A body that can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where in the image its first byte belongs.
    pub(super) offset: u64,
    /// The whole image's size.
    pub(super) total: Option<u64>,
    pub(super) validator: Option<String>,
    /// Nothing but the connection's end marks the body's end.
    pub(super) until_close: bool,
}

/// Longer waits than this are not believed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Longer validators are as good as none: they would fill the journal.
const LONGEST_VALIDATOR: usize = 512;

/// Judges an answer to `job`, which went on from `resume`.
pub(super) fn judge(
    head: &Head,
    resume: Option<&Resume>,
    job: &Job,
) -> Result<Answer, (Failure, Retry)> {
    let answer = match (head.status.as_u16(), resume) {
        (200, _) => whole(head, job)?,
        (206, Some(resume)) => rest(head, resume, job)?,
        (206, None) => {
            return Err(protocol(
                head,
                "206 Partial Content, though all of it was asked for",
            ));
        }
        (status, _) => {
            let why = format!("the server answered {}", head.status);
            let retry = match status {
                416 if resume.is_some() => Retry::FromZero,
                408 | 425 | 429 | 500..=599 => Retry::Resume(retry_after(&head.headers)),
                _ => Retry::Never,
            };
            return Err((failure(Code::HttpStatus, &head.shown, &why), retry));
        }
    };
    let encoded = |name: HeaderName, allowed: &str| {
        let values = head.headers.get_all(name).iter();
        let mut others = values.filter(|value| {
            let value = value.as_bytes().trim_ascii();
            !value.is_empty() && !value.eq_ignore_ascii_case(allowed.as_bytes())
        });
        others
            .next()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    if let Some(encoding) = encoded(header::CONTENT_ENCODING, "identity")
        .or_else(|| encoded(header::TRANSFER_ENCODING, "chunked"))
    {
        let why = format!("it is sent encoded ({encoding:?}), which was not asked for");
        return Err(protocol(head, &why));
    }
    if answer.until_close && job.size.is_none() && !job.hash_judges {
        return Err(protocol(
            head,
            "the server does not say how long it is; give a size or a SHA-256 with the request",
        ));
    }
    Ok(answer)
}

fn whole(head: &Head, job: &Job) -> Result<Answer, (Failure, Retry)> {
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    let length = match chunked {
        // RFC 9112 section 6.3: the transfer coding overrides the length.
        true => None,
        false => number(text(&head.headers, header::CONTENT_LENGTH)),
    };
    announced(head, length, job)?;
    Ok(Answer {
        offset: 0,
        total: length,
        validator: strong_validator(&head.headers),
        until_close: length.is_none() && !chunked,
    })
}

fn rest(head: &Head, resume: &Resume, job: &Job) -> Result<Answer, (Failure, Retry)> {
    // Bytes that cannot be appended: the next attempt asks for all of it.
    let again = |why: &str| {
        (
            failure(Code::HttpProtocol, &head.shown, why),
            Retry::FromZero,
        )
    };
    let kind = text(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("multipart/") {
        return Err(again("several ranges, where one was asked for"));
    }
    let range = text(&head.headers, header::CONTENT_RANGE).and_then(content_range);
    let Some((first, last, total)) = range else {
        return Err(again("206 Partial Content without a range of bytes"));
    };
    if first != resume.offset {
        let why = format!("byte {} was asked for, byte {first} came", resume.offset);
        return Err(again(&why));
    }
    let Some(total) = total.or(resume.total) else {
        return Err(again("the server does not say how long the whole is"));
    };
    announced(head, Some(total), job)?;
    if last >= total || resume.total.is_some_and(|before| before != total) {
        return Err(again(&format!("it changed its size to {total} bytes")));
    }
    let validator = strong_validator(&head.headers);
    let same = match (&resume.validator, &validator) {
        (Some(before), Some(now)) => before == now,
        (Some(_), None) => job.hash_judges,
        (None, _) => true,
    };
    if !same {
        return Err(again("it changed on the server since the download began"));
    }
    let length = number(text(&head.headers, header::CONTENT_LENGTH));
    if length.is_some_and(|length| length != last - first + 1) {
        return Err(again(
            "length and range of the server's answer contradict each other",
        ));
    }
    Ok(Answer {
        offset: first,
        total: Some(total),
        validator,
        until_close: false,
    })
}

/// Compares the size the server says with what the request announced and the policy allows.
fn announced(head: &Head, total: Option<u64>, job: &Job) -> Result<(), (Failure, Retry)> {
    let Some(total) = total else { return Ok(()) };
    let (code, why) = match job.size {
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
    Err((failure(code, &head.shown, &why), Retry::Never))
}

fn protocol(head: &Head, why: &str) -> (Failure, Retry) {
    (failure(Code::HttpProtocol, &head.shown, why), Retry::Never)
}

/// The connection ended before the body did.
pub(super) fn too_short(shown: &str, received: u64, of: u64) -> (Failure, Retry) {
    let why = format!("the connection broke off after {received} of {of} bytes");
    (failure(Code::Network, shown, &why), RESUME)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

fn number(text: Option<&str>) -> Option<u64> {
    text.filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
}

/// `bytes first-last/total`, the total perhaps `*` (RFC 9110 section 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, range) = text.split_once(' ')?;
    let (range, total) = range.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let first = number(Some(first))?;
    let last = number(Some(last))?;
    let total = match total {
        "*" => None,
        total => Some(number(Some(total))?),
    };
    (unit.eq_ignore_ascii_case("bytes") && first <= last).then_some((first, last, total))
}

/// An entity tag that is not weak (RFC 9110 section 8.8.3): only such a one may be used with `If-Range`.
fn strong_validator(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, header::ETAG)?;
    let strong = tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"');
    (strong && tag.len() <= LONGEST_VALIDATOR).then(|| tag.to_owned())
}

/// `Retry-After` (RFC 9110 section 10.2.3) as seconds, or as a date, which is compared with the server's
/// own: this device's clock may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?;
    let wait = match number(Some(value)) {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let until = httpdate::parse_http_date(value).ok()?;
            let now = text(headers, header::DATE)
                .and_then(|date| httpdate::parse_http_date(date).ok())
                .unwrap_or_else(SystemTime::now);
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

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
        let of = |tag| strong_validator(&headers(&[(header::ETAG, tag)]));
        assert_eq!(of("\"a\"").as_deref(), Some("\"a\""));
        for weak in ["W/\"a\"", "a", "\"", ""] {
            assert_eq!(of(weak), None, "{weak}");
        }
        let long: &'static str = Box::leak(format!("\"{}\"", "a".repeat(600)).into_boxed_str());
        assert_eq!(of(long), None);
    }

    #[test]
    fn waits() {
        let of = |value, date| {
            retry_after(&headers(&[
                (header::RETRY_AFTER, value),
                (header::DATE, date),
            ]))
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(of("7", date), Some(Duration::from_secs(7)));
        assert_eq!(
            of("Sun, 06 Nov 1994 08:50:00 GMT", date),
            Some(Duration::from_secs(23))
        );
        assert_eq!(
            of("Sunday, 06-Nov-94 08:50:00 GMT", date),
            Some(Duration::from_secs(23))
        );
        assert_eq!(
            of("Sun, 06 Nov 1994 08:49:00 GMT", date),
            Some(Duration::ZERO)
        );
        assert_eq!(of("99999999999999", date), Some(LONGEST_WAIT));
        for bad in ["soon", "-1", "1.5"] {
            assert_eq!(of(bad, date), None, "{bad}");
        }
    }

    proptest! {
        /// Whatever the server says: no byte is put where it does not belong, no limit is passed.
        #[test]
        fn an_answer_fits_what_was_asked_for(
            status in prop_oneof![Just(200), Just(206), Just(416), 100_u16..1000],
            range in prop_oneof![
                "bytes [0-9]{1,2}-[0-9]{1,2}/([0-9]{1,2}|[*])",
                "bytes [0-9]{1,20}-[0-9]{1,20}/[0-9]{1,20}",
                "[ -~]{0,20}",
            ],
            length in prop::option::of("[0-9]{1,20}|[ -~]{0,5}"),
            tag in prop::option::of("(W/)?\"[ab]\"|[ -~]{0,5}"),
            offset in 1_u64..60,
            total in prop::option::of(60_u64..90),
            validator in prop::option::of(Just("\"a\"".to_owned())),
            size in prop::option::of(60_u64..90),
            resumes in any::<bool>(),
        ) {
            let mut headers = HeaderMap::new();
            let given = [(header::CONTENT_RANGE, Some(range)), (header::CONTENT_LENGTH, length), (header::ETAG, tag)];
            for (name, value) in given {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let head = Head {
                shown: "http://h/x".into(),
                status: ureq::http::StatusCode::from_u16(status).unwrap(),
                headers,
            };
            let job = Job {
                uri: "http://h/x".into(), resume: None, size, max_size: 80,
                hash_judges: validator.is_none(), content: String::new(), https_only: false, max_redirects: 0,
                checkpoint_interval: Duration::ZERO, checkpoint_bytes: 0,
                stall_time: Duration::ZERO, stall_bytes: 0, bandwidth: None, dry_run: false,
            };
            let resume = Resume { offset, validator: validator.clone(), total };
            match judge(&head, resumes.then_some(&resume), &job) {
                Ok(answer) => {
                    prop_assert!(answer.offset == 0 || (status == 206 && answer.offset == offset));
                    prop_assert_eq!(answer.offset == 0, status == 200);
                    prop_assert!(answer.total.is_none_or(|total| total <= 80));
                    prop_assert!(size.is_none() || answer.total.is_none() || answer.total == size);
                    if answer.offset > 0 {
                        prop_assert!(answer.total.is_some() && (total.is_none() || answer.total == total));
                        prop_assert!(validator.is_none() || answer.validator == validator);
                    }
                }
                Err((failure, _)) => prop_assert!(failure.message.starts_with("cannot download http://h/x: ")),
            }
        }
    }
}
