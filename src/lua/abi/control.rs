//! The phase, the end of it, `ngx.ctx`, `ngx.status`, and the log.

use super::{AGAIN, DONE, ERROR, Message, NO_REQUEST, OK, R, answer, export, functions};
use super::{bytes, in_phase, need_text, put};
use crate::http::Request;
use crate::log::{self, Level};
use crate::lua::crew::Crew;
use crate::lua::phase::{self, BALANCER, HEADER_FILTER, MAY_WAIT, WITH_REQUEST, YIELDABLE};
use crate::lua::run::{self, Lines, Progress};
use crate::lua::vm::{self, Ctx, Stack, Value};
use crate::lua::voice;
use mlua_sys::LUA_TTABLE;
use std::ffi::c_int;

export! {
    fn ngx_http_lua_ffi_get_phase(_r: R, _message: Message) -> c_int {
        vm::current_phase() as c_int
    }

    fn ngx_http_lua_ffi_exit(
        _r: R, status: c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let phase = vm::current_phase();
        if matches!(status, AGAIN | DONE) {
            let says = b"bad argument to 'ngx.exit': does not accept NGX_AGAIN or NGX_DONE";
            super::put_message(says, message, len);
            return ERROR;
        }
        if phase & (YIELDABLE | HEADER_FILTER | BALANCER) == 0 {
            let says = format!("API disabled in the context of {}", phase::name(phase));
            super::put_message(says.as_bytes(), message, len);
            return ERROR;
        }
        let set = vm::with_request(|r| {
            log::debug_http!(&*r, "lua exit with code {status}");
            r.slots.of::<Progress>().exit = Some(possible_status(r, status));
        });
        match set {
            Some(()) => {}
            None => {
                voice::write(Level::Debug, format_args!("lua exit with code {status}"));
                if let Some(crew) = Crew::current() {
                    crew.exit.set(Some(status));
                }
            }
        }
        if phase & (HEADER_FILTER | BALANCER) != 0 { DONE } else { OK }
    }

    fn ngx_http_lua_ffi_get_ctx_ref(_r: R, in_tls: *mut c_int, tls: *mut c_int) -> c_int {
        put(in_tls, 0);
        put(tls, -1);
        if vm::current_phase() & phase::ALONE != 0 {
            return Crew::current().map_or(-1, |crew| crew.context.borrow().reference());
        }
        if let Some(handshake) = Crew::handshake() {
            put(in_tls, 1);
            return handshake.slots.borrow_mut().of::<Ctx>().reference();
        }
        answer(WITH_REQUEST, |r| {
            let slots = r.client.slots.borrow();
            let context = slots.as_ref().and_then(|slots| slots.get::<Ctx>());
            put(tls, context.map_or(-1, Ctx::reference));
            r.slots.of::<Progress>().context.reference()
        })
        .max(NO_REQUEST)
    }

    fn ngx_http_lua_ffi_set_ctx_ref(_r: R, reference: c_int) -> c_int {
        if let Some(crew) = Crew::current()
            && vm::current_phase() & phase::ALONE != 0
        {
            crew.context.replace(Ctx::of(reference));
            return OK;
        }
        if let Some(handshake) = Crew::handshake() {
            *handshake.slots.borrow_mut().of::<Ctx>() = Ctx::of(reference);
            return OK;
        }
        answer(WITH_REQUEST, |r| {
            r.slots.of::<Progress>().context = Ctx::of(reference);
            OK
        })
    }

    fn ngx_http_lua_ffi_get_resp_status(_r: R) -> c_int {
        answer(WITH_REQUEST, |r| c_int::from(r.reply.status))
    }

    fn ngx_http_lua_ffi_set_resp_status(_r: R, status: c_int) -> c_int {
        answer(WITH_REQUEST, |r| {
            if run::is_head_made(r) {
                log::error!(&*r, "attempt to set ngx.status after sending out response headers");
                return super::DECLINED;
            }
            r.reply.status = u16::try_from(status).unwrap_or(500);
            r.reply.reason = None;
            OK
        })
    }

    fn ngx_http_lua_ffi_set_resp_status_and_reason(
        r: R, status: c_int, reason: *const u8, len: usize,
    ) -> c_int {
        let done = ngx_http_lua_ffi_set_resp_status(r, status);
        if done == OK {
            let reason = String::from_utf8_lossy(bytes(reason, len));
            let is_clean = !reason.bytes().any(|byte| byte.is_ascii_control());
            vm::with_request(|r| r.reply.reason = is_clean.then(|| (&*reason).into()));
        }
        done
    }

    fn ngx_http_lua_ffi_is_subrequest(_r: R) -> c_int {
        answer(WITH_REQUEST, |r| c_int::from(r.is_subrequest))
    }

    fn ngx_http_lua_ffi_headers_sent(_r: R) -> c_int {
        answer(WITH_REQUEST, |r| {
            let is_made = r.slots.of::<Progress>().has_said || vm::current_phase() == phase::LOG;
            c_int::from(is_made)
        })
    }

    fn ngx_http_lua_ffi_req_is_internal(_r: R) -> c_int {
        answer(WITH_REQUEST, |r| c_int::from(r.place.internal))
    }

    fn ngx_http_lua_ffi_bypass_if_checks(_r: R) {}
}

/// Behind a head that was made another status is too late; some end the connection all the same.
fn possible_status(r: &mut Request, status: c_int) -> c_int {
    if !run::is_head_made(r) || status < 300 || matches!(status, 408 | 444 | 499) {
        return status;
    }
    let sent = if r.reply.status == 0 { 200 } else { r.reply.status };
    if status != c_int::from(sent) {
        log::error!(
            &*r,
            "attempt to set status {status} via ngx.exit after sending out the response status {sent}"
        );
    }
    200
}

functions! {
    log => write_log;
    null => |stack| {
        stack.push_pointer(0);
        Ok(1)
    };
    // A number as if it were a pointer.
    pointer => |stack| {
        let number = stack.number(1).unwrap_or_default();
        stack.push_pointer(number as usize);
        Ok(1)
    };
    // The version that lua-resty-core speaks.
    set_version => |stack| {
        let version = stack.number(1).unwrap_or_default() as u32;
        super::SPOKEN.set(version);
        Ok(0)
    };
    print => |stack| write_at(stack, Level::Notice, 1);
    is_leaving => |stack| {
        let is_leaving = vm::with_request(|r| r.slots.of::<Progress>().exit.is_some());
        let is_leaving = is_leaving
            .unwrap_or_else(|| Crew::current().is_some_and(|crew| crew.exit.get().is_some()));
        stack.push(&Value::Bool(is_leaving));
        Ok(1)
    };
    // Whether an ffi function left something to wait for.
    is_about_to_wait => |stack| {
        stack.push(&Value::Bool(vm::is_about_to_wait()));
        Ok(1)
    };
    // Fails if the running code may not wait for something of its request.
    may_ask => |_| in_phase(MAY_WAIT, |_| 0);
    // Fails if the head of the reply is made already.
    before_head => |stack| {
        let what = need_text(stack, 1)?;
        let is_made = in_phase(MAY_WAIT, |r| r.slots.of::<Progress>().has_said)?;
        match is_made {
            true => Err([b"attempt to call ", &*what, b" after sending out response headers"]
                .concat()),
            false => Ok(0),
        }
    };
    // The args and the URI, for `ngx.exec`.
    args_and_uri => |stack| {
        let (args, uri) = in_phase(WITH_REQUEST, |r| (r.place.args.clone(), r.place.uri.clone()))?;
        stack.push_text(&args);
        stack.push_text(&uri);
        Ok(2)
    };
}

/// `ngx.log(level, …)`
fn write_log(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let found = stack.kind_name(1);
    let number = stack.number(1).ok_or_else(|| {
        format!("bad argument #1 to 'log' (number expected, got {found})").into_bytes()
    })?;
    let level = super::process::level_of(number as c_int);
    let level = level.ok_or_else(|| format!("bad log level: {}", number as i64).into_bytes())?;
    write_at(stack, level, 2)
}

fn write_at(stack: &mut Stack, level: Level, first: c_int) -> Result<c_int, Vec<u8>> {
    if !log::reaches(level) {
        return Ok(0);
    }
    if (first..=stack.top()).any(|at| stack.kind(at) == LUA_TTABLE) {
        // Lua asks them what they are, and comes again.
        stack.push(&Value::Bool(true));
        return Ok(1);
    }
    let mut line = b"[lua] ".to_vec();
    line.extend(stack.caller());
    for at in first..=stack.top() {
        super::output::append(stack, at, &mut line)?;
    }
    voice::write(level, format_args!("{}", Lines(&line)));
    Ok(0)
}
