//! The master's children: who they are, and the places that wait for a new one.
use crate::log;
use crate::sys::process::Ended;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A child that lived shorter than this died at once.
pub const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The first pause before a place is filled again after such a death; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A worker a second is no spin, and clients who wait to be accepted do not wait long.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    Worker { seat: usize },
    Privileged,
}

impl Duty {
    /// The words of titles and logs.
    pub fn name(self) -> &'static str {
        match self {
            Duty::Worker { .. } => super::WORKER,
            Duty::Privileged => super::PRIVILEGED,
        }
    }
}

/// One living child.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    pub duty: Duty,
    /// Which configuration it serves; rises with every reload.
    pub generation: u32,
    /// It was told to go, and nobody will take its place.
    pub leaving: bool,
    pub channel: UnixStream,
    pub ready: bool,
    born: Instant,
    early_deaths: u32,
}

/// A place whose child has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    pub duty: Duty,
    /// When to fill it.
    pub due: Instant,
    /// How many children in a row died at once here.
    pub early_deaths: u32,
}

/// All children of the master.
#[derive(Debug, Default)]
pub struct Family {
    pub children: Vec<Child>,
    pub vacancies: Vec<Vacancy>,
    /// Duties given up: their child said that it cannot be (exit code 2).
    hopeless: Vec<Duty>,
    pub generation: u32,
}

impl Family {
    pub fn add(&mut self, pid: u32, duty: Duty, channel: UnixStream, early_deaths: u32) {
        let (generation, born) = (self.generation, Instant::now());
        let child = Child {
            pid,
            duty,
            generation,
            leaving: false,
            channel,
            ready: false,
            born,
            early_deaths,
        };
        self.children.push(child);
    }

    /// Takes a child that has died out of the family.
    pub fn remove(&mut self, pid: u32) -> Option<Child> {
        let place = self.children.iter().position(|child| child.pid == pid)?;
        Some(self.children.swap_remove(place))
    }

    /// Leaves the place of `child` to be filled again: at once, or after a pause if children keep
    /// dying there. Not if it said that trying again is pointless.
    pub fn vacate(&mut self, child: &Child, ended: Ended, now: Instant) {
        if ended == Ended::Exited(super::settle::FATAL) {
            let (name, pid) = (child.duty.name(), child.pid);
            log::alert!("{name} {pid} exited with fatal code 2 and cannot be respawned");
            self.hopeless.push(child.duty);
            return;
        }
        let early = now.duration_since(child.born) < SHORT_LIFE;
        let early_deaths = if early { child.early_deaths + 1 } else { 0 };
        let vacancy = Vacancy { duty: child.duty, due: now + pause(early_deaths), early_deaths };
        self.vacancies.push(vacancy);
    }

    /// The vacancies that are due now, taken away.
    pub fn take_due(&mut self, now: Instant) -> Vec<Vacancy> {
        self.vacancies.extract_if(.., |vacancy| vacancy.due <= now).collect()
    }

    /// A new configuration begins: nobody waits for places of the old one.
    pub fn next_generation(&mut self) {
        self.vacancies.clear();
        self.hopeless.clear();
        self.generation += 1;
    }

    /// Whether the worker of `seat` lives, or will in a moment.
    pub fn is_manned(&self, seat: usize) -> bool {
        let duty = Duty::Worker { seat };
        !self.hopeless.contains(&duty) && !self.vacancies.iter().any(|v| v.duty == duty)
    }

    /// Hears which children have become ready.
    pub fn hear(&mut self) {
        for child in self.children.iter_mut().filter(|child| !child.ready) {
            let mut word = [0; 1];
            child.ready = matches!(child.channel.read(&mut word), Ok(1));
        }
    }

    /// The channels on which a word is expected.
    pub fn channels(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let unready = self.children.iter().filter(|child| !child.ready);
        unready.map(|child| child.channel.as_fd())
    }

    /// Whether there is a privileged process, or will be in a moment, or cannot be.
    pub fn has_privileged(&self) -> bool {
        let duty = Duty::Privileged;
        self.children.iter().any(|child| child.duty == duty)
            || self.vacancies.iter().any(|vacancy| vacancy.duty == duty)
            || self.hopeless.contains(&duty)
    }

    /// The privileged process itself.
    pub fn privileged(&self) -> Option<&Child> {
        self.children.iter().find(|child| child.duty == Duty::Privileged)
    }

    /// Workers of the present generation: how many, and how many of them are ready.
    pub fn present_workers(&self) -> (usize, usize) {
        let present = self.children.iter().filter(|child| {
            child.generation == self.generation && matches!(child.duty, Duty::Worker { .. })
        });
        present.fold((0, 0), |(all, ready), child| (all + 1, ready + usize::from(child.ready)))
    }
}

/// How long a place stays empty after so many early deaths in a row.
pub fn pause(early_deaths: u32) -> Duration {
    match early_deaths.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => PAUSE_MAX.min(PAUSE_MIN * 2u32.saturating_pow(doublings.min(16))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(family: &mut Family, pid: u32, early_deaths: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        family.add(pid, Duty::Worker { seat: 0 }, ours, early_deaths);
        theirs
    }

    #[test]
    fn a_place_is_filled_at_once_and_later_if_children_keep_dying() {
        let mut family = Family::default();
        let now = Instant::now();
        let killed = Ended::Killed { signal: 9, core_dumped: false };
        let _held = child(&mut family, 1, 0);
        let old = family.remove(1).unwrap();
        family.vacate(&old, killed, now + Duration::from_secs(60));
        assert_eq!(family.take_due(now + Duration::from_secs(60))[0].early_deaths, 0);
        for (deaths, pause) in [(0, 100), (1, 200), (3, 800), (30, 1_000)] {
            let _held = child(&mut family, 2, deaths);
            let young = family.remove(2).unwrap();
            family.vacate(&young, killed, now);
            assert!(!family.is_manned(0) && family.is_manned(1));
            let due = now + Duration::from_millis(pause);
            assert!(family.take_due(due - Duration::from_millis(1)).is_empty());
            assert_eq!(family.take_due(due)[0].early_deaths, deaths + 1);
        }
    }

    #[test]
    fn a_hopeless_child_has_no_successor() {
        let mut family = Family::default();
        let _held = child(&mut family, 1, 0);
        let it = family.remove(1).unwrap();
        family.vacate(&it, Ended::Exited(2), Instant::now());
        assert!(family.vacancies.is_empty() && !family.is_manned(0));
        family.next_generation();
        assert!(family.is_manned(0));
    }

    #[test]
    fn a_child_says_when_it_is_ready() {
        let mut family = Family::default();
        let mut theirs = child(&mut family, 1, 0);
        family.hear();
        assert_eq!(family.present_workers(), (1, 0));
        std::io::Write::write_all(&mut theirs, super::super::worker::READY).unwrap();
        family.hear();
        assert_eq!((family.present_workers(), family.channels().count()), ((1, 1), 0));
    }
}
