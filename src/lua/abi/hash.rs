//! Hashes and base64.

use super::{export, functions, need_text};
use crate::lua::vm::Stack;
use crate::proto::digits::{from_base64, hex};
use crate::proto::escape;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use std::ffi::c_int;

export! {
    fn ngx_http_lua_ffi_md5_bin(src: *const u8, len: usize, dst: *mut u8) {
        let sum = Md5::digest(super::bytes(src, len));
        std::ptr::copy_nonoverlapping(sum.as_ptr(), dst, sum.len());
    }

    fn ngx_http_lua_ffi_md5(src: *const u8, len: usize, dst: *mut u8) {
        let text = hex(&Md5::digest(super::bytes(src, len)));
        std::ptr::copy_nonoverlapping(text.as_ptr(), dst, text.len());
    }

    fn ngx_http_lua_ffi_sha1_bin(src: *const u8, len: usize, dst: *mut u8) -> c_int {
        let sum = Sha1::digest(super::bytes(src, len));
        std::ptr::copy_nonoverlapping(sum.as_ptr(), dst, sum.len());
        1
    }

    fn ngx_http_lua_ffi_crc32_long(src: *const u8, len: usize) -> u32 {
        crc32(super::bytes(src, len))
    }

    fn ngx_http_lua_ffi_crc32_short(src: *const u8, len: usize) -> u32 {
        crc32(super::bytes(src, len))
    }

    /// `dst` has room for the text: lua-resty-core computes its length.
    fn ngx_http_lua_ffi_encode_base64(
        src: *const u8, len: usize, dst: *mut u8, no_padding: c_int,
    ) -> usize {
        let engine = if no_padding == 0 { &PADDED } else { &STANDARD_NO_PAD };
        let text = engine.encode(super::bytes(src, len));
        std::ptr::copy_nonoverlapping(text.as_ptr(), dst, text.len());
        text.len()
    }

    /// `dst` has room for three bytes of every four.
    fn ngx_http_lua_ffi_decode_base64(
        src: *const u8, len: usize, dst: *mut u8, out_len: *mut usize,
    ) -> c_int {
        let Some(plain) = from_base64(super::bytes(src, len)) else { return 0 };
        std::ptr::copy_nonoverlapping(plain.as_ptr(), dst, plain.len());
        super::put(out_len, plain.len());
        1
    }

    /// What is no letter of the alphabet is passed over.
    fn ngx_http_lua_ffi_decode_base64mime(
        src: *const u8, len: usize, dst: *mut u8, out_len: *mut usize,
    ) -> c_int {
        let is_letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        let text = super::bytes(src, len).iter().copied().filter(is_letter).collect::<Vec<_>>();
        let Some(plain) = from_base64(&text) else { return 0 };
        std::ptr::copy_nonoverlapping(plain.as_ptr(), dst, plain.len());
        super::put(out_len, plain.len());
        1
    }
}

functions! {
    hmac_sha1 => hmac_sha1;
    quote_sql_str => quote_sql_str;
}

/// `ngx.hmac_sha1(secret, text)`: 20 bytes.
fn hmac_sha1(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let (secret, text) = (need_text(stack, 1)?, need_text(stack, 2)?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&secret).map_err(|e| e.to_string().into_bytes())?;
    mac.update(&text);
    stack.push_text(&mac.finalize().into_bytes());
    Ok(1)
}

/// `ngx.quote_sql_str(text)`: as MySQL wants it, with quotes.
fn quote_sql_str(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let text = need_text(stack, 1)?;
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'\'');
    escape::push_sql(&text, false, &mut out);
    out.push(b'\'');
    stack.push_text(&out);
    Ok(1)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
