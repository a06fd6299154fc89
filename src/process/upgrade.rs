//! A new binary takes the sockets over while the old one serves.
//!
//! `USR2` starts it with nginx's own variable `NGINX=3;4;7;`, so that a running nginx can be
//! replaced by this program and the other way round. The sockets of one address are listed in the
//! kernel's order. Shared memory goes by a variable of our own, which nginx does not know.
use super::{Launch, pid_file};
use crate::cycle::{Cycle, Listening, Zones};
use crate::log::{self, Os};
use crate::sys::process;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// The words of the log.
pub const NAME: &str = "new binary process";

/// The variable with the sockets.
const SOCKETS: &str = "NGINX";
/// The variable with the shared memory zones.
const ZONES: &str = "TOLLBAR_ZONES";
/// Room for the new process's title; nginx leaves the same.
const SPARE: (&str, &str) =
    ("SPARE", "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX");

/// A new binary that runs beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    pub pid: u32,
}

/// What the program before us left to us; `None` if there was none.
pub fn inherited(environment: &[(OsString, OsString)]) -> Option<(Listening, Zones)> {
    let variable = |wanted: &str| {
        let (_, value) = environment.iter().find(|(name, _)| name == wanted)?;
        Some(value.to_string_lossy())
    };
    let listening = Listening::inherit(&variable(SOCKETS)?);
    let zones = variable(ZONES).map(|list| Zones::inherit(&list));
    Some((listening, zones.unwrap_or_default()))
}

/// Starts the binary that now lies where ours was started from. Our pid file makes room for its.
/// `None`: it could not be started, which has been logged.
pub fn start(launch: &Launch, cycle: &Cycle) -> Option<Successor> {
    let (pid, old_pid) = (&cycle.core.pid, cycle.core.old_pid());
    let program = launch.arguments.first()?;
    let shown = program.to_string_lossy();
    let when = format!("before executing {NAME} \"{shown}\"");
    if !pid_file::rename(pid, &old_pid, &when) {
        return None;
    }
    match execute(launch, cycle) {
        Ok(pid) => {
            log::notice!("start {NAME} {pid}");
            Some(Successor { pid })
        }
        Err(error) => {
            log::alert!("execve() failed while executing {NAME} \"{shown}\"{}", Os(&error));
            let when = format!("after an attempt to execute {NAME} \"{shown}\"");
            pid_file::rename(&old_pid, pid, &when);
            None
        }
    }
}

fn execute(launch: &Launch, cycle: &Cycle) -> io::Result<u32> {
    let (program, arguments) = launch.arguments.split_first().ok_or(io::ErrorKind::NotFound)?;
    let listening = cycle.listening.borrow();
    let mut command = Command::new(find_program(program, &launch.environment));
    command.arg0(program).args(arguments).env_clear();
    command.envs(cycle.core.environment(&launch.environment));
    command.env(SOCKETS, listening.list()).env(SPARE.0, SPARE.1);
    command.env(ZONES, cycle.zones.list());
    let started = keep_over_exec(cycle, &listening, true).and_then(|()| command.spawn());
    keep_over_exec(cycle, &listening, false)?;
    // The child is reaped with the others, by the master's loop.
    Ok(started?.id())
}

fn keep_over_exec(cycle: &Cycle, listening: &Listening, keep: bool) -> io::Result<()> {
    cycle.zones.keep_over_exec(keep).map_err(io::Error::other)?;
    listening.descriptors().try_for_each(|socket| process::keep_over_exec(socket, keep))
}

/// The program of a bare name, as the shell found it.
fn find_program(program: &OsStr, environment: &[(OsString, OsString)]) -> PathBuf {
    let path = environment.iter().find(|(name, _)| name == "PATH");
    if let Some((_, folders)) = path.filter(|_| !program.as_bytes().contains(&b'/')) {
        let found = std::env::split_paths(folders).map(|folder| folder.join(program));
        if let Some(file) = found.into_iter().find(|file| file.is_file()) {
            return file;
        }
    }
    program.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_as_the_shell_does() {
        let path = |folders: &str| vec![(OsString::from("PATH"), OsString::from(folders))];
        let environment = path("/nonexistent:/bin");
        assert_eq!(find_program("sh".as_ref(), &environment), PathBuf::from("/bin/sh"));
        assert_eq!(find_program("./sh".as_ref(), &environment), PathBuf::from("./sh"));
        assert_eq!(find_program("no-such".as_ref(), &environment), PathBuf::from("no-such"));
    }
}
