//! `ngx.semaphore`, as lua-resty-core calls it.

use super::{AGAIN, DECLINED, ERROR, Message, OK, R, export, may_wait, put, put_message};
use crate::lua::semaphore::{Semaphore, Wait};
use crate::lua::vm;
use std::ffi::c_int;
use std::rc::Rc;
use std::time::Duration;

export! {
    fn ngx_http_lua_ffi_sema_new(
        to: *mut *const Semaphore, n: c_int, _message: Message,
    ) -> c_int {
        put(to, Rc::into_raw(Rc::new(Semaphore::new(n.into()))));
        OK
    }

    fn ngx_http_lua_ffi_sema_post(semaphore: *const Semaphore, n: c_int) -> c_int {
        (*semaphore).post(n.max(0).into());
        OK
    }

    fn ngx_http_lua_ffi_sema_count(semaphore: *const Semaphore) -> c_int {
        (*semaphore).count().clamp(c_int::MIN.into(), c_int::MAX.into()) as c_int
    }

    fn ngx_http_lua_ffi_sema_wait(
        _r: R, semaphore: *const Semaphore, wait_ms: c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        if let Err(says) = may_wait() {
            put_message(&says, message, len);
            return ERROR;
        }
        if (*semaphore).take() {
            return OK;
        }
        if wait_ms <= 0 {
            return DECLINED;
        }
        // The caller's cdata keeps one count; this is another.
        Rc::increment_strong_count(semaphore);
        let time = Duration::from_millis(wait_ms as u64);
        vm::wait_soon(Box::new(Wait::begin(Rc::from_raw(semaphore), time)));
        AGAIN
    }

    fn ngx_http_lua_ffi_sema_gc(semaphore: *const Semaphore) {
        if !semaphore.is_null() {
            drop(Rc::from_raw(semaphore));
        }
    }
}
