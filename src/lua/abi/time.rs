//! The time of the worker's turn, and its spellings.

use super::{bytes, export, functions, put};
use crate::event::Deadline;
use crate::lua::vm::{Operation, Stack};
use crate::proto::date;
use crate::sys::time::{self, Calendar};
use std::ffi::{c_int, c_long};
use std::task::{Context, Poll};
use std::time::Duration;

export! {
    fn ngx_http_lua_ffi_now() -> f64 {
        time::unix_ms() as f64 / 1000.0
    }

    fn ngx_http_lua_ffi_time() -> c_long {
        time::unix_seconds()
    }

    fn ngx_http_lua_ffi_monotonic_msec() -> c_long {
        time::monotonic_ms() as c_long
    }

    /// `dst` has room for ten bytes.
    fn ngx_http_lua_ffi_today(dst: *mut u8) {
        let stamp = dashed(Calendar::local(time::unix_seconds()));
        std::ptr::copy_nonoverlapping(stamp.as_ptr(), dst, 10);
    }

    /// Nineteen bytes.
    fn ngx_http_lua_ffi_localtime(dst: *mut u8) {
        let stamp = dashed(Calendar::local(time::unix_seconds()));
        std::ptr::copy_nonoverlapping(stamp.as_ptr(), dst, stamp.len());
    }

    /// Nineteen bytes.
    fn ngx_http_lua_ffi_utctime(dst: *mut u8) {
        let stamp = dashed(Calendar::utc(time::unix_seconds()));
        std::ptr::copy_nonoverlapping(stamp.as_ptr(), dst, stamp.len());
    }

    fn ngx_http_lua_ffi_update_time() {
        time::tick(std::time::Instant::now());
    }

    /// `dst` has room for 29 bytes and more.
    fn ngx_http_lua_ffi_cookie_time(dst: *mut u8, at: c_long) -> c_int {
        let stamp = Calendar::utc(at).http_date();
        // A cookie's date has dashes: `Sun, 06-Nov-94 08:49:37 GMT`.
        let text = stamp.as_str();
        let year = if at > 2_145_916_799 { &text[12..16] } else { &text[14..16] };
        let text = format!("{}-{}-{year}{}", &text[..7], &text[8..11], &text[16..]);
        std::ptr::copy_nonoverlapping(text.as_ptr(), dst, text.len());
        text.len() as c_int
    }

    /// 29 bytes.
    fn ngx_http_lua_ffi_http_time(dst: *mut u8, at: c_long) {
        let stamp = Calendar::utc(at).http_date();
        std::ptr::copy_nonoverlapping(stamp.as_bytes().as_ptr(), dst, 29);
    }

    fn ngx_http_lua_ffi_parse_http_time(text: *const u8, len: usize, at: *mut c_long) {
        put(at, date::parse(bytes(text, len)).unwrap_or(-1));
    }
}

functions! {
    sleep => sleep;
}

/// `ngx.sleep(seconds)`
fn sleep(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let found = stack.kind_name(1);
    let seconds = stack.number(1).ok_or_else(|| {
        format!("bad argument #1 to 'sleep' (number expected, got {found})").into_bytes()
    })?;
    let time = Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("invalid sleep duration \"{seconds}\"").into_bytes())?;
    super::may_wait()?;
    stack.wait_for(Box::new(Sleep(Deadline::after(time))))
}

struct Sleep(Deadline);

impl Operation for Sleep {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }

    fn finish(&mut self, _: &mut Stack) -> c_int {
        0
    }
}

fn dashed(calendar: Calendar) -> Vec<u8> {
    let slashed = calendar.error_log();
    slashed.as_bytes().iter().map(|b| if *b == b'/' { b'-' } else { *b }).collect()
}
