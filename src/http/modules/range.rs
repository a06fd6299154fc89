//! Parts of a reply: 206 with one range or several, 416.
//!
//! Reads: no directives of its own; `max_ranges` is the core's. Runs as: header filter, the last.
//! Several ranges are cut only from a body that is one piece (a file, a buffer): they may be asked
//! for in any order.

use crate::conf::Reason;
use crate::http::{Body, Fault, Fields, Filtered, HttpModule, Merging, Pipeline, Pull, Request};
use crate::io::{Chunk, Slice};
use crate::proto::date;
use crate::proto::h1::Version;
use crate::proto::header::HeaderId;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

pub struct Ranges;

impl HttpModule for Ranges {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }

    fn install(_: &Rc<()>, p: &mut Pipeline) {
        p.filter(ranges);
    }
}

/// Bytes of a body, the end excluded.
type Range = std::ops::Range<u64>;

fn ranges(r: &mut Request) -> Filtered {
    let max_ranges = r.place.location.core.max_ranges;
    let Some(length) = r.reply.length else { return Filtered::Pass };
    if !r.reply.allow_ranges
        || r.reply.status != 200
        || r.is_subrequest
        || r.head.version < Version::Http10
        || max_ranges == Some(0)
    {
        return Filtered::Pass;
    }
    let max = if matches!(r.reply.body, Body::Stream(_) | Body::Several(_)) {
        Some(1)
    } else {
        max_ranges
    };
    let wanted = r.header(HeaderId::Range).filter(|_| is_current(r));
    match wanted.map_or(Asked::Whole, |field| parse(field, length, max)) {
        Asked::Whole => r.reply.fields.set(HeaderId::AcceptRanges, b"bytes"),
        Asked::Nothing => {
            let total = format!("bytes */{length}");
            r.reply.fields.set(HeaderId::ContentRange, total.as_bytes());
            return Filtered::Instead(416);
        }
        Asked::One(range) => one(r, range, length),
        Asked::Several(ranges) => several(r, &ranges, length),
    }
    Filtered::Pass
}

/// `If-Range`: the client's part is of this very reply.
fn is_current(r: &Request) -> bool {
    let Some(condition) = r.header(HeaderId::IfRange) else { return true };
    if condition.len() >= 2 && condition.ends_with(b"\"") {
        return r.reply.etag.as_ref().is_some_and(|etag| etag.as_bytes() == condition);
    }
    r.reply.last_modified.is_some_and(|modified| date::parse(condition) == Some(modified))
}

// ---- what is asked for ---------------------------------------------------------------------

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything, or what is cheaper answered with everything.
    Whole,
    /// Nothing that there is.
    Nothing,
    One(Range),
    Several(Vec<Range>),
}

/// Reads `bytes=0-99, 200-, -5` of a body of `length` bytes. `max`: more ranges are not cut.
fn parse(field: &[u8], length: u64, max: Option<u32>) -> Asked {
    let list = match field.split_at_checked(6) {
        Some((unit, list)) if unit.eq_ignore_ascii_case(b"bytes=") && !list.is_empty() => list,
        _ => return Asked::Whole,
    };
    let (mut ranges, mut total) = (Vec::new(), 0u64);
    for part in list.split(|b| *b == b',') {
        let Some(range) = one_of(part, length) else { return Asked::Nothing };
        if range.start < range.end {
            total = total.saturating_add(range.end - range.start);
            ranges.push(range);
            if max.is_some_and(|max| ranges.len() > max as usize) {
                return Asked::Whole;
            }
        } else if range.start == 0 {
            return Asked::Whole;
        }
    }
    match ranges.len() {
        0 => Asked::Nothing,
        1 => Asked::One(ranges.remove(0)),
        // Parts that overlap, or whose heads outweigh what they save.
        _ if total > length => Asked::Whole,
        n if max.is_none() && total + n as u64 * PART_HEAD_BYTES > length + SLACK_BYTES => {
            Asked::Whole
        }
        _ => Asked::Several(ranges),
    }
}

/// What a part's head is taken to cost, and how much more than the whole all parts may be.
const PART_HEAD_BYTES: u64 = 256;
const SLACK_BYTES: u64 = 4096;

/// `5-9`, `5-`, `-5`; `None` if it is none of these.
fn one_of(part: &[u8], length: u64) -> Option<Range> {
    let text = std::str::from_utf8(part).ok()?.trim_matches(' ');
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim_end_matches(' '), last.trim_start_matches(' '));
    match (first, last) {
        ("", last) => Some(length.saturating_sub(offset(last)?)..length),
        (first, "") => Some(offset(first)?..length),
        (first, last) => Some(offset(first)?..offset(last)?.saturating_add(1).min(length)),
    }
}

fn offset(digits: &str) -> Option<u64> {
    crate::conf::value::number(digits).filter(|n| *n <= i64::MAX as u64)
}

// ---- the parts -----------------------------------------------------------------------------

fn one(r: &mut Request, range: Range, length: u64) {
    let Range { start, end } = range;
    let text = format!("bytes {start}-{}/{length}", end - 1);
    r.reply.status = 206;
    r.reply.reason = None;
    r.reply.fields.set(HeaderId::ContentRange, text.as_bytes());
    r.reply.length = Some(end - start);
    match &mut r.reply.body {
        Body::Empty => {}
        Body::Whole(chunk) => cut(chunk, &range),
        other => other.wrap(|inner| Cut { inner, at: 0, range }),
    }
}

fn cut(chunk: &mut Chunk, range: &Range) {
    chunk.truncate(range.end);
    chunk.advance(range.start);
}

thread_local! {
    static BOUNDARY: Cell<u64> = const { Cell::new(0) };
}

/// A number that no body is likely to hold.
fn next_boundary() -> u64 {
    if BOUNDARY.get() == 0 {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the kernel gives random bytes");
        BOUNDARY.set(u64::from_ne_bytes(seed) | 1);
    }
    BOUNDARY.set(BOUNDARY.get().wrapping_add(1));
    BOUNDARY.get()
}

fn several(r: &mut Request, ranges: &[Range], length: u64) {
    let boundary = next_boundary();
    let media = match (&r.reply.content_type, &r.reply.charset) {
        (None, _) => String::new(),
        (Some(media), None) => format!("Content-Type: {media}\r\n"),
        (Some(media), Some(charset)) => format!("Content-Type: {media}; charset={charset}\r\n"),
    };
    let whole = match std::mem::take(&mut r.reply.body) {
        Body::Whole(chunk) => Some(chunk),
        _ => None,
    };
    let (mut chunks, mut total) = (VecDeque::new(), 0);
    for range in ranges {
        let Range { start, end } = range;
        let head = format!(
            "\r\n--{boundary:020}\r\n{media}Content-Range: bytes {start}-{}/{length}\r\n\r\n",
            end - 1
        );
        total += head.len() as u64 + (end - start);
        chunks.push_back(Chunk::Mem(Slice::from(head)));
        if let Some(mut part) = whole.clone() {
            cut(&mut part, range);
            chunks.push_back(part);
        }
    }
    let last = format!("\r\n--{boundary:020}--\r\n");
    total += last.len() as u64;
    chunks.push_back(Chunk::Mem(Slice::from(last)));
    if whole.is_some() {
        r.reply.body = Body::Several(chunks);
    }
    r.reply.status = 206;
    r.reply.reason = None;
    r.reply.length = Some(total);
    r.reply.fields.remove(HeaderId::ContentRange);
    r.reply.charset = None;
    let media = format!("multipart/byteranges; boundary={boundary:020}");
    r.reply.content_type = Some(media.into());
}

/// One range of a body that comes in pieces.
struct Cut {
    inner: Body,
    at: u64,
    range: Range,
}

impl Pull for Cut {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Fault>> {
        while self.at < self.range.end {
            let Some(mut chunk) = ready!(self.inner.poll_pull(cx))? else { break };
            let start = self.at;
            self.at += chunk.len();
            if self.at <= self.range.start {
                continue;
            }
            if self.at > self.range.end {
                chunk.truncate(self.range.end - start);
            }
            chunk.advance(self.range.start.saturating_sub(start));
            return Poll::Ready(Ok(Some(chunk)));
        }
        Poll::Ready(Ok(None))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        self.inner.poll_ahead(cx);
    }

    fn wants_flush(&self) -> bool {
        self.inner.wants_flush()
    }

    fn trailers(&self) -> Option<&Fields> {
        self.inner.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_nginx_reads_them() {
        use Asked::*;
        for (field, length, max, want) in [
            ("bytes=0-9", 100, None, One(0..10)),
            ("Bytes= 5 - 9 ", 100, None, One(5..10)),
            ("bytes=90-", 100, None, One(90..100)),
            ("bytes=-5", 100, None, One(95..100)),
            ("bytes=-500", 100, None, One(0..100)),
            ("bytes=50-500", 100, None, One(50..100)),
            ("bytes=99-99", 100, None, One(99..100)),
            ("bytes=100-", 100, None, Nothing),
            ("bytes=100-200,1-2", 100, None, One(1..3)),
            ("bytes=9-5", 100, None, Nothing),
            ("bytes=-0", 100, None, Nothing),
            ("bytes=0-0,-1", 100, None, Several(vec![0..1, 99..100])),
            ("bytes=5-6,0-1", 100, None, Several(vec![5..7, 0..2])),
            ("bytes=0-60,0-60", 100, None, Whole),
            ("bytes=0-1,2-3,4-5", 100, Some(2), Whole),
            ("bytes=0-1,2-3", 100, Some(2), Several(vec![0..2, 2..4])),
            ("bytes=0-", 0, None, Whole),
            ("bytes=-1", 0, None, Whole),
            ("bytes=", 100, None, Whole),
            ("chars=0-1", 100, None, Whole),
            ("bytes=x", 100, None, Nothing),
            ("bytes=1", 100, None, Nothing),
            ("bytes=1-2-3", 100, None, Nothing),
            ("bytes=1-2,", 100, None, Nothing),
            ("bytes=99999999999999999999-", 100, None, Nothing),
        ] {
            assert_eq!(parse(field.as_bytes(), length, max), want, "{field}");
        }
    }

    #[test]
    fn a_range_of_pieces() {
        let pieces =
            |texts: &[&'static str]| Body::Several(texts.iter().map(|t| Chunk::from(*t)).collect());
        for (range, want) in
            [(0..3, "abc"), (2..5, "cde"), (3..4, "d"), (0..8, "abcdefgh"), (7..8, "h")]
        {
            let mut cut = Cut { inner: pieces(&["abc", "def", "gh"]), at: 0, range };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut out = Vec::new();
            while let Poll::Ready(Ok(Some(chunk))) = cut.poll_pull(&mut cx) {
                assert!(!chunk.is_empty());
                chunk.append_to(&mut out).unwrap();
            }
            assert_eq!(out, want.as_bytes());
        }
    }
}
