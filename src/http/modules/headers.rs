//! `add_header`, `add_trailer`, `expires`: fields that the operator adds to replies.
//!
//! Reads: `expires`, `add_header`, `add_trailer`, `add_header_inherit`, `add_trailer_inherit`.
//! Runs as: header filter.

use crate::conf::*;
use crate::http::{Fields, Filtered, HttpModule, Merging, Pipeline, Request, Template};
use crate::proto::date;
use crate::proto::header::HeaderId;
use crate::sys::time::{self, Calendar};
use std::rc::Rc;

pub struct Headers;

const WITH_IF: Context = ANY_HTTP | LIF;

impl HttpModule for Headers {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("expires",             WITH_IF, call(between(1, 2), RawLoc::expires)),
        d("add_header",          WITH_IF, call(between(2, 3), |c, r| add(&mut c.headers, r))),
        d("add_trailer",         WITH_IF, call(between(2, 3), |c, r| add(&mut c.trailers, r))),
        d("add_header_inherit",  WITH_IF, choice(INHERIT, |c| &mut c.headers_inherit)),
        d("add_trailer_inherit", WITH_IF, choice(INHERIT, |c| &mut c.trailers_inherit)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        let headers_inherit = raw.headers_inherit.unwrap_or(up.headers_inherit);
        let trailers_inherit = raw.trailers_inherit.unwrap_or(up.trailers_inherit);
        Ok(Loc {
            expires: raw.expires.unwrap_or_else(|| up.expires.clone()),
            headers: inherit(raw.headers, &up.headers, headers_inherit),
            trailers: inherit(raw.trailers, &up.trailers, trailers_inherit),
            headers_inherit,
            trailers_inherit,
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        let has_expires = !matches!(loc.expires, Expires::Off);
        if has_expires || !loc.headers.is_empty() || !loc.trailers.is_empty() {
            let loc = loc.clone();
            p.filter(move |r| headers(&loc, r));
        }
    }
}

const INHERIT: &[&str] = &["off", "on", "merge"];

#[derive(Default)]
pub struct RawLoc {
    expires: Option<Expires>,
    headers: Vec<Rc<Added>>,
    trailers: Vec<Rc<Added>>,
    headers_inherit: Option<&'static str>,
    trailers_inherit: Option<&'static str>,
}

pub struct Loc {
    expires: Expires,
    headers: Rc<[Rc<Added>]>,
    trailers: Rc<[Rc<Added>]>,
    headers_inherit: &'static str,
    trailers_inherit: &'static str,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            expires: Expires::Off,
            headers: Rc::new([]),
            trailers: Rc::new([]),
            headers_inherit: "on",
            trailers_inherit: "on",
        }
    }
}

/// One `add_header` or `add_trailer`.
pub struct Added {
    name: Box<str>,
    id: HeaderId,
    value: Template,
    always: bool,
}

/// Times are in seconds.
#[derive(Clone, Debug)]
pub enum Expires {
    Off,
    Epoch,
    Max,
    /// From now.
    Access(i64),
    /// From the last modification.
    Modified(i64),
    /// The next time that the clock shows this, from midnight.
    Daily(i64),
    /// Known per request; the flag is `modified`.
    Variable(Template, bool),
}

fn inherit(own: Vec<Rc<Added>>, up: &Rc<[Rc<Added>]>, how: &str) -> Rc<[Rc<Added>]> {
    match how {
        "off" => own.into(),
        "merge" => own.into_iter().chain(up.iter().cloned()).collect(),
        _ if own.is_empty() => up.clone(),
        _ => own.into(),
    }
}

// ---- the filter ----------------------------------------------------------------------------

fn headers(loc: &Rc<Loc>, r: &mut Request) -> Filtered {
    if r.is_subrequest {
        return Filtered::Pass;
    }
    let safe = is_safe(r.reply.status);
    if safe {
        expire(&loc.expires, r);
    }
    for added in loc.headers.iter().filter(|added| safe || added.always) {
        let value = added.value.value(r).into_owned();
        put(added, &value, r);
    }
    if loc.trailers.iter().any(|added| safe || added.always) {
        let loc = loc.clone();
        r.reply.makes_trailers = Some(Box::new(move |r, out| trailers(&loc, r, out)));
    }
    Filtered::Pass
}

/// The statuses whose replies get fields without `always`.
fn is_safe(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn put(added: &Added, value: &[u8], r: &mut Request) {
    match added.id {
        HeaderId::LastModified => {
            r.reply.last_modified = date::parse(value);
            r.reply.fields.remove(HeaderId::LastModified);
            if r.reply.last_modified.is_none() && !value.is_empty() {
                r.reply.fields.push(HeaderId::LastModified, value);
            }
        }
        HeaderId::Etag => {
            let tag = String::from_utf8_lossy(value);
            r.reply.etag = (!tag.is_empty()).then(|| (&*tag).into());
        }
        _ if value.is_empty() => {}
        _ => r.reply.fields.push_named(added.name.as_bytes(), value),
    }
}

fn trailers(loc: &Loc, r: &Request, out: &mut Fields) {
    let safe = is_safe(r.reply.status);
    for added in loc.trailers.iter().filter(|added| safe || added.always) {
        let value = added.value.value(r);
        if !value.is_empty() {
            out.push_named(added.name.as_bytes(), &value);
        }
    }
}

fn expire(expires: &Expires, r: &mut Request) {
    let resolved = match expires {
        Expires::Variable(template, modified) => {
            Expires::parse(&template.text(r), *modified).unwrap_or(Expires::Off)
        }
        known => known.clone(),
    };
    let (mut at, mut control) = (time::http_date(), String::new());
    let now = time::unix_seconds();
    let mut until = |when: i64| {
        at = Calendar::utc(when).http_date();
        control = match when - now {
            past if past < 0 => "no-cache".into(),
            age => format!("max-age={age}"),
        };
    };
    match resolved {
        Expires::Off | Expires::Variable(..) => return,
        Expires::Epoch => {
            at = Calendar::utc(1).http_date();
            control = "no-cache".into();
        }
        Expires::Max => {
            at = Calendar::utc(MAX_DATE).http_date();
            control = "max-age=315360000".into();
        }
        Expires::Daily(when) => until(next_time(now, when)),
        Expires::Access(0) | Expires::Modified(0) => control = "max-age=0".into(),
        Expires::Access(age) => until(now.saturating_add(age)),
        Expires::Modified(age) => {
            until(r.reply.last_modified.unwrap_or(now).saturating_add(age));
            if age < 0 {
                control = "no-cache".into();
            }
        }
    }
    r.reply.fields.set(HeaderId::Expires, at.as_bytes());
    r.reply.fields.set(HeaderId::CacheControl, control.as_bytes());
}

/// Thu, 31 Dec 2037 23:55:55 GMT
const MAX_DATE: i64 = 2_145_916_555;
const DAY: i64 = 86_400;

/// The next moment at which the local clock shows `when` seconds after midnight.
fn next_time(now: i64, when: i64) -> i64 {
    let today = Calendar::local(now);
    let since_midnight = i64::from(today.hour * 3600 + today.minute * 60 + today.second);
    let at = now - since_midnight + when;
    if at > now { at } else { at + DAY }
}

// ---- directives ----------------------------------------------------------------------------

impl RawLoc {
    fn expires(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.expires.is_some() {
            return Err(Reason::Duplicate);
        }
        let args = r.take_args();
        let (modified, text) = match &args[..] {
            [word, text] if word == "modified" => (true, text),
            [_, _] => return Err(Reason::InvalidValue),
            _ => (false, &args[0]),
        };
        let template = Template::parse(text, r)?;
        self.expires = Some(match template.constant() {
            None => Expires::Variable(template, modified),
            Some(_) => Expires::parse(text, modified)
                .map_err(|what| Reason::says(format!("\"expires\" directive {what}")))?,
        });
        Ok(())
    }
}

impl Expires {
    fn parse(text: &str, modified: bool) -> Result<Expires, &'static str> {
        match text {
            "epoch" if !modified => return Ok(Expires::Epoch),
            "max" if !modified => return Ok(Expires::Max),
            "off" if !modified => return Ok(Expires::Off),
            _ => {}
        }
        let seconds = |text: &str| {
            let time = value::seconds(text).and_then(|t| i64::try_from(t.as_secs()).ok());
            time.ok_or("invalid value")
        };
        if let Some(clock) = text.strip_prefix('@') {
            if modified {
                return Err("daily time cannot be used with \"modified\" parameter");
            }
            let when = seconds(clock)?;
            if when > DAY {
                return Err("daily time value must be less than 24 hours");
            }
            return Ok(Expires::Daily(when));
        }
        let age = match text.strip_prefix('-') {
            Some(text) => -seconds(text)?,
            None => seconds(text.strip_prefix('+').unwrap_or(text))?,
        };
        Ok(if modified { Expires::Modified(age) } else { Expires::Access(age) })
    }
}

fn add(list: &mut Vec<Rc<Added>>, r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let always = match args.get(2).map(String::as_str) {
        None => false,
        Some("always") => true,
        Some(other) => return Err(Reason::InvalidParameter(other.into())),
    };
    let (name, id) = (args[0].as_str().into(), HeaderId::of(args[0].as_bytes()));
    list.push(Rc::new(Added { name, id, value: Template::parse(&args[1], r)?, always }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_expires() {
        let show = |text: &str, modified: bool| match Expires::parse(text, modified) {
            Ok(known) => format!("{known:?}"),
            Err(what) => what.to_owned(),
        };
        for (text, modified, want) in [
            ("24h", false, "Access(86400)"),
            ("+1m", false, "Access(60)"),
            ("-1", false, "Access(-1)"),
            ("1d", true, "Modified(86400)"),
            ("epoch", false, "Epoch"),
            ("max", false, "Max"),
            ("off", false, "Off"),
            ("off", true, "invalid value"),
            ("@15h30m", false, "Daily(55800)"),
            ("@25h", false, "daily time value must be less than 24 hours"),
            ("@1h", true, "daily time cannot be used with \"modified\" parameter"),
            ("", false, "invalid value"),
            ("1x", false, "invalid value"),
        ] {
            assert_eq!(show(text, modified), want, "{text}");
        }
    }

    #[test]
    fn a_daily_time_is_in_the_next_day_at_most() {
        let now = 1_795_561_265;
        for when in [0, 1, 43_200, DAY] {
            let next = next_time(now, when);
            assert!(next > now && next <= now + DAY, "{when}");
        }
    }
}
