//! The form of a module: its directives, their merging, and where it runs.
//!
//! A feature implements [`HttpModule`]; the list of all features (`modules.rs`) holds it as an
//! [`Entry`], behind the trait [`Erased`], so that nothing here names a feature.

use super::HttpConf;
use super::phase::Pipeline;
use super::variable::Builtin;
use crate::conf::{self, Context, Described, Directive, Paths, Reading, Reason, Shelf, set_from};
use crate::event::Role;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;

/// One feature of the HTTP server.
pub trait HttpModule: 'static {
    /// What stands once, in `http {}`.
    type Main: Default + 'static;
    /// What was written in one http, server or location block.
    type RawLoc: Default + 'static;
    /// What is true in one location. `Default` is the parent of the http block.
    type Loc: Default + 'static;

    /// Directives that fill `Main`.
    const MAIN: &'static [Directive<Self::Main>] = &[];
    /// Directives that fill `RawLoc`.
    const LOC: &'static [Directive<Self::RawLoc>] = &[];
    /// Variables that exist in every configuration.
    const VARIABLES: &'static [Builtin] = &[];
    /// Variables that exist unless the configuration defines them (`map`) or assigns to them.
    const CHANGEABLE: &'static [Builtin] = &[];

    /// What is true where `raw` was written, below `up`.
    fn merge(raw: Self::RawLoc, up: &Self::Loc, m: &mut Merging) -> Result<Self::Loc, Reason>;

    /// Completes `Main` after the http block was read and before anything is merged.
    fn finish(_main: &mut Self::Main, _m: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }

    /// Puts the handlers and filters of a location with this configuration into its pipeline.
    fn install(_loc: &Rc<Self::Loc>, _p: &mut Pipeline) {}

    /// Called in the master before the configuration is in force; see [`Service::prepare`].
    ///
    /// [`Service::prepare`]: crate::event::Service::prepare
    fn prepare(_http: &Rc<HttpConf>) -> Result<(), String> {
        Ok(())
    }

    /// Called in every process of the tree before it works: timers, threads, per-process state.
    fn start(_http: &Rc<HttpConf>, _role: Role) -> io::Result<()> {
        Ok(())
    }

    /// Called when a process of the tree ends in order.
    fn end(_http: &HttpConf) {}

    /// Writes what is buffered for log files.
    fn flush_logs(_http: &HttpConf) {}
}

/// The kind of block that a location's configuration was written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `http {}`
    #[default]
    Http,
    /// `server {}`
    Server,
    /// `location {}`
    Location,
    /// `if {}` in a location
    If,
    /// `limit_except {}`
    LimitExcept,
}

impl Level {
    /// Blocks without a name that take over their parent's content handler.
    pub fn is_nameless(self) -> bool {
        matches!(self, Level::If | Level::LimitExcept)
    }
}

/// What a merge may look at.
pub struct Merging<'a> {
    /// The block being merged.
    pub level: Level,
    /// The location's name as in the file (empty for http and server).
    pub name: &'a str,
    /// Variables, zones, upstreams.
    pub shelf: &'a mut Shelf,
    /// Where relative paths start.
    pub paths: &'a Paths,
    /// Remarks for the log.
    pub notes: &'a mut Vec<conf::Note>,
    pub(super) mains: &'a Confs,
}

impl Merging<'_> {
    /// The once-only part of module `M` (complete, but for modules that finish later).
    pub fn main<M: HttpModule>(&self) -> Option<&Rc<M::Main>> {
        self.mains.find::<Main<M>>().map(|m| &m.0)
    }

    /// A remark at `warn` level.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.notes.push(conf::Note { level: "warn", text: text.into() });
    }
}

/// The finished `Main` of module `M`, stored under a type of its own.
pub(super) struct Main<M: HttpModule>(pub(super) Rc<M::Main>);
struct Loc<M: HttpModule>(Rc<M::Loc>);

/// The finished configurations of all modules for one place, found by the module's type.
#[derive(Clone, Default)]
pub struct Confs(HashMap<TypeId, Rc<dyn Any>, BuildHasherDefault<TypeHasher>>);

impl Confs {
    /// Module `M`'s configuration here.
    pub fn loc<M: HttpModule>(&self) -> &Rc<M::Loc> {
        &self.find::<Loc<M>>().expect("every module of the list is merged everywhere").0
    }

    /// Module `M`'s once-only configuration.
    pub fn main<M: HttpModule>(&self) -> &Rc<M::Main> {
        &self.find::<Main<M>>().expect("every module of the list is finished").0
    }

    fn find<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    pub(super) fn absorb(&mut self, other: Confs) {
        self.0.extend(other.0);
    }

    fn put<T: 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Rc::new(value));
    }
}

/// A `TypeId` is a hash already.
#[derive(Default)]
pub struct TypeHasher(u64);

impl Hasher for TypeHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// A module behind its types, as the list of modules holds it.
pub trait Erased: Sync {
    /// An empty `Main`.
    fn new_main(&self) -> Box<dyn Any>;
    /// An empty `RawLoc`.
    fn new_raw(&self) -> Box<dyn Any>;
    /// Offers the statement that `r` stands on; see [`set_from`].
    fn set(
        &self,
        here: Context,
        main: &mut dyn Any,
        raw: &mut dyn Any,
        r: &mut Reading,
    ) -> Option<Result<(), Reason>>;
    /// Offers a statement inside a block that is another module's: what it sets stays on the shelf.
    fn set_apart(&self, here: Context, r: &mut Reading) -> Option<Result<(), Reason>>;
    /// Completes `main` and puts it into `into`.
    fn finish(&self, main: Box<dyn Any>, into: &mut Confs, m: &mut Merging) -> Result<(), Reason>;
    /// Puts the configuration above the http block into `into`.
    fn defaults(&self, into: &mut Confs);
    /// Merges `raw` below `up` into `into`.
    fn merge(
        &self,
        raw: Box<dyn Any>,
        up: &Confs,
        into: &mut Confs,
        m: &mut Merging,
    ) -> Result<(), Reason>;
    /// Lets the module put its handlers into the pipeline of a place.
    fn install(&self, confs: &Confs, p: &mut Pipeline);
    /// The module's part of the master's preparation.
    fn prepare(&self, http: &Rc<HttpConf>) -> Result<(), String>;
    /// The module's part of a process's start.
    fn start(&self, http: &Rc<HttpConf>, role: Role) -> io::Result<()>;
    /// The module's part of a process's end.
    fn end(&self, http: &HttpConf);
    /// The module's part of flushing logs.
    fn flush_logs(&self, http: &HttpConf);
    /// Its built-in variables.
    fn variables(&self) -> &'static [Builtin];
    /// Its variables that a configuration may define anew.
    fn changeable(&self) -> &'static [Builtin];
    /// Its directives, for the reference.
    fn describe(&self) -> Vec<Described>;
}

/// A module's place in the list of modules.
pub struct Entry<M>(PhantomData<fn() -> M>);

impl<M: HttpModule> Entry<M> {
    /// The entry; it holds nothing.
    pub const NEW: Entry<M> = Entry(PhantomData);
}

impl<M: HttpModule> Erased for Entry<M> {
    fn new_main(&self) -> Box<dyn Any> {
        Box::<M::Main>::default()
    }

    fn new_raw(&self) -> Box<dyn Any> {
        Box::<M::RawLoc>::default()
    }

    fn set(
        &self,
        here: Context,
        main: &mut dyn Any,
        raw: &mut dyn Any,
        r: &mut Reading,
    ) -> Option<Result<(), Reason>> {
        let main = main.downcast_mut::<M::Main>().expect("made by new_main");
        let raw = raw.downcast_mut::<M::RawLoc>().expect("made by new_raw");
        match set_from(M::MAIN, here, main, r) {
            None => set_from(M::LOC, here, raw, r),
            Some(Err(Reason::NotAllowedHere)) => {
                set_from(M::LOC, here, raw, r).or(Some(Err(Reason::NotAllowedHere)))
            }
            taken => taken,
        }
    }

    fn set_apart(&self, here: Context, r: &mut Reading) -> Option<Result<(), Reason>> {
        let is_loc = M::LOC.iter().any(|row| row.name == r.name());
        set_from(M::MAIN, here, &mut M::Main::default(), r)
            .or_else(|| is_loc.then_some(Err(Reason::NotAllowedHere)))
    }

    fn finish(&self, main: Box<dyn Any>, into: &mut Confs, m: &mut Merging) -> Result<(), Reason> {
        let mut main = *main.downcast::<M::Main>().expect("made by new_main");
        M::finish(&mut main, m)?;
        into.put(Main::<M>(Rc::new(main)));
        Ok(())
    }

    fn defaults(&self, into: &mut Confs) {
        into.put(Loc::<M>(Rc::default()));
    }

    fn merge(
        &self,
        raw: Box<dyn Any>,
        up: &Confs,
        into: &mut Confs,
        m: &mut Merging,
    ) -> Result<(), Reason> {
        let raw = *raw.downcast::<M::RawLoc>().expect("made by new_raw");
        into.put(Loc::<M>(Rc::new(M::merge(raw, up.loc::<M>(), m)?)));
        Ok(())
    }

    fn install(&self, confs: &Confs, p: &mut Pipeline) {
        M::install(confs.loc::<M>(), p);
    }

    fn prepare(&self, http: &Rc<HttpConf>) -> Result<(), String> {
        M::prepare(http)
    }

    fn start(&self, http: &Rc<HttpConf>, role: Role) -> io::Result<()> {
        M::start(http, role)
    }

    fn end(&self, http: &HttpConf) {
        M::end(http);
    }

    fn flush_logs(&self, http: &HttpConf) {
        M::flush_logs(http);
    }

    fn variables(&self) -> &'static [Builtin] {
        M::VARIABLES
    }

    fn changeable(&self) -> &'static [Builtin] {
        M::CHANGEABLE
    }

    fn describe(&self) -> Vec<Described> {
        let main = M::MAIN.iter().map(Directive::describe);
        main.chain(M::LOC.iter().map(Directive::describe)).collect()
    }
}
