//! The `events` block: how many connections a worker holds, and how it accepts them.
use crate::conf::{
    Block, Directive, EVENTS, Found, Note, Reading, Reason, call, d, exactly, flag, found, msec,
    num, set_from,
};
use crate::sys::user;
use ipnet::IpNet;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

/// The block as it was written.
#[derive(Default)]
pub struct RawEvents {
    connections: Option<i64>,
    multi_accept: Option<bool>,
    method: Option<()>,
    accept_mutex: Option<bool>,
    accept_mutex_delay: Option<Duration>,
    aio_requests: Option<i64>,
    debugged: Vec<IpNet>,
    debugged_unix: bool,
}

#[rustfmt::skip]
pub const TABLE: &[Directive<RawEvents>] = &[
    d("worker_connections",   EVENTS, num(0, i64::MAX, |c| &mut c.connections)),
    d("multi_accept",         EVENTS, flag(|c| &mut c.multi_accept)),
    d("use",                  EVENTS, call(exactly(1), RawEvents::set_method)),
    d("accept_mutex",         EVENTS, flag(|c| &mut c.accept_mutex)),
    d("accept_mutex_delay",   EVENTS, msec(|c| &mut c.accept_mutex_delay)),
    // Files are read by threads, of which `thread_pool` is the bound.
    d("worker_aio_requests",  EVENTS, num(0, i64::MAX, |c| &mut c.aio_requests)),
    d("debug_connection",     EVENTS, call(exactly(1), RawEvents::add_debugged)),
];

impl Block for RawEvents {
    fn statement(&mut self, reading: &mut Reading) -> Result<Found, Reason> {
        found([set_from(TABLE, EVENTS, self, reading)])
    }
}

impl RawEvents {
    fn set_method(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.method.is_some() {
            return Err(Reason::Duplicate);
        }
        if r.arg(0) != "epoll" {
            return Err(Reason::says(format!("invalid event type \"{}\"", r.arg(0))));
        }
        self.method = Some(());
        Ok(())
    }

    fn add_debugged(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let name = r.arg(0).to_owned();
        if name == "unix:" {
            self.debugged_unix = true;
        } else if let Ok(net) = name.parse::<IpNet>() {
            if net.addr() != net.network() {
                r.warn(format!("low address bits of {name} are meaningless"));
            }
            self.debugged.push(net.trunc());
        } else if let Ok(address) = name.parse::<IpAddr>() {
            self.debugged.push(address.into());
        } else {
            let found = (name.as_str(), 0).to_socket_addrs();
            let wrong = || Reason::says(format!("host not found in debug_connection \"{name}\""));
            let addresses = found.map_err(|_| wrong())?;
            self.debugged.extend(addresses.map(|address| IpNet::from(address.ip())));
        }
        Ok(())
    }

    /// Fills in what was not written. `rlimit_nofile` is what the workers will set.
    pub fn finish(self, rlimit_nofile: Option<u64>, notes: &mut Vec<Note>) -> Events {
        let connections = self.connections.map_or(CONNECTIONS_DEFAULT, |n| n as usize);
        let limit = rlimit_nofile.or_else(|| user::descriptor_limits().ok().map(|limits| limits.0));
        if let Some(limit) = limit.filter(|limit| connections as u64 > *limit) {
            let text = format!(
                "{connections} worker_connections exceed open file resource limit: {limit}"
            );
            notes.push(Note { level: "warn", text });
        }
        if self.accept_mutex == Some(true) {
            let text = "\"accept_mutex\" has no effect: every worker has sockets of its own";
            notes.push(Note { level: "notice", text: text.into() });
        }
        Events {
            connections,
            multi_accept: self.multi_accept.unwrap_or(false),
            debugged: self.debugged,
            debugged_unix: self.debugged_unix,
        }
    }
}

/// The block in force.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Connections of one worker, to clients and to peers.
    pub connections: usize,
    /// A worker takes all that wait at once.
    pub multi_accept: bool,
    /// Clients whose connections log at debug level.
    pub debugged: Vec<IpNet>,
    pub debugged_unix: bool,
}

const CONNECTIONS_DEFAULT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Paths;

    fn read(text: &str) -> Result<(Events, Vec<Note>), String> {
        // The block's own text is read as a file would be.
        let mut reading = Reading::new(Paths::default());
        let mut raw = RawEvents::default();
        reading.source("F".into(), text.into(), &mut raw).map_err(|e| e.to_string())?;
        let events = raw.finish(Some(4096), &mut reading.notes);
        Ok((events, reading.notes))
    }

    #[test]
    fn values_and_remarks() {
        let (events, notes) = read("use epoll; multi_accept on;").unwrap();
        assert!(events.multi_accept && notes.is_empty());
        assert_eq!(events.connections, 512);
        let (_, notes) = read("worker_connections 5000; accept_mutex on;").unwrap();
        let want = "5000 worker_connections exceed open file resource limit: 4096";
        assert_eq!((notes[0].text.as_str(), notes[1].level), (want, "notice"));
    }

    #[test]
    fn debugged_clients_are_networks() {
        let (events, notes) = read("debug_connection 192.0.2.1/24; debug_connection ::1;").unwrap();
        assert_eq!(events.debugged, ["192.0.2.0/24".parse().unwrap(), "::1/128".parse().unwrap()]);
        assert!(notes[0].text.contains("low address bits of 192.0.2.1/24"));
        assert!(read("debug_connection unix:;").unwrap().0.debugged_unix);
    }

    #[test]
    fn only_epoll_is_there() {
        assert_eq!(read("use select;").unwrap_err(), "invalid event type \"select\" in F:1");
    }
}
