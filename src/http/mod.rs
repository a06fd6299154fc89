//! HTTP: what is configured, how a request is led through it, and how it is answered.
//!
//! Reading order: `request` (the five parts) · `module` (the form of a feature) · `conf` (reads
//! the blocks) · `listen`, `place` (address → server → location) · `phase` (the life of a
//! request) · `rewrite`, `error_page` · `body`, `reply` · `service`, `serve_h1`, `send`, `finish`
//! (the connection's side) · `ssl`, `handshake` · `variable`, `template`, `regex` (text of the
//! configuration).
//! `modules/` holds one file per feature.
//!
//! **Invariant:** no module knows which protocol carries a request, and `modules/*` never import
//! one another: what two need stands here, under its own noun.

pub mod body;
pub mod charset;
pub mod client;
pub mod conf;
pub mod core;
pub mod core_variables;
pub mod credentials;
pub mod deflate;
pub mod error_page;
pub mod fields;
pub mod forwarded;
pub mod finish;
pub mod gzip_rules;
pub mod handshake;
pub mod keyval;
pub mod life;
pub mod http2;
pub mod limits;
pub mod listen;
pub mod lru;
pub mod media_types;
pub mod module;
pub mod modules;
pub mod open_files;
pub mod phase;
pub mod pipe;
pub mod place;
pub mod recode;
pub mod regex;
pub mod reply;
pub mod request;
pub mod request_body;
pub mod rest;
pub mod rewrite;
pub mod sampling;
pub mod send;
mod serve_h1;
mod serve_h2;
pub mod service;
pub mod ssl;
pub mod status;
pub mod subrequest;
pub mod table;
pub mod template;
pub mod transform;
pub mod upstream;
pub mod variable;

pub use body::{Body, Fault, Pull, Whose};
pub use client::{Client, Peer};
pub use conf::{Here, HttpBlock, HttpConf, Modules};
pub use fields::Fields;
pub use module::{Confs, Entry, Erased, HttpModule, Level, Merging};
pub use phase::{Filtered, Handler, Phase, Pipeline, Verdict};
pub use place::{Kind, Location, Server};
pub use regex::Regex;
pub use reply::{LocalBoxFuture, Reply};
pub use request::{Head, Request};
pub use template::Template;
pub use variable::{Builtin, VarRef, VariableTable, keyed, settable, var};
