//! What Lua is told when something fails.

use crate::event::Elapsed;
use std::borrow::Cow;
use std::io;

/// Why an operation failed.
#[derive(Debug)]
pub enum Fault {
    /// The peer has closed, or the socket is not open.
    Closed,
    /// It took too long.
    Timeout,
    /// The client went away from its own connection.
    ClientAborted,
    /// More came than is kept.
    NoMemory,
    /// The system says so.
    Os(io::Error),
    /// A sentence of its own.
    Says(String),
}

impl Fault {
    /// As Lua gets it: LuaSocket's words.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Fault::Closed => "closed".into(),
            Fault::Timeout => "timeout".into(),
            Fault::ClientAborted => "client aborted".into(),
            Fault::NoMemory => "no memory".into(),
            Fault::Os(error) => words(error).to_ascii_lowercase().into(),
            Fault::Says(sentence) => sentence.into(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Os(error)
    }
}

impl From<Elapsed> for Fault {
    fn from(_: Elapsed) -> Fault {
        Fault::Timeout
    }
}

/// `Connection refused`
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(cut) => text[..cut].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_quoted_in_lower_case() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(Fault::Os(refused).text(), "connection refused");
        assert_eq!(Fault::from(Elapsed).text(), "timeout");
        assert_eq!(Fault::Os(io::Error::other("Odd")).text(), "odd");
    }
}
