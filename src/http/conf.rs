//! Reads `http {}`: servers, locations, `if` and `limit_except` — everything that makes a place.
//!
//! What stands inside a place is offered to every module of the list. When the block is closed,
//! [`HttpBlock::finish`] merges from the outside inwards and makes an [`HttpConf`].

use super::listen::{self, Bound, Listen};
use super::module::{Confs, Erased, Level, Merging};
use super::phase::Pipeline;
use super::place::{Kind, Location, LocationTree, Server};
use super::regex::Regex;
use super::rewrite::{self, Condition, Op};
use super::ssl;
use super::upstream::chooser::InUpstream;
use super::variable::VariableTable;
use crate::conf::*;
use crate::event::Role;
use crate::proto::h1::Method;
use std::any::Any;
use std::io;
use std::rc::Rc;

/// The list of modules, in the order of handlers and filters.
pub type Modules = &'static [&'static dyn Erased];

/// A configuration of the HTTP server, ready to be served.
pub struct HttpConf {
    /// Every module's once-only part.
    pub mains: Confs,
    /// What is true in `http {}` itself: for what runs without a request.
    pub http: Confs,
    /// The sockets to listen on, with what they serve.
    pub bound: Vec<Rc<Bound>>,
    /// All servers, in the order of the file.
    pub servers: Vec<Rc<Server>>,
    /// The modules.
    pub modules: Modules,
}

/// The place whose block is being read, for setters that must know (`proxy_pass` with a URI).
#[derive(Clone, Default)]
pub struct Here {
    /// The location's name; empty outside of one.
    pub name: String,
    /// Kind of block.
    pub level: Level,
    /// How the location is found.
    pub kind: Option<Kind>,
}

/// `http {}` while it is read.
pub struct HttpBlock {
    modules: Modules,
    mains: Vec<Box<dyn Any>>,
    place: RawPlace,
    servers: Vec<RawServer>,
}

/// What was written in one place.
struct RawPlace {
    name: String,
    level: Level,
    kind: Kind,
    regex: Option<Regex>,
    raws: Vec<Box<dyn Any>>,
    ops: Vec<RawOp>,
    rewrite_log: Option<bool>,
    warns_uninitialized: Option<bool>,
    inner: Vec<RawPlace>,
    limit_except: Option<(Vec<Method>, Box<RawPlace>)>,
}

enum RawOp {
    Op(Op),
    If(Condition, Box<RawPlace>),
}

/// One `server {}` while it is read.
pub(super) struct RawServer {
    at: (Rc<str>, usize),
    place: RawPlace,
    pub(super) names: Vec<Name>,
    pub(super) listens: Vec<Listen>,
}

/// One `server_name`.
pub(super) enum Name {
    Plain(String),
    Regex(String, Rc<Regex>),
}

impl RawPlace {
    fn new(modules: Modules, name: String, level: Level, kind: Kind) -> RawPlace {
        let raws = modules.iter().map(|m| m.new_raw()).collect();
        RawPlace {
            name,
            level,
            kind,
            regex: None,
            raws,
            ops: Vec::new(),
            rewrite_log: None,
            warns_uninitialized: None,
            inner: Vec::new(),
            limit_except: None,
        }
    }
}

impl HttpBlock {
    /// An empty block; the modules' variables are known from now on.
    pub fn new(modules: Modules, shelf: &mut Shelf) -> HttpBlock {
        shelf.of::<InUpstream>().0 = Some(modules);
        let table = shelf.of::<VariableTable>();
        for module in modules {
            table.add_builtins(module.variables());
            table.add_changeable(module.changeable());
        }
        HttpBlock {
            modules,
            mains: modules.iter().map(|m| m.new_main()).collect(),
            place: RawPlace::new(modules, String::new(), Level::Http, Kind::Nameless),
            servers: Vec::new(),
        }
    }
}

impl Block for HttpBlock {
    fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
        if r.name() == "server" {
            return self.server(r).map(|()| Found::Yes);
        }
        let (modules, mains) = (self.modules, &mut self.mains[..]);
        Scope { modules, mains, place: &mut self.place, here: HTTP, server: None }.statement(r)
    }
}

impl HttpBlock {
    fn server(&mut self, r: &mut Reading) -> Result<(), Reason> {
        expect_block(r, 0, 0)?;
        let place = RawPlace::new(self.modules, String::new(), Level::Server, Kind::Nameless);
        let mut server = RawServer { at: r.place(), place, names: Vec::new(), listens: Vec::new() };
        let before = std::mem::replace(
            r.shelf.of::<Here>(),
            Here { level: Level::Server, ..Here::default() },
        );
        let mut head = ServerHead { names: Vec::new(), listens: Vec::new() };
        r.block(&mut Scope {
            modules: self.modules,
            mains: &mut self.mains,
            place: &mut server.place,
            here: SRV,
            server: Some(&mut head),
        })?;
        *r.shelf.of::<Here>() = before;
        (server.names, server.listens) = (head.names, head.listens);
        if server.listens.is_empty() {
            server.listens.push(Listen::unspoken());
        }
        self.servers.push(server);
        Ok(())
    }
}

/// What only a server has.
struct ServerHead {
    names: Vec<Name>,
    listens: Vec<Listen>,
}

/// An open block.
struct Scope<'a> {
    modules: Modules,
    mains: &'a mut [Box<dyn Any>],
    place: &'a mut RawPlace,
    here: Context,
    server: Option<&'a mut ServerHead>,
}

impl Block for Scope<'_> {
    fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
        if let Some(done) = self.structure(r) {
            return done.map(|()| Found::Yes);
        }
        let (here, mains, place) = (self.here, &mut *self.mains, &mut *self.place);
        let offers = self.modules.iter().zip(mains).zip(&mut place.raws);
        let done =
            found(offers.map(|((module, main), raw)| module.set(here, &mut **main, &mut **raw, r)));
        let wanted = r.shelf.take::<rewrite::WantedOps>();
        self.place.ops.extend(wanted.0.into_iter().map(RawOp::Op));
        done
    }
}

const ANY_PLACE: Context = SRV | LOC | SIF | LIF;

/// The directives that make places, with where they may stand; for the reference as well.
pub const STRUCTURE: &[(&str, Context)] = &[
    ("location", SRV | LOC),
    ("if", SRV | LOC),
    ("limit_except", LOC),
    ("server_name", SRV),
    ("listen", SRV),
    ("set", ANY_PLACE),
    ("rewrite", ANY_PLACE),
    ("return", ANY_PLACE),
    ("break", ANY_PLACE),
    ("rewrite_log", HTTP | ANY_PLACE),
    ("uninitialized_variable_warn", HTTP | ANY_PLACE),
];

impl Scope<'_> {
    /// Takes what makes places; `None` if the statement is a module's.
    fn structure(&mut self, r: &mut Reading) -> Option<Result<(), Reason>> {
        let (_, at) = STRUCTURE.iter().find(|(name, _)| *name == r.name())?;
        if at & self.here == 0 {
            return Some(Err(Reason::NotAllowedHere));
        }
        let name = r.name().to_owned();
        Some(match name.as_str() {
            "location" => self.location(r),
            "if" => self.condition(r),
            "limit_except" => self.limit_except(r),
            "server_name" => self.server_name(r),
            "listen" => self.listen(r),
            "set" => simple(r, 2, 2).and_then(|()| self.op(rewrite::read_set(r))),
            "rewrite" => simple(r, 2, 3).and_then(|()| self.op(rewrite::read_rewrite(r))),
            "return" => simple(r, 1, 2).and_then(|()| self.op(rewrite::read_return(r))),
            "break" => simple(r, 0, 0).and_then(|()| self.op(Ok(Op::Break))),
            "rewrite_log" => simple(r, 1, 1).and_then(|()| {
                self.place.rewrite_log = Some(r.flag_value()?);
                Ok(())
            }),
            _ => simple(r, 1, 1).and_then(|()| {
                self.place.warns_uninitialized = Some(r.flag_value()?);
                Ok(())
            }),
        })
    }

    fn op(&mut self, op: Result<Op, Reason>) -> Result<(), Reason> {
        self.place.ops.push(RawOp::Op(op?));
        Ok(())
    }

    fn location(&mut self, r: &mut Reading) -> Result<(), Reason> {
        expect_block(r, 1, 2)?;
        let (kind, text, caseless) = location_name(&r.take_args())?;
        let mut inner = RawPlace::new(self.modules, text.clone(), Level::Location, kind);
        if kind == Kind::Regex {
            inner.regex = Some(Regex::compile(&text, caseless, r)?);
            inner.name = format!("~ {text}");
            if caseless {
                inner.name = format!("~* {text}");
            }
        }
        self.check_nesting(&inner, &text)?;
        let twin = self.place.inner.iter().any(|other| {
            other.name == inner.name
                && kind != Kind::Regex
                && (other.kind == Kind::Exact) == (kind == Kind::Exact)
        });
        if twin {
            return Err(Reason::says(format!("duplicate location \"{text}\"")));
        }
        self.enter(&mut inner, LOC, r)?;
        self.place.inner.push(inner);
        Ok(())
    }

    fn check_nesting(&self, inner: &RawPlace, text: &str) -> Result<(), Reason> {
        let outer = &self.place;
        if outer.level != Level::Location {
            return Ok(());
        }
        let says = |what: String| Err(Reason::says(what));
        if outer.kind == Kind::Exact {
            return says(format!(
                "location \"{text}\" cannot be inside the exact location \"{}\"",
                outer.name
            ));
        }
        if outer.kind == Kind::Named {
            return says(format!(
                "location \"{text}\" cannot be inside the named location \"{}\"",
                outer.name
            ));
        }
        if inner.kind == Kind::Named {
            return says(format!("named location \"{text}\" can be on the server level only"));
        }
        if outer.kind != Kind::Regex && inner.kind != Kind::Regex && !text.starts_with(&outer.name)
        {
            return says(format!("location \"{text}\" is outside location \"{}\"", outer.name));
        }
        Ok(())
    }

    fn condition(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if !r.opens_block() {
            return Err(Reason::NeedsBlock);
        }
        let words = r.take_args();
        let condition = Condition::parse(&words, r)?;
        let (name, kind) = (self.place.name.clone(), self.place.kind);
        let mut inner = RawPlace::new(self.modules, name, Level::If, kind);
        let here = if self.here == SRV { SIF } else { LIF };
        self.enter(&mut inner, here, r)?;
        self.place.ops.push(RawOp::If(condition, Box::new(inner)));
        Ok(())
    }

    fn limit_except(&mut self, r: &mut Reading) -> Result<(), Reason> {
        expect_block(r, 1, usize::MAX)?;
        if self.place.limit_except.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut free = Vec::new();
        for word in r.take_args() {
            let method = Method::of(word.to_ascii_uppercase().as_bytes());
            if method == Method::Other {
                return Err(Reason::says(format!("invalid method \"{word}\"")));
            }
            free.push(method);
            if method == Method::Get {
                free.push(Method::Head);
            }
        }
        let (name, kind) = (self.place.name.clone(), self.place.kind);
        let mut inner = RawPlace::new(self.modules, name, Level::LimitExcept, kind);
        self.enter(&mut inner, LMT, r)?;
        self.place.limit_except = Some((free, Box::new(inner)));
        Ok(())
    }

    fn enter(
        &mut self,
        inner: &mut RawPlace,
        here: Context,
        r: &mut Reading,
    ) -> Result<(), Reason> {
        let now = Here { name: inner.name.clone(), level: inner.level, kind: Some(inner.kind) };
        let before = std::mem::replace(r.shelf.of::<Here>(), now);
        let mut scope =
            Scope { modules: self.modules, mains: self.mains, place: inner, here, server: None };
        r.block(&mut scope)?;
        *r.shelf.of::<Here>() = before;
        Ok(())
    }

    fn server_name(&mut self, r: &mut Reading) -> Result<(), Reason> {
        simple(r, 1, usize::MAX)?;
        for word in r.take_args() {
            let name = read_name(&word, r)?;
            self.server.as_mut().expect("only in a server").names.push(name);
        }
        Ok(())
    }

    fn listen(&mut self, r: &mut Reading) -> Result<(), Reason> {
        simple(r, 1, usize::MAX)?;
        let listens = &mut self.server.as_mut().expect("only in a server").listens;
        for listen in listen::read(r)? {
            if listens.iter().any(|other| other.address() == listen.address()) {
                return Err(Reason::says(format!("a duplicate listen {}", listen.address())));
            }
            listens.push(listen);
        }
        Ok(())
    }
}

fn simple(r: &Reading, min: usize, max: usize) -> Result<(), Reason> {
    if r.opens_block() {
        return Err(Reason::NoBlock);
    }
    let fits = (min..=max).contains(&r.args().len());
    if fits { Ok(()) } else { Err(Reason::WrongArity) }
}

fn expect_block(r: &Reading, min: usize, max: usize) -> Result<(), Reason> {
    if !r.opens_block() {
        return Err(Reason::NeedsBlock);
    }
    let fits = (min..=max).contains(&r.args().len());
    if fits { Ok(()) } else { Err(Reason::WrongArity) }
}

/// `= /x`, `^~ /x`, `~ x`, `~* x`, `@x`, `/x`; the sign may touch the name.
fn location_name(args: &[String]) -> Result<(Kind, String, bool), Reason> {
    let kind_of = |sign: &str| match sign {
        "=" => Some((Kind::Exact, false)),
        "^~" => Some((Kind::PrefixOnly, false)),
        "~" => Some((Kind::Regex, false)),
        "~*" => Some((Kind::Regex, true)),
        _ => None,
    };
    if let [sign, name] = args {
        let (kind, caseless) = kind_of(sign)
            .ok_or_else(|| Reason::says(format!("invalid location modifier \"{sign}\"")))?;
        return Ok((kind, name.clone(), caseless));
    }
    let name = &args[0];
    for sign in ["=", "^~", "~*", "~"] {
        if let Some(rest) = name.strip_prefix(sign) {
            let (kind, caseless) = kind_of(sign).expect("one of the signs");
            return Ok((kind, rest.to_owned(), caseless));
        }
    }
    let kind = if name.starts_with('@') { Kind::Named } else { Kind::Prefix };
    Ok((kind, name.clone(), false))
}

fn read_name(word: &str, r: &mut Reading) -> Result<Name, Reason> {
    let invalid = || Reason::says(format!("invalid server name or wildcard \"{word}\""));
    if word.contains('/') && !word.starts_with('~') {
        r.warn(format!("server name \"{word}\" has suspicious symbols"));
    }
    if let Some(source) = word.strip_prefix('~') {
        if source.is_empty() {
            return Err(Reason::says(format!("empty regex in server name \"{word}\"")));
        }
        let caseless = source.bytes().any(|b| b.is_ascii_uppercase());
        return Ok(Name::Regex(word.to_owned(), Rc::new(Regex::compile(source, caseless, r)?)));
    }
    if word == "$hostname" {
        return Ok(Name::Plain(crate::sys::process::hostname().to_ascii_lowercase()));
    }
    let name = word.to_ascii_lowercase();
    let stars = name.matches('*').count();
    let wild_ok =
        name.starts_with("*.") && name.len() > 2 || name.ends_with(".*") && name.len() > 2;
    if stars > 1 || (stars == 1 && !wild_ok) || name == "." || name.contains("..") {
        return Err(invalid());
    }
    Ok(Name::Plain(name))
}

// ---- merging -------------------------------------------------------------------------------

impl HttpBlock {
    /// Merges everything that was read. Names that conflict become notes of the pass.
    ///
    /// Errors: a module's refusal, unknown variables, conflicting listen options.
    pub fn finish(self, r: &mut Reading) -> Result<HttpConf, Error> {
        let place = r.place();
        let locate = |reason: Reason| match reason {
            Reason::Located(e) => e,
            Reason::Says(what) => Error { what, at: Some(place.clone()) },
            other => Error { what: format!("{other:?}"), at: Some(place.clone()) },
        };
        let mut maker = Maker { modules: self.modules, mains: Confs::default(), r };
        maker.mains(self.mains).map_err(locate)?;
        let defaults = maker.defaults();
        let http = maker.confs(self.place.raws, &defaults, "", Level::Http).map_err(locate)?;
        let ops = self.place.ops;
        let flags = Flags {
            log: self.place.rewrite_log.unwrap_or(false),
            warn: self.place.warns_uninitialized.unwrap_or(true),
        };
        debug_assert!(ops.is_empty(), "rewrites do not stand on the http level");
        let mut servers = Vec::new();
        for raw in self.servers {
            let name = primary_name(&raw.names);
            let root = maker.location(raw.place, &http, flags).map_err(locate)?;
            let tls = match raw.listens.iter().any(|listen| listen.ssl) {
                true => ssl::build(&root.confs, maker.r)?,
                false => None,
            };
            let (name, root) = (name.into(), Rc::new(root));
            let server = Rc::new(Server { name, at: raw.at, root, tls });
            servers.push((server, raw.names, raw.listens));
        }
        let mains = maker.mains;
        r.shelf.of::<VariableTable>().finish().map_err(Error::placeless)?;
        let all = servers.iter().map(|(server, ..)| server.clone()).collect();
        let bound = listen::bind_servers(servers, r)?;
        Ok(HttpConf { mains, http, bound, servers: all, modules: self.modules })
    }
}

fn primary_name(names: &[Name]) -> String {
    match names.first() {
        None => String::new(),
        Some(Name::Plain(name)) => name.strip_prefix('.').unwrap_or(name).to_owned(),
        Some(Name::Regex(source, _)) => source.clone(),
    }
}

/// What the rewrite language inherits from level to level.
#[derive(Clone, Copy)]
struct Flags {
    log: bool,
    warn: bool,
}

struct Maker<'a> {
    modules: Modules,
    mains: Confs,
    r: &'a mut Reading,
}

impl Maker<'_> {
    fn mains(&mut self, raws: Vec<Box<dyn Any>>) -> Result<(), Reason> {
        for (module, raw) in self.modules.iter().zip(raws) {
            let mut done = Confs::default();
            let mut merging = Merging {
                level: Level::Http,
                name: "",
                shelf: &mut self.r.shelf,
                paths: &self.r.paths,
                notes: &mut self.r.notes,
                mains: &self.mains,
            };
            module.finish(raw, &mut done, &mut merging)?;
            self.mains.absorb(done);
        }
        Ok(())
    }

    fn defaults(&self) -> Confs {
        let mut confs = Confs::default();
        for module in self.modules {
            module.defaults(&mut confs);
        }
        confs
    }

    fn confs(
        &mut self,
        raws: Vec<Box<dyn Any>>,
        up: &Confs,
        name: &str,
        level: Level,
    ) -> Result<Confs, Reason> {
        let mut confs = Confs::default();
        for (module, raw) in self.modules.iter().zip(raws) {
            let mut merging = Merging {
                level,
                name,
                shelf: &mut self.r.shelf,
                paths: &self.r.paths,
                notes: &mut self.r.notes,
                mains: &self.mains,
            };
            module.merge(raw, up, &mut confs, &mut merging)?;
        }
        Ok(confs)
    }

    fn location(&mut self, raw: RawPlace, up: &Confs, up_flags: Flags) -> Result<Location, Reason> {
        let flags = Flags {
            log: raw.rewrite_log.unwrap_or(up_flags.log),
            warn: raw.warns_uninitialized.unwrap_or(up_flags.warn),
        };
        let RawPlace { name, level, kind, raws, ops, inner, limit_except, .. } = raw;
        let confs = self.confs(raws, up, &name, level)?;
        let (mut ifs, mut rewrites) = (Vec::new(), Vec::new());
        for op in ops {
            rewrites.push(self.op(op, &confs, level, &mut ifs, flags)?);
        }
        rewrite::set_logging(&mut rewrites, flags.log);
        let mut nested = Vec::new();
        for mut place in inner {
            let regex = place.regex.take();
            nested.push((Rc::new(self.location(place, &confs, flags)?), regex));
        }
        let limit_except = match limit_except {
            Some((free, place)) => Some((free, Rc::new(self.location(*place, &confs, flags)?))),
            None => None,
        };
        let mut pipeline = Pipeline::default();
        for module in self.modules {
            module.install(&confs, &mut pipeline);
        }
        Ok(Location {
            name: name.into(),
            level,
            kind,
            core: confs.loc::<super::core::Core>().clone(),
            confs,
            pipeline,
            rewrites: rewrites.into(),
            warns_uninitialized: flags.warn,
            ifs,
            limit_except,
            nested: LocationTree::new(nested),
        })
    }

    /// An `if` of a location is a place of its own; one of a server is only steps.
    fn op(
        &mut self,
        op: RawOp,
        up: &Confs,
        level: Level,
        ifs: &mut Vec<Rc<Location>>,
        flags: Flags,
    ) -> Result<Op, Reason> {
        let (condition, mut place) = match op {
            RawOp::Op(op) => return Ok(op),
            RawOp::If(condition, place) => (condition, place),
        };
        let mut inner = Vec::new();
        for op in std::mem::take(&mut place.ops) {
            inner.push(self.op(op, up, Level::If, ifs, flags)?);
        }
        if level == Level::Server {
            return Ok(Op::If(Box::new(condition), inner.into(), None));
        }
        let location = Rc::new(self.location(*place, up, flags)?);
        ifs.push(location);
        Ok(Op::If(Box::new(condition), inner.into(), Some(ifs.len() - 1)))
    }
}

impl HttpConf {
    /// Every module's preparation in the master.
    pub fn prepare(self: &Rc<HttpConf>) -> Result<(), String> {
        self.modules.iter().try_for_each(|module| module.prepare(self))
    }

    /// Every module's start in a process of the tree.
    pub fn start(self: &Rc<HttpConf>, role: Role) -> io::Result<()> {
        self.modules.iter().try_for_each(|module| module.start(self, role))
    }

    /// Every module's last act in a process.
    pub fn end(&self) {
        self.modules.iter().for_each(|module| module.end(self));
    }

    /// Writes what modules hold back for log files.
    pub fn flush_logs(&self) {
        self.modules.iter().for_each(|module| module.flush_logs(self));
    }
}
