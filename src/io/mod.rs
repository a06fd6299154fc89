//! Buffers and connections.
//!
//! - `pool`: blocks of memory used again and again · `buf`: a block being filled
//! - `slice`: bytes that are shared and cut without copying
//! - `chunk`: bytes, or a range of a file · `chain`: chunks on their way to a connection
//! - `warm`: files that are not in memory are read by a thread first
//! - `stream`: a TCP or unix connection · `conn`: a stream, perhaps with TLS above it
//! - `pipe`: one end of a pipe to a program
//! - `datagram`: UDP, for the resolver · `scratch`: the thread's read buffer
//!
//! **Invariant:** nothing here is shared between threads, so nothing is locked or counted
//! atomically. An idle connection holds no buffer.

mod pool;
mod buf;
mod slice;
mod chunk;
mod warm;
mod chain;
mod stream;
mod conn;
mod datagram;
mod pipe;
mod scratch;

pub use buf::{Buf, Size};
pub use chain::{Chain, FileWay};
pub use chunk::{Chunk, OpenFile};
pub use conn::{Conn, Session, SharedConn};
pub use datagram::Datagram;
pub use pipe::Pipe;
pub use scratch::{SCRATCH_BYTES, with_scratch};
pub use slice::Slice;
pub use stream::{Stream, connect};
