//! `rewrite`, `set`, `if`, `return`, `break`: a small program per level, run in order.
//!
//! It belongs to the house and not to a module, because `if` makes locations and `rewrite` sends
//! the request back to finding one. Reads: the directives of nginx's rewrite module.

use super::Request;
use super::phase::Verdict;
use super::place::Location;
use super::regex::Regex;
use super::template::Template;
use super::variable::{VarRef, VariableTable, name_of};
use crate::conf::{Reading, Reason, value};
use crate::log;
use crate::proto::escape::{Escape, Unescape, unescape};
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// One step of the program.
pub enum Op {
    /// `set $var value`
    Set(VarRef, Template),
    /// `rewrite regex replacement [flag]`
    Rewrite(Box<Rewrite>),
    /// `return code [text]` or `return URL`
    Return(Return),
    /// A module's computation, in place of a `set`: the value, or the status that ends it.
    Compute(VarRef, Computation),
    /// `break`
    Break,
    /// `if (condition) { … }`: its steps, and the place it moves the request to (an index into
    /// the level's `ifs`)
    If(Box<Condition>, Box<[Op]>, Option<usize>),
}

/// A value that a module computes among the rewrites.
pub type Computation = Box<dyn Fn(&mut Request) -> Result<Vec<u8>, u16>>;

/// Steps that a module's directive wants where it stands; on the reading's shelf until the
/// statement is over.
#[derive(Default)]
pub struct WantedOps(pub Vec<Op>);

/// A `rewrite`.
pub struct Rewrite {
    regex: Regex,
    /// The path of the replacement (or the whole URL of a redirect).
    path: Template,
    /// What stands behind a `?` of the replacement.
    args: Option<Template>,
    /// The replacement ended in `?`: the old arguments are dropped.
    drops_args: bool,
    then: Then,
    log_level_notice: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    Last,
    Break,
    Redirect(u16),
}

/// A `return`.
pub struct Return {
    code: u16,
    text: Option<Template>,
}

/// The condition of an `if`.
pub enum Condition {
    /// `$var`, true if neither empty nor `0`
    True(Template),
    /// `=` or, if the flag is set, `!=`
    Equal(Template, Template, bool),
    /// `~`, `~*`; negated by the flag
    Matches(Template, Regex, bool),
    /// `-f`, `-d`, `-e`, `-x`; negated by the flag
    File(FileTest, Template, bool),
}

/// What a file may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`
    File,
    /// `-d`
    Dir,
    /// `-e`
    Exists,
    /// `-x`
    Executable,
}

/// How it goes on after a program.
pub enum Flow {
    /// The phase goes on (perhaps with a new URI).
    Next,
    /// The request is answered or sent elsewhere.
    Done(Verdict),
}

/// What one step decided.
enum Step {
    On,
    /// The rest of the program is skipped.
    Stop,
    Done(Verdict),
}

/// Runs a level's program.
pub fn run(ops: &[Op], r: &mut Request) -> Flow {
    if ops.is_empty() {
        return Flow::Next;
    }
    let level = r.place.location.clone();
    match steps(ops, &level, r) {
        Step::Done(verdict) => Flow::Done(verdict),
        _ => Flow::Next,
    }
}

fn steps(ops: &[Op], level: &Rc<Location>, r: &mut Request) -> Step {
    for op in ops {
        let step = match op {
            Op::Set(variable, value) => {
                let value = value.value(r).into_owned();
                r.set_variable(variable, &value);
                Step::On
            }
            Op::Compute(variable, compute) => match compute(r) {
                Ok(value) => {
                    r.set_variable(variable, &value);
                    Step::On
                }
                Err(status) => Step::Done(Verdict::Finish(status)),
            },
            Op::Rewrite(rewrite) => rewrite.apply(r),
            Op::Return(answer) => Step::Done(answer.apply(r)),
            Op::Break => {
                if r.place.uri_changed {
                    r.place.uri_changed = false;
                    r.place.is_original = false;
                    r.place.begins_as_named = false;
                }
                Step::Stop
            }
            Op::If(condition, inner, place) => {
                if condition.holds(r) {
                    if let Some(location) = place.and_then(|i| level.ifs.get(i)) {
                        r.place.location = location.clone();
                    }
                    steps(inner, level, r)
                } else {
                    Step::On
                }
            }
        };
        if !matches!(step, Step::On) {
            return step;
        }
    }
    Step::On
}

impl Rewrite {
    fn apply(&self, r: &mut Request) -> Step {
        let uri = r.place.uri.clone();
        if !self.regex.matches(r, &uri) {
            if self.log_level_notice {
                log::notice!(
                    &*r,
                    "\"{}\" does not match \"{}\"",
                    self.regex.source(),
                    log::Raw(&uri)
                );
            }
            return Step::On;
        }
        if self.log_level_notice {
            log::notice!(&*r, "\"{}\" matches \"{}\"", self.regex.source(), log::Raw(&uri));
        }
        // Captures of a path that was decoded are encoded again where they leave it.
        let was_quoted = r.head.text(r.head.target).iter().any(|b| matches!(b, b'%' | b'+'));
        let is_redirect = matches!(self.then, Then::Redirect(_));
        let value = |template: &Template, leaves: bool| {
            let mut out = Vec::new();
            match leaves && was_quoted {
                true => template.append_escaping_captures(r, Escape::Args, &mut out),
                false => template.append(r, &mut out),
            }
            out
        };
        let path = value(&self.path, is_redirect);
        let mut args = self.args.as_ref().map(|a| value(a, true));
        if !self.drops_args && !r.place.args.is_empty() {
            join_args(args.get_or_insert_default(), &r.place.args);
        }
        if let Then::Redirect(code) = self.then {
            let mut plain = Vec::with_capacity(path.len());
            let read = unescape(&path, Unescape::Redirect, &mut plain);
            plain.extend_from_slice(&path[read.min(path.len())..]);
            let mut path = plain;
            if let Some(args) = args.filter(|a| !a.is_empty()) {
                path.push(b'?');
                path.extend_from_slice(&args);
            }
            if self.log_level_notice {
                log::notice!(&*r, "rewritten redirect: \"{}\"", log::Raw(&path));
            }
            return Step::Done(redirect(r, code, &path));
        }
        if path.is_empty() {
            log::error!(&*r, "the rewritten URI has a zero length");
            return Step::Done(Verdict::Finish(500));
        }
        if self.log_level_notice {
            log::notice!(
                &*r,
                "rewritten data: \"{}\", args: \"{}\"",
                log::Raw(&path),
                log::Raw(args.as_deref().unwrap_or_default())
            );
        }
        r.place.uri = path;
        if self.drops_args || args.is_some() {
            r.place.args = args.unwrap_or_default();
        }
        r.place.is_original = false;
        r.place.internal = true;
        r.place.uri_changed = self.then != Then::Break;
        if self.then == Then::Break {
            r.place.begins_as_named = false;
        }
        if self.then == Then::Continue { Step::On } else { Step::Stop }
    }
}

/// The old arguments follow the new ones.
fn join_args(args: &mut Vec<u8>, old: &[u8]) {
    if !args.is_empty() {
        args.push(b'&');
    }
    args.extend_from_slice(old);
}

/// Answers with `Location: to`.
pub fn redirect(r: &mut Request, code: u16, to: &[u8]) -> Verdict {
    r.reply.fields.remove(HeaderId::Location);
    r.reply.fields.push(HeaderId::Location, to);
    Verdict::Finish(code)
}

/// Answers a URI that lacks the slash of its location or directory.
pub fn redirect_to_slash(r: &mut Request) -> Verdict {
    let mut to = Vec::with_capacity(r.place.uri.len() + r.place.args.len() + 8);
    Escape::Uri.push(&r.place.uri, &mut to);
    to.push(b'/');
    if !r.place.args.is_empty() {
        to.push(b'?');
        to.extend_from_slice(&r.place.args);
    }
    redirect(r, 301, &to)
}

impl Return {
    fn apply(&self, r: &mut Request) -> Verdict {
        let is_redirect = matches!(self.code, 301 | 302 | 303 | 307 | 308);
        let value = match &self.text {
            Some(text) => text.value(r).into_owned(),
            None if self.code >= 400 || is_redirect => return Verdict::Finish(self.code),
            None => Vec::new(),
        };
        if is_redirect {
            return redirect(r, self.code, &value);
        }
        r.body.discard_later();
        let content_type = r.place.location.core.content_type_of(r);
        r.answer(self.code, content_type.as_deref(), super::body::Body::bytes(value));
        Verdict::Reply
    }
}

impl Condition {
    fn holds(&self, r: &mut Request) -> bool {
        match self {
            Condition::True(value) => value.is_true(r),
            Condition::Equal(a, b, negated) => (a.value(r) == b.value(r)) != *negated,
            Condition::Matches(value, regex, negated) => {
                let value = value.value(r).into_owned();
                regex.matches(r, &value) != *negated
            }
            Condition::File(test, path, negated) => {
                let path = path.value(r).into_owned();
                test.holds(&path) != *negated
            }
        }
    }

    /// Reads the words of `if ( … )`.
    ///
    /// Errors: nginx's `invalid condition "…"`.
    pub fn parse(words: &[String], r: &mut Reading) -> Result<Condition, Reason> {
        let invalid = |text: &str| Reason::says(format!("invalid condition \"{text}\""));
        let mut words: Vec<String> = words.to_vec();
        let Some(first) = words.first().cloned() else { return Err(Reason::WrongArity) };
        if !first.starts_with('(') {
            return Err(invalid(&first));
        }
        words[0].remove(0);
        let last = words.last_mut().expect("there is a first word");
        if last.pop() != Some(')') {
            return Err(invalid(words.last().map_or("", |w| w)));
        }
        if words.last().is_some_and(String::is_empty) && words.len() > 1 {
            words.pop();
        }
        if words.len() > 1 && words[0].is_empty() {
            words.remove(0);
        }
        let parse = |text: &str, r: &mut Reading| Template::parse(text, r);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [var] if var.len() > 1 && var.starts_with('$') => {
                Ok(Condition::True(parse_variable(var, r)?))
            }
            [var, op @ ("=" | "!="), other] if var.starts_with('$') => {
                let var = parse_variable(var, r)?;
                Ok(Condition::Equal(var, parse(other, r)?, op == "!="))
            }
            [var, op @ ("~" | "~*" | "!~" | "!~*"), regex] if var.starts_with('$') => {
                let var = parse_variable(var, r)?;
                let regex = Regex::compile(regex, op.ends_with('*'), r)?;
                Ok(Condition::Matches(var, regex, op.starts_with('!')))
            }
            [op, path] if op.starts_with('-') || op.starts_with("!-") => {
                let test = match op.trim_start_matches('!') {
                    "-f" => FileTest::File,
                    "-d" => FileTest::Dir,
                    "-e" => FileTest::Exists,
                    "-x" => FileTest::Executable,
                    _ => return Err(invalid(op)),
                };
                Ok(Condition::File(test, parse(path, r)?, op.starts_with('!')))
            }
            [_, op, _] => Err(Reason::says(format!("unexpected \"{op}\" in condition"))),
            _ => Err(invalid(words.first().copied().unwrap_or_default())),
        }
    }
}

fn parse_variable(text: &str, r: &mut Reading) -> Result<Template, Reason> {
    name_of(text)?;
    Template::parse(text, r)
}

impl FileTest {
    fn holds(self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::PermissionsExt;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
        let Ok(meta) = std::fs::metadata(path) else { return false };
        match self {
            FileTest::File => meta.is_file(),
            FileTest::Dir => meta.is_dir(),
            FileTest::Exists => true,
            FileTest::Executable => meta.permissions().mode() & 0o100 != 0,
        }
    }
}

/// Reads `set $var value`.
pub fn read_set(r: &mut Reading) -> Result<Op, Reason> {
    let args = r.take_args();
    let name = name_of(&args[0])?;
    let value = Template::parse(&args[1], r)?;
    let variable = r.shelf.of::<VariableTable>().assign(name)?;
    Ok(Op::Set(variable, value))
}

/// Reads `rewrite regex replacement [last|break|redirect|permanent]`.
pub fn read_rewrite(r: &mut Reading) -> Result<Op, Reason> {
    let args = r.take_args();
    let regex = Regex::compile(&args[0], false, r)?;
    let replacement = args[1].as_str();
    let is_url = ["http://", "https://", "$scheme"].iter().any(|p| replacement.starts_with(p));
    let then = match args.get(2).map(String::as_str) {
        None if is_url => Then::Redirect(302),
        None => Then::Continue,
        Some("last") if is_url => Then::Redirect(302),
        Some("break") if is_url => Then::Redirect(302),
        Some("last") => Then::Last,
        Some("break") => Then::Break,
        Some("redirect") => Then::Redirect(302),
        Some("permanent") => Then::Redirect(301),
        Some(other) => return Err(Reason::InvalidParameter(other.into())),
    };
    let (path, args, drops_args) = match replacement.split_once('?') {
        Some((path, "")) => (path, None, true),
        Some((path, args)) => match args.strip_suffix('?') {
            Some(args) => (path, Some(args), true),
            None => (path, Some(args), false),
        },
        None => (replacement, None, false),
    };
    let path = Template::parse(path, r)?;
    let args = args.map(|a| Template::parse(a, r)).transpose()?;
    let rewrite = Rewrite { regex, path, args, drops_args, then, log_level_notice: false };
    Ok(Op::Rewrite(Box::new(rewrite)))
}

/// Reads `return code [text|URL]` or `return URL`.
pub fn read_return(r: &mut Reading) -> Result<Op, Reason> {
    let args = r.take_args();
    let is_url = ["http://", "https://", "$scheme"].iter().any(|p| args[0].starts_with(p));
    let code = value::number(&args[0]).filter(|n| *n <= 999);
    let (code, text) = match (code, args.get(1)) {
        (None, None) if is_url => (302, Some(args[0].as_str())),
        (None, _) => {
            return Err(Reason::says(format!("invalid return code \"{}\"", args[0])));
        }
        (Some(code), text) => (code as u16, text.map(String::as_str)),
    };
    let text = text.map(|t| Template::parse(t, r)).transpose()?;
    Ok(Op::Return(Return { code, text }))
}

/// Turns on `rewrite_log` for a program.
pub fn set_logging(ops: &mut [Op], on: bool) {
    for op in ops {
        match op {
            Op::Rewrite(rewrite) => rewrite.log_level_notice = on,
            Op::If(_, inner, _) => set_logging(inner, on),
            _ => {}
        }
    }
}
