//! Which worker this is, and the environment.

use super::{DECLINED, export};
use crate::{event, sys};
use std::ffi::{c_char, c_int};

export! {
    /// Only workers have numbers, from 0.
    fn ngx_http_lua_ffi_worker_id() -> c_int {
        if event::role().serves() { event::seat() as c_int } else { -1 }
    }

    fn ngx_http_lua_ffi_worker_pid() -> c_int {
        sys::process::id() as c_int
    }

    fn ngx_http_lua_ffi_worker_count() -> c_int {
        event::workers() as c_int
    }

    /// No process knows the others' numbers: `ngx.worker.pids` is empty.
    fn ngx_http_lua_ffi_worker_pids(_pids: *mut c_int, _len: *mut usize) -> c_int {
        super::ERROR
    }

    fn ngx_http_lua_ffi_worker_exiting() -> c_int {
        c_int::from(super::kit().map_or_else(event::is_ending, |kit| kit.is_ending()))
    }

    /// `env` has been put into the environment of the process already.
    fn ngx_http_lua_ffi_get_conf_env(
        _name: *const c_char, _buf: *mut *mut u8, _len: *mut usize,
    ) -> c_int {
        DECLINED
    }

    fn ngx_http_lua_ffi_max_regex_cache_size() -> u32 {
        super::kit().map_or(0, |kit| kit.regex_cache_entries)
    }
}
