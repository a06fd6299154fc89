//! Compressing as gzip: levels, pooled compressors, and one piece of text at once.

use crate::io::{Buf, Size, Slice};
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress, Status};
use std::cell::RefCell;
use std::io::Write;

/// The window that zlib uses where nothing is said: 32 KiB.
pub const WINDOW_BITS: u8 = 15;

/// The level of our library that comes closest to nginx's `gzip_comp_level`, from 1 to 9.
///
/// Its level 1 compresses much worse than zlib's (2.96 to 3.65 times on source text); its level 2
/// is better than that and still faster (147 to 117 MB/s).
fn level(nginx: u32) -> Compression {
    Compression::new(match nginx {
        0 | 1 => 2,
        2 => 3,
        other => other.min(9),
    })
}

/// `bytes` as one gzip member.
pub fn gzip(bytes: &[u8], nginx_level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), level(nginx_level));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes every byte")
}

/// What a compressor was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strength {
    /// As in nginx, 1 to 9.
    pub level: u32,
    /// 9 to 15.
    pub window_bits: u8,
}

thread_local! {
    static IDLE: RefCell<Vec<(Strength, Compress)>> = const { RefCell::new(Vec::new()) };
}
/// Idle compressors that a thread keeps, each about 300 KiB: making one costs as much as
/// compressing two kilobytes.
const IDLE_MAX: usize = 8;

/// A stream of gzip being made.
pub struct Gzipper {
    strength: Strength,
    /// `None` only while it is dropped.
    compress: Option<Compress>,
    out: Option<Buf>,
}

/// How much of what was written shall come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// What fills a block.
    Full,
    /// Everything so far.
    Flushed,
    /// Everything, and the end.
    Ended,
}

impl Gzipper {
    /// A new stream.
    pub fn new(strength: Strength) -> Gzipper {
        let pooled = IDLE.with_borrow_mut(|idle| {
            let at = idle.iter().position(|(known, _)| *known == strength)?;
            Some(idle.swap_remove(at).1)
        });
        let make = || Compress::new_gzip(level(strength.level), strength.window_bits);
        Gzipper { strength, compress: Some(pooled.unwrap_or_else(make)), out: None }
    }

    /// Compresses from the front of `input`, and takes off what was compressed. `Some` is a block
    /// of output; `None`: all of `input` is taken and nothing more comes out.
    pub fn work(&mut self, input: &mut Slice, until: Until) -> Option<Slice> {
        let compress = self.compress.as_mut().expect("present until dropped");
        let flush = match until {
            Until::Full => FlushCompress::None,
            Until::Flushed => FlushCompress::Sync,
            Until::Ended => FlushCompress::Finish,
        };
        loop {
            let out = self.out.get_or_insert_with(|| Buf::new(Size::Medium));
            let before = (compress.total_in(), compress.total_out());
            let status = compress.compress(input, out.spare(), flush);
            let taken = (compress.total_in() - before.0) as usize;
            let made = (compress.total_out() - before.1) as usize;
            input.advance_by(taken);
            out.fill(made);
            let is_full = out.room() == 0;
            let is_over = matches!(status, Ok(Status::StreamEnd) | Err(_)) || taken + made == 0;
            if !is_full && input.is_empty() && until == Until::Full {
                return None;
            }
            if is_full || is_over || until != Until::Full && input.is_empty() {
                let out = self.out.take().filter(|out| !out.is_empty())?;
                return Some(out.freeze());
            }
        }
    }

    /// Bytes that went in and came out.
    pub fn totals(&self) -> (u64, u64) {
        let compress = self.compress.as_ref().expect("present until dropped");
        (compress.total_in(), compress.total_out())
    }
}

impl Drop for Gzipper {
    fn drop(&mut self) {
        let Some(mut compress) = self.compress.take() else { return };
        IDLE.with_borrow_mut(|idle| {
            if idle.len() < IDLE_MAX {
                compress.reset();
                idle.push((self.strength, compress));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const STRENGTH: Strength = Strength { level: 1, window_bits: WINDOW_BITS };

    fn feed(gzipper: &mut Gzipper, text: &[u8], until: Until) -> Vec<u8> {
        let mut input = Slice::copy_from(text);
        let mut out = Vec::new();
        while let Some(block) = gzipper.work(&mut input, until) {
            assert!(!block.is_empty());
            out.extend_from_slice(&block);
        }
        assert!(input.is_empty());
        out
    }

    fn unpacked(gzip: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // What is cut off at a flush has no end yet.
        let _ = flate2::read::GzDecoder::new(gzip).read_to_end(&mut out);
        out
    }

    /// Text that does not compress to nothing.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn a_stream_is_whole_and_a_pooled_compressor_starts_anew() {
        for text in [&b""[..], b"hello hello", &noise(100_000)] {
            for _ in 0..2 {
                let mut gzipper = Gzipper::new(STRENGTH);
                let mut out = feed(&mut gzipper, text, Until::Full);
                out.extend(feed(&mut gzipper, b"", Until::Ended));
                assert_eq!(unpacked(&out), text);
                assert_eq!(gzipper.totals(), (text.len() as u64, out.len() as u64));
                assert_eq!(unpacked(&gzip(text, 6)), text);
            }
        }
    }

    #[test]
    fn a_flush_lets_everything_out() {
        let mut gzipper = Gzipper::new(Strength { level: 9, window_bits: 9 });
        let mut out = feed(&mut gzipper, b"first ", Until::Full);
        out.extend(feed(&mut gzipper, b"second ", Until::Flushed));
        assert_eq!(unpacked(&out), b"first second ");
        out.extend(feed(&mut gzipper, b"third", Until::Ended));
        assert_eq!(unpacked(&out), b"first second third");
    }
}
