//! Operations on all entries: one shard's lock at a time.

use std::sync::atomic::Ordering::Relaxed;

use super::shard::Walk;
use super::{Dict, Error};

impl Dict {
    /// Lets every entry expire now. Memory is freed by `flush_expired`, or as it is needed.
    pub fn flush_all(&self) -> Result<(), Error> {
        for number in 0..self.layout.shards {
            self.lock(number)?.each(|spot| {
                spot.slot.expires().store(1, Relaxed);
                Walk::On
            });
        }
        Ok(())
    }

    /// Frees expired entries, at most `max` (0: all). Answers how many.
    pub fn flush_expired(&self, max: usize, now_ms: u64) -> Result<usize, Error> {
        let mut freed = 0;
        for number in 0..self.layout.shards {
            self.lock(number)?.each(|spot| {
                if max != 0 && freed == max {
                    return Walk::Stop;
                }
                if !spot.slot.is_expired(now_ms) {
                    return Walk::On;
                }
                freed += 1;
                Walk::Remove
            });
        }
        Ok(freed)
    }

    /// Keys of living entries in no order, at most `max` (0: all).
    pub fn get_keys(&self, max: usize, now_ms: u64) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys = Vec::new();
        for number in 0..self.layout.shards {
            let shard = self.lock(number)?;
            shard.each(|spot| {
                if max != 0 && keys.len() == max {
                    return Walk::Stop;
                }
                if !spot.slot.is_expired(now_ms) {
                    let mut key = Vec::with_capacity(spot.shape.key_len);
                    shard.key_of(spot, &mut key);
                    keys.push(key);
                }
                Walk::On
            });
        }
        Ok(keys)
    }
}
