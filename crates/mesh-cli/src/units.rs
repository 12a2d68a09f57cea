//! Sizes and times, as people write them and as people read them.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const TIMES: [(&str, f64); 5] =
    [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];

/// Reads a size such as `8GiB`, `1.5 GB`, or a plain number of bytes. `8Gi` and `8G` mean `8GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a size such as 512MiB or 8GiB, not {text:?}");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes = match unit {
        "" => 1,
        "Ki" | "K" | "k" => 1 << 10,
        "Mi" | "M" => 1 << 20,
        "Gi" | "G" => 1 << 30,
        "Ti" | "T" => 1 << 40,
        unit => SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
    };
    whole(number * as_float(bytes)).ok_or_else(wrong)
}

/// Reads a time such as `90s`, `1.5h` or `250ms`. A plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 90s, 5m or 2h, not {text:?}");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = if unit.is_empty() { "s" } else { unit };
    let (_, seconds) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_too_long| wrong())
}

/// A size for people, such as `1.5 GiB`.
pub fn show_size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = "PiB";
    for name in units {
        if value.abs() < 1_024.0 {
            unit = name;
            break;
        }
        value /= 1_024.0;
    }
    format!("{} {unit}", show_number(value))
}

/// A length of time for people, in at most two units, such as `3m 20s`.
pub fn show_seconds(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0}ms", (seconds * 1_000.0).max(0.0));
    }
    if seconds < 60.0 {
        return format!("{}s", show_number(seconds));
    }
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// A number with at most two decimals, without trailing zeros.
pub fn show_number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at_checked(end.unwrap_or(text.len()))?;
    Some((number.parse().ok()?, unit.trim()))
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "units are powers below 2^53"
)]
fn as_float(unit: u64) -> f64 {
    unit as f64
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be in range"
)]
fn whole(value: f64) -> Option<u64> {
    (0.0..9e18).contains(&value).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (text, bytes) in
            [("0", 0), ("42", 42), ("8Gi", 8 << 30), ("1.5 GiB", 3 << 29), ("2MB", 2_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "8 apples", "1e9", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_in_the_units_of_daily_life() {
        for (text, millis) in [("90", 90_000), ("1.5m", 90_000), ("250ms", 250), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "soon", "-3s", "5 weeks"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_short() {
        let times = [0.0, 0.0123, 0.9996, 1.5, 59.0, 200.0, 3_700.0, 90_000.0].map(show_seconds);
        assert_eq!(times, ["0ms", "12ms", "1s", "1.5s", "59s", "3m 20s", "1h 1m", "1d 1h"]);
        let sizes = [0.0, 1_536.0, 8.0 * 1_073_741_824.0].map(show_size);
        assert_eq!(sizes, ["0 B", "1.5 KiB", "8 GiB"]);
    }
}
