//! The body of a reply, pulled from an upstream.
//!
//! Whoever sends it to the client pulls. While the client takes no more, [`Pull::poll_ahead`]
//! reads on, to memory as far as the buffers of the location reach, then to a temporary file.
//! Without buffering nothing is read ahead.

use super::rules::Rules;
use super::talk::Unframe;
use super::trail::Attempt;
use super::upload::{Upload, UploadFault};
use super::who::Who;
use crate::conf::os_error;
use crate::event::{self, Deadline};
use crate::http::body::{Fault, Pull};
use crate::http::{Fields, status};
use crate::io::{Buf, Chunk, OpenFile, Size, Slice};
use crate::log;
use crate::proto::h1::Piece;
use crate::sys::file::{self, Keep, TempFile};
use crate::upstream::{Kept, Turn};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A piece in memory costs at least this many bytes.
const BLOCK_MIN: u64 = 4096;

/// The body of a reply that has not been read whole.
pub struct ReplyBody {
    /// The connection; gone when the body has ended or broken off.
    line: Option<Line>,
    frame: Box<dyn Unframe>,
    rules: Rc<Rules>,
    attempt: Rc<Attempt>,
    who: Who,
    buffered: bool,
    /// Read and not pulled yet.
    ahead: VecDeque<Chunk>,
    ahead_memory: u64,
    spill: Option<Spill>,
    fault: Option<Fault>,
    rate: Option<Rate>,
    trailers: Option<Fields>,
    /// For `$upstream_trailer_…`.
    seen_trailers: Rc<RefCell<Option<Fields>>>,
}

/// A connection whose reply is being read.
pub struct Line {
    /// The connection.
    pub kept: Box<Kept>,
    /// The peer's turn, over with the reply.
    pub turn: Turn,
    /// What is left of the request.
    pub upload: Option<Box<Upload>>,
    /// The peer keeps the connection afterwards.
    pub keeps: bool,
    /// The client is watched: without it there is no use in reading on.
    pub watches_client: bool,
}

/// The temporary file that a reply is buffered in.
struct Spill {
    file: Rc<OpenFile>,
    written: u64,
}

/// `…_limit_rate`
struct Rate {
    per_second: u64,
    since: Instant,
    read: u64,
    pause: Deadline,
}

/// What is needed to make a [`ReplyBody`].
pub struct Begin {
    pub line: Line,
    pub frame: Box<dyn Unframe>,
    pub rules: Rc<Rules>,
    pub attempt: Rc<Attempt>,
    pub who: Who,
    pub buffered: bool,
    /// Bytes per second, 0 for no limit.
    pub rate: u64,
    pub seen_trailers: Rc<RefCell<Option<Fields>>>,
}

/// What a look at the connection brought.
enum Read {
    /// Bytes, or the end.
    Some,
    /// Nothing more for now.
    Pending,
}

impl ReplyBody {
    /// A body whose first bytes were read with the head.
    pub fn new(begin: Begin, first: Slice) -> ReplyBody {
        let rate = (begin.rate > 0).then(|| Rate {
            per_second: begin.rate,
            since: event::now(),
            read: 0,
            pause: Deadline::never(),
        });
        let mut body = ReplyBody {
            line: Some(begin.line),
            frame: begin.frame,
            rules: begin.rules,
            attempt: begin.attempt,
            who: begin.who,
            buffered: begin.buffered,
            ahead: VecDeque::new(),
            ahead_memory: 0,
            spill: None,
            fault: None,
            rate,
            trailers: None,
            seen_trailers: begin.seen_trailers,
        };
        if let Some(line) = &body.line {
            line.kept.deadline.clear();
        }
        body.take(first, false);
        body
    }

    /// Takes what was read out of its framing.
    fn take(&mut self, bytes: Slice, to_file: bool) {
        let mut at = 0;
        loop {
            match self.frame.next(&bytes, &mut at) {
                Ok(Piece::Data(range)) => self.keep(bytes.slice(range), to_file),
                Ok(Piece::More) => break,
                Ok(Piece::End) => break,
                Err(_) => return self.break_off("upstream sent invalid chunked response", 502),
            }
            if self.fault.is_some() {
                return;
            }
        }
        if self.frame.has_ended() {
            let surplus = bytes.len() - at;
            if surplus > 0 {
                log::warn!(
                    &self.who,
                    "upstream sent more data than specified in \"Content-Length\" header \
                     while reading upstream"
                );
            }
            self.end(surplus == 0);
        }
    }

    fn keep(&mut self, piece: Slice, to_file: bool) {
        let len = piece.len() as u64;
        self.attempt.response_length.set(self.attempt.response_length.get() + len);
        if let Some(rate) = &mut self.rate {
            rate.read += len;
        }
        if !to_file {
            self.ahead_memory += len.max(BLOCK_MIN);
            return self.ahead.push_back(Chunk::Mem(piece));
        }
        if let Err(what) = self.write_to_file(&piece) {
            log::crit!(&self.who, "{what} while reading upstream");
            self.fault = Some(Fault::own(""));
            self.line = None;
        }
    }

    fn write_to_file(&mut self, piece: &[u8]) -> Result<(), String> {
        let temp = &self.rules.temp_path;
        if self.spill.is_none() {
            let file =
                TempFile::create(&temp.path, &temp.levels, Keep::WhileUsed).map_err(|e| {
                    format!("open() \"{}\" failed ({})", temp.path.display(), os_error(&e))
                })?;
            log::warn!(
                &self.who,
                "an upstream response is buffered to a temporary file {} while reading upstream",
                file.path().display()
            );
            self.spill = Some(Spill { file: Rc::new(OpenFile::temporary(file)), written: 0 });
        }
        let spill = self.spill.as_mut().expect("just made");
        file::write_at(spill.file.as_fd(), piece, spill.written).map_err(|e| {
            format!("write() \"{}\" failed ({})", temp.path.display(), os_error(&e))
        })?;
        let (at, len) = (spill.written, piece.len() as u64);
        spill.written += len;
        match self.ahead.back_mut() {
            Some(Chunk::File { file, at: start, len: have })
                if Rc::ptr_eq(file, &spill.file) && *start + *have == at =>
            {
                *have += len;
            }
            _ => self.ahead.push_back(Chunk::File { file: spill.file.clone(), at, len }),
        }
        Ok(())
    }

    /// The body is over.
    fn end(&mut self, is_clean: bool) {
        self.attempt.end();
        if let Some((fields, bytes)) = self.frame.trailer() {
            let mut trailers = Fields::default();
            for field in fields {
                trailers.push_named(field.name.of(bytes), field.value.of(bytes));
            }
            self.seen_trailers.replace(Some(trailers.clone()));
            if self.rules.pass_trailers {
                let hidden = self.rules.hidden.clone();
                trailers.retain(|f| !hidden.contains(f.id, f.name));
                self.trailers = Some(trailers);
            }
        }
        let Some(line) = self.line.take() else { return };
        if is_clean && line.keeps && line.upload.is_none() {
            line.kept.release();
        }
    }

    fn break_off(&mut self, what: &str, code: u16) {
        self.attempt.end();
        self.line = None;
        let what = match what {
            "" => String::new(),
            text => format!("{text} while reading upstream"),
        };
        self.fault = Some(Fault::peer(code, what));
    }

    /// Looks at the connection once.
    fn read(&mut self, cx: &mut Context<'_>, to_file: bool) -> Read {
        self.send_rest(cx);
        let Some(line) = &self.line else { return Read::Some };
        if let Some(rate) = &self.rate
            && rate.must_wait(cx)
        {
            line.kept.deadline.clear();
            return Read::Pending;
        }
        // A rate is kept by reading little at a time.
        let size = match self.buffered && self.rate.is_none() {
            true => Size::Large,
            false => Size::for_bytes(self.rules.buffer_size as usize).unwrap_or(Size::Large),
        };
        let mut buf = Buf::new(size);
        let mut most = buf.spare().len();
        if to_file && let Some(limit) = self.rules.temp_file_write_size() {
            most = most.min(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        match line.kept.conn.poll_read(cx, &mut buf.spare()[..most]) {
            Poll::Ready(Ok(0)) => self.closed(),
            Poll::Ready(Ok(n)) => {
                line.kept.deadline.clear();
                self.attempt.receive(n);
                buf.fill(n);
                self.take(fitting(buf), to_file);
            }
            Poll::Ready(Err(e)) => {
                let what = format!("recv() failed{}", log::Os(&e));
                self.break_off(&what, 502);
            }
            Poll::Pending => return self.wait(cx),
        }
        Read::Some
    }

    fn closed(&mut self) {
        match self.frame.closed() {
            Ok(()) => self.end(false),
            Err(_) => self.break_off("upstream prematurely closed connection", 502),
        }
    }

    /// Nothing to read: how long may it stay so?
    fn wait(&mut self, cx: &mut Context<'_>) -> Read {
        let Some(line) = &self.line else { return Read::Some };
        let deadline = &line.kept.deadline;
        if deadline.get().is_none() {
            deadline.set_after(self.rules.read_timeout);
        }
        if deadline.poll(cx).is_ready() {
            self.break_off("upstream timed out (110: Connection timed out)", 504);
            return Read::Some;
        }
        let client = self.who.client();
        if line.watches_client && client.conn.stream().poll_closed(cx).is_ready() {
            log::info!(
                &self.who,
                "client prematurely closed connection, so upstream connection is closed too \
                 while reading upstream"
            );
            self.break_off("", status::CLIENT_CLOSED);
            return Read::Some;
        }
        Read::Pending
    }

    /// Sends what is left of the request while its reply is already here.
    fn send_rest(&mut self, cx: &mut Context<'_>) {
        let Some(line) = &mut self.line else { return };
        let Some(upload) = &mut line.upload else { return };
        match upload.poll(&line.kept.conn, &self.attempt, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => line.upload = None,
            // The peer has its reasons; the reply tells them. The connection is not kept.
            Poll::Ready(Err(UploadFault::Write(_) | UploadFault::Source(_))) => {
                line.upload = None;
                line.keeps = false;
            }
        }
    }
}

/// The bytes in a block that fits them: few bytes must not hold much memory while they wait.
fn fitting(buf: Buf) -> Slice {
    match Size::for_bytes(buf.len()) {
        Some(size) if size.bytes() < buf.capacity() => Slice::copy_from(buf.filled()),
        _ => buf.freeze(),
    }
}

impl Rate {
    fn must_wait(&self, cx: &mut Context<'_>) -> bool {
        let seconds = event::now().duration_since(self.since).as_secs() + 1;
        let allowed = self.per_second.saturating_mul(seconds);
        if self.read < allowed {
            self.pause.clear();
            return false;
        }
        if self.pause.get().is_none_or(|at| at <= event::now()) {
            let over = std::time::Duration::from_millis(
                (self.read - allowed).saturating_mul(1000) / self.per_second + 1,
            );
            let next = self.since + std::time::Duration::from_secs(seconds);
            self.pause.set(next.max(event::now() + over));
        }
        self.pause.poll(cx).is_pending()
    }
}

impl Pull for ReplyBody {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        loop {
            if let Some(chunk) = self.ahead.pop_front() {
                if let Chunk::Mem(bytes) = &chunk {
                    self.ahead_memory -= (bytes.len() as u64).max(BLOCK_MIN);
                }
                return Poll::Ready(Ok(Some(chunk)));
            }
            if let Some(fault) = self.fault.take() {
                return Poll::Ready(Err(fault));
            }
            if self.line.is_none() {
                return Poll::Ready(Ok(None));
            }
            if let Read::Pending = self.read(cx, false) {
                return Poll::Pending;
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if !self.buffered {
            return;
        }
        let memory = self.rules.buffers.0.saturating_mul(self.rules.buffers.1);
        while self.line.is_some() && self.fault.is_none() {
            let to_file = self.ahead_memory >= memory;
            let in_file = self.spill.as_ref().map_or(0, |s| s.written);
            if to_file && in_file >= self.rules.max_temp_file_size {
                if let Some(line) = &self.line {
                    line.kept.deadline.clear();
                }
                return;
            }
            if let Read::Pending = self.read(cx, to_file) {
                return;
            }
        }
    }

    fn wants_flush(&self) -> bool {
        !self.buffered
    }

    fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }
}
