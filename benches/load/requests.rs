//! Requests on kept connections, from one thread over readiness.

use crate::{Outcome, Plan};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// How long answers are waited for after the last request.
const GRACE: Duration = Duration::from_secs(5);

pub fn run(plan: &Plan) -> Outcome {
    let mut load = Load::connect(plan);
    let started = Instant::now();
    let end = started + plan.time;
    let interval = (plan.rate > 0.0).then(|| Duration::from_secs_f64(1.0 / plan.rate));
    let mut due = started;
    let mut events = Events::with_capacity(1024);
    loop {
        let now = Instant::now();
        while let Some(interval) = interval.filter(|_| due <= now && due < end) {
            load.waiting.push_back(due);
            due += interval;
        }
        load.assign(now, interval.is_none() && now < end);
        let over = now >= end && load.busy == 0 && load.waiting.is_empty();
        if over || now > end + GRACE {
            load.outcome.errors += (load.busy + load.waiting.len()) as u64;
            return load.outcome;
        }
        // The poll counts in milliseconds: the last one before a request is due is spun away.
        let left = if due < end { due.saturating_duration_since(now) } else { GRACE };
        let wait = if interval.is_none() { GRACE } else { left };
        let wait = if wait < Duration::from_millis(2) { Duration::ZERO } else { wait / 2 };
        load.poll.poll(&mut events, Some(wait)).ok();
        for event in &events {
            load.ready(event.token().0);
        }
    }
}

struct Load {
    poll: Poll,
    request: Vec<u8>,
    peers: Vec<Peer>,
    idle: Vec<usize>,
    busy: usize,
    /// When requests were due that no connection was free for.
    waiting: VecDeque<Instant>,
    outcome: Outcome,
    address: std::net::SocketAddr,
}

struct Peer {
    stream: TcpStream,
    due: Option<Instant>,
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is known.
    left: Option<usize>,
}

impl Load {
    fn connect(plan: &Plan) -> Load {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.host);
        let mut load = Load {
            poll: Poll::new().expect("epoll"),
            request: request.into_bytes(),
            peers: Vec::new(),
            idle: (0..plan.connections).collect(),
            busy: 0,
            waiting: VecDeque::new(),
            outcome: Outcome::default(),
            address: plan.address,
        };
        for index in 0..plan.connections {
            let peer = load.peer(index).unwrap_or_else(|e| panic!("{}: {e}", plan.address));
            load.peers.push(peer);
        }
        load
    }

    fn peer(&self, index: usize) -> std::io::Result<Peer> {
        let stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        Ok(Peer { stream, due: None, head: Vec::new(), left: None })
    }

    /// Gives idle connections something to do.
    fn assign(&mut self, now: Instant, endless: bool) {
        while !self.idle.is_empty() {
            let Some(due) = self.waiting.pop_front().or(endless.then_some(now)) else { return };
            let Some(index) = self.idle.pop() else { return };
            self.peers[index].due = Some(due);
            self.busy += 1;
            // A request is smaller than any socket's buffer.
            if self.peers[index].stream.write(&self.request).ok() != Some(self.request.len()) {
                self.failed(index);
            }
        }
    }

    fn ready(&mut self, index: usize) {
        let mut block = [0; 65536];
        loop {
            match self.peers[index].stream.read(&mut block) {
                Ok(n) if n > 0 => match self.peers[index].took(&block[..n]) {
                    Some(true) => self.answered(index),
                    Some(false) => {}
                    None => return self.failed(index),
                },
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                _ => return self.failed(index),
            }
        }
    }

    fn answered(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if let Some(due) = peer.due.take() {
            self.outcome.latencies.push(due.elapsed());
            self.busy -= 1;
            self.idle.push(index);
        }
    }

    /// Counts an error if a request was on the connection, and opens another.
    fn failed(&mut self, index: usize) {
        if self.peers[index].due.take().is_some() {
            self.outcome.errors += 1;
            self.busy -= 1;
            self.idle.push(index);
        }
        if let Ok(peer) = self.peer(index) {
            self.peers[index] = peer;
        }
    }
}

impl Peer {
    /// Takes bytes; whether the answer is whole, `None` when it is none that counts.
    fn took(&mut self, mut bytes: &[u8]) -> Option<bool> {
        if self.left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let end = self.head.windows(4).position(|w| w == b"\r\n\r\n");
            let Some(end) = end else { return Some(false) };
            bytes = &bytes[(end + 4).saturating_sub(before)..];
            self.left = Some(body_length(&self.head[..end])?);
            self.head.clear();
        }
        let left = self.left.unwrap_or_default().checked_sub(bytes.len())?;
        self.left = (left > 0).then_some(left);
        Some(left == 0)
    }
}

/// The length of a successful answer's body.
fn body_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let good = lines.next()?.starts_with("HTTP/1.1 2");
    let mut lengths = lines.filter_map(|l| l.split_once(": "));
    let (_, length) = lengths.find(|(n, _)| n.eq_ignore_ascii_case("content-length"))?;
    length.parse().ok().filter(|_| good)
}
