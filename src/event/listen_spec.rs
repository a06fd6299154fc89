//! An address that the configuration wants to listen on, and how.
//!
//! `http` and `stream` make these while they read `listen`; `cycle` opens the sockets; a
//! [`Service`](super::Service) gets them back with its [`Post`](super::Post).
use crate::sys::socket::Address;
use std::time::Duration;

/// One listening address of one configuration; the `listen` directives of all servers on it
/// have been merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    pub address: Address,
    pub kind: SocketKind,
    /// Pending connections; nginx's 511 unless set.
    pub backlog: i32,
    /// `reuseport` was written: other programs may hold the address too. Tollbar opens one
    /// socket per worker anyway.
    pub reuseport: bool,
    /// An IPv6 wildcard does not take IPv4 connections.
    pub ipv6only: bool,
    /// A connection is accepted only once data has come.
    pub deferred: bool,
    /// Queue of TCP Fast Open.
    pub fastopen: Option<i32>,
    pub keepalive: Option<KeepAlive>,
    /// Bytes of the kernel's buffers.
    pub receive_buffer: Option<usize>,
    pub send_buffer: Option<usize>,
}

/// TCP, or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    Stream,
    Datagram,
}

/// `so_keepalive=on|off|[idle]:[interval]:[count]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    /// False is `so_keepalive=off`.
    pub on: bool,
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
}

/// nginx's backlog on Linux.
pub const BACKLOG_DEFAULT: i32 = 511;

impl ListenSpec {
    /// A plain stream listener.
    pub fn new(address: Address) -> ListenSpec {
        ListenSpec {
            address,
            kind: SocketKind::Stream,
            backlog: BACKLOG_DEFAULT,
            reuseport: false,
            ipv6only: true,
            deferred: false,
            fastopen: None,
            keepalive: None,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}
