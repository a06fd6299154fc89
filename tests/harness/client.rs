//! An HTTP client that says exactly what the test says, and hides nothing of the answer.

use super::PATIENCE;
use super::talk::request_bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

pub struct Client {
    wire: Wire,
    unread: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

pub(super) trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

impl Client {
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)
            .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        Client::over(stream)
    }

    /// Connects from another address of the loopback network.
    #[track_caller]
    pub fn connect_from(from: SocketAddr, to: SocketAddr) -> Client {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::from(from)).expect("an address of the loopback network");
        socket.connect(&SockAddr::from(to)).unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        Client::over(socket.into())
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Client { wire: Wire::Plain(stream), unread: Vec::new() }
    }

    #[track_caller]
    pub fn connect_unix(path: &Path) -> Client {
        let stream =
            UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { wire: Wire::Unix(stream), unread: Vec::new() }
    }

    /// Shakes hands as `name` says; the error is what the handshake failed with.
    pub fn try_tls(self, name: &str, config: Arc<ClientConfig>) -> Result<Client, String> {
        let Wire::Plain(stream) = self.wire else { panic!("TLS goes over TCP here") };
        let name = ServerName::try_from(name.to_string()).expect("a server name");
        let connection = ClientConnection::new(config, name).expect("a valid configuration");
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|e| e.to_string())?;
        }
        Ok(Client { wire: Wire::Tls(Box::new(stream)), unread: Vec::new() })
    }

    /// What the handshake agreed on; panics on a connection without TLS.
    pub fn tls(&self) -> &ClientConnection {
        match &self.wire {
            Wire::Tls(stream) => &stream.conn,
            _ => panic!("not a TLS connection"),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has closed may have answered before: what it said is read, not lost.
        if let Err(e) = self.try_send(bytes.as_ref()) {
            let gone = matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            assert!(gone, "send: {e}");
        }
    }

    /// As `send`; an error tells that the server has closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stream = self.stream();
        stream.write_all(bytes).and_then(|()| stream.flush())
    }

    /// The bare stream.
    pub(super) fn stream(&mut self) -> &mut dyn ReadWrite {
        match &mut self.wire {
            Wire::Plain(s) => s,
            Wire::Unix(s) => s,
            Wire::Tls(s) => s,
        }
    }

    pub(super) fn set_nonblocking(&self) {
        match &self.wire {
            Wire::Plain(s) => s.set_nonblocking(true),
            Wire::Unix(s) => s.set_nonblocking(true),
            Wire::Tls(s) => s.sock.set_nonblocking(true),
        }
        .expect("O_NONBLOCK");
    }

    /// Sends a request written as in a talk (`GET /a | Host: b`), keeping the connection.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Response {
        let (bytes, method) = request_bytes(request, "keep-alive");
        self.send(bytes);
        self.response_to(&method)
    }

    /// The next response, 1xx ones too, of a request that was not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_response(&mut self, method: &str) -> Result<Response, String> {
        let head = self.read_until(b"\r\n\r\n")?;
        let mut response = Response::from_head(&String::from_utf8_lossy(&head))?;
        let length = response.header("Content-Length").map(|v| v.parse::<usize>());
        let chunked = response.header("Transfer-Encoding").is_some_and(|v| v == "chunked");
        response.body = match (response.status, length) {
            (100..=199 | 204 | 304, _) => Vec::new(),
            _ if method == "HEAD" => Vec::new(),
            _ if chunked => self.read_chunks(&mut response.trailers)?,
            (_, Some(Ok(length))) => self.read_exact(length)?,
            (_, Some(Err(e))) => return Err(format!("Content-Length: {e}")),
            (_, None) => self.read_to_end(),
        };
        Ok(response)
    }

    fn read_chunks(&mut self, trailers: &mut Vec<(String, String)>) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let line = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(line.trim_end(), 16)
                .map_err(|_| format!("chunk size {line:?} after {} bytes", body.len()))?;
            if size == 0 {
                break;
            }
            body.extend(self.read_exact(size)?);
            let end = self.read_exact(2)?;
            if end != b"\r\n" {
                return Err(format!("a chunk ends with {end:?}"));
            }
        }
        loop {
            let line = self.read_until(b"\r\n")?;
            let line = String::from_utf8_lossy(&line).trim_end().to_string();
            match line.split_once(':') {
                Some((name, value)) => trailers.push((name.into(), value.trim().into())),
                None if line.is_empty() => return Ok(body),
                None => return Err(format!("trailer {line:?}")),
            }
        }
    }

    /// Everything until the server closes (or resets).
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().unwrap_or_else(|e| panic!("{e}; so far {:?}", self.shown())) {}
        std::mem::take(&mut self.unread)
    }

    /// Bytes up to and including `end`.
    pub fn read_until(&mut self, end: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return Ok(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill()? {
                return Err(format!("closed after {:?}", self.shown()));
            }
        }
    }

    pub fn read_exact(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            if !self.fill()? {
                return Err(format!("closed at {} of {length} bytes", self.unread.len()));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Reads once; `false` at the end of the connection.
    fn fill(&mut self) -> Result<bool, String> {
        let mut block = [0; 65536];
        match self.stream().read(&mut block) {
            Ok(n) => {
                self.unread.extend_from_slice(&block[..n]);
                Ok(n > 0)
            }
            // A TLS peer that closes without close_notify is closed too, as nginx does it.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                Ok(false)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                Err(format!("no answer; so far {:?}", self.shown()))
            }
            Err(e) => Err(format!("{e}; so far {:?}", self.shown())),
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    /// The server closes without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Half-closes: no more from here, but answers are still read.
    pub fn finish_sending(&mut self) {
        match &mut self.wire {
            Wire::Plain(s) => s.shutdown(Shutdown::Write).expect("shutdown"),
            Wire::Unix(s) => s.shutdown(Shutdown::Write).expect("shutdown"),
            Wire::Tls(s) => {
                s.conn.send_close_notify();
                s.flush().expect("close_notify");
            }
        }
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) {
        if let Wire::Plain(s) = self.wire {
            Socket::from(s).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        match &self.wire {
            Wire::Plain(s) => s.local_addr().expect("an address"),
            Wire::Tls(s) => s.sock.local_addr().expect("an address"),
            Wire::Unix(_) => panic!("a unix socket has no such address"),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Response {
    pub head: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    fn from_head(head: &str) -> Result<Response, String> {
        let mut lines = head.trim_end().lines();
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let (Some(status), true) = (status, line.starts_with("HTTP/1.1 ")) else {
            return Err(format!("not a status line: {line:?}"));
        };
        let mut headers = Vec::new();
        for header in lines {
            let pair = header.split_once(": ").or(header.strip_suffix(':').map(|n| (n, "")));
            let (name, value) = pair.ok_or(format!("not a header: {header:?}"))?;
            headers.push((name.to_string(), value.to_string()));
        }
        Ok(Response { head: head.into(), status, headers, ..Response::default() })
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, v)| v.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn shown(&self) -> String {
        let body: String = self.text().chars().take(2000).collect();
        format!("{}{body}", self.head)
    }

    /// As in a talk: `200 the body | Header: value | !Header`.
    #[track_caller]
    pub fn expect(self, expected: &str) -> Response {
        if let Err(e) = super::talk::meets(&self, expected) {
            panic!("expected {expected:?}, got {e}");
        }
        self
    }
}
