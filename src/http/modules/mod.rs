//! The features of the HTTP server, one file each.
//!
//! **Invariant:** no file here imports another one. Their order stands in `modules.rs`.

pub mod access;
pub mod auth_basic;
pub mod geo;
pub mod limit_conn;
pub mod limit_req;
pub mod map;
pub mod realip;
pub mod proxy;
pub mod split_clients;
