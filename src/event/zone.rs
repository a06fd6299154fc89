//! Zones: shared memory that the configuration declares by name and size.
//!
//! A directive (`limit_req_zone`, `keyval_zone`, `upstream { zone … }`) wants a zone while the file
//! is read; `cycle` opens all wanted zones before it forks, keeping those of the running cycle by
//! name, over a binary upgrade too; from then on [`Zone::dict`] (or `cells`, `queue`) gives the
//! memory in every process. A board is such a zone too: what lies on it is a sealed snapshot, and
//! [`Zone::board`] gives it.
//!
//! **Invariant:** one name is one zone of one kind: `tag` says whose it is.
use crate::conf::{Reading, Reason, value};
use crate::sys::board::Board;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use tollbar_shm::inherit::ShmKind;
use tollbar_shm::{Cells, Dict, Queue};

/// The smallest zone nginx accepts: eight pages.
pub const ZONE_MIN_BYTES: u64 = 8 * 4096;

/// One declared zone.
#[derive(Debug)]
pub struct Zone {
    /// Its name in the file.
    pub name: String,
    /// The feature that owns it: two features cannot share a name.
    pub tag: &'static str,
    /// What is in it.
    pub kind: ShmKind,
    size: Cell<u64>,
    memory: OnceCell<Memory>,
    handle: Arc<OnceLock<Arc<Dict>>>,
}

/// A zone's memory, shared with the zone of that name in the next cycle.
#[derive(Clone, Debug)]
pub enum Memory {
    Dict(Arc<Dict>),
    Cells(Rc<Cells>),
    Queue(Rc<Queue>),
    /// Where the snapshot lies that is in force.
    Board(Rc<Board>),
}

impl Zone {
    /// Its declared size in bytes, for cells in blocks; 0 while it was only referred to.
    pub fn size(&self) -> u64 {
        self.size.get()
    }

    /// The memory of a zone that was wanted as a dict. Like its sisters it is there in every
    /// process that was forked after the configuration was read.
    pub fn dict(&self) -> &Dict {
        match self.memory() {
            Memory::Dict(dict) => dict,
            _ => unreachable!("a zone has the kind it was wanted with"),
        }
    }

    pub fn cells(&self) -> &Cells {
        match self.memory() {
            Memory::Cells(cells) => cells,
            _ => unreachable!("a zone has the kind it was wanted with"),
        }
    }

    pub fn queue(&self) -> &Queue {
        match self.memory() {
            Memory::Queue(queue) => queue,
            _ => unreachable!("a zone has the kind it was wanted with"),
        }
    }

    pub fn board(&self) -> &Board {
        match self.memory() {
            Memory::Board(board) => board,
            _ => unreachable!("a zone has the kind it was wanted with"),
        }
    }

    fn memory(&self) -> &Memory {
        self.memory.get().expect("the cycle opens every zone before it forks")
    }

    /// A handle of a dict that threads may hold, filled when the zone is opened: rustls asks that
    /// of what it keeps sessions in.
    pub fn handle(&self) -> Arc<OnceLock<Arc<Dict>>> {
        self.handle.clone()
    }

    /// Gives the zone its memory; called once, by the cycle (and by tests).
    pub fn open(&self, memory: Memory) {
        if let Memory::Dict(dict) = &memory {
            let _ = self.handle.set(dict.clone());
        }
        let opened = self.memory.set(memory);
        debug_assert!(opened.is_ok(), "a zone is opened once per cycle");
    }
}

/// All zones that a configuration wants, in the order of their first naming; on the reading's
/// shelf.
#[derive(Debug, Default)]
pub struct ZoneTable {
    zones: Vec<Rc<Zone>>,
}

impl ZoneTable {
    /// Finds or declares the dict `name` for `tag`. `size_bytes` is `None` for a mere reference.
    ///
    /// Errors: nginx's, for a second size and for a name that belongs to another feature.
    pub fn want(
        &mut self,
        name: &str,
        tag: &'static str,
        size_bytes: Option<u64>,
    ) -> Result<Rc<Zone>, Reason> {
        self.want_kind(name, tag, ShmKind::Dict, size_bytes)
    }

    /// The same for `blocks` named blocks of counters.
    pub fn want_cells(
        &mut self,
        name: &str,
        tag: &'static str,
        blocks: u64,
    ) -> Result<Rc<Zone>, Reason> {
        self.want_kind(name, tag, ShmKind::Cells, Some(blocks))
    }

    /// The same for a queue of many producers and one consumer.
    pub fn want_queue(
        &mut self,
        name: &str,
        tag: &'static str,
        size_bytes: u64,
    ) -> Result<Rc<Zone>, Reason> {
        self.want_kind(name, tag, ShmKind::Queue, Some(size_bytes))
    }

    /// The same for a board with a snapshot. `declared` is false for a mere reference.
    pub fn want_board(
        &mut self,
        name: &str,
        tag: &'static str,
        declared: bool,
    ) -> Result<Rc<Zone>, Reason> {
        self.want_kind(name, tag, ShmKind::Snapshot, declared.then_some(1))
    }

    fn want_kind(
        &mut self,
        name: &str,
        tag: &'static str,
        kind: ShmKind,
        size: Option<u64>,
    ) -> Result<Rc<Zone>, Reason> {
        let known = self.zones.iter().find(|zone| zone.name == name).cloned();
        let zone = known.unwrap_or_else(|| {
            let (size, memory, handle) = (Cell::new(0), OnceCell::new(), Arc::default());
            let zone = Rc::new(Zone { name: name.into(), tag, kind, size, memory, handle });
            self.zones.push(zone.clone());
            zone
        });
        if zone.tag != tag || zone.kind != kind {
            return Err(Reason::says(format!(
                "the shared memory zone \"{name}\" is already declared for a different use"
            )));
        }
        if let Some(size) = size {
            let before = zone.size.replace(size);
            if before != 0 && before != size {
                return Err(Reason::says(format!(
                    "the size {size} of shared memory zone \"{name}\" conflicts with already \
                     declared size {before}"
                )));
            }
        }
        Ok(zone)
    }

    /// Every zone, after reading: one that was only referred to is nginx's "zero size" error.
    pub fn finish(self) -> Result<Vec<Rc<Zone>>, String> {
        match self.zones.iter().find(|zone| zone.size() == 0) {
            Some(zone) if zone.kind == ShmKind::Snapshot => {
                Err(format!("unknown {} \"{}\"", zone.tag, zone.name))
            }
            Some(zone) => Err(format!("zero size shared memory zone \"{}\"", zone.name)),
            None => Ok(self.zones),
        }
    }
}

/// Reads `name:size` (`one:10m`) of a zone parameter.
///
/// Errors: `invalid zone size "…"`, `zone "…" is too small`, in nginx's words.
pub fn zone_name_and_size(text: &str) -> Result<(&str, u64), Reason> {
    let bad = || Reason::says(format!("invalid zone size \"zone={text}\""));
    let (name, size) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    let size_bytes = value::size(size).ok_or_else(bad)?;
    if size_bytes < ZONE_MIN_BYTES {
        return Err(Reason::says(format!("zone \"zone={text}\" is too small")));
    }
    Ok((name, size_bytes))
}

/// Declares `name:size` for `tag` in the pass.
pub fn declare_zone(r: &mut Reading, text: &str, tag: &'static str) -> Result<Rc<Zone>, Reason> {
    let (name, size_bytes) = zone_name_and_size(text)?;
    r.shelf.of::<ZoneTable>().want(name, tag, Some(size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_zone_of_one_kind() {
        let mut table = ZoneTable::default();
        let a = table.want("one", "limit_req", Some(1 << 20)).unwrap();
        let b = table.want("one", "limit_req", None).unwrap();
        assert!(Rc::ptr_eq(&a, &b));
        assert!(table.want("one", "keyval", None).is_err());
        assert!(table.want("one", "limit_req", Some(2 << 20)).is_err());
        table.want("two", "keyval", None).unwrap();
        assert_eq!(table.finish().unwrap_err(), "zero size shared memory zone \"two\"");
    }

    #[test]
    fn sizes() {
        assert_eq!(zone_name_and_size("a:32k"), Ok(("a", 32768)));
        for bad in ["a", ":1m", "a:", "a:x", "a:1k"] {
            assert!(zone_name_and_size(bad).is_err(), "{bad}");
        }
    }
}
