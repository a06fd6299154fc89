//! TLS: client hello, fingerprints, certificates, sessions, server and client.
