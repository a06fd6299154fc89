//! TLS: client hello, fingerprints, certificates, sessions, server and client.

pub mod client_hello;
pub mod fingerprint;
