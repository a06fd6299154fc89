//! The helper: heavy or risky work, in a process of its own that may die at any time.
//!
//! It runs as the workers' user, is forked by the privileged process, dies with it, and is started
//! again with growing pauses. Nobody waits for it: it reaches the workers through shared memory.
use super::family::{SHORT_LIFE, pause};
use super::settle::{self, FATAL};
use super::signals::{self, Told};
use super::turns::Turns;
use super::worker::reopen;
use super::{HELPER, set_title};
use crate::cycle::Cycle;
use crate::event::{Post, Role};
use crate::log::{self, Os};
use crate::sys::process::{self, Ended, Fate, Fork};
use crate::sys::signal::Signal;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long services may take to finish after they were told to.
const PATIENCE: Duration = Duration::from_millis(800);

/// Sees to it that there is a helper. The privileged process has one of these.
pub struct Keeper {
    cycle: Rc<Cycle>,
    daemonized: bool,
    state: State,
}

enum State {
    Alive { pid: u32, born: Instant, early_deaths: u32 },
    Missing { due: Instant, early_deaths: u32 },
}

impl Keeper {
    pub fn new(cycle: Rc<Cycle>, daemonized: bool) -> Keeper {
        let state = State::Missing { due: Instant::now(), early_deaths: 0 };
        Keeper { cycle, daemonized, state }
    }

    /// Starts the helper if it is missing and the pause is over. In the child this does not return.
    pub fn keep(&mut self, now: Instant) {
        let State::Missing { due, early_deaths } = self.state else { return };
        if due > now {
            return;
        }
        let parent = process::id();
        self.state = match process::fork() {
            Ok(Fork::Parent { child }) => {
                log::notice!("start {HELPER} {child}");
                State::Alive { pid: child, born: now, early_deaths }
            }
            Ok(Fork::Child) => run(&self.cycle, parent, self.daemonized),
            Err(error) => {
                log::alert!("fork() failed while spawning \"{HELPER}\"{}", Os(&error));
                let early_deaths = early_deaths + 1;
                State::Missing { due: now + pause(early_deaths), early_deaths }
            }
        };
    }

    /// When to look again.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Alive { .. } => None,
            State::Missing { due, .. } => Some(due),
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Alive { .. })
    }

    pub fn tell(&self, signal: Signal) {
        if let State::Alive { pid, .. } = self.state
            && let Err(error) = process::kill(pid, signal)
        {
            log::alert!("kill({pid}, {}) failed{}", signal.number(), Os(&error));
        }
    }

    /// Takes its end, if it has ended. Other children of this process are somebody else's.
    pub fn take_end(&mut self, now: Instant) -> Option<(u32, Ended)> {
        let State::Alive { pid, born, early_deaths } = self.state else { return None };
        let Fate::Ended(ended) = process::fate(pid) else { return None };
        let early = now.duration_since(born) < SHORT_LIFE;
        let early_deaths = if early { early_deaths + 1 } else { 0 };
        self.state = State::Missing { due: now + pause(early_deaths), early_deaths };
        Some((pid, ended))
    }
}

/// Lives the life of the helper. What the privileged process had in memory stays where it is,
/// untouched: its loop and sockets are its own.
fn run(cycle: &Rc<Cycle>, parent: u32, daemonized: bool) -> ! {
    settle::helper(cycle);
    set_title(HELPER);
    // The kernel forgets this when the user changes, so it comes after that.
    if !process::die_with_parent(parent).unwrap_or(true) {
        std::process::exit(0);
    }
    let (workers, listeners) = (cycle.core.workers, Vec::new());
    let mut post = Post { role: Role::Helper, seat: 0, workers, multi_accept: false, listeners };
    let begun = Turns::new(None).and_then(|turns| {
        cycle.services.iter().try_for_each(|service| service.start(&mut post))?;
        Ok(turns)
    });
    match begun {
        Ok(turns) => serve(cycle, turns, daemonized),
        Err(error) => {
            log::emerg!("the helper process could not begin{}", Os(&error));
            std::process::exit(FATAL)
        }
    }
}

fn serve(cycle: &Cycle, mut turns: Turns, daemonized: bool) -> ! {
    let mut until: Option<Instant> = None;
    let drained = || cycle.services.iter().all(|service| service.is_drained());
    while !until.is_some_and(|until| until <= Instant::now() || drained()) {
        let max_wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        for received in turns.turn(max_wait).signals {
            match signals::of_child(received, daemonized) {
                Told::Terminate | Told::Quit if until.is_none() => {
                    until = Some(Instant::now() + PATIENCE);
                    cycle.services.iter().for_each(|service| service.quit());
                }
                Told::Reopen => reopen(cycle),
                _ => {}
            }
        }
    }
    cycle.services.iter().for_each(|service| service.flush_logs());
    log::notice!("exit");
    std::process::exit(0)
}
