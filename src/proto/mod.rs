//! Wire protocols: bytes in, events out, bytes out.
//!
//! - [`h1`]: heads and bodies of HTTP/1, both sides
//! - [`header`]: names of fields that are known; [`host`]: host names; shared by all versions
//!
//! **Invariant:** nothing here opens a socket, reads a clock or knows a directive. A driver owns
//! the socket and calls in; what a peer sent is an error value at worst, never a panic.

pub mod h1;
pub mod header;
pub mod host;
mod scan;
