//! The process tree: master, workers, the privileged process and its helper.
//!
//! ```text
//! main → run → daemon → master (root; signals and children only)
//!                         ├─ fork → worker 0 … N-1   (unprivileged; serve)
//!                         └─ fork → privileged ─ fork → helper
//! ```
//!
//! The master reads signals and children's ends, and never serves a byte. Workers and the
//! privileged process run the [`Service`](crate::event::Service)s of the cycle. A binary upgrade
//! (`upgrade`) hands sockets to a new master through the environment, in nginx's format.
//!
//! **Invariant:** until a child has its own loop, no process of the tree has a second thread; and a
//! child never returns into its parent's code: it exits.

mod command_line;
mod daemon;
mod family;
mod helper;
mod master;
mod pid_file;
mod privileged;
mod settle;
mod signals;
mod single;
mod turns;
mod upgrade;
mod version;
mod worker;

pub use command_line::{CommandLine, usage};
pub use pid_file::rehearse as rehearse_pid_file;
pub use signals::{Order, send};
pub use version::{configuration, version};

use crate::cycle::{Draft, Listening, Opening, Options};
use crate::log;
use crate::sys::{process, signal};
use std::ffi::OsString;
use std::process::ExitCode;

/// How this program was started; needed again for reloads and for its successor.
#[derive(Clone, Debug)]
pub struct Launch {
    pub options: Options,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
}

/// Opens the configuration and runs the tree until it is told to end. Returns only if it could not
/// start; why has been said.
pub fn run(launch: Launch, draft: Draft) -> ExitCode {
    let inherited = upgrade::inherited(&launch.environment);
    let is_successor = inherited.is_some();
    let (old, old_zones) = inherited.unwrap_or_default();
    let opening = match pid_file::names_the_dead(&draft.core.pid) {
        true => Opening::BesideOrphans,
        false => Opening::Exclusive,
    };
    let started = draft.open(&old, &old_zones, opening).and_then(|cycle| {
        start(&cycle, old, is_successor)?;
        Ok(cycle)
    });
    match started {
        Ok(cycle) if cycle.core.master => master::Master::new(launch, cycle, is_successor).run(),
        Ok(cycle) => single::run(launch, cycle, is_successor),
        Err(message) => {
            log::emerg!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Puts the first cycle in force and becomes what the operator wants to see: a daemon with a pid
/// file.
fn start(cycle: &crate::cycle::Cycle, old: Listening, is_successor: bool) -> Result<(), String> {
    cycle.enter(&old);
    drop(old);
    log::settle();
    version::banner().iter().for_each(|line| log::notice!("{line}"));
    signal::block().map_err(|error| format!("sigprocmask() failed{}", log::Os(&error)))?;
    if cycle.core.daemon && !is_successor {
        daemon::detach()?;
    }
    pid_file::write(&cycle.core.pid)?;
    cycle.redirect_stderr();
    log::to_stderr(false);
    Ok(())
}

/// The role in the words of titles and logs.
const WORKER: &str = "worker process";
const PRIVILEGED: &str = "privileged process";
const HELPER: &str = "helper process";

/// Shows `tollbar: …` as this process's title.
fn set_title(text: &str) {
    crate::sys::title::set(&format!("tollbar: {text}"));
}

/// nginx's line about a child that ended.
fn tell_end(name: &str, pid: u32, ended: process::Ended) {
    match ended {
        process::Ended::Exited(code) => log::notice!("{name} {pid} exited with code {code}"),
        process::Ended::Killed { signal, core_dumped } => {
            let core = if core_dumped { " (core dumped)" } else { "" };
            log::alert!("{name} {pid} exited on signal {signal}{core}");
        }
    }
}
