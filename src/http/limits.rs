//! What limits share: keys that are bounded, the level they speak at, waiting with an eye on the
//! client.

use super::{Request, Template, Verdict, status};
use crate::proto::h1::Version;
use crate::{event, log};
use std::task::Poll;
use std::time::Duration;

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

/// Holds the request back. A client that leaves meanwhile ends it.
pub async fn hold_back(r: &Request, delay: Duration) -> Verdict {
    let deadline = event::Deadline::after(delay);
    let stream = r.client.conn.stream();
    // An end behind the request is no leaving, and over HTTP/2 a stream may end alone.
    let watches = r.head.version < Version::Http2 && !stream.is_read_closed();
    std::future::poll_fn(|cx| {
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(Verdict::Decline);
        }
        if watches && stream.poll_closed(cx).is_ready() {
            log::info!(r, "client prematurely closed connection");
            return Poll::Ready(Verdict::Finish(status::CLIENT_CLOSED));
        }
        Poll::Pending
    })
    .await
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
