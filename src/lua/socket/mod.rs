//! Cosockets: connections that Lua opens, and the client's own, behind `ngx.socket` and
//! `ngx.req.socket`.
//!
//! Reading order: `settings` (the directives) · `life` (to whom a socket belongs) · `fault` (what
//! Lua is told) · `inbox` and `reading` (what came, and what is wanted of it) · `until` (patterns)
//! · `tcp` (the socket) · `writing` · `connecting` · `pool` (idle connections) · `secure` (TLS) ·
//! `downstream` (the client's connection) · `udp`.
//!
//! What can be done at once is done in the call; the rest is an [`Operation`] that whoever drives
//! the coroutine polls. No operation needs the request.
//!
//! **Invariant:** a socket serves the request (or timer) that made it and nobody else; when that
//! ends its sockets are closed, whatever Lua still holds. A worker's pools, their queues and what
//! is received at once are bounded.
//!
//! [`Operation`]: super::vm::Operation

mod connecting;
mod downstream;
mod fault;
mod inbox;
mod life;
mod pool;
mod reading;
mod secure;
mod settings;
mod tcp;
mod udp;
mod until;
mod writing;

pub use connecting::{Plan, connect};
pub use downstream::{Refused, body_socket, give_back, is_raw, linger, raw_socket};
pub use fault::words;
pub use inbox::Inbox;
pub use life::{Around, Life, Mortal};
pub use pool::{Pool, Rules, keep, pool_of};
pub use reading::{Got, Receiving, Want};
pub use secure::{Identity, Session, Shake, shake};
pub use settings::{RawSettings, Settings};
pub use tcp::{Busy, RECEIVED_MAX, Tcp};
pub use udp::{DATAGRAM_MAX, Udp, receive as receive_datagram, set_peer};
pub use until::Pattern;
pub use writing::{answer as answer_send, begin as begin_send};
