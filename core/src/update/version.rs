//! Versions, and which of two is the higher one.

use core::cmp::Ordering;

/// Compares two versions by the precedence of SemVer 2.0.0, section 11, for any number of parts:
/// `1.10.0` is higher than `1.9`, a missing number counts as 0, `1.0.0-rc.1` is lower than `1.0.0`, and
/// what follows a `+` does not count. A `v` before the first digit is passed over. A part that is no
/// number is higher than any number, and compares as text with another such part. Numbers may have any
/// length.
///
/// ```
/// use twinflash::update::version::compare;
/// assert!(compare("1.10", "1.9.3").is_gt());
/// assert!(compare("2.0.0-rc.1", "2.0.0").is_lt());
/// assert!(compare("v1.0", "1.0.0+build.7").is_eq());
/// ```
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, left_pre) = split(left);
    let (right, right_pre) = split(right);
    parts(left, right, Some("0")).then_with(|| match (left_pre, right_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => parts(left, right, None),
    })
}

/// The numbers, and the pre-release's name.
fn split(version: &str) -> (&str, Option<&str>) {
    let version = version
        .strip_prefix(['v', 'V'])
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(version);
    let version = version.split('+').next().unwrap_or_default();
    match version.split_once('-') {
        Some((numbers, pre)) => (numbers, Some(pre)),
        None => (version, None),
    }
}

/// Compares part by part; one that is not there counts as `missing`, or as lower than any.
fn parts(left: &str, right: &str, missing: Option<&str>) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.or(missing), b.or(missing)),
        };
        let order = match (a, b) {
            (Some(a), Some(b)) => part(a, b),
            (a, b) => a.cmp(&b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn part(left: &str, right: &str) -> Ordering {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (number(left), number(right)) {
        (true, true) => {
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            // Without leading zeros the longer one is the higher one.
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_of_two() {
        for (left, right, order) in [
            ("1.0.1", "1.0.0", Ordering::Greater),
            ("1.10", "1.9", Ordering::Greater),
            ("1.0", "1.0.0", Ordering::Equal),
            ("2", "10", Ordering::Less),
            ("01.002", "1.2", Ordering::Equal),
            ("1.0.0-beta", "1.0.0-alpha", Ordering::Greater),
            ("1.0.0-beta", "1.0.0", Ordering::Less),
            ("1.0.0+b", "1.0.0+a", Ordering::Equal),
            ("v2.0", "1.9", Ordering::Greater),
            (
                "18446744073709551616",
                "18446744073709551615",
                Ordering::Greater,
            ),
            ("1.99999999999999999999999999", "2", Ordering::Less),
        ] {
            assert_eq!(compare(left, right), order, "{left} {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} {left}");
        }
    }

    #[test]
    fn the_order_is_total() {
        // The first row is SemVer's own example, section 11.
        let sorted = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2",
            "1.10",
            "1.1a",
            "1.9a",
            "1.b",
            "2",
            "10",
            "",
            "1a",
            "x",
        ];
        for (index, left) in sorted.iter().enumerate() {
            for (other, right) in sorted.iter().enumerate() {
                assert_eq!(
                    compare(left, right),
                    index.cmp(&other),
                    "\"{left}\" \"{right}\""
                );
            }
        }
    }
}
