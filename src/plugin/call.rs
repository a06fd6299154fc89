//! One call of a plugin for a request: what it may ask and change, and what its verdict means.
//!
//! All of it is safe code; `native` brings pointers in and out. Whatever a plugin does against its
//! contract is noted by [`blame`]; whoever called the plugin finds it with [`take_blame`].

use crate::http::keyval::{KeyvalZone, KeyvalZones, Refused};
use crate::http::variable::VariableBook;
use crate::http::{Body, Reply, Request, Verdict};
use crate::log::{self, Area, Level, Raw};
use crate::proto::header::HeaderId;
use crate::sys::time::{self, Calendar};
use std::cell::Cell;
use std::rc::Rc;
use tollbar_shm::Value;
use tollbar_shm::dict::Error;

/// Bytes of a field's name that a plugin may give.
const NAME_MAX_BYTES: usize = 256;
/// Bytes of a field's value that a plugin may give.
const VALUE_MAX_BYTES: usize = 64 << 10;

thread_local! {
    /// A process runs one callback at a time: one place is enough.
    static BLAME: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Notes what the running callback did wrong; the first thing counts.
pub fn blame(what: &'static str) {
    BLAME.set(BLAME.get().or(Some(what)));
}

/// What was noted since the last time.
pub fn take_blame() -> Option<&'static str> {
    BLAME.take()
}

/// What a function of the host answers: the `TOLLBAR_…` of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok = 0,
    None = 1,
    Invalid = 2,
    NotNow = 3,
    NoDict = 4,
    NoRoom = 5,
}

/// Which callback runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Rewrite,
    Access,
    HeaderFilter,
    Log,
}

impl Stage {
    /// The callback's name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Rewrite => "rewrite",
            Stage::Access => "access",
            Stage::HeaderFilter => "header_filter",
            Stage::Log => "log",
        }
    }

    /// The answer may still be made.
    fn is_before_content(self) -> bool {
        matches!(self, Stage::Rewrite | Stage::Access)
    }
}

/// What calls look things up in.
#[derive(Default)]
pub struct Tools {
    pub zones: KeyvalZones,
    pub variables: VariableBook,
}

/// A request inside one callback.
pub struct Call<'a> {
    pub r: &'a mut Request,
    pub stage: Stage,
    pub plugin: &'a str,
    tools: &'a Tools,
    /// What was handed out; it lives until the callback has returned.
    given: Vec<Rc<[u8]>>,
    has_replied: bool,
}

impl<'a> Call<'a> {
    pub fn new(r: &'a mut Request, stage: Stage, plugin: &'a str, tools: &'a Tools) -> Call<'a> {
        Call { r, stage, plugin, tools, given: Vec::new(), has_replied: false }
    }

    /// Keeps bytes for as long as the call lasts.
    pub fn give(&mut self, bytes: &[u8]) -> &[u8] {
        self.given.push(bytes.into());
        self.given.last().map_or(&[], |given| given)
    }

    pub fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let mut value = Vec::new();
        self.tools.variables.get(self.r, &name, &mut value).then_some(value)
    }

    /// A field of the reply; some have places of their own.
    pub fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let reply = &self.r.reply;
        match HeaderId::of(name) {
            HeaderId::ContentType => {
                let mut media = Vec::new();
                reply.push_content_type(&mut media).then_some(media)
            }
            HeaderId::ContentLength => reply.length.map(|length| length.to_string().into_bytes()),
            HeaderId::LastModified if reply.last_modified.is_some() => {
                let date = |at| Calendar::utc(at).http_date().as_bytes().to_vec();
                reply.last_modified.map(date)
            }
            HeaderId::Etag => reply.etag.as_ref().map(|tag| tag.as_bytes().to_vec()),
            _ => reply.fields.get_named(name).map(<[u8]>::to_vec),
        }
    }

    pub fn set_request_header(&mut self, name: &[u8], value: Option<&[u8]>) -> Answer {
        if !self.stage.is_before_content() {
            return Answer::NotNow;
        }
        if !is_field(name, value) {
            return Answer::Invalid;
        }
        match self.r.put_field(name, &values(value), true) {
            true => Answer::Ok,
            false => Answer::Invalid,
        }
    }

    pub fn set_response_header(&mut self, name: &[u8], value: Option<&[u8]>) -> Answer {
        if self.stage == Stage::Log {
            return Answer::NotNow;
        }
        if !is_field(name, value) {
            return Answer::Invalid;
        }
        put_reply_field(&mut self.r.reply, name, value)
    }

    pub fn set_response_status(&mut self, status: i32) -> Answer {
        if self.stage != Stage::HeaderFilter {
            return Answer::NotNow;
        }
        let Some(status) = reply_status(status) else { return Answer::Invalid };
        (self.r.reply.status, self.r.reply.reason) = (status, None);
        Answer::Ok
    }

    pub fn reply(&mut self, status: i32, content_type: Option<&[u8]>, body: &[u8]) -> Answer {
        if !self.stage.is_before_content() {
            return Answer::NotNow;
        }
        let Some(status) = reply_status(status) else { return Answer::Invalid };
        if content_type.is_some_and(|media| !is_field(b"content-type", Some(media))) {
            return Answer::Invalid;
        }
        let media = content_type.map(String::from_utf8_lossy);
        self.r.answer(status, media.as_deref(), Body::bytes(body.to_vec()));
        self.has_replied = true;
        Answer::Ok
    }

    pub fn log(&self, level: Level, text: &[u8]) {
        if log::reaches(level) {
            let (plugin, text) = (self.plugin, one_line(text));
            let text = format_args!("plugin {plugin}: {}", Raw(&text));
            log::write_for(&*self.r, level, Area::Http, text);
        }
    }

    pub fn dict_get(&self, dict: &[u8], key: &[u8]) -> Result<Vec<u8>, Answer> {
        let zone = self.zone(dict)?;
        let mut value = Vec::new();
        let is_there = zone.look_up(key, time::unix_ms(), &mut value);
        is_there.then_some(value).ok_or(Answer::None)
    }

    pub fn dict_set(
        &self,
        dict: &[u8],
        key: &[u8],
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<(), Answer> {
        let (zone, value) = (self.zone(dict)?, Value::String(value));
        zone.set(key, value, lifetime(ttl_ms), time::unix_ms()).map_err(refusal)
    }

    pub fn dict_incr(
        &self,
        dict: &[u8],
        key: &[u8],
        (by, start): (f64, f64),
        ttl_ms: u64,
    ) -> Result<f64, Answer> {
        let zone = self.zone(dict)?;
        if !by.is_finite() || !start.is_finite() {
            return Err(Answer::Invalid);
        }
        zone.incr(key, by, start, lifetime(ttl_ms), time::unix_ms()).map_err(refusal)
    }

    pub fn dict_delete(&self, dict: &[u8], key: &[u8]) -> Result<(), Answer> {
        self.zone(dict)?.delete(key).map_err(refusal)
    }

    fn zone(&self, name: &[u8]) -> Result<Rc<KeyvalZone>, Answer> {
        let name = std::str::from_utf8(name).map_err(|_| Answer::NoDict)?;
        self.tools.zones.find(name).ok_or(Answer::NoDict)
    }

    /// What the number means that the callback returned; or what is wrong with it.
    pub fn judge(&self, returned: i32) -> Result<Verdict, String> {
        judge(self.stage, self.has_replied, returned)
    }
}

fn judge(stage: Stage, has_replied: bool, returned: i32) -> Result<Verdict, String> {
    let is_status = (400..=599).contains(&returned);
    match (returned, stage) {
        (0, _) if !has_replied => Ok(Verdict::Decline),
        (1, Stage::Access) if !has_replied => Ok(Verdict::Settle),
        (2, _) if has_replied => Ok(Verdict::Reply),
        (2, _) => Err("returned TOLLBAR_REPLY without a reply".into()),
        (other, _) if has_replied => Err(format!("made a reply and returned {other}")),
        (444, Stage::HeaderFilter) => Err("returned the verdict 444".into()),
        (status, Stage::Rewrite | Stage::Access | Stage::HeaderFilter) if is_status => {
            Ok(Verdict::Finish(status as u16))
        }
        (other, _) => Err(format!("returned the unknown verdict {other}")),
    }
}

/// A log line is one line, whatever a plugin puts into it.
pub fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|b| if b.is_ascii_control() { b' ' } else { *b }).collect()
}

/// A status of a reply that a plugin makes; one that is none is its fault.
fn reply_status(status: i32) -> Option<u16> {
    let known = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    if known.is_none() {
        blame("gave a reply a status that is none");
    }
    known
}

fn values(value: Option<&[u8]>) -> Vec<Vec<u8>> {
    value.into_iter().map(<[u8]>::to_vec).collect()
}

fn put_reply_field(reply: &mut Reply, name: &[u8], value: Option<&[u8]>) -> Answer {
    match reply.put_field(name, &values(value), true) {
        true => Answer::Ok,
        false => Answer::Invalid,
    }
}

/// Whether a plugin may set such a field: it is one, and says nothing of the message's framing.
fn is_field(name: &[u8], value: Option<&[u8]>) -> bool {
    use HeaderId::{Connection, ContentLength, TransferEncoding};
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_value = |b: &u8| !b.is_ascii_control() || *b == b'\t';
    let value = value.unwrap_or_default();
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.iter().all(is_name)
        && value.len() <= VALUE_MAX_BYTES
        && value.iter().all(is_value)
        && ![Connection, ContentLength, TransferEncoding].contains(&HeaderId::of(name))
}

fn lifetime(ttl_ms: u64) -> Option<u64> {
    (ttl_ms != 0).then_some(ttl_ms)
}

fn refusal(refused: Refused) -> Answer {
    match refused {
        Refused::NoAddress | Refused::BadKey => Answer::Invalid,
        Refused::Dict(Error::NoMemory { .. } | Error::Stuck(_)) => Answer::NoRoom,
        Refused::Dict(_) => Answer::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_fits_its_callback() {
        use Stage::*;
        assert_eq!(judge(Rewrite, false, 0), Ok(Verdict::Decline));
        assert_eq!(judge(Access, false, 1), Ok(Verdict::Settle));
        assert_eq!(judge(Access, false, 403), Ok(Verdict::Finish(403)));
        assert_eq!(judge(Rewrite, true, 2), Ok(Verdict::Reply));
        assert_eq!(judge(HeaderFilter, false, 502), Ok(Verdict::Finish(502)));
        for (stage, has_replied, returned) in [
            (Rewrite, false, 1),
            (Access, false, 2),
            (Access, true, 0),
            (Access, true, 403),
            (Access, false, -1),
            (Access, false, 200),
            (Access, false, 600),
            (HeaderFilter, false, 1),
            (HeaderFilter, false, 444),
            (Rewrite, false, i32::MIN),
        ] {
            let what = judge(stage, has_replied, returned);
            assert!(what.is_err(), "{stage:?} {has_replied} {returned}");
        }
    }

    #[test]
    fn fields_that_would_break_a_message_are_none() {
        assert!(is_field(b"X-A", Some(b"b\tc \xe4")) && is_field(b"x", None));
        for (name, value) in [
            (&b""[..], &b"x"[..]),
            (b"X A", b"x"),
            (b"X:", b"x"),
            (b"X", b"a\r\nY: b"),
            (b"X", b"a\0"),
            (b"content-LENGTH", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Connection", b"close"),
            (&[b'x'; NAME_MAX_BYTES + 1], b""),
            (b"X", &[b'x'; VALUE_MAX_BYTES + 1]),
        ] {
            assert!(!is_field(name, Some(value)), "{}", Raw(name));
        }
    }
}
