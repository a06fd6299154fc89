//! The client's side of HTTP and its kin: handing a request to an upstream and its reply back.
//!
//! Reading order: `talk` (what a protocol has to say) · `rules`, `names`, `next` (the directives
//! that all protocols share) · `secure` (TLS) · `drive` (the tries of one request) ·
//! `upload` (request out) · `hints`, `answer`, `body` (reply back) · `tunnel` (after a 101) ·
//! `chooser` (code that picks the peer) ·
//! `trail`, `who` (variables, log) · `blocks` (`upstream {}` and the `$upstream_…` variables).
//!
//! **Invariant:** a connection goes back to its pool only after the whole reply was read and the
//! whole request sent; in every other case it is closed.

pub mod answer;
pub mod blocks;
pub mod body;
pub mod chooser;
pub mod drive;
pub mod hints;
pub mod names;
pub mod next;
pub mod rules;
pub mod secure;
pub mod spare;
pub mod talk;
pub mod trail;
pub mod tunnel;
pub mod upload;
pub mod who;

pub use blocks::Upstreams;
pub use drive::{Route, pass};
pub(crate) use rules::upstream_rows;
pub use rules::{RawRules, Rules};
pub(crate) use secure::upstream_ssl_rows;
pub use secure::{RawSecure, Secure};
pub use talk::{BodyFacts, HeadStep, Talk, Written};
pub use trail::Trail;
