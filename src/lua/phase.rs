//! Where in a request's life Lua runs, with OpenResty's names and numbers.

/// A set of phases, by lua-resty-core's bits.
pub type Phases = u32;

pub const SET: Phases = 0x0001;
pub const REWRITE: Phases = 0x0002;
pub const ACCESS: Phases = 0x0004;
pub const CONTENT: Phases = 0x0008;
pub const LOG: Phases = 0x0010;
pub const HEADER_FILTER: Phases = 0x0020;
pub const BODY_FILTER: Phases = 0x0040;
pub const TIMER: Phases = 0x0080;
pub const INIT_WORKER: Phases = 0x0100;
pub const BALANCER: Phases = 0x0200;
pub const SSL_CERT: Phases = 0x0400;
pub const EXIT_WORKER: Phases = 0x2000;
pub const SSL_CLIENT_HELLO: Phases = 0x4000;
pub const SERVER_REWRITE: Phases = 0x8000;
pub const PRECONTENT: Phases = 0x0002_0000;
/// A thread of `ngx.run_worker_thread`; lua-resty-core knows no such phase.
pub const THREAD: Phases = 0x8000_0000;
/// Before there is a worker: no request, no phase that `ngx.get_phase` would have to ask for.
pub const INIT: Phases = 0;

/// Phases of a request in which code may wait.
pub const MAY_WAIT: Phases = SERVER_REWRITE | REWRITE | ACCESS | PRECONTENT | CONTENT;
/// Phases of a TLS handshake.
pub const HANDSHAKE: Phases = SSL_CERT | SSL_CLIENT_HELLO;
/// Phases without request and connection that have an `ngx.ctx` all the same.
pub const ALONE: Phases = TIMER | INIT_WORKER | EXIT_WORKER;
/// All phases in which code may wait.
pub const YIELDABLE: Phases = MAY_WAIT | TIMER | HANDSHAKE;
/// Phases that have a request.
pub const WITH_REQUEST: Phases = SET | MAY_WAIT | LOG | HEADER_FILTER | BODY_FILTER | BALANCER;

/// The phase as messages name it.
pub fn name(phase: Phases) -> &'static str {
    match phase {
        SET => "set_by_lua*",
        REWRITE => "rewrite_by_lua*",
        ACCESS => "access_by_lua*",
        CONTENT => "content_by_lua*",
        LOG => "log_by_lua*",
        HEADER_FILTER => "header_filter_by_lua*",
        BODY_FILTER => "body_filter_by_lua*",
        TIMER => "ngx.timer",
        BALANCER => "balancer_by_lua*",
        SSL_CERT => "ssl_certificate_by_lua*",
        SSL_CLIENT_HELLO => "ssl_client_hello_by_lua*",
        SERVER_REWRITE => "server_rewrite_by_lua*",
        PRECONTENT => "precontent_by_lua*",
        EXIT_WORKER => "exit_worker_by_lua*",
        THREAD => "ngx.run_worker_thread",
        INIT_WORKER => "init_worker_by_lua*",
        _ => "init_by_lua*",
    }
}
