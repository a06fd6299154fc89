//! A name server in threads, over UDP and TCP on one port: it says what a test tells it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What the server says of a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, each family to its own question, for so many seconds.
    Hosts(Vec<IpAddr>, u32),
    Alias(String, u32),
    /// Priority, weight, port, target.
    Services(Vec<(u16, u16, u16, String)>, u32),
    /// This code and nothing else.
    Code(u8),
    Nothing,
    /// Messages that are no answers, then this.
    AfterGarbage(Box<Says>),
    /// This, over TCP only.
    OverTcp(Box<Says>),
}

impl Says {
    pub fn hosts(addresses: &[&str], ttl: u32) -> Says {
        Says::Hosts(addresses.iter().map(|a| a.parse().expect("an address")).collect(), ttl)
    }
}

/// The server. Names that it was told nothing of do not exist.
pub struct Dns {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Says>>,
    /// Name, type, and whether it came over TCP.
    seen: Mutex<Vec<(String, u16, bool)>>,
    closing: AtomicBool,
}

impl Dns {
    pub fn start() -> Dns {
        let (socket, listener) = (0..100)
            .find_map(|_| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                Some((UdpSocket::bind(listener.local_addr().ok()?).ok()?, listener))
            })
            .expect("a port");
        let address = socket.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let (udp, tcp) = (shared.clone(), shared.clone());
        std::thread::spawn(move || serve_udp(&socket, &udp));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if tcp.closing.load(Ordering::SeqCst) {
                    return;
                }
                let shared = tcp.clone();
                std::thread::spawn(move || serve_tcp(stream, &shared));
            }
        });
        Dns { address, shared }
    }

    pub fn say(&self, name: &str, says: Says) {
        self.shared.names.lock().expect("lock").insert(name.into(), says);
    }

    /// How many questions there were about a name.
    pub fn asked(&self, name: &str) -> usize {
        self.seen().iter().filter(|(n, ..)| n == name).count()
    }

    pub fn seen(&self) -> Vec<(String, u16, bool)> {
        self.shared.seen.lock().expect("lock").clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(b"", self.address);
        }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buf = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buf) {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        for message in answers(&buf[..len], shared, false) {
            let _ = socket.send_to(&message, from);
        }
    }
}

fn serve_tcp(mut stream: TcpStream, shared: &Shared) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        for message in answers(&query, shared, true) {
            let len = (message.len() as u16).to_be_bytes();
            let _ = stream.write_all(&[&len[..], &message].concat());
        }
    }
}

fn answers(query: &[u8], shared: &Shared, over_tcp: bool) -> Vec<Vec<u8>> {
    let Some((name, kind)) = question(query) else { return Vec::new() };
    shared.seen.lock().expect("lock").push((name.clone(), kind, over_tcp));
    let says = shared.names.lock().expect("lock").get(&name).cloned();
    said(query, kind, says.unwrap_or(Says::Code(3)), over_tcp)
}

fn question(query: &[u8]) -> Option<(String, u16)> {
    let (mut at, mut labels) = (12, Vec::new());
    while let len @ 1.. = usize::from(*query.get(at)?) {
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + len)?).into_owned());
        at += 1 + len;
    }
    Some((labels.join("."), u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?])))
}

fn said(query: &[u8], kind: u16, says: Says, over_tcp: bool) -> Vec<Vec<u8>> {
    match says {
        Says::Nothing => Vec::new(),
        Says::OverTcp(_) if !over_tcp => vec![message(query, 0x0200, &[], 0)],
        Says::OverTcp(inner) => said(query, kind, *inner, over_tcp),
        Says::AfterGarbage(inner) => {
            let mut wrong_id = said(query, kind, Says::hosts(&["203.0.113.66"], 60), over_tcp);
            wrong_id.iter_mut().for_each(|m| m[0] ^= 0x55);
            let mut all = vec![Vec::new(), vec![0xff; 900], query.to_vec()];
            all.extend(wrong_id);
            all.extend(said(query, kind, *inner, over_tcp));
            all
        }
        Says::Code(code) => vec![message(query, code.into(), &[], 0)],
        Says::Hosts(addresses, ttl) => {
            let records: Vec<(u16, Vec<u8>)> = addresses
                .iter()
                .map(|ip| match ip {
                    IpAddr::V4(ip) => (1, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (28, ip.octets().to_vec()),
                })
                .filter(|(k, _)| *k == kind)
                .collect();
            vec![message(query, 0, &records, ttl)]
        }
        Says::Alias(target, ttl) => vec![message(query, 0, &[(5, encoded(&target))], ttl)],
        Says::Services(services, ttl) => {
            let record = |(priority, weight, port, target): &(u16, u16, u16, String)| {
                let mut data = Vec::new();
                [priority, weight, port].iter().for_each(|n| data.extend(n.to_be_bytes()));
                data.extend(encoded(target));
                (33, data)
            };
            let records: Vec<_> = services.iter().map(record).collect();
            vec![message(query, 0, if kind == 33 { &records } else { &[] }, ttl)]
        }
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let label = |l: &str| [&[l.len() as u8][..], l.as_bytes()].concat();
    let mut bytes: Vec<u8> = name.split('.').flat_map(label).collect();
    bytes.push(0);
    bytes
}

fn message(query: &[u8], flags: u16, records: &[(u16, Vec<u8>)], ttl: u32) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, data) in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}
