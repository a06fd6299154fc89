//! Large tables of networks: read, built and put in force as a whole when their source changes.
//!
//! What a source gives replaces everything that it gave before; what it fails to give changes
//! nothing. Reading and building happen in a thread that gives way to everybody else.

use super::collect::{self, From};
use super::complaint::Complaint;
use super::networks::{self, Mistake, NoNetworks};
use crate::event::{self, Deadline, Pace};
use crate::http::table::Table;
use crate::log;
use crate::sys::file::{self, Facts};
use std::fs::File;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tollbar_shm::Prefixes;
use tollbar_shm::hash::hash;
use tollbar_shm::region::OpenError;

/// How long an HTTP server may take for all of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest answer of one, bytes; it is held in memory.
const BODY_MAX_BYTES: usize = 256 << 20;
/// A file that changed less than this ago may change again at once.
const SETTLING: Duration = Duration::from_millis(50);
/// How long workers may take to map a table before the log says that not all have.
const MAPPING: Duration = Duration::from_secs(5);
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One `table` of the block.
#[derive(Debug)]
pub struct Feed {
    pub table: Rc<Table>,
    /// As it was written.
    pub url: String,
    pub from: From,
    pub interval: Duration,
}

/// Why there is no new table.
#[derive(Debug, thiserror::Error)]
enum NoTable {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Networks(#[from] NoNetworks),
    #[error("{0}")]
    Shm(#[from] OpenError),
    #[error("it changed while it was read")]
    Changed,
    #[error("it is no file")]
    NoFile,
    #[error("{0}")]
    NoBody(#[from] collect::NoBody),
    #[error("no thread is free to build it")]
    Busy,
}

/// What a thread has built.
struct Built {
    table: Prefixes,
    /// Lines that were skipped, and the first of them.
    mistakes: u64,
    first: Option<(u64, Mistake, Vec<u8>)>,
}

/// What is known of the table in force and of the source.
struct Keeper {
    feed: Rc<Feed>,
    workers: usize,
    generation: u64,
    /// By what the source is recognised that needs no reading again, taken or not.
    known: u64,
    missing: Complaint,
    nonsense: Complaint,
}

/// Runs for the helper's life.
pub async fn keep(feed: Rc<Feed>, workers: usize) {
    let about =
        |what| Complaint::new(format!("table \"{}\" of {}: {what}", feed.table.name(), feed.url));
    let (missing, nonsense) = (about("was not read"), about("lines were skipped"));
    let interval = feed.interval;
    let mut keeper = Keeper { feed, workers, generation: 0, known: 0, missing, nonsense };
    keeper.recall();
    loop {
        if let Err(why) = keeper.look().await {
            keeper.missing.count(1, &why, b"");
        }
        event::sleep(interval).await;
        // A fault that is remembered is not counted again.
        keeper.missing.tell_due();
        keeper.nonsense.tell_due();
    }
}

impl Keeper {
    /// Goes on where the helper before this one stopped.
    fn recall(&mut self) {
        if let Ok(Some(table)) = self.feed.table.published() {
            (self.generation, self.known) = (table.generation(), table.source());
        }
    }

    async fn look(&mut self) -> Result<(), NoTable> {
        let feed = self.feed.clone();
        let begun = Instant::now();
        let (name, generation) = (feed.table.name().to_owned(), self.generation + 1);
        let (source, built) = match &feed.from {
            From::File(path) => {
                let Some((path, source)) = self.changed_file(path).await? else { return Ok(()) };
                (source, build(move || of_file(&path, source, &name, generation)).await)
            }
            From::Http { .. } => {
                let deadline = Deadline::after(PATIENCE);
                let body = deadline.bound(collect::fetch(&feed.from, BODY_MAX_BYTES)).await;
                let body = body.map_err(|_| collect::NoBody::TimedOut)??;
                let source = hash(hash(0, feed.url.as_bytes()), &body);
                if source == self.known {
                    return Ok(());
                }
                (source, build(move || of_bytes(&body, source, &name, generation)).await)
            }
        };
        match built {
            Ok(built) => {
                self.known = source;
                self.generation = generation;
                self.tell_of_mistakes(&built);
                feed.table.publish(&built.table)?;
                self.await_workers(&built.table, begun.elapsed()).await;
                Ok(())
            }
            // What is in the file will not be better next time.
            Err(why @ (NoTable::Networks(_) | NoTable::Shm(_))) => {
                self.known = source;
                Err(why)
            }
            Err(why) => Err(why),
        }
    }

    /// The file and its mark, if it is not the one that is known, and is not being written now.
    async fn changed_file(&self, path: &Path) -> Result<Option<(PathBuf, u64)>, NoTable> {
        let mut facts = file::facts(path)?;
        if is_fresh(&facts) {
            event::sleep(SETTLING).await;
            facts = file::facts(path)?;
        }
        let source = mark(path, &facts);
        let changed = source != self.known && !is_fresh(&facts);
        Ok(changed.then(|| (path.to_owned(), source)))
    }

    fn tell_of_mistakes(&self, built: &Built) {
        if let Some((number, why, text)) = &built.first {
            let why = format!("line {number}: {why}");
            self.nonsense.count(built.mistakes, &why, text);
        }
    }

    async fn await_workers(&self, table: &Prefixes, took: Duration) {
        let feed = &self.feed;
        let workers = if feed.table.is_looked_up() { self.workers } else { 0 };
        let until = Instant::now() + MAPPING;
        let mut pause = Duration::from_millis(2);
        let in_force = || feed.table.acknowledged(self.generation, workers);
        while in_force() < workers && Instant::now() < until {
            event::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        let (count, bytes) = (table.networks(), table.size_bytes());
        let what = format!(
            "table \"{}\": generation {} with {count} networks in {bytes} bytes, built in {} ms",
            feed.table.name(),
            self.generation,
            took.as_millis()
        );
        match in_force() {
            all if all == workers => {
                log::notice!("{what}, is in force in {all} of {workers} workers")
            }
            some => log::warn!("{what}, is in force in {some} of {workers} workers only"),
        }
    }
}

async fn build(
    job: impl FnOnce() -> Result<Built, NoTable> + Send + 'static,
) -> Result<Built, NoTable> {
    let job = event::offload_quietly(job).map_err(|_| NoTable::Busy)?;
    job.await.map_err(|_| NoTable::Busy)?
}

fn of_file(path: &Path, source: u64, name: &str, generation: u64) -> Result<Built, NoTable> {
    // Not waiting for the other end, if it is a pipe after all.
    let file = File::from(file::open(path)?);
    let before = file::facts_of(file.as_fd())?;
    if !before.is_file() {
        return Err(NoTable::NoFile);
    }
    let mut pace = Pace::default();
    let reader = BufReader::with_capacity(CHUNK_BYTES, &file);
    let networks = networks::read(reader, &mut || pace.step());
    let after = file::facts_of(file.as_fd())?;
    if mark(path, &before) != source || !before.same_content(&after) {
        return Err(NoTable::Changed);
    }
    finish(networks?, source, name, generation)
}

fn of_bytes(body: &[u8], source: u64, name: &str, generation: u64) -> Result<Built, NoTable> {
    let mut pace = Pace::default();
    finish(networks::read(body, &mut || pace.step())?, source, name, generation)
}

fn finish(
    networks: networks::Networks,
    source: u64,
    name: &str,
    generation: u64,
) -> Result<Built, NoTable> {
    let networks::Networks { builder, mistakes, first, .. } = networks;
    let mut pace = Pace::default();
    let table = builder.finish(name, source, generation, &mut || pace.step())?;
    Ok(Built { table, mistakes, first })
}

/// By what a file is recognised.
fn mark(path: &Path, facts: &Facts) -> u64 {
    let nanos = u64::from(facts.modified_ns);
    let words = [facts.device, facts.inode, facts.size, facts.modified as u64, nanos];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    hash(hash(0, path.as_os_str().as_encoded_bytes()), &bytes)
}

fn is_fresh(facts: &Facts) -> bool {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
    let modified = Duration::new(facts.modified.max(0) as u64, facts.modified_ns);
    // A clock that is ahead of ours says nothing.
    now.checked_sub(modified).is_some_and(|age| age < SETTLING)
}
