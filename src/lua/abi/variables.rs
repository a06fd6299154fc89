//! `ngx.var`.

use super::{DECLINED, ERROR, Message, OK, R, bytes, export, give, put, with_main};
use crate::http::variable::NotAssigned;
use crate::lua::phase::WITH_REQUEST;
use crate::lua::vm;
use std::ffi::c_int;

export! {
    fn ngx_http_lua_ffi_var_get(
        _r: R, name: *const u8, name_len: usize, _lower: *mut u8, capture: c_int,
        value: *mut *mut u8, value_len: *mut usize, message: Message,
    ) -> c_int {
        if vm::current_phase() & WITH_REQUEST == 0 {
            put(message, c"API disabled in the current context".as_ptr());
            return ERROR;
        }
        let mut out = Vec::new();
        let found = match name.is_null() {
            true => vm::with_request(|r| {
                let captures = r.captures.borrow();
                let group = usize::try_from(capture).unwrap_or(usize::MAX);
                let is_there = group < captures.len();
                if is_there {
                    captures.append(group as u8, &mut out);
                }
                is_there && !out.is_empty()
            }),
            false => get(bytes(name, name_len), &mut out),
        };
        if found != Some(true) {
            return DECLINED;
        }
        let (data, len) = give(out);
        put(value, data);
        put(value_len, len);
        OK
    }

    fn ngx_http_lua_ffi_var_set(
        _r: R, name: *const u8, name_len: usize, _lower: *mut u8, value: *const u8,
        value_len: usize, message: *mut u8, message_len: *mut usize,
    ) -> c_int {
        let name = String::from_utf8_lossy(bytes(name, name_len)).to_ascii_lowercase();
        let value = bytes(value, value_len);
        let set = with_main(|main| {
            vm::with_request(|r| main.variables.set(r, &name, value))
        });
        let says = match set.flatten() {
            Some(Ok(())) => return OK,
            None => "API disabled in the current context".to_owned(),
            Some(Err(NotAssigned::Fixed)) => format!("variable \"{name}\" not changeable"),
            Some(Err(NotAssigned::Unknown)) => format!(
                "variable \"{name}\" not found for writing; maybe it is a built-in variable that \
                 is not changeable or you forgot to use \"set ${name} '';\" in the config file to \
                 define it first"
            ),
        };
        super::put_message(says.as_bytes(), message, message_len);
        ERROR
    }
}

fn get(name: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    with_main(|main| vm::with_request(|r| main.variables.get(r, &name, out))).flatten()
}
