//! Dates of HTTP: the three forms of RFC 9110 (5.6.7), read as leniently as nginx does.

/// Seconds since 1970. `None`: not a date, or one before 1970.
///
/// The name of the day and the time zone are not looked at.
pub fn parse(text: &[u8]) -> Option<i64> {
    let cut = text.iter().position(|b| matches!(b, b',' | b' '))?;
    let is_asctime = text[cut] == b' ';
    let mut at = Cursor(&text[cut + 1..]);
    at.skip_spaces();
    let date = if is_asctime { at.asctime()? } else { at.rfc()? };
    date.unix().filter(|seconds| *seconds >= 0)
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
    time: (i64, i64, i64),
}

impl Date {
    fn unix(&self) -> Option<i64> {
        let Date { year, month, day, time: (hour, minute, second) } = *self;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_in = match month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if !(1..=days_in).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        // Days since 0000-03-01: January and February belong to the year before.
        let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
        let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
        const EPOCH_DAYS: i64 = 719_468;
        Some((days - EPOCH_DAYS) * 86_400 + hour * 3600 + minute * 60 + second)
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// `06 Nov 1994 08:49:37 GMT` or `06-Nov-94 08:49:37 GMT`.
    fn rfc(&mut self) -> Option<Date> {
        let day = self.digits(2)?;
        let separator = *self.0.first().filter(|b| matches!(b, b' ' | b'-'))?;
        self.eat(separator)?;
        let month = self.month()?;
        self.eat(separator)?;
        let year = match separator {
            b' ' => self.digits(4)?,
            _ => match self.digits(2)? {
                late @ 70.. => 1900 + late,
                early => 2000 + early,
            },
        };
        self.eat(b' ')?;
        Some(Date { year, month, day, time: self.time()? })
    }

    /// `Nov  6 08:49:37 1994`.
    fn asctime(&mut self) -> Option<Date> {
        let month = self.month()?;
        self.eat(b' ')?;
        self.skip_spaces();
        let first = self.digits(1)?;
        let day = self.digits(1).map_or(first, |second| first * 10 + second);
        self.eat(b' ')?;
        let time = self.time()?;
        self.eat(b' ')?;
        Some(Date { year: self.digits(4)?, month, day, time })
    }

    fn time(&mut self) -> Option<(i64, i64, i64)> {
        let hour = self.digits(2)?;
        self.eat(b':')?;
        let minute = self.digits(2)?;
        self.eat(b':')?;
        Some((hour, minute, self.digits(2)?))
    }

    fn month(&mut self) -> Option<i64> {
        const NAMES: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        let (name, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        NAMES.chunks(3).position(|known| known == name).map(|at| at as i64 + 1)
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        Some(digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn skip_spaces(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse(b"Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(parse(b"Fri, 31 Dec 9999 23:59:59 GMT"), Some(253_402_300_799));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "x",
            "garbage here",
            "Sun, 06 Nov 1994",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Wed, 29 Feb 2023 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1960 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
