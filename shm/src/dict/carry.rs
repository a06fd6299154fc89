//! Moving entries into a dict of another size: a reload that changes a zone.

use std::sync::atomic::Ordering::Relaxed;

use super::entry::Kind;
use super::shard::{Shard, Spot, Walk};
use super::store::Mode;
use super::table::{bit_of, place_of};
use super::{Dict, Error, Owned, Put, Room, Value};

/// How a move went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub kept: usize,
    /// Did not fit, or were stored there already by somebody else.
    pub dropped: usize,
}

/// One entry on its way.
struct Parcel {
    key: Vec<u8>,
    what: Contents,
    ttl_ms: u64,
    flags: u32,
    touched: bool,
}

enum Contents {
    One(Owned),
    List(Vec<Owned>),
}

impl Dict {
    /// Copies living entries to `to`, recently used ones first, as many as fit. This dict stays as
    /// it is and may be in use; a key that `to` has already is left alone.
    pub fn carry_to(&self, to: &Dict, now_ms: u64) -> Result<Carried, Error> {
        let mut sum = Carried::default();
        for touched in [true, false] {
            for line in 0..self.layout.lines {
                for parcel in self.pack(line, touched, now_ms)? {
                    let stored = to.unpack(&parcel, now_ms)?;
                    *(if stored { &mut sum.kept } else { &mut sum.dropped }) += 1;
                }
            }
        }
        Ok(sum)
    }

    fn pack(&self, line: usize, touched: bool, now_ms: u64) -> Result<Vec<Parcel>, Error> {
        let mut parcels = Vec::new();
        // Most lines of a large dict may be empty: no lock for those.
        if self.line(line)[1..].iter().all(|head| head.load(Relaxed) == 0) {
            return Ok(parcels);
        }
        let shard = self.lock(self.shard_of_line(line))?;
        shard.each_in_line(line, &mut |spot| {
            let bits = self.touched(place_of(spot.slot.at).0).load(Relaxed);
            let wanted = (bits & bit_of(spot.slot.at) != 0) == touched;
            if wanted && !spot.slot.is_expired(now_ms) {
                parcels.extend(shard.parcel(spot, touched, now_ms));
            }
            Walk::On
        });
        Ok(parcels)
    }

    fn unpack(&self, parcel: &Parcel, now_ms: u64) -> Result<bool, Error> {
        let done = match &parcel.what {
            Contents::One(value) => {
                let put = Put { value: value.borrow(), ttl_ms: parcel.ttl_ms, flags: parcel.flags };
                self.store(&parcel.key, &put, Mode::Add, Room::Refuse, now_ms).map(drop)
            }
            Contents::List(_) if self.llen(&parcel.key, now_ms) != Ok(0) => Err(Error::Exists),
            Contents::List(values) => self.unpack_list(parcel, values, now_ms),
        };
        match done {
            Ok(()) => {
                if parcel.touched {
                    self.look_up(&self.key(&parcel.key)?, |slot, _| {
                        self.touch(slot.at);
                        Some(())
                    })?;
                }
                Ok(true)
            }
            Err(Error::Stuck(e)) => Err(Error::Stuck(e)),
            Err(_) => Ok(false),
        }
    }

    fn unpack_list(&self, parcel: &Parcel, values: &[Owned], now_ms: u64) -> Result<(), Error> {
        for value in values {
            if let Err(e) = self.rpush(&parcel.key, value.borrow(), now_ms) {
                // Half a list is worse than none.
                self.delete(&parcel.key)?;
                return Err(e);
            }
        }
        self.expire(&parcel.key, parcel.ttl_ms, now_ms)
    }
}

impl<'d> Shard<'d> {
    fn parcel(&self, spot: &Spot<'d>, touched: bool, now_ms: u64) -> Option<Parcel> {
        let mut key = Vec::new();
        self.key_of(spot, &mut key);
        let what = match spot.shape.kind {
            Kind::List => {
                let mut values = Vec::new();
                self.each_element(spot, |slot, shape| {
                    values.extend(self.dict.element_value(slot, shape));
                });
                Contents::List(values)
            }
            _ => Contents::One(self.value_of(spot, &key)?),
        };
        let expires = spot.slot.expires().load(Relaxed);
        let ttl_ms = expires.saturating_sub(now_ms);
        let flags = spot.slot.flags().load(Relaxed) as u32;
        Some(Parcel { key, what, ttl_ms, flags, touched })
    }

    fn value_of(&self, spot: &Spot<'d>, key: &[u8]) -> Option<Owned> {
        let at = spot.shape.value_at();
        let word = || Some(self.dict.word_of(spot.slot, at)?.load(Relaxed));
        Some(match spot.shape.kind {
            Kind::String => {
                let mut bytes = Vec::new();
                self.dict.copy_bytes(spot.slot, at, spot.shape.value_len, &mut bytes)?;
                Owned::String(bytes)
            }
            Kind::Number => {
                Owned::Number(f64::from_bits(word()? ^ self.dict.key(key).ok()?.mask()))
            }
            Kind::Bool => Owned::Bool(word()? != 0),
            _ => return None,
        })
    }
}

impl Owned {
    /// The same value, borrowed.
    pub fn borrow(&self) -> Value<'_> {
        match self {
            Owned::String(bytes) => Value::String(bytes),
            Owned::Number(n) => Value::Number(*n),
            Owned::Bool(b) => Value::Bool(*b),
        }
    }
}
