//! `split_clients`: a variable that cuts clients into groups of given sizes.

use crate::conf::*;
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Request, Template, VariableTable};
use std::rc::Rc;

/// The module.
pub struct SplitClients;

impl HttpModule for SplitClients {
    type Main = ();
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<()>] =
        &[d("split_clients", HTTP, block(exactly(2), |_, r| read(r)))];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }
}

/// Hundredths of a percent in the whole.
const WHOLE: u64 = 10_000;

fn read(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let name = name_of(&args[1])?;
    let source = Template::parse(&args[0], r)?;
    let mut parts: Vec<(u64, Template)> = Vec::new();
    r.rows(|r| {
        let share = r.name().to_owned();
        let [value] = r.args() else {
            return Err(Reason::says(format!("invalid number of parameters in \"{share}\"")));
        };
        let value = value.clone();
        let value = Template::parse(&value, r)?;
        parts.push((percent(&share)?, value));
        Ok(())
    })?;
    let total: u64 = parts.iter().map(|(share, _)| share).sum();
    if total > WHOLE {
        return Err(Reason::says("percent total is greater than 100%"));
    }
    let bounds = bounds(parts);
    let rule = Rc::new(move |r: &Request, out: &mut Vec<u8>| {
        let hash = murmur2(&source.value(r));
        match bounds.iter().find(|(end, _)| *end == 0 || hash < *end) {
            Some((_, value)) => {
                value.append(r, out);
                true
            }
            None => false,
        }
    });
    r.shelf.of::<VariableTable>().compute(name, false, rule)?;
    Ok(())
}

/// `*` is the rest, written as 0.
fn percent(text: &str) -> Result<u64, Reason> {
    let invalid = || Reason::says(format!("invalid percent value \"{text}\""));
    if text == "*" {
        return Ok(0);
    }
    let digits = text.strip_suffix('%').ok_or_else(invalid)?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if part.len() > 2 {
        return Err(invalid());
    }
    let whole = value::number(whole).filter(|n| *n <= 100).ok_or_else(invalid)?;
    let part = match part {
        "" => 0,
        part => value::number(&format!("{part:0<2}")).ok_or_else(invalid)?,
    };
    Some(whole * 100 + part).filter(|n| *n > 0).ok_or_else(invalid)
}

/// Where each group ends on the circle of hashes; 0 is its whole rest.
fn bounds(parts: Vec<(u64, Template)>) -> Vec<(u32, Template)> {
    let mut sum = 0;
    let end = |share: u64, sum: &mut u64| {
        *sum += share;
        let at = *sum * u64::from(u32::MAX) / WHOLE;
        if share == 0 || *sum == WHOLE { 0 } else { at as u32 }
    };
    parts.into_iter().map(|(share, value)| (end(share, &mut sum), value)).collect()
}

/// MurmurHash2 with seed 0, so that clients stay in the groups nginx gave them.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_murmur2_s() {
        // Reference values of MurmurHash2 (32 bits, seed 0).
        assert_eq!(murmur2(b""), 0);
        assert_eq!(murmur2(b"a"), 0x9268_5f5e);
        assert_eq!(murmur2(b"abcd"), 0x2687_3021);
    }

    #[test]
    fn percents() {
        assert_eq!(percent("0.5%"), Ok(50));
        assert_eq!(percent("100%"), Ok(10_000));
        assert_eq!(percent("*"), Ok(0));
        for bad in ["5", "101%", "0%", "1.234%", "%", "-1%"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        let ends = bounds(vec![(5000, Template::default()), (0, Template::default())]);
        assert_eq!(ends[0].0, u32::MAX / 2);
        assert_eq!(ends[1].0, 0);
    }
}
