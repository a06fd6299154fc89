//! After a 101: bytes both ways until either side ends.

use super::trail::Attempt;
use super::who::Who;
use crate::event::Deadline;
use crate::http::reply::{Tunnel, TunnelBytes};
use crate::io::{Buf, Conn, Size, Slice};
use crate::log;
use crate::upstream::{Kept, Turn};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What joins a client and an upstream.
pub struct Join {
    pub kept: Box<Kept>,
    pub turn: Turn,
    pub attempt: Rc<Attempt>,
    /// What the upstream sent behind its head.
    pub first: Slice,
    /// `…_read_timeout`: how long nothing may move.
    pub timeout: Duration,
    pub who: Who,
}

/// The tunnel that `join` makes.
pub fn tunnel(join: Join) -> Tunnel {
    Box::new(move |client, ahead| {
        Box::pin(async move {
            let Join { kept, turn, attempt, first, timeout, who } = join;
            let mut up = Way::new(Slice::from(ahead));
            let mut down = Way::new(first);
            let idle = Deadline::after(timeout);
            std::future::poll_fn(|cx| {
                let moved_up = up.poll(&client, &kept.conn, cx);
                let moved_down = down.poll(&kept.conn, &client, cx);
                if moved_up || moved_down {
                    idle.set_after(timeout);
                }
                // As soon as either side has ended and what it said is delivered, all is over.
                if up.is_over() || down.is_over() {
                    return Poll::Ready(());
                }
                idle.poll(cx).map(|()| {
                    log::info!(
                        &who,
                        "upstream timed out (110: Connection timed out) while proxying upgraded \
                         connection"
                    );
                })
            })
            .await;
            attempt.receive(down.moved as usize);
            attempt.sent.set(attempt.sent.get() + up.moved);
            attempt.response_length.set(attempt.response_length.get() + down.moved);
            attempt.end();
            drop(turn);
            TunnelBytes { received: up.moved, sent: down.moved }
        })
    })
}

/// One direction.
struct Way {
    unsent: Slice,
    moved: u64,
    ended: bool,
    broken: bool,
}

impl Way {
    fn new(unsent: Slice) -> Way {
        Way { unsent, moved: 0, ended: false, broken: false }
    }

    fn is_over(&self) -> bool {
        self.broken || self.ended && self.unsent.is_empty()
    }

    /// Moves what can be moved; says whether anything was.
    fn poll(&mut self, from: &Conn, to: &Conn, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.is_over() {
            if !self.unsent.is_empty() {
                match to.poll_write(cx, &self.unsent) {
                    Poll::Ready(Ok(n)) => {
                        self.unsent.advance_by(n);
                        self.moved += n as u64;
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => self.broken = true,
                    Poll::Pending => return moved,
                }
                continue;
            }
            if to.has_unflushed() && to.poll_flush(cx).is_pending() {
                return moved;
            }
            let mut buf = Buf::new(Size::Medium);
            match from.poll_read(cx, buf.spare()) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(n)) => {
                    buf.fill(n);
                    self.unsent = buf.freeze();
                }
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => return moved,
            }
        }
        moved
    }
}
