//! Small records updated under the lock: the state of `limit_req` and its kin.

use std::sync::atomic::Ordering::Relaxed;

use super::entry::Kind;
use super::shard::Spot;
use super::store::{Draft, Failure, deadline};
use super::{Dict, Error, Room, Value};

/// Longest record, bytes.
pub const RECORD_MAX: usize = 128;

/// A record's bytes, at most [`RECORD_MAX`].
#[derive(Clone, Copy)]
pub struct Record {
    len: u8,
    bytes: [u8; RECORD_MAX],
}

/// What to do with a record.
#[derive(Clone, Copy, Debug)]
pub enum Update {
    /// Leave it as it is.
    Keep,
    /// Remove it, if it is there.
    Remove,
    /// Store this; `ttl_ms` 0 is for ever.
    Store { record: Record, ttl_ms: u64 },
}

impl Record {
    /// The record of these bytes; the caller's type fixes their number.
    ///
    /// # Panics
    /// If there are more than [`RECORD_MAX`].
    pub fn new(bytes: &[u8]) -> Record {
        let mut record = Record { len: bytes.len() as u8, bytes: [0; RECORD_MAX] };
        record.bytes[..bytes.len()].copy_from_slice(bytes);
        record
    }
}

impl std::ops::Deref for Record {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({:02x?})", &**self)
    }
}

impl Dict {
    /// Reads a record and decides under the lock what becomes of it; nobody comes in between.
    /// `decide` sees what is stored and not expired, is quick, and may be called again if memory
    /// had to be found first. True: living entries were evicted.
    pub fn update(
        &self,
        key: &[u8],
        room: Room,
        now_ms: u64,
        mut decide: impl FnMut(Option<&[u8]>) -> Update,
    ) -> Result<bool, Error> {
        let key = self.key(key)?;
        self.with_room(&key, 0, room, now_ms, |shard| {
            let old = shard.find(&key);
            let living = old.as_ref().filter(|spot| !spot.slot.is_expired(now_ms));
            let record = living.and_then(|spot| self.record_in(spot));
            match decide(record.as_deref()) {
                Update::Keep => {
                    if let Some(spot) = &old {
                        self.touch(spot.slot.at);
                    }
                }
                Update::Remove => {
                    if let Some(spot) = &old {
                        shard.remove(spot);
                    }
                }
                Update::Store { record, ttl_ms } => {
                    let shape = super::entry::Shape {
                        kind: Kind::String,
                        key_len: key.bytes.len(),
                        value_len: record.len(),
                    };
                    let expires_ms = deadline(ttl_ms, now_ms);
                    let draft =
                        Draft { shape, value: Value::String(&record), expires_ms, flags: 0 };
                    let slot = shard.place(shape.bytes(), room, now_ms).map_err(Failure::Short)?;
                    self.fill(slot, &key, &draft);
                    shard.commit(&key, old, slot);
                    self.touch(slot.at);
                }
            }
            Ok(())
        })
    }

    fn record_in(&self, spot: &Spot<'_>) -> Option<Record> {
        let (at, len) = (spot.shape.value_at(), spot.shape.value_len);
        if spot.shape.kind != Kind::String || len > RECORD_MAX {
            return None;
        }
        let mut record = Record { len: len as u8, bytes: [0; RECORD_MAX] };
        for (n, chunk) in record.bytes[..len].chunks_mut(8).enumerate() {
            let word = self.word_of(spot.slot, at + n)?.load(Relaxed).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Some(record)
    }
}
