//! Upstreams: groups of servers, who of them gets the next request, and the connections to them.
//!
//! Reading order: `url` (what the configuration names) · `peer` (one address and how it fares) ·
//! `group` (`upstream {}`: primary and backup peers) · `balance` and the methods `round_robin`,
//! `least_conn`, `hash`, `random` · `pool` (idle connections) · `connect` (new ones) ·
//! `block` (reads `upstream {}`) · `table` (all upstreams of a configuration) ·
//! `resolver` (DNS) · `living` (servers whose names are looked up again and again).
//!
//! Nothing here knows which protocol is spoken to a peer: `http/upstream` drives the exchange.
//!
//! **Invariant:** a peer's count of connections is raised by picking it and lowered by dropping
//! the [`Turn`] that came of it, whatever happens in between.

pub mod balance;
pub mod block;
pub mod connect;
pub mod group;
pub mod hash;
pub mod least_conn;
pub mod living;
pub mod peer;
pub mod pool;
pub mod random;
pub mod resolver;
pub mod round_robin;
pub mod table;
pub mod url;

pub use balance::{Ask, Balance, Turn};
pub use group::{Group, Upstream};
pub use peer::Peer;
pub use pool::{Kept, Pool};
pub use table::{Named, UpstreamTable};
pub use url::Url;
