//! The request: method, arguments, body, URI.

use super::headers::{Pair, limit};
use super::text::arguments;
use super::{DECLINED, OK, R, Str, answer, export, functions, give, in_phase};
use super::{need_text, put};
use crate::http::Request;
use crate::io::{Chunk, Slice};
use crate::lua::phase::{MAY_WAIT, REWRITE, SET, WITH_REQUEST};
use crate::lua::run::{self, Progress};
use crate::lua::vm::{self, Stack, Value};
use crate::proto::header::HeaderId;
use std::ffi::c_int;
use std::rc::Rc;

/// Methods by nginx's bits, which begin with GET's.
const METHODS: [&[u8]; 15] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"OPTIONS",
    b"PROPFIND",
    b"PROPPATCH",
    b"LOCK",
    b"UNLOCK",
    b"PATCH",
    b"TRACE",
];
/// GET's bit.
const FIRST_METHOD: u32 = 1;

export! {
    fn ngx_http_lua_ffi_req_start_time(_r: R) -> f64 {
        vm::with_request(|r| r.tally.started_ms as f64 / 1000.0).unwrap_or_default()
    }

    fn ngx_http_lua_ffi_req_get_method(_r: R) -> c_int {
        answer(WITH_REQUEST, |r| {
            let at = METHODS.iter().position(|name| *name == r.method_name());
            at.map_or(1, |at| 1 << (at as u32 + FIRST_METHOD))
        })
    }

    fn ngx_http_lua_ffi_req_get_method_name(
        _r: R, name: *mut *mut u8, len: *mut usize,
    ) -> c_int {
        answer(WITH_REQUEST, |r| {
            let (data, length) = give(r.method_name().to_vec());
            put(name, data);
            put(len, length);
            OK
        })
    }

    fn ngx_http_lua_ffi_req_set_method(_r: R, method: c_int) -> c_int {
        let bit = (method as u32).trailing_zeros();
        let name = bit.checked_sub(FIRST_METHOD).and_then(|at| METHODS.get(at as usize));
        let Some(name) = name.filter(|_| method.count_ones() == 1) else { return DECLINED };
        answer(WITH_REQUEST, |r| {
            r.set_method(name);
            OK
        })
    }

    fn ngx_http_lua_ffi_req_get_uri_args_count(
        _r: R, max: c_int, truncated: *mut c_int,
    ) -> c_int {
        put(truncated, 0);
        answer(WITH_REQUEST, |r| {
            let (all, max) = (arguments(&r.place.args).count(), limit(max));
            if all > max {
                put(truncated, 1);
            }
            all.min(max) as c_int
        })
    }

    fn ngx_http_lua_ffi_req_get_querystring_len(_r: R) -> usize {
        vm::with_request(|r| r.place.args.len()).unwrap_or_default()
    }

    /// `buf` has room for the query string, which only shrinks, and `out` for `count` pairs.
    fn ngx_http_lua_ffi_req_get_uri_args(
        _r: R, buf: *mut u8, out: *mut Pair, count: c_int,
    ) -> c_int {
        answer(WITH_REQUEST, |r| {
            let (mut at, mut n) = (0, 0);
            let mut keep = |text: &[u8]| {
                let data = buf.add(at);
                std::ptr::copy_nonoverlapping(text.as_ptr(), data, text.len());
                at += text.len();
                Str { data, len: text.len() as c_int }
            };
            for (name, value) in arguments(&r.place.args).take(count.max(0) as usize) {
                let key = keep(&name);
                let value = match value {
                    Some(value) => keep(&value),
                    None => Str { data: std::ptr::null(), len: -1 },
                };
                out.add(n).write(Pair { key, value });
                n += 1;
            }
            n as c_int
        })
    }
}

functions! {
    get_body_data => |stack| {
        let body = in_phase(WITH_REQUEST, |r| r.body.in_memory())?;
        push_some(stack, body.filter(|body| !body.is_empty()))
    };
    get_body_file => |stack| {
        let path = in_phase(WITH_REQUEST, |r| {
            let path = r.body.file().and_then(|file| file.temporary_path());
            path.map(|path| path.to_string_lossy().into_owned().into_bytes())
        })?;
        push_some(stack, path)
    };
    is_body_read => |stack| {
        let is_read = in_phase(WITH_REQUEST, |r| r.body.is_read())?;
        stack.push(&Value::Bool(is_read));
        Ok(1)
    };
    discard_body => |_| in_phase(REWRITE | MAY_WAIT, |r| r.body.discard_later()).map(|()| 0);
    set_body_data => |stack| {
        let body = need_text(stack, 1)?;
        in_phase(MAY_WAIT, |r| set_body(r, body))?.map(|()| 0)
    };
    // Names and values in turn; no value is `true`.
    parse_args => |stack| {
        let text = need_text(stack, 1)?;
        let max = limit(stack.number(2).map_or(-1, |n| n as c_int));
        let mut list = Vec::new();
        let mut all = arguments(&text);
        for (name, value) in all.by_ref().take(max) {
            list.push(Value::Text(name));
            list.push(value.map_or(Value::Bool(true), Value::Text));
        }
        stack.push(&Value::List(list));
        stack.push(&Value::Bool(all.next().is_some()));
        Ok(2)
    };
    set_uri => set_uri;
    set_uri_args => |stack| {
        let args = need_text(stack, 1)?;
        in_phase(WITH_REQUEST, |r| r.place.args = args).map(|()| 0)
    };
    http_version => |stack| {
        let version = in_phase(WITH_REQUEST, |r| r.head.text(r.head.request_line).to_vec())?;
        let at = memchr::memmem::rfind(&version, b"HTTP/");
        let number = at.and_then(|at| std::str::from_utf8(&version[at + 5..]).ok()?.parse().ok());
        stack.push(&number.map_or(Value::Nil, Value::Number));
        Ok(1)
    };
    raw_header => |stack| {
        let no_line = stack.truth(1);
        let text = in_phase(WITH_REQUEST, |r| {
            let mut out = Vec::new();
            if !no_line {
                out.extend_from_slice(r.head.text(r.head.request_line));
                out.extend_from_slice(b"\r\n");
            }
            for field in r.head.fields.iter() {
                out.extend([field.name, b": ", field.value, b"\r\n"].concat());
            }
            out.extend_from_slice(b"\r\n");
            out
        })?;
        push_some(stack, Some(text))
    };
    // The reply's fields, name and value in turn.
    reply_fields => |stack| {
        let fields = in_phase(WITH_REQUEST, |r| run::fields_of(r))?;
        stack.push(&Value::List(fields));
        Ok(1)
    };
}

fn push_some(stack: &mut Stack, text: Option<Vec<u8>>) -> Result<c_int, Vec<u8>> {
    match text {
        Some(text) => stack.push_text(&text),
        None => stack.push_nil(),
    }
    Ok(1)
}

/// What the client sends must have been read before, or its rest would be the next request.
fn set_body(r: &mut Request, body: Vec<u8>) -> Result<(), Vec<u8>> {
    if !r.body.is_read() {
        return Err(b"request body not read yet".to_vec());
    }
    let head = Rc::make_mut(&mut r.head);
    let length = body.len() as u64;
    (head.content_length, head.chunked) = (Some(length), false);
    head.fields.set(HeaderId::ContentLength, length.to_string().as_bytes());
    r.body = crate::http::request_body::RequestBody::kept(vec![Chunk::Mem(Slice::from(body))]);
    Ok(())
}

/// `ngx.req.set_uri(uri, jumps)`
fn set_uri(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let (uri, jumps) = (need_text(stack, 1)?, stack.truth(2));
    if uri.is_empty() {
        return Err(b"attempt to use zero-length uri".to_vec());
    }
    if uri.iter().any(|byte| byte.is_ascii_control()) {
        return Err(b"unsafe byte in uri".to_vec());
    }
    if jumps && vm::current_phase() != REWRITE {
        return Err(b"API disabled in the current context".to_vec());
    }
    in_phase(SET | MAY_WAIT, |r| {
        r.place.uri = uri;
        (r.place.is_original, r.place.internal) = (false, true);
        r.place.begins_as_named &= jumps;
        if jumps {
            let progress = r.slots.of::<Progress>();
            (progress.jumps, progress.exit) = (true, Some(0));
        }
    })?;
    Ok(0)
}
