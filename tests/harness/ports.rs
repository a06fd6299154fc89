//! Ports nobody else gets while a test runs.
//!
//! A port is held by a socket that is bound with SO_REUSEADDR and never listens: the kernel gives
//! the number to no one who asks for any port, but a server that names it may listen on it.

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};

/// One port, held until dropped. Nothing answers on it until somebody listens.
pub struct Port {
    pub number: u16,
    _holder: Socket,
}

impl Port {
    pub fn hold() -> Port {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        holder.set_reuse_address(true).expect("SO_REUSEADDR");
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        holder.bind(&any.into()).expect("a free port");
        let number = holder.local_addr().ok().and_then(|a| a.as_socket()).expect("bound").port();
        Port { number, _holder: holder }
    }
}
