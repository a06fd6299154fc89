//! An upstream server in threads: it echoes, or does what a test told it, however rude.

use super::{PATIENCE, wait_for};
use socket2::Socket;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What a backend does with a request it was given a script for.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits until [`Backend::release`].
    Hold,
    /// Echoes bytes until the peer is done: the inside of a tunnel.
    Tunnel,
    Close,
    Reset,
}

impl Step {
    pub fn send(text: impl AsRef<[u8]>) -> Step {
        Step::Send(text.as_ref().to_vec())
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
    /// The number of the connection it came on, from 1.
    pub connection: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|l| l.split_once(": "));
        pairs.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

/// Listens on a port of its own. A request without a script is answered with 200, a header
/// `X-Connection` with the connection's number, and the request itself as the body.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// By path. The last script of a path stays, the ones before are played once.
    scripts: Mutex<HashMap<String, Vec<Vec<Step>>>>,
    seen: Mutex<Vec<Received>>,
    released: Mutex<bool>,
    release: Condvar,
    connections: AtomicUsize,
    open: AtomicUsize,
    closing: AtomicBool,
}

impl Backend {
    pub fn start() -> Backend {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.closing.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Backend { address, shared }
    }

    /// What to do with requests for `path` (without its arguments), one script per request.
    pub fn on(&self, path: &str, scripts: Vec<Vec<Step>>) {
        self.shared.scripts.lock().expect("lock").insert(path.into(), scripts);
    }

    /// Always answers `path` with these bytes, and keeps the connection.
    pub fn reply(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.on(path, vec![vec![Step::send(bytes)]]);
    }

    /// Always answers `path` with these bytes, and closes.
    pub fn reply_and_close(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.on(path, vec![vec![Step::send(bytes), Step::Close]]);
    }

    /// Lets go of everyone who waits in [`Step::Hold`].
    pub fn release(&self) {
        *self.shared.released.lock().expect("lock") = true;
        self.shared.release.notify_all();
    }

    pub fn requests(&self) -> Vec<Received> {
        self.shared.seen.lock().expect("lock").clone()
    }

    /// Waits for the `n`th request, counting from 1.
    #[track_caller]
    pub fn expect_request(&self, n: usize) -> Received {
        wait_for(|| self.requests().get(n - 1).cloned())
            .unwrap_or_else(|| panic!("{} requests, no {n}", self.requests().len()))
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits for the `n`th connection.
    #[track_caller]
    pub fn expect_connections(&self, n: usize) {
        wait_for(|| (self.connections() >= n).then_some(()))
            .unwrap_or_else(|| panic!("{} connections, no {n}", self.connections()));
    }

    /// Waits until `n` connections are open.
    #[track_caller]
    pub fn expect_open(&self, n: usize) {
        let open = || self.shared.open.load(Ordering::SeqCst);
        wait_for(|| (open() == n).then_some(()))
            .unwrap_or_else(|| panic!("{} connections open, not {n}", open()));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.release();
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(PATIENCE * 3));
    let mut talk = Talk { stream, unread: Vec::new() };
    while let Some(mut request) = talk.next_request() {
        request.connection = number;
        let script = script_for(&request, shared);
        shared.seen.lock().expect("lock").push(request);
        if !script.into_iter().all(|step| talk.obey(step, shared)) {
            break;
        }
    }
    drop(talk);
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

fn script_for(request: &Received, shared: &Shared) -> Vec<Step> {
    let path = request.head.split([' ', '?']).nth(1).unwrap_or_default();
    let mut scripts = shared.scripts.lock().expect("lock");
    match scripts.get_mut(path) {
        Some(left) if left.len() > 1 => left.remove(0),
        Some(left) => left[0].clone(),
        None => vec![Step::Send(echo(request))],
    }
}

fn echo(request: &Received) -> Vec<u8> {
    let mut body = request.head.clone().into_bytes();
    body.extend_from_slice(&request.body);
    let (length, number) = (body.len(), request.connection);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Connection: {number}\r\n\r\n");
    let mut reply = head.into_bytes();
    if !request.head.starts_with("HEAD ") {
        reply.extend(body);
    }
    reply
}

struct Talk {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Talk {
    fn next_request(&mut self) -> Option<Received> {
        let head = self.read_until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut request = Received { head, body: Vec::new(), connection: 0 };
        if request.header("Transfer-Encoding").is_some() {
            request.body = self.read_chunks()?;
        } else if let Some(length) = request.header("Content-Length") {
            request.body = self.read_exact(length.parse().ok()?)?;
        }
        Some(request)
    }

    fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let size = usize::from_str_radix(String::from_utf8(line).ok()?.trim_end(), 16).ok()?;
            body.extend(self.read_exact(size)?);
            self.read_until(b"\r\n")?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    fn read_exact(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Some(self.unread.drain(..length).collect())
    }

    fn fill(&mut self) -> Option<()> {
        let mut block = [0; 16384];
        let n = self.stream.read(&mut block).ok().filter(|n| *n > 0)?;
        self.unread.extend_from_slice(&block[..n]);
        Some(())
    }

    /// Does one step; `false` when the connection is over.
    fn obey(&mut self, step: Step, shared: &Shared) -> bool {
        match step {
            Step::Send(bytes) => self.stream.write_all(&bytes).is_ok(),
            Step::Pause(time) => {
                std::thread::sleep(time);
                true
            }
            Step::Hold => {
                let released = shared.released.lock().expect("lock");
                let wait = shared.release.wait_timeout_while(released, PATIENCE * 3, |r| !*r);
                drop(wait);
                true
            }
            Step::Tunnel => loop {
                let bytes = std::mem::take(&mut self.unread);
                if self.stream.write_all(&bytes).is_err() || self.fill().is_none() {
                    return false;
                }
            },
            Step::Close => false,
            Step::Reset => {
                if let Ok(socket) = self.stream.try_clone().map(Socket::from) {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
                false
            }
        }
    }
}
