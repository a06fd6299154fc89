//! Finding the next byte that matters, eight bytes at a time where runs are long.

/// First byte at or after `at` that is a control character (below a space), or the end.
#[inline]
pub(crate) fn control(bytes: &[u8], at: usize) -> usize {
    skip_words(bytes, at, |w| below_space(w), |b| b < 0x20)
}

/// First byte at or after `at` that ends a run of target bytes: a control character, a space,
/// DEL or `#`; or the end.
#[inline]
pub(crate) fn target_end(bytes: &[u8], at: usize) -> usize {
    skip_words(
        bytes,
        at,
        |w| below_space(w) | equal(w, b' ') | equal(w, b'#') | equal(w, 0x7f),
        |b| b <= b' ' || b == b'#' || b == 0x7f,
    )
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[inline(always)]
fn skip_words(
    bytes: &[u8],
    mut at: usize,
    word: impl Fn(u64) -> u64,
    byte: impl Fn(u8) -> bool,
) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let hits = word(u64::from_le_bytes(*chunk));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !byte(bytes[at]) {
        at += 1;
    }
    at
}

/// High bit set in each byte below 0x20; exact up to and including the first such byte.
#[inline(always)]
fn below_space(w: u64) -> u64 {
    w.wrapping_sub(LOW * 0x20) & !w & HIGH
}

/// High bit set in each byte that is `b`; exact up to and including the first such byte.
#[inline(always)]
fn equal(w: u64, b: u8) -> u64 {
    let x = w ^ (LOW * b as u64);
    x.wrapping_sub(LOW) & !x & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_seen() {
        for b in 0..=255u8 {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = b;
                text[19] = b'\n';
                let want = if b < 0x20 { place } else { 19 };
                assert_eq!(control(&text, 0), want, "{b} at {place}");
                let stops = b <= b' ' || b == b'#' || b == 0x7f;
                let want = if stops { place } else { 19 };
                assert_eq!(target_end(&text, 0), want, "{b} at {place}");
            }
        }
        assert_eq!(control(b"abc", 1), 3);
        assert_eq!(control(b"abc", 3), 3);
    }
}
