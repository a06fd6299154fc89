//! What the program asks of the OS: one narrow door, the only unsafe code of the server.
//!
//! - `process`: fork, reap, kill, die_with_parent, session, standard descriptors, environment
//! - `signal`: signals read like messages, waiting for descriptors · `title`: what `ps` shows
//! - `user`: become_user, limits, priority, pin_to_cpus
//! - `calendar`: local time in the forms of logs

pub mod calendar;
pub mod process;
pub mod signal;
pub mod title;
pub mod user;
