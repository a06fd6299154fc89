//! Black-box tests: one configuration and the talk it causes, in one screen, one file per feature.
//!
//! Each test starts the real program. `TOLLBAR_TEST_BINARY` names another one, so that a test can
//! be checked against nginx itself.

// The harness is whole before all features are; goes when they have come.
#![allow(unused)]

#[macro_use]
mod harness;

mod agent;
mod command_line;
mod gzip;
mod headers;
mod limits;
mod location;
mod logs;
mod map_geo;
mod process;
mod process_tree;
mod proxy;
mod subrequests;
mod upstream;
mod websocket;
