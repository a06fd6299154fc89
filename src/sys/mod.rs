//! What the program asks of the OS: one narrow door, the only unsafe code of the server.
//!
//! - `process`: fork, reap, kill, die_with_parent, session, standard descriptors, environment
//! - `signal`: signals read like messages, waiting for descriptors · `title`: what `ps` shows
//! - `user`: become_user, limits, priority, pin_to_cpus
//! - `listener`: steer, waiting, fast open, deferred accept
//! - `calendar`: local time in the forms of logs

pub mod calendar;
pub mod listener;
pub mod process;
pub mod signal;
pub mod title;
pub mod user;

/// A C call's result: -1 is the errno.
fn checked(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
