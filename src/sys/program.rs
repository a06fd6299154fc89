//! Programs of the operator: started with pipes, and never outliving who started them.

use super::process::Ended;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getppid};

/// Where programs are looked for, unless the environment says so: daemons have an empty one.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A running program. Dropped, it and what it started in its group are killed.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

/// Our ends of a program's standard descriptors, nonblocking.
#[derive(Debug)]
pub struct Pipes {
    /// What is written here it reads.
    pub stdin: File,
    pub stdout: File,
    pub stderr: File,
}

impl Program {
    /// Starts `command` (a program and its arguments) in `folder` and in a process group of its
    /// own, with no signal blocked. The kernel kills it should this thread die.
    pub fn start(command: &[String], folder: &Path) -> io::Result<(Program, Pipes)> {
        let (name, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let ours = Pid::this();
        let mut command = Command::new(name);
        command.args(arguments).process_group(0);
        if folder.is_dir() {
            command.current_dir(folder);
        }
        if std::env::var_os("PATH").is_none() {
            command.env("PATH", PATH);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let settle = move || {
            SigSet::empty().thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // It may have died before the kernel knew the wish.
            if getppid() == ours { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        // SAFETY: between fork and exec it only makes system calls; nothing is allocated or locked.
        unsafe { command.pre_exec(settle) };
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let program = Program { child };
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        Ok((
            program,
            Pipes {
                stdin: nonblocking(stdin.ok_or_else(missing)?.into())?,
                stdout: nonblocking(stdout.ok_or_else(missing)?.into())?,
                stderr: nonblocking(stderr.ok_or_else(missing)?.into())?,
            },
        ))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<Ended> {
        self.child.try_wait().ok().flatten().map(ended)
    }

    /// Ends it and its group at once, and says how it has ended.
    pub fn end(&mut self) -> io::Result<Ended> {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        // Killed: this does not wait.
        self.child.wait().map(ended)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

fn ended(status: ExitStatus) -> Ended {
    match status.signal() {
        Some(signal) => Ended::Killed { signal, core_dumped: status.core_dumped() },
        None => Ended::Exited(status.code().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::{Duration, Instant};

    fn shell(script: &str) -> (Program, Pipes) {
        Program::start(&["/bin/sh".into(), "-c".into(), script.into()], Path::new("/")).unwrap()
    }

    fn read_all(file: &mut File) -> String {
        let (mut all, until) = (Vec::new(), Instant::now() + Duration::from_secs(10));
        while Instant::now() < until {
            match file.read_to_end(&mut all) {
                Ok(_) => break,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_program_reads_writes_and_ends() {
        let (mut program, mut pipes) = shell("read line; echo \"got $line\"; exit 3");
        pipes.stdin.write_all(b"words\n").unwrap();
        assert_eq!(read_all(&mut pipes.stdout), "got words\n");
        while program.ended().is_none() {}
        assert_eq!(program.ended(), Some(Ended::Exited(3)));
    }

    #[test]
    fn its_group_goes_with_it() {
        let (program, mut pipes) = shell("sleep 1000 & echo $!; wait");
        let mut line = String::new();
        while !line.ends_with('\n') {
            let mut bytes = [0; 64];
            if let Ok(n) = pipes.stdout.read(&mut bytes) {
                line.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            }
        }
        let grandchild: u32 = line.trim().parse().unwrap();
        assert!(super::super::process::is_alive(grandchild));
        drop(program);
        assert_eq!(read_all(&mut pipes.stdout), "");
        assert!(Program::start(&["/nowhere/at/all".into()], Path::new("/")).is_err());
    }
}
