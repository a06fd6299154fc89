//! Who speaks: a connection or a request that adds to the line what the operator will ask.
use super::{Line, Log};
use std::{fmt, io};

/// What a message is about. Everything has a default: implement what you know.
pub trait Context {
    /// The log of this place (a location's `error_log`); the log of the process if `None`.
    fn log(&self) -> Option<Log> {
        None
    }
    /// The connection's number, written as `*17`; 0 writes nothing.
    fn connection(&self) -> u64 {
        0
    }
    /// True for a client that `debug_connection` names: debug messages pass whatever the level.
    fn debugged(&self) -> bool {
        false
    }
    /// Appends ` while doing this, client: …, server: …, request: "…"`. Not asked for debug
    /// messages.
    fn describe(&self, _line: &mut Line) {}
}

/// An OS error in nginx's words: ` (98: Address already in use)`, with the space before it.
pub struct Os<'a>(pub &'a io::Error);

impl fmt::Display for Os<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error() {
            // std writes "Address already in use (os error 98)".
            Some(code) => {
                let words =
                    text.rsplit_once(" (os error").map_or(text.as_str(), |(words, _)| words);
                write!(f, " ({code}: {words})")
            }
            None => write!(f, " ({text})"),
        }
    }
}

/// Bytes of a peer as text: what is no UTF-8 is written as `\xHH`.
pub struct Raw<'a>(pub &'a [u8]);

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_errors_read_as_in_nginx() {
        let error = io::Error::from_raw_os_error(98);
        assert_eq!(Os(&error).to_string(), " (98: Address already in use)");
        assert_eq!(Os(&io::Error::other("odd")).to_string(), " (odd)");
    }

    #[test]
    fn raw_bytes_stay_readable() {
        assert_eq!(Raw(b"/caf\xc3\xa9/\xff").to_string(), "/caf\u{e9}/\\xFF");
    }
}
