//! The reply's body: `ngx.say`, `ngx.print`, `ngx.flush`, `ngx.eof`, `ngx.send_headers`.
//!
//! `boot.lua` lets the code wait where these functions say so; see [`crate::http::pipe`].

use super::{functions, in_phase};
use crate::http::Request;
use crate::http::pipe::{KEPT_MAX, MUCH, Pipe};
use crate::lua::phase::MAY_WAIT;
use crate::lua::run::{self, Progress};
use crate::lua::socket::{self, Refused};
use crate::lua::vm::{self, Stack, Value};
use crate::proto::h1::Version;
use mlua_sys::{LUA_TBOOLEAN, LUA_TLIGHTUSERDATA, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE};
use std::ffi::c_int;

/// Code has taken the client's connection.
const RAW: &[u8] = b"raw request socket acquired";
/// The client asked for the head alone.
const HEAD_ONLY: &[u8] = b"header only";
/// How deep tables may nest in what is said.
const NESTING_MAX: u8 = 32;

functions! {
    // Gives 1, and true if the code had better wait; or nil and the reason.
    say => |stack| say(stack, b"\n");
    print_out => |stack| say(stack, b"");
    // Gives 1 or nil and the reason; "buffering" if nothing can be sent before the end.
    flush => flush;
    eof => |stack| finish(stack, |progress| std::mem::replace(&mut progress.is_over, true));
    send_headers => |stack| finish(stack, |_| false);
    has_said => |stack| {
        let has_said = vm::with_request(|r| r.slots.of::<Progress>().has_said);
        stack.push(&Value::Bool(has_said.unwrap_or_default()));
        Ok(1)
    };
}

fn say(stack: &mut Stack, end: &[u8]) -> Result<c_int, Vec<u8>> {
    let out = in_phase(MAY_WAIT, |r| {
        if socket::is_raw(r) {
            return Err(RAW);
        }
        if is_head_only(r) {
            return Err(HEAD_ONLY);
        }
        let progress = r.slots.of::<Progress>();
        if progress.is_over {
            return Err(b"seen eof".as_slice());
        }
        if progress.is_left() {
            return Err(b"nginx output filter error");
        }
        if progress.unsent() > KEPT_MAX {
            return Err(b"no memory");
        }
        Ok(std::mem::take(&mut progress.output))
    })?;
    let mut text = match out {
        Ok(text) => text,
        Err(why) => return Ok(stack.refuse(why)),
    };
    let before = text.len();
    let said = (1..=stack.top()).try_for_each(|at| append(stack, at, &mut text));
    if said.is_err() {
        text.truncate(before);
    }
    text.extend_from_slice(end);
    let is_much = in_phase(MAY_WAIT, |r| {
        let progress = r.slots.of::<Progress>();
        progress.has_said |= said.is_ok();
        progress.output = text;
        let is_much = progress.output.len() >= MUCH;
        progress.is_flushed |= is_much;
        is_much || progress.pipe.as_ref().is_some_and(Pipe::is_full)
    })?;
    said?;
    stack.push(&Value::Number(1.0));
    stack.push(&Value::Bool(is_much));
    Ok(2)
}

/// Whether code may take the client's connection: nothing of what was said is still on its way.
pub fn may_take_connection(r: &mut Request) -> Result<(), Refused> {
    let is_old = r.head.version < Version::Http11;
    let progress = r.slots.of::<Progress>();
    match progress.has_said {
        true if is_old => Err(Refused::Says("http 1.0 buffering")),
        true if progress.unsent() > 0 => Err(Refused::Says("pending data to write")),
        _ => Ok(()),
    }
}

fn flush(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let refused = in_phase(MAY_WAIT, |r| {
        let (is_raw, is_head) = (socket::is_raw(r), is_head_only(r));
        let is_kept = !r.reply.head_sent && !run::may_send(r);
        let progress = r.slots.of::<Progress>();
        match progress {
            _ if is_raw => Some(RAW),
            _ if is_head => Some(HEAD_ONLY),
            _ if !progress.has_said => Some(b"nothing to flush".as_slice()),
            _ if progress.is_over => Some(b"seen eof".as_slice()),
            _ if is_kept => Some(b"buffering".as_slice()),
            _ => {
                progress.is_flushed = true;
                None
            }
        }
    })?;
    if let Some(why) = refused {
        return Ok(stack.refuse(why));
    }
    stack.push(&Value::Number(1.0));
    Ok(1)
}

/// Subrequests have no client that could have asked for less.
fn is_head_only(r: &Request) -> bool {
    r.is_head() && !r.is_subrequest
}

/// Fixes the head, and does `then`, which says whether that was done before.
fn finish(stack: &mut Stack, then: fn(&mut Progress) -> bool) -> Result<c_int, Vec<u8>> {
    let refused = in_phase(MAY_WAIT, |r| {
        if socket::is_raw(r) {
            return Some(RAW);
        }
        let progress = r.slots.of::<Progress>();
        (progress.has_said, progress.is_flushed) = (true, true);
        then(progress).then_some(b"seen eof".as_slice())
    })?;
    if let Some(why) = refused {
        return Ok(stack.refuse(why));
    }
    stack.push(&Value::Number(1.0));
    Ok(1)
}

/// Appends an argument as `ngx.print` writes it: a table is its elements.
pub fn append(stack: &mut Stack, at: c_int, out: &mut Vec<u8>) -> Result<(), Vec<u8>> {
    append_nested(stack, at, out, 0)
}

fn append_nested(
    stack: &mut Stack,
    at: c_int,
    out: &mut Vec<u8>,
    depth: u8,
) -> Result<(), Vec<u8>> {
    match stack.kind(at) {
        LUA_TSTRING | LUA_TNUMBER => out.extend_from_slice(stack.text(at).unwrap_or_default()),
        LUA_TNIL => out.extend_from_slice(b"nil"),
        LUA_TBOOLEAN => out.extend_from_slice(if stack.truth(at) { b"true" } else { b"false" }),
        LUA_TLIGHTUSERDATA if stack.is_null(at) => out.extend_from_slice(b"null"),
        LUA_TTABLE if depth < NESTING_MAX => {
            for n in 1..=stack.len(at) {
                if !stack.push_element(at, n) {
                    return Err(b"stack overflow".to_vec());
                }
                let top = stack.top();
                let appended = append_nested(stack, top, out, depth + 1);
                stack.pop(1);
                appended?;
            }
        }
        _ => {
            let found = stack.kind_name(at);
            return Err(format!(
                "bad argument #{at} (string, number, boolean, nil, ngx.null, or array table \
                 expected, but got {found})"
            )
            .into_bytes());
        }
    }
    Ok(())
}
