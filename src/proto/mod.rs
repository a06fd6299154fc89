//! Wire protocols: bytes in, events out, bytes out.
//!
//! - [`h1`]: heads and bodies of HTTP/1, both sides
//! - [`uri`]: what a path means; [`escape`]: writing and reading `%XX`, HTML, SQL; [`digits`]:
//!   hexadecimal, base64, base32
//! - [`header`]: names of fields that are known; [`host`]: host names; [`params`]: `name=value`
//! - [`proxy_protocol`], [`dns`]: who is at the other end, and where a name leads
//!
//! **Invariant:** nothing here opens a socket, reads a clock or knows a directive. A driver owns
//! the socket and calls in; what a peer sent is an error value at worst, never a panic.

pub mod h1;
pub mod uri;
pub mod date;
pub mod digits;
pub mod escape;
pub mod header;
pub mod host;
pub mod params;
pub mod proxy_protocol;
pub mod dns;
mod scan;
