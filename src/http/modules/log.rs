//! `access_log`: a line per request.
//!
//! Reads: `log_format`, `access_log`, `open_log_file_cache`. Runs in: the log phase.
//! An unbuffered line is one `write`. Buffers belong to files: every `access_log` to the same file
//! shares one. What is buffered is written when the buffer is full, when `flush` has passed, before
//! files are opened anew, and at the worker's end.

use crate::conf::*;
use crate::event;
use crate::http::core_variables::{body_bytes_sent, request_ms, seconds, status_code};
use crate::http::lru::Lru;
use crate::http::{
    HttpConf, HttpModule, Merging, Pipeline, Request, Template, VarRef, VariableTable, deflate,
    open_files,
};
use crate::log::{self, Files, LogFile, Syslog};
use crate::proto::escape::push_json;
use crate::sys::time;
use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct AccessLog;

impl HttpModule for AccessLog {
    type Main = Main;
    type RawLoc = RawLoc;
    type Loc = Loc;

    const MAIN: &'static [Directive<Main>] =
        &[d("log_format", HTTP, call(at_least(2), Main::format))];
    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("access_log",          ANY_HTTP | LIF | LMT, call(at_least(1), RawLoc::access_log)),
        d("open_log_file_cache", ANY_HTTP,             call(between(1, 4), RawLoc::cache)),
    ];

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        main.sinks = m.shelf.of::<Sinks>().0.clone();
        Ok(())
    }

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        let cache = match raw.cache {
            Some(rules) => rules.map(|rules| Rc::new(OpenLogs::new(rules))),
            None => up.cache.clone(),
        };
        let logs = match (raw.off, raw.logs.is_empty()) {
            (true, _) => Some(Rc::new([]) as Rc<[Rc<Log>]>),
            (false, false) => Some(raw.logs.into()),
            (false, true) => up.logs.clone(),
        };
        let logs = match logs {
            Some(logs) => logs,
            None => Rc::new([Rc::new(Log::default_one(m)?)]),
        };
        Ok(Loc { logs: Some(logs), cache })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        for log in loc.logs.iter().flat_map(|logs| logs.iter()) {
            let (log, cache) = (log.clone(), loc.cache.clone());
            p.log(move |r| log.write(r, cache.as_deref()));
        }
    }

    fn flush_logs(http: &HttpConf) {
        for sink in &http.mains.main::<AccessLog>().sinks {
            sink.flush();
        }
    }
}

/// The files that are logged to.
#[derive(Default)]
pub struct Main {
    sinks: Vec<Rc<Sink>>,
}

#[derive(Default)]
pub struct RawLoc {
    off: bool,
    logs: Vec<Rc<Log>>,
    cache: Option<Option<CacheRules>>,
}

/// `logs` is `None` above the http block only: there the default file comes from.
#[derive(Default)]
pub struct Loc {
    logs: Option<Rc<[Rc<Log>]>>,
    cache: Option<Rc<OpenLogs>>,
}

/// One `access_log`.
struct Log {
    target: Target,
    format: Rc<Format>,
    condition: Option<Template>,
    trouble: Trouble,
}

enum Target {
    File(Rc<Sink>),
    Syslog(Syslog),
    /// A path with variables.
    Path(Template),
}

/// When writing failed: a full disk is left alone for a second, and one message a minute is enough.
#[derive(Default)]
struct Trouble {
    full_at: Cell<i64>,
    told_at: Cell<i64>,
}

// ---- a line --------------------------------------------------------------------------------

thread_local! {
    /// Where lines are made.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
/// A longer line's memory is given back.
const LINE_KEPT_BYTES: usize = 64 << 10;

impl Log {
    /// `access_log logs/access.log combined`, where nothing is said.
    fn default_one(m: &mut Merging) -> Result<Log, Reason> {
        let path = m.paths.in_prefix("logs/access.log");
        let file = m.shelf.of::<Files>().add(&path);
        let target = Target::File(m.shelf.of::<Sinks>().of(file));
        let table = m.shelf.of::<VariableTable>();
        let format = Rc::new(Format::compile(&[COMBINED.into()], Escaping::Default, table)?);
        Ok(Log { target, format, condition: None, trouble: Trouble::default() })
    }

    fn write(&self, r: &Request, cache: Option<&OpenLogs>) {
        if r.is_subrequest && !r.place.location.core.log_subrequest
            || self.condition.as_ref().is_some_and(|condition| !condition.is_true(r))
            || self.trouble.full_at.get() == time::unix_seconds()
        {
            return;
        }
        let mut line = LINE.take();
        line.clear();
        self.format.append(r, &mut line);
        match &self.target {
            Target::Syslog(peer) => {
                if let Err(error) = peer.send_line(&line) {
                    log::warn!(r, "send() to syslog failed{}", log::Os(&error));
                }
            }
            Target::File(sink) => {
                line.push(b'\n');
                let name = || sink.file.path().display().to_string();
                self.trouble.judge(r, sink.write(&line), line.len(), name);
            }
            Target::Path(path) => {
                line.push(b'\n');
                self.write_to_path(r, path, &line, cache);
            }
        }
        if line.capacity() <= LINE_KEPT_BYTES {
            LINE.set(line);
        }
    }

    fn write_to_path(&self, r: &Request, path: &Template, line: &[u8], cache: Option<&OpenLogs>) {
        let root = r.place.location.core.root_of(r);
        let why = match open_files::look(r, &root) {
            Ok(found) if found.facts.is_directory() => None,
            Ok(_) => Some(ErrorKind::NotADirectory.into()),
            Err(failed) => Some(failed.error),
        };
        if let Some(why) = why {
            let (root, why) = (log::Raw(&root), log::Os(&why));
            return log::error!(r, "testing \"{root}\" existence failed{why}");
        }
        let path = path.value(r);
        let name = || String::from_utf8_lossy(&path).into_owned();
        let opened = match cache {
            Some(cache) => cache.open(&path, event::now()),
            None => open_log(&path).map(Rc::new),
        };
        match opened {
            Ok(file) => self.trouble.judge(r, (&*file).write(line), line.len(), name),
            Err(error) => log::crit!(r, "open() \"{}\" failed{}", name(), log::Os(&error)),
        }
    }
}

impl Trouble {
    fn judge(
        &self,
        r: &Request,
        written: io::Result<usize>,
        len: usize,
        name: impl Fn() -> String,
    ) {
        let now = time::unix_seconds();
        let may_tell = now - self.told_at.get() > 59;
        match written {
            Ok(n) if n == len => {}
            Ok(n) => {
                if may_tell {
                    log::alert!(r, "write() to \"{}\" was incomplete: {n} of {len}", name());
                    self.told_at.set(now);
                }
            }
            Err(error) => {
                if error.kind() == ErrorKind::StorageFull {
                    self.full_at.set(now);
                }
                if may_tell {
                    log::alert!(r, "write() to \"{}\" failed{}", name(), log::Os(&error));
                    self.told_at.set(now);
                }
            }
        }
    }
}

// ---- formats -------------------------------------------------------------------------------

const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
                        $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

/// The formats that the file has named so far.
#[derive(Default)]
struct Formats(Vec<(String, Rc<Format>)>);

/// A `log_format`, as steps.
struct Format {
    steps: Box<[Step]>,
    escaping: Escaping,
}

enum Step {
    Text(Box<[u8]>),
    /// What needs no escaping and has a value always.
    Plain(fn(&Request, &mut Vec<u8>)),
    Variable(VarRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    Default,
    Json,
    None,
}

impl Format {
    fn append(&self, r: &Request, line: &mut Vec<u8>) {
        for step in &self.steps {
            match step {
                Step::Text(text) => line.extend_from_slice(text),
                Step::Plain(append) => append(r, line),
                Step::Variable(variable) => {
                    let start = line.len();
                    match r.variable(variable, line) {
                        true => self.escaping.apply(line, start),
                        false if self.escaping == Escaping::Default => line.push(b'-'),
                        false => {}
                    }
                }
            }
        }
    }

    fn compile(
        words: &[String],
        escaping: Escaping,
        table: &mut VariableTable,
    ) -> Result<Format, Reason> {
        let mut steps = Vec::new();
        for word in words {
            let mut rest = word.as_str();
            while let Some(at) = rest.find('$') {
                push_text(&mut steps, &rest[..at]);
                let (name, after) = variable_name(&rest[at..])?;
                steps.push(match plain(name) {
                    Some(append) => Step::Plain(append),
                    None => Step::Variable(table.refer(name)),
                });
                rest = after;
            }
            push_text(&mut steps, rest);
        }
        Ok(Format { steps: steps.into(), escaping })
    }
}

fn push_text(steps: &mut Vec<Step>, text: &str) {
    if !text.is_empty() {
        steps.push(Step::Text(text.as_bytes().into()));
    }
}

/// `$name` or `${name}` at the start of `text`, and what follows it. Digits are names here.
fn variable_name(text: &str) -> Result<(&str, &str), Reason> {
    let invalid = || Reason::InvalidParameter(text.to_owned());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (inner, braced) = match text[1..].strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (&text[1..], false),
    };
    let end = inner.find(|c| !is_name(c)).unwrap_or(inner.len());
    let (name, mut after) = inner.split_at(end);
    if braced {
        after = after.strip_prefix('}').ok_or_else(|| {
            Reason::says(format!("the closing bracket in \"{name}\" variable is missing"))
        })?;
    }
    if name.is_empty() { Err(invalid()) } else { Ok((name, after)) }
}

/// The variables that a log makes by itself, more cheaply than by the general way.
fn plain(name: &str) -> Option<fn(&Request, &mut Vec<u8>)> {
    Some(match name {
        "pipe" => |r, line| line.push(if r.tally.pipelined { b'p' } else { b'.' }),
        "time_local" => |_, line| line.extend_from_slice(time::access_log().as_bytes()),
        "time_iso8601" => |_, line| line.extend_from_slice(time::iso8601().as_bytes()),
        "msec" => |_, line| {
            seconds(time::unix_ms(), line);
        },
        "request_time" => |r, line| {
            seconds(request_ms(r), line);
        },
        "status" => |r, line| {
            status_code(r.status(), line);
        },
        "bytes_sent" => |r, line| number(r.tally.sent, line),
        "body_bytes_sent" => |r, line| number(body_bytes_sent(r), line),
        "request_length" => |r, line| number(r.tally.received, line),
        _ => return None,
    })
}

fn number(n: u64, line: &mut Vec<u8>) {
    line.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

impl Escaping {
    /// Escapes what stands in `line` from `start` on.
    fn apply(self, line: &mut Vec<u8>, start: usize) {
        let must = match self {
            Escaping::Default => |b: &u8| !matches!(b, b' '..=b'~') || matches!(b, b'"' | b'\\'),
            Escaping::Json => |b: &u8| *b < b' ' || matches!(b, b'"' | b'\\'),
            Escaping::None => return,
        };
        let Some(first) = line[start..].iter().position(must) else { return };
        let tail = line.split_off(start + first);
        if self == Escaping::Json {
            return push_json(&tail, line);
        }
        for b in &tail {
            match must(b) {
                true => {
                    line.extend([b'\\', b'x', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]])
                }
                false => line.push(*b),
            }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

// ---- files ---------------------------------------------------------------------------------

/// Every file that is logged to, each once.
#[derive(Default)]
struct Sinks(Vec<Rc<Sink>>);

impl Sinks {
    fn of(&mut self, file: Arc<LogFile>) -> Rc<Sink> {
        if let Some(known) = self.0.iter().find(|sink| Arc::ptr_eq(&sink.file, &file)) {
            return known.clone();
        }
        let sink = Rc::new(Sink { file, buffer: RefCell::default(), is_waiting: Cell::default() });
        self.0.push(sink.clone());
        sink
    }
}

/// A file, perhaps with a buffer before it.
struct Sink {
    file: Arc<LogFile>,
    buffer: RefCell<Option<Buffer>>,
    /// A task will flush the buffer.
    is_waiting: Cell<bool>,
}

struct Buffer {
    bytes: Vec<u8>,
    rules: BufferRules,
}

/// `buffer=`, `flush=`, `gzip=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BufferRules {
    size: usize,
    flush: Option<Duration>,
    gzip: Option<u32>,
}

impl Sink {
    /// Writes or buffers a line; gives how much of it.
    fn write(self: &Rc<Sink>, line: &[u8]) -> io::Result<usize> {
        let mut place = self.buffer.borrow_mut();
        let Some(buffer) = &mut *place else { return self.file.append(line) };
        let mut outcome = Ok(line.len());
        if buffer.bytes.len() + line.len() > buffer.rules.size {
            outcome = buffer.empty_into(&self.file).map(|()| line.len());
        }
        if line.len() > buffer.rules.size {
            return write_out(&self.file, line, buffer.rules.gzip).map(|()| line.len());
        }
        buffer.bytes.extend_from_slice(line);
        if let Some(after) = buffer.rules.flush
            && !self.is_waiting.replace(true)
        {
            let sink = self.clone();
            event::spawn(async move {
                event::sleep(after).await;
                sink.is_waiting.set(false);
                sink.flush();
            });
        }
        outcome
    }

    fn flush(&self) {
        if let Some(buffer) = &mut *self.buffer.borrow_mut()
            && let Err(error) = buffer.empty_into(&self.file)
        {
            let (name, why) = (self.file.path().display(), log::Os(&error));
            log::alert!("write() to \"{name}\" failed{why}");
        }
    }
}

impl Buffer {
    /// What cannot be written is lost, so that the buffer stays bounded.
    fn empty_into(&mut self, file: &LogFile) -> io::Result<()> {
        let outcome = match self.bytes.is_empty() {
            true => Ok(()),
            false => write_out(file, &self.bytes, self.rules.gzip),
        };
        self.bytes.clear();
        outcome
    }
}

fn write_out(file: &LogFile, bytes: &[u8], gzip: Option<u32>) -> io::Result<()> {
    let packed;
    let bytes = match gzip {
        None => bytes,
        Some(level) => {
            packed = deflate::gzip(bytes, level);
            &packed
        }
    };
    match file.append(bytes)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(ErrorKind::WriteZero.into()),
    }
}

fn open_log(path: &[u8]) -> io::Result<File> {
    let path = Path::new(OsStr::from_bytes(path));
    File::options().append(true).create(true).open(path)
}

/// `open_log_file_cache`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CacheRules {
    max: usize,
    inactive: Duration,
    min_uses: u32,
    valid: Duration,
}

/// Files of logs whose names have variables, kept open.
struct OpenLogs {
    rules: CacheRules,
    files: RefCell<Lru<OpenLog>>,
}

struct OpenLog {
    file: Option<Rc<File>>,
    checked: Instant,
    used: Instant,
    uses: u32,
}

impl OpenLogs {
    fn new(rules: CacheRules) -> OpenLogs {
        OpenLogs { rules, files: RefCell::default() }
    }

    fn open(&self, path: &[u8], now: Instant) -> io::Result<Rc<File>> {
        let mut files = self.files.borrow_mut();
        let is_idle = |log: &OpenLog| now.duration_since(log.used) > self.rules.inactive;
        while files.oldest().is_some_and(is_idle) {
            files.pop_oldest();
        }
        let mut uses = 1;
        if let Some(known) = files.get(path) {
            known.uses = known.uses.saturating_add(1);
            (known.used, uses) = (now, known.uses);
            if let Some(file) = known.file.clone()
                && now.duration_since(known.checked) < self.rules.valid
            {
                return Ok(file);
            }
        }
        let file = Rc::new(open_log(path)?);
        let kept = (uses >= self.rules.min_uses).then(|| file.clone());
        files.put(path, OpenLog { file: kept, checked: now, used: now, uses });
        if files.len() > self.rules.max {
            files.pop_oldest();
        }
        Ok(file)
    }
}

// ---- directives ----------------------------------------------------------------------------

impl Main {
    fn format(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let (name, mut words) = (&args[0], &args[1..]);
        let taken = r.shelf.of::<Formats>().0.iter().any(|(known, _)| known == name);
        if taken || name == "combined" {
            return Err(Reason::says(format!("duplicate \"log_format\" name \"{name}\"")));
        }
        let mut escaping = Escaping::Default;
        if let Some(how) = words[0].strip_prefix("escape=") {
            escaping = match how {
                "default" => Escaping::Default,
                "json" => Escaping::Json,
                "none" => Escaping::None,
                other => {
                    return Err(Reason::says(format!("unknown log format escaping \"{other}\"")));
                }
            };
            words = &words[1..];
        }
        let format = Format::compile(words, escaping, r.shelf.of::<VariableTable>())?;
        r.shelf.of::<Formats>().0.push((name.clone(), Rc::new(format)));
        Ok(())
    }
}

fn find_format(name: &str, r: &mut Reading) -> Result<Rc<Format>, Reason> {
    let formats = &mut r.shelf.of::<Formats>().0;
    if let Some((_, format)) = formats.iter().find(|(known, _)| known == name) {
        return Ok(format.clone());
    }
    if name != "combined" {
        return Err(Reason::says(format!("unknown log format \"{name}\"")));
    }
    let table = r.shelf.of::<VariableTable>();
    let format = Rc::new(Format::compile(&[COMBINED.into()], Escaping::Default, table)?);
    r.shelf.of::<Formats>().0.push((name.into(), format.clone()));
    Ok(format)
}

/// The parameters of an `access_log`.
#[derive(Default)]
struct Options {
    size: usize,
    flush: Option<Duration>,
    gzip: Option<u32>,
    condition: Option<Template>,
}

/// `buffer` where only `gzip` was given.
const GZIP_BUFFER_BYTES: usize = 64 << 10;

impl Options {
    fn take(&mut self, word: &str, r: &mut Reading) -> Result<(), Reason> {
        let says = |what: &str, text: &str| Reason::says(format!("invalid {what} \"{text}\""));
        if let Some(text) = word.strip_prefix("buffer=") {
            let size = value::size(text).filter(|n| (1..=i32::MAX as u64).contains(n));
            self.size = size.ok_or_else(|| says("buffer size", text))? as usize;
        } else if let Some(text) = word.strip_prefix("flush=") {
            let time = value::time(text, Duration::from_millis(1)).filter(|t| !t.is_zero());
            self.flush = Some(time.ok_or_else(|| says("flush time", text))?);
        } else if word == "gzip" || word.starts_with("gzip=") {
            let text = word.strip_prefix("gzip=").unwrap_or("1");
            let level = value::number(text).filter(|n| (1..=9).contains(n));
            self.gzip = Some(level.ok_or_else(|| says("compression level", text))? as u32);
            if self.size == 0 {
                self.size = GZIP_BUFFER_BYTES;
            }
        } else if let Some(text) = word.strip_prefix("if=") {
            self.condition = Some(Template::parse(text, r)?);
        } else {
            return Err(Reason::InvalidParameter(word.into()));
        }
        Ok(())
    }

    fn buffer(&self, target: &Target, name: &str) -> Result<(), Reason> {
        if self.size == 0 {
            return match self.flush {
                None => Ok(()),
                Some(_) => {
                    Err(Reason::says(format!("no buffer is defined for access_log \"{name}\"")))
                }
            };
        }
        let sink = match target {
            Target::File(sink) => sink,
            Target::Path(_) => {
                return Err(Reason::says("buffered logs cannot have variables in name"));
            }
            Target::Syslog(_) => return Err(Reason::says("logs to syslog cannot be buffered")),
        };
        let rules = BufferRules { size: self.size, flush: self.flush, gzip: self.gzip };
        let mut buffer = sink.buffer.borrow_mut();
        if buffer.as_ref().is_some_and(|known| known.rules != rules) {
            return Err(Reason::says(format!(
                "access_log \"{name}\" already defined with conflicting parameters"
            )));
        }
        buffer.get_or_insert(Buffer { bytes: Vec::new(), rules });
        Ok(())
    }
}

impl RawLoc {
    fn access_log(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        if args[0] == "off" {
            self.off = true;
            return match args.get(1) {
                None => Ok(()),
                Some(more) => Err(Reason::InvalidParameter(more.clone())),
            };
        }
        let target = Target::read(&args[0], r)?;
        let format = find_format(args.get(1).map_or("combined", String::as_str), r)?;
        let mut options = Options::default();
        for word in args.iter().skip(2) {
            options.take(word, r)?;
        }
        options.buffer(&target, &args[0])?;
        let (condition, trouble) = (options.condition, Trouble::default());
        self.logs.push(Rc::new(Log { target, format, condition, trouble }));
        Ok(())
    }

    fn cache(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.cache.is_some() {
            return Err(Reason::Duplicate);
        }
        let secs = Duration::from_secs;
        let mut rules = CacheRules { max: 0, inactive: secs(10), min_uses: 1, valid: secs(60) };
        let mut off = false;
        for word in r.args() {
            let invalid =
                || Reason::says(format!("invalid \"open_log_file_cache\" parameter \"{word}\""));
            let count = |text| value::number(text).ok_or_else(invalid);
            let time = |text| value::seconds(text).ok_or_else(invalid);
            match word.split_once('=') {
                Some(("max", text)) => rules.max = count(text)? as usize,
                Some(("min_uses", text)) => rules.min_uses = count(text)? as u32,
                Some(("inactive", text)) => rules.inactive = time(text)?,
                Some(("valid", text)) => rules.valid = time(text)?,
                None if word == "off" => off = true,
                _ => return Err(invalid()),
            }
        }
        if !off && rules.max == 0 {
            return Err(Reason::says("\"open_log_file_cache\" must have \"max\" parameter"));
        }
        self.cache = Some((!off).then_some(rules));
        Ok(())
    }
}

impl Target {
    fn read(name: &str, r: &mut Reading) -> Result<Target, Reason> {
        if let Some(about) = name.strip_prefix("syslog:") {
            return Ok(Target::Syslog(Syslog::parse(about).map_err(Reason::Says)?));
        }
        let path = r.paths.in_prefix(name);
        if name.contains('$') {
            return Ok(Target::Path(Template::parse(&path.to_string_lossy(), r)?));
        }
        let file = r.shelf.of::<Files>().add(&path);
        Ok(Target::File(r.shelf.of::<Sinks>().of(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(escaping: Escaping, text: &[u8]) -> String {
        let mut line = b"\"kept: ".to_vec();
        let start = line.len();
        line.extend_from_slice(text);
        escaping.apply(&mut line, start);
        String::from_utf8_lossy(&line[start..]).into_owned()
    }

    #[test]
    fn values_cannot_forge_lines() {
        assert_eq!(escaped(Escaping::Default, b"plain ~"), "plain ~");
        assert_eq!(
            escaped(Escaping::Default, b"a\"b\\c\n\x7f\xe4"),
            "a\\x22b\\x5Cc\\x0A\\x7F\\xE4"
        );
        assert_eq!(
            escaped(Escaping::Json, b"a\"b\\\n\r\t\x08\x0c\x1f"),
            "a\\\"b\\\\\\n\\r\\t\\b\\f\\u001F"
        );
        assert_eq!(escaped(Escaping::Json, "\u{e4}\u{7f}".as_bytes()), "\u{e4}\u{7f}");
        assert_eq!(escaped(Escaping::None, b"a\"\n"), "a\"\n");
    }

    #[test]
    fn formats_become_steps() {
        let shape = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).into()).collect();
            let format = Format::compile(&words, Escaping::Default, &mut VariableTable::default());
            let show = |step: &Step| match step {
                Step::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
                Step::Plain(_) => "plain".into(),
                Step::Variable(v) => format!("${}", v.name()),
            };
            format.map(|f| f.steps.iter().map(show).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(shape(&["$a-$status ", "x${b}y"]).unwrap(), "$a '-' plain ' ' 'x' $b 'y'");
        assert_eq!(shape(&["$"]), Err(Reason::InvalidParameter("$".into())));
        assert_eq!(shape(&["a $-"]), Err(Reason::InvalidParameter("$-".into())));
        assert_eq!(
            shape(&["${a"]),
            Err(Reason::says("the closing bracket in \"a\" variable is missing"))
        );
    }

    fn sink(dir: &Path, rules: Option<BufferRules>) -> Rc<Sink> {
        let mut files = Files::default();
        let file = files.add(&dir.join("log"));
        files.open().unwrap();
        let sink = Sinks::default().of(file);
        *sink.buffer.borrow_mut() = rules.map(|rules| Buffer { bytes: Vec::new(), rules });
        sink
    }

    #[test]
    fn a_buffer_is_written_when_full() {
        let dir = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(dir.path().join("log")).unwrap();
        let rules = BufferRules { size: 8, flush: None, gzip: None };
        let sink = sink(dir.path(), Some(rules));
        sink.write(b"one\n").unwrap();
        sink.write(b"two\n").unwrap();
        assert_eq!(read(), "");
        sink.write(b"three\n").unwrap();
        assert_eq!(read(), "one\ntwo\n");
        sink.write(b"much longer\n").unwrap();
        assert_eq!(read(), "one\ntwo\nthree\nmuch longer\n");
        sink.write(b"end\n").unwrap();
        sink.flush();
        sink.flush();
        assert_eq!(read(), "one\ntwo\nthree\nmuch longer\nend\n");
    }

    #[test]
    fn without_a_buffer_each_line_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), None);
        assert_eq!(sink.write(b"one\n").unwrap(), 4);
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"one\n");
    }

    #[test]
    fn compressed_logs_are_members_one_after_another() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), Some(BufferRules { size: 4, flush: None, gzip: Some(4) }));
        sink.write(b"one\n").unwrap();
        sink.write(b"two\n").unwrap();
        sink.flush();
        let file = File::open(dir.path().join("log")).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn logs_with_names_of_their_own_are_kept_open() {
        let dir = tempfile::tempdir().unwrap();
        let secs = Duration::from_secs;
        let rules = CacheRules { max: 2, inactive: secs(10), min_uses: 2, valid: secs(60) };
        let (cache, now) = (OpenLogs::new(rules), Instant::now());
        let open = |name: &str, after: u64| {
            let path = dir.path().join(name);
            cache.open(path.as_os_str().as_bytes(), now + secs(after)).unwrap()
        };
        let first = open("a", 0);
        let second = open("a", 1);
        assert!(!Rc::ptr_eq(&first, &second));
        assert!(Rc::ptr_eq(&second, &open("a", 2)));
        open("b", 3);
        open("c", 3);
        assert_eq!(cache.files.borrow().len(), 2);
        assert!(!Rc::ptr_eq(&second, &open("a", 30)));
        assert_eq!(cache.files.borrow().len(), 1);
    }
}
