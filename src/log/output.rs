//! Where a line goes: a chain of targets, the log of the process, and the terminal at start.
use super::{Area, Context, Level, Levels, Line, LogFile, Syslog};
use crate::sys::{process, time};
use std::fmt::{Arguments, Write};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// A set of targets with their levels; cheap to clone. Two places with the same `error_log`
/// directives share one.
#[derive(Clone, Debug)]
pub struct Log(Arc<Vec<Target>>);

#[derive(Debug)]
pub(super) struct Target {
    pub levels: Levels,
    pub output: Output,
}

#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    File(Arc<LogFile>),
    Syslog(Arc<Syslog>),
}

impl Log {
    pub(super) fn of(targets: Vec<Target>) -> Log {
        let log = Log(Arc::new(targets));
        ALIVE.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&log.0));
        deepen(log.deepest());
        log
    }

    /// A log with one target, the terminal: what a process has before it read anything.
    pub fn stderr(level: Level) -> Log {
        Log::of(vec![Target { levels: Levels::up_to(level), output: Output::Stderr }])
    }

    /// A log with one file.
    pub fn file(file: Arc<LogFile>, level: Level) -> Log {
        Log::of(vec![Target { levels: Levels::up_to(level), output: Output::File(file) }])
    }

    /// The first file among the targets; it takes the process's standard error over.
    pub fn first_file(&self) -> Option<&Arc<LogFile>> {
        self.0.iter().find_map(|target| match &target.output {
            Output::File(file) => Some(file),
            _ => None,
        })
    }

    /// True if standard error itself is a target.
    pub fn has_stderr(&self) -> bool {
        self.0.iter().any(|target| matches!(target.output, Output::Stderr))
    }

    /// True if some target takes messages of this level (debug: of any area).
    pub fn takes(&self, level: Level) -> bool {
        level <= self.deepest()
    }

    fn deepest(&self) -> Level {
        deepest(&self.0)
    }

    fn write(&self, ctx: Option<&dyn Context>, level: Level, area: Area, text: Arguments<'_>) {
        let debugged = ctx.is_some_and(|ctx| ctx.debugged());
        let wanted = |target: &Target| debugged || target.levels.allow(level, area);
        if !self.0.iter().any(wanted) {
            return;
        }
        let console = TO_STDERR.load(Relaxed) && level <= Level::Warn;
        let mut line = Line::new();
        write_prefix(&mut line, level);
        let told = line.as_bytes().len();
        write_message(&mut line, ctx, level, text);
        super::capture::keep(level, line.as_bytes());
        let line = line.finish();
        let mut on_stderr = false;
        for target in self.0.iter().filter(|target| wanted(target)) {
            on_stderr |= matches!(target.output, Output::Stderr);
            target.output.put(self, level, line);
        }
        if console && !on_stderr {
            let _ = write!(std::io::stderr(), "nginx: [{}] ", level.name());
            let _ = std::io::stderr().write_all(&line[told..]);
        }
    }

    /// Tells the other targets of a syslog peer that could not be reached.
    fn complain(&self, peer: &Syslog, level: Level, text: Arguments<'_>) {
        let mut line = Line::new();
        write_prefix(&mut line, level);
        let _ = write!(line, "{text} while logging to syslog, server: {}", peer.server());
        let line = line.finish();
        for target in self.0.iter().filter(|target| target.levels.allow(level, Area::Core)) {
            match &target.output {
                Output::Syslog(_) => {}
                output => output.put(self, level, line),
            }
        }
    }
}

impl Output {
    fn put(&self, log: &Log, level: Level, line: &[u8]) {
        match self {
            Output::Stderr => drop(std::io::stderr().write_all(line)),
            Output::File(file) => file.append_line(line),
            Output::Syslog(peer) => {
                let message = &line[..line.len() - 1];
                if let Err((what, error)) = peer.send(level.into(), message) {
                    let (what, why) = (what.text(), super::Os(&error));
                    log.complain(peer, what.1, format_args!("{}{why}", what.0));
                }
            }
        }
    }
}

fn write_prefix(line: &mut Line, level: Level) {
    line.append(time::error_log().as_bytes());
    line.append(b" [");
    line.append(level.name().as_bytes());
    line.append(b"] ");
    line.push_number(process::id().into());
    line.append(b"#");
    line.push_number(process::thread_id().into());
    line.append(b": ");
}

fn write_message(line: &mut Line, ctx: Option<&dyn Context>, level: Level, text: Arguments<'_>) {
    let number = ctx.map_or(0, |ctx| ctx.connection());
    if number != 0 {
        line.append(b"*");
        line.push_number(number);
        line.append(b" ");
    }
    // `Line` never refuses; a `Display` that fails leaves its part out.
    let _ = line.write_fmt(text);
    if let Some(ctx) = ctx.filter(|_| level != Level::Debug) {
        ctx.describe(line);
    }
}

/// The log of the process; before a configuration was read, the terminal.
static CURRENT: RwLock<Option<Log>> = RwLock::new(None);
/// The most talkative level any log of the process wants: the macros' cheap check.
static DEPTH: AtomicU8 = AtomicU8::new(Level::Notice as u8);
/// Every log there is: their levels make [`DEPTH`].
static ALIVE: Mutex<Vec<Weak<Vec<Target>>>> = Mutex::new(Vec::new());
/// Whether grave messages also go to the terminal: until the process has started for good.
static TO_STDERR: AtomicBool = AtomicBool::new(true);

/// Makes `log` the log of the process (all threads).
pub fn install(log: Log) {
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = Some(log);
}

/// The log of the process.
pub fn current() -> Log {
    let log = CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone();
    log.unwrap_or_else(|| Log(Arc::new(Vec::new())))
}

/// Whether messages of level `warn` and graver are repeated on the terminal as `nginx: [warn] …`.
pub fn to_stderr(yes: bool) {
    TO_STDERR.store(yes, Relaxed);
}

/// True if some log of the process may want this level. Costs one load.
#[inline]
pub fn reaches(level: Level) -> bool {
    level as u8 <= DEPTH.load(Relaxed)
}

/// Lets messages up to `level` through to the targets.
fn deepen(level: Level) {
    DEPTH.fetch_max(level as u8, Relaxed);
}

/// Finds out anew which levels somebody wants, after logs of an older configuration are gone.
/// Never less than `warn`: those may go to the terminal.
pub fn settle() {
    let mut alive = ALIVE.lock().unwrap_or_else(PoisonError::into_inner);
    alive.retain(|log| log.strong_count() > 0);
    let wanted = alive.iter().filter_map(Weak::upgrade).map(|targets| deepest(&targets)).max();
    let debugged = super::debugged::is_anybody().then_some(Level::Debug);
    let depth = wanted.max(debugged).unwrap_or(Level::Warn).max(Level::Warn);
    DEPTH.store(depth as u8, Relaxed);
}

fn deepest(targets: &[Target]) -> Level {
    targets.iter().map(|target| target.levels.deepest()).max().unwrap_or(Level::Emerg)
}

/// Writes to the log of the process. Callers use the macros.
#[cold]
pub fn write(level: Level, area: Area, text: Arguments<'_>) {
    current().write(None, level, area, text);
}

/// Writes to the log of `ctx`. Callers use the macros.
#[cold]
pub fn write_for(ctx: &dyn Context, level: Level, area: Area, text: Arguments<'_>) {
    ctx.log().unwrap_or_else(current).write(Some(ctx), level, area, text);
}

/// Tells the operator at the terminal: `nginx: text`.
pub fn say(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "nginx: {text}");
}

#[cfg(test)]
mod tests {
    use super::super::{self as log, Files};
    use super::*;

    struct Client;
    impl Context for Client {
        fn connection(&self) -> u64 {
            17
        }
        fn describe(&self, line: &mut Line) {
            line.push(b", client: 192.0.2.1");
        }
    }

    struct At<'a>(&'a Log, &'a dyn Context);
    impl Context for At<'_> {
        fn log(&self) -> Option<Log> {
            Some(self.0.clone())
        }
        fn connection(&self) -> u64 {
            self.1.connection()
        }
        fn describe(&self, line: &mut Line) {
            self.1.describe(line);
        }
    }

    #[test]
    fn a_line_reads_as_nginx_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        let mut files = Files::default();
        let file = files.add(&path);
        files.open().unwrap();
        let log = Log::file(file, Level::Error);
        let why = std::io::Error::from_raw_os_error(111);
        log::error!(&At(&log, &Client), "connect() failed{}", log::Os(&why));
        log::warn!(&At(&log, &Client), "not wanted here");
        let text = std::fs::read_to_string(&path).unwrap();
        let pid = std::process::id();
        let (time, rest) = text.split_at(19);
        assert!(time.is_char_boundary(4) && &time[4..5] == "/" && &time[13..14] == ":", "{time}");
        let tid = rest.split(['#', ':']).nth(1).unwrap();
        assert_eq!(
            rest,
            format!(
                " [error] {pid}#{tid}: *17 connect() failed (111: Connection refused), \
                 client: 192.0.2.1\n"
            )
        );
    }

    #[test]
    fn a_level_nobody_wants_is_not_formatted() {
        struct Bomb;
        impl std::fmt::Display for Bomb {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("formatted")
            }
        }
        let log = Log::stderr(Level::Emerg);
        log.write(None, Level::Debug, Area::Core, format_args!("{Bomb}"));
    }
}
