//! An image's address: what is accepted, and how it is shown.

use super::{Code, Failure};
use alloc::{format, string::String};
use fluent_uri::Uri;

/// A URI's scheme, as far as an image may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `https:`
    Https,
    /// `http:`
    Http,
}

/// Checks that `uri` is an absolute `http:` or `https:` address with a host.
///
/// # Errors
/// [`Code::InvalidUri`], naming the URI as [`redact`] shows it.
pub fn scheme_of(uri: &str) -> Result<Scheme, Failure> {
    let refuse = |why: &str| {
        Failure::new(
            Code::InvalidUri,
            format!("\"{}\" is not the URL of an image: {why}", redact(uri)),
        )
    };
    let parsed = Uri::parse(uri)
        .map_err(|_| refuse("an absolute one, such as https://example.com/image.bin, is needed"))?;
    let scheme = if parsed.scheme().as_str().eq_ignore_ascii_case("https") {
        Scheme::Https
    } else if parsed.scheme().as_str().eq_ignore_ascii_case("http") {
        Scheme::Http
    } else {
        return Err(refuse("its scheme is not https"));
    };
    match parsed.authority() {
        Some(authority) if !authority.host().is_empty() => Ok(scheme),
        _ => Err(refuse("it has no host")),
    }
}

/// The address beside another: its path with this ending, its query kept, no fragment.
///
/// ```
/// use twinflash::update::beside;
/// assert_eq!(beside("https://h/a.bin?sig=x#y", ".jws"), "https://h/a.bin.jws?sig=x");
/// ```
pub fn beside(uri: &str, ending: &str) -> String {
    let uri = uri.split('#').next().unwrap_or_default();
    match uri.split_once('?') {
        Some((path, query)) => format!("{path}{ending}?{query}"),
        None => format!("{uri}{ending}"),
    }
}

/// The URI as it may be shown: without user name and password, query and fragment. A storage
/// account's SAS signature sits in the query.
///
/// Works on text that is no URI, too; what is longer than 256 bytes is cut.
pub fn redact(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let shown = uri.get(..end).unwrap_or_default();
    let (scheme, rest) = match shown.find("//") {
        Some(at) => shown.split_at(at + 2),
        None => ("", shown),
    };
    // In text that is no URL with a host, a user name may end at any `@`.
    let has_host = Uri::parse(uri).is_ok_and(|uri| {
        uri.authority()
            .is_some_and(|authority| !authority.host().is_empty())
    });
    let user_end = if has_host {
        rest.find('/').unwrap_or(rest.len())
    } else {
        rest.len()
    };
    let (before, after) = rest.split_at(user_end);
    let host = before.rsplit('@').next().unwrap_or_default();
    let mut text = format!("{scheme}{host}{after}");
    if text.len() > 256 {
        let mut cut = 253;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_without_user_and_query() {
        assert_eq!(
            redact("https://me:pw@host:1/a/b@c.bin?sig=secret#x"),
            "https://host:1/a/b@c.bin"
        );
        assert_eq!(redact("test.com?sig=1"), "test.com");
        for odd in [
            "user:pw@host/x",
            "https:/me:pw@host/x",
            "https:///me:pw@host/x",
            "https://me:p/w@host/x",
            "me@there:pw@host/x",
        ] {
            let shown = redact(odd);
            assert!(shown.ends_with("host/x"), "{shown}");
            assert!(!shown.contains("me") && !shown.contains("w@"), "{shown}");
        }
        assert!(redact(&"ä".repeat(1000)).len() <= 256);
    }

    #[test]
    fn only_absolute_http_addresses() {
        assert_eq!(scheme_of("https://h/x?y").unwrap(), Scheme::Https);
        assert_eq!(scheme_of("HTTP://h").unwrap(), Scheme::Http);
        for bad in [
            "",
            "test.com",
            "/x",
            "ftp://h/x",
            "https:",
            "https:///x",
            "https://h/a b",
        ] {
            assert_eq!(scheme_of(bad).unwrap_err().code, Code::InvalidUri, "{bad}");
        }
        let message = scheme_of("https://h/a b?sig=secret").unwrap_err().message;
        assert!(!message.contains("secret"), "{message}");
    }
}
