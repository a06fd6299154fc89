//! Peers: balancing, keepalive, retry.
