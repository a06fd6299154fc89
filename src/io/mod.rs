//! Buffers and connections.
