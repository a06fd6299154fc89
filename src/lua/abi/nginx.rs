//! nginx's own functions that libraries of Lua call by name: OpenResty's executable shows them all.
//!
//! Here are those that libraries are known to use: lua-resty-string, `ngx.base64`, APISIX's core,
//! lua-resty-events.

use super::{ERROR, OK, bytes, export, text};
use crate::lua::{phase, vm};
use crate::proto::digits::{from_base64_url, hex, to_base64_url};
use std::ffi::c_int;

/// A string of nginx's.
#[repr(C)]
pub struct NgxStr {
    pub len: usize,
    pub data: *mut u8,
}

export! {
    /// `dst` has room for two bytes of each; what is given back is its end.
    fn ngx_hex_dump(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
        let text = hex(bytes(src, len));
        std::ptr::copy_nonoverlapping(text.as_ptr(), dst, text.len());
        dst.add(text.len())
    }

    fn ngx_atoi(text: *const u8, len: usize) -> isize {
        number(bytes(text, len), 10)
    }

    fn ngx_hextoi(text: *const u8, len: usize) -> isize {
        number(bytes(text, len), 16)
    }

    /// Without a `dst`, how many bytes are to be escaped; else the end of what was written, and
    /// there is room for that.
    fn ngx_escape_uri(dst: *mut u8, src: *const u8, len: usize, kind: usize) -> usize {
        let how = text::escape(c_int::try_from(kind).unwrap_or(c_int::MAX));
        if dst.is_null() {
            return how.count(bytes(src, len));
        }
        let mut out = Vec::new();
        how.push(bytes(src, len), &mut out);
        std::ptr::copy_nonoverlapping(out.as_ptr(), dst, out.len());
        dst.add(out.len()) as usize
    }

    /// The caller has made room for four bytes of every three.
    fn ngx_encode_base64url(dst: *mut NgxStr, src: *mut NgxStr) {
        let text = to_base64_url(bytes((*src).data, (*src).len));
        std::ptr::copy_nonoverlapping(text.as_ptr(), (*dst).data, text.len());
        (*dst).len = text.len();
    }

    /// The caller has made room for three bytes of every four.
    fn ngx_decode_base64url(dst: *mut NgxStr, src: *mut NgxStr) -> isize {
        let Some(plain) = from_base64_url(bytes((*src).data, (*src).len)) else {
            return ERROR as isize;
        };
        std::ptr::copy_nonoverlapping(plain.as_ptr(), (*dst).data, plain.len());
        (*dst).len = plain.len();
        OK as isize
    }

    /// This process will take no connections from the unix socket; others do. Sockets are opened
    /// when code of `init_worker_by_lua` has run, so only that can ask.
    fn ngx_lua_ffi_disable_listening_unix_socket(name: *const NgxStr) -> c_int {
        let name = bytes((*name).data, (*name).len);
        let bound = super::http().filter(|_| vm::current_phase() == phase::INIT_WORKER);
        let bound = bound.and_then(|http| {
            let is_it = |address: String| address.as_bytes() == name;
            let mut unix = http.bound.iter().filter(|bound| bound.spec.address.is_unix());
            unix.find(|bound| is_it(bound.spec.address.to_string())).cloned()
        });
        let Some(bound) = bound else { return ERROR };
        bound.is_left_to_others.set(true);
        OK
    }
}

/// nginx's numbers have digits only; -1 is none.
fn number(text: &[u8], base: u32) -> isize {
    let is_number = !text.is_empty() && text.iter().all(|b| (*b as char).is_digit(base));
    let text = std::str::from_utf8(text).ok().filter(|_| is_number);
    text.and_then(|text| isize::from_str_radix(text, base).ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits() {
        assert_eq!(number(b"0120", 10), 120);
        assert_eq!(number(b"fF", 16), 255);
        for bad in [&b""[..], b"+1", b"-1", b"1a", b"99999999999999999999"] {
            assert_eq!(number(bad, 10), -1);
        }
    }
}
