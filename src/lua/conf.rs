//! The directives of Lua, and what a process does at its start.

use super::budget::{self, Budget};
use super::socket::{RawSettings, Settings};
use super::vm::{self, Code, Vm};
use super::{abi, block, phase, run};
use crate::conf::*;
use crate::event::{self, Role, Zone};
use crate::http::keyval::{KeyvalZones, Match};
use crate::http::rewrite::{Op, WantedOps};
use crate::http::upstream::chooser::{Chooser, WantedChooser};
use crate::http::variable::{VariableBook, name_of};
use crate::http::{
    Builtin, HttpConf, HttpModule, Merging, Pipeline, Request, Template, VariableTable, var,
};
use crate::log;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Files whose code is kept, per directive with variables in its path.
const FILES_MAX: usize = 1024;
/// The smallest `lua_shared_dict`, bytes.
const DICT_MIN_BYTES: u64 = 8191;
/// The smallest `lua_capture_error_log`, bytes.
const CAPTURE_MIN_BYTES: u64 = 4096;
/// `lua_regex_cache_max_entries` by default.
const REGEX_CACHE_ENTRIES: i64 = 1024;

const MAX_PENDING_TIMERS: i64 = 1024;
const MAX_RUNNING_TIMERS: i64 = 256;
const THREAD_VMS: i64 = 10;

/// OpenResty's Lua.
pub struct Lua;

const ANY_CODE: Context = HTTP | SRV | LOC | LIF;
const SET_PLACES: Context = SRV | SIF | LOC | LIF;

impl HttpModule for Lua {
    type Main = Main;
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const MAIN: &'static [Directive<Main>] = &[
        d("lua_package_path",         HTTP, text(|c| &mut c.path)),
        d("lua_package_cpath",        HTTP, text(|c| &mut c.cpath)),
        d("lua_shared_dict",          HTTP, call(exactly(2), Main::shared_dict)),
        d("lua_code_cache",           HTTP, call(exactly(1), |_, r| code_cache(r))),
        d("lua_regex_cache_max_entries", HTTP, num(0, 1 << 30, |c| &mut c.regex_cache_entries)),
        d("lua_regex_match_limit",    HTTP, num(0, u32::MAX as i64, |c| &mut c.regex_match_limit)),
        d("lua_capture_error_log",    HTTP, call(exactly(1), Main::capture)),
        d("lua_max_pending_timers",   HTTP, num(0, 1 << 30, |c| &mut c.max_pending_timers)),
        d("lua_max_running_timers",   HTTP, num(0, 1 << 30, |c| &mut c.max_running_timers)),
        d("lua_worker_thread_vm_pool_size", HTTP, num(0, 1 << 16, |c| &mut c.thread_vms)),
        d("lua_vm_memory_limit",      HTTP, size(|c| &mut c.memory_limit)),
        d("init_by_lua",              HTTP, call(exactly(1), |c, r| c.add(r, |c| &mut c.init))),
        d("init_by_lua_block",        HTTP, block(exactly(0), |c, r| c.add(r, |c| &mut c.init))),
        d("init_by_lua_file",         HTTP, call(exactly(1), |c, r| c.add(r, |c| &mut c.init))),
        d("init_worker_by_lua",       HTTP, call(exactly(1), |c, r| c.add(r, |c| &mut c.worker))),
        d("init_worker_by_lua_block", HTTP, block(exactly(0), |c, r| c.add(r, |c| &mut c.worker))),
        d("init_worker_by_lua_file",  HTTP, call(exactly(1), |c, r| c.add(r, |c| &mut c.worker))),
        d("balancer_by_lua_block",    UPS, block(exactly(0), |_, r| balancer(r))),
        d("balancer_by_lua_file",     UPS, call(exactly(1), |_, r| balancer(r))),
        d("exit_worker_by_lua_block", HTTP, block(exactly(0), |c, r| c.add(r, |c| &mut c.exit))),
        d("exit_worker_by_lua_file",  HTTP, call(exactly(1), |c, r| c.add(r, |c| &mut c.exit))),
    ];
    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("lua_socket_connect_timeout",   ANY_CODE, msec(|c| &mut c.socket.connect_timeout)),
        d("lua_socket_send_timeout",      ANY_CODE, msec(|c| &mut c.socket.send_timeout)),
        d("lua_socket_read_timeout",      ANY_CODE, msec(|c| &mut c.socket.read_timeout)),
        d("lua_socket_keepalive_timeout", ANY_CODE, msec(|c| &mut c.socket.keepalive_timeout)),
        d("lua_socket_buffer_size",       ANY_CODE, size(|c| &mut c.socket.buffer_size)),
        d("lua_socket_pool_size",         ANY_CODE, num(0, 1 << 20, |c| &mut c.socket.pool_size)),
        d("lua_socket_send_lowat",        ANY_CODE, size(|c| &mut c.socket.send_lowat)),
        d("lua_socket_log_errors",        ANY_CODE, flag(|c| &mut c.socket.log_errors)),
        d("lua_ssl_protocols",            ANY_HTTP, call(at_least(1), |c, r| c.socket.ssl.protocols(r))),
        d("lua_ssl_ciphers",              ANY_HTTP, text(|c| &mut c.socket.ssl.ciphers)),
        d("lua_ssl_verify_depth",         ANY_HTTP, num(0, i32::MAX as i64, |c| &mut c.socket.ssl.verify_depth)),
        d("lua_ssl_trusted_certificate",  ANY_HTTP, text(|c| &mut c.socket.ssl.trusted_certificate)),
        d("lua_ssl_crl",                  ANY_HTTP, text(|c| &mut c.socket.ssl.crl)),
        d("lua_ssl_certificate",          ANY_HTTP, text(|c| &mut c.socket.ssl.certificate)),
        d("lua_ssl_certificate_key",      ANY_HTTP, text(|c| &mut c.socket.ssl.certificate_key)),
        d("lua_budget",                 ANY_CODE, call(between(1, 2), |c, r| {
            if c.budget.is_some() {
                return Err(Reason::Duplicate);
            }
            c.budget = Some(Budget::read(r)?);
            Ok(())
        })),
        d("lua_need_request_body",      ANY_CODE, flag(|c| &mut c.needs_body)),
        d("lua_check_client_abort",     ANY_CODE, flag(|c| &mut c.watches_client)),
        d("lua_http10_buffering",       ANY_CODE, flag(|c| &mut c.http10_buffering)),
        d("lua_use_default_type",       ANY_CODE, flag(|c| &mut c.default_type)),
        d("lua_transform_underscores_in_response_headers", ANY_CODE, flag(|c| &mut c.underscores)),
        d("set_by_lua",                 SET_PLACES, call(at_least(2), |_, r| set_by_lua(r))),
        d("set_by_lua_block",           SET_PLACES, block(exactly(1), |_, r| set_by_lua(r))),
        d("set_by_lua_file",            SET_PLACES, call(at_least(2), |_, r| set_by_lua(r))),
        d("ssl_client_hello_by_lua_block", HTTP | SRV, block(exactly(0), |c, r| c.add(r, CLIENT_HELLO))),
        d("ssl_client_hello_by_lua_file", HTTP | SRV, call(exactly(1), |c, r| c.add(r, CLIENT_HELLO))),
        d("ssl_certificate_by_lua_block", HTTP | SRV, block(exactly(0), |c, r| c.add(r, CERTIFICATE))),
        d("ssl_certificate_by_lua_file", HTTP | SRV, call(exactly(1), |c, r| c.add(r, CERTIFICATE))),
        d("server_rewrite_by_lua_block", HTTP | SRV, block(exactly(0), |c, r| c.add(r, SERVER))),
        d("server_rewrite_by_lua_file", HTTP | SRV, call(exactly(1), |c, r| c.add(r, SERVER))),
        d("rewrite_by_lua",             ANY_CODE, call(exactly(1), |c, r| c.add(r, REWRITE))),
        d("rewrite_by_lua_block",       ANY_CODE, block(exactly(0), |c, r| c.add(r, REWRITE))),
        d("rewrite_by_lua_file",        ANY_CODE, call(exactly(1), |c, r| c.add(r, REWRITE))),
        d("access_by_lua",              ANY_CODE, call(exactly(1), |c, r| c.add(r, ACCESS))),
        d("access_by_lua_block",        ANY_CODE, block(exactly(0), |c, r| c.add(r, ACCESS))),
        d("access_by_lua_file",         ANY_CODE, call(exactly(1), |c, r| c.add(r, ACCESS))),
        d("precontent_by_lua_block",    ANY_CODE, block(exactly(0), |c, r| c.add(r, PRECONTENT))),
        d("precontent_by_lua_file",     ANY_CODE, call(exactly(1), |c, r| c.add(r, PRECONTENT))),
        d("content_by_lua",             LOC | LIF, call(exactly(1), |c, r| c.add(r, CONTENT))),
        d("content_by_lua_block",       LOC | LIF, block(exactly(0), |c, r| c.add(r, CONTENT))),
        d("content_by_lua_file",        LOC | LIF, call(exactly(1), |c, r| c.add(r, CONTENT))),
        d("header_filter_by_lua",       ANY_CODE, call(exactly(1), |c, r| c.add(r, HEADER))),
        d("header_filter_by_lua_block", ANY_CODE, block(exactly(0), |c, r| c.add(r, HEADER))),
        d("header_filter_by_lua_file",  ANY_CODE, call(exactly(1), |c, r| c.add(r, HEADER))),
        d("body_filter_by_lua",         ANY_CODE, call(exactly(1), |c, r| c.add(r, BODY))),
        d("body_filter_by_lua_block",   ANY_CODE, block(exactly(0), |c, r| c.add(r, BODY))),
        d("body_filter_by_lua_file",    ANY_CODE, call(exactly(1), |c, r| c.add(r, BODY))),
        d("log_by_lua",                 ANY_CODE, call(exactly(1), |c, r| c.add(r, LOG))),
        d("log_by_lua_block",           ANY_CODE, block(exactly(0), |c, r| c.add(r, LOG))),
        d("log_by_lua_file",            ANY_CODE, call(exactly(1), |c, r| c.add(r, LOG))),
    ];

    const VARIABLES: &'static [Builtin] = &[var("lua_budget_status", budget::status)];

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        main.variables = m.shelf.of::<VariableTable>().book();
        main.is_used |= m.shelf.take::<Used>().0 || main.has_code();
        main.prefix = m.paths.prefix.clone();
        Ok(())
    }

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        let mut scripts = raw.scripts;
        for (at, script) in scripts.iter_mut().enumerate() {
            // Content belongs to its place.
            if script.is_none() && (at != CONTENT || m.level.is_nameless()) {
                script.clone_from(&up.scripts[at]);
            }
        }
        Ok(Loc {
            scripts,
            budget: raw.budget.unwrap_or(up.budget),
            needs_body: raw.needs_body.unwrap_or(up.needs_body),
            watches_client: raw.watches_client.unwrap_or(up.watches_client),
            http10_buffering: raw.http10_buffering.unwrap_or(up.http10_buffering),
            default_type: raw.default_type.unwrap_or(up.default_type),
            underscores: raw.underscores.unwrap_or(up.underscores),
            socket: Settings::merge(raw.socket, &up.socket, m)?,
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        run::install(loc, p);
    }

    /// Opens the VM, and runs `init_by_lua` in it: workers inherit both.
    fn prepare(http: &Rc<HttpConf>) -> Result<(), String> {
        let main = http.mains.main::<Lua>();
        if !main.is_used {
            return Ok(());
        }
        let prepared = abi::open(http, main)
            .map_err(|message| run::Lines(&message).to_string())
            .and_then(|()| match &main.init {
                Some(script) => run::start(script, phase::INIT).map_err(|message| {
                    log::error!("init_by_lua error: {}", run::Lines(&message));
                    "init_by_lua failed".to_owned()
                }),
                None => Ok(()),
            });
        prepared.inspect_err(|_| abi::close())
    }

    fn start(http: &Rc<HttpConf>, role: Role) -> io::Result<()> {
        let main = http.mains.main::<Lua>();
        if !main.runs_in(role) || !main.is_used {
            return Ok(());
        }
        abi::enter(http, main);
        if let Some(script) = &main.worker
            && let Err(message) = run::start(script, phase::INIT_WORKER)
        {
            log::error!("init_worker_by_lua error: {}", run::Lines(&message));
        }
        Ok(())
    }

    fn end(http: &HttpConf) {
        let main = http.mains.main::<Lua>();
        if let Some(script) = &main.exit
            && vm::current().is_some()
            && main.runs_in(event::role())
            && let Err(message) = run::start(script, phase::EXIT_WORKER)
        {
            log::error!("exit_worker_by_lua error: {}", run::Lines(&message));
        }
    }
}

/// What stands once.
#[derive(Default)]
pub struct Main {
    pub(super) path: Option<String>,
    pub(super) cpath: Option<String>,
    pub(super) dicts: Vec<Rc<Zone>>,
    pub(super) variables: VariableBook,
    pub(super) prefix: PathBuf,
    /// There once the configuration was prepared.
    pub(super) vm: OnceCell<Rc<Vm>>,
    /// Code asked for the privileged process to run it too.
    pub(super) wants_privileged: Cell<bool>,
    regex_cache_entries: Option<i64>,
    regex_match_limit: Option<i64>,
    captured_bytes: Option<u64>,
    memory_limit: Option<u64>,
    thread_vms: Option<i64>,
    max_pending_timers: Option<i64>,
    max_running_timers: Option<i64>,
    init: Option<Rc<Script>>,
    worker: Option<Rc<Script>>,
    exit: Option<Rc<Script>>,
    is_used: bool,
}

// The places of a location's code.
pub const SERVER: usize = 0;
pub const REWRITE: usize = 1;
pub const ACCESS: usize = 2;
pub const PRECONTENT: usize = 3;
pub const CONTENT: usize = 4;
pub const HEADER: usize = 5;
pub const BODY: usize = 6;
pub const LOG: usize = 7;
pub const CLIENT_HELLO: usize = 8;
pub const CERTIFICATE: usize = 9;

/// The code of a location, by its place.
type Scripts = [Option<Rc<Script>>; 10];

/// What was written in a block.
#[derive(Default)]
pub struct RawLoc {
    scripts: Scripts,
    needs_body: Option<bool>,
    watches_client: Option<bool>,
    budget: Option<Option<Budget>>,
    http10_buffering: Option<bool>,
    default_type: Option<bool>,
    underscores: Option<bool>,
    socket: RawSettings,
}

impl RawLoc {
    fn add(&mut self, r: &mut Reading, at: usize) -> Result<(), Reason> {
        add(&mut self.scripts[at], r)
    }
}

/// What is true in a location.
pub struct Loc {
    pub(super) scripts: Scripts,
    /// `lua_budget`
    pub(super) budget: Option<Budget>,
    /// `lua_need_request_body`: the body is read before any code runs.
    pub(super) needs_body: bool,
    /// `lua_check_client_abort`: code ends when its client leaves, or is told.
    pub(super) watches_client: bool,
    /// `lua_http10_buffering`: replies to HTTP/1.0 are kept until they are whole.
    pub(super) http10_buffering: bool,
    /// `lua_use_default_type`
    pub(super) default_type: bool,
    /// `lua_transform_underscores_in_response_headers`
    pub(super) underscores: bool,
    /// `lua_socket_…` and `lua_ssl_…`
    pub(super) socket: Rc<Settings>,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            scripts: Scripts::default(),
            budget: None,
            needs_body: false,
            watches_client: false,
            http10_buffering: true,
            default_type: true,
            underscores: true,
            socket: Rc::default(),
        }
    }
}

/// Somebody wrote Lua: the process needs a VM.
#[derive(Default)]
struct Used(bool);

/// The code of one directive.
pub struct Script {
    text: Text,
}

enum Text {
    Here(Rc<Code>),
    /// A file, read when it is first needed.
    File {
        path: Template,
        prefix: PathBuf,
        known: RefCell<HashMap<Vec<u8>, Rc<Code>>>,
    },
}

/// Why a script's code is not there.
pub enum NoCode {
    /// There is no such file.
    Absent(Vec<u8>),
    /// The file cannot be read.
    Unreadable(Vec<u8>),
}

impl Main {
    /// Whether processes of this kind run code.
    fn runs_in(&self, role: Role) -> bool {
        role.serves() || role == Role::Privileged && self.wants_privileged.get()
    }

    /// `lua_regex_cache_max_entries`
    pub(super) fn regex_cache_entries(&self) -> u32 {
        self.regex_cache_entries.unwrap_or(REGEX_CACHE_ENTRIES) as u32
    }

    /// `lua_regex_match_limit`: what PCRE may try for one match; 0 is its own limit.
    pub(super) fn regex_match_limit(&self) -> u32 {
        self.regex_match_limit.unwrap_or(0) as u32
    }

    /// `lua_capture_error_log`; 0 without it.
    pub(super) fn captured_bytes(&self) -> usize {
        self.captured_bytes.unwrap_or(0) as usize
    }

    /// `lua_max_pending_timers`
    pub(super) fn max_pending_timers(&self) -> usize {
        self.max_pending_timers.unwrap_or(MAX_PENDING_TIMERS) as usize
    }

    /// `lua_max_running_timers`
    pub(super) fn max_running_timers(&self) -> usize {
        self.max_running_timers.unwrap_or(MAX_RUNNING_TIMERS) as usize
    }

    /// `lua_worker_thread_vm_pool_size`
    pub(super) fn thread_vms(&self) -> usize {
        self.thread_vms.unwrap_or(THREAD_VMS) as usize
    }

    fn has_code(&self) -> bool {
        [&self.init, &self.worker, &self.exit].iter().any(|script| script.is_some())
    }

    /// `lua_vm_memory_limit`, bytes of each process's VM; `None` without one.
    pub(super) fn memory_limit(&self) -> Option<usize> {
        self.memory_limit.filter(|bytes| *bytes > 0).map(|bytes| bytes as usize)
    }

    fn capture(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.captured_bytes.is_some() {
            return Err(Reason::Duplicate);
        }
        let text = &r.args()[0];
        let size =
            value::size(text).filter(|size| *size >= CAPTURE_MIN_BYTES).ok_or_else(|| {
                Reason::says(format!(
                    "invalid capture error log size \"{text}\", minimum size is {CAPTURE_MIN_BYTES}"
                ))
            })?;
        self.captured_bytes = Some(size);
        Ok(())
    }

    fn shared_dict(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let (name, size_text) = (&args[0], &args[1]);
        let size = value::size(size_text).filter(|size| *size > DICT_MIN_BYTES);
        let size = size
            .ok_or_else(|| Reason::says(format!("invalid lua shared dict size \"{size_text}\"")))?;
        if self.dicts.iter().any(|known| known.name == *name) {
            return Err(Reason::says(format!(
                "lua_shared_dict \"{name}\" is already defined as \"{name}\""
            )));
        }
        KeyvalZones::declare(r, name, size, Match::String, None)?;
        let zone = KeyvalZones::refer(r, name)?;
        self.dicts.push(zone.zone.clone());
        Ok(())
    }

    fn add(
        &mut self,
        r: &mut Reading,
        field: fn(&mut Main) -> &mut Option<Rc<Script>>,
    ) -> Result<(), Reason> {
        add(field(self), r)
    }
}

impl Script {
    /// The code for a request (for none, where there is none).
    pub fn code(&self, r: Option<&Request>) -> Result<Rc<Code>, NoCode> {
        let (path, prefix, known) = match &self.text {
            Text::Here(code) => return Ok(code.clone()),
            Text::File { path, prefix, known } => (path, prefix, known),
        };
        let name = match r {
            Some(r) => path.value(r).into_owned(),
            None => path.source().as_bytes().to_vec(),
        };
        if let Some(code) = known.borrow().get(&name) {
            return Ok(code.clone());
        }
        let whole = prefix.join(String::from_utf8_lossy(&name).as_ref());
        let source = std::fs::read(&whole).map_err(|e| {
            let path = whole.display();
            let says = format!("\"{path}\": cannot open {path}: {}", os_error(&e));
            match e.kind() {
                io::ErrorKind::NotFound => NoCode::Absent(says.into()),
                _ => NoCode::Unreadable(says.into()),
            }
        })?;
        let code = Rc::new(Code::new(format!("@{}", whole.display()), without_shebang(source)));
        let mut known = known.borrow_mut();
        if known.len() >= FILES_MAX {
            known.clear();
        }
        known.insert(name, code.clone());
        Ok(code)
    }
}

/// A first line that begins with `#` is no Lua; its end is kept for the count of lines.
fn without_shebang(mut source: Vec<u8>) -> Vec<u8> {
    if source.first() == Some(&b'#') {
        let line = memchr::memchr(b'\n', &source).unwrap_or(source.len());
        source.drain(..line);
    }
    source
}

fn add(field: &mut Option<Rc<Script>>, r: &mut Reading) -> Result<(), Reason> {
    if field.is_some() {
        return Err(Reason::Duplicate);
    }
    r.shelf.of::<Used>().0 = true;
    *field = Some(Rc::new(read(r)?));
    Ok(())
}

/// The code of a block, of a file, or of a string.
fn read(r: &mut Reading) -> Result<Script, Reason> {
    if r.opens_block() {
        return Ok(Script { text: Text::Here(Rc::new(read_block(r)?)) });
    }
    let is_file = r.name().ends_with("_file");
    let words = r.take_args();
    match is_file {
        true => file(&words[0], r),
        false => Ok(inline(words[0].clone().into_bytes(), r)),
    }
}

fn file(path: &str, r: &mut Reading) -> Result<Script, Reason> {
    let path = Template::parse(path, r)?;
    let prefix = r.paths.prefix.clone();
    Ok(Script { text: Text::File { path, prefix, known: RefCell::default() } })
}

fn inline(source: Vec<u8>, r: &Reading) -> Script {
    let code = Code::new(chunk_name(r), source);
    Script { text: Text::Here(Rc::new(code)) }
}

fn read_block(r: &mut Reading) -> Result<Code, Reason> {
    let chunk = chunk_name(r);
    Ok(Code::new(chunk, r.raw_block(block::end)?.into_bytes()))
}

/// `=content_by_lua(nginx.conf:12)`
fn chunk_name(r: &Reading) -> String {
    let what = r.name().trim_end_matches("_block");
    let (file, line) = r.place();
    let file = file.rsplit('/').next().unwrap_or_default();
    format!("={what}({file}:{line})")
}

/// `balancer_by_lua_block { … }`, in `upstream {}`.
fn balancer(r: &mut Reading) -> Result<(), Reason> {
    if r.shelf.of::<WantedChooser>().0.is_some() {
        return Err(Reason::Duplicate);
    }
    let mut script = None;
    add(&mut script, r)?;
    r.shelf.of::<WantedChooser>().0 = script.map(|script| Rc::new(Balancer(script)) as Rc<_>);
    Ok(())
}

/// Code that chooses peers.
struct Balancer(Rc<Script>);

impl Chooser for Balancer {
    fn choose(&self, r: &mut Request) -> Result<(), u16> {
        run::balance(&self.0, r)
    }
}

/// `set_by_lua_block $name { … }`, `set_by_lua_file $name path arg …`
fn set_by_lua(r: &mut Reading) -> Result<(), Reason> {
    let words = match r.opens_block() {
        true => r.args().to_vec(),
        false => r.take_args(),
    };
    let name = name_of(&words[0])?;
    r.shelf.of::<Used>().0 = true;
    let variable = r.shelf.of::<VariableTable>().assign(name)?;
    let script = match words.get(1) {
        None => Script { text: Text::Here(Rc::new(read_block(r)?)) },
        Some(path) if r.name().ends_with("_file") => file(path, r)?,
        Some(source) => inline(source.clone().into_bytes(), r),
    };
    let arguments = words.iter().skip(2).map(|word| Template::parse(word, r));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let compute = Box::new(move |r: &mut Request| {
        let arguments = arguments.iter().map(|text| text.value(r).into_owned()).collect();
        run::set(&script, arguments, r)
    });
    r.shelf.of::<WantedOps>().0.push(Op::Compute(variable, compute));
    Ok(())
}

/// Code is always kept: a VM for every request is not offered.
fn code_cache(r: &mut Reading) -> Result<(), Reason> {
    match r.flag_value()? {
        true => Ok(()),
        false => Err(Reason::says("\"lua_code_cache off\" is not supported")),
    }
}
