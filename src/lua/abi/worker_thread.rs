//! `ngx.run_worker_thread`: a function of a module runs in a thread of a `thread_pool`, in a VM of
//! its own, while the code that called it waits.
//!
//! Arguments and results are copied. Who does not wait any more leaves the thread to itself: its
//! result is dropped. A call that no thread has begun in time fails.
//!
//! Deliberately absent: stopping a function that does not end. It keeps its thread, of that pool,
//! until the process ends; the process does not wait for it.

use super::apart::{self, Seat};
use super::copy::{Copied, Copier, package_paths};
use super::{functions, kit, may_wait};
use crate::event::{self, Offloaded};
use crate::lua::phase;
use crate::lua::vm::{self, Operation, Stack, Value};
use std::ffi::c_int;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

functions! {
    run_worker_thread => run;
}

/// What a call gives: results, or the message of an error.
type Outcome = Result<Vec<Copied>, Vec<u8>>;

fn run(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if vm::current_phase() == phase::INIT {
        return Err(b"no request found".to_vec());
    }
    may_wait()?;
    stack.may_yield()?;
    match begin(stack) {
        Ok(call) => stack.wait_for(Box::new(call)),
        Err(why) => Ok(refuse(stack, &why)),
    }
}

fn refuse(stack: &mut Stack, why: &[u8]) -> c_int {
    stack.push(&Value::Bool(false));
    stack.push_text(why);
    2
}

/// Gives the call to a thread. Errors: what Lua is told.
fn begin(stack: &mut Stack) -> Result<Call, Vec<u8>> {
    let count = stack.top();
    if count < 3 {
        return Err(b"expecting at least 3 arguments".to_vec());
    }
    let pool = text(stack, 1, "threadpool should be a string")?;
    let pool = String::from_utf8_lossy(&pool).into_owned();
    // Other processes than workers have no threads.
    if !event::role().serves() || !event::has_thread_pool(&pool) {
        return Err(format!("thread pool {pool} not found").into_bytes());
    }
    let module = text(stack, 2, "module name should be a string")?;
    let function = text(stack, 3, "function name should be a string")?;
    let seat = kit().and_then(|kit| kit.seat()).ok_or_else(|| b"no available Lua vm".to_vec())?;
    let mut values = vec![Copied::Text(module), Copied::Text(function)];
    copy(stack, 4, &mut values).map_err(|why| format!("{why} in the argument"))?;
    let paths = package_paths(stack);
    let job = event::offload_in(&pool, move || in_thread(seat, &paths, &values));
    let job = job.map_err(|_| b"ngx_thread_task_post failed".to_vec())?;
    Ok(Call { job, outcome: Ok(Vec::new()) })
}

fn text(stack: &mut Stack, at: c_int, otherwise: &str) -> Result<Vec<u8>, Vec<u8>> {
    stack.text(at).map(<[u8]>::to_vec).ok_or_else(|| otherwise.into())
}

/// Copies all values from `first` on.
fn copy(stack: &mut Stack, first: c_int, to: &mut Vec<Copied>) -> Result<(), &'static str> {
    let mut copier = Copier::default();
    for at in first..=stack.top() {
        to.push(copier.take(stack, at)?);
    }
    Ok(())
}

/// What the thread does.
fn in_thread(seat: Seat, [path, cpath]: &[Option<Vec<u8>>; 2], values: &[Copied]) -> Outcome {
    let outcome = seat.run([path, cpath], |stack| {
        if !values.iter().all(|value| value.push_onto(stack)) || !stack.has_room(2) {
            return Err(b"stack overflow".to_vec());
        }
        apart::call(stack)?;
        let mut results = Vec::new();
        copy(stack, 1, &mut results).map_err(|why| format!("{why} in the return value"))?;
        Ok(results)
    });
    outcome.and_then(|outcome| outcome)
}

/// A call whose end somebody waits for.
struct Call {
    job: Offloaded<Outcome>,
    outcome: Outcome,
}

impl Operation for Call {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = ready!(Pin::new(&mut self.job).poll(cx));
        self.outcome = outcome.unwrap_or_else(|lost| Err(lost.to_string().into_bytes()));
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        let values = match std::mem::replace(&mut self.outcome, Ok(Vec::new())) {
            Ok(values) => values,
            Err(why) => return refuse(stack, &why),
        };
        let before = stack.top();
        stack.push(&Value::Bool(true));
        if values.iter().all(|value| value.push_onto(stack)) {
            return stack.top() - before;
        }
        stack.pop(stack.top() - before);
        refuse(stack, b"stack overflow")
    }
}
