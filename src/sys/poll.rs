//! What mio does not offer of epoll: level-triggered interest, for listening sockets.
//!
//! A listener takes one connection per event and wants to be told again about the rest; with edges
//! it would have to ask until `EAGAIN`, one system call per connection more.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::checked;

/// Reports `fd` under `token` in every poll while it is readable. `shared`: other processes wait on
/// the same socket, wake one of them only.
pub fn watch_level(poll: RawFd, fd: BorrowedFd<'_>, token: usize, shared: bool) -> io::Result<()> {
    let exclusive = if shared { libc::EPOLLEXCLUSIVE } else { 0 };
    let events = (libc::EPOLLIN | exclusive) as u32;
    let mut event = libc::epoll_event { events, u64: token as u64 };
    // SAFETY: `event` outlives the call, which only reads it.
    let result = unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) };
    checked(result).map(drop)
}

/// Takes the interest back.
pub fn unwatch(poll: RawFd, fd: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, nothing) = (fd.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: no memory is passed.
    checked(unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_DEL, fd, nothing) }).map(drop)
}
