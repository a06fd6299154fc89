//! Local time, in the forms that logs use.
use std::time::{SystemTime, UNIX_EPOCH};

/// A second of local time, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// East of Greenwich, in minutes.
    pub offset_minutes: i32,
}

/// English names, whatever the locale.
pub const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Local {
    pub fn now() -> Local {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Local::at(since.map_or(0, |passed| passed.as_secs() as i64))
    }

    /// The local time of a Unix timestamp, by the time zone of `TZ` or of the machine.
    pub fn at(unix_seconds: i64) -> Local {
        // SAFETY: all-zero is a valid `tm`: numbers and a null pointer.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        let seconds: libc::time_t = unix_seconds;
        // SAFETY: both pointers are to live locals; on failure `tm` stays as it was.
        unsafe { libc::localtime_r(&seconds, &mut tm) };
        Local {
            year: tm.tm_year + 1900,
            month: (tm.tm_mon + 1) as u8,
            day: tm.tm_mday as u8,
            hour: tm.tm_hour as u8,
            minute: tm.tm_min as u8,
            second: tm.tm_sec as u8,
            offset_minutes: (tm.tm_gmtoff / 60) as i32,
        }
    }

    pub fn month_name(&self) -> &'static str {
        MONTHS[usize::from(self.month.clamp(1, 12)) - 1]
    }
}

/// `2026/11/24 23:01:05`.
pub fn error_log_time() -> String {
    let Local { year, month, day, hour, minute, second, .. } = Local::now();
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `Nov 24 23:01:05`, the day padded with a space as RFC 3164 wants it.
pub fn syslog_time() -> String {
    let now = Local::now();
    let Local { day, hour, minute, second, .. } = now;
    format!("{} {day:2} {hour:02}:{minute:02}:{second:02}", now.month_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_taken_apart() {
        let then = Local::at(1_795_561_265);
        // The offset of the machine is unknown here; the minutes and seconds of most are not.
        assert_eq!((then.year, then.second), (2026, 5));
        assert_eq!(then.month_name(), "Nov");
        assert_eq!(error_log_time().len(), 19);
        assert_eq!(syslog_time().len(), 15);
    }
}
