//! Escaping.

use super::{bytes, export};
use crate::proto::escape::Escape;
use std::ffi::c_int;

export! {
    fn ngx_http_lua_ffi_uri_escaped_length(src: *const u8, len: usize, kind: c_int) -> usize {
        len + 2 * escape(kind).count(bytes(src, len))
    }

    /// `dst` has room for the length that was asked for before.
    fn ngx_http_lua_ffi_escape_uri(src: *const u8, len: usize, dst: *mut u8, kind: c_int) {
        let mut out = Vec::new();
        escape(kind).push(bytes(src, len), &mut out);
        std::ptr::copy_nonoverlapping(out.as_ptr(), dst, out.len());
    }

    /// `dst` has room for `len` bytes; the text only shrinks.
    fn ngx_http_lua_ffi_unescape_uri(src: *const u8, len: usize, dst: *mut u8) -> usize {
        let plain = unescape(bytes(src, len));
        std::ptr::copy_nonoverlapping(plain.as_ptr(), dst, plain.len());
        plain.len()
    }

    fn ngx_http_lua_ffi_str_replace_char(buf: *mut u8, len: usize, find: u8, replace: u8) {
        for at in 0..len {
            if *buf.add(at) == find {
                *buf.add(at) = replace;
            }
        }
    }
}

/// The number is that of lua-nginx-module's escape types.
pub fn escape(kind: c_int) -> Escape {
    match kind {
        0 => Escape::LuaUri,
        1 => Escape::LuaArgs,
        3 => Escape::LuaHtml,
        4 => Escape::LuaRefresh,
        5 | 6 => Escape::Memcached,
        _ => Escape::LuaComponent,
    }
}

/// `%XX` and `+` as in forms; what is no such pair stands for itself.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| (*b as char).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        let pair = digit(at + 1).zip(digit(at + 2)).filter(|_| byte == b'%');
        match pair {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    out
}

/// `a=1&b&c=2`: names and values, no value where there is no `=`. One without a name counts, and
/// says nothing.
pub fn arguments(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> + '_ {
    let pairs = text.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], Some(&pair[at + 1..])),
            None => (pair, None),
        };
        (unescape(name), value.map(unescape))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_openresty_reads_them() {
        assert_eq!(unescape(b"a%20b+c%2"), b"a b c%2");
        assert_eq!(unescape(b"%zz%41"), b"%zzA");
        let read: Vec<_> = arguments(b"a=1&b&&=x&c=%3D&d=").collect();
        let is = |name: &str, value: Option<&str>| {
            (name.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec()))
        };
        assert_eq!(
            read,
            [
                is("a", Some("1")),
                is("b", None),
                is("", Some("x")),
                is("c", Some("=")),
                is("d", Some(""))
            ]
        );
    }
}
