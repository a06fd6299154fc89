//! 103 Early Hints (RFC 8297) on their way from an upstream to the client.

use super::rules::Rules;
use crate::http::{Fields, Request};
use crate::log;
use crate::proto::h1::{ReplyHead, Version};
use crate::proto::header::HeaderId;
use std::task::Context;

/// Passes the 103 that was read from `bytes` on if `early_hints` says so. `fits`: all hints of this
/// try are no longer than `…_buffer_size`.
pub fn pass_on(
    r: &Request,
    head: &ReplyHead,
    bytes: &[u8],
    rules: &Rules,
    fits: bool,
    cx: &mut Context<'_>,
) {
    let Some(interim) = r.interim.as_ref().filter(|_| r.head.version >= Version::Http11) else {
        return;
    };
    if !fits {
        return log::info!(r, "upstream sent too big early hints");
    }
    let mut wanted = r.place.location.core.early_hints.iter().map(|template| template.value(r));
    if r.reply.head_sent || !wanted.any(|value| !matches!(&*value, b"" | b"0")) {
        return;
    }
    let mut fields = Fields::default();
    for field in &head.fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        if !rules.hidden.contains(field.id, name) && !is_of_the_connection(field.id) {
            fields.push_named(name, value);
        }
    }
    if !fields.is_empty() {
        interim.send_hints(&fields, cx);
    }
}

/// Whether a field is about the upstream's connection or its framing.
fn is_of_the_connection(id: HeaderId) -> bool {
    matches!(
        id,
        HeaderId::Connection
            | HeaderId::KeepAlive
            | HeaderId::TransferEncoding
            | HeaderId::ContentLength
            | HeaderId::Upgrade
    )
}
