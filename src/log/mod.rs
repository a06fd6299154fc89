//! The error log: levels, targets, reopening.
//!
//! A message is written by a macro: `log::error!("…")` to the log of the process, or
//! `log::error!(&ctx, "…")` where `ctx` is a [`Context`] (a connection, a request) that knows its
//! own log and what to say about itself. The macro first compares one static byte with the level,
//! so a level that no log of the process wants costs a load and a branch, and nothing is formatted.
//!
//! The line is nginx's: `2026/11/24 23:01:05 [error] PID#TID: *CONN message, client: …`.
//!
//! Types that cross the border: [`Log`] (what a place writes to), [`Spec`] (what `error_log` said),
//! [`Files`] and [`LogFile`] (files that are appended to and reopened, the access logs' too),
//! [`Syslog`], [`Context`], [`Line`].
//!
//! **Invariant:** one message is one `write` to a file opened for appending, so lines of several
//! processes never mix; and writing a log never fails the caller.

mod capture;
mod context;
mod debugged;
mod file;
mod level;
mod line;
mod macros;
mod output;
mod panics;
mod spec;
mod syslog;

pub use capture::{Captured, capture, capture_up_to, next_captured};
pub use context::{Context, Os, Raw};
pub use debugged::{debug_clients, is_debugged};
pub use file::{Files, LogFile};
pub use level::{Area, Level, Levels};
pub use line::Line;
pub use macros::{alert, crit, debug, debug_event, debug_http, debug_stream, emerg, error, info};
pub use macros::{notice, warn};
pub use output::{Log, current, install, reaches, say, settle, to_stderr, write, write_for};
pub use panics::write_panics;
pub use spec::{Spec, SpecError};
pub use syslog::{Severity, Syslog};
