//! Shared memory zones: kept by name over reloads and binary upgrades.
use crate::event::{Memory, Zone};
use crate::log;
use crate::sys::board::Board;
use crate::sys::{process, time};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use tollbar_shm::inherit::{Bequest, ShmKind};
use tollbar_shm::region::{OpenError, Region};
use tollbar_shm::{Cells, Dict, Queue};

/// The zones that a cycle holds.
#[derive(Debug, Default)]
pub struct Zones(Vec<Held>);

/// One zone's memory, and whose it is.
#[derive(Debug)]
struct Held {
    name: String,
    tag: String,
    memory: Memory,
    /// What lies on a board, while it is being bequeathed.
    notice: RefCell<Option<OwnedFd>>,
}

impl Zones {
    /// Gives each wanted zone its memory: the one it has in `old`, or new one. A zone that changed
    /// its size gets new memory and as many of the old entries as fit.
    pub fn open(wanted: &[Rc<Zone>], old: &Zones) -> Result<Zones, String> {
        let mut zones = Zones::default();
        for zone in wanted {
            let (name, tag, size) = (zone.name.clone(), zone.tag.to_owned(), zone.size());
            let before = old.find(zone).map(|held| &held.memory);
            let memory = match before {
                Some(memory) if size_of(memory) == size => memory.clone(),
                _ => create(zone).map_err(|error| {
                    format!("shared memory zone \"{name}\" of size {size}: {error}")
                })?,
            };
            match (before, &memory) {
                (Some(Memory::Dict(old)), Memory::Dict(new)) if !Arc::ptr_eq(old, new) => {
                    carry_dict(&name, old, new);
                }
                (Some(Memory::Cells(old)), Memory::Cells(new)) if !Rc::ptr_eq(old, new) => {
                    carry_cells(&name, old, new);
                }
                // What waits in a queue is a sample that nobody misses.
                _ => {}
            }
            zone.open(memory.clone());
            zones.0.push(Held { name, tag, memory, notice: RefCell::default() });
        }
        Ok(zones)
    }

    /// The list of all zones for the environment of a new binary. Of a board, what lies on it now
    /// is meant.
    pub fn list(&self) -> String {
        let all: Vec<Bequest> = self.0.iter().filter_map(Held::bequest).collect();
        Bequest::encode(&all)
    }

    /// Whether a program that is executed finds the memory that `list` has named.
    pub fn keep_over_exec(&self, keep: bool) -> Result<(), OpenError> {
        self.0.iter().try_for_each(|held| held.keep_over_exec(keep))
    }

    /// Takes over what the binary before us has left. What cannot be used is logged and let go.
    pub fn inherit(list: &str) -> Zones {
        let mut zones = Zones::default();
        for bequest in Bequest::decode(list) {
            let Some((tag, name)) = bequest.name.split_once(':') else { continue };
            match adopt(&bequest) {
                Ok(memory) => {
                    let (name, tag, notice) = (name.into(), tag.into(), RefCell::default());
                    zones.0.push(Held { name, tag, memory, notice });
                }
                Err(error) => {
                    log::crit!("inherited shared memory zone \"{name}\" is not usable: {error}");
                }
            }
        }
        zones
    }

    fn find(&self, zone: &Zone) -> Option<&Held> {
        let is = |held: &&Held| {
            held.name == zone.name && held.tag == zone.tag && kind(&held.memory) == zone.kind
        };
        self.0.iter().find(is)
    }
}

impl Held {
    /// `None`: a board without a notice.
    fn bequest(&self) -> Option<Bequest> {
        let name = format!("{}:{}", self.tag, self.name);
        let (kind, size) = (kind(&self.memory), size_of(&self.memory));
        if let Memory::Board(board) = &self.memory {
            *self.notice.borrow_mut() = board.look().ok().flatten();
        }
        match region(&self.memory) {
            Some(region) => Some(Bequest::new(kind, &name, size, region.fd())),
            None => Some(Bequest::new(kind, &name, size, self.notice.borrow().as_ref()?.as_fd())),
        }
    }

    fn keep_over_exec(&self, keep: bool) -> Result<(), OpenError> {
        if let Some(region) = region(&self.memory) {
            return region.keep_over_exec(keep);
        }
        if !keep {
            self.notice.take();
            return Ok(());
        }
        match &*self.notice.borrow() {
            Some(notice) => Ok(process::keep_over_exec(notice.as_fd(), true)?),
            None => Ok(()),
        }
    }
}

fn create(zone: &Zone) -> Result<Memory, OpenError> {
    let (name, size) = (&zone.name, zone.size());
    Ok(match zone.kind {
        ShmKind::Dict => Memory::Dict(Arc::new(Dict::create(name, size)?)),
        ShmKind::Cells => Memory::Cells(Rc::new(Cells::create(name, size as usize)?)),
        ShmKind::Queue => Memory::Queue(Rc::new(Queue::create(name, size)?)),
        ShmKind::Snapshot => Memory::Board(Rc::new(Board::new()?)),
    })
}

fn adopt(bequest: &Bequest) -> Result<Memory, OpenError> {
    let fd = bequest.take()?;
    Ok(match bequest.kind {
        ShmKind::Dict => Memory::Dict(Arc::new(Dict::open(fd)?)),
        ShmKind::Cells => Memory::Cells(Rc::new(Cells::open(fd)?)),
        ShmKind::Queue => Memory::Queue(Rc::new(Queue::open(fd)?)),
        ShmKind::Snapshot => {
            let board = Board::new()?;
            board.replace(fd.as_fd())?;
            Memory::Board(Rc::new(board))
        }
    })
}

fn kind(memory: &Memory) -> ShmKind {
    match memory {
        Memory::Dict(_) => ShmKind::Dict,
        Memory::Cells(_) => ShmKind::Cells,
        Memory::Queue(_) => ShmKind::Queue,
        Memory::Board(_) => ShmKind::Snapshot,
    }
}

/// In the unit in which the zone was declared.
fn size_of(memory: &Memory) -> u64 {
    match memory {
        Memory::Dict(dict) => dict.capacity(),
        Memory::Cells(cells) => cells.capacity() as u64,
        Memory::Queue(queue) => queue.capacity(),
        Memory::Board(_) => 1,
    }
}

/// `None`: a board, whose memory changes.
fn region(memory: &Memory) -> Option<&Region> {
    match memory {
        Memory::Dict(dict) => Some(dict.region()),
        Memory::Cells(cells) => Some(cells.region()),
        Memory::Queue(queue) => Some(queue.region()),
        Memory::Board(_) => None,
    }
}

fn carry_dict(name: &str, old: &Dict, new: &Dict) {
    match old.carry_to(new, time::unix_ms()) {
        Ok(carried) if carried.dropped > 0 => log::warn!(
            "shared memory zone \"{name}\" keeps {} of its entries, {} do not fit",
            carried.kept,
            carried.dropped
        ),
        Ok(_) => {}
        Err(error) => log::alert!("shared memory zone \"{name}\" could not be kept: {error}"),
    }
}

fn carry_cells(name: &str, old: &Cells, new: &Cells) {
    for (block, _) in old.iter() {
        if let Err(error) = old.carry_to(new, &block) {
            log::warn!("shared memory zone \"{name}\" is not kept whole: {error}");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ZoneTable;
    use std::sync::atomic::Ordering::Relaxed;
    use tollbar_shm::dict::Owned;
    use tollbar_shm::{Put, Snapshot, SnapshotBuilder};

    fn wanted(list: &[(&str, &'static str, u64)]) -> Vec<Rc<Zone>> {
        let mut table = ZoneTable::default();
        for (name, tag, size) in list {
            table.want(name, tag, Some(*size)).unwrap();
        }
        table.finish().unwrap()
    }

    fn value(zone: &Zone, key: &str) -> Option<Owned> {
        zone.dict().get(key.as_bytes(), 1).unwrap().map(|got| got.value)
    }

    #[test]
    fn a_zone_keeps_what_is_in_it() {
        let first = wanted(&[("a", "keyval", 1 << 20), ("b", "keyval", 1 << 20)]);
        let old = Zones::open(&first, &Zones::default()).unwrap();
        for zone in &first {
            zone.dict().set(b"k", Put::string(b"v"), 1).unwrap();
        }
        // The same, a larger one, and a new one.
        let next =
            wanted(&[("a", "keyval", 1 << 20), ("b", "keyval", 4 << 20), ("c", "limit", 1 << 20)]);
        Zones::open(&next, &old).unwrap();
        let kept = Some(Owned::String(b"v".to_vec()));
        assert_eq!((value(&next[0], "k"), value(&next[1], "k")), (kept.clone(), kept));
        assert_eq!(value(&next[2], "k"), None);
        assert_eq!(next[1].dict().capacity(), 4 << 20);
        next[0].dict().set(b"k", Put::string(b"w"), 1).unwrap();
        assert_eq!(value(&first[0], "k"), Some(Owned::String(b"w".to_vec())), "one memory");
        let other = wanted(&[("a", "limit", 1 << 20)]);
        Zones::open(&other, &old).unwrap();
        assert_eq!(value(&other[0], "k"), None);
    }

    #[test]
    fn a_new_binary_finds_every_kind() {
        let want = |blocks| {
            let mut table = ZoneTable::default();
            table.want("a:b", "keyval", Some(1 << 20)).unwrap();
            table.want_cells("peers", "upstream", blocks).unwrap();
            table.want_queue("samples", "agent", 1 << 16).unwrap();
            table.want_board("nets", "table", true).unwrap();
            table.finish().unwrap()
        };
        let ours = want(64);
        let zones = Zones::open(&ours, &Zones::default()).unwrap();
        ours[0].dict().set(b"k", Put::number(7.0), 1).unwrap();
        ours[1].cells().block(b"one").unwrap()[2].store(5, Relaxed);
        let snapshot = SnapshotBuilder::new("nets", 1).unwrap().finish(7).unwrap();
        ours[3].board().replace(snapshot.fd()).unwrap();
        // As after exec: descriptors of the same numbers, which nobody owns.
        let bequests = zones.0.iter().map(|held| {
            let bequest = held.bequest().unwrap();
            let copy = match &*held.notice.borrow() {
                Some(notice) => notice.try_clone().unwrap(),
                None => region(&held.memory).unwrap().fd().try_clone_to_owned().unwrap(),
            };
            Bequest { fd: std::os::fd::IntoRawFd::into_raw_fd(copy), ..bequest }
        });
        let heir = Zones::inherit(&Bequest::encode(&bequests.collect::<Vec<_>>()));
        let theirs = want(128);
        Zones::open(&theirs, &heir).unwrap();
        assert_eq!(value(&theirs[0], "k"), Some(Owned::Number(7.0)));
        assert_eq!(theirs[1].cells().find(b"one").unwrap()[2].load(Relaxed), 5);
        theirs[2].queue().push(b"sample");
        let mut record = Vec::new();
        assert!(ours[2].queue().pop(&mut record).is_some());
        assert_eq!(record, b"sample");
        let notice = theirs[3].board().look().unwrap().unwrap();
        assert_eq!(Snapshot::open(notice, 1).unwrap().generation(), 7);
    }
}
