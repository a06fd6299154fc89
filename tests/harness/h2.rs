//! HTTP/2 as a client, and as bytes for those who break its rules.

use super::client::Client;
use super::talk::meets;
use super::{PATIENCE, Response};
use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One connection with its streams. Polled in turns: a test has no need of an executor.
pub struct H2 {
    send: SendRequest<Bytes>,
    connection: Connection<Wire, Bytes>,
}

impl H2 {
    /// Over a connection that has agreed on h2, or in clear with prior knowledge.
    #[track_caller]
    pub fn over(client: Client) -> H2 {
        client.set_nonblocking();
        let made = drive(h2::client::handshake(Wire(client)), || ());
        let (send, connection) = made.unwrap_or_else(|e| panic!("HTTP/2: {e}"));
        H2 { send, connection }
    }

    /// Sends a request written as in a talk, and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Response {
        self.try_ask(request).unwrap_or_else(|e| panic!("{request}: {e}"))
    }

    pub fn try_ask(&mut self, request: &str) -> Result<Response, h2::Error> {
        let answer = self.start(request)?;
        self.finish(answer)
    }

    /// Sends a request without waiting.
    pub fn start(&mut self, request: &str) -> Result<ResponseFuture, h2::Error> {
        let (text, body) = request.split_once(" << ").unwrap_or((request, ""));
        let mut parts = text.split(" | ").map(str::trim);
        let (method, target) = parts.next().and_then(|l| l.split_once(' ')).expect("METHOD TARGET");
        let mut builder = http::Request::builder().method(method);
        let mut authority = "localhost";
        let headers: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once(": ")).collect();
        for (name, value) in &headers {
            match name.eq_ignore_ascii_case("host") {
                true => authority = value,
                false => builder = builder.header(*name, *value),
            }
        }
        let request = builder.uri(format!("https://{authority}{target}")).body(());
        let (answer, mut stream) =
            self.send.send_request(request.expect("a valid request"), body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        Ok(answer)
    }

    /// Waits for the answer of one stream.
    pub fn finish(&mut self, answer: ResponseFuture) -> Result<Response, h2::Error> {
        let connection = &mut self.connection;
        drive(read(answer), || {
            let _ = Pin::new(&mut *connection).poll(&mut Context::from_waker(Waker::noop()));
        })
    }

    /// Waits for a reply before the reply of one stream.
    pub fn hints(&mut self, answer: &mut ResponseFuture) -> Result<Response, h2::Error> {
        let connection = &mut self.connection;
        let next = std::future::poll_fn(|cx| answer.poll_informational(cx));
        drive(next, || {
            let _ = Pin::new(&mut *connection).poll(&mut Context::from_waker(Waker::noop()));
        })
        .expect("an informational reply")
        .map(|head| of_head(head.status(), head.headers()))
    }

    /// Waits until the server has closed the connection.
    #[track_caller]
    pub fn expect_closed(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut context = Context::from_waker(Waker::noop());
        while Pin::new(&mut self.connection).poll(&mut context).is_pending() {
            assert!(Instant::now() < deadline, "still open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Plays the cases of a talk, each on a stream of its own.
    #[track_caller]
    pub fn check(&mut self, talk: &str) {
        let mut differences = Vec::new();
        for line in talk.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (request, expected) = line.split_once(" -> ").expect("a case");
            let met = match self.try_ask(request.trim()) {
                Ok(response) => meets(&response, expected.trim()),
                Err(e) => Err(e.to_string()),
            };
            differences.extend(met.err().map(|e| format!("{line}\n    {e}")));
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

fn of_head(status: http::StatusCode, headers: &http::HeaderMap) -> Response {
    let mut response = Response { status: status.as_u16(), ..Response::default() };
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        response.head += &format!("{name}: {value}\n");
        response.headers.push((name.to_string(), value));
    }
    response
}

async fn read(answer: ResponseFuture) -> Result<Response, h2::Error> {
    let (head, mut stream) = answer.await?.into_parts();
    let mut response = of_head(head.status, &head.headers);
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        response.body.extend_from_slice(&data);
    }
    if let Some(trailers) = stream.trailers().await? {
        for (name, value) in &trailers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            response.trailers.push((name.to_string(), value));
        }
    }
    Ok(response)
}

/// Polls `future`, and `beside` in between, until it is done.
#[track_caller]
fn drive<T>(future: impl Future<Output = T>, mut beside: impl FnMut()) -> T {
    let mut future = pin!(future);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        beside();
        assert!(Instant::now() < deadline, "no answer over HTTP/2");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// A nonblocking client connection as tokio's traits want it.
struct Wire(Client);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.0.stream().read(to.initialize_unfilled()) {
            Ok(n) => {
                to.advance(n);
                Poll::Ready(Ok(()))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(e)),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.0.stream().write(bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.0.stream().flush() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame: its kind and flags as numbers, the stream, the payload.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The kind, flags, stream and payload of the next frame; `None` at the connection's end.
pub fn next_frame(client: &mut Client) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = client.read_exact(9).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, client.read_exact(length).ok()?))
}
