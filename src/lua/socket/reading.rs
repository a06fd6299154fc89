//! `receive`, `receiveany`, `receiveuntil`: what is wanted of the bytes that come.

use super::fault::Fault;
use super::tcp::Tcp;
use super::until::{Found, Pattern, Search};
use crate::log;
use crate::lua::vm::{Operation, Stack};
use std::borrow::Cow;
use std::ffi::c_int;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// What is wanted.
pub enum Want {
    /// A line, without its end: `*l`. The bytes that have none were counted.
    Line { looked_at: usize },
    /// Everything until the peer closes: `*a`.
    All,
    /// What comes, at most so much: `receiveany`.
    Any(usize),
    /// So many bytes.
    Exactly(usize),
    /// What comes before a pattern.
    Until(Rc<Pattern>, Search),
}

/// How a receive ended.
pub enum Got {
    /// These first bytes, and so many that nobody gets.
    Text { len: usize, skip: usize },
    /// The pattern was found the last time.
    Over,
    /// It failed; so many bytes had come.
    Failed(Fault, usize),
}

impl Want {
    pub fn until(pattern: &Rc<Pattern>, size: usize) -> Want {
        Want::Until(pattern.clone(), Search::new(size))
    }

    /// What `bytes` come to, if that can be told.
    pub fn look(&mut self, bytes: &[u8], is_at_end: bool) -> Option<Got> {
        let got = match self {
            Want::Line { looked_at } => {
                let end = memchr::memchr(b'\n', &bytes[*looked_at..]).map(|at| *looked_at + at);
                *looked_at = bytes.len();
                end.map(|len| Got::Text { len, skip: 1 })
            }
            Want::All => is_at_end.then_some(Got::Text { len: bytes.len(), skip: 0 }),
            Want::Any(max) => {
                let len = bytes.len().min(*max);
                (len > 0).then_some(Got::Text { len, skip: 0 })
            }
            Want::Exactly(len) => (bytes.len() >= *len).then_some(Got::Text { len: *len, skip: 0 }),
            Want::Until(pattern, search) => match search.look(pattern, bytes) {
                Some(Found::Piece(len)) => Some(Got::Text { len, skip: 0 }),
                Some(Found::Pattern(len)) => {
                    pattern.is_over.set(search.is_in_pieces());
                    let skip = pattern.len();
                    Some(match pattern.is_inclusive {
                        true => Got::Text { len: len + skip, skip: 0 },
                        false => Got::Text { len, skip },
                    })
                }
                None => None,
            },
        };
        got.or_else(|| is_at_end.then(|| Got::Failed(Fault::Closed, self.partial(bytes))))
    }

    /// How many of `bytes` are given if no more come.
    pub fn partial(&self, bytes: &[u8]) -> usize {
        match self {
            Want::Until(_, search) => search.certain(),
            _ => bytes.len(),
        }
    }

    /// How many more bytes are certainly wanted.
    fn lacks(&self, has: usize) -> usize {
        match self {
            Want::Exactly(len) => len - has,
            Want::All => usize::MAX,
            _ => 0,
        }
    }

    /// What Lua gets of the bytes: as in OpenResty a line has no carriage return anywhere.
    pub fn cleaned<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match memchr::memchr(b'\r', bytes).filter(|_| matches!(self, Want::Line { .. })) {
            None => bytes.into(),
            Some(at) if at + 1 == bytes.len() => bytes[..at].into(),
            Some(_) => bytes.iter().copied().filter(|byte| *byte != b'\r').collect(),
        }
    }
}

/// A receive under way.
pub struct Receiving {
    tcp: Rc<Tcp>,
    want: Want,
    got: Option<Got>,
    waits: bool,
}

impl Receiving {
    pub fn new(tcp: Rc<Tcp>, want: Want) -> Receiving {
        Receiving { tcp, want, got: None, waits: false }
    }

    /// Answers a call: at once, or when there is what is wanted.
    pub fn call(mut self, stack: &mut Stack) -> Result<c_int, Vec<u8>> {
        if let Want::Until(pattern, _) = &self.want
            && pattern.is_over.replace(false)
        {
            self.got = Some(Got::Over);
        }
        let timeout = self.tcp.timeouts.read.get();
        log::debug_http!(&self.tcp.speaker, "lua tcp socket read timeout: {}", timeout.as_millis());
        let mut nobody = Context::from_waker(Waker::noop());
        if self.got.is_some() || self.advance(&mut nobody).is_ready() {
            return Ok(self.finish(stack));
        }
        self.waits = true;
        self.tcp.set_waits(|waits| waits.reading = true);
        self.tcp.read_deadline.set_after(timeout);
        stack.wait_for(Box::new(self))
    }

    /// Looks and receives until something is settled.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = self.tcp.clone();
        loop {
            let has = {
                let inbox = tcp.inbox.borrow();
                self.got = self.want.look(inbox.bytes(), tcp.is_at_end.get());
                inbox.len()
            };
            if self.got.is_some() {
                return Poll::Ready(());
            }
            match ready!(tcp.poll_fill(cx, self.want.lacks(has))) {
                Ok(_) if self.waits => tcp.read_deadline.set_after(tcp.timeouts.read.get()),
                Ok(_) => {}
                Err(fault) => {
                    self.fail(fault);
                    return Poll::Ready(());
                }
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        let partial = self.want.partial(self.tcp.inbox.borrow().bytes());
        self.got = Some(Got::Failed(fault, partial));
    }

    fn push_text(&self, stack: &mut Stack, len: usize) {
        let inbox = self.tcp.inbox.borrow();
        stack.push_text(&self.want.cleaned(&inbox.bytes()[..len]));
    }
}

impl Operation for Receiving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.advance(cx).is_pending() {
            ready!(self.tcp.read_deadline.poll(cx));
            if self.tcp.settings().log_errors {
                log::error!(&self.tcp.speaker, "lua tcp socket read timed out");
            }
            self.fail(Fault::Timeout);
        }
        self.waits = false;
        self.tcp.read_deadline.clear();
        self.tcp.set_waits(|waits| waits.reading = false);
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        match self.got.take().unwrap_or(Got::Over) {
            Got::Text { len, skip } => {
                self.push_text(stack, len);
                self.tcp.inbox.borrow_mut().take(len + skip);
                1
            }
            Got::Over => {
                (0..3).for_each(|_| stack.push_nil());
                3
            }
            Got::Failed(fault, partial) => {
                stack.push_nil();
                stack.push_text(fault.text().as_bytes());
                self.push_text(stack, partial);
                self.tcp.inbox.borrow_mut().take(partial);
                if !matches!(fault, Fault::Timeout) {
                    self.tcp.close_reading();
                }
                3
            }
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // Given up in the middle: nobody knows what of the stream was meant.
        if self.waits {
            self.tcp.set_waits(|waits| waits.reading = false);
            self.tcp.close();
        }
    }
}
