//! TLS on sockets: handshakes that turn an `io::Stream` into a secure `io::Conn`.
//!
//! [`accept`] and [`connect`] are futures without a limit in time; bound them with
//! `event::Deadline`. A dropped future drops the socket.

use std::any::Any;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::channel::Channel;
use super::client::Client;
use super::fault::HandshakeFault;
use super::handshake::{self, First};
use super::info::TlsInfo;
use super::server::{ChooseServer, Server};
use super::wire::Wire;
use crate::io::{Conn, Session, Stream};

/// What became of a connection to an `ssl` port.
pub enum Accepted {
    Secure {
        conn: Conn,
        info: Rc<TlsInfo>,
        /// Who was chosen for it.
        server: Rc<Server>,
    },
    /// The client does not speak TLS: HTTP answers status 497. The bytes are what it said so far.
    Plain { stream: Stream, read: Vec<u8> },
}

/// Takes a client's handshake. `read` is what was read of the connection before, beginning with
/// its first byte (behind a PROXY protocol header, that is).
pub async fn accept(
    stream: Stream,
    read: Vec<u8>,
    chooser: &dyn ChooseServer,
) -> Result<Accepted, HandshakeFault> {
    match handshake::accept(&stream, read, chooser).await? {
        First::Plain(read) => Ok(Accepted::Plain { stream, read }),
        First::Tls(accepted) => {
            let handshake::Accepted { channel, info, server } = *accepted;
            let info = Rc::new(info);
            let session = TlsSession { channel, info: info.clone() };
            Ok(Accepted::Secure { conn: Conn::secure(stream, Box::new(session)), info, server })
        }
    }
}

/// Makes a handshake with a server. `peer` tells servers apart, for their sessions (an address
/// will do); `name` is what the server should be called: see [`super::client::without_port`].
pub async fn connect(
    stream: Stream,
    client: &Client,
    peer: &str,
    name: &str,
) -> Result<(Conn, Rc<TlsInfo>), HandshakeFault> {
    let (channel, info) = handshake::connect(&stream, client, peer, name).await?;
    let info = Rc::new(info);
    let session = TlsSession { channel, info: info.clone() };
    Ok((Conn::secure(stream, Box::new(session)), info))
}

/// TLS above a socket. `Conn::session::<TlsSession, _>` finds it for the `$ssl_…` variables.
pub struct TlsSession {
    channel: Channel,
    info: Rc<TlsInfo>,
}

impl TlsSession {
    pub fn info(&self) -> &Rc<TlsInfo> {
        &self.info
    }

    /// What the peer showed, its own certificate first.
    pub fn peer_certificates(&self) -> &[rustls::pki_types::CertificateDer<'static>] {
        self.channel.peer_certificates()
    }
}

impl Session for TlsSession {
    fn poll_read(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.channel.poll_read(stream, cx, buf)
    }

    fn poll_write_vectored(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.channel.poll_write_vectored(stream, cx, pieces)
    }

    fn poll_flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_flush(stream, cx)
    }

    fn poll_close(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_goodbye(stream, cx)
    }

    fn buffered(&self) -> usize {
        self.channel.buffered()
    }

    fn has_unflushed(&self) -> bool {
        self.channel.has_unsent()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Wire for Stream {
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::poll_read(self, cx, room)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(self, cx, bytes)
    }
}

/// Against OpenSSL's own programs, where they are installed.
#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{made, pair};
    use super::super::ciphers::Protocol;
    use super::super::client::ClientSpec;
    use super::super::server::{ServerSpec, SessionCache, VerifyClient};
    use super::super::shelf::{Memory, Shelf};
    use super::*;
    use crate::event::Reactor;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    fn has(program: &str) -> bool {
        Command::new(program)
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    }

    fn server(change: impl FnOnce(&mut ServerSpec)) -> Rc<Server> {
        let shelf: Arc<dyn Shelf> = Arc::new(Memory::new(100));
        let mut spec = ServerSpec::new(shelf);
        spec.certificates.push(pair(&made(&["localhost"], &rcgen::PKCS_ECDSA_P256_SHA256)));
        change(&mut spec);
        Rc::new(Server::build(&spec).map_err(|e| e.to_string()).unwrap().0)
    }

    /// Serves `count` connections of a program: reads a request, answers with the facts.
    fn serve(
        server: &Rc<Server>,
        program: impl Fn(u16) -> Child,
        count: usize,
    ) -> Vec<(String, String)> {
        let mut results = Vec::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for _ in 0..count {
            let child = program(port);
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let server = server.clone();
            let facts = Reactor::new().unwrap().block_on(async move {
                let stream = Stream::adopt(socket.into()).unwrap();
                answer(stream, &server).await
            });
            let out = child.wait_with_output().unwrap();
            let said = [out.stdout, out.stderr].concat();
            results.push((facts, String::from_utf8_lossy(&said).into_owned()));
        }
        results
    }

    async fn answer(stream: Stream, server: &Rc<Server>) -> String {
        let (conn, info) = match accept(stream, Vec::new(), server).await {
            Ok(Accepted::Secure { conn, info, .. }) => (conn, info),
            Ok(Accepted::Plain { read, .. }) => return String::from_utf8_lossy(&read).into_owned(),
            Err(fault) => return fault.to_string(),
        };
        let mut request = [0; 4096];
        let _ = conn.read(&mut request).await;
        let facts = format!(
            "{} {} {} {} {} {} {}",
            info.protocol(),
            info.cipher(),
            info.curve(),
            if info.is_reused() { "r" } else { "." },
            info.client_verify(),
            info.hello().unwrap().ja4(),
            String::from_utf8_lossy(info.server_name().unwrap_or_default()),
        );
        let length = facts.len();
        let reply = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{facts}");
        let _ = conn.write_all(reply.as_bytes()).await;
        let _ = conn.close().await;
        facts
    }

    fn s_client(port: u16, args: &[&str]) -> Child {
        let mut child = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-servername", "a.example", "-connect"])
            .arg(format!("127.0.0.1:{port}"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = b"GET / HTTP/1.0\r\n\r\n";
        child.stdin.take().unwrap().write_all(request).unwrap();
        child
    }

    #[test]
    fn openssl_connects_and_resumes() {
        if !has("openssl") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let session = dir.path().join("session");
        let session = session.to_str().unwrap();
        let shelf: Arc<dyn Shelf> = Arc::new(Memory::new(100));
        for (version, cache, tickets) in [
            ("-tls1_3", SessionCache::None, true),
            ("-tls1_2", SessionCache::None, true),
            ("-tls1_3", SessionCache::On(shelf.clone()), false),
            ("-tls1_2", SessionCache::On(shelf.clone()), false),
        ] {
            let server =
                server(|spec| (spec.session_cache, spec.session_tickets) = (cache, tickets));
            let first = &serve(&server, |p| s_client(p, &[version, "-sess_out", session]), 1)[0];
            assert!(
                first.0.contains(" . NONE t13d") || first.0.contains(" . NONE t12d"),
                "{first:?}"
            );
            assert!(first.1.contains(&first.0), "the reply arrived: {first:?}");
            let again = &serve(&server, |p| s_client(p, &[version, "-sess_in", session]), 1)[0];
            assert!(again.0.contains(" r NONE "), "{version} {tickets}: {again:?}");
            assert!(again.1.contains("Reused, "), "{again:?}");
        }
    }

    #[test]
    fn openssl_gets_the_certificate_it_can_use() {
        if !has("openssl") {
            return;
        }
        let rsa = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa", "-keyout", "-",
            ])
            .output()
            .unwrap();
        let rsa = String::from_utf8(rsa.stdout).unwrap();
        let server = server(|spec| spec.certificates.push(pair(&(rsa.clone(), rsa.clone()))));
        let key_of = |args: &[&str]| {
            let (facts, said) = serve(&server, |p| s_client(p, args), 1).remove(0);
            (facts, said.contains("CN = rsa"))
        };
        assert!(!key_of(&["-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"]).1);
        assert!(key_of(&["-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA256"]).1);
        let (facts, is_rsa) = key_of(&["-tls1_2", "-cipher", "aRSA"]);
        assert!(is_rsa && facts.contains("ECDHE-RSA-"), "{facts}");
        assert!(key_of(&["-curves", "P-521"]).0.contains("no suitable key share"));
    }

    #[test]
    fn curves_of_the_configuration() {
        if !has("openssl") {
            return;
        }
        for (list, curve) in [("prime256v1", "prime256v1"), ("secp521r1", "secp521r1")] {
            let server = server(|spec| spec.ecdh_curve = list.into());
            let (facts, _) =
                serve(&server, |p| s_client(p, &["-curves", "X25519:P-256:P-521"]), 1).remove(0);
            assert!(facts.contains(&format!(" {curve} ")), "a second hello was asked for: {facts}");
        }
    }

    /// X.509 v1, as the public tests of nginx use it.
    #[test]
    fn a_client_certificate_of_version_1() {
        if !has("openssl") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(file("conf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old"])
            .args(["-config", &file("conf"), "-keyout", &file("key"), "-out", &file("crt")])
            .output()
            .unwrap();
        assert!(made.status.success());
        let (crt, key) = (file("crt"), file("key"));
        for version in ["-tls1_2", "-tls1_3"] {
            let server = server(|spec| {
                spec.verify_client = VerifyClient::On;
                spec.client_certificate = Some(crt.clone());
            });
            let args = [version, "-cert", &crt, "-key", &key];
            let (facts, said) = serve(&server, |p| s_client(p, &args), 1).remove(0);
            assert!(facts.contains(" SUCCESS "), "{facts}");
            assert!(said.contains("Acceptable client certificate CA names\nCN = old"), "{said}");
        }
        // And as our own: rustls must serve with it, too.
        let server = server(|spec| {
            spec.certificates = vec![super::super::certificate::Pair { certificate: crt, key }];
        });
        let (facts, said) = serve(&server, |p| s_client(p, &[]), 1).remove(0);
        assert!(facts.starts_with("TLSv1.3") && said.contains("CN = old"), "{facts}");
    }

    #[test]
    fn curl_fetches_and_plain_text_is_handed_back() {
        let curl = |port: u16, scheme: &str| {
            Command::new("curl")
                .args(["-sk", &format!("{scheme}://localhost:{port}/")])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        if !has("curl") {
            return;
        }
        let (facts, said) = serve(&server(|_| ()), |p| curl(p, "https"), 1).remove(0);
        assert!(said.ends_with(&facts) && facts.starts_with("TLSv1.3 "), "{said} {facts}");
        let (request, _) = serve(&server(|_| ()), |p| curl(p, "http"), 1).remove(0);
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    }

    #[test]
    fn a_stapled_response_is_sent() {
        if !has("openssl") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ocsp");
        // OCSPResponse { responseStatus tryLater }
        std::fs::write(&path, [0x30, 3, 0x0a, 1, 3]).unwrap();
        let server = server(|spec| spec.stapling_file = Some(path.to_str().unwrap().into()));
        for version in ["-tls1_2", "-tls1_3"] {
            let (_, said) = serve(&server, |p| s_client(p, &[version, "-status"]), 1).remove(0);
            assert!(said.contains("OCSP Response Status: trylater (0x3)"), "{said}");
        }
    }

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn s_server(dir: &Path, (cert, key): &(String, String), args: &[&str]) -> (Running, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        let mut command = Command::new("openssl");
        command.args([
            "s_server",
            "-quiet",
            "-rev",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-cert",
        ]);
        command.arg(file("crt", cert)).arg("-key").arg(file("key", key)).args(args);
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn();
        let running = Running(child.unwrap());
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (running, port);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("openssl s_server does not listen");
    }

    async fn reversed(client: &Client, port: u16, name: &str) -> Result<(String, bool), String> {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = Stream::adopt(socket.into()).unwrap();
        let connected = connect(stream, client, "peer", name).await;
        let (conn, info) = connected.map_err(|fault| fault.to_string())?;
        conn.write_all(b"abc\n").await.map_err(|e| e.to_string())?;
        let mut room = [0; 64];
        let len = conn.read(&mut room).await.map_err(|e| e.to_string())?;
        let _ = conn.close().await;
        Ok((String::from_utf8_lossy(&room[..len]).into_owned(), info.is_reused()))
    }

    #[test]
    fn openssl_as_upstream() {
        if !has("openssl") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let own = made(&["up.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let (_running, port) = s_server(dir.path(), &own, &[]);
        for version in [Protocol::Tls12, Protocol::Tls13] {
            let mut spec = ClientSpec::new("proxy");
            (spec.verify, spec.server_name) = (true, true);
            spec.protocols = vec![version];
            spec.trusted_certificate = Some(format!("data:{}", own.0));
            let client = Client::build(&spec).map_err(|e| e.to_string()).unwrap().0;
            Reactor::new().unwrap().block_on(async move {
                let first = reversed(&client, port, "up.example").await.unwrap();
                assert_eq!(first, ("cba\n".to_owned(), false));
                let second = reversed(&client, port, "up.example").await.unwrap();
                assert_eq!(second, ("cba\n".to_owned(), true), "{version:?}");
                let wrong = reversed(&client, port, "other.example").await;
                let text = "upstream SSL certificate does not match \"other.example\"";
                assert_eq!(wrong.unwrap_err(), text);
            });
        }
    }

    #[test]
    fn an_upstream_that_is_no_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let _ = peer.read(&mut [0; 100]);
            let _ = peer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        });
        let client = Client::build(&ClientSpec::new("proxy")).map_err(|e| e.to_string()).unwrap().0;
        let text = Reactor::new()
            .unwrap()
            .block_on(async move { reversed(&client, port, "x").await.unwrap_err() });
        server.join().unwrap();
        assert!(text.contains("wrong version number"), "{text}");
    }
}
