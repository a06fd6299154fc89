//! `send`: bytes to the peer, at once as far as the kernel takes them.

use super::fault::Fault;
use super::tcp::Tcp;
use crate::io::Conn;
use crate::log;
use crate::lua::vm::{Operation, Stack};
use std::ffi::c_int;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// A send that was begun.
pub enum Begun {
    Sent,
    Failed(Fault),
    /// The rest goes when there is room.
    Later(Box<Sending>),
}

/// Sends `bytes` as far as the kernel takes them now.
pub fn begin(tcp: &Rc<Tcp>, bytes: &[u8]) -> Begun {
    let Some(conn) = tcp.conn() else { return Begun::Failed(Fault::Closed) };
    let mut nobody = Context::from_waker(Waker::noop());
    let mut sent = 0;
    match poll_send(&conn, bytes, &mut sent, &mut nobody) {
        Poll::Ready(Ok(())) => Begun::Sent,
        Poll::Ready(Err(error)) => {
            log::error!(&tcp.speaker, "send() failed{}", log::Os(&error));
            Begun::Failed(error.into())
        }
        Poll::Pending => {
            tcp.set_waits(|waits| waits.writing = true);
            tcp.write_deadline.set_after(tcp.timeouts.send.get());
            Begun::Later(Box::new(Sending {
                tcp: tcp.clone(),
                conn,
                length: bytes.len(),
                rest: bytes[sent..].to_vec(),
                sent: 0,
                result: None,
            }))
        }
    }
}

/// Answers the call that began to send `length` bytes.
pub fn answer(
    stack: &mut Stack,
    tcp: &Rc<Tcp>,
    begun: Begun,
    length: usize,
) -> Result<c_int, Vec<u8>> {
    match begun {
        Begun::Sent => {
            push_length(stack, length);
            Ok(1)
        }
        Begun::Failed(fault) => Ok(failed(stack, tcp, &fault)),
        Begun::Later(sending) => stack.wait_for(sending),
    }
}

/// Sends and flushes what `sent` does not count yet.
fn poll_send(
    conn: &Conn,
    bytes: &[u8],
    sent: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while *sent < bytes.len() {
        match ready!(conn.poll_write(cx, &bytes[*sent..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => *sent += n,
        }
    }
    conn.poll_flush(cx)
}

fn push_length(stack: &mut Stack, length: usize) {
    stack.push(&crate::lua::vm::Value::Number(length as f64));
}

fn failed(stack: &mut Stack, tcp: &Tcp, fault: &Fault) -> c_int {
    tcp.is_write_closed.set(true);
    stack.refuse(&*fault.text())
}

/// A send under way.
pub struct Sending {
    tcp: Rc<Tcp>,
    conn: Rc<Conn>,
    length: usize,
    rest: Vec<u8>,
    sent: usize,
    result: Option<Result<(), Fault>>,
}

impl Operation for Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let before = self.sent;
        let result = match poll_send(&self.conn, &self.rest, &mut self.sent, cx) {
            Poll::Ready(result) => result.map_err(|error| {
                log::error!(&self.tcp.speaker, "send() failed{}", log::Os(&error));
                Fault::from(error)
            }),
            Poll::Pending => {
                if self.sent > before {
                    self.tcp.write_deadline.set_after(self.tcp.timeouts.send.get());
                }
                ready!(self.tcp.write_deadline.poll(cx));
                if self.tcp.settings().log_errors {
                    log::error!(&self.tcp.speaker, "lua tcp socket write timed out");
                }
                Err(Fault::Timeout)
            }
        };
        self.result = Some(result);
        self.tcp.write_deadline.clear();
        self.tcp.set_waits(|waits| waits.writing = false);
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        match self.result.as_ref() {
            Some(Err(fault)) => failed(stack, &self.tcp, fault),
            _ => {
                push_length(stack, self.length);
                1
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.result.is_none() {
            self.tcp.set_waits(|waits| waits.writing = false);
            self.tcp.close();
        }
    }
}
