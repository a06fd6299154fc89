//! The reply's body: `ngx.say`, `ngx.print`, `ngx.flush`, `ngx.eof`, `ngx.send_headers`.
//!
//! What is said is kept until the code of the phase has ended, and leaves as one reply.

use super::{functions, in_phase};
use crate::lua::phase::MAY_WAIT;
use crate::lua::run::Progress;
use crate::lua::vm::{Stack, Value};
use mlua_sys::{LUA_TBOOLEAN, LUA_TLIGHTUSERDATA, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE};
use std::ffi::c_int;

/// How deep tables may nest in what is said.
const NESTING_MAX: u8 = 32;

functions! {
    say => |stack| say(stack, b"\n");
    print_out => |stack| say(stack, b"");
    flush => |stack| finish(stack, |_| ());
    eof => |stack| finish(stack, |progress| progress.is_over = true);
    send_headers => |stack| finish(stack, |_| ());
}

fn say(stack: &mut Stack, end: &[u8]) -> Result<c_int, Vec<u8>> {
    let mut out = in_phase(MAY_WAIT, |r| {
        let progress = r.slots.of::<Progress>();
        (!progress.is_over).then(|| std::mem::take(&mut progress.output))
    })?;
    let Some(mut text) = out.take() else {
        stack.push_nil();
        stack.push_text(b"seen eof");
        return Ok(2);
    };
    let before = text.len();
    let said = (1..=stack.top()).try_for_each(|at| append(stack, at, &mut text));
    if said.is_err() {
        text.truncate(before);
    }
    text.extend_from_slice(end);
    in_phase(MAY_WAIT, |r| {
        let progress = r.slots.of::<Progress>();
        progress.has_said |= said.is_ok();
        progress.output = text;
    })?;
    said?;
    stack.push(&Value::Number(1.0));
    Ok(1)
}

fn finish(stack: &mut Stack, then: fn(&mut Progress)) -> Result<c_int, Vec<u8>> {
    in_phase(MAY_WAIT, |r| {
        let progress = r.slots.of::<Progress>();
        progress.has_said = true;
        then(progress);
    })?;
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
                stack.push_element(at, n);
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
