//! Reads `agent {}`.

use super::Agent;
use super::collect::{Collector, From};
use super::feed::Feed;
use super::table;
use crate::conf::*;
use crate::event::{Wanted, ZoneTable};
use crate::http::keyval::KeyvalZones;
use crate::http::sampling::{Sample, Samples};
use crate::http::table::Tables;
use std::rc::Rc;
use std::time::Duration;

/// `agent {}` while it is read.
#[derive(Default)]
pub struct AgentBlock {
    feeds: Vec<Rc<Feed>>,
    collectors: Vec<Rc<Collector>>,
    tables: Vec<Rc<table::Feed>>,
    has_samples: bool,
}

const TABLE: &[Directive<AgentBlock>] = &[
    d("helper", AGENT, call(at_least(2), AgentBlock::helper)),
    d("collect", AGENT, call(between(2, 3), AgentBlock::collect)),
    d("sample", AGENT, call(at_least(2), AgentBlock::sample)),
    d("table", AGENT, call(between(2, 4), AgentBlock::table)),
];

/// Programs and sources that one block may have, each.
const MEMBERS_MAX: usize = 64;
/// How often a source is looked at.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest name of a table, bytes.
const NAME_MAX_BYTES: usize = 100;
/// A sample's queue, bytes.
const QUEUE_BYTES: u64 = 1 << 20;

/// All rows of this folder, for the directive reference.
pub fn tables() -> Vec<Described> {
    TABLE.iter().map(Directive::describe).collect()
}

impl Block for AgentBlock {
    fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
        found([set_from(TABLE, AGENT, self, r)])
    }
}

impl AgentBlock {
    /// Completes the block and leaves what it wants on the shelf.
    pub fn finish(self, r: &mut Reading) -> Result<(), Reason> {
        if self.has_samples && self.feeds.is_empty() {
            return Err(Reason::says("\"sample\" has no \"helper\" that could read it"));
        }
        let agent = Agent {
            feeds: self.feeds,
            collectors: self.collectors,
            tables: self.tables,
            zones: r.shelf.of::<KeyvalZones>().clone(),
            samples: r.shelf.of::<Samples>().clone(),
            tasks: Default::default(),
        };
        let wanted = r.shelf.of::<Wanted>();
        wanted.privileged = true;
        wanted.services.push(Rc::new(agent));
        Ok(())
    }

    fn helper(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let mut args = r.take_args();
        let mut restart = Duration::from_secs(1);
        if let Some(text) = args.last().and_then(|arg| arg.strip_prefix("restart=")) {
            let invalid = || Reason::InvalidParameter(format!("restart={text}"));
            restart = value::milliseconds(text).ok_or_else(invalid)?;
            args.pop();
        }
        let name = args.remove(0);
        if args.is_empty() {
            return Err(Reason::WrongArity);
        }
        if self.feeds.iter().any(|feed| feed.name == name) {
            return Err(Reason::says(format!("duplicate helper \"{name}\"")));
        }
        // A bare name is looked for as the shell would; a path is in the prefix.
        if args[0].contains('/') {
            args[0] = r.paths.in_prefix(&args[0]).to_string_lossy().into_owned();
        }
        if self.feeds.len() == MEMBERS_MAX {
            return Err(Reason::says("too many helpers"));
        }
        let folder = r.paths.in_prefix("");
        self.feeds.push(Rc::new(Feed { name, command: args, folder, restart }));
        Ok(())
    }

    fn collect(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let url = args[0].clone();
        let (mut zone, mut interval) = (None, INTERVAL_DEFAULT);
        for arg in &args[1..] {
            let invalid = || Reason::InvalidParameter(arg.clone());
            match arg.split_once('=').ok_or_else(invalid)? {
                ("zone", name) if !name.is_empty() => zone = Some(name.to_owned()),
                ("interval", text) => interval = read_interval(text).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        let zone = zone.ok_or_else(|| Reason::says("\"collect\" must have \"zone\" parameter"))?;
        KeyvalZones::refer(r, &zone)?;
        let from = read_source("collect", &url, r)?;
        if self.collectors.len() == MEMBERS_MAX {
            return Err(Reason::says("too many sources"));
        }
        self.collectors.push(Rc::new(Collector { url, from, zone, interval }));
        Ok(())
    }

    fn table(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let (name, url) = (args[0].clone(), args[1].clone());
        let mut interval = INTERVAL_DEFAULT;
        for arg in &args[2..] {
            let invalid = || Reason::InvalidParameter(arg.clone());
            match arg.split_once('=').ok_or_else(invalid)? {
                ("interval", text) => interval = read_interval(text).ok_or_else(invalid)?,
                ("type", "ip") => {}
                ("type", "string" | "prefix") => {
                    return Err(Reason::says(format!("\"{arg}\" of \"table\" is not supported")));
                }
                _ => return Err(invalid()),
            }
        }
        if name.is_empty() || name.len() > NAME_MAX_BYTES {
            return Err(Reason::says(format!("invalid table name \"{name}\"")));
        }
        let from = read_source("table", &url, r)?;
        let table = Tables::declare(r, &name)?;
        if self.tables.iter().any(|known| Rc::ptr_eq(&known.table, &table)) {
            return Err(Reason::says(format!("duplicate table \"{name}\"")));
        }
        if self.tables.len() == MEMBERS_MAX {
            return Err(Reason::says("too many tables"));
        }
        self.tables.push(Rc::new(table::Feed { table, url, from, interval }));
        Ok(())
    }

    fn sample(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = with_quotes_closed(r.take_args());
        let (mut zone, mut rate, mut fields) = (None, 1.0, None);
        for arg in &args {
            let invalid = || Reason::InvalidParameter(arg.clone());
            match arg.split_once('=').ok_or_else(invalid)? {
                ("zone", name) if !name.is_empty() => zone = Some(name.to_owned()),
                ("rate", text) => {
                    let share = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1.0);
                    rate = share.ok_or_else(invalid)?;
                }
                ("fields", text) => fields = Some(text.to_owned()),
                _ => return Err(invalid()),
            }
        }
        let must = |what| Reason::says(format!("\"sample\" must have \"{what}\" parameter"));
        let zone = zone.ok_or_else(|| must("zone"))?;
        let fields = fields.ok_or_else(|| must("fields"))?;
        let zone = r.shelf.of::<ZoneTable>().want_queue(&zone, "sample", QUEUE_BYTES)?;
        let sample = Sample::new(zone, rate, &fields, r)?;
        let samples = r.shelf.of::<Samples>();
        if samples.zones().iter().any(|known| Rc::ptr_eq(known, &sample.zone)) {
            return Err(Reason::Duplicate);
        }
        samples.add(sample);
        self.has_samples = true;
        Ok(())
    }
}

fn read_interval(text: &str) -> Option<Duration> {
    value::milliseconds(text).filter(|time| *time >= INTERVAL_MIN)
}

fn read_source(directive: &str, url: &str, r: &Reading) -> Result<From, Reason> {
    if url.starts_with("https://") {
        return Err(Reason::says(format!("https is not supported in \"{directive} {url}\"")));
    }
    From::parse(url, |path| r.paths.in_prefix(path))
        .ok_or_else(|| Reason::says(format!("invalid source \"{url}\"")))
}

/// `fields="$a $b"` is two words to the language, which knows quotes only around a whole word; it
/// is one to whoever writes it.
fn with_quotes_closed(words: Vec<String>) -> Vec<String> {
    let mut closed: Vec<String> = Vec::new();
    let mut open = false;
    for word in words {
        let quotes = word.matches('"').count();
        match closed.last_mut() {
            Some(last) if open => {
                last.push(' ');
                last.push_str(&word.replace('"', ""));
            }
            _ => closed.push(word.replace('"', "")),
        }
        open ^= quotes % 2 == 1;
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_behind_an_equals_sign() {
        let closed = |words: &[&str]| {
            with_quotes_closed(words.iter().map(|word| word.to_string()).collect()).join("|")
        };
        assert_eq!(
            closed(&["zone=q", "fields=\"$a", "$b", "$c\"", "rate=1"]),
            "zone=q|fields=$a $b $c|rate=1"
        );
        assert_eq!(closed(&["fields=$a $b", "x"]), "fields=$a $b|x");
        assert_eq!(closed(&["fields=\"$a\"", "x"]), "fields=$a|x");
    }
}
