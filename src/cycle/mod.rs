//! One configuration made real: read → merge → open logs → open zones → bind, or keep the old one.
//!
//! [`Draft::read`] reads the file and opens nothing; [`Draft::open`] opens everything that the
//! draft wants, taking over from the cycle before it what is still wanted; [`Cycle::enter`] puts
//! it in force. Whatever fails before `enter` leaves the running cycle as it was.
//!
//! Types that cross the border: [`Options`] (the command line), [`Draft`], [`Cycle`], [`Core`] and
//! [`Events`] (the main context), [`Listening`] (the sockets).
//!
//! **Invariant:** a cycle is never half in force.

mod affinity;
mod core;
mod events;
mod listening;
mod reference;
mod sockets;
mod top;
mod zones;

pub use crate::conf::Paths;
pub use affinity::Affinity;
pub use core::{Core, ThreadPool};
pub use events::Events;
pub use listening::{Listening, Opening};
pub use reference::reference;
pub use zones::Zones;

use crate::conf::{self, Note, Reading};
use crate::event::{Service, ThreadPools, Wanted, Zone, ZoneTable};
use crate::log::{self, Files, Log, Os};
use crate::sys::user::Identity;
use crate::sys::{file, process};
use std::cell::RefCell;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;
use top::Top;

/// What the command line said about the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    pub paths: Paths,
    pub conf_file: PathBuf,
    /// `-e`, or the built-in place; `None` is standard error.
    pub error_log: Option<PathBuf>,
    /// `-g`
    pub directives: Option<String>,
}

/// A configuration that was read and found right, of which nothing is open yet.
pub struct Draft {
    pub core: Core,
    pub events: Events,
    /// Every file read, in order, for `-T`.
    pub dump: Vec<(String, Vec<u8>)>,
    wanted: Wanted,
    zones: Vec<Rc<Zone>>,
    files: Files,
    log: Log,
}

/// A configuration whose files, zones and sockets are open.
pub struct Cycle {
    pub core: Core,
    pub events: Events,
    pub log: Log,
    pub files: Files,
    pub zones: Zones,
    /// Empty in a child, which got its own sockets with its post.
    pub listening: RefCell<Listening>,
    pub services: Vec<Rc<dyn Service>>,
}

impl Draft {
    /// Reads the configuration. Remarks are logged, the error is for the caller to tell.
    pub fn read(options: &Options) -> Result<Draft, conf::Error> {
        let mut reading = Reading::new(options.paths.clone());
        let mut top = Top::default();
        let read = top.read(options, &mut reading);
        tell(&reading.notes);
        read?;
        let mut notes = Vec::new();
        let finished = top.finish(&reading.paths, &mut notes);
        tell(&notes);
        let (mut core, events, error_log) = finished.map_err(conf::Error::placeless)?;
        let wanted: Wanted = reading.shelf.take();
        core.privileged |= wanted.privileged;
        if let Some((name, place)) = reading.shelf.of::<ThreadPools>().unknown() {
            let (what, at) = (format!("unknown thread pool \"{name}\""), Some(place.clone()));
            return Err(conf::Error { what, at });
        }
        let zones = reading.shelf.take::<ZoneTable>().finish().map_err(conf::Error::placeless)?;
        let mut files: Files = reading.shelf.take();
        let log = error_log.into_main_log(&mut files, options.error_log.as_deref());
        Ok(Draft { core, events, dump: reading.dump, wanted, zones, files, log })
    }

    /// Opens what the draft wants. The error is a sentence; some of what led to it is logged.
    pub fn open(
        self,
        old: &Listening,
        old_zones: &Zones,
        opening: Opening,
    ) -> Result<Cycle, String> {
        self.files.open()?;
        let zones = Zones::open(&self.zones, old_zones)?;
        make_folders(&self.wanted.folders, self.core.user.as_ref())?;
        let workers = if self.core.master { self.core.workers } else { 1 };
        let listening = Listening::open(&self.wanted.listeners, workers, old, opening)?;
        // What is said meanwhile belongs to the logs that were just opened.
        let before = log::current();
        log::install(self.log.clone());
        let prepared = self.wanted.services.iter().try_for_each(|service| service.prepare());
        log::install(before);
        prepared.inspect_err(|_| listening.abandon(old))?;
        Ok(Cycle {
            core: self.core,
            events: self.events,
            log: self.log,
            files: self.files,
            zones,
            listening: RefCell::new(listening),
            services: self.wanted.services,
        })
    }
}

impl Cycle {
    /// Puts the cycle in force in this process, over `old`, which may be dropped then.
    pub fn enter(&self, old: &Listening) {
        log::install(self.log.clone());
        log::debug_clients(self.events.debugged.clone(), self.events.debugged_unix);
        self.listening.borrow_mut().enter(old);
    }

    /// From here on what anybody writes to standard error lands in the error log, unless that is
    /// standard error itself.
    pub fn redirect_stderr(&self) {
        if self.log.has_stderr() || self.files.keeps_stderr() {
            return;
        }
        let Some(file) = self.log.first_file().and_then(|file| file.as_fd()) else { return };
        if let Err(error) = process::redirect_stderr(file) {
            log::alert!("dup2(STDERR) failed{}", Os(&error));
        }
    }
}

/// Makes folders for temporary files; they belong to the workers' user.
fn make_folders(folders: &[PathBuf], user: Option<&Identity>) -> Result<(), String> {
    for folder in folders {
        let failed = |what: &str, e: &std::io::Error| {
            format!("{what} \"{}\" failed{}", folder.display(), Os(e))
        };
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed("mkdir()", &e));
            }
            _ => {}
        }
        if let Some(user) = user {
            file::change_owner(folder, user.uid).map_err(|e| failed("chown()", &e))?;
        }
    }
    Ok(())
}

fn tell(notes: &[Note]) {
    for note in notes {
        match note.level {
            "notice" => log::notice!("{}", note.text),
            _ => log::warn!("{}", note.text),
        }
    }
}
