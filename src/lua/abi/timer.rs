//! `ngx.timer`.

use super::functions;
use crate::lua::coroutine::Coroutine;
use crate::lua::vm::{self, Stack, Value};
use crate::lua::{phase, timer};
use std::ffi::c_int;
use std::time::Duration;

functions! {
    timer_at => |stack| set(stack, "at", false);
    timer_every => |stack| set(stack, "every", true);
    timers_running => |stack| count(stack, timer::running());
    timers_pending => |stack| count(stack, timer::pending());
}

fn count(stack: &mut Stack, count: usize) -> Result<c_int, Vec<u8>> {
    stack.push(&Value::Number(count as f64));
    Ok(1)
}

fn set(stack: &mut Stack, name: &str, repeats: bool) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count < 2 {
        return Err(format!("expecting at least 2 arguments but got {count}").into_bytes());
    }
    let found = stack.kind_name(1);
    let delay = stack.number(1).ok_or_else(|| {
        format!("bad argument #1 to '{name}' (number expected, got {found})").into_bytes()
    })?;
    // Whole milliseconds, as OpenResty counts; a negative delay is none.
    let delay = Duration::from_millis((delay * 1000.0) as u64);
    if repeats && delay.is_zero() {
        return Err(b"delay cannot be zero".to_vec());
    }
    if !stack.is_lua_function(2) {
        return Err(format!("bad argument #2 to '{name}' (Lua function expected)").into_bytes());
    }
    let phase = vm::current_phase();
    if matches!(phase, phase::INIT | phase::EXIT_WORKER) {
        let says = format!("API disabled in the context of {}", phase::name(phase));
        return Err(if phase == phase::INIT { b"no request".to_vec() } else { says.into() });
    }
    let http = super::http().ok_or_else(|| b"no request".to_vec())?;
    let function = Coroutine::of_function(stack, 2, false).ok_or_else(|| b"no memory".to_vec())?;
    match timer::set(function, delay, repeats, http) {
        Ok(()) => {
            stack.push(&Value::Number(1.0));
            Ok(1)
        }
        Err(why) => Ok(stack.refuse(why)),
    }
}
