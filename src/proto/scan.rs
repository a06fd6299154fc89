//! Finding the next byte that matters, sixteen bytes at a time.

use wide::u8x16;

/// First byte at or after `at` that is a control character (below a space), or the end.
#[inline(always)]
pub(crate) fn control(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, Block::controls, |b| b < b' ')
}

/// First byte at or after `at` that ends a run of target bytes: a control character, a space,
/// DEL or `#`; or the end.
#[inline]
pub(crate) fn target_end(bytes: &[u8], at: usize) -> usize {
    find(
        bytes,
        at,
        |block| block.controls() | block.equals(b' ') | block.equals(b'#') | block.equals(0x7f),
        |b| b <= b' ' || b == b'#' || b == 0x7f,
    )
}

#[inline(always)]
fn find(
    bytes: &[u8],
    mut at: usize,
    in_block: impl Fn(Block) -> u32,
    is_hit: impl Fn(u8) -> bool,
) -> usize {
    for chunk in bytes[at..].as_chunks().0 {
        let hits = in_block(Block::new(chunk));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize;
        }
        at += Block::LEN;
    }
    if at < bytes.len()
        && let Some(last) = bytes.last_chunk()
    {
        // The block that ends with the bytes; those before `at` are known already.
        let seen = at + Block::LEN - bytes.len();
        let hits = in_block(Block::new(last)) >> seen;
        return if hits == 0 { bytes.len() } else { at + hits.trailing_zeros() as usize };
    }
    while at < bytes.len() && !is_hit(bytes[at]) {
        at += 1;
    }
    at
}

/// Sixteen bytes; questions are answered with a bit per byte, the first byte's lowest.
#[derive(Clone, Copy)]
pub(crate) struct Block(u8x16);

impl Block {
    pub const LEN: usize = 16;

    #[inline(always)]
    pub fn new(bytes: &[u8; Block::LEN]) -> Block {
        Block(u8x16::new(*bytes))
    }

    /// The block at `at`, with zeros behind the bytes if they are too few.
    #[inline(always)]
    pub fn at(bytes: &[u8], at: usize) -> Block {
        match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(chunk) => Block::new(chunk),
            None => Block::near_end(bytes, at),
        }
    }

    #[inline(never)]
    fn near_end(bytes: &[u8], at: usize) -> Block {
        let left = bytes.len().saturating_sub(at);
        let word = match bytes.last_chunk() {
            _ if left == 0 => 0,
            Some(last) => u128::from_le_bytes(*last) >> ((Block::LEN - left) * 8),
            None => bytes[at..].iter().rev().fold(0, |word, &b| word << 8 | u128::from(b)),
        };
        Block::new(&word.to_le_bytes())
    }

    /// Which bytes are `b`.
    #[inline(always)]
    pub fn equals(self, b: u8) -> u32 {
        self.0.simd_eq(u8x16::splat(b)).to_bitmask()
    }

    /// Which bytes are below a space.
    #[inline(always)]
    pub fn controls(self) -> u32 {
        self.0.min(u8x16::splat(b' ' - 1)).simd_eq(self.0).to_bitmask()
    }

    /// Whether all bits of `matters` are those of `want`.
    #[inline(always)]
    pub fn agrees(self, want: &[u8; Block::LEN], matters: &[u8; Block::LEN]) -> bool {
        let differs = (self.0 ^ u8x16::new(*want)) & u8x16::new(*matters);
        differs.simd_eq(u8x16::ZERO).to_bitmask() == 0xffff
    }
}

/// A text of up to sixteen bytes that is found in any letter case.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    want: [u8; Block::LEN],
    /// Not what is behind the text, and not what tells a capital letter from a small one.
    matters: [u8; Block::LEN],
}

impl Word {
    /// The part of `text` that starts at `from`, as far as a word goes; in lower case.
    pub const fn part(text: &str, from: usize) -> Word {
        let text = text.as_bytes();
        let mut word = Word { want: [0; Block::LEN], matters: [0; Block::LEN] };
        let mut i = 0;
        while i < Block::LEN && from + i < text.len() {
            let b = text[from + i];
            word.want[i] = b.to_ascii_lowercase();
            word.matters[i] = if b.is_ascii_alphabetic() { 0xdf } else { 0xff };
            i += 1;
        }
        word
    }

    /// Whether `block` starts with the word.
    #[inline(always)]
    pub fn starts(&self, block: Block) -> bool {
        block.agrees(&self.want, &self.matters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_seen() {
        for b in 0..=255u8 {
            for place in 0..40 {
                let mut text = [b'a'; 40];
                text[place] = b;
                text[39] = b'\n';
                let at = |hit: bool| if hit { place } else { 39 };
                assert_eq!(control(&text, 0), at(b < b' '), "{b} at {place}");
                assert_eq!(
                    target_end(&text, 0),
                    at(b <= b' ' || b == b'#' || b == 0x7f),
                    "{b} at {place}"
                );
            }
        }
        assert_eq!(control(b"abc", 1), 3);
        assert_eq!(target_end(b"abc", 1), 3);
        assert_eq!(target_end(b"abc", 3), 3);
    }

    #[test]
    fn words_are_found_in_every_case() {
        let word = Word::part("x-Close", 2);
        let starts = |text: &[u8]| word.starts(Block::at(text, 0));
        assert!(starts(b"close") && starts(b"CLOSEd, and this is long"));
        assert!(!starts(b"clos") && !starts(b"") && !starts(b"clos\xe5"));
    }
}
