//! `gzip`: compresses replies on their way.
//!
//! Reads: `gzip`, `gzip_types`, `gzip_min_length`, `gzip_comp_level`, `gzip_window`, and hints for
//! buffers (`gzip_buffers`, `gzip_hash`, `postpone_gzipping`, `gzip_no_buffer`) that are checked
//! and need no heed: a block of output is made when the client can take it. Runs as: header filter.

use crate::conf::*;
use crate::http::body::Bytes;
use crate::http::deflate::{Gzipper, Strength, Until, WINDOW_BITS};
use crate::http::media_types::MediaTypes;
use crate::http::{
    Builtin, Fault, Fields, Filtered, HttpModule, Merging, Pipeline, Pull, Request, gzip_rules, var,
};
use crate::io::{Chunk, Slice};
use crate::proto::header::HeaderId;
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

pub struct Gzip;

impl HttpModule for Gzip {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("gzip",              ANY_HTTP | LIF, flag(|c| &mut c.on)),
        d("gzip_types",        ANY_HTTP, call(at_least(1), RawLoc::types)),
        d("gzip_min_length",   ANY_HTTP, size(|c| &mut c.min_length)),
        d("gzip_comp_level",   ANY_HTTP, num(1, 9, |c| &mut c.level)),
        d("gzip_window",       ANY_HTTP, call(exactly(1), RawLoc::window)),
        d("gzip_hash",         ANY_HTTP, call(exactly(1), RawLoc::hash)),
        d("gzip_buffers",      ANY_HTTP, bufs(|c| &mut c.buffers)),
        d("postpone_gzipping", ANY_HTTP, size(|c| &mut c.postpone)),
        d("gzip_no_buffer",    ANY_HTTP, flag(|c| &mut c.no_buffer)),
    ];
    const VARIABLES: &'static [Builtin] = &[var("gzip_ratio", ratio)];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            on: raw.on.unwrap_or(up.on),
            types: raw.types.map_or_else(|| up.types.clone(), Rc::new),
            min_length: raw.min_length.unwrap_or(up.min_length),
            strength: Strength {
                level: raw.level.map_or(up.strength.level, |n| n as u32),
                window_bits: raw.window_bits.unwrap_or(up.strength.window_bits),
            },
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.on {
            let loc = loc.clone();
            p.filter(move |r| gzip(&loc, r));
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    on: Option<bool>,
    types: Option<MediaTypes>,
    min_length: Option<u64>,
    level: Option<i64>,
    window_bits: Option<u8>,
    hash: Option<()>,
    buffers: Option<(u64, u64)>,
    postpone: Option<u64>,
    no_buffer: Option<bool>,
}

pub struct Loc {
    on: bool,
    types: Rc<MediaTypes>,
    min_length: u64,
    strength: Strength,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            on: false,
            types: Rc::new(MediaTypes::of(&["text/html"])),
            min_length: 20,
            strength: Strength { level: 1, window_bits: WINDOW_BITS },
        }
    }
}

impl RawLoc {
    fn types(&mut self, r: &mut Reading) -> Result<(), Reason> {
        MediaTypes::read(&mut self.types, &["text/html"], r)
    }

    fn window(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.window_bits.is_some() {
            return Err(Reason::Duplicate);
        }
        let size = value::size(r.arg(0)).filter(|n| n.is_power_of_two());
        let size = size
            .filter(|n| (512..=32 << 10).contains(n))
            .ok_or_else(|| Reason::says("must be 512, 1k, 2k, 4k, 8k, 16k, or 32k"))?;
        self.window_bits = Some(size.trailing_zeros() as u8);
        Ok(())
    }

    fn hash(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.hash.replace(()).is_some() {
            return Err(Reason::Duplicate);
        }
        let size = value::size(r.arg(0)).filter(|n| n.is_power_of_two());
        let fits = size.is_some_and(|n| (512..=128 << 10).contains(&n));
        let want = "must be 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k";
        if fits { Ok(()) } else { Err(Reason::says(want)) }
    }
}

// ---- the filter ----------------------------------------------------------------------------

/// Bytes before and after, for `$gzip_ratio`.
#[derive(Clone, Default)]
struct Totals(Rc<Cell<(u64, u64)>>);

fn gzip(loc: &Loc, r: &mut Request) -> Filtered {
    let encoding = r.reply.fields.get(HeaderId::ContentEncoding);
    if !matches!(r.reply.status, 200 | 403 | 404)
        || encoding.is_some_and(|encoding| !encoding.is_empty())
        || r.reply.length.is_some_and(|length| length < loc.min_length)
        || !loc.types.holds(&r.reply)
        || r.reply.head_only
    {
        return Filtered::Pass;
    }
    gzip_rules::vary(r);
    if !gzip_rules::accepts(r) {
        return Filtered::Pass;
    }
    r.reply.fields.set(HeaderId::ContentEncoding, b"gzip");
    r.reply.body_changes();
    let totals = r.slots.of::<Totals>().clone();
    let strength = loc.strength;
    r.reply.body.wrap(|inner| Compressed {
        source: Bytes::of(inner),
        input: Slice::EMPTY,
        strength,
        gzipper: None,
        until: Until::Full,
        ended: false,
        totals,
    });
    Filtered::Pass
}

/// A body that is compressed while it is pulled.
struct Compressed {
    source: Bytes,
    /// What the compressor has not taken yet.
    input: Slice,
    strength: Strength,
    /// Made when the body is pulled: for HEAD it never is.
    gzipper: Option<Gzipper>,
    until: Until,
    ended: bool,
    totals: Totals,
}

impl Pull for Compressed {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            let gzipper = self.gzipper.get_or_insert_with(|| Gzipper::new(self.strength));
            let block = gzipper.work(&mut self.input, self.until);
            self.totals.0.set(gzipper.totals());
            if let Some(block) = block {
                return Poll::Ready(Ok(Some(Chunk::Mem(block))));
            }
            if self.until == Until::Ended {
                self.ended = true;
                continue;
            }
            self.until = Until::Full;
            ready!(self.poll_input(cx))?;
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        self.source.body.poll_ahead(cx);
    }

    fn wants_flush(&self) -> bool {
        self.until == Until::Flushed || self.source.body.wants_flush()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.source.body.trailers()
    }
}

impl Compressed {
    /// Fetches the next bytes. A source that wants its chunks sent at once gets them flushed.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match ready!(self.source.poll_next(cx))? {
            None => self.until = Until::Ended,
            Some(bytes) => {
                self.input = bytes;
                if self.source.is_between_chunks() && self.source.body.wants_flush() {
                    self.until = Until::Flushed;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn ratio(r: &Request, out: &mut Vec<u8>) -> bool {
    let Some((before, after)) = r.slots.get::<Totals>().map(|totals| totals.0.get()) else {
        return false;
    };
    if after == 0 {
        return false;
    }
    let hundredths = (u128::from(before) * 1000 / u128::from(after)).saturating_add(5) / 10;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    out.extend_from_slice(text.as_bytes());
    true
}
