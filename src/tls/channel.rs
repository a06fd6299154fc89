//! An established TLS connection over a wire: plaintext in and out.
//!
//! Memory: while it waits, a channel keeps the few bytes of a half-received record and nothing
//! else. Ciphertext is read into the thread's buffer and decrypted there; what is written
//! is encrypted into one buffer of the thread and sent with one call. Only what a socket does not
//! take, or a reader does not want yet, is kept.

use std::io;
use std::task::{Context, Poll, ready};

use rustls::Error;
use rustls::pki_types::CertificateDer;

use super::engine::{Engine, Pause, RECORD_OVERHEAD, RECORD_PLAIN_MAX};
use super::fault;
use super::wire::{Unsent, Wire, with_incoming, with_joined, with_outgoing};

pub(super) struct Channel {
    engine: Engine,
    /// Ciphertext that was received but not processed.
    held: Vec<u8>,
    /// Plaintext that the reader had no room for.
    plain: Vec<u8>,
    plain_taken: usize,
    unsent: Unsent,
    /// Plaintext taken per write: less for a peer that reads slowly, since the rest is kept here.
    burst: usize,
    /// The peer's bytes have ended, with or without close_notify.
    ended: bool,
    said_goodbye: bool,
}

/// Plaintext that is taken per write: as much as goes into one `send`.
const WRITE_MOST: usize = 4 * RECORD_PLAIN_MAX;

/// With more than this unsent a writer has to wait.
const UNSENT_MOST: usize = RECORD_PLAIN_MAX;

/// The longest record: TLS 1.2 lets a cipher add 2,048 bytes.
const RECORD_MOST: usize = 5 + RECORD_PLAIN_MAX + 2048;

/// Reads in a row that yield no plaintext, before other connections get their turn.
const FRUITLESS_MOST: usize = 16;

impl Channel {
    /// After the handshake. `held` and `plain` are what came behind it; `unsent` may wait for the
    /// first write.
    pub fn new(engine: Engine, held: Vec<u8>, plain: Vec<u8>, unsent: Unsent) -> Self {
        Self {
            engine,
            held,
            plain,
            plain_taken: 0,
            unsent,
            burst: WRITE_MOST,
            ended: false,
            said_goodbye: false,
        }
    }

    /// Reads plaintext; 0 at the end.
    pub fn poll_read(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if room.is_empty() {
            return Poll::Ready(Ok(0));
        }
        for _ in 0..FRUITLESS_MOST {
            if self.plain_taken < self.plain.len() {
                return Poll::Ready(Ok(self.take_plain(room)));
            }
            if self.ended || self.engine.peer_has_closed() {
                return Poll::Ready(Ok(0));
            }
            let got = match self.engine.is_full() {
                true => self.process_held(wire, cx, room)?,
                false => match self.receive(wire, cx, room) {
                    Poll::Ready(got) => got?,
                    Poll::Pending => {
                        // Nobody else may come to send what waits.
                        if let Poll::Ready(Err(error)) = self.unsent.poll_flush(wire, cx) {
                            return Poll::Ready(Err(error));
                        }
                        return Poll::Pending;
                    }
                },
            };
            if got > 0 {
                return Poll::Ready(Ok(got));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes plaintext; how much of it was taken. All that was taken is encrypted, and sent or
    /// kept: [`Channel::poll_flush`] sees it off.
    pub fn poll_write(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.len() > UNSENT_MOST {
            ready!(self.unsent.poll_flush(wire, cx))?;
        }
        let plain = &plain[..plain.len().min(self.burst)];
        let Self { engine, held, unsent, .. } = self;
        with_outgoing(|out| {
            // What waits goes along: one call sends tickets and the first reply.
            out.extend(unsent.bytes());
            unsent.clear();
            engine.encrypt(plain, held, out).map_err(broken)?;
            unsent.send(wire, cx, out.bytes())
        })?;
        self.burst = match self.unsent.is_empty() {
            true => (self.burst * 2).min(WRITE_MOST),
            false => RECORD_PLAIN_MAX,
        };
        Poll::Ready(Ok(plain.len()))
    }

    /// Writes several pieces as if they were one.
    pub fn poll_write_vectored(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        let Some(first) = filled.next() else { return Poll::Ready(Ok(0)) };
        if first.len() >= self.burst || filled.next().is_none() {
            return self.poll_write(wire, cx, first);
        }
        with_joined(pieces, self.burst, |joined| self.poll_write(wire, cx, joined))
    }

    pub fn poll_flush(&mut self, wire: &impl Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent.poll_flush(wire, cx)
    }

    /// Says close_notify, and sees it off.
    pub fn poll_goodbye(&mut self, wire: &impl Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            self.said_goodbye = true;
            let Self { engine, held, unsent, .. } = self;
            with_outgoing(|out| {
                engine.close_notify(held, out);
                unsent.push(out.bytes());
            });
        }
        self.unsent.poll_flush(wire, cx)
    }

    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.engine.state().peer_certificates().unwrap_or_default()
    }

    /// Plaintext that can be read without the socket: at least so many bytes.
    pub fn buffered(&self) -> usize {
        let plain = self.plain.len() - self.plain_taken;
        if plain == 0 && self.engine.is_full() { usize::from(!self.held.is_empty()) } else { plain }
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn take_plain(&mut self, room: &mut [u8]) -> usize {
        let rest = &self.plain[self.plain_taken..];
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.plain_taken += len;
        if self.plain_taken == self.plain.len() {
            self.plain = Vec::new();
            self.plain_taken = 0;
        }
        len
    }

    /// Goes on with records that were received earlier.
    fn process_held(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> io::Result<usize> {
        let mut held = std::mem::take(&mut self.held);
        let (done, got) = self.process(wire, cx, &mut held, room);
        held.drain(..done);
        if !held.is_empty() {
            self.held = held;
        }
        got
    }

    /// Receives into the thread's buffer, behind what is held.
    fn receive(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        with_incoming(|incoming| {
            let held = self.held.len();
            // Little more than the reader wants: what is left over has to be kept.
            let most = (held + room.len() + RECORD_OVERHEAD).max(RECORD_MOST).min(incoming.len());
            if held >= most {
                return Poll::Ready(Err(broken(Error::PeerSentOversizedRecord)));
            }
            let received = ready!(wire.poll_read(cx, &mut incoming[held..most]))?;
            if received == 0 {
                self.ended = true;
                return Poll::Ready(Ok(0));
            }
            incoming[..held].copy_from_slice(&self.held);
            let input = &mut incoming[..held + received];
            let (done, got) = self.process(wire, cx, input, room);
            let rest = &input[done..];
            if rest.is_empty() {
                self.held = Vec::new();
            } else {
                self.held.clear();
                self.held.extend_from_slice(rest);
            }
            Poll::Ready(got)
        })
    }

    /// Decrypts whole records into `room`, and keeps what does not fit.
    fn process(
        &mut self,
        wire: &impl Wire,
        cx: &mut Context<'_>,
        input: &mut [u8],
        room: &mut [u8],
    ) -> (usize, io::Result<usize>) {
        let Self { engine, plain, unsent, ended, .. } = self;
        let mut filled = 0;
        with_outgoing(|out| {
            let (done, pause) = engine.process(input, out, &mut |bytes| {
                let fits = bytes.len().min(room.len() - filled);
                room[filled..filled + fits].copy_from_slice(&bytes[..fits]);
                filled += fits;
                plain.extend_from_slice(&bytes[fits..]);
                filled < room.len()
            });
            // Answers to key updates, alerts.
            let sent = unsent.send(wire, cx, out.bytes());
            let got = match pause {
                Ok(pause) => {
                    *ended |= pause == Pause::PeerClosed;
                    sent.map(|()| filled)
                }
                Err(error) if fault::is_goodbye(&error) => {
                    *ended = true;
                    Ok(filled)
                }
                Err(error) => Err(broken(error)),
            };
            (done, got)
        })
    }
}

/// A fault of the protocol after the handshake, in OpenSSL's words.
fn broken(error: Error) -> io::Error {
    let text = format!("SSL_read() failed {}", fault::openssl_text(&error));
    io::Error::new(io::ErrorKind::InvalidData, text)
}
