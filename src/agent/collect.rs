//! Sources that are read again and again: files and HTTP servers.
//!
//! What was read is applied whole, change by change. Keys that a source does not name any more stay
//! until their lifetime is over: give them a `ttl` of some intervals.

use super::change::{self, NoChange};
use super::complaint::Complaint;
use crate::event::{self, Deadline};
use crate::http::keyval::KeyvalZones;
use crate::io::{self, Conn};
use crate::proto::h1::{Body, Piece, Progress, ReplyHead};
use crate::sys::socket::{Address, Departure};
use std::fs::File;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The longest body, bytes.
const BODY_MAX_BYTES: usize = 16 << 20;
const HEAD_MAX_BYTES: usize = 32 << 10;
/// How long a source may take for all of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Changes made before others of the helper have their turn.
const CHANGES_PER_TURN: usize = 500;

/// One `collect` of the block.
#[derive(Debug)]
pub struct Collector {
    /// As it was written.
    pub url: String,
    pub from: From,
    /// The only zone it changes.
    pub zone: String,
    pub interval: Duration,
}

/// Where it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    File(PathBuf),
    Http {
        host: String,
        port: u16,
        /// Path and query.
        target: String,
    },
}

impl From {
    /// Reads `file:PATH` and `http://HOST[:PORT][/…]`; `None` if it is neither.
    pub fn parse(url: &str, in_prefix: impl Fn(&str) -> PathBuf) -> Option<From> {
        if let Some(path) = url.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Some(From::File(in_prefix(path)));
        }
        let rest = url.strip_prefix("http://")?;
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(cut);
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        let plain = |b: u8| b.is_ascii_graphic();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let sane = !host.is_empty() && host.bytes().chain(target.bytes()).all(plain);
        (sane && !host.contains('@')).then(|| From::Http { host: host.into(), port, target })
    }
}

/// Why a source gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum NoBody {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it took too long")]
    TimedOut,
    #[error("its answer is too large")]
    TooLarge,
    #[error("its name is not known")]
    Unresolved,
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer is broken")]
    Broken,
    #[error("no thread is free to read it")]
    Busy,
}

/// Runs for the helper's life.
pub async fn keep(collector: Rc<Collector>, zones: KeyvalZones) {
    let about = |what| Complaint::new(format!("collect {}: {what}", collector.url));
    let (missing, nonsense) = (about("could not be read"), about("items were no changes"));
    loop {
        match Deadline::after(PATIENCE).bound(fetch(&collector.from, BODY_MAX_BYTES)).await {
            Ok(Ok(body)) => apply(&body, &collector.zone, &zones, &nonsense).await,
            Ok(Err(why)) => missing.count(1, &why, b""),
            Err(_) => missing.count(1, &NoBody::TimedOut, b""),
        }
        event::sleep(collector.interval).await;
    }
}

async fn apply(body: &[u8], zone: &str, zones: &KeyvalZones, nonsense: &Complaint) {
    let all = match change::read_all(body) {
        Ok(all) => all,
        Err(why) => return nonsense.count(1, &why, b""),
    };
    for (n, (change, text)) in all.into_iter().enumerate() {
        let made: Result<(), NoChange> = change.and_then(|change| change.make(zones, Some(zone)));
        if let Err(why) = made {
            nonsense.count(1, &why, &text);
        }
        if n % CHANGES_PER_TURN == CHANGES_PER_TURN - 1 {
            event::yield_now().await;
        }
    }
}

/// Reads all of it, `max_bytes` at most.
pub async fn fetch(from: &From, max_bytes: usize) -> Result<Vec<u8>, NoBody> {
    match from {
        From::File(path) => {
            let path = path.clone();
            in_thread(move || read_file(&path, max_bytes)).await
        }
        From::Http { host, port, target } => {
            let (name, port) = (host.clone(), *port);
            let address = in_thread(move || {
                let mut found = (name.as_str(), port).to_socket_addrs()?;
                found.next().ok_or(NoBody::Unresolved)
            });
            let stream = io::connect(&Address::Inet(address.await?), &Departure::default()).await?;
            let named = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: {named}:{port}\r\nAccept: */*\r\n\
                 User-Agent: tollbar\r\nConnection: close\r\n\r\n"
            );
            talk(&Conn::plain(stream), request.as_bytes(), max_bytes).await
        }
    }
}

async fn in_thread<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, NoBody> + Send + 'static,
) -> Result<T, NoBody> {
    let job = event::offload(job).map_err(|_| NoBody::Busy)?;
    job.await.map_err(|_| NoBody::Busy)?
}

fn read_file(path: &Path, max_bytes: usize) -> Result<Vec<u8>, NoBody> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes { Err(NoBody::TooLarge) } else { Ok(bytes) }
}

async fn talk(conn: &Conn, request: &[u8], max_bytes: usize) -> Result<Vec<u8>, NoBody> {
    conn.write_all(request).await?;
    let mut buffer = Vec::new();
    let mut ended = false;
    let (framing, start) = loop {
        let mut head = ReplyHead::new();
        match head.read(&buffer, HEAD_MAX_BYTES).map_err(|_| NoBody::Broken)? {
            Progress::Complete { len } if head.is_interim() => drop(buffer.drain(..len)),
            Progress::Complete { .. } if head.status != 200 => {
                return Err(NoBody::Status(head.status));
            }
            Progress::Complete { len } => break (head.framing(false), len),
            _ if ended => return Err(NoBody::Broken),
            _ => ended = read_more(conn, &mut buffer).await? == 0,
        }
    };
    buffer.drain(..start);
    let (mut body, mut content) = (Body::new(framing, HEAD_MAX_BYTES), Vec::new());
    loop {
        let mut at = 0;
        loop {
            match body.next(&buffer, &mut at).map_err(|_| NoBody::Broken)? {
                Piece::Data(range) if content.len() + range.len() > max_bytes => {
                    return Err(NoBody::TooLarge);
                }
                Piece::Data(range) => content.extend_from_slice(&buffer[range]),
                Piece::More => break,
                Piece::End => return Ok(content),
            }
        }
        buffer.drain(..at);
        if read_more(conn, &mut buffer).await? == 0 {
            body.closed().map_err(|_| NoBody::Broken)?;
            return Ok(content);
        }
    }
}

async fn read_more(conn: &Conn, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let start = buffer.len();
    buffer.resize(start + (16 << 10), 0);
    let count = conn.read(&mut buffer[start..]).await?;
    buffer.truncate(start + count);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn sources() {
        let parse = |url| From::parse(url, |path| Path::new("/p").join(path));
        let http = |host: &str, port, target: &str| {
            Some(From::Http { host: host.into(), port, target: target.into() })
        };
        assert_eq!(parse("file:a/b"), Some(From::File("/p/a/b".into())));
        assert_eq!(parse("http://h"), http("h", 80, "/"));
        assert_eq!(parse("http://h:81/x?y"), http("h", 81, "/x?y"));
        assert_eq!(parse("http://h?y"), http("h", 80, "/?y"));
        assert_eq!(parse("http://[::1]:81/"), http("::1", 81, "/"));
        assert_eq!(parse("http://[::1]/"), http("::1", 80, "/"));
        for bad in ["", "file:", "http://", "http://h:x/", "http://a b/", "http://u@h/", "ftp://h"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    fn answer(reply: &'static [u8]) -> Result<Vec<u8>, NoBody> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let _ = client.read(&mut asked).unwrap();
            client.write_all(reply).unwrap();
        });
        let from = From::Http { host: "127.0.0.1".into(), port, target: "/".into() };
        let mut reactor = event::Reactor::new().unwrap();
        let got = reactor.block_on(async move { fetch(&from, 100).await });
        server.join().unwrap();
        got
    }

    #[test]
    fn answers_in_every_framing() {
        for reply in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nabc",
        ] {
            assert_eq!(answer(reply).unwrap(), b"abc");
        }
        for reply in [
            &b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200",
            b"",
        ] {
            assert!(answer(reply).is_err());
        }
    }
}
