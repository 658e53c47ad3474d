//! Versions, compared as the DevKit contract compares them.

use core::cmp::Ordering;

/// Compares two versions number by number where they are dotted numbers (`1.10.0` is higher than
/// `1.9`); a missing number counts as 0. Parts that are no numbers compare as text.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.unwrap_or("0"), b.unwrap_or("0")),
        };
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_numbers_one_by_one() {
        for (left, right, order) in [
            ("1.0.1", "1.0.0", Ordering::Greater),
            ("1.10", "1.9", Ordering::Greater),
            ("1.0", "1.0.0", Ordering::Equal),
            ("2", "10", Ordering::Less),
            ("1.0.0-beta", "1.0.0-alpha", Ordering::Greater),
        ] {
            assert_eq!(compare(left, right), order, "{left} {right}");
        }
    }
}
