//! `master_process off`: one process does everything.
use super::signals::tell;
use super::turns::Turns;
use super::{Launch, pid_file, settle, worker};
use crate::cycle::{Cycle, Draft, Opening};
use crate::event::{Post, Role};
use crate::log::{self, Os};
use crate::sys::process;
use crate::sys::signal::{Received, Signal};
use std::process::ExitCode;
use std::time::Duration;

/// How often cycles that are being left are looked after.
const LOOKS: Duration = Duration::from_millis(500);

/// Serves until told to end.
pub fn run(launch: Launch, cycle: Cycle, is_successor: bool) -> ExitCode {
    process::set_environment(&cycle.core.environment(&launch.environment));
    let started = Turns::new(None).and_then(|turns| {
        start_services(&cycle)?;
        Ok(turns)
    });
    match started {
        Ok(turns) => {
            let daemonized = is_successor || cycle.core.daemon;
            Single { launch, cycle, leaving: Vec::new(), turns, daemonized, done: false }.run()
        }
        Err(error) => {
            log::emerg!("the process could not begin{}", Os(&error));
            ExitCode::from(settle::FATAL as u8)
        }
    }
}

struct Single {
    launch: Launch,
    cycle: Cycle,
    /// Cycles before this one that still hold connections.
    leaving: Vec<Cycle>,
    turns: Turns,
    daemonized: bool,
    done: bool,
}

impl Single {
    fn run(&mut self) -> ExitCode {
        while !self.done {
            let max_wait = (!self.leaving.is_empty()).then_some(LOOKS);
            for received in self.turns.turn(max_wait).signals {
                self.obey(received);
            }
            self.leaving.retain(|cycle| !is_drained(cycle));
            let _ = self.cycle.listening.borrow_mut().close_retired(std::time::Instant::now());
        }
        self.cycle.services.iter().for_each(|service| service.end());
        self.cycle.services.iter().for_each(|service| service.flush_logs());
        pid_file::remove(&self.cycle.core.pid);
        log::notice!("exit");
        self.cycle.listening.take().unlink();
        ExitCode::SUCCESS
    }

    /// As nginx: without a master even `QUIT` ends at once.
    fn obey(&mut self, received: Received) {
        let action = match received.signal {
            Signal::Term | Signal::Int => ", exiting",
            Signal::Quit => ", shutting down",
            Signal::Hup => ", reconfiguring",
            Signal::Usr1 => ", reopening logs",
            Signal::Winch if self.daemonized => ", stop accepting connections",
            Signal::Usr2 => ", ignoring",
            _ => "",
        };
        tell(received, action);
        match received.signal {
            Signal::Term | Signal::Int | Signal::Quit => self.done = true,
            Signal::Hup => self.reload(),
            Signal::Usr1 => worker::reopen(&self.cycle),
            _ => {}
        }
    }

    fn reload(&mut self) {
        log::notice!("reconfiguring");
        let fresh = Draft::read(&self.launch.options).map_err(|error| error.to_string()).and_then(
            |draft| {
                draft.open(&self.cycle.listening.borrow(), &self.cycle.zones, Opening::Exclusive)
            },
        );
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(message) => {
                log::emerg!("{message}");
                return;
            }
        };
        fresh.enter(&self.cycle.listening.borrow());
        fresh.redirect_stderr();
        if let Err(error) = start_services(&fresh) {
            log::emerg!("the new configuration could not begin{}", Os(&error));
            return;
        }
        let old = std::mem::replace(&mut self.cycle, fresh);
        drop(old.listening.take());
        old.services.iter().for_each(|service| service.quit());
        self.leaving.push(old);
        log::settle();
    }
}

fn start_services(cycle: &Cycle) -> std::io::Result<()> {
    settle::limit_loop(cycle);
    let listeners = cycle.listening.borrow().of_worker(0);
    let multi_accept = cycle.events.multi_accept;
    let mut post = Post { role: Role::Single, seat: 0, workers: 1, multi_accept, listeners };
    cycle.services.iter().try_for_each(|service| service.start(&mut post))
}

fn is_drained(cycle: &Cycle) -> bool {
    cycle.services.iter().all(|service| service.is_drained())
}
