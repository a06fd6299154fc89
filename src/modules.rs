//! Every module, in order: the only file that names all features.
//!
//! The order is behaviour: handlers of a phase are asked, and header filters run, from top to
//! bottom.

use crate::http::{Entry, Modules};

/// The HTTP server's features.
pub static HTTP: Modules = &[&Entry::<crate::http::core::Core>::NEW];
