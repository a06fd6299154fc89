//! Sizes, times, numbers as nginx writes them.

use std::time::Duration;

/// `512`, `8k`, `16m`, `1g`: bytes. `None` if it is not such a number.
///
/// See <https://nginx.org/en/docs/syntax.html>.
pub fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(unit).filter(|n| *n <= i64::MAX as u64)
}

/// Decimal digits only; no sign, no blank.
pub fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// `30`, `1h 30m`, `100ms`: a bare number counts in `bare`. The units must fall (`y M w d h m s
/// ms`), and a bare number ends the value.
pub fn time(text: &str, bare: Duration) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("y", 365 * 86_400_000),
        ("M", 30 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut next_unit, mut total) = (text, 0, Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count = number(&rest[..digits])?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = &rest[..letters];
        rest = &rest[letters..];
        let step = if unit.is_empty() {
            if !rest.is_empty() {
                return None;
            }
            Duration::from_millis(count.checked_mul(bare.as_millis() as u64)?)
        } else {
            let which =
                next_unit + UNITS[next_unit..].iter().position(|(name, _)| *name == unit)?;
            next_unit = which + 1;
            Duration::from_millis(count.checked_mul(UNITS[which].1)?)
        };
        total = total.checked_add(step)?;
        rest = rest.trim_start_matches(' ');
    }
    (total.as_millis() <= i64::MAX as u128).then_some(total)
}

/// A time whose bare number means seconds.
pub fn seconds(text: &str) -> Option<Duration> {
    time(text, Duration::from_secs(1)).filter(|t| t.subsec_millis() == 0)
}

/// A time whose bare number means seconds and that may name milliseconds.
pub fn milliseconds(text: &str) -> Option<Duration> {
    time(text, Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("8k"), Some(8192));
        assert_eq!(size("1G"), Some(1 << 30));
        assert_eq!(size("7"), Some(7));
        for bad in ["", "k", "-1", "+1", "1kk", "99999999999999999999", "9999999999g", " 1"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        let ms = |t| milliseconds(t).map(|d| d.as_millis());
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("1h 30m"), Some(5_400_000));
        assert_eq!(ms("5"), Some(5000));
        assert_eq!(ms("100ms"), Some(100));
        assert_eq!(ms("1M1m"), Some(30 * 86_400_000 + 60_000));
        for bad in ["", "s", "1m1h", "1 2", "-1s", "1x", "1s1s", "99999999999999999999y"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
        assert_eq!(seconds("100ms"), None);
    }
}
