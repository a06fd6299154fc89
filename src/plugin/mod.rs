//! Native plugins: shared libraries of the operator's that take part in the life of requests.
//!
//! Reads: `load_plugin`, `plugin`. Runs in: rewrite, access; as header filter; in the log.
//! `include/tollbar_plugin.h` is the contract with a plugin. Reading order: this file (where a
//! plugin stands and runs) · `call` (what it may do to a request) · `native` (the C side).
//!
//! A library is loaded while the configuration is read, as it says itself what its name is, and
//! what it refuses has a line to be told of. It goes when the last configuration that names it
//! does.
//!
//! **Invariant:** `native` is the only file that touches a pointer.

mod call;
mod native;

use crate::conf::*;
use crate::http::VariableTable;
use crate::http::keyval::KeyvalZones;
use crate::http::{Filtered, HttpConf, HttpModule, Merging, Phase, Pipeline, Request, Verdict};
use crate::log;
use call::{Call, Stage, Tools, take_blame};
use native::{Conf, Plugin};
use std::rc::Rc;

/// The module.
pub struct Plugins;

impl HttpModule for Plugins {
    type Main = Main;
    type RawLoc = RawLoc;
    type Loc = Loc;

    const MAIN: &'static [Directive<Main>] =
        &[d("load_plugin", HTTP, call(at_least(1), |_, r| load(r)))];

    const LOC: &'static [Directive<RawLoc>] =
        &[d("plugin", ANY_HTTP, call(at_least(1), RawLoc::add))];

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        main.plugins = m.shelf.take::<Loaded>().0;
        if !main.plugins.is_empty() {
            main.tools.zones = m.shelf.of::<KeyvalZones>().clone();
            main.tools.variables = m.shelf.of::<VariableTable>().book();
        }
        Ok(())
    }

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { confs: raw.confs.unwrap_or_else(|| up.confs.clone()) })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        for conf in &loc.confs {
            let at = |stage| conf.takes_part(stage).then(|| conf.clone());
            if let Some(conf) = at(Stage::Rewrite) {
                p.on(Phase::Rewrite, move |r| ask(&conf, Stage::Rewrite, r));
            }
            if let Some(conf) = at(Stage::Access) {
                p.on(Phase::Access, move |r| ask(&conf, Stage::Access, r));
            }
            if let Some(conf) = at(Stage::HeaderFilter) {
                p.filter(move |r| match ask(&conf, Stage::HeaderFilter, r) {
                    Verdict::Finish(status) => Filtered::Instead(status),
                    _ => Filtered::Pass,
                });
            }
            if let Some(conf) = at(Stage::Log) {
                p.log(move |r| drop(ask(&conf, Stage::Log, r)));
            }
        }
    }

    fn prepare(http: &Rc<HttpConf>) -> Result<(), String> {
        for plugin in &http.mains.main::<Plugins>().plugins {
            log::notice!("plugin {} {} is loaded", plugin.name, plugin.version);
        }
        Ok(())
    }
}

/// What stands once.
#[derive(Default)]
pub struct Main {
    plugins: Vec<Rc<Plugin>>,
    tools: Tools,
}

/// The plugins of a configuration that is being read.
#[derive(Default)]
struct Loaded(Vec<Rc<Plugin>>);

/// What was written in a block; `off` is none.
#[derive(Default)]
pub struct RawLoc {
    confs: Option<Vec<Rc<Conf>>>,
}

/// What is true in a location.
#[derive(Default)]
pub struct Loc {
    confs: Vec<Rc<Conf>>,
}

fn load(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let path = r.paths.in_prefix(&args[0]);
    let plugin = Plugin::load(&path, &args[1..]).map_err(Reason::Says)?;
    let loaded = &mut r.shelf.of::<Loaded>().0;
    if loaded.iter().any(|known| known.name == plugin.name) {
        return Err(Reason::says(format!("plugin \"{}\" is loaded already", plugin.name)));
    }
    loaded.push(Rc::new(plugin));
    Ok(())
}

impl RawLoc {
    fn add(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let confs = self.confs.as_mut();
        match (args[0].as_str(), confs) {
            ("off", _) if args.len() > 1 => Err(Reason::WrongArity),
            ("off", Some(_)) => Err(Reason::Duplicate),
            ("off", None) => {
                self.confs = Some(Vec::new());
                Ok(())
            }
            (_, Some(confs)) if confs.is_empty() => {
                Err(Reason::says("\"plugin\" stands behind \"plugin off\""))
            }
            (name, _) => {
                let known = &r.shelf.of::<Loaded>().0;
                let plugin = known.iter().find(|plugin| plugin.name == name);
                let unknown = || Reason::says(format!("unknown plugin \"{name}\""));
                let conf = plugin.ok_or_else(unknown)?.configure(&args[1..]);
                let conf = conf.map_err(Reason::Says)?;
                self.confs.get_or_insert_default().push(Rc::new(conf));
                Ok(())
            }
        }
    }
}

/// Asks a plugin at one stage; what it does against its contract ends the request.
fn ask(conf: &Conf, stage: Stage, r: &mut Request) -> Verdict {
    let main = r.main::<Plugins>().clone();
    // Whatever is noted there was not of this call.
    take_blame();
    let mut call = Call::new(r, stage, &conf.plugin().name, &main.tools);
    let returned = conf.ask(&mut call);
    let verdict = call.judge(returned);
    let wrong = match take_blame() {
        Some(what) => what.to_owned(),
        None => match verdict {
            Ok(verdict) => return verdict,
            Err(what) => what,
        },
    };
    log::error!(&*r, "plugin {} {wrong} in \"{}\"", conf.plugin().name, stage.name());
    Verdict::Finish(500)
}
