//! `more_set_headers`, `more_set_input_headers` and their `clear` forms: any field of a request or
//! a reply is set or removed (OpenResty's headers-more module).
//!
//! Reads: `more_set_headers`, `more_clear_headers`, `more_set_input_headers`,
//! `more_clear_input_headers`.
//! Runs as: header filter; at the end of the rewrite phase. Two modules, as the two run at
//! different places among the others.

use crate::conf::*;
use crate::http::{Filtered, HttpModule, Merging, Phase, Pipeline, Reply, Request};
use crate::http::{Template, Verdict};
use crate::log;
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// Fields of replies.
pub struct HeadersMore;

/// Fields of requests.
pub struct InputHeadersMore;

const PLACES: Context = ANY_HTTP | LIF;

impl HttpModule for HeadersMore {
    type Main = ();
    type RawLoc = Changes;
    type Loc = Changes;

    #[rustfmt::skip]
    const LOC: &'static [Directive<Changes>] = &[
        d("more_set_headers",   PLACES, call(at_least(1), |c, r| c.read(r, Kind::SetReply))),
        d("more_clear_headers", PLACES, call(at_least(1), |c, r| c.read(r, Kind::ClearReply))),
    ];

    fn merge(raw: Changes, up: &Changes, _: &mut Merging) -> Result<Changes, Reason> {
        Ok(raw.below(up))
    }

    fn install(loc: &Rc<Changes>, p: &mut Pipeline) {
        if !loc.0.is_empty() {
            let loc = loc.clone();
            p.filter(move |r| change_reply(&loc, r));
        }
    }
}

impl HttpModule for InputHeadersMore {
    type Main = ();
    type RawLoc = Changes;
    type Loc = Changes;

    #[rustfmt::skip]
    const LOC: &'static [Directive<Changes>] = &[
        d("more_set_input_headers",   PLACES, call(at_least(1), |c, r| c.read(r, Kind::SetInput))),
        d("more_clear_input_headers", PLACES, call(at_least(1), |c, r| c.read(r, Kind::ClearInput))),
    ];

    fn merge(raw: Changes, up: &Changes, _: &mut Merging) -> Result<Changes, Reason> {
        Ok(raw.below(up))
    }

    fn install(loc: &Rc<Changes>, p: &mut Pipeline) {
        if !loc.0.is_empty() {
            let loc = loc.clone();
            p.on(Phase::Rewrite, move |r| change_request(&loc, r));
        }
    }
}

/// The directives of one place, in order: those of the places around it come first.
#[derive(Default)]
pub struct Changes(Vec<Rc<Change>>);

/// One directive.
struct Change {
    /// Only where the message has one of these types; empty is any.
    types: Vec<String>,
    /// Only for these statuses; empty is any.
    statuses: Vec<u16>,
    /// Fields of that name stay (`-a`).
    appends: bool,
    /// Only what is there already (`-r`).
    replaces_only: bool,
    fields: Vec<NewField>,
}

struct NewField {
    name: String,
    /// The name is a prefix: it was written with `*`.
    is_prefix: bool,
    value: Template,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SetReply,
    ClearReply,
    SetInput,
    ClearInput,
}

impl Changes {
    fn below(mut self, up: &Changes) -> Changes {
        self.0.splice(0..0, up.0.iter().cloned());
        self
    }

    fn read(&mut self, r: &mut Reading, kind: Kind) -> Result<(), Reason> {
        let (directive, args) = (r.name().to_owned(), r.take_args());
        let says = |what: String| Reason::says(format!("{directive}: {what}"));
        let mut change = Change {
            types: Vec::new(),
            statuses: Vec::new(),
            appends: false,
            replaces_only: false,
            fields: Vec::new(),
        };
        let mut args = args.iter().filter(|arg| !arg.is_empty());
        while let Some(arg) = args.next() {
            let list = |given: Option<&String>| {
                let list = given.ok_or_else(|| says(format!("option {arg} takes an argument.")))?;
                Ok::<_, Reason>(list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            };
            match (arg.as_str(), kind) {
                ("-t", _) => change.types.extend(list(args.next())?),
                ("-s", Kind::SetReply | Kind::ClearReply) => {
                    for word in list(args.next())? {
                        let status = word.parse().ok().filter(|status| (1..=999).contains(status));
                        let bad = || says(format!("invalid digit found in status code \"{word}\""));
                        change.statuses.push(status.ok_or_else(bad)?);
                    }
                }
                ("-a", Kind::SetReply) => change.appends = true,
                ("-r", Kind::SetInput) => change.replaces_only = true,
                (option, _) if option.starts_with('-') => {
                    return Err(says(format!("invalid option name: \"{option}\"")));
                }
                (text, _) => change.fields.push(new_field(text, kind, r).map_err(says_in(&says))?),
            }
        }
        if let Some(field) = change.fields.iter().find(|field| has_own_place(&field.name))
            && change.appends
        {
            return Err(says(format!("can not append builtin headers \"{}\"", field.name)));
        }
        self.0.push(Rc::new(change));
        Ok(())
    }
}

/// What is wrong with a field: a sentence of ours, or that of the value's variables.
enum NoField {
    Says(String),
    Value(Reason),
}

fn says_in(says: &impl Fn(String) -> Reason) -> impl Fn(NoField) -> Reason {
    move |no| match no {
        NoField::Says(what) => says(what),
        NoField::Value(reason) => reason,
    }
}

/// Reads `Name: value`, `Name:` or `Name`.
fn new_field(text: &str, kind: Kind, r: &mut Reading) -> Result<NewField, NoField> {
    let is_end = |c: char| c == ':' || c.is_ascii_whitespace();
    let text = text.trim_start();
    let (name, value) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    if name.is_empty() {
        return Err(NoField::Says(format!("no key found in the header argument: {text}")));
    }
    let is_prefix = name.ends_with('*');
    if is_prefix && name.len() < 2 {
        return Err(NoField::Says(format!("wildcard key too short: {text}")));
    }
    let value = match kind {
        Kind::ClearReply | Kind::ClearInput => "",
        _ => value.trim_start_matches(is_end),
    };
    let value = Template::parse(value, r).map_err(NoField::Value)?;
    Ok(NewField { name: name.trim_end_matches('*').to_owned(), is_prefix, value })
}

/// Fields of a reply that stand once.
fn has_own_place(name: &str) -> bool {
    Reply::has_own_place(name.as_bytes())
        || matches!(
            HeaderId::of(name.as_bytes()),
            HeaderId::Location
                | HeaderId::ContentRange
                | HeaderId::AcceptRanges
                | HeaderId::WwwAuthenticate
                | HeaderId::Expires
                | HeaderId::CacheControl
        )
}

impl Change {
    fn is_of_type(&self, media: Option<&str>) -> bool {
        let media = media.unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim_end();
        self.types.is_empty() || self.types.iter().any(|known| known == media)
    }
}

fn change_reply(changes: &Changes, r: &mut Request) -> Filtered {
    for change in &changes.0 {
        let status = r.reply.status;
        let is_meant = change.statuses.is_empty() || change.statuses.contains(&status);
        if !is_meant || !change.is_of_type(r.reply.content_type.as_deref()) {
            continue;
        }
        for field in &change.fields {
            let value = field.value.value(r).into_owned();
            if field.is_prefix {
                r.reply.fields.retain(|known| !field.is_meant(known.name));
                continue;
            }
            let values = if value.is_empty() { Vec::new() } else { vec![value] };
            if !r.reply.put_field(field.name.as_bytes(), &values, !change.appends) {
                log::error!(&*r, "the value of \"{}\" is not valid", field.name);
                return Filtered::Instead(500);
            }
        }
    }
    Filtered::Pass
}

fn change_request(changes: &Changes, r: &mut Request) -> Verdict {
    for change in &changes.0 {
        let media = r.header(HeaderId::ContentType).map(String::from_utf8_lossy);
        if !change.is_of_type(media.as_deref()) {
            continue;
        }
        for field in &change.fields {
            let name = field.name.as_bytes();
            let value = field.value.value(r).into_owned();
            if field.is_prefix {
                let head = Rc::make_mut(&mut r.head);
                head.fields.retain(|known| !field.is_meant(known.name));
                continue;
            }
            if change.replaces_only && r.head.fields.get_named(name).is_none() {
                continue;
            }
            let values = if value.is_empty() { Vec::new() } else { vec![value] };
            if !r.put_field(name, &values, true) {
                log::error!(&*r, "the value of \"{}\" is not valid", field.name);
                return Verdict::Finish(400);
            }
        }
    }
    Verdict::Decline
}

impl NewField {
    /// Whether a field of this name begins as the pattern does.
    fn is_meant(&self, name: &[u8]) -> bool {
        let start = name.get(..self.name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(self.name.as_bytes()))
    }
}
