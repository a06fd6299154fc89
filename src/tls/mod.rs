//! TLS: client hello, fingerprints, certificates, sessions, server and client.

pub mod certificate;
mod channel;
pub mod ciphers;
pub mod client;
pub mod client_hello;
pub mod crl;
pub mod der;
pub mod dn;
mod engine;
pub mod fault;
pub mod fingerprint;
mod handshake;
pub mod host_name;
pub mod info;
pub mod names;
mod p521;
pub mod path;
pub mod pem;
pub mod private_key;
pub mod refusal;
pub mod secure;
pub mod server;
pub mod session;
mod verifier;
mod wire;
pub mod x509;
