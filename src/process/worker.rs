//! A worker: settles, serves, and leaves without dropping anything.
use super::signals::{self, Told};
use super::turns::{News, Turns};
use super::{Launch, pid_file, set_title, settle};
use crate::cycle::Cycle;
use crate::event::Post;
use crate::log::{self, Os};
use crate::sys::process;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often an orphan looks whether a new master has come.
const ORPHAN_LOOKS: Duration = Duration::from_millis(250);
/// What connections get to end after they were cut.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// What a worker has of its master.
pub struct Birth {
    pub launch: Launch,
    pub cycle: Rc<Cycle>,
    pub post: Post,
    /// Our end of the pair; the master holds the other.
    pub channel: UnixStream,
    pub daemonized: bool,
    /// The master's id.
    pub parent: u32,
}

/// Lives the life of a worker.
pub fn run(birth: Birth) -> ! {
    let mut worker = Worker::settle(birth);
    while !worker.is_done() {
        worker.turn();
    }
    worker.exit()
}

struct Worker {
    cycle: Rc<Cycle>,
    turns: Turns,
    stage: Stage,
    daemonized: bool,
    master: u32,
    /// Set once the master is gone: look at the pid file then.
    orphan_looks: Option<Instant>,
}

enum Stage {
    Serving,
    /// Finishing what is held; at `patience` it is cut.
    Leaving {
        patience: Option<Instant>,
    },
    /// Cut; what does not end by itself is dropped at `end`.
    Cut {
        end: Instant,
    },
    Done,
}

impl Worker {
    fn settle(birth: Birth) -> Worker {
        let Birth { launch, cycle, mut post, channel, daemonized, parent } = birth;
        settle::worker(&cycle, post.seat, &launch.environment);
        let ready = channel.try_clone();
        let begun = Turns::new(Some(channel)).and_then(|turns| {
            settle::limit_loop(&cycle);
            cycle.services.iter().try_for_each(|service| service.start(&mut post))?;
            // If the master has died meanwhile, the loop will say so.
            let _ = ready?.write_all(READY);
            Ok(turns)
        });
        match begun {
            Ok(turns) => {
                let (stage, master, orphan_looks) = (Stage::Serving, parent, None);
                Worker { cycle, turns, stage, daemonized, master, orphan_looks }
            }
            Err(error) => {
                log::emerg!("the worker could not begin{}", Os(&error));
                std::process::exit(settle::FATAL)
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.stage {
            Stage::Serving => false,
            Stage::Leaving { .. } => self.is_drained(),
            Stage::Cut { end } => self.is_drained() || Instant::now() >= end,
            Stage::Done => true,
        }
    }

    fn is_drained(&self) -> bool {
        self.cycle.services.iter().all(|service| service.is_drained())
    }

    fn turn(&mut self) {
        let News { signals, orphaned } = self.turns.turn(self.max_wait());
        for received in signals {
            match signals::of_child(received, self.daemonized) {
                Told::Terminate => self.stage = Stage::Done,
                Told::Quit => self.quit(),
                Told::Reopen => reopen(&self.cycle),
                Told::Nothing => {}
            }
        }
        if orphaned {
            log::notice!("the master process has gone, serving on until there is a new one");
            self.orphan_looks = Some(Instant::now() + ORPHAN_LOOKS);
        }
        self.look_at_the_clock();
    }

    /// Until when the loop may sleep if nothing happens.
    fn max_wait(&self) -> Option<Duration> {
        let stage = match self.stage {
            Stage::Leaving { patience } => patience,
            Stage::Cut { end } => Some(end),
            _ => None,
        };
        let next = [stage, self.orphan_looks].into_iter().flatten().min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn quit(&mut self) {
        if !matches!(self.stage, Stage::Serving) {
            return;
        }
        log::notice!("gracefully shutting down");
        set_title("worker process is shutting down");
        let patience = self.cycle.core.shutdown_timeout.map(|time| Instant::now() + time);
        self.stage = Stage::Leaving { patience };
        self.cycle.services.iter().for_each(|service| service.quit());
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if matches!(self.stage, Stage::Leaving { patience: Some(at) } if at <= now) {
            self.cycle.services.iter().for_each(|service| service.cut());
            self.stage = Stage::Cut { end: now + AFTER_CUT };
        }
        if self.orphan_looks.is_some_and(|at| at <= now) {
            let master = pid_file::read(&self.cycle.core.pid);
            let comes = master.is_ok_and(|pid| pid != self.master && process::is_alive(pid));
            self.orphan_looks = (!comes).then(|| now + ORPHAN_LOOKS);
            if comes {
                self.quit();
            }
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

/// Opens the log files anew.
pub fn reopen(cycle: &Cycle) {
    log::notice!("reopening logs");
    cycle.services.iter().for_each(|service| service.flush_logs());
    cycle.files.reopen(None);
}

/// What a child writes to its channel when it serves.
pub const READY: &[u8] = b"r";
