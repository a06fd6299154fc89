//! `ngx.pipe`: processes that Lua starts, their standard descriptors, and their end.
//!
//! Reading order: `process` (who runs, and waiting for the end) · `side` (what our ends of the
//! pipes share) · `reading` · `writing`.
//!
//! What can be done at once is done in the call; the rest is an [`Operation`]. Its result is kept
//! where lua-resty-core asks for it when the coroutine runs again; only the end of a process is
//! given to the coroutine itself.
//!
//! **Invariant:** a process does not outlive the request (or timer) that started it, nor what Lua
//! holds of it; its end is taken as soon as it has ended, so that its id is never another's.
//!
//! [`Operation`]: super::vm::Operation

mod process;
mod reading;
mod side;
mod writing;

pub use process::{Process, kill, wait};
pub use reading::{Output, read};
pub use writing::write;
