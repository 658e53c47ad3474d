//! Times in messages.

use core::{fmt, time::Duration};

/// A time's seconds, to the millisecond: `30`, `1.5`. A float would bring 17 kB of formatting along.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())?;
        let (mut part, mut digits) = (self.0.subsec_millis(), 3);
        if part == 0 {
            return Ok(());
        }
        while part % 10 == 0 {
            part /= 10;
            digits -= 1;
        }
        write!(f, ".{part:0digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn as_one_writes_them() {
        for (millis, text) in [
            (0, "0"),
            (1, "0.001"),
            (50, "0.05"),
            (1500, "1.5"),
            (30_000, "30"),
            (60_120, "60.12"),
        ] {
            assert_eq!(Seconds(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
