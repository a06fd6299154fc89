//! Processes: who we are, children, and what becomes of descriptors.
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::signal::Signal;

/// The id of this process.
pub fn id() -> u32 {
    std::process::id()
}

/// The id of the process that is our parent now; 1 or a reaper's once it has died.
pub fn parent_id() -> u32 {
    std::os::unix::process::parent_id()
}

/// The kernel's id of this thread; of the first thread it is the process's.
pub fn thread_id() -> u32 {
    nix::unistd::gettid().as_raw() as u32
}

/// The machine's name, as logs give it.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".into(), |name| name.to_string_lossy().into_owned())
}

/// The kernel's name and version.
pub fn system_name() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".into(),
        |about| {
            let (name, release) = (about.sysname(), about.release());
            format!("{} {}", name.to_string_lossy(), release.to_string_lossy())
        },
    )
}

/// How many processors the machine has on line.
pub fn processors() -> usize {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN) {
        Ok(Some(count)) if count > 0 => count as usize,
        _ => 1,
    }
}

/// The two ways out of [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    Parent { child: u32 },
    Child,
}

/// Splits this process. Refused while it has other threads: a lock that one of them holds
/// would stay locked in the child for ever.
pub fn fork() -> io::Result<Fork> {
    if !has_one_thread() {
        return Err(io::Error::other("fork() of a process with threads"));
    }
    // SAFETY: this is the only thread (checked above), so the child may go on as we would.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent { child: child.as_raw() as u32 }),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed { signal: i32, core_dumped: bool },
}

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Runs,
    /// It has ended, and its id is free from here on.
    Ended(Ended),
    /// It is no child of ours, or somebody else has taken its end.
    Unknown,
}

/// Looks at one child, and takes its end if it has ended.
pub fn fate(child: u32) -> Fate {
    loop {
        match waitpid(Pid::from_raw(child as i32), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Fate::Ended(Ended::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, core_dumped)) => {
                return Fate::Ended(Ended::Killed { signal: signal as i32, core_dumped });
            }
            Ok(WaitStatus::StillAlive) => return Fate::Runs,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Fate::Unknown,
        }
    }
}

/// Takes one child that has ended, if any has.
pub fn reap() -> Option<(u32, Ended)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                return Some((pid.as_raw() as u32, Ended::Exited(code)));
            }
            Ok(WaitStatus::Signaled(pid, signal, core_dumped)) => {
                let signal = signal as i32;
                return Some((pid.as_raw() as u32, Ended::Killed { signal, core_dumped }));
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// What `rehearse`'s child ends with when it got to the end.
const SURVIVED: i32 = 42;

/// Does something in a child that is thrown away: how it ended the child, or `None` if the child
/// survived it. Refused, like `fork`, while there are other threads.
pub fn rehearse(task: impl FnOnce()) -> io::Result<Option<Ended>> {
    let own = id();
    let child = match fork()? {
        Fork::Parent { child } => child,
        Fork::Child => {
            let _ = die_with_parent(own);
            // What fails here is expected to: no core file of it.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
            // SAFETY: no memory is passed, and nothing of ours is to run at the end of a copy.
            unsafe { libc::_exit(SURVIVED) }
        }
    };
    loop {
        match waitpid(Pid::from_raw(child as i32), None) {
            Ok(WaitStatus::Exited(_, SURVIVED)) => return Ok(None),
            Ok(WaitStatus::Exited(_, code)) => return Ok(Some(Ended::Exited(code))),
            Ok(WaitStatus::Signaled(_, signal, core_dumped)) => {
                return Ok(Some(Ended::Killed { signal: signal as i32, core_dumped }));
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `debug_points`: what happens when this process finds a bug of ours in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugPoint {
    /// It stops, so that a debugger can be attached.
    Stop = 1,
    /// It ends and leaves a core file, if the limits let it.
    Abort = 2,
}

static DEBUG_POINT: AtomicU8 = AtomicU8::new(0);

/// Says what [`debug_point`] does from here on.
pub fn set_debug_point(what: Option<DebugPoint>) {
    DEBUG_POINT.store(what.map_or(0, |what| what as u8), Ordering::Relaxed);
}

/// A bug was found, and logged.
pub fn debug_point() {
    match DEBUG_POINT.load(Ordering::Relaxed) {
        1 => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)),
        2 => std::process::abort(),
        _ => {}
    }
}

/// Sends a signal to a process.
pub fn kill(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(nix::sys::signal::kill(Pid::from_raw(pid as i32), signal.to_os())?)
}

/// Whether there is a process of this id, even one that has ended and waits for its parent to
/// notice: one system call.
pub fn exists(pid: u32) -> bool {
    !matches!(
        nix::sys::signal::kill(Pid::from_raw(pid as i32), None),
        Err(nix::errno::Errno::ESRCH)
    )
}

/// Whether a process of this id runs, be it ours to signal or not. One that has ended and waits
/// for its parent to notice does not.
pub fn is_alive(pid: u32) -> bool {
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the program's name, which stands in parentheses.
        let state = stat.rfind(')').and_then(|end| stat[end + 1..].trim_start().chars().next());
        return !matches!(state, Some('Z' | 'X'));
    }
    exists(pid)
}

/// Lets the kernel kill this process when `parent` dies, however it dies. False if that has
/// happened already. The kernel forgets the wish when the process changes its user.
pub fn die_with_parent(parent: u32) -> io::Result<bool> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(parent_id() == parent)
}

/// Leaves the terminal and the process group of whoever started us: a session of our own.
pub fn start_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Standard input and output read and write nothing from here on.
pub fn silence_stdin_stdout() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

/// Standard error goes to `file` from here on.
pub fn redirect_stderr(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(file)?)
}

/// Makes the number of `old` stand for what `new` opened; the old file is closed by this, `new`
/// too. The number keeps its close-on-exec flag set.
pub fn put_in_place(new: OwnedFd, old: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open descriptors, borrowed or owned here; `old` stays open under its number.
    super::checked(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// Whether a program that is executed finds the descriptor open.
pub fn keep_over_exec(fd: BorrowedFd<'_>, keep: bool) -> io::Result<()> {
    let flags = if keep { nix::fcntl::FdFlag::empty() } else { nix::fcntl::FdFlag::FD_CLOEXEC };
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Takes over a descriptor that the program before us left open under this number. `None` if
/// the number is not open, or is one of the three standard ones.
///
/// Each number may be adopted once in the life of the process, before it opens anything itself.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 || !Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return None;
    }
    // SAFETY: the descriptor is open (checked above) and nobody owns it: it was there before
    // `main`, and the caller adopts each number once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    keep_over_exec(fd.as_fd(), false).ok()?;
    Some(fd)
}

/// Replaces all environment variables of this process. Nothing happens in a process that has
/// other threads, which may be reading them.
pub fn set_environment(variables: &[(std::ffi::OsString, std::ffi::OsString)]) {
    if !has_one_thread() {
        return;
    }
    for (name, _) in std::env::vars_os() {
        // SAFETY: this is the only thread (checked above).
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in variables {
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }
}

fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_nobody_are_not_adopted() {
        assert!(adopt(2).is_none());
        assert!(adopt(987_654).is_none());
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test runner has threads.
        let other = std::thread::spawn(std::thread::park);
        assert!(fork().is_err());
        other.thread().unpark();
        other.join().unwrap();
    }

    #[test]
    fn an_ended_child_that_nobody_waited_for_does_not_live() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        while is_alive(pid) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(child.wait().unwrap().success());
        assert!(!is_alive(pid));
    }

    #[test]
    fn who_lives() {
        assert!(is_alive(id()) && is_alive(1));
        assert!(!is_alive(4_190_000));
        assert!(processors() >= 1);
        assert!(!hostname().is_empty());
    }
}
