//! Sends a request: its head, and the body from memory, files, or as the client gives it.

use super::trail::Attempt;
use crate::http::body::{Body, Fault, Pull};
use crate::io::{Chain, Chunk, Conn, Slice};
use crate::proto::h1::{CHUNK_END, ChunkHead, LAST_CHUNK};
use std::io;
use std::task::{Context, Poll, ready};

/// Bytes gathered from the client before they are written.
const GATHER_BYTES: u64 = 64 << 10;

/// What is sent to one peer.
pub struct Upload {
    /// A head without a body; otherwise it is the first of `chain`.
    head: Slice,
    chain: Chain,
    source: Option<Body>,
    chunked: bool,
    /// Bytes that the source may still give; the rest is too much.
    allowed: Option<u64>,
    done: bool,
    /// Something was written.
    pub begun: bool,
}

/// Why a request was not sent whole.
#[derive(Debug)]
pub enum UploadFault {
    /// The connection failed.
    Write(io::Error),
    /// The body could not be read.
    Source(Fault),
}

impl Upload {
    /// Sends `head` and `body`.
    pub fn kept(head: Slice, body: &[Chunk]) -> Upload {
        let mut upload = Upload {
            head,
            chain: Chain::new(),
            source: None,
            chunked: false,
            allowed: None,
            done: false,
            begun: false,
        };
        if !body.is_empty() {
            upload.begin_chain();
            body.iter().for_each(|chunk| upload.chain.push(chunk.clone()));
        }
        upload
    }

    fn begin_chain(&mut self) {
        self.chain.push(Chunk::Mem(std::mem::take(&mut self.head)));
    }

    /// Sends `head` and then what `source` gives, at most `limit` bytes (0: no limit).
    pub fn streamed(head: Slice, source: Body, chunked: bool, limit: u64) -> Upload {
        let allowed = (limit > 0).then_some(limit);
        let mut upload =
            Upload { source: Some(source), chunked, allowed, ..Upload::kept(head, &[]) };
        upload.begin_chain();
        upload
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the client is being waited for, not the peer.
    pub fn awaits_source(&self) -> bool {
        self.chain.is_empty() && self.source.is_some()
    }

    /// Sends on. Pending: the peer takes no more, or the client gives none.
    pub fn poll(
        &mut self,
        conn: &Conn,
        attempt: &Attempt,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadFault>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        while !self.head.is_empty() {
            self.begun = true;
            let sent = ready!(conn.poll_write(cx, &self.head)).map_err(UploadFault::Write)?;
            self.head.advance_by(sent);
            attempt.sent.set(attempt.sent.get() + sent as u64);
        }
        loop {
            if self.source.is_some() {
                self.gather(cx).map_err(UploadFault::Source)?;
            }
            if self.chain.is_empty() {
                if conn.has_unflushed() {
                    ready!(conn.poll_flush(cx)).map_err(UploadFault::Write)?;
                }
                if self.source.is_some() {
                    return Poll::Pending;
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            self.begun = true;
            let sent = ready!(self.chain.poll_write_to(conn, cx, u64::MAX));
            let sent = sent.map_err(UploadFault::Write)?;
            attempt.sent.set(attempt.sent.get() + sent);
        }
    }

    /// Takes what the source gives without waiting.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while let Some(source) = &mut self.source
            && self.chain.len() < GATHER_BYTES
        {
            match source.poll_pull(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(chunk))) => self.add(chunk)?,
                Poll::Ready(Ok(None)) => self.end(),
                Poll::Ready(Err(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    fn add(&mut self, chunk: Chunk) -> Result<(), Fault> {
        let len = chunk.len();
        if let Some(allowed) = &mut self.allowed {
            *allowed = allowed.checked_sub(len).ok_or_else(|| {
                Fault::client(413, "client intended to send too large chunked body")
            })?;
        }
        if !self.chunked {
            self.chain.push(chunk);
            return Ok(());
        }
        self.chain.push(Chunk::Mem(Slice::from(ChunkHead::new(len).to_vec())));
        self.chain.push(chunk);
        self.chain.push(Chunk::Mem(Slice::from_static(CHUNK_END)));
        Ok(())
    }

    fn end(&mut self) {
        self.source = None;
        if self.chunked {
            self.chain.push(Chunk::Mem(Slice::from_static(LAST_CHUNK)));
        }
    }
}
