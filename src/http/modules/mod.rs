//! The features of the HTTP server, one file each.
//!
//! **Invariant:** no file here imports another one. Their order stands in `modules.rs`.

pub mod access;
pub mod addition;
pub mod auth_basic;
pub mod autoindex;
pub mod auth_request;
pub mod echo;
pub mod geo;
pub mod gunzip;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod headers_more;
pub mod index;
pub mod keyval;
pub mod limit_conn;
pub mod limit_req;
pub mod log;
pub mod map;
pub mod mirror;
pub mod not_modified;
pub mod proxy;
pub mod random_index;
pub mod range;
pub mod realip;
pub mod referer;
pub mod sample;
pub mod secure_link;
pub mod set_misc;
pub mod split_clients;
pub mod static_file;
pub mod stub_status;
pub mod sub_filter;
pub mod table;
pub mod try_files;
pub mod userid;
