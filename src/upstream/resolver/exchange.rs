//! Carries the questions about one name to name servers, and the answers back.
//!
//! Every sending has a socket of its own, so its port is one that the system chose anew: who wants
//! to forge an answer must guess port and number. The sockets are connected: the system drops what
//! does not come from the server. Sockets of earlier sendings stay open for late answers.

use super::inquiry::{Answer, Inquiry, Step};
use crate::event::{self, Deadline, Elapsed};
use crate::io::{self, Datagram, Stream};
use crate::log;
use crate::proto::dns::Failure;
use crate::sys::socket::{Address, Departure};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// After so long without an answer the next server is asked.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// How long an exchange over TCP may take.
const TCP_PATIENCE: Duration = Duration::from_secs(5);
/// The largest datagram that is taken, in bytes.
const DATAGRAM_MAX: usize = 4096;
/// Sockets and TCP exchanges that wait for late answers, of each kind.
const LINES_MAX: usize = 4;
/// Messages that one wakening looks at.
const MESSAGES_AT_ONCE: usize = 16;
/// So many useless messages end a line.
const USELESS_MAX: u32 = 64;

/// Asks until there is an answer. `None`: after some time without one nobody wanted it any more.
/// `first` is the index of the server to begin with.
pub async fn ask(
    servers: &[SocketAddr],
    first: usize,
    inquiry: &mut Inquiry,
    is_wanted: impl Fn() -> bool,
) -> Option<Result<Answer, Failure>> {
    let (lines, calls) = (Vec::new(), Vec::new());
    let mut exchange = Exchange { inquiry, lines, calls };
    let mut at = first % servers.len();
    loop {
        // Within one round a server that is found dead hands over to the next one at once.
        let round = Deadline::after(RESEND_AFTER);
        let mut may_hand_over = servers.len() - 1;
        let mut news = exchange.send(servers[at]).await;
        loop {
            match news {
                Some(News::Done(result)) => return Some(result),
                Some(News::Broken) if may_hand_over > 0 => {
                    may_hand_over -= 1;
                    at = (at + 1) % servers.len();
                    news = exchange.send(servers[at]).await;
                    continue;
                }
                _ => {}
            }
            match round.bound(poll_fn(|cx| exchange.poll(cx))).await {
                Ok(more) => news = Some(more),
                Err(Elapsed) => break,
            }
        }
        if !is_wanted() {
            return None;
        }
        at = (at + 1) % servers.len();
    }
}

struct Exchange<'a> {
    inquiry: &'a mut Inquiry,
    lines: Vec<Line>,
    calls: Vec<Call>,
}

/// One sending by UDP.
struct Line {
    server: SocketAddr,
    socket: Datagram,
    useless: u32,
}

impl Line {
    fn poll(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<std::io::Result<usize>> {
        pin!(self.socket.receive(buf)).poll(cx)
    }

    /// Counts a useless message.
    fn has_too_much(&mut self) -> bool {
        self.useless += 1;
        self.useless >= USELESS_MAX
    }
}

/// One question over TCP.
struct Call {
    server: SocketAddr,
    answer: Pin<Box<dyn Future<Output = std::io::Result<Vec<u8>>>>>,
}

enum News {
    Done(Result<Answer, Failure>),
    /// A server turned out not to be there.
    Broken,
}

/// A name server, for the log.
struct Server(SocketAddr);

impl log::Context for Server {
    fn describe(&self, line: &mut log::Line) {
        line.push(format!(" while resolving, resolver: {}", self.0).as_bytes());
    }
}

impl Exchange<'_> {
    /// Sends what waits for an answer; a failure is logged.
    async fn send(&mut self, server: SocketAddr) -> Option<News> {
        let to_call: Vec<usize> =
            self.inquiry.waiting().filter(|w| w.over_tcp).map(|w| w.index).collect();
        to_call.into_iter().for_each(|index| self.call(server, index));
        if self.inquiry.waiting().all(|w| w.over_tcp) {
            return None;
        }
        let socket = match Datagram::connect(server) {
            Ok(socket) => socket,
            Err(e) => {
                log::crit!(&Server(server), "connect() failed{}", log::Os(&e));
                return Some(News::Broken);
            }
        };
        for waiting in self.inquiry.waiting().filter(|w| !w.over_tcp) {
            // A datagram waits for room only if the system is in great need. The second one may
            // learn that nobody takes the first.
            let sent = event::timeout(RESEND_AFTER, socket.send(waiting.query)).await;
            if let Err(e) = sent.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                log::error!(&Server(server), "send() failed{}", log::Os(&e));
                return Some(News::Broken);
            }
        }
        push_bounded(&mut self.lines, Line { server, socket, useless: 0 });
        None
    }

    fn call(&mut self, server: SocketAddr, index: usize) {
        let query = self.inquiry.query(index).to_vec();
        let answer = Box::pin(async move {
            let done = event::timeout(TCP_PATIENCE, over_tcp(server, query)).await;
            done.unwrap_or_else(|elapsed| Err(elapsed.into()))
        });
        push_bounded(&mut self.calls, Call { server, answer });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        if let Poll::Ready(news) = self.poll_lines(cx) {
            return Poll::Ready(news);
        }
        self.poll_calls(cx)
    }

    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        let mut buf = [0; DATAGRAM_MAX];
        let (mut at, mut budget) = (0, MESSAGES_AT_ONCE);
        while at < self.lines.len() {
            let received = match self.lines[at].poll(cx, &mut buf) {
                Poll::Ready(received) => received,
                Poll::Pending => {
                    at += 1;
                    continue;
                }
            };
            let server = self.lines[at].server;
            let step = match received {
                Ok(len) => self.take(server, &buf[..len], false),
                Err(e) => {
                    log::error!(&Server(server), "recv() failed{}", log::Os(&e));
                    self.lines.remove(at);
                    return Poll::Ready(News::Broken);
                }
            };
            match step {
                Step::Done(result) => return Poll::Ready(News::Done(result)),
                Step::Truncated(index) => self.call(server, index),
                Step::Useless if self.lines[at].has_too_much() => {
                    self.lines.remove(at);
                    return Poll::Ready(News::Broken);
                }
                Step::Useless | Step::Noted => budget -= 1,
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Pending
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        let mut at = 0;
        while let Some(call) = self.calls.get_mut(at) {
            let Poll::Ready(answer) = call.answer.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            let server = self.calls.remove(at).server;
            match answer {
                Ok(bytes) => match self.take(server, &bytes, true) {
                    Step::Done(result) => return Poll::Ready(News::Done(result)),
                    Step::Useless => return Poll::Ready(News::Broken),
                    _ => {}
                },
                Err(e) => {
                    log::error!(&Server(server), "TCP exchange failed{}", log::Os(&e));
                    return Poll::Ready(News::Broken);
                }
            }
        }
        Poll::Pending
    }

    fn take(&mut self, server: SocketAddr, bytes: &[u8], over_tcp: bool) -> Step {
        let step = self.inquiry.handle(bytes, over_tcp);
        for remark in self.inquiry.remarks() {
            log::error!(&Server(server), "{remark}");
        }
        step
    }
}

fn push_bounded<T>(list: &mut Vec<T>, item: T) {
    if list.len() == LINES_MAX {
        list.remove(0);
    }
    list.push(item);
}

/// One question and its answer over a connection of their own.
async fn over_tcp(server: SocketAddr, query: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let stream = io::connect(&Address::Inet(server), &Departure::default()).await?;
    let mut message = (query.len() as u16).to_be_bytes().to_vec();
    message.extend(query);
    let mut unsent = &message[..];
    while !unsent.is_empty() {
        let sent = poll_fn(|cx| stream.poll_write(cx, unsent)).await?;
        unsent = &unsent[sent..];
    }
    let mut len = [0; 2];
    read_whole(&stream, &mut len).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    read_whole(&stream, &mut answer).await?;
    Ok(answer)
}

async fn read_whole(stream: &Stream, buf: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    poll_fn(|cx| {
        while filled < buf.len() {
            match ready!(stream.poll_read(cx, &mut buf[filled..]))? {
                0 => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                read => filled += read,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::inquiry::Found;
    use super::*;
    use crate::event::Reactor;
    use crate::proto::dns::Question;
    use std::io::{Read, Write};
    use std::net::{TcpListener, UdpSocket};

    fn inquiry() -> Inquiry {
        Inquiry::new("a.example".into(), &[Question::A], || 7).unwrap()
    }

    /// A server of UDP and TCP on one port; `udp` answers every datagram, `tcp` every message.
    fn serve(
        udp: fn(&[u8]) -> Vec<Vec<u8>>,
        tcp: fn(&[u8]) -> Vec<u8>,
    ) -> (SocketAddr, TcpListener) {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let accepting = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buf) {
                udp(&buf[..len]).iter().for_each(|m| drop(socket.send_to(m, from)));
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let mut buf = [0; 512];
                let len = stream.read(&mut buf).unwrap_or(0);
                let _ = stream.write_all(&tcp(&buf[..len]));
            }
        });
        (address, listener)
    }

    fn answer(query: &[u8], last: u8) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, last]);
        message
    }

    fn resolve(servers: Vec<SocketAddr>) -> Result<Answer, Failure> {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async move {
            let mut inquiry = inquiry();
            ask(&servers, 0, &mut inquiry, || true).await.unwrap()
        })
    }

    fn ten(last: u8) -> Result<Answer, Failure> {
        let ip = std::net::IpAddr::from([10, 0, 0, last]);
        Ok(Answer { found: Found::Hosts([ip].into()), ttl: 60 })
    }

    #[test]
    fn garbage_does_not_hide_the_answer() {
        let (server, _tcp) = serve(
            |query| {
                let mut wrong = answer(query, 9);
                wrong[1] ^= 1;
                let mut all = vec![Vec::new(), b"garbage".to_vec(), wrong];
                all.extend(vec![vec![0xff; 600]; 40]);
                all.push(answer(query, 1));
                all
            },
            |_| Vec::new(),
        );
        assert_eq!(resolve(vec![server]), ten(1));
    }

    #[test]
    fn what_does_not_fit_is_asked_for_over_tcp() {
        let (server, _tcp) = serve(
            |query| {
                let mut cut = query.to_vec();
                cut[2..4].copy_from_slice(&[0x83, 0x80]);
                vec![cut]
            },
            |message| {
                let whole = answer(&message[2..], 2);
                [&(whole.len() as u16).to_be_bytes()[..], &whole].concat()
            },
        );
        assert_eq!(resolve(vec![server]), ten(2));
    }

    #[test]
    fn the_next_server_stands_in_for_a_dead_one() {
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (server, _tcp) = serve(|query| vec![answer(query, 3)], |_| Vec::new());
        assert_eq!(resolve(vec![dead, server]), ten(3));
    }
}
