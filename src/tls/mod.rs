//! TLS, by rustls over aws-lc, with the ways of OpenSSL where operators and clients see them.
//!
//! The way of a connection: its first bytes are read as a raw ClientHello (`client_hello`), a
//! `ChooseServer` picks a `Server` by it, rustls conducts the handshake (`handshake`, `engine`),
//! and a `Conn` comes out whose session encrypts (`secure`, `channel`). What is known of it then
//! is a `TlsInfo`. Upstream connections go the same way from `client`.
//!
//! - What was offered: `client_hello`, `fingerprint`, and the `names` of code points.
//! - What is configured: `server` and `client` are built from plain specs; `ciphers` (protocols,
//!   cipher strings, curves, `p521`), `certificate` (files), `private_key`, `pem`, `der`;
//!   complaints are a `refusal`.
//! - Whom to believe: `verifier` takes every certificate, `path` judges it (`x509`, `crl`, `dn`),
//!   `host_name` compares names.
//! - Resumption: `session`, over a `shelf` that all workers share.
//! - Bytes: `secure` on sockets; `handshake` and `channel` over any `wire`; `engine` over none.
//! - What went wrong: `fault`.
//!
//! **Invariant:** a certificate never fails a handshake; the verdict is kept and others act on it.
//! An idle connection holds no buffer: ciphertext passes through buffers of the thread.
//!
//! Deliberately absent: early data (offered by nobody, refused always), renegotiation, TLS before
//! 1.2, engines and OpenSSL's commands.

pub mod client_hello;
pub mod fingerprint;
pub mod names;

pub mod ciphers;
mod p521;
pub mod certificate;
pub mod private_key;
pub mod pem;
pub mod der;
pub mod refusal;

pub mod x509;
pub mod dn;
pub mod crl;
pub mod path;
pub mod host_name;
mod verifier;

pub mod shelf;
pub mod session;
pub mod server;
pub mod client;
pub mod info;
pub mod fault;

mod wire;
mod engine;
mod channel;
mod handshake;
pub mod secure;

pub use client::{Client, ClientSpec};
pub use client_hello::ClientHello;
pub use fault::HandshakeFault;
pub use info::TlsInfo;
pub use refusal::Refusal;
pub use secure::{Accepted, TlsSession, accept, connect};
pub use server::{Alert, Choice, ChooseServer, Chosen, Server, ServerSpec, VerifyClient};

/// Seconds since 1970, by the system's clock.
fn unix_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
