//! Smooth weighted round robin: every peer earns its weight per choice, the richest is chosen and
//! pays what all earned together.

use super::balance::{Ask, Balance};
use super::group::Group;

/// The method without a directive.
pub struct RoundRobin;

impl Balance for RoundRobin {
    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        choose(group, ask, now)
    }
}

/// The choice, also for methods that have to leave it.
pub(super) fn choose(group: &Group, ask: &Ask, now: u64) -> Option<usize> {
    if group.is_single {
        return group.peers[0].may_serve_alone().then_some(0);
    }
    let all = 0..group.peers.len();
    smoothest(group, all.filter(|index| ask.suits(group, *index, now)))
}

/// The richest of `candidates`, after each has earned.
pub(super) fn smoothest(group: &Group, candidates: impl Iterator<Item = usize>) -> Option<usize> {
    let (mut best, mut total) = (None, 0);
    for index in candidates {
        let (current, effective) = group.peers[index].earn();
        total += effective;
        if best.is_none_or(|(_, most)| current > most) {
            best = Some((index, current));
        }
    }
    let (index, _) = best?;
    group.peers[index].pay(total);
    Some(index)
}
