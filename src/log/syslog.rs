//! Messages to a syslog daemon (RFC 3164 over UDP or a unix socket), for error and access logs.
use super::Level;
use crate::sys::{process, time};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// One peer, as `server=…,facility=…,severity=…,tag=…,nohostname` describes it.
#[derive(Debug)]
pub struct Syslog {
    server: Server,
    name: String,
    facility: u8,
    severity: Severity,
    tag: String,
    hostname: Option<String>,
    socket: Mutex<Option<Socket>>,
    /// Set while a message is on its way: what goes wrong with it is not reported through itself.
    busy: AtomicBool,
}

/// RFC 3164's severity, 0 (emerg) to 7 (debug).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Severity(u8);

impl From<Level> for Severity {
    fn from(level: Level) -> Severity {
        Severity(level as u8 - Level::Emerg as u8)
    }
}

/// What could not be done with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    Socket,
    Connect,
    Send,
}

impl Failed {
    /// The words for the log, and how grave it is.
    pub(super) fn text(self) -> (&'static str, Level) {
        match self {
            Failed::Socket => ("socket() failed", Level::Alert),
            Failed::Connect => ("connect() failed", Level::Alert),
            Failed::Send => ("send() failed", Level::Error),
        }
    }
}

#[derive(Debug)]
enum Server {
    Udp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    /// Reads what stands after `syslog:`. The error is nginx's sentence.
    pub fn parse(about: &str) -> Result<Syslog, String> {
        let mut parts = Parts::default();
        for part in about.split(',') {
            parts.take(part)?;
        }
        let (server, name) = parts.server.ok_or("no syslog server specified")?;
        Ok(Syslog {
            server,
            name,
            facility: parts.facility.unwrap_or(LOCAL7),
            severity: parts.severity.unwrap_or(Severity::from(Level::Info)),
            tag: parts.tag.unwrap_or_else(|| "nginx".into()),
            hostname: (!parts.nohostname).then(process::hostname),
            socket: Mutex::new(None),
            busy: AtomicBool::new(false),
        })
    }

    /// The address as it was written.
    pub fn server(&self) -> &str {
        &self.name
    }

    /// Sends a message of the configured severity (an access log line). What fails is counted as
    /// lost; a full socket buffer too, since nobody may wait for a log.
    pub fn send_line(&self, message: &[u8]) -> io::Result<()> {
        self.send(self.severity, message).map_err(|(_, error)| error)
    }

    pub(super) fn send(
        &self,
        severity: Severity,
        message: &[u8],
    ) -> Result<(), (Failed, io::Error)> {
        if self.busy.swap(true, Relaxed) {
            return Ok(());
        }
        let mut packet = self.head(severity);
        packet.extend_from_slice(message);
        let outcome = self.send_packet(&packet);
        self.busy.store(false, Relaxed);
        outcome
    }

    fn head(&self, severity: Severity) -> Vec<u8> {
        let priority = self.facility * 8 + severity.0;
        let (time, tag) = (time::syslog(), &self.tag);
        match &self.hostname {
            Some(host) => format!("<{priority}>{time} {host} {tag}: ").into_bytes(),
            None => format!("<{priority}>{time} {tag}: ").into_bytes(),
        }
    }

    fn send_packet(&self, packet: &[u8]) -> Result<(), (Failed, io::Error)> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.is_none() {
            *socket = Some(self.server.connect()?);
        }
        let sent = match socket.as_ref() {
            Some(Socket::Udp(udp)) => udp.send(packet),
            Some(Socket::Unix(unix)) => unix.send(packet),
            None => Ok(0),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => {
                *socket = None;
                Err((Failed::Send, error))
            }
        }
    }
}

impl Server {
    fn connect(&self) -> Result<Socket, (Failed, io::Error)> {
        let no_socket = |error| (Failed::Socket, error);
        let no_peer = |error| (Failed::Connect, error);
        match self {
            Server::Udp(addr) => {
                let any: SocketAddr = match addr {
                    SocketAddr::V4(_) => ([0u8; 4], 0).into(),
                    SocketAddr::V6(_) => ([0u16; 8], 0).into(),
                };
                let socket = UdpSocket::bind(any).map_err(no_socket)?;
                socket.set_nonblocking(true).map_err(no_socket)?;
                socket.connect(addr).map_err(no_peer)?;
                Ok(Socket::Udp(socket))
            }
            Server::Unix(path) => {
                let socket = UnixDatagram::unbound().map_err(no_socket)?;
                socket.set_nonblocking(true).map_err(no_socket)?;
                socket.connect(path).map_err(no_peer)?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

/// The parameters while they are read; each may be given once.
#[derive(Default)]
struct Parts {
    server: Option<(Server, String)>,
    facility: Option<u8>,
    severity: Option<Severity>,
    tag: Option<String>,
    nohostname: bool,
}

impl Parts {
    fn take(&mut self, part: &str) -> Result<(), String> {
        if let Some(value) = part.strip_prefix("server=") {
            let server = (parse_server(value)?, value.to_owned());
            once(&mut self.server, server, "server")
        } else if let Some(value) = part.strip_prefix("facility=") {
            let found = FACILITIES.iter().position(|name| *name == value);
            let facility = found.ok_or_else(|| format!("unknown syslog facility \"{value}\""))?;
            once(&mut self.facility, facility as u8, "facility")
        } else if let Some(value) = part.strip_prefix("severity=") {
            let level = Level::named(value);
            let level = level.ok_or_else(|| format!("unknown syslog severity \"{value}\""))?;
            once(&mut self.severity, level.into(), "severity")
        } else if let Some(value) = part.strip_prefix("tag=") {
            once(&mut self.tag, parse_tag(value)?, "tag")
        } else if part == "nohostname" {
            self.nohostname = true;
            Ok(())
        } else {
            Err(format!("unknown syslog parameter \"{part}\""))
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("duplicate syslog \"{name}\"")),
    }
}

fn parse_server(text: &str) -> Result<Server, String> {
    let wrong = |what: &str| format!("{what} in syslog server \"{text}\"");
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err(wrong("no path in the unix domain socket")),
            path => Ok(Server::Unix(path.into())),
        };
    }
    let has_port = match text.rfind(']') {
        Some(end) => text[end..].contains(':'),
        None => text.contains(':'),
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if has_port => {
            (host, port.parse::<u16>().ok().filter(|n| *n > 0).ok_or(wrong("invalid port"))?)
        }
        _ => (text, SYSLOG_PORT),
    };
    if host.is_empty() {
        return Err(wrong("no host"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut addrs = (bare, port).to_socket_addrs().map_err(|_| wrong("host not found"))?;
    addrs.next().map(Server::Udp).ok_or_else(|| wrong("host not found"))
}

/// RFC 3164: the tag is alphanumeric and has at most 32 characters; nginx allows `_`.
fn parse_tag(text: &str) -> Result<String, String> {
    if text.len() > 32 {
        return Err("syslog tag length exceeds 32".into());
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let rule = "syslog \"tag\" only allows alphanumeric characters and underscore";
        return Err(rule.into());
    }
    Ok(text.into())
}

const SYSLOG_PORT: u16 = 514;
const LOCAL7: u8 = 23;
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_parameters_are_checked_as_nginx_does() {
        let said = |text: &str| Syslog::parse(text).unwrap_err();
        assert_eq!(said("tag=x"), "no syslog server specified");
        assert_eq!(said("server=127.0.0.1,facility=ftpd"), "unknown syslog facility \"ftpd\"");
        assert_eq!(said("server=127.0.0.1,severity=loud"), "unknown syslog severity \"loud\"");
        assert_eq!(said("server=127.0.0.1,tag=a,tag=b"), "duplicate syslog \"tag\"");
        assert_eq!(
            said("server=127.0.0.1,tag=a-b"),
            "syslog \"tag\" only allows alphanumeric characters and underscore"
        );
        assert_eq!(said("server=127.0.0.1,x=1"), "unknown syslog parameter \"x=1\"");
        assert_eq!(said("server=127.0.0.1:0"), "invalid port in syslog server \"127.0.0.1:0\"");
        assert!(Syslog::parse("server=[::1]:12345,nohostname").is_ok());
        assert!(Syslog::parse("server=unix:/dev/log").is_ok());
    }

    #[test]
    fn a_message_arrives_with_its_priority_and_tag() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let addr = server.local_addr().unwrap();
        let about = format!("server={addr},facility=user,tag=edge,nohostname,severity=debug");
        let peer = Syslog::parse(&about).unwrap();
        peer.send_line(b"hello").unwrap();
        let mut packet = [0; 200];
        let len = server.recv(&mut packet).unwrap();
        let text = std::str::from_utf8(&packet[..len]).unwrap();
        assert!(text.starts_with("<15>") && text.ends_with(" edge: hello"), "{text}");
        peer.send(Level::Crit.into(), b"again").unwrap();
        let len = server.recv(&mut packet).unwrap();
        assert!(packet[..len].starts_with(b"<10>"));
    }
}
