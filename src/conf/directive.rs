//! Directive tables: a name, where it may stand, and the field it fills.
//!
//! A module groups its directives by the struct that they fill and finds a statement with
//! [`set_from`]. The closure `|c| &mut c.field` of a row is the field's address, checked by the
//! compiler.

use super::{Reading, Reason, value};
use std::time::Duration;

/// A set of blocks that a directive may stand in.
pub type Context = u32;

/// The top of the file.
pub const MAIN: Context = 1;
/// `events {}`
pub const EVENTS: Context = 1 << 1;
/// `http {}`
pub const HTTP: Context = 1 << 2;
/// `server {}` in http
pub const SRV: Context = 1 << 3;
/// `location {}`
pub const LOC: Context = 1 << 4;
/// `upstream {}`
pub const UPS: Context = 1 << 5;
/// `if {}` in a server
pub const SIF: Context = 1 << 6;
/// `if {}` in a location
pub const LIF: Context = 1 << 7;
/// `limit_except {}`
pub const LMT: Context = 1 << 8;
/// `stream {}`
pub const STREAM: Context = 1 << 9;
/// `server {}` in stream
pub const STREAM_SRV: Context = 1 << 10;
/// `upstream {}` in stream
pub const STREAM_UPS: Context = 1 << 11;
/// `agent {}`
pub const AGENT: Context = 1 << 12;
/// http, server and location
pub const ANY_HTTP: Context = HTTP | SRV | LOC;

/// How many arguments a statement takes, its name not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    min: usize,
    max: usize,
    block: bool,
}

/// Exactly `n` arguments.
pub const fn exactly(n: usize) -> Arity {
    Arity { min: n, max: n, block: false }
}
/// `min` to `max` arguments.
pub const fn between(min: usize, max: usize) -> Arity {
    Arity { min, max, block: false }
}
/// `min` or more arguments.
pub const fn at_least(min: usize) -> Arity {
    Arity { min, max: usize::MAX, block: false }
}

/// Gives the field that a directive fills.
pub type Field<T, V> = fn(&mut T) -> &mut Option<V>;

/// How a directive's value is read and stored.
pub enum Set<T> {
    /// `on` or `off`
    Flag(Field<T, bool>),
    /// a number within bounds
    Num(i64, i64, Field<T, i64>),
    /// bytes: `8k`
    Size(Field<T, u64>),
    /// a time, bare numbers in seconds, milliseconds allowed
    Msec(Field<T, Duration>),
    /// a time in whole seconds
    Sec(Field<T, Duration>),
    /// one word as it stands
    Text(Field<T, String>),
    /// count and size: `8 4k`
    Bufs(Field<T, (u64, u64)>),
    /// one of the named words
    Choice(&'static [&'static str], Field<T, &'static str>),
    /// anything else
    Call(Arity, fn(&mut T, &mut Reading) -> Result<(), Reason>),
}

/// One row of a module's table.
pub struct Directive<T: 'static> {
    /// The name in the file.
    pub name: &'static str,
    /// Where it may stand.
    pub at: Context,
    /// What it does.
    pub set: Set<T>,
}

/// A row: `d("keepalive_time", ANY_HTTP, msec(|c| &mut c.keepalive_time))`.
pub const fn d<T>(name: &'static str, at: Context, set: Set<T>) -> Directive<T> {
    Directive { name, at, set }
}
/// `on|off`
pub const fn flag<T>(field: Field<T, bool>) -> Set<T> {
    Set::Flag(field)
}
/// A number from `min` to `max`.
pub const fn num<T>(min: i64, max: i64, field: Field<T, i64>) -> Set<T> {
    Set::Num(min, max, field)
}
/// Bytes.
pub const fn size<T>(field: Field<T, u64>) -> Set<T> {
    Set::Size(field)
}
/// A time with milliseconds.
pub const fn msec<T>(field: Field<T, Duration>) -> Set<T> {
    Set::Msec(field)
}
/// A time in whole seconds.
pub const fn sec<T>(field: Field<T, Duration>) -> Set<T> {
    Set::Sec(field)
}
/// One word.
pub const fn text<T>(field: Field<T, String>) -> Set<T> {
    Set::Text(field)
}
/// `number size`
pub const fn bufs<T>(field: Field<T, (u64, u64)>) -> Set<T> {
    Set::Bufs(field)
}
/// One of `words`.
pub const fn choice<T>(words: &'static [&'static str], field: Field<T, &'static str>) -> Set<T> {
    Set::Choice(words, field)
}
/// A simple directive with a setter of its own.
pub const fn call<T>(arity: Arity, set: fn(&mut T, &mut Reading) -> Result<(), Reason>) -> Set<T> {
    Set::Call(arity, set)
}
/// A block with a setter of its own, which reads the block by [`Reading::block`] or
/// [`Reading::rows`].
pub const fn block<T>(arity: Arity, set: fn(&mut T, &mut Reading) -> Result<(), Reason>) -> Set<T> {
    Set::Call(Arity { block: true, ..arity }, set)
}

/// Looks the open statement up in `table` and, if it may stand `here`, stores it in `target`.
///
/// `None`: the table does not know the name. `Some(Err(NotAllowedHere))`: it does, but not here
/// (another table may still know it here).
pub fn set_from<T>(
    table: &[Directive<T>],
    here: Context,
    target: &mut T,
    reading: &mut Reading,
) -> Option<Result<(), Reason>> {
    let mut known = false;
    for row in table {
        if row.name == reading.name() {
            known = true;
            if row.at & here != 0 {
                return Some(row.store(target, reading));
            }
        }
    }
    known.then_some(Err(Reason::NotAllowedHere))
}

impl<T> Directive<T> {
    fn store(&self, target: &mut T, r: &mut Reading) -> Result<(), Reason> {
        let arity = self.arity();
        if arity.block && !r.opens_block() {
            return Err(Reason::NeedsBlock);
        }
        if !arity.block && r.opens_block() {
            return Err(Reason::NoBlock);
        }
        let count = r.args().len();
        if count < arity.min || count > arity.max {
            return Err(Reason::WrongArity);
        }
        match &self.set {
            Set::Flag(field) => fill(field(target), || r.flag_value()),
            Set::Num(min, max, field) => fill(field(target), || {
                let n = value::number(r.arg(0)).and_then(|n| i64::try_from(n).ok());
                let n = n.ok_or_else(|| {
                    let (text, name) = (r.arg(0), r.name());
                    Reason::says(format!("invalid number \"{text}\" in \"{name}\" directive"))
                })?;
                let fits = (*min..=*max).contains(&n);
                if fits { Ok(n) } else { Err(Reason::OutOfRange(*min, *max)) }
            }),
            Set::Size(field) => fill(field(target), || valid(value::size(r.arg(0)))),
            Set::Msec(field) => fill(field(target), || valid(value::milliseconds(r.arg(0)))),
            Set::Sec(field) => fill(field(target), || valid(value::seconds(r.arg(0)))),
            Set::Text(field) => fill(field(target), || Ok(r.arg(0).to_owned())),
            Set::Bufs(field) => fill(field(target), || {
                let count = value::number(r.arg(0)).filter(|n| *n > 0);
                let size = value::size(r.arg(1)).filter(|n| *n > 0);
                valid(count.zip(size))
            }),
            Set::Choice(words, field) => fill(field(target), || {
                let word = words.iter().find(|w| w.eq_ignore_ascii_case(r.arg(0)));
                word.copied().ok_or_else(|| Reason::says(format!("invalid value \"{}\"", r.arg(0))))
            }),
            Set::Call(_, set) => set(target, r),
        }
    }

    /// How many arguments the row takes.
    pub fn arity(&self) -> Arity {
        match &self.set {
            Set::Bufs(_) => exactly(2),
            Set::Call(arity, _) => *arity,
            _ => exactly(1),
        }
    }

    /// What the reference says of the row: name, contexts, argument shape.
    pub fn describe(&self) -> Described {
        let args = match &self.set {
            Set::Flag(_) => "on | off".to_owned(),
            Set::Num(..) => "number".to_owned(),
            Set::Size(_) => "size".to_owned(),
            Set::Msec(_) | Set::Sec(_) => "time".to_owned(),
            Set::Text(_) => "string".to_owned(),
            Set::Bufs(_) => "number size".to_owned(),
            Set::Choice(words, _) => words.join(" | "),
            Set::Call(arity, _) => arity.describe(),
        };
        Described { name: self.name, at: self.at, args, block: self.arity().block }
    }
}

/// One line of the directive reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Directive.
    pub name: &'static str,
    /// Where it may stand.
    pub at: Context,
    /// Shape of its arguments.
    pub args: String,
    /// Whether a `{ … }` follows.
    pub block: bool,
}

impl Arity {
    fn describe(&self) -> String {
        match (self.min, self.max) {
            (0, 0) => "—".to_owned(),
            (a, b) if a == b => format!("{a} argument{}", if a == 1 { "" } else { "s" }),
            (a, usize::MAX) => format!("{a} or more arguments"),
            (a, b) => format!("{a} to {b} arguments"),
        }
    }
}

/// The names of the blocks in `at`, for the reference.
pub fn context_names(at: Context) -> Vec<&'static str> {
    const NAMES: [(Context, &str); 13] = [
        (MAIN, "main"),
        (EVENTS, "events"),
        (HTTP, "http"),
        (SRV, "server"),
        (LOC, "location"),
        (UPS, "upstream"),
        (SIF, "if in server"),
        (LIF, "if in location"),
        (LMT, "limit_except"),
        (STREAM, "stream"),
        (STREAM_SRV, "stream server"),
        (STREAM_UPS, "stream upstream"),
        (AGENT, "agent"),
    ];
    NAMES.iter().filter(|(bit, _)| at & bit != 0).map(|(_, name)| *name).collect()
}

fn fill<V>(slot: &mut Option<V>, read: impl FnOnce() -> Result<V, Reason>) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    *slot = Some(read()?);
    Ok(())
}

fn valid<V>(value: Option<V>) -> Result<V, Reason> {
    value.ok_or(Reason::InvalidValue)
}
