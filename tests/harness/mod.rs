//! What the black-box tests share: the program under test, a client, backends, logs, processes.
//!
//! - [`Site`]: one configuration, started in a folder of its own; see [`nginx_test!`].
//! - [`Client`], [`Response`]: says exactly what a test says, byte for byte, over TCP, unix or TLS.
//! - [`h2`]: HTTP/2, well-behaved and not.
//! - [`Backend`]: an upstream server that echoes, or does what it was told, however rude.
//! - [`Dns`]: a name server that says what a test tells it.
//! - [`Log`]: waits for a line. - [`procs`]: the process tree, by title.
//!
//! **Invariant:** nothing here sleeps for luck. Every wait is for an event, with a deadline.

mod backend;
mod client;
mod dns;
pub mod h2;
mod logs;
pub mod lua;
pub mod ports;
pub mod procs;
mod site;
mod talk;
pub mod tls;

pub use backend::{Backend, Step};
pub use client::{Client, Response};
pub use dns::{Dns, Says};
pub use logs::Log;
pub use site::{Site, program, refuses_conf, warns_of_conf};
pub use talk::matches;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `ready` gives a value; `None` after [`PATIENCE`].
pub fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Declares a test: its name, what stands inside `http { }`, and the talk.
///
/// The talk is either text (see [`talk`](mod@crate::harness::talk) for its grammar) or a closure
/// that gets the running [`Site`]. A `server { }` without `listen` listens on `{PORT}`.
macro_rules! nginx_test {
    ($name:ident, $conf:expr, |$t:ident| $talk:expr) => {
        #[test]
        fn $name() {
            crate::harness::Site::http($conf).run(|$t| {
                $talk;
            })
        }
    };
    ($name:ident, $conf:expr, $cases:expr) => {
        #[test]
        fn $name() {
            crate::harness::Site::http($conf).run(|t| t.check($cases))
        }
    };
}
