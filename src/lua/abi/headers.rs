//! Header fields: `ngx.header`, `ngx.req.set_header`, `ngx.req.get_headers`.

use super::{DECLINED, ERROR, Message, OK, R, Str, answer, bytes, export, give, put};
use crate::http::{Fields, Request};
use crate::log;
use crate::lua::conf::Lua;
use crate::lua::phase::WITH_REQUEST;
use crate::lua::run;
use crate::proto::header::HeaderId;
use crate::sys::time::Calendar;
use std::ffi::c_int;

/// Fields that a request gives by default.
const FIELDS_MAX: usize = 100;

/// A name and a value of the ABI.
#[repr(C)]
pub struct Pair {
    pub key: Str,
    pub value: Str,
}

export! {
    fn ngx_http_lua_ffi_set_resp_header(
        _r: R, key: *const u8, key_len: usize, is_nil: c_int, value: *const u8, value_len: usize,
        values: *const Str, values_len: usize, replaces: c_int, message: Message,
    ) -> c_int {
        let key = bytes(key, key_len);
        let values = given(is_nil, (value, value_len), (values, values_len));
        put(message, c"no memory".as_ptr());
        answer(WITH_REQUEST, |r| {
            if run::is_head_made(r) {
                let key = log::Raw(key);
                log::error!(
                    &*r,
                    "attempt to set ngx.header.{key} after sending out response headers"
                );
                return DECLINED;
            }
            let name = dashed(r, key);
            set_reply_field(r, &escaped_name(&name), values, replaces != 0)
        })
    }

    fn ngx_http_lua_ffi_get_resp_header(
        _r: R, key: *const u8, key_len: usize, _buf: *mut u8, out: *mut Str, out_max: c_int,
        message: Message,
    ) -> c_int {
        put(message, c"no memory".as_ptr());
        let key = bytes(key, key_len);
        answer(WITH_REQUEST, |r| {
            let name = dashed(r, key);
            let values = reply_values(r, &name);
            let values = &values[..values.len().min(out_max.max(0) as usize)];
            let (start, _) = give(values.concat());
            let mut at = 0;
            for (n, value) in values.iter().enumerate() {
                out.add(n).write(Str { data: start.add(at), len: value.len() as c_int });
                at += value.len();
            }
            values.len() as c_int
        })
    }

    fn ngx_http_lua_ffi_req_get_headers_count(
        _r: R, max: c_int, truncated: *mut c_int,
    ) -> c_int {
        put(truncated, 0);
        answer(WITH_REQUEST, |r| {
            let all = r.head.fields.len();
            let max = limit(max);
            if all > max {
                put(truncated, 1);
            }
            all.min(max) as c_int
        })
    }

    /// `out` has room for `count` pairs.
    fn ngx_http_lua_ffi_req_get_headers(
        _r: R, out: *mut Pair, count: c_int, raw: c_int,
    ) -> c_int {
        answer(WITH_REQUEST, |r| {
            let fields: Vec<_> = r.head.fields.iter().take(count.max(0) as usize).collect();
            let names: Vec<u8> = fields.iter().flat_map(|f| f.name.iter().copied()).collect();
            let (start, _) = give(match raw {
                0 => names.to_ascii_lowercase(),
                _ => names,
            });
            let mut at = 0;
            for (n, field) in fields.iter().enumerate() {
                let key = Str { data: start.add(at), len: field.name.len() as c_int };
                out.add(n).write(Pair { key, value: Str::of(field.value) });
                at += field.name.len();
            }
            OK
        })
    }

    fn ngx_http_lua_ffi_req_set_header(
        _r: R, key: *const u8, key_len: usize, value: *const u8, value_len: usize,
        values: *const Str, values_len: usize, replaces: c_int, message: Message,
    ) -> c_int {
        let key = bytes(key, key_len);
        let is_nil = c_int::from(value.is_null() && values.is_null());
        let values = given(is_nil, (value, value_len), (values, values_len));
        put(message, c"no memory".as_ptr());
        answer(WITH_REQUEST, |r| {
            set_request_field(r, &escaped_name(key), &values, replaces != 0)
        })
    }
}

/// The name of a reply's field as code writes it: `content_type`.
fn dashed(r: &Request, key: &[u8]) -> Vec<u8> {
    let dash = if r.conf::<Lua>().underscores { b'-' } else { b'_' };
    key.iter().map(|b| if *b == b'_' { dash } else { *b }).collect()
}

/// `-1` is the default, 0 is no limit.
pub fn limit(max: c_int) -> usize {
    match max {
        ..0 => FIELDS_MAX,
        0 => usize::MAX,
        max => max as usize,
    }
}

/// The values of a call: none, one or many, fit for the wire.
///
/// # Safety
/// As for the functions of the ABI.
unsafe fn given(is_nil: c_int, one: (*const u8, usize), many: (*const Str, usize)) -> Vec<Vec<u8>> {
    if is_nil != 0 {
        return Vec::new();
    }
    // SAFETY: the caller's; the strings lie in a row.
    unsafe {
        if many.0.is_null() {
            return vec![escaped_value(bytes(one.0, one.1))];
        }
        (0..many.1).map(|n| escaped_value((*many.0.add(n)).bytes())).collect()
    }
}

/// Without bytes that would end the field.
fn escaped_value(text: &[u8]) -> Vec<u8> {
    escaped(text, |byte| byte.is_ascii_control() && byte != b'\t')
}

/// Without bytes that are none of a field's name (RFC 9110, 5.1).
fn escaped_name(text: &[u8]) -> Vec<u8> {
    escaped(text, |byte| !byte.is_ascii_graphic() || b"\"(),/:;<=>?@[\\]{}".contains(&byte))
}

fn escaped(text: &[u8], is_bad: impl Fn(u8) -> bool) -> Vec<u8> {
    if !text.iter().any(|byte| is_bad(*byte)) {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        match is_bad(*byte) {
            true => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => out.push(*byte),
        }
    }
    out
}

fn set_reply_field(r: &mut Request, name: &[u8], values: Vec<Vec<u8>>, replaces: bool) -> c_int {
    // The connection's own.
    let is_ours = matches!(HeaderId::of(name), HeaderId::Connection | HeaderId::TransferEncoding);
    if is_ours && !values.is_empty() {
        return DECLINED;
    }
    // A length that is none is as good as none.
    r.reply.put_field(name, &values, replaces);
    OK
}

fn reply_values(r: &Request, name: &[u8]) -> Vec<Vec<u8>> {
    let reply = &r.reply;
    let one = |value: Option<Vec<u8>>| value.into_iter().collect();
    match name.to_ascii_lowercase().as_slice() {
        b"content-type" => {
            let mut media = Vec::new();
            one(reply.push_content_type(&mut media).then_some(media))
        }
        b"content-length" => one(run::length_of(r).map(|len| len.to_string().into_bytes())),
        b"last-modified" => {
            one(reply.last_modified.map(|at| Calendar::utc(at).http_date().as_bytes().to_vec()))
        }
        b"etag" => one(reply.etag.as_ref().map(|tag| tag.as_bytes().to_vec())),
        lower => named(&reply.fields, lower),
    }
}

fn named(fields: &Fields, name: &[u8]) -> Vec<Vec<u8>> {
    let of_name = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    of_name.map(|field| field.value.to_vec()).collect()
}

fn set_request_field(r: &mut Request, name: &[u8], values: &[Vec<u8>], replaces: bool) -> c_int {
    if name.is_empty() {
        return ERROR;
    }
    // A host or a length that is none is as good as none.
    r.put_field(name, values, replaces);
    OK
}
