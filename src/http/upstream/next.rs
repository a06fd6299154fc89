//! `…_next_upstream`: which failures are worth another peer.

use crate::conf::{Reading, Reason};
use crate::proto::h1::Method;
use std::time::Duration;

/// Why a try ended without an answer to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// A connection that could not be made, or broke.
    Error,
    /// Too slow.
    Timeout,
    /// An answer that cannot be understood.
    InvalidHeader,
    /// A status that the operator wants tried elsewhere.
    Status(u16),
    /// Nobody is there to be asked.
    NoLive,
}

/// The conditions by their names; the order gives each its bit.
const NAMES: [&str; 13] = [
    "error",
    "timeout",
    "invalid_header",
    "non_idempotent",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "updating",
    "off",
];
const NON_IDEMPOTENT: u16 = 1 << 3;
const OFF: u16 = 1 << 12;

/// A set of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions(u16);

impl Conditions {
    /// `error timeout`
    pub const DEFAULT: Conditions = Conditions(0b11);

    /// Reads the directive's words.
    ///
    /// Errors: `invalid value "x"`; a word given twice is a warning.
    pub fn read(r: &mut Reading) -> Result<Conditions, Reason> {
        let mut set = 0;
        for word in r.take_args() {
            let Some(bit) = NAMES.iter().position(|n| n.eq_ignore_ascii_case(&word)) else {
                return Err(Reason::says(format!("invalid value \"{word}\"")));
            };
            if set & 1 << bit != 0 {
                r.warn(format!("duplicate value \"{word}\""));
            }
            set |= 1 << bit;
        }
        Ok(Conditions(if set & OFF != 0 { OFF } else { set }))
    }

    fn has(self, mask: u16) -> bool {
        mask != 0 && self.0 & mask == mask
    }
}

impl Failed {
    fn mask(self) -> u16 {
        let name = match self {
            Failed::Error => "error",
            Failed::Timeout => "timeout",
            Failed::InvalidHeader => "invalid_header",
            Failed::Status(500) => "http_500",
            Failed::Status(502) => "http_502",
            Failed::Status(503) => "http_503",
            Failed::Status(504) => "http_504",
            Failed::Status(403) => "http_403",
            Failed::Status(404) => "http_404",
            Failed::Status(429) => "http_429",
            Failed::Status(_) | Failed::NoLive => return 0,
        };
        NAMES.iter().position(|n| *n == name).map_or(0, |bit| 1 << bit)
    }

    /// What the client gets if this was the last try.
    pub fn status(self) -> u16 {
        match self {
            Failed::Timeout => 504,
            Failed::Status(status) => status,
            _ => 502,
        }
    }

    /// Whether the peer is to blame.
    pub fn is_failure(self) -> bool {
        !matches!(self, Failed::Status(403 | 404))
    }
}

/// The directives.
#[derive(Clone, Debug)]
pub struct NextRules {
    /// `…_next_upstream`
    pub on: Conditions,
    /// `…_next_upstream_tries`; 0 is no limit.
    pub tries: u32,
    /// `…_next_upstream_timeout`; zero is no limit.
    pub timeout: Duration,
}

/// How far a try had come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Some of the request was sent.
    pub sent: bool,
    /// The body cannot be sent again.
    pub body_is_gone: bool,
    /// Since the first try.
    pub elapsed: Duration,
}

impl NextRules {
    /// Whether `failed` may be tried elsewhere, tries left aside.
    pub fn allow(&self, failed: Failed, method: Method, progress: Progress) -> bool {
        let mut mask = failed.mask();
        if mask == 0 {
            return false;
        }
        if progress.sent && matches!(method, Method::Post | Method::Lock | Method::Patch) {
            mask |= NON_IDEMPOTENT;
        }
        self.on.has(mask)
            && !(progress.sent && progress.body_is_gone)
            && (self.timeout.is_zero() || progress.elapsed < self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Block, Found, Paths};

    fn read(words: &str) -> Result<Conditions, String> {
        struct One(Option<Conditions>);
        impl Block for One {
            fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
                self.0 = Some(Conditions::read(r)?);
                Ok(Found::Yes)
            }
        }
        let mut one = One(None);
        let mut r = Reading::new(Paths::default());
        r.source("F".into(), format!("x {words};").into(), &mut one).map_err(|e| e.what)?;
        Ok(one.0.unwrap())
    }

    #[test]
    fn what_may_be_tried_again() {
        let fresh = Progress { sent: false, body_is_gone: false, elapsed: Duration::from_secs(1) };
        let sent = Progress { sent: true, ..fresh };
        let rules = |words: &str, timeout| NextRules {
            on: read(words).unwrap(),
            tries: 0,
            timeout: Duration::from_secs(timeout),
        };
        let usual = rules("error timeout", 0);
        assert!(usual.allow(Failed::Error, Method::Get, sent));
        assert!(usual.allow(Failed::Error, Method::Post, fresh));
        assert!(!usual.allow(Failed::Error, Method::Post, sent));
        assert!(!usual.allow(Failed::Status(500), Method::Get, sent));
        assert!(!usual.allow(Failed::NoLive, Method::Get, fresh));
        assert!(!usual.allow(Failed::Error, Method::Get, Progress { body_is_gone: true, ..sent }));
        assert!(rules("error non_idempotent", 2).allow(Failed::Error, Method::Post, sent));
        assert!(!rules("error", 1).allow(Failed::Error, Method::Get, sent));
        assert!(!rules("off error", 0).allow(Failed::Error, Method::Get, fresh));
        assert!(rules("http_429", 0).allow(Failed::Status(429), Method::Get, sent));
        assert_eq!(read("nope"), Err("invalid value \"nope\"".into()));
    }
}
