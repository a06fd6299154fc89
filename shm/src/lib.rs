//! Shared memory for a tree of processes, knowing nothing of the server that uses it.
//!
//! Read in this order:
//! - [`region`]: a sealed memfd mapped shared. The only file with `unsafe`; what it hands out is a
//!   slice of atomic words and a row of robust mutexes, so everything above it is safe code.
//! - [`lock`]: one of those mutexes held; tells the taker when the last holder died.
//! - [`dict`]: `ngx.shared.DICT`, and the records and counters of nginx's zones.
//! - [`cells`]: named blocks of counters (stub_status, state of upstream peers).
//! - [`queue`]: bounded and lossy, many producers to one consumer.
//! - [`snapshot`]: an immutable blob, built off-path, mapped read-only.
//! - [`prefixes`]: networks and their values in a snapshot, found by the longest match.
//! - [`inherit`]: what a new binary must be told to find all this again.
//!
//! **Invariant:** every value read from a region is a claim. It is range-checked by the slice it
//! indexes and judged by the reader; no content of a region can crash or hang a process.
//!
//! **Invariant:** every change becomes visible by one atomic store, so a process may die (kill -9)
//! between any two instructions; who takes its lock next repairs what only the lock protected.
//!
//! Time is an argument everywhere (`now_ms`, milliseconds since any fixed point that all processes
//! share, such as the Unix epoch): nothing here reads a clock.

pub mod region;
pub mod lock;
pub mod hash;
pub mod dict;
pub mod cells;
pub mod queue;
pub mod snapshot;
pub mod prefixes;
pub mod inherit;

pub use cells::{Block, Cells};
pub use dict::{Dict, Init, Put, RECORD_MAX, Record, Room, Update, Value};
pub use inherit::{Bequest, ShmKind};
pub use prefixes::Prefixes;
pub use queue::Queue;
pub use region::{OpenError, Region};
pub use snapshot::{Snapshot, SnapshotBuilder};
