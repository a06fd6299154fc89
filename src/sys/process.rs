//! Processes: who we are, and what becomes of descriptors.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The id of this process.
pub fn id() -> u32 {
    std::process::id()
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

/// Makes the number of `old` stand for what `new` opened; the old file is closed by this, `new` too.
/// The number keeps its close-on-exec flag set.
pub fn put_in_place(new: OwnedFd, old: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open descriptors, borrowed or owned here; `old` stays open under its number.
    let done = unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
