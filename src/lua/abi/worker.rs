//! Which worker this is, and the environment.

use super::{DECLINED, export, put};
use crate::{event, sys};
use std::ffi::{c_char, c_int};

/// Room for numbers of processes in lua-resty-core that does not say how much there is.
const PIDS_MAX: usize = 1024;

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

    /// All workers of the tree, as many as there is room for. At first nobody said for how many.
    fn ngx_http_lua_ffi_worker_pids(pids: *mut c_int, len: *mut usize) -> c_int {
        let workers = event::census::workers();
        let says_room = super::SPOKEN.get() >= super::VERSION_OF_PIDS_ROOM;
        let count = workers.len().min(if says_room { len.read() } else { PIDS_MAX });
        for (at, pid) in workers.iter().take(count).enumerate() {
            pids.add(at).write(*pid as c_int);
        }
        put(len, count);
        super::OK
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
