//! One listening socket: opened, configured, removed. Each step that fails has nginx's sentence.
use crate::event::{ListenSpec, SocketKind};
use crate::log;
use crate::sys::listener;
use crate::sys::socket::{Address, local_address};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How a socket holds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nobody else may listen there.
    Alone,
    /// Others of the group may (SO_REUSEPORT).
    InGroup,
}

/// Opens and binds a socket. `None`: the address is in use, which has been logged.
pub fn bind(spec: &ListenSpec, manner: Manner) -> Result<Option<OwnedFd>, String> {
    let socket = create(spec, manner)?;
    match to_os(&spec.address).and_then(|address| socket.bind(&address)) {
        Ok(()) => {
            if let Address::Unix(path) = &spec.address {
                open_to_all(path);
            }
            Ok(Some(socket.into()))
        }
        Err(error) => {
            let message = format!("bind() to {} failed{}", spec.address, log::Os(&error));
            match error.kind() {
                io::ErrorKind::AddrInUse => {
                    log::emerg!("{message}");
                    Ok(None)
                }
                _ => Err(message),
            }
        }
    }
}

/// Tries whether the address could be bound; that it is in use is no fault (`-t` beside a running
/// server).
pub fn rehearse(spec: &ListenSpec) -> Result<(), String> {
    let socket = create(spec, Manner::Alone)?;
    match to_os(&spec.address).and_then(|address| socket.bind(&address)) {
        Ok(()) => {
            if let Address::Unix(path) = &spec.address {
                unlink(path);
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Err(error) => Err(format!("bind() to {} failed{}", spec.address, log::Os(&error))),
    }
}

/// Lets connections come.
pub fn listen(socket: BorrowedFd<'_>, spec: &ListenSpec) -> Result<(), String> {
    if spec.kind == SocketKind::Datagram {
        return Ok(());
    }
    SockRef::from(&socket).listen(spec.backlog).map_err(|error| {
        let (address, backlog, why) = (&spec.address, spec.backlog, log::Os(&error));
        format!("listen() to {address}, backlog {backlog} failed{why}")
    })
}

/// Makes a socket that was opened alone fit for a group. False if it cannot be.
pub fn join_group(socket: BorrowedFd<'_>) -> bool {
    let socket = SockRef::from(&socket);
    socket.reuse_port().unwrap_or(false) || socket.set_reuse_port(true).is_ok()
}

/// What an inherited socket is.
pub fn describe(socket: BorrowedFd<'_>) -> io::Result<ListenSpec> {
    let about = SockRef::from(&socket);
    let kind = match about.r#type()? {
        Type::DGRAM => SocketKind::Datagram,
        _ => SocketKind::Stream,
    };
    about.set_nonblocking(true)?;
    Ok(ListenSpec { kind, ..ListenSpec::new(local_address(socket)?) })
}

/// Sets the options that may change while a socket lives; what fails is logged and ignored.
/// `before` is how the socket was configured until now.
pub fn configure(socket: BorrowedFd<'_>, spec: &ListenSpec, before: Option<&ListenSpec>) {
    let about = SockRef::from(&socket);
    let report = |option: String, done: io::Result<()>| {
        if let Err(error) = done {
            let (address, why) = (&spec.address, log::Os(&error));
            log::alert!("setsockopt({option}) {address} failed, ignored{why}");
        }
    };
    if let Some(bytes) = spec.receive_buffer {
        report(format!("SO_RCVBUF, {bytes}"), about.set_recv_buffer_size(bytes));
    }
    if let Some(bytes) = spec.send_buffer {
        report(format!("SO_SNDBUF, {bytes}"), about.set_send_buffer_size(bytes));
    }
    if let Some(keep) = &spec.keepalive {
        report(format!("SO_KEEPALIVE, {}", u8::from(keep.on)), about.set_keepalive(keep.on));
        let mut tunable = TcpKeepalive::new();
        tunable = keep.idle.map_or(tunable.clone(), |idle| tunable.with_time(idle));
        tunable = keep.interval.map_or(tunable.clone(), |time| tunable.with_interval(time));
        tunable = keep.count.map_or(tunable.clone(), |count| tunable.with_retries(count));
        if keep.idle.is_some() || keep.interval.is_some() || keep.count.is_some() {
            report("TCP_KEEPIDLE".into(), about.set_tcp_keepalive(&tunable));
        }
    }
    if let Some(queue) = spec.fastopen {
        report(format!("TCP_FASTOPEN, {queue}"), listener::set_fast_open(socket, queue));
    }
    if before.is_some_and(|before| before.backlog != spec.backlog)
        && let Err(message) = listen(socket, spec)
    {
        log::alert!("{message}, ignored");
    }
    let deferred_before = before.is_some_and(|before| before.deferred);
    if spec.deferred != deferred_before {
        // Nobody knows how long a connection has waited already, so a second must do.
        let seconds = i32::from(spec.deferred);
        report(format!("TCP_DEFER_ACCEPT, {seconds}"), listener::set_deferred(socket, seconds));
    }
}

/// Deletes the file of a unix socket.
pub fn unlink(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        log::emerg!("unlink() {} failed{}", path.display(), log::Os(&error));
    }
}

fn create(spec: &ListenSpec, manner: Manner) -> Result<Socket, String> {
    let address = &spec.address;
    let failed =
        |call: &str, error: io::Error| format!("{call} {address} failed{}", log::Os(&error));
    let domain = match address {
        Address::Inet(inet) if inet.is_ipv4() => Domain::IPV4,
        Address::Inet(_) => Domain::IPV6,
        Address::Unix(_) => Domain::UNIX,
    };
    let kind = match spec.kind {
        SocketKind::Stream => Type::STREAM,
        SocketKind::Datagram => Type::DGRAM,
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)
        .map_err(|error| failed("socket()", error))?;
    socket.set_reuse_address(true).map_err(|error| failed("setsockopt(SO_REUSEADDR)", error))?;
    if manner == Manner::InGroup && !address.is_unix() && !join_group(socket.as_fd()) {
        // The workers will share this one.
        log::notice!("{}", failed("setsockopt(SO_REUSEPORT)", io::Error::last_os_error()));
    }
    if domain == Domain::IPV6
        && let Err(error) = socket.set_only_v6(spec.ipv6only)
    {
        log::emerg!("{}, ignored", failed("setsockopt(IPV6_V6ONLY)", error));
    }
    Ok(socket)
}

fn to_os(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Inet(inet) => Ok(SockAddr::from(*inet)),
        Address::Unix(path) => SockAddr::unix(path),
    }
}

/// Everybody may connect; who may is decided by the folder.
fn open_to_all(path: &Path) {
    let mode = std::fs::Permissions::from_mode(0o666);
    if let Err(error) = std::fs::set_permissions(path, mode) {
        log::emerg!("chmod() \"{}\" failed{}", path.display(), log::Os(&error));
    }
}
