//! The wall clock, and the texts made from it once a second.
//!
//! The loop calls `tick` once per turn with its monotonic time: until the second changes that is
//! one comparison. Whoever writes a log line or a `Date` header copies a ready text. A thread
//! without a loop gets fresh texts at every call.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WEEK_DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A text of fixed length, copied by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp<const N: usize>([u8; N]);

impl<const N: usize> Stamp<N> {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("a stamp is ASCII")
    }
    /// `text` is cut or padded to the fixed length; only years beyond 9999 need it.
    fn of(text: &str) -> Stamp<N> {
        let mut bytes = [b' '; N];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Stamp(bytes)
    }
}

impl<const N: usize> std::fmt::Display for Stamp<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A moment broken into calendar fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calendar {
    pub year: i32,
    /// 1–12.
    pub month: u32,
    /// 1–31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub week_day: u32,
    /// Minutes east of Greenwich.
    pub offset_min: i32,
}

impl Calendar {
    /// `unix` seconds in the local time zone.
    pub fn local(unix: i64) -> Calendar {
        let mut fields = std::mem::MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are valid for the call; a zeroed `tm` is a valid one, so it may be
        // read even if the call fails (it does for absurd years only).
        let fields = unsafe {
            libc::localtime_r(&unix, fields.as_mut_ptr());
            fields.assume_init()
        };
        Calendar::from_fields(&fields)
    }

    /// `unix` seconds in UTC.
    pub fn utc(unix: i64) -> Calendar {
        let mut fields = std::mem::MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: as in `local`.
        let fields = unsafe {
            libc::gmtime_r(&unix, fields.as_mut_ptr());
            fields.assume_init()
        };
        Calendar::from_fields(&fields)
    }

    fn from_fields(fields: &libc::tm) -> Calendar {
        Calendar {
            year: fields.tm_year + 1900,
            month: fields.tm_mon as u32 + 1,
            day: fields.tm_mday as u32,
            hour: fields.tm_hour as u32,
            minute: fields.tm_min as u32,
            second: fields.tm_sec as u32,
            week_day: fields.tm_wday as u32,
            offset_min: (fields.tm_gmtoff / 60) as i32,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS[(self.month as usize + 11) % 12]
    }
    fn week_day_name(&self) -> &'static str {
        WEEK_DAYS[self.week_day as usize % 7]
    }
    fn offset(&self) -> (char, i32, i32) {
        let minutes = self.offset_min.abs();
        (if self.offset_min < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`; the fields must be UTC.
    pub fn http_date(&self) -> Stamp<29> {
        let Calendar { year, day, hour, minute, second, .. } = self;
        let (week_day, month) = (self.week_day_name(), self.month_name());
        Stamp::of(&format!(
            "{week_day}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
        ))
    }
    /// `1994/11/06 08:49:37`, the error log's.
    pub fn error_log(&self) -> Stamp<19> {
        let Calendar { year, month, day, hour, minute, second, .. } = self;
        Stamp::of(&format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}"))
    }
    /// `06/Nov/1994:08:49:37 +0000`: `$time_local`.
    pub fn access_log(&self) -> Stamp<26> {
        let Calendar { year, day, hour, minute, second, .. } = self;
        let (sign, hours, minutes) = self.offset();
        let month = self.month_name();
        Stamp::of(&format!(
            "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}"
        ))
    }
    /// `1994-11-06T08:49:37+00:00`: `$time_iso8601`.
    pub fn iso8601(&self) -> Stamp<25> {
        let Calendar { year, month, day, hour, minute, second, .. } = self;
        let (sign, hours, minutes) = self.offset();
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let _ = write!(text, "{sign}{hours:02}:{minutes:02}");
        Stamp::of(&text)
    }
    /// `Nov  6 08:49:37`: the time of a syslog line.
    pub fn syslog(&self) -> Stamp<15> {
        let Calendar { day, hour, minute, second, .. } = self;
        let month = self.month_name();
        Stamp::of(&format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}"))
    }
}

/// The longest text that [`formatted`] makes, bytes.
const FORMATTED_MAX: usize = 255;

/// `unix` seconds in the local time zone or in UTC as `strftime` spells them; `None` if that is
/// nothing or too long. What stands behind a zero byte is not read.
pub fn formatted(format: &[u8], unix: i64, is_local: bool) -> Option<Vec<u8>> {
    let format = format.split(|b| *b == 0).next().unwrap_or_default();
    let format = std::ffi::CString::new(format).ok()?;
    let mut fields = std::mem::MaybeUninit::<libc::tm>::zeroed();
    let mut out = vec![0u8; FORMATTED_MAX + 1];
    // SAFETY: the fields are as in `Calendar::local`, their zone's name is static or null; the
    // format ends in a zero byte; at most `out.len()` bytes are written to `out`.
    let length = unsafe {
        match is_local {
            true => libc::localtime_r(&unix, fields.as_mut_ptr()),
            false => libc::gmtime_r(&unix, fields.as_mut_ptr()),
        };
        let fields = fields.assume_init();
        libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), &fields)
    };
    out.truncate(length);
    (length > 0).then_some(out)
}

/// The texts of one second.
#[derive(Clone, Copy)]
struct Texts {
    http_date: Stamp<29>,
    error_log: Stamp<19>,
    access_log: Stamp<26>,
    iso8601: Stamp<25>,
    syslog: Stamp<15>,
}

impl Texts {
    fn at(unix: i64) -> Texts {
        let (local, utc) = (Calendar::local(unix), Calendar::utc(unix));
        Texts {
            http_date: utc.http_date(),
            error_log: local.error_log(),
            access_log: local.access_log(),
            iso8601: local.iso8601(),
            syslog: local.syslog(),
        }
    }
}

/// Which wall-clock time a monotonic time is.
#[derive(Clone, Copy)]
struct Anchor {
    /// The turn's time since 1970.
    unix: Duration,
    /// When the wall clock was last read, and what it said.
    read_at: Instant,
    read: Duration,
    /// When the wall clock's second changes.
    until: Instant,
}

thread_local! {
    static ANCHOR: Cell<Option<Anchor>> = const { Cell::new(None) };
    static TEXTS: RefCell<Option<Texts>> = const { RefCell::new(None) };
}

/// The loop's turn begins at `now`.
#[inline]
pub fn tick(now: Instant) {
    match ANCHOR.get() {
        Some(anchor) if now < anchor.until => {
            let unix = anchor.read + now.saturating_duration_since(anchor.read_at);
            ANCHOR.set(Some(Anchor { unix, ..anchor }));
        }
        _ => refresh(now),
    }
}

/// The thread has no loop any more: texts are made at every call again.
pub fn stop_ticking() {
    ANCHOR.set(None);
}

#[cold]
fn refresh(now: Instant) {
    let read = wall_clock();
    let rest = Duration::from_nanos(u64::from(1_000_000_000 - read.subsec_nanos()));
    ANCHOR.set(Some(Anchor { unix: read, read_at: now, read, until: now + rest }));
    TEXTS.set(Some(Texts::at(read.as_secs() as i64)));
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Time since 1970, as of the loop's turn.
#[inline]
pub fn unix() -> Duration {
    match ANCHOR.get() {
        Some(anchor) => anchor.unix,
        None => wall_clock(),
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> i64 {
    unix().as_secs() as i64
}

/// Milliseconds since 1970 (`$msec`).
pub fn unix_ms() -> u64 {
    unix().as_millis() as u64
}

/// Milliseconds of a clock that nobody sets, as of now.
pub fn monotonic_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |at| Duration::from(at).as_millis() as u64)
}

fn text<T>(field: impl Fn(&Texts) -> T) -> T {
    let ready = || TEXTS.with_borrow(|texts| texts.as_ref().map(&field));
    match ANCHOR.get().and_then(|_| ready()) {
        Some(text) => text,
        None => field(&Texts::at(wall_clock().as_secs() as i64)),
    }
}

/// The `Date` header's value.
pub fn http_date() -> Stamp<29> {
    text(|t| t.http_date)
}
/// The error log's time.
pub fn error_log() -> Stamp<19> {
    text(|t| t.error_log)
}
/// `$time_local`.
pub fn access_log() -> Stamp<26> {
    text(|t| t.access_log)
}
/// `$time_iso8601`.
pub fn iso8601() -> Stamp<25> {
    text(|t| t.iso8601)
}
/// The time of a syslog line.
pub fn syslog() -> Stamp<15> {
    text(|t| t.syslog)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_are_right() {
        let at = Calendar::utc(784_111_777);
        assert_eq!(at.http_date().as_str(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at.error_log().as_str(), "1994/11/06 08:49:37");
        assert_eq!(at.access_log().as_str(), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(at.iso8601().as_str(), "1994-11-06T08:49:37+00:00");
        assert_eq!(at.syslog().as_str(), "Nov  6 08:49:37");
        let west = Calendar { offset_min: -210, ..at };
        assert_eq!(west.access_log().as_str(), "06/Nov/1994:08:49:37 -0330");
    }

    #[test]
    fn the_wall_clock_follows_the_turn() {
        let start = Instant::now();
        tick(start);
        let before = unix();
        tick(start + Duration::from_millis(1));
        let after = unix();
        let moved = after.saturating_sub(before);
        assert!(moved <= Duration::from_millis(50), "{moved:?}");
        let drift = after.abs_diff(wall_clock());
        assert!(drift < Duration::from_secs(2), "{drift:?}");
        assert_eq!(http_date().as_bytes(), Texts::at(unix_seconds()).http_date.as_bytes());
        stop_ticking();
        assert!(unix_ms() > 0);
    }
}
