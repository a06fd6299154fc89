//! Black-box tests: one configuration and the talk it causes, in one screen, one file per feature.
//!
//! Each test starts the real program. `TOLLBAR_TEST_BINARY` names another one, so that a test can
//! be checked against nginx itself.

// The harness is whole before all features are; goes when they have come.
#![allow(unused)]

#[macro_use]
mod harness;

mod access;
mod agent;
mod agent_table;
mod autoindex;
mod command_line;
mod conf_errors;
mod directives;
mod early_hints;
mod echo;
mod error_page;
mod gzip;
mod headers;
mod headers_more;
mod http2;
mod http_basic;
mod limits;
mod location;
mod logs;
mod lua;
mod lua_abort;
mod lua_balancer;
mod lua_body;
mod lua_budget;
mod lua_capture;
mod lua_handshake;
mod lua_libraries;
mod lua_output;
mod lua_phases;
mod lua_pipe;
mod lua_socket;
mod lua_socket_client;
mod lua_socket_tls;
mod lua_thread;
mod lua_timer;
mod lua_vm;
mod lua_worker_thread;
mod main_context;
mod map_geo;
mod plugin;
mod process;
mod process_tree;
mod proxy;
mod proxy_settings;
mod realip;
mod referer;
mod reply_fields;
mod request_body;
mod resolver;
mod return_rewrite;
mod secure_link;
mod server_name;
mod set_misc;
mod settings;
mod shipped;
mod smuggling;
mod static_files;
mod subrequests;
mod text_filters;
mod tls_basics;
mod tls_clients;
mod try_files;
mod upstream;
mod userid;
mod websocket;
