//! `ngx.process` and `ngx.errlog`, as lua-resty-core calls them.

use super::{DONE, ERROR, Message, OK, R, bytes, export, give, put, put_message, with_main};
use crate::event::{self, Role};
use crate::log::{self, Level};
use crate::lua::phase;
use crate::lua::{vm, voice};
use crate::sys::process;
use crate::sys::signal::Signal;
use std::ffi::{c_int, c_uint};

// Kinds of processes, by nginx's numbers.
const SINGLE: c_int = 0;
const MASTER: c_int = 1;
const WORKER: c_int = 3;
const HELPER: c_int = 4;
const PRIVILEGED: c_int = 99;

const NOT_CAPTURED: &[u8] = b"directive \"lua_capture_error_log\" is not set";

export! {
    /// The connections are those that `worker_connections` allows.
    fn ngx_http_lua_ffi_enable_privileged_agent(_message: Message, _connections: c_uint) -> c_int {
        with_main(|main| main.wants_privileged.set(true));
        OK
    }

    fn ngx_http_lua_ffi_get_process_type() -> c_int {
        if vm::current_phase() == phase::INIT {
            return MASTER;
        }
        match event::role() {
            Role::Single => SINGLE,
            Role::Worker => WORKER,
            Role::Helper => HELPER,
            Role::Privileged => PRIVILEGED,
        }
    }

    fn ngx_http_lua_ffi_process_signal_graceful_exit() {
        if vm::current_phase() != phase::INIT
            && let Err(error) = process::kill(process::id(), Signal::Quit)
        {
            log::alert!("kill() failed{}", log::Os(&error));
        }
    }

    fn ngx_http_lua_ffi_master_pid() -> c_int {
        let is_master = vm::current_phase() == phase::INIT || event::role() == Role::Single;
        (if is_master { process::id() } else { process::parent_id() }) as c_int
    }

    fn ngx_http_lua_ffi_errlog_set_filter_level(
        number: c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let level = level_of(number).filter(|_| number > 0);
        if number != 0 && level.is_none() {
            put_message(format!("bad log level: {number}").as_bytes(), message, len);
            return ERROR;
        }
        if !log::capture_up_to(level) {
            put_message(NOT_CAPTURED, message, len);
            return ERROR;
        }
        OK
    }

    /// How long the oldest line is that was not read yet.
    fn ngx_http_lua_ffi_errlog_get_msg(
        line: *mut *const u8, level: *mut c_int, message: *mut u8, len: *mut usize,
        seconds: *mut f64,
    ) -> c_int {
        match log::next_captured() {
            None => {
                put_message(NOT_CAPTURED, message, len);
                ERROR
            }
            Some(None) => DONE,
            Some(Some(captured)) => {
                let number = Level::ALL.iter().position(|level| *level == captured.level);
                put(level, number.map_or(0, |n| n as c_int + 1));
                put(seconds, captured.unix_ms as f64 / 1000.0);
                let (data, len) = give(captured.line.into());
                put(line, data.cast_const());
                len as c_int
            }
        }
    }

    /// The most talkative level that somebody writes down.
    fn ngx_http_lua_ffi_errlog_get_sys_filter_level(_r: R) -> c_int {
        let reached = Level::ALL.iter().rposition(|level| log::reaches(*level));
        reached.map_or(0, |n| n as c_int + 1)
    }

    fn ngx_http_lua_ffi_raw_log(_r: R, level: c_int, text: *const u8, len: usize) -> c_int {
        let Some(level) = level_of(level) else { return ERROR };
        voice::write(level, format_args!("{}", log::Raw(bytes(text, len))));
        OK
    }
}

/// `ngx.ERR` and its kin; `ngx.STDERR` is above all levels.
pub fn level_of(number: c_int) -> Option<Level> {
    match number {
        0 => Some(Level::Emerg),
        n => Level::ALL.get(usize::try_from(n).ok()?.checked_sub(1)?).copied(),
    }
}
