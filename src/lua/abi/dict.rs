//! `ngx.shared`: the dicts of `lua_shared_dict`, which are keyval zones too.
//!
//! Lua holds a dict by its number, from 1, as if it were a pointer.

use super::{DECLINED, ERROR, KIT, Message, OK, bytes, export, functions, need_text, put};
use crate::lua::vm::{Stack, Value};
use crate::sys::time;
use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_long, c_void};
use tollbar_shm::dict::{Error, Init, Owned, Scalar};
use tollbar_shm::{Dict, Put, Room};

/// `LUA_T…` of a value.
const NIL: c_int = 0;
const BOOL: c_int = 1;
const NUMBER: c_int = 3;
const STRING: c_int = 4;
/// What a store may do.
const ADD: c_int = 1;
const REPLACE: c_int = 2;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" {
    /// lua-resty-core frees what it gets with C's `free`.
    fn malloc(bytes: usize) -> *mut c_void;
}

export! {
    fn ngx_http_lua_ffi_shdict_udata_to_zone(udata: *mut c_void) -> *mut c_void {
        udata
    }

    fn ngx_http_lua_ffi_shdict_get(
        zone: *mut c_void, key: *const u8, key_len: usize, kind: *mut c_int,
        text: *mut *mut u8, text_len: *mut usize, number: *mut f64, flags: *mut c_int,
        stale_too: c_int, is_stale: *mut c_int, message: Message,
    ) -> c_int {
        put(message, std::ptr::null());
        let key = bytes(key, key_len);
        READ.with_borrow_mut(|read| {
            read.clear();
            let hit = with_dict(zone, |dict| match stale_too {
                0 => dict.get_into(key, time::unix_ms(), read),
                _ => dict.get_stale_into(key, time::unix_ms(), read),
            });
            let hit = match hit {
                Ok(Some(hit)) => hit,
                Ok(None) => {
                    put(kind, NIL);
                    return OK;
                }
                Err(error) => return refuse(error, message),
            };
            put(flags, hit.flags as c_int);
            put(is_stale, c_int::from(hit.stale));
            match hit.value {
                Scalar::Number(n) => {
                    put(kind, NUMBER);
                    put(number, n);
                }
                Scalar::Bool(yes) => {
                    put(kind, BOOL);
                    put(*text, u8::from(yes));
                }
                Scalar::String => {
                    put(kind, STRING);
                    if read.len() > *text_len {
                        let own = malloc(read.len());
                        if own.is_null() {
                            put(message, c"no memory".as_ptr());
                            return ERROR;
                        }
                        put(text, own.cast());
                    }
                    std::ptr::copy_nonoverlapping(read.as_ptr(), *text, read.len());
                    put(text_len, read.len());
                }
            }
            OK
        })
    }

    fn ngx_http_lua_ffi_shdict_store(
        zone: *mut c_void, op: c_int, key: *const u8, key_len: usize, kind: c_int,
        text: *const u8, text_len: usize, number: f64, ttl_ms: c_long, flags: c_int,
        message: Message, forcible: *mut c_int,
    ) -> c_int {
        put(forcible, 0);
        let (key, now) = (bytes(key, key_len), time::unix_ms());
        let value = match kind {
            STRING => tollbar_shm::Value::String(bytes(text, text_len)),
            NUMBER => tollbar_shm::Value::Number(number),
            BOOL => tollbar_shm::Value::Bool(number != 0.0),
            _ if op & (ADD | REPLACE) != 0 => {
                put(message, c"attempt to add or replace nil values".as_ptr());
                return ERROR;
            }
            _ => {
                let done = with_dict(zone, |dict| dict.delete(key));
                return done.map_or_else(|error| refuse(error, message), |()| OK);
            }
        };
        let what = Put::new(value).ttl(ttl_ms.max(0) as u64).flags(flags as u32);
        let done = with_dict(zone, |dict| match op {
            0 => dict.set(key, what, now),
            ADD => dict.add(key, what, now),
            REPLACE => dict.replace(key, what, now),
            _ if op & ADD != 0 => dict.safe_add(key, what, now).map(|()| false),
            _ => dict.safe_set(key, what, now).map(|()| false),
        });
        match done {
            Ok(evicted) => {
                put(forcible, c_int::from(evicted));
                OK
            }
            Err(error) => refuse(error, message),
        }
    }

    fn ngx_http_lua_ffi_shdict_incr(
        zone: *mut c_void, key: *const u8, key_len: usize, value: *mut f64, message: Message,
        has_init: c_int, init: f64, init_ttl_ms: c_long, forcible: *mut c_int,
    ) -> c_int {
        put(forcible, 0);
        let start = Init::new(init).ttl(init_ttl_ms.max(0) as u64).room(Room::Evict);
        let start = (has_init != 0).then_some(start);
        let key = bytes(key, key_len);
        match with_dict(zone, |dict| dict.incr(key, *value, start, time::unix_ms())) {
            Ok(counted) => {
                put(value, counted.value);
                put(forcible, c_int::from(counted.forcible));
                OK
            }
            Err(error) => refuse(error, message),
        }
    }

    fn ngx_http_lua_ffi_shdict_flush_all(zone: *mut c_void) -> c_int {
        with_dict(zone, Dict::flush_all).map_or(ERROR, |()| OK)
    }

    fn ngx_http_lua_ffi_shdict_get_ttl(
        zone: *mut c_void, key: *const u8, key_len: usize,
    ) -> c_long {
        let key = bytes(key, key_len);
        let left = with_dict(zone, |dict| dict.ttl(key, time::unix_ms()));
        // `DECLINED` is a number of milliseconds too: a key that expired then is not told apart.
        left.unwrap_or(c_long::from(DECLINED))
    }

    fn ngx_http_lua_ffi_shdict_set_expire(
        zone: *mut c_void, key: *const u8, key_len: usize, ttl_ms: c_long,
    ) -> c_int {
        let (key, ttl_ms) = (bytes(key, key_len), ttl_ms.max(0) as u64);
        let done = with_dict(zone, |dict| dict.expire(key, ttl_ms, time::unix_ms()));
        done.map_or(DECLINED, |()| OK)
    }

    fn ngx_http_lua_ffi_shdict_capacity(zone: *mut c_void) -> usize {
        with_dict(zone, |dict| Ok(dict.capacity())).unwrap_or_default() as usize
    }

    fn ngx_http_lua_ffi_shdict_free_space(zone: *mut c_void) -> usize {
        with_dict(zone, |dict| Ok(dict.free_space())).unwrap_or_default() as usize
    }
}

functions! {
    dict_get_keys => |stack| {
        let max = stack.number(2).unwrap_or(1024.0).max(0.0) as usize;
        let max = if max == 0 { usize::MAX } else { max };
        let keys = numbered(stack, |dict| dict.get_keys(max, time::unix_ms()))?;
        let keys = keys.unwrap_or_default().into_iter().map(Value::Text).collect();
        stack.push(&Value::List(keys));
        Ok(1)
    };
    dict_flush_expired => |stack| {
        let max = stack.number(2).unwrap_or_default().max(0.0) as usize;
        let max = if max == 0 { usize::MAX } else { max };
        let freed = numbered(stack, |dict| dict.flush_expired(max, time::unix_ms()))?;
        stack.push(&Value::Number(freed.unwrap_or_default() as f64));
        Ok(1)
    };
    dict_lpush => |stack| push(stack, |dict, key, value| dict.lpush(key, value, time::unix_ms()));
    dict_rpush => |stack| push(stack, |dict, key, value| dict.rpush(key, value, time::unix_ms()));
    dict_lpop => |stack| pop(stack, |dict, key| dict.lpop(key, time::unix_ms()));
    dict_rpop => |stack| pop(stack, |dict, key| dict.rpop(key, time::unix_ms()));
    dict_llen => |stack| {
        let key = need_text(stack, 2)?;
        let length = numbered(stack, |dict| dict.llen(&key, time::unix_ms()))?;
        answer(stack, length.map(|n| Value::Number(n as f64)))
    };
}

fn with_dict<T>(zone: *mut c_void, f: impl FnOnce(&Dict) -> Result<T, Error>) -> Result<T, Error> {
    let done = KIT.try_with(|kit| {
        let kit = kit.borrow();
        let dict = (zone as usize).checked_sub(1).and_then(|at| kit.as_ref()?.dict(at));
        f(dict.ok_or(Error::NotFound)?)
    });
    // At the end of the thread finalizers may still ask.
    done.unwrap_or(Err(Error::NotFound))
}

/// The dict whose number is the first argument.
fn numbered<T>(
    stack: &Stack,
    f: impl FnOnce(&Dict) -> Result<T, Error>,
) -> Result<Result<T, Error>, Vec<u8>> {
    let number = stack.number(1).ok_or_else(|| b"bad \"zone\" argument".to_vec())?;
    Ok(with_dict(number as usize as *mut c_void, f))
}

fn push(
    stack: &mut Stack,
    f: fn(&Dict, &[u8], tollbar_shm::Value<'_>) -> Result<u64, Error>,
) -> Result<c_int, Vec<u8>> {
    let key = need_text(stack, 2)?;
    let pushed = match stack.kind_name(3) {
        "number" => {
            let number = stack.number(3).unwrap_or_default();
            numbered(stack, |dict| f(dict, &key, tollbar_shm::Value::Number(number)))?
        }
        "string" => {
            let text = need_text(stack, 3)?;
            numbered(stack, |dict| f(dict, &key, tollbar_shm::Value::String(&text)))?
        }
        _ => {
            return Ok(stack.refuse("bad value type"));
        }
    };
    answer(stack, pushed.map(|n| Value::Number(n as f64)))
}

fn pop(
    stack: &mut Stack,
    f: fn(&Dict, &[u8]) -> Result<Option<Owned>, Error>,
) -> Result<c_int, Vec<u8>> {
    let key = need_text(stack, 2)?;
    let popped = numbered(stack, |dict| f(dict, &key))?;
    answer(
        stack,
        popped.map(|value| match value {
            Some(Owned::String(text)) => Value::Text(text),
            Some(Owned::Number(n)) => Value::Number(n),
            Some(Owned::Bool(yes)) => Value::Bool(yes),
            None => Value::Nil,
        }),
    )
}

/// A value, or nil and why not.
fn answer(stack: &mut Stack, value: Result<Value, Error>) -> Result<c_int, Vec<u8>> {
    match value {
        Ok(value) => {
            stack.push(&value);
            Ok(1)
        }
        Err(error) => Ok(stack.refuse(error.to_string())),
    }
}

/// # Safety
/// `message` must be null or writable.
unsafe fn refuse(error: Error, message: Message) -> c_int {
    let (says, code): (&CStr, c_int) = match error {
        Error::NotFound => (c"not found", DECLINED),
        Error::Exists => (c"exists", DECLINED),
        Error::NotANumber => (c"not a number", ERROR),
        Error::NoMemory { .. } => (c"no memory", ERROR),
        Error::IsList => (c"value is a list", ERROR),
        _ => (c"the dict cannot be used", ERROR),
    };
    // SAFETY: the caller's.
    unsafe { put(message, says.as_ptr()) };
    code
}
