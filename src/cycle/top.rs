//! The top of the configuration file: main directives, and the blocks that stand there.
use super::Options;
use super::core::{self, Core, RawCore};
use super::events::{self, Events, RawEvents};
use crate::agent::{self, AgentBlock};
use crate::conf::{
    Block, Described, Directive, Error, Found, MAIN, Note, Paths, Reading, Reason, block, d,
    exactly, found, set_from,
};
use crate::event::Wanted;
use crate::http::service::HttpService;
use crate::http::{HttpBlock, VariableTable};
use crate::{log, modules};
use std::rc::Rc;

/// The whole file as it was written, except what blocks put on the reading's shelf.
#[derive(Default)]
pub struct Top {
    core: RawCore,
    blocks: Blocks,
}

/// What the blocks at the top filled.
#[derive(Default)]
struct Blocks {
    events: Option<RawEvents>,
    has_http: bool,
    has_agent: bool,
}

/// One row per block. A feature's block reads itself and leaves its wants on the shelf
/// ([`crate::event::Wanted`]).
#[rustfmt::skip]
const BLOCKS: &[Directive<Blocks>] = &[
    d("events",  MAIN, block(exactly(0), Blocks::read_events)),
    d("http",    MAIN, block(exactly(0), Blocks::read_http)),
    d("agent",   MAIN, block(exactly(0), Blocks::read_agent)),
];

/// All rows of this folder, for the directive reference.
pub fn tables() -> Vec<Described> {
    let core = core::TABLE.iter().map(Directive::describe);
    let blocks = BLOCKS.iter().map(Directive::describe);
    let events = events::TABLE.iter().map(Directive::describe);
    core.chain(blocks).chain(events).chain(agent::tables()).collect()
}

impl Top {
    /// Reads `-g` and the file.
    pub fn read(&mut self, options: &Options, reading: &mut Reading) -> Result<(), Error> {
        if let Some(directives) = &options.directives {
            reading.command_line(directives, self)?;
        }
        reading.file(&options.conf_file, self)?;
        // What a block behind `http` names has a meaning, too.
        reading.shelf.of::<VariableTable>().finish().map_err(Error::placeless)
    }

    /// Fills in what was not written.
    pub fn finish(
        self,
        paths: &Paths,
        notes: &mut Vec<Note>,
    ) -> Result<(Core, Events, log::Spec), String> {
        let (core, error_log) = self.core.finish(paths, notes)?;
        let events = self.blocks.events.ok_or("no \"events\" section in configuration")?;
        let events = events.finish(core.rlimit_nofile, notes);
        Ok((core, events, error_log))
    }
}

impl Block for Top {
    fn statement(&mut self, reading: &mut Reading) -> Result<Found, Reason> {
        found([
            set_from(core::TABLE, MAIN, &mut self.core, reading),
            set_from(BLOCKS, MAIN, &mut self.blocks, reading),
            // Known, but not at the top.
            elsewhere(events::TABLE.iter().map(|row| row.name), reading),
            elsewhere(agent::tables().into_iter().map(|row| row.name), reading),
        ])
    }
}

impl Blocks {
    fn read_events(&mut self, reading: &mut Reading) -> Result<(), Reason> {
        if self.events.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut raw = RawEvents::default();
        reading.block(&mut raw)?;
        self.events = Some(raw);
        Ok(())
    }
}

impl Blocks {
    fn read_http(&mut self, reading: &mut Reading) -> Result<(), Reason> {
        if std::mem::replace(&mut self.has_http, true) {
            return Err(Reason::Duplicate);
        }
        let mut http = HttpBlock::new(modules::HTTP, &mut reading.shelf);
        reading.block(&mut http)?;
        let conf = Rc::new(http.finish(reading)?);
        let wanted = reading.shelf.of::<Wanted>();
        wanted.listeners.extend(conf.bound.iter().map(|bound| Rc::new(bound.spec.clone())));
        wanted.services.push(Rc::new(HttpService::new(conf)));
        Ok(())
    }
}

impl Blocks {
    fn read_agent(&mut self, reading: &mut Reading) -> Result<(), Reason> {
        if std::mem::replace(&mut self.has_agent, true) {
            return Err(Reason::Duplicate);
        }
        let mut agent = AgentBlock::default();
        reading.block(&mut agent)?;
        agent.finish(reading)
    }
}

/// For a name that is known only inside its block.
fn elsewhere(
    mut names: impl Iterator<Item = &'static str>,
    reading: &Reading,
) -> Option<Result<(), Reason>> {
    let known = names.any(|name| name == reading.name());
    known.then_some(Err(Reason::NotAllowedHere))
}
