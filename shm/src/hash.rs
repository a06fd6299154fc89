//! A keyed 64-bit hash of short byte strings, and the checksum of snapshots.
//!
//! Multiply-and-fold over 16 bytes at a time. The seed is random per region, so a peer who chooses
//! keys cannot aim at one bucket. Not a cryptographic hash.

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd1b5_4a32_d192_ed03;

/// The hash of `bytes` under `seed`.
#[inline]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let start = seed ^ (len as u64).wrapping_mul(B);
    // Both factors are keyed: a known zero factor would let a peer make every key collide.
    let second = seed.rotate_left(32) ^ A;
    if len <= 16 {
        let (a, b) = short(bytes);
        return fold(fold(a ^ second, b ^ start) ^ start, second ^ B);
    }
    let mut state = start;
    let mut rest = bytes;
    while let Some((block, tail)) = rest.split_first_chunk::<16>().filter(|(_, t)| !t.is_empty()) {
        state = fold(le8(block, 0) ^ second, le8(block, 8) ^ state);
        rest = tail;
    }
    // The last 16 bytes, overlapping what was read already.
    let last = &bytes[len - 16..];
    fold(fold(le8(last, 0) ^ second ^ B, le8(last, 8) ^ state) ^ start, second ^ B)
}

/// A one-to-one scrambling of `word`.
#[inline]
pub fn scramble(word: u64) -> u64 {
    let x = (word ^ (word >> 32)).wrapping_mul(A);
    let y = (x ^ (x >> 29)).wrapping_mul(B);
    y ^ (y >> 32)
}

#[inline]
fn short(bytes: &[u8]) -> (u64, u64) {
    match bytes.len() {
        8.. => (le8(bytes, 0), le8(bytes, bytes.len() - 8)),
        4..8 => (le4(bytes, 0), le4(bytes, bytes.len() - 4)),
        0 => (0, 0),
        n => {
            let middle = u64::from(bytes[n / 2]) << 8;
            (u64::from(bytes[0]) | middle | u64::from(bytes[n - 1]) << 16, 0)
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

#[inline]
fn le8(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn le4(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SEED: u64 = 0x1234_5678_9abc_def1;

    #[test]
    fn every_byte_and_the_length_count() {
        let base: Vec<u8> = (0..100).collect();
        for len in 0..100 {
            let h = hash(SEED, &base[..len]);
            assert_ne!(h, hash(SEED, &base[..len + 1]));
            assert_ne!(h, hash(SEED + 1, &base[..len]));
            for n in 0..len {
                let mut other = base[..len].to_vec();
                other[n] ^= 0x80;
                assert_ne!(h, hash(SEED, &other), "byte {n} of {len}");
            }
        }
    }

    #[test]
    fn counters_spread_evenly_over_the_top_and_the_bottom() {
        let mut top = [0u32; 256];
        let mut low = HashSet::new();
        for n in 0..65536u32 {
            let h = hash(9, format!("key:{n}").as_bytes());
            top[(h >> 56) as usize] += 1;
            low.insert(h as u32);
        }
        assert!(top.iter().all(|&n| (150..=370).contains(&n)), "{top:?}");
        assert!(low.len() > 65_530);
    }
}
