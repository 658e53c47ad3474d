//! What a server's answer means for the attempt: where its bytes belong, or why it ends here.

use super::network::Head;
use crate::update::answer::{self, Answer, LONGEST_WAIT, Resume, failure, number};
use crate::update::{Code, Failure, Job, Retry};
use std::time::{Duration, SystemTime};
use ureq::http::{HeaderMap, HeaderName, header};

/// Judges an answer to `job`, which went on from `resume`.
pub(in super::super) fn judge(
    head: &Head,
    resume: Option<&Resume>,
    job: &Job,
) -> Result<Answer, (Failure, Retry)> {
    let status = head.status.as_u16();
    let kind = text(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    let several = kind.to_ascii_lowercase().starts_with("multipart/");
    if status == 206 && resume.is_some() && several {
        // Bytes that cannot be appended: the next attempt asks for all of it.
        let why = "several ranges, where one was asked for";
        let failure = failure(Code::HttpProtocol, &head.shown, why);
        return Err((failure, Retry::FromZero));
    }
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    let length = text(&head.headers, header::CONTENT_LENGTH).and_then(number);
    let said = answer::Head {
        status,
        words: &head.status.to_string(),
        // RFC 9112 section 6.3: the transfer coding overrides the length.
        length: length.filter(|_| !chunked),
        chunked,
        range: text(&head.headers, header::CONTENT_RANGE),
        etag: text(&head.headers, header::ETAG),
        retry_after: retry_after(&head.headers),
    };
    let answer = answer::judge(&head.shown, &said, resume, job)?;
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
        let failure = failure(Code::HttpProtocol, &head.shown, &why);
        return Err((failure, Retry::Never));
    }
    Ok(answer)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// `Retry-After` (RFC 9110 section 10.2.3) as seconds, or as a date, which is compared with the server's
/// own: this device's clock may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?;
    let wait = match number(value) {
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
                hash_judges: validator.is_none(), content: String::new(), compression: None, encryption: None, file_size: None, local: false, https_only: false, max_redirects: 0,
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
