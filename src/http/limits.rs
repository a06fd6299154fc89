//! What `limit_req` and `limit_conn` share: keys that are bounded, and the level they speak at.

use super::{Request, Template};
use crate::log;

/// The levels of `limit_…_log_level`, the mildest first.
pub const LEVELS: &[&str] = &["info", "notice", "warn", "error"];

/// The key of this request; `None` if it is empty, or (which is said) longer than `max` bytes.
pub fn key_of(template: &Template, r: &Request, max: usize) -> Option<Vec<u8>> {
    let key = template.value(r).into_owned();
    if key.len() > max {
        log::error!(
            r,
            "the value of the \"{}\" key is more than {max} bytes: \"{}\"",
            template.source(),
            log::Raw(&key)
        );
        return None;
    }
    (!key.is_empty()).then_some(key)
}

/// Logs at one of [`LEVELS`].
pub fn say(r: &Request, level: &str, text: &str) {
    match level {
        "info" => log::info!(r, "{text}"),
        "notice" => log::notice!(r, "{text}"),
        "warn" => log::warn!(r, "{text}"),
        _ => log::error!(r, "{text}"),
    }
}
