//! Children that code asks for: any words, any environment, three pipes, and a descriptor that
//! tells of their end.
//!
//! They live as long as whoever asked for them, unlike a [`program`](super::program) of the
//! operator, and how they end is taken by [`fate`](super::process::fate).

use super::user;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CpuSet;
use nix::unistd::{ForkResult, Pid, fork, getpid, pipe2};
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What is to run.
pub struct Order<'a> {
    /// A path, or a name that is looked for in `PATH`.
    pub file: &'a CStr,
    pub words: &'a [CString],
    /// `NAME=value`; `None` is ours.
    pub environment: Option<&'a [CString]>,
    /// Its standard error goes where its output goes.
    pub merges_stderr: bool,
}

/// A child that was started. Our ends of its pipes are nonblocking.
pub struct Started {
    pub pid: u32,
    /// Readable when it has ended.
    pub end: OwnedFd,
    pub stdin: File,
    pub stdout: File,
    pub stderr: Option<File>,
    pub report: Report,
}

/// Why there is no child: what failed, and how.
#[derive(Debug)]
pub struct NotStarted {
    pub what: &'static str,
    pub error: io::Error,
}

/// What a child that could not execute its program has left; it ended with status 1 then.
pub struct Report(File);

impl Report {
    /// Why the program was not executed. To be read when the child has ended.
    pub fn failure(&mut self) -> Option<io::Error> {
        let mut number = [0; 4];
        self.0.read_exact(&mut number).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
    }
}

/// Starts a child in our folder and process group, with no signal blocked and no descriptor but
/// its three. The kernel kills it should this thread die.
pub fn start(order: &Order<'_>) -> Result<Started, NotStarted> {
    let (stdin, stdout, report) = (pipe()?, pipe()?, pipe()?);
    let stderr = if order.merges_stderr { None } else { Some(pipe()?) };
    let words = pointers(order.words);
    let environment = order.environment.map(pointers);
    let plan = Plan {
        parent: getpid(),
        file: order.file,
        words: &words,
        environment: environment.as_deref(),
        stdin: stdin.0.as_raw_fd(),
        stdout: stdout.1.as_raw_fd(),
        stderr: stderr.as_ref().map(|(_, theirs)| theirs.as_raw_fd()),
        report: report.1.as_raw_fd(),
        cpus: user::is_pinned().then(all_cpus),
    };
    // SAFETY: the child makes system calls only until it is another program or has ended: nothing
    // is allocated, locked or dropped in it.
    let pid = match unsafe { fork() }.map_err(failed("fork"))? {
        // SAFETY: this is the child of a fork, and all that the plan points to is above.
        ForkResult::Child => unsafe { plan.execute() },
        ForkResult::Parent { child } => child,
    };
    let ours = |fd: OwnedFd| nonblocking(fd).map_err(failed("fcntl"));
    let rest = || {
        Ok(Started {
            pid: pid.as_raw() as u32,
            end: open_end(pid).map_err(failed("pidfd_open"))?,
            stdin: ours(stdin.1)?,
            stdout: ours(stdout.0)?,
            stderr: stderr.map(|(ours_end, _)| ours(ours_end)).transpose()?,
            report: Report(ours(report.0)?),
        })
    };
    rest().inspect_err(|_| end(pid))
}

/// Sends a signal by its number; 0 sends nothing and asks whether that could be done.
pub fn signal(pid: u32, number: i32) -> io::Result<()> {
    // SAFETY: a system call on numbers.
    super::checked(unsafe { libc::kill(pid as libc::pid_t, number) })?;
    Ok(())
}

/// A pipe: the end that reads, and the one that writes. No program that is executed gets them.
fn pipe() -> Result<(OwnedFd, OwnedFd), NotStarted> {
    let (from, to) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"))?;
    // The child puts others in the places of the standard ones.
    match from.as_raw_fd().min(to.as_raw_fd()) > libc::STDERR_FILENO {
        true => Ok((from, to)),
        false => Err(failed("pipe")(Errno::EBADF)),
    }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> NotStarted {
    move |error| NotStarted { what, error: error.into() }
}

fn nonblocking(fd: OwnedFd) -> Result<File, Errno> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

/// Pointers to the strings, and a null: what `exec` takes.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let each = strings.iter().map(|string| string.as_ptr());
    each.chain([std::ptr::null()]).collect()
}

fn all_cpus() -> CpuSet {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        // Refused beyond the last one that a set can hold.
        let _ = all.set(cpu);
    }
    all
}

/// A descriptor of the child that has not been waited for yet.
fn open_end(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: a system call on numbers; it gives a new descriptor (close-on-exec) or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: it was opened here and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Ends a child that nobody will know of.
fn end(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    // Killed: this does not wait.
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// All that the child needs, made before it is there.
struct Plan<'a> {
    parent: Pid,
    file: &'a CStr,
    words: &'a [*const c_char],
    environment: Option<&'a [*const c_char]>,
    stdin: RawFd,
    stdout: RawFd,
    stderr: Option<RawFd>,
    report: RawFd,
    cpus: Option<CpuSet>,
}

impl Plan<'_> {
    /// Becomes the program; ends with status 1 if it cannot.
    ///
    /// # Safety
    /// This must be a fork's child, and the pointers those of strings that end in a zero byte, in
    /// lists that end in a null.
    unsafe fn execute(&self) -> ! {
        // SAFETY: only functions that are allowed between fork and exec, on memory of the plan's;
        // the caller keeps its promise.
        unsafe {
            if self.settle().is_ok() {
                match self.environment {
                    Some(list) => {
                        libc::execvpe(self.file.as_ptr(), self.words.as_ptr(), list.as_ptr())
                    }
                    None => libc::execvp(self.file.as_ptr(), self.words.as_ptr()),
                };
            }
            let number = Errno::last_raw().to_ne_bytes();
            libc::write(self.report, number.as_ptr().cast(), number.len());
            libc::_exit(1)
        }
    }

    /// What a program expects to find.
    ///
    /// # Safety
    /// As for `execute`.
    unsafe fn settle(&self) -> Result<(), Errno> {
        // SAFETY: as in `execute`; a zeroed set of signals is a valid one.
        unsafe {
            // We may ignore these, and it would too.
            for ignored in [libc::SIGPIPE, libc::SIGSYS] {
                libc::signal(ignored, libc::SIG_DFL);
            }
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut none);
            Errno::result(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()))?;
            if let Some(cpus) = &self.cpus {
                // One that may not run elsewhere runs here.
                let _ = nix::sched::sched_setaffinity(Pid::from_raw(0), cpus);
            }
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // It may have died before the kernel knew the wish.
            if libc::getppid() != self.parent.as_raw() {
                libc::_exit(1);
            }
            Errno::result(libc::dup2(self.stdin, libc::STDIN_FILENO))?;
            Errno::result(libc::dup2(self.stdout, libc::STDOUT_FILENO))?;
            let stderr = self.stderr.unwrap_or(libc::STDOUT_FILENO);
            Errno::result(libc::dup2(stderr, libc::STDERR_FILENO))?;
            // All of ours close by themselves; this is for those that libraries have opened. A
            // kernel that does not know it changes nothing.
            let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
            libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::{Ended, Fate, fate};
    use super::super::signal::wait_readable;
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn start_shell(script: &str, environment: Option<&[CString]>) -> Started {
        let words = ["sh", "-c", script].map(|word| CString::new(word).unwrap());
        let order = Order { file: c"sh", words: &words, environment, merges_stderr: false };
        start(&order).unwrap()
    }

    fn wait(fd: &impl AsFd) {
        assert!(wait_readable(&[fd.as_fd()], Some(Duration::from_secs(10))).unwrap()[0]);
    }

    fn read(file: &mut File) -> String {
        let mut all = Vec::new();
        while let Err(error) = file.read_to_end(&mut all) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            wait(file);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_child_has_three_descriptors_and_the_environment_that_was_given() {
        let environment = [CString::new("A=b").unwrap()];
        let script = "echo \"$A [$HOME]\"; ls /proc/$$/fd >&2; exit 3";
        let mut child = start_shell(script, Some(&environment));
        drop(child.stdin);
        assert_eq!(read(&mut child.stdout), "b []\n");
        let open = read(child.stderr.as_mut().unwrap());
        assert_eq!(open.split_whitespace().filter(|fd| fd.len() == 1).count(), 3, "{open}");
        wait(&child.end);
        assert_eq!(fate(child.pid), Fate::Ended(Ended::Exited(3)));
        assert_eq!(fate(child.pid), Fate::Unknown);
        assert!(child.report.failure().is_none());
    }

    #[test]
    fn signals_reach_it() {
        let mut child = start_shell("kill -PIPE $$; sleep 100", None);
        wait(&child.end);
        assert!(matches!(fate(child.pid), Fate::Ended(Ended::Killed { signal: 13, .. })));
        child = start_shell("exec sleep 100", None);
        assert_eq!(fate(child.pid), Fate::Runs);
        assert!(signal(child.pid, 0).is_ok());
        assert_eq!(signal(child.pid, 10_000).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        signal(child.pid, libc::SIGKILL).unwrap();
        wait(&child.end);
        assert!(matches!(fate(child.pid), Fate::Ended(Ended::Killed { signal: 9, .. })));
    }

    #[test]
    fn what_cannot_be_executed_ends_with_one() {
        let words = [CString::new("/nowhere/at/all").unwrap()];
        let order =
            Order { file: &words[0], words: &words, environment: None, merges_stderr: true };
        let mut child = start(&order).unwrap();
        wait(&child.end);
        assert_eq!(fate(child.pid), Fate::Ended(Ended::Exited(1)));
        let failure = child.report.failure().unwrap();
        assert_eq!(failure.kind(), io::ErrorKind::NotFound);
    }
}
