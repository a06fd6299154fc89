//! The nginx.conf language: words, blocks, includes, directive tables.
//!
//! Text goes through three steps: `lexer` cuts it into statements, `reading` follows the blocks
//! and includes and hands each statement to the [`Block`] that is open, and the block finds it in
//! a table of [`Directive`]s, whose [`Set`] stores the value.
//!
//! **Invariant:** nothing here knows a directive (but `include`), opens a socket or a log.
//! Errors are [`Error`]: nginx's own sentence with file and line.

mod directive;
mod error;
mod lexer;
mod reading;
mod shelf;
pub mod value;

pub use directive::*;
pub use error::{Error, Reason};
pub use lexer::{Lexer, Token};
pub use reading::{Block, Found, Note, Paths, Reading, found, os_error};
pub use shelf::Shelf;
