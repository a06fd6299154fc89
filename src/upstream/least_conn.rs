//! `least_conn`: who has the fewest connections for its weight; round robin among equals.

use super::balance::{Ask, Balance};
use super::group::Group;
use super::round_robin;

/// The method of `least_conn`.
pub struct LeastConn;

impl Balance for LeastConn {
    fn choose(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        choose(group, ask, now)
    }

    fn choose_backup(&self, group: &Group, ask: &mut Ask, now: u64) -> Option<usize> {
        choose(group, ask, now)
    }
}

fn choose(group: &Group, ask: &Ask, now: u64) -> Option<usize> {
    if group.is_single {
        return round_robin::choose(group, ask, now);
    }
    let all = 0..group.peers.len();
    let suits = |index: &usize| ask.suits(group, *index, now);
    let best = all
        .clone()
        .filter(suits)
        .reduce(|best, other| if is_idler(group, other, best) { other } else { best })?;
    let equal = |index: &usize| suits(index) && !is_idler(group, best, *index);
    round_robin::smoothest(group, all.filter(equal))
}

/// Whether `a` has fewer connections for its weight than `b`.
pub(super) fn is_idler(group: &Group, a: usize, b: usize) -> bool {
    let (a, b) = (&group.peers[a], &group.peers[b]);
    a.conns() as i64 * b.weight() < b.conns() as i64 * a.weight()
}
