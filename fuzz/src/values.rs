//! The small languages of a request: check values, versions, addresses, a checkpoint's state.

use std::cmp::Ordering;
use twinflash::update::{Check, Checks, Failure, redact, scheme_of, version};

/// A text as each of them.
pub(crate) fn values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for devkit in [false, true] {
        match Check::parse(&text, devkit) {
            Ok(check) => {
                let shown = check.to_string();
                assert_eq!(Check::parse(&shown, devkit).ok(), Some(check), "{shown}");
            }
            Err(failure) => is_one_line(&failure),
        }
    }
    if let Some(checks) = Checks::restore(&text) {
        let saved = checks.save();
        let again = Checks::restore(&saved).expect("what was saved is read");
        assert_eq!((again.save(), again.bytes()), (saved, checks.bytes()));
    }
    match scheme_of(&text) {
        Ok(_) => assert!(text.to_ascii_lowercase().starts_with("http")),
        Err(failure) => {
            is_one_line(&failure);
            // Long enough to be none of the message's own words, and not told before it is asked.
            if let Some((before, secret)) = text.split_once('?')
                && secret.len() >= 12
                && !before.contains(secret)
            {
                assert!(!failure.message.contains(secret), "{failure}");
            }
        }
    }
    let shown = redact(&text);
    assert!(shown.len() <= 256, "{} bytes", shown.len());
    assert!(!shown.contains(['?', '#']), "{shown}");
    let (left, right) = text.split_once('\n').unwrap_or((&text, "1.0.0"));
    assert_eq!(version::compare(left, left), Ordering::Equal);
    assert_eq!(
        version::compare(left, right),
        version::compare(right, left).reverse()
    );
}

pub(crate) fn is_one_line(failure: &Failure) {
    let message = &failure.message;
    let fits = !message.is_empty() && message.len() <= Failure::MAX_MESSAGE;
    assert!(fits && !message.contains(char::is_control), "{message:?}");
}
