//! The request: method, arguments, body, URI.

use super::headers::{Pair, limit};
use super::text::arguments;
use super::{DECLINED, OK, R, Str, answer, export, functions, give, in_phase};
use super::{need_text, put};
use crate::conf::os_error;
use crate::http::Request;
use crate::http::pipe::KEPT_MAX;
use crate::http::request_body::{KeepRules, Keeper, RequestBody};
use crate::io::{Chunk, OpenFile, Slice};
use crate::log::{self, Level};
use crate::lua::phase::{
    self, BODY_FILTER, HEADER_FILTER, LOG, MAY_WAIT, REWRITE, SERVER_REWRITE, SET, WITH_REQUEST,
};
use crate::lua::run::{self, Progress};
use crate::lua::vm::{self, Stack, Value};
use crate::lua::voice;
use crate::proto::h1::Version;
use crate::proto::header::HeaderId;
use crate::sys::file::{Keep, TempFile};
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
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
                log::debug_http!(&*r, "lua hit query args limit {max}");
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
            let all = arguments(&r.place.args).take(count.max(0) as usize);
            for (name, value) in all.filter(|(name, _)| !name.is_empty()) {
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
        let body = RequestBody::kept(vec![Chunk::Mem(Slice::from(body))]);
        in_phase(MAY_WAIT, |r| set_body(r, body))?.map(|()| 0)
    };
    set_body_file => |stack| {
        let (path, is_ours) = (need_text(stack, 1)?, stack.truth(2));
        in_phase(MAY_WAIT, |r| set_body_file(r, &path, is_ours))?.map(|()| 0)
    };
    init_body => |stack| {
        let room = stack.number(1).map(|room| room as u64);
        in_phase(MAY_WAIT, |r| init_body(r, room))?.map(|()| 0)
    };
    append_body => |stack| {
        let piece = need_text(stack, 1)?;
        in_phase(MAY_WAIT, |r| match &mut r.slots.of::<Writing>().0 {
            Some(keeper) => keeper.add(Chunk::Mem(Slice::from(piece))).map_err(|f| f.what.into()),
            None => Err(b"request_body not initialized".to_vec()),
        })?
        .map(|()| 0)
    };
    finish_body => |_| in_phase(MAY_WAIT, finish_body)?.map(|()| 0);
    // Names and values in turn; no value is `true`.
    parse_args => |stack| {
        let text = need_text(stack, 1)?;
        let max = limit(stack.number(2).map_or(-1, |n| n as c_int));
        let mut list = Vec::new();
        let mut all = arguments(&text);
        for (name, value) in all.by_ref().take(max).filter(|(name, _)| !name.is_empty()) {
            list.push(Value::Text(name));
            list.push(value.map_or(Value::Bool(true), Value::Text));
        }
        stack.push(&Value::List(list));
        let is_cut = all.next().is_some();
        if is_cut {
            voice::write(Level::Debug, format_args!("lua hit query args limit {max}"));
        }
        stack.push(&Value::Bool(is_cut));
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
    // The reply's fields, name and value in turn, and whether there are more.
    reply_fields => |stack| {
        let max = limit(stack.number(1).map_or(-1, |n| n as c_int));
        let mut fields = in_phase(WITH_REQUEST, |r| {
            let mut fields = run::fields_of(r);
            fields.extend(connection_fields(r));
            fields
        })?;
        let count = fields.len() / 2;
        if count > max {
            fields.truncate(2 * max);
            let says = format_args!("lua exceeding response header limit {count} > {max}");
            voice::write(Level::Debug, says);
        }
        stack.push(&Value::List(fields));
        stack.push(&Value::Bool(count > max));
        Ok(2)
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
/// What the head will say of the connection, as far as it is settled.
fn connection_fields(r: &Request) -> Vec<Value> {
    if r.head.version >= Version::Http2 || r.is_subrequest {
        return Vec::new();
    }
    let is_made = vm::current_phase() & (HEADER_FILTER | BODY_FILTER | LOG) != 0;
    let is_chunked = is_made && r.head.version == Version::Http11 && run::length_of(r).is_none();
    let connection = if r.keep_alive { "keep-alive" } else { "close" };
    let chunked = is_chunked.then_some(["Transfer-Encoding", "chunked"]);
    let pairs = chunked.into_iter().chain([["Connection", connection]]);
    pairs.flatten().map(|text| Value::Text(text.into())).collect()
}

/// A body that code is writing.
#[derive(Default)]
struct Writing(Option<Keeper>);

fn set_body(r: &mut Request, body: RequestBody) -> Result<(), Vec<u8>> {
    if r.body.is_untouched() {
        return Err(b"request body not read yet".to_vec());
    }
    let head = Rc::make_mut(&mut r.head);
    let length = body.kept_len();
    (head.content_length, head.chunked) = (Some(length), false);
    head.fields.set(HeaderId::ContentLength, length.to_string().as_bytes());
    r.body = body;
    Ok(())
}

/// `is_ours`: the file is removed with the request.
fn set_body_file(r: &mut Request, path: &[u8], is_ours: bool) -> Result<(), Vec<u8>> {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    let keep = if is_ours { Keep::WhileUsed } else { Keep::ForGood };
    let file = TempFile::adopt(path, keep).map_err(|error| {
        let says = format!("open() \"{}\" failed ({})", path.display(), os_error(&error));
        log::error!(&*r, "{says}");
        says.into_bytes()
    })?;
    set_body(r, RequestBody::of_file(OpenFile::temporary(file)))
}

/// `room`: bytes that stay in memory, `client_body_buffer_size` if it is not said.
fn init_body(r: &mut Request, room: Option<u64>) -> Result<(), Vec<u8>> {
    if r.body.is_untouched() {
        return Err(b"request body not read yet".to_vec());
    }
    let mut rules = KeepRules::of(r);
    rules.memory_bytes = room.unwrap_or(rules.memory_bytes).min(KEPT_MAX as u64);
    // What code makes itself no client has sent.
    rules.max_bytes = 0;
    r.slots.of::<Writing>().0 = Some(Keeper::new(rules));
    Ok(())
}

fn finish_body(r: &mut Request) -> Result<(), Vec<u8>> {
    let keeper = r.slots.of::<Writing>().0.take();
    let keeper = keeper.ok_or_else(|| b"request_body not initialized".to_vec())?;
    let body = keeper.finish().map_err(|fault| fault.what.into_bytes())?;
    set_body(r, body)
}

/// `ngx.req.set_uri(uri, jumps)`
fn set_uri(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let (uri, jumps, is_binary) = (need_text(stack, 1)?, stack.truth(2), stack.truth(3));
    if uri.is_empty() {
        return Err(b"attempt to use zero-length uri".to_vec());
    }
    let unsafe_byte = uri.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t');
    if let Some(byte) = unsafe_byte.filter(|_| !is_binary) {
        let mut shown = String::new();
        for byte in &uri {
            match byte.is_ascii_control() {
                true => shown.push_str(&format!("\\x{byte:02X}")),
                false => shown.push(char::from(*byte)),
            }
        }
        return Err(format!(
            "unsafe byte \"0x{byte:02x}\" in uri \"{shown}\" (maybe you want to set the 'binary' \
             argument?)"
        )
        .into_bytes());
    }
    if jumps && vm::current_phase() & (REWRITE | SERVER_REWRITE) == 0 {
        let phase = phase::name(vm::current_phase());
        return Err(format!("API disabled in the context of {phase}").into_bytes());
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
