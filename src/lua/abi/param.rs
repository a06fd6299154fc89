//! `ngx.arg`: the arguments of `set_by_lua`, and the piece of a body that a filter sees.

use super::{AGAIN, ERROR, OK, R, export, functions, give, in_phase, put};
use crate::lua::body_filter::Piece;
use crate::lua::phase::{BODY_FILTER, SET};
use crate::lua::run::Progress;
use crate::lua::vm::{self, Stack};
use mlua_sys::{LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE};
use std::ffi::c_int;

export! {
    /// The first is number 1.
    fn ngx_http_lua_ffi_get_setby_param(
        _r: R, index: c_int, value: *mut *mut u8, len: *mut usize,
    ) {
        let argument = vm::with_request(|r| {
            let arguments = &r.slots.of::<Progress>().arguments;
            usize::try_from(index - 1).ok().and_then(|n| arguments.get(n).cloned())
        });
        let (data, n) = match argument.flatten() {
            Some(text) => give(text),
            None => (std::ptr::null_mut(), 0),
        };
        put(value, data);
        put(len, n);
    }

    fn ngx_http_lua_ffi_get_body_filter_param_eof(_r: R) -> c_int {
        c_int::from(piece(|piece| piece.is_last).unwrap_or_default())
    }

    fn ngx_http_lua_ffi_get_body_filter_param_body(
        _r: R, _data: *mut *mut u8, len: *mut usize,
    ) -> c_int {
        let n = piece(|piece| piece.bytes.len()).unwrap_or_default();
        put(len, n);
        if n == 0 { OK } else { AGAIN }
    }

    /// `to` has room for as many bytes as the function above said.
    fn ngx_http_lua_ffi_copy_body_filter_param_body(_r: R, to: *mut u8) -> c_int {
        let copied = piece(|piece| {
            // SAFETY: lua-resty-core's buffer is as long as it was told.
            unsafe { std::ptr::copy_nonoverlapping(piece.bytes.as_ptr(), to, piece.bytes.len()) }
        });
        if copied.is_some() { OK } else { ERROR }
    }
}

fn piece<T>(f: impl FnOnce(&mut Piece) -> T) -> Option<T> {
    vm::with_request(|r| r.slots.of::<Progress>().piece.as_mut().map(f)).flatten()
}

functions! {
    // `ngx.arg[index] = value`: the table, the index, the value.
    set_arg => set_arg;
}

fn set_arg(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if vm::current_phase() & SET != 0 {
        return Err(b"attempt to write to ngx.arg in set_by_lua*".to_vec());
    }
    in_phase(BODY_FILTER, |_| ())?;
    match stack.number(2).map(|index| index as i64) {
        Some(1) => {
            let mut text = Vec::new();
            match stack.kind(3) {
                LUA_TNIL => {}
                LUA_TSTRING | LUA_TNUMBER | LUA_TTABLE => {
                    super::output::append(stack, 3, &mut text)?;
                }
                _ => {
                    let found = stack.kind_name(3);
                    return Err(format!("bad chunk data type: {found}").into_bytes());
                }
            }
            piece(|piece| piece.bytes = text);
        }
        Some(2) => {
            let is_last = stack.truth(3);
            piece(|piece| piece.is_last = is_last);
        }
        Some(n) => return Err(format!("bad index to ngx.arg: {n}").into_bytes()),
        None => return Err(b"bad index to ngx.arg".to_vec()),
    }
    Ok(0)
}
