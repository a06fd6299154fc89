//! `gunzip`: unpacks compressed replies for clients that cannot.
//!
//! Reads: `gunzip`, and `gunzip_buffers`, a hint that needs no heed. Runs as: header filter.

use crate::conf::*;
use crate::http::body::Bytes;
use crate::http::{
    Body, Fault, Fields, Filtered, HttpModule, Merging, Pipeline, Pull, Request, gzip_rules,
};
use crate::io::{Buf, Chunk, Size, Slice};
use crate::proto::header::HeaderId;
use flate2::{Decompress, FlushDecompress, Status};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

pub struct Gunzip;

impl HttpModule for Gunzip {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("gunzip",         ANY_HTTP, flag(|c| &mut c.on)),
        d("gunzip_buffers", ANY_HTTP, bufs(|c| &mut c.buffers)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { on: raw.on.unwrap_or(up.on) })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.on {
            p.filter(gunzip);
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    on: Option<bool>,
    buffers: Option<(u64, u64)>,
}

#[derive(Default)]
pub struct Loc {
    on: bool,
}

fn gunzip(r: &mut Request) -> Filtered {
    let encoding = r.reply.fields.get(HeaderId::ContentEncoding);
    if !encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"gzip")) {
        return Filtered::Pass;
    }
    gzip_rules::vary(r);
    if gzip_rules::accepts(r) {
        return Filtered::Pass;
    }
    r.reply.fields.remove(HeaderId::ContentEncoding);
    r.reply.body_changes();
    r.reply.body.wrap(Unpacked::new);
    Filtered::Pass
}

/// A body that is unpacked while it is pulled.
struct Unpacked {
    source: Bytes,
    input: Slice,
    unpack: Decompress,
    out: Option<Buf>,
    /// A member ended; another one may follow.
    between: bool,
    is_over: bool,
}

const WINDOW_BITS: u8 = 15;

impl Unpacked {
    fn new(inner: Body) -> Unpacked {
        Unpacked {
            source: Bytes::of(inner),
            input: Slice::EMPTY,
            unpack: Decompress::new_gzip(WINDOW_BITS),
            out: None,
            between: false,
            is_over: false,
        }
    }

    /// Unpacks what there is; a block of output, if one is full.
    fn work(&mut self) -> Result<Option<Slice>, Fault> {
        loop {
            if self.between {
                if self.input.is_empty() {
                    return Ok(None);
                }
                self.unpack = Decompress::new_gzip(WINDOW_BITS);
                self.between = false;
            }
            let out = self.out.get_or_insert_with(|| Buf::new(Size::Medium));
            let before = (self.unpack.total_in(), self.unpack.total_out());
            let status = self.unpack.decompress(&self.input, out.spare(), FlushDecompress::None);
            let taken = (self.unpack.total_in() - before.0) as usize;
            let made = (self.unpack.total_out() - before.1) as usize;
            self.input.advance_by(taken);
            out.fill(made);
            match status {
                Ok(Status::StreamEnd) => self.between = true,
                Ok(_) => {}
                Err(error) => return Err(Fault::own(format!("inflate() failed: {error}"))),
            }
            if out.room() == 0 {
                return Ok(self.out.take().map(Buf::freeze));
            }
            if taken + made == 0 {
                return Ok(None);
            }
        }
    }

    /// What was unpacked and does not fill a block.
    fn remainder(&mut self) -> Option<Slice> {
        self.out.take().filter(|out| !out.is_empty()).map(Buf::freeze)
    }
}

impl Pull for Unpacked {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        loop {
            if self.is_over {
                return Poll::Ready(Ok(self.remainder().map(Chunk::Mem)));
            }
            if let Some(block) = self.work()? {
                return Poll::Ready(Ok(Some(Chunk::Mem(block))));
            }
            if self.source.is_between_chunks()
                && self.source.body.wants_flush()
                && let Some(block) = self.remainder()
            {
                return Poll::Ready(Ok(Some(Chunk::Mem(block))));
            }
            match ready!(self.source.poll_next(cx))? {
                Some(bytes) => self.input = bytes,
                None => self.is_over = true,
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        self.source.body.poll_ahead(cx);
    }

    fn wants_flush(&self) -> bool {
        self.source.body.wants_flush()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.source.body.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::deflate;
    use std::collections::VecDeque;

    fn unpacked(chunks: Vec<Vec<u8>>) -> Result<Vec<u8>, String> {
        let chunks: VecDeque<Chunk> = chunks.into_iter().map(Chunk::from).collect();
        let mut body = Unpacked::new(Body::Several(chunks));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        loop {
            match body.poll_pull(&mut cx) {
                Poll::Ready(Ok(Some(chunk))) => chunk.append_to(&mut out).unwrap(),
                Poll::Ready(Ok(None)) => return Ok(out),
                Poll::Ready(Err(fault)) => return Err(fault.what),
                Poll::Pending => unreachable!(),
            }
        }
    }

    #[test]
    fn members_in_pieces() {
        let text: Vec<u8> = (0..200_000u32).map(|n| (n / 7) as u8).collect();
        let mut packed = deflate::gzip(&text, 4);
        packed.extend(deflate::gzip(b"second", 4));
        let want = [&text[..], b"second"].concat();
        for size in [packed.len(), 1000, 7] {
            let pieces = packed.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(unpacked(pieces), Ok(want.clone()), "{size}");
        }
        assert!(unpacked(vec![b"no gzip at all".to_vec()]).is_err());
        let half = packed[..packed.len() / 2].to_vec();
        assert!(unpacked(vec![half]).unwrap().len() > 1000);
        assert_eq!(unpacked(vec![]), Ok(Vec::new()));
    }
}
