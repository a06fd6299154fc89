//! `ngx.thread`: light threads.

use super::{functions, in_phase, may_wait};
use crate::lua::conf::Lua;
use crate::lua::coroutine::Coroutine;
use crate::lua::crew::{Crew, Join, Looked, Stand};
use crate::lua::phase::MAY_WAIT;
use crate::lua::vm::{Kept, Operation, Stack, Value};
use std::ffi::c_int;
use std::rc::Rc;
use std::task::{Context, Poll};

functions! {
    spawn => spawn;
    wait_thread => wait;
    kill => kill;
    thread_status => status;
    on_abort => on_abort;
}

fn crew() -> Result<Rc<Crew>, Vec<u8>> {
    may_wait()?;
    Crew::current().ok_or_else(|| b"no request found".to_vec())
}

/// `ngx.thread.spawn(function, …)`: it runs at once, until it waits.
fn spawn(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let crew = crew()?;
    if !stack.is_lua_function(1) {
        let found = stack.kind_name(1);
        let says = format!("bad argument #1 to 'spawn' (function expected, got {found})");
        return Err(says.into_bytes());
    }
    let full = || b"too many light threads".to_vec();
    let coroutine = Coroutine::of_function(stack, 1, true).ok_or_else(full)?;
    // The stack keeps it alive until its parent has it.
    coroutine.push_onto(stack);
    crew.spawn(coroutine).ok_or_else(full)?;
    let thread = stack.keep_top();
    stack.wait_for(Box::new(Spawned(thread)))
}

/// Gives the parent its child when the child has run.
struct Spawned(Kept);

impl Operation for Spawned {
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        self.0.push_onto(stack);
        1
    }
}

/// `ngx.thread.wait(thread, …)`: the results of the first that ends.
fn wait(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let crew = crew()?;
    let count = stack.top();
    if count == 0 {
        return Err(b"at least one coroutine should be specified".to_vec());
    }
    let mut alive = Vec::new();
    for at in 1..=count {
        let key = thread_at(stack, at, "wait")?;
        match crew.look(key) {
            Looked::Unknown => return Err(b"no co ctx found".to_vec()),
            Looked::NoThread => {
                return Err(b"attempt to wait on a coroutine that is not a user thread".to_vec());
            }
            Looked::NotOurs => {
                return Err(b"only the parent coroutine can wait on the thread".to_vec());
            }
            Looked::Ended(number) => return Ok(crew.reap(number, stack)),
            Looked::Gone if at < count || !alive.is_empty() => {}
            Looked::Gone => return Ok(stack.refuse("already waited or killed")),
            Looked::Alive(number) => alive.push(number),
        }
    }
    stack.wait_for(Box::new(Join::new(&crew, alive)))
}

/// `ngx.thread.kill(thread)`
fn kill(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let crew = crew()?;
    let key = thread_at(stack, 1, "kill")?;
    match crew.look(key) {
        Looked::Unknown | Looked::NoThread => Ok(stack.refuse("not user thread")),
        Looked::NotOurs => Ok(stack.refuse("killer not parent")),
        Looked::Gone => Ok(stack.refuse("already waited or killed")),
        Looked::Ended(number) => {
            crew.kill(number);
            Ok(stack.refuse("already terminated"))
        }
        Looked::Alive(number) => {
            crew.kill(number);
            stack.push(&Value::Number(1.0));
            Ok(1)
        }
    }
}

/// `ngx.on_abort(function)`
fn on_abort(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let watches = in_phase(MAY_WAIT, |r| r.conf::<Lua>().watches_client)?;
    if !stack.is_lua_function(1) {
        let found = stack.kind_name(1);
        let says = format!("bad argument #1 to 'on_abort' (function expected, got {found})");
        return Err(says.into_bytes());
    }
    if !watches {
        return Ok(stack.refuse("lua_check_client_abort is off"));
    }
    let crew = crew()?;
    let coroutine =
        Coroutine::of_function(stack, 1, true).ok_or_else(|| b"too many light threads".to_vec())?;
    if !crew.set_on_abort(coroutine) {
        return Ok(stack.refuse("duplicate call"));
    }
    stack.push(&Value::Number(1.0));
    Ok(1)
}

/// The status of a light thread as OpenResty names it; `nil` of anything else.
fn status(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let key = thread_at(stack, 1, "status")?;
    match Crew::current().map(|crew| crew.stand(key)) {
        Some(Stand::Alive) => stack.push_text(b"running"),
        Some(Stand::Ended) => stack.push_text(b"zombie"),
        Some(Stand::Gone) => stack.push_text(b"dead"),
        Some(Stand::Unknown) | None => stack.push_nil(),
    }
    Ok(1)
}

fn thread_at(stack: &Stack, at: c_int, function: &str) -> Result<usize, Vec<u8>> {
    stack.thread_at(at).ok_or_else(|| {
        format!("bad argument #{at} to '{function}' (lua thread expected)").into_bytes()
    })
}
