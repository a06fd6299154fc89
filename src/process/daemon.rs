//! Into the background.
use crate::log::Os;
use crate::sys::process::{self, Fork};

/// Goes on in a child of its own session; the parent exits, so that the shell has its prompt back.
pub fn detach() -> Result<(), String> {
    match process::fork().map_err(|error| format!("fork() failed{}", Os(&error)))? {
        Fork::Parent { .. } => std::process::exit(0),
        Fork::Child => {}
    }
    process::start_session().map_err(|error| format!("setsid() failed{}", Os(&error)))?;
    process::silence_stdin_stdout().map_err(|error| format!("dup2() failed{}", Os(&error)))
}
