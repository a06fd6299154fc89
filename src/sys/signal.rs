//! Signals, read like messages.
//!
//! A process of the tree blocks the signals it cares about and reads them from a descriptor, so
//! nothing ever runs inside a signal handler, the sender is known, and a forked child has no
//! handler of its parent's: it makes its own [`Signals`] and reads its own signals only. While
//! it has none yet, they wait.
use nix::sys::signal::{SigSet, Signal as OsSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that mean something to a process of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Usr1,
    Usr2,
    Term,
    Chld,
    Winch,
    /// Sent only, never read.
    Kill,
}

const READ: [Signal; 8] = [
    Signal::Hup,
    Signal::Int,
    Signal::Quit,
    Signal::Usr1,
    Signal::Usr2,
    Signal::Term,
    Signal::Chld,
    Signal::Winch,
];

impl Signal {
    /// `SIGHUP`.
    pub fn name(self) -> &'static str {
        self.to_os().as_str()
    }

    pub fn number(self) -> i32 {
        self.to_os() as i32
    }

    pub(super) fn to_os(self) -> OsSignal {
        match self {
            Signal::Hup => OsSignal::SIGHUP,
            Signal::Int => OsSignal::SIGINT,
            Signal::Quit => OsSignal::SIGQUIT,
            Signal::Usr1 => OsSignal::SIGUSR1,
            Signal::Usr2 => OsSignal::SIGUSR2,
            Signal::Term => OsSignal::SIGTERM,
            Signal::Chld => OsSignal::SIGCHLD,
            Signal::Winch => OsSignal::SIGWINCH,
            Signal::Kill => OsSignal::SIGKILL,
        }
    }
}

/// One signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub signal: Signal,
    /// The process that sent it; 0 if the kernel did.
    pub sender: u32,
}

/// The signals of this process. Readable when one waits.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// Lets the signals of the tree wait until somebody reads them; children and threads inherit that.
pub fn block() -> io::Result<()> {
    // Whoever started us may have ignored it, and then the kernel would not tell how children end.
    // SAFETY: the default action is no handler of ours.
    unsafe { nix::sys::signal::signal(OsSignal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl)? };
    Ok(set().thread_block()?)
}

fn set() -> SigSet {
    READ.iter().map(|signal| signal.to_os()).collect()
}

impl Signals {
    /// Blocks the signals (see [`block`]) and opens the descriptor. To be called once per process,
    /// after fork.
    pub fn install() -> io::Result<Signals> {
        block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals(SignalFd::with_flags(&set(), flags)?))
    }

    /// The next signal that waits. Several of one kind may have become one.
    pub fn take(&self) -> io::Result<Option<Received>> {
        loop {
            let Some(about) = self.0.read_signal()? else { return Ok(None) };
            let known = READ.iter().find(|signal| signal.number() == about.ssi_signo as i32);
            if let Some(&signal) = known {
                return Ok(Some(Received { signal, sender: about.ssi_pid }));
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is readable or the time is over; true per readable one.
pub fn wait_readable(
    fds: &[BorrowedFd<'_>],
    max_wait: Option<std::time::Duration>,
) -> io::Result<Vec<bool>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled: Vec<PollFd> =
        fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Rounded up, so that a deadline has passed when its wait is over.
    let wait = max_wait.map_or(PollTimeout::NONE, |wait| {
        let millis = wait.as_millis() + u128::from(wait.subsec_nanos() % 1_000_000 != 0);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, wait) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_signal_is_read_with_its_sender() {
        let signals = Signals::install().unwrap();
        assert_eq!(signals.take().unwrap(), None);
        // To this thread: other tests' threads do not block it.
        nix::sys::signal::raise(OsSignal::SIGUSR2).unwrap();
        let ready = wait_readable(&[signals.as_fd()], Some(Duration::from_secs(5))).unwrap();
        assert_eq!(ready, [true]);
        let sender = std::process::id();
        assert_eq!(signals.take().unwrap(), Some(Received { signal: Signal::Usr2, sender }));
        assert_eq!(signals.take().unwrap(), None);
        assert_eq!((Signal::Hup.name(), Signal::Hup.number()), ("SIGHUP", 1));
    }
}
