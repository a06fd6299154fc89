//! `debug_connection`: clients whose connections log everything.
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// The chosen clients.
#[derive(Default)]
struct Clients {
    networks: Vec<IpNet>,
    unix: bool,
}

static CLIENTS: RwLock<Clients> = RwLock::new(Clients { networks: Vec::new(), unix: false });

/// Chooses the clients; [`settle`](super::settle) lets their messages through to the targets.
pub fn debug_clients(networks: Vec<IpNet>, unix: bool) {
    *CLIENTS.write().unwrap_or_else(PoisonError::into_inner) = Clients { networks, unix };
}

/// Whether a client is chosen; `None` is one that came by a unix socket. Ask once per connection
/// and answer it in [`Context::debugged`](super::Context::debugged).
pub fn is_debugged(client: Option<IpAddr>) -> bool {
    let clients = CLIENTS.read().unwrap_or_else(PoisonError::into_inner);
    match client {
        None => clients.unix,
        Some(address) => {
            let address = address.to_canonical();
            clients.networks.iter().any(|network| network.contains(&address))
        }
    }
}

/// Whether any client is chosen.
pub(super) fn is_anybody() -> bool {
    let clients = CLIENTS.read().unwrap_or_else(PoisonError::into_inner);
    clients.unix || !clients.networks.is_empty()
}
