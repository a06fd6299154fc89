//! What the program asks of the OS: one narrow door, the only unsafe code of the server.
//!
//! - `process`: fork, reap, kill, die_with_parent, session, standard descriptors, environment
//! - `program`: start and end a program of the operator, with pipes · `child`: one that code wants
//! - `signal`: signals read like messages, waiting for descriptors · `title`: what `ps` shows
//! - `user`: become_user, limits, priority, pin_to_cpus
//! - `listener`: steer, waiting, fast open, deferred accept
//! - `socket`: addresses, accept, connect, send, receive, send_file, options, TCP_INFO
//! - `allocator`: how jemalloc is set
//! - `channel`: pairs of processes that pass messages and descriptors
//! - `board`: where one process leaves a descriptor for all others
//! - `file`: open, facts, read, copies in memory, temporary files, replacing
//! - `poll`: level-triggered interest · `waker`: task wakers without reference counts
//! - `time`: the wall clock, and its texts, made once a second
//!
//! **Invariant:** functions speak our words and return `io::Result` and owned descriptors; nobody
//! outside names `libc`.

pub mod allocator;
pub mod board;
pub mod channel;
pub mod child;
pub mod file;
pub mod listener;
pub mod poll;
pub mod process;
pub mod program;
pub mod signal;
pub mod socket;
pub mod time;
pub mod title;
pub mod user;
pub mod waker;

/// A C call's result: -1 is the errno.
fn checked(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
