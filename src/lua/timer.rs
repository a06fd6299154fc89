//! `ngx.timer`: functions that run later, without a request.

use super::conf::Lua;
use super::coroutine::Coroutine;
use super::crew::{Apart, Crew};
use super::socket::{Around, Life};
use super::voice::Voice;
use super::{abi, phase, run, vm};
use crate::event::{self, Deadline};
use crate::http::HttpConf;
use crate::log;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

thread_local! {
    static PENDING: Cell<usize> = const { Cell::new(0) };
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// How many wait for their time.
pub fn pending() -> usize {
    PENDING.get()
}

/// How many run.
pub fn running() -> usize {
    RUNNING.get()
}

/// Counts one while it lives.
struct Counted(&'static std::thread::LocalKey<Cell<usize>>);

impl Counted {
    fn on(counter: &'static std::thread::LocalKey<Cell<usize>>) -> Counted {
        counter.set(counter.get() + 1);
        Counted(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Runs `function`, whose arguments are on its stack, after `delay`; again and again if `repeats`.
/// A process that ends runs it at once, and says so by the first argument.
///
/// Errors: what Lua is told.
pub fn set(
    function: Coroutine,
    delay: Duration,
    repeats: bool,
    http: Rc<HttpConf>,
) -> Result<(), &'static str> {
    if event::is_ending() && !delay.is_zero() {
        return Err("process exiting");
    }
    if pending() >= http.mains.main::<Lua>().max_pending_timers() {
        return Err("too many pending timers");
    }
    let (around, voice) = (Around::current(), Voice::of_timer());
    let counted = Counted::on(&PENDING);
    event::spawn(async move {
        let (mut function, mut counted) = (function, counted);
        loop {
            let is_premature = wait(delay).await;
            drop(counted);
            if is_premature || !repeats {
                return begin(function, is_premature, &http, (&around, voice)).await;
            }
            let Some(next) = function.again() else {
                return log::alert!("failed to create the next timer");
            };
            let (http, around, voice) = (http.clone(), around.clone(), voice.clone());
            counted = Counted::on(&PENDING);
            let now = std::mem::replace(&mut function, next);
            event::spawn(async move { begin(now, false, &http, (&around, voice)).await });
        }
    });
    Ok(())
}

/// Waits for the time, or the end of the process: then it is true.
async fn wait(delay: Duration) -> bool {
    let deadline = Deadline::after(delay);
    let mut ending = Box::pin(event::ending());
    poll_fn(|cx| {
        if deadline.poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        ending.as_mut().poll(cx).map(|()| true)
    })
    .await
}

async fn begin(
    mut function: Coroutine,
    is_premature: bool,
    http: &HttpConf,
    (around, voice): (&Around, Rc<Voice>),
) {
    if vm::current().is_none() {
        return;
    }
    log::debug_http!(&*voice, "lua ngx.timer expired");
    let limit = http.mains.main::<Lua>().max_running_timers();
    if running() >= limit {
        let origin = function.origin();
        return log::alert!(
            "lua failed to run timer with function defined at @{origin}: {limit} \
             lua_max_running_timers are not enough"
        );
    }
    // A process that ends waits for it.
    let _counted = (Counted::on(&RUNNING), event::hold());
    function.put_first(is_premature);
    abi::counts::refresh(http);
    let life = Life::apart(around.clone(), Some(voice.clone()));
    let crew = Crew::apart(function, Apart { life, voice: voice.clone(), handshake: None });
    drop(run::lead(&crew, None, phase::TIMER).await);
    log::debug_http!(&*voice, "http lua close fake http connection");
}
