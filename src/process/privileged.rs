//! The privileged process: runs as the master's user, accepts nothing, and does what must happen
//! once. It dies with the master.
//!
//! It forks the helper before it begins, and again when that dies. To be able to, it never makes a
//! thread: what needs threads is the helper's work.
use super::helper::Keeper;
use super::settle::{self, FATAL};
use super::signals::{self, Told};
use super::turns::Turns;
use super::worker::{self, Birth, READY};
use super::{HELPER, set_title, tell_end};
use crate::cycle::Cycle;
use crate::log::{self, Os};
use crate::sys::process;
use crate::sys::signal::Signal;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long services may take to finish after `QUIT`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the helper may take to go.
const HELPER_PATIENCE: Duration = Duration::from_secs(1);

/// Lives the life of the privileged process.
pub fn run(birth: Birth) -> ! {
    let mut privileged = Privileged::settle(birth);
    while !privileged.is_done() {
        privileged.turn();
    }
    privileged.exit()
}

struct Privileged {
    cycle: Rc<Cycle>,
    turns: Turns,
    helper: Keeper,
    stage: Stage,
    daemonized: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Leaving {
        until: Instant,
    },
    /// Services are done; the helper was told to go.
    Alone {
        until: Instant,
    },
}

impl Privileged {
    fn settle(birth: Birth) -> Privileged {
        let Birth { launch, cycle, mut post, channel, daemonized, parent } = birth;
        settle::privileged(&cycle, &launch.environment);
        if !process::die_with_parent(parent).unwrap_or(true) {
            std::process::exit(0);
        }
        let mut helper = Keeper::new(cycle.clone(), daemonized);
        helper.keep(Instant::now());
        let ready = channel.try_clone();
        let begun = Turns::new(Some(channel)).and_then(|turns| {
            cycle.services.iter().try_for_each(|service| service.start(&mut post))?;
            let _ = ready?.write_all(READY);
            Ok(turns)
        });
        match begun {
            Ok(turns) => Privileged { cycle, turns, helper, stage: Stage::Serving, daemonized },
            Err(error) => {
                log::emerg!("the privileged process could not begin{}", Os(&error));
                std::process::exit(FATAL)
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.stage {
            Stage::Alone { until } => !self.helper.is_alive() || Instant::now() >= until,
            _ => false,
        }
    }

    fn turn(&mut self) {
        for received in self.turns.turn(self.max_wait()).signals {
            let is_child = received.signal == Signal::Chld;
            match signals::of_child(received, self.daemonized) {
                Told::Terminate => self.leave_helper(),
                Told::Quit => self.quit(),
                Told::Reopen => {
                    worker::reopen(&self.cycle);
                    self.helper.tell(Signal::Usr1);
                }
                Told::Nothing if is_child => self.reap(),
                Told::Nothing => {}
            }
        }
        let now = Instant::now();
        match self.stage {
            Stage::Serving => self.helper.keep(now),
            Stage::Leaving { until } => {
                if until <= now || self.cycle.services.iter().all(|service| service.is_drained()) {
                    self.leave_helper();
                }
            }
            Stage::Alone { .. } => {}
        }
    }

    fn max_wait(&self) -> Option<Duration> {
        let until = match self.stage {
            Stage::Serving => self.helper.due(),
            Stage::Leaving { until } | Stage::Alone { until } => Some(until),
        };
        until.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn quit(&mut self) {
        if self.stage == Stage::Serving {
            log::notice!("gracefully shutting down");
            set_title("privileged process is shutting down");
            self.stage = Stage::Leaving { until: Instant::now() + PATIENCE };
            self.cycle.services.iter().for_each(|service| service.quit());
        }
    }

    fn leave_helper(&mut self) {
        if !matches!(self.stage, Stage::Alone { .. }) {
            self.helper.tell(Signal::Term);
            self.stage = Stage::Alone { until: Instant::now() + HELPER_PATIENCE };
        }
    }

    fn reap(&mut self) {
        if let Some((pid, ended)) = self.helper.take_end(Instant::now()) {
            tell_end(HELPER, pid, ended);
        }
    }

    fn exit(&self) -> ! {
        log::notice!("exiting");
        self.cycle.services.iter().for_each(|service| service.end());
        self.cycle.services.iter().for_each(|service| service.flush_logs());
        log::notice!("exit");
        std::process::exit(0)
    }
}
