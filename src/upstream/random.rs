//! `random [two [least_conn]]`: a weighted guess, or the idler of two.

use super::balance::{Ask, Balance, GUESSES_MAX};
use super::group::Group;
use super::{least_conn, round_robin};
use std::cell::Cell;

/// The method of `random`.
pub struct Random {
    two: bool,
    state: Cell<u64>,
}

impl Random {
    /// A guesser of one, or of the idler of `two`.
    pub fn new(two: bool) -> Random {
        Random { two, state: Cell::new(0) }
    }

    /// The next number (xorshift*). Seeded at first use: processes are forked from one.
    fn next(&self) -> u64 {
        let mut x = self.state.get();
        if x == 0 {
            // Without a source of entropy any number will do for spreading load.
            x = getrandom::u64().unwrap_or(u64::from(std::process::id())) | 1;
        }
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn guess(&self, group: &Group) -> usize {
        let total = group.total_weight.max(1) as u64;
        let mut left = (self.next() % total) as i64;
        group
            .peers
            .iter()
            .position(|p| {
                left -= p.weight();
                left < 0
            })
            .unwrap_or(0)
    }
}

impl Balance for Random {
    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        let mut first = None;
        while ask.guesses <= GUESSES_MAX && group.peers.len() > 1 {
            let index = self.guess(group);
            if Some(index) != first && ask.suits(group, index, now) {
                match first {
                    None if self.two => first = Some(index),
                    None => return Some(index),
                    Some(other) if least_conn::is_idler(group, other, index) => return Some(other),
                    Some(_) => return Some(index),
                }
                continue;
            }
            ask.guesses += 1;
        }
        round_robin::choose(group, ask, now)
    }
}
