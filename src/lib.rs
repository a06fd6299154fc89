//! Tollbar, a multi-process gateway daemon: the code map, folders in reading order.
//!
//! Read them from the bottom of the house upward; ARCHITECTURE.md tells the life of one request.

pub mod sys;
pub mod log;
pub mod conf;
pub mod event;
pub mod io;
pub mod proto;
pub mod tls;
pub mod upstream;
pub mod http;
pub mod agent;
pub mod lua;
pub mod plugin;
pub mod modules;
pub mod cycle;
pub mod process;
