//! Tables: what a large feed says about an address. A table is a sealed snapshot that the helper
//! builds and every worker maps; a new one is mapped and checked in a thread, then one pointer is
//! swapped.
//!
//! The snapshot in force lies on a board that all processes have inherited, so that a worker which
//! is started later, a reload or a new binary find it, whoever has died meanwhile.
//!
//! **Invariant:** a lookup waits for nothing, and what cannot be used leaves the old one in force.

use crate::conf::{Reading, Reason};
use crate::event::{self, Pace, Watch, Zone, ZoneTable};
use crate::log::{self, Os};
use crate::sys::file;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;
use tollbar_shm::Prefixes;
use tollbar_shm::region::OpenError;

/// Whose zones they are.
const TAG: &str = "table";
/// The zone in which workers acknowledge; no name that is easily written.
const MARKS: &str = "generations of tables";
/// Workers times tables that can acknowledge.
const MARKS_MAX: u64 = 4096;
/// How long until a worker tries again to map what it could not map for want of a thread.
const PAUSE: Duration = Duration::from_secs(1);

/// One table; for every process.
#[derive(Debug)]
pub struct Table {
    /// Where the snapshot in force lies.
    zone: Rc<Zone>,
    marks: Rc<Zone>,
    /// What this process has mapped.
    current: RefCell<Option<Arc<Prefixes>>>,
    /// The descriptor that was looked at last, by its inode.
    seen: Cell<Option<(u64, u64)>>,
    is_looked_up: Cell<bool>,
}

/// All tables of a configuration; on the reading's shelf. A clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct Tables(Rc<RefCell<Vec<Rc<Table>>>>);

impl Tables {
    /// `agent { table … }`.
    pub fn declare(r: &mut Reading, name: &str) -> Result<Rc<Table>, Reason> {
        Tables::want(r, name, true)
    }

    /// A use of a table that is declared somewhere in the file.
    pub fn refer(r: &mut Reading, name: &str) -> Result<Rc<Table>, Reason> {
        let table = Tables::want(r, name, false)?;
        table.is_looked_up.set(true);
        Ok(table)
    }

    fn want(r: &mut Reading, name: &str, declared: bool) -> Result<Rc<Table>, Reason> {
        let zones = r.shelf.of::<ZoneTable>();
        let zone = zones.want_board(name, TAG, declared)?;
        let marks = zones.want_cells(MARKS, TAG, MARKS_MAX)?;
        let all = r.shelf.of::<Tables>();
        if let Some(known) = all.0.borrow().iter().find(|known| Rc::ptr_eq(&known.zone, &zone)) {
            return Ok(known.clone());
        }
        let (current, seen, is_looked_up) = Default::default();
        let table = Rc::new(Table { zone, marks, current, seen, is_looked_up });
        all.0.borrow_mut().push(table.clone());
        Ok(table)
    }
}

impl Table {
    /// As it is configured.
    pub fn name(&self) -> &str {
        &self.zone.name
    }

    /// Whether a variable is looked up in it.
    pub fn is_looked_up(&self) -> bool {
        self.is_looked_up.get()
    }

    /// Appends the value of the longest network that holds the address; false if there is none.
    pub fn look_up(&self, address: &[u8], out: &mut Vec<u8>) -> bool {
        let current = self.current.borrow();
        let Some(table) = &*current else { return false };
        let ip = std::str::from_utf8(address).ok().and_then(|text| text.parse::<IpAddr>().ok());
        match ip.and_then(|ip| table.find(ip)) {
            Some(value) => {
                out.extend_from_slice(value);
                true
            }
            None => false,
        }
    }

    /// What lies on the board, mapped and checked: `None` if nothing does. Takes milliseconds.
    pub fn published(&self) -> Result<Option<Prefixes>, OpenError> {
        self.zone.board().look()?.map(|fd| Prefixes::open(fd, &mut || ())).transpose()
    }

    /// Puts a new snapshot in force in all workers.
    pub fn publish(&self, fresh: &Prefixes) -> std::io::Result<()> {
        self.zone.board().replace(fresh.fd())
    }

    /// How many of `workers` have acknowledged the snapshot of this generation.
    pub fn acknowledged(&self, generation: u64, workers: usize) -> usize {
        let has = |seat: &usize| {
            let mark = self.marks.cells().find(self.mark(*seat).as_bytes());
            mark.is_some_and(|mark| mark[0].load(Acquire) == generation)
        };
        (0..workers).filter(has).count()
    }

    /// Maps what lies on the board, at once: a worker's first act.
    pub fn begin(&self) {
        match self.look() {
            Ok(Some(fd)) => self.take(Prefixes::open(fd, &mut || ())).map_or((), drop),
            Ok(None) => {}
            Err(error) => self.complain(&error.into()),
        }
    }

    /// Maps each new snapshot, for the worker's life.
    pub async fn follow(self: Rc<Self>) {
        let copy = self.zone.board().as_fd().try_clone_to_owned();
        let board = match copy.and_then(Watch::of_edges) {
            Ok(board) => board,
            Err(error) => return self.complain(&error.into()),
        };
        loop {
            board.readable().await;
            while !self.refresh().await {
                event::sleep(PAUSE).await;
            }
        }
    }

    /// False: try again later.
    async fn refresh(&self) -> bool {
        let fd = match self.look() {
            Ok(Some(fd)) => fd,
            Ok(None) => return true,
            Err(error) => {
                self.complain(&error.into());
                return false;
            }
        };
        let open = move || {
            let mut pace = Pace::default();
            Prefixes::open(fd, &mut || pace.step())
        };
        let Ok(job) = event::offload_quietly(open) else {
            self.seen.set(None);
            return false;
        };
        let Ok(opened) = job.await else {
            self.seen.set(None);
            return false;
        };
        let old = self.take(opened);
        // Unmapping takes its time too.
        if let Ok(job) = event::offload_quietly(move || drop(old)) {
            let _ = job.await;
        }
        true
    }

    /// The descriptor on the board, unless it is the one that was there last time.
    fn look(&self) -> std::io::Result<Option<OwnedFd>> {
        let Some(fd) = self.zone.board().look()? else { return Ok(None) };
        let facts = file::facts_of(fd.as_fd())?;
        let inode = Some((facts.device, facts.inode));
        Ok((self.seen.replace(inode) != inode).then_some(fd))
    }

    /// Swaps the pointer and acknowledges; gives back what was in force.
    fn take(&self, opened: Result<Prefixes, OpenError>) -> Option<Arc<Prefixes>> {
        match opened {
            Ok(fresh) => {
                let generation = fresh.generation();
                let old = self.current.replace(Some(Arc::new(fresh)));
                if let Ok(mark) = self.marks.cells().block(self.mark(event::seat()).as_bytes()) {
                    mark[0].store(generation, Release);
                }
                old
            }
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn mark(&self, seat: usize) -> String {
        format!("{} {seat}", self.zone.name)
    }

    fn complain(&self, error: &OpenError) {
        match error {
            OpenError::Os(error) => {
                log::alert!("table \"{}\" could not be mapped{}", self.name(), Os(error));
            }
            OpenError::Refused(_) => log::alert!("table \"{}\" is not taken: {error}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Memory, Reactor};
    use crate::sys::board::Board;
    use std::net::Ipv4Addr;
    use tollbar_shm::prefixes::Builder;
    use tollbar_shm::{Cells, SnapshotBuilder};

    fn tables(count: usize) -> Vec<Rc<Table>> {
        let board = Rc::new(Board::new().unwrap());
        let marks = Rc::new(Cells::create("marks", 8).unwrap());
        let open = |_| {
            let mut zones = ZoneTable::default();
            let zone = zones.want_board("t", TAG, true).unwrap();
            let cells = zones.want_cells(MARKS, TAG, 8).unwrap();
            zone.open(Memory::Board(board.clone()));
            cells.open(Memory::Cells(marks.clone()));
            let (current, seen, is_looked_up) = Default::default();
            Rc::new(Table { zone, marks: cells, current, seen, is_looked_up })
        };
        (0..count).map(open).collect()
    }

    fn prefixes(value: &str, generation: u64) -> Prefixes {
        let mut builder = Builder::default();
        builder.add(Ipv4Addr::new(10, 0, 0, 0).into(), 8, value.as_bytes()).unwrap();
        builder.finish("t", 0, generation, &mut || ()).unwrap()
    }

    fn found(table: &Table, key: &str) -> Option<String> {
        let mut out = Vec::new();
        table.look_up(key.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_new_snapshot_is_followed_and_acknowledged() {
        let all = tables(3);
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async move {
            let [helper, early, late] = &all[..] else { unreachable!() };
            early.begin();
            let task = event::spawn(early.clone().follow());
            assert_eq!(found(early, "10.0.0.1"), None);
            for generation in 1..4 {
                helper.publish(&prefixes(&generation.to_string(), generation)).unwrap();
                while helper.acknowledged(generation, 1) == 0 {
                    event::sleep(Duration::from_millis(1)).await;
                }
                assert_eq!(found(early, "10.0.0.1"), Some(generation.to_string()));
            }
            late.begin();
            assert_eq!(found(late, "::ffff:10.1.2.3").as_deref(), Some("3"));
            assert_eq!((found(late, "11.0.0.1"), found(late, "x")), (None, None));
            assert_eq!(helper.published().unwrap().unwrap().generation(), 3);
            // Sealed, but no table.
            let other = SnapshotBuilder::new("x", 1).unwrap().finish(9).unwrap();
            helper.zone.board().replace(other.fd()).unwrap();
            event::sleep(Duration::from_millis(50)).await;
            assert_eq!(found(early, "10.0.0.1").as_deref(), Some("3"));
            helper.publish(&prefixes("new", 4)).unwrap();
            while helper.acknowledged(4, 1) == 0 {
                event::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(found(early, "10.0.0.1").as_deref(), Some("new"));
            task.cancel();
        });
    }
}
