//! What the program asks of the OS: one narrow door, the only unsafe code of the server.
//!
//! - `process`: id, thread_id, hostname, put_in_place
//! - `calendar`: local time in the forms of logs

pub mod calendar;
pub mod process;
