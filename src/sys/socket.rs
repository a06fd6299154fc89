//! Sockets: addresses, accept, connect, the verbs of reading and writing, options.
//!
//! Everything here is nonblocking and close-on-exec. `EINTR` is retried here; `EAGAIN` comes back
//! as `WouldBlock`. A write to a closed socket is an error, not a signal.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, Shutdown};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::checked;

/// Where a socket is bound or connected.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Address {
    Inet(SocketAddr),
    /// A unix socket; the path of an unnamed one (a client's) is empty, an abstract one begins
    /// with a NUL byte.
    Unix(PathBuf),
}

impl Address {
    /// The port, 0 for a unix socket.
    pub fn port(&self) -> u16 {
        self.inet().map_or(0, |a| a.port())
    }
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
    pub fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }
    /// The same with another port; a unix socket has none and stays as it is.
    pub fn with_port(mut self, port: u16) -> Address {
        if let Address::Inet(address) = &mut self {
            address.set_port(port);
        }
        self
    }
    fn domain(&self) -> Domain {
        match self {
            Address::Inet(SocketAddr::V4(_)) => Domain::IPV4,
            Address::Inet(SocketAddr::V6(_)) => Domain::IPV6,
            Address::Unix(_) => Domain::UNIX,
        }
    }
    pub(super) fn to_os(&self) -> io::Result<SockAddr> {
        match self {
            Address::Inet(address) => Ok(SockAddr::from(*address)),
            Address::Unix(path) => SockAddr::unix(path),
        }
    }
    fn from_os(address: &SockAddr) -> Address {
        if let Some(inet) = address.as_socket() {
            return Address::Inet(inet);
        }
        match (address.as_pathname(), address.as_abstract_namespace()) {
            (Some(path), _) => Address::Unix(path.to_path_buf()),
            (None, Some(name)) => {
                let mut path = vec![0u8];
                path.extend_from_slice(name);
                Address::Unix(Path::new(std::ffi::OsStr::from_bytes(&path)).to_path_buf())
            }
            (None, None) => Address::Unix(PathBuf::new()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Inet(address)
    }
}

/// As nginx writes addresses: `192.0.2.1:80`, `[2001:db8::1]:80`, `unix:/run/x.sock`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// More bytes follow at once.
const MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

/// `EINTR` means: ask again.
#[inline]
pub(super) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno as i32)),
            Ok(value) => return Ok(value),
        }
    }
}

// ---- accept and connect -------------------------------------------------------------------

/// Takes one connection from the accept queue.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let call = |storage: *mut socket2::SockAddrStorage, len: *mut libc::socklen_t| loop {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: `try_init` gives room for any address and its length in `len`.
        let fd = unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), len, flags) };
        match checked(fd) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // SAFETY: the kernel has just made this descriptor for us.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    // SAFETY: on success `accept4` has written the address and its length.
    let (fd, address) = unsafe { SockAddr::try_init(call) }?;
    Ok((fd, Address::from_os(&address)))
}

/// Whether an error number says that this process, or the machine, can open no more descriptors.
pub fn is_out_of_descriptors(code: i32) -> bool {
    matches!(code, libc::EMFILE | libc::ENFILE)
}

/// How an outgoing connection leaves (`proxy_bind`).
#[derive(Clone, Default, Debug)]
pub struct Departure {
    /// The local address.
    pub bind: Option<Address>,
    /// The local address may be foreign (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// Bytes of receive buffer; 0 leaves the kernel's choice.
    pub receive_buffer: usize,
}

/// Begins to connect a stream socket. It becomes writable when the outcome is known; `take_error`
/// tells which. The boolean says that it is connected already (unix sockets).
pub fn connect(to: &Address, departure: &Departure) -> io::Result<(OwnedFd, bool)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(to.domain(), kind, None)?;
    if departure.receive_buffer > 0 {
        socket.set_recv_buffer_size(departure.receive_buffer)?;
    }
    if departure.transparent {
        set_transparent(socket.as_fd(), to)?;
    }
    if let Some(bind) = &departure.bind {
        if bind.port() == 0 && !bind.is_unix() {
            // The port is chosen at connect time, so that one port may serve many peers.
            set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        socket.bind(&bind.to_os()?)?;
    }
    match socket.connect(&to.to_os()?) {
        Ok(()) => Ok((socket.into(), true)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket.into(), false)),
        Err(error) => Err(error),
    }
}

fn set_transparent(fd: BorrowedFd<'_>, to: &Address) -> io::Result<()> {
    let (level, name) = match to.domain() {
        Domain::IPV6 => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
        _ => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    };
    set_option(fd, level, name, 1)
}

/// A UDP socket connected to `to`.
pub fn connect_datagram(to: SocketAddr) -> io::Result<OwnedFd> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::UDP))?;
    socket.connect(&SockAddr::from(to))?;
    Ok(socket.into())
}

/// A datagram socket connected to `to`, from `bind` if given. A unix socket is bound to a name of
/// the kernel's choice otherwise.
pub fn connect_datagram_to(to: &Address, bind: Option<&Address>) -> io::Result<OwnedFd> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(to.domain(), kind, None)?;
    match bind {
        Some(bind) => socket.bind(&bind.to_os()?)?,
        None if to.is_unix() => {
            nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::UnixAddr::new_unnamed())?;
        }
        None => {}
    }
    socket.connect(&to.to_os()?)?;
    Ok(socket.into())
}

/// A pending error of the socket, taken away (`SO_ERROR`).
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    match SockRef::from(&fd).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

// ---- reading and writing --------------------------------------------------------------------

/// Reads what has come; 0 is the end.
#[inline]
pub fn receive(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    retry(|| nix::sys::socket::recv(fd.as_raw_fd(), buf, MsgFlags::empty()))
}

/// Looks at what has come and leaves it there.
pub fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    retry(|| nix::sys::socket::recv(fd.as_raw_fd(), buf, MsgFlags::MSG_PEEK))
}

/// Writes what fits. `more`: the kernel may wait for the rest before it sends a short packet.
#[inline]
pub fn send(fd: BorrowedFd<'_>, buf: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    flags.set(MORE, more);
    retry(|| nix::sys::socket::send(fd.as_raw_fd(), buf, flags))
}

/// Writes what fits of several pieces, in one call. `more` as in `send`.
#[inline]
pub fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    flags.set(MORE, more);
    let mut message = MaybeUninit::<libc::msghdr>::zeroed();
    // SAFETY: a zeroed msghdr is valid: no name, no pieces, no control data.
    let message = unsafe { message.assume_init_mut() };
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    // SAFETY: `IoSlice` has the layout of iovec by its documentation; the kernel only reads.
    retry(|| match unsafe { libc::sendmsg(fd.as_raw_fd(), message, flags.bits()) } {
        -1 => Err(nix::errno::Errno::last()),
        sent => Ok(sent as usize),
    })
}

/// Sends bytes of a file at offset `at` without copying them through this program; 0 means that
/// the file ends there.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    at: u64,
    count: usize,
) -> io::Result<usize> {
    let mut offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    retry(|| nix::sys::sendfile::sendfile64(socket, file, Some(&mut offset), count))
}

/// Tells the peer that nothing more comes.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    retry(|| nix::sys::socket::shutdown(fd.as_raw_fd(), Shutdown::Write))
}

/// Stops both directions.
pub fn shutdown_both(fd: BorrowedFd<'_>) -> io::Result<()> {
    retry(|| nix::sys::socket::shutdown(fd.as_raw_fd(), Shutdown::Both))
}

// ---- facts and options ----------------------------------------------------------------------

/// The address of this end.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    Ok(Address::from_os(&SockRef::from(&fd).local_addr()?))
}

/// The address of the other end.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    Ok(Address::from_os(&SockRef::from(&fd).peer_addr()?))
}

/// Whether the socket is a listening one.
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).is_listener()
}

/// Small packets leave at once (`tcp_nodelay`).
pub fn set_nodelay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_nodelay(on)
}

/// Only full packets leave (`tcp_nopush`: `TCP_CORK`).
pub fn set_nopush(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_cork(on)
}

/// Closing will reset the connection instead of ending it (`reset_timedout_connection`).
pub fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// The kernel starts to send from this many unsent bytes downward (`send_lowat`'s modern form).
pub fn set_unsent_low_water(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes as libc::c_int)
}

/// Bytes of send and receive buffer; `None` leaves the kernel's choice.
pub fn set_buffers(
    fd: BorrowedFd<'_>,
    send: Option<usize>,
    receive: Option<usize>,
) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    send.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes))?;
    receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
}

/// A number that a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    KeepAlive,
    ReuseAddress,
    NoDelay,
    SendBuffer,
    ReceiveBuffer,
    KeepAliveInterval,
    KeepAliveCount,
}

impl Setting {
    fn level_and_name(self) -> (libc::c_int, libc::c_int) {
        match self {
            Setting::KeepAlive => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            Setting::ReuseAddress => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            Setting::NoDelay => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            Setting::SendBuffer => (libc::SOL_SOCKET, libc::SO_SNDBUF),
            Setting::ReceiveBuffer => (libc::SOL_SOCKET, libc::SO_RCVBUF),
            Setting::KeepAliveInterval => (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
            Setting::KeepAliveCount => (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        }
    }
}

/// What the kernel says of a setting.
pub fn setting(fd: BorrowedFd<'_>, which: Setting) -> io::Result<i32> {
    let (level, name) = which.level_and_name();
    get_option(fd, level, name)
}

/// Changes a setting.
pub fn set_setting(fd: BorrowedFd<'_>, which: Setting, value: i32) -> io::Result<()> {
    let (level, name) = which.level_and_name();
    set_option(fd, level, name, value)
}

/// `so_keepalive=`: probing of idle connections. `None` leaves a value to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Probes without an answer before the connection is given up.
    pub count: Option<u32>,
}

/// Switches probing on with these values, or off.
pub fn set_keepalive(fd: BorrowedFd<'_>, probing: Option<Keepalive>) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    let Some(probing) = probing else { return socket.set_keepalive(false) };
    let mut values = TcpKeepalive::new();
    if let Some(idle) = probing.idle {
        values = values.with_time(idle);
    }
    if let Some(interval) = probing.interval {
        values = values.with_interval(interval);
    }
    if let Some(count) = probing.count {
        values = values.with_retries(count);
    }
    socket.set_tcp_keepalive(&values)
}

/// The process at the other end of a unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerProcess {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Who is at the other end of a unix socket (`SO_PEERCRED`).
pub fn peer_process(fd: BorrowedFd<'_>) -> io::Result<PeerProcess> {
    use nix::sys::socket::sockopt::PeerCredentials;
    let found = nix::sys::socket::getsockopt(&fd, PeerCredentials)?;
    Ok(PeerProcess { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// What `$tcpinfo_*` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpInfo {
    pub rtt_us: u32,
    pub rtt_variation_us: u32,
    pub congestion_window: u32,
    pub receive_space: u32,
}

/// The kernel's view of a TCP connection.
pub fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let info: libc::tcp_info = get_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(TcpInfo {
        rtt_us: info.tcpi_rtt,
        rtt_variation_us: info.tcpi_rttvar,
        congestion_window: info.tcpi_snd_cwnd,
        receive_space: info.tcpi_rcv_space,
    })
}

/// Options whose value is plain numbers, for which any bytes are a valid value.
pub(super) trait Plain: Copy {}
impl Plain for libc::c_int {}
impl Plain for libc::tcp_info {}
impl Plain for libc::sock_fprog {}

pub(super) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    checked(result).map(drop)
}

pub(super) fn get_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, which has that size.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len)
    };
    checked(result)?;
    // SAFETY: zeroed before the call, and any bytes are a valid `Plain`.
    Ok(unsafe { value.assume_init() })
}

/// The descriptor's number, for messages and for the `NGINX` variable.
pub fn number(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn addresses_are_written_as_nginx_does() {
        let inet: SocketAddr = "192.0.2.1:80".parse().unwrap();
        assert_eq!(Address::from(inet).to_string(), "192.0.2.1:80");
        let inet: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(Address::from(inet).to_string(), "[2001:db8::1]:443");
        assert_eq!(Address::Unix("/run/x.sock".into()).to_string(), "unix:/run/x.sock");
        assert_eq!(Address::Unix(PathBuf::new()).to_string(), "unix:");
    }

    #[test]
    fn a_connection_is_made_and_its_facts_are_right() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = Address::Inet(listener.local_addr().unwrap());
        let (client, _) = connect(&to, &Departure::default()).unwrap();
        let (server, from) = accept(listener.as_fd()).unwrap();
        take_error(client.as_fd()).unwrap();
        assert_eq!(local_address(client.as_fd()).unwrap(), from);
        assert_eq!(peer_address(client.as_fd()).unwrap(), to);
        assert_eq!(local_address(server.as_fd()).unwrap(), to);
        assert!(is_listening(listener.as_fd()).unwrap());
        assert!(!is_listening(server.as_fd()).unwrap());
        assert!(tcp_info(server.as_fd()).unwrap().congestion_window > 0);

        assert_eq!(
            receive(server.as_fd(), &mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let pieces = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
        assert_eq!(send_vectored(client.as_fd(), &pieces, false).unwrap(), 5);
        let mut buf = [0; 8];
        assert_eq!(peek(server.as_fd(), &mut buf).unwrap(), 5);
        assert_eq!(receive(server.as_fd(), &mut buf).unwrap(), 5);
        shutdown_write(client.as_fd()).unwrap();
        assert_eq!(receive(server.as_fd(), &mut buf).unwrap(), 0);
    }

    #[test]
    fn a_connection_leaves_from_the_address_asked_for() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = Address::Inet(listener.local_addr().unwrap());
        let local = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0));
        let departure = Departure { bind: Some(local.into()), ..Departure::default() };
        let (_client, _) = connect(&to, &departure).unwrap();
        let (_server, from) = accept(listener.as_fd()).unwrap();
        assert_eq!(from.inet().unwrap().ip(), local.ip());
    }

    #[test]
    fn the_process_behind_a_unix_socket_is_known() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_process(a.as_fd()).unwrap().pid, std::process::id() as i32);
    }

    #[test]
    fn probing_can_be_set() {
        let (fd, _) =
            connect(&SocketAddr::from((Ipv6Addr::LOCALHOST, 1)).into(), &Departure::default())
                .unwrap_or_else(|_| {
                    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                    (listener.into(), false)
                });
        let probing =
            Keepalive { idle: Some(Duration::from_secs(30)), interval: None, count: Some(3) };
        set_keepalive(fd.as_fd(), Some(probing)).unwrap();
        assert!(SockRef::from(&fd).keepalive().unwrap());
        set_keepalive(fd.as_fd(), None).unwrap();
        assert!(!SockRef::from(&fd).keepalive().unwrap());
    }
}
