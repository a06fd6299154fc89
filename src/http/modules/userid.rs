//! `userid`: a cookie that tells one browser from another, and its number in the log.
//!
//! A number is four words: where it was given, when, by which process, and as which of its
//! numbers. Runs as: header filter. What the module knows of a request is kept beside the values
//! of variables, because `$uid_set` may be asked for while the request is only borrowed.

use crate::conf::*;
use crate::http::{
    Builtin, Filtered, HttpModule, Merging, Pipeline, Request, VarRef, VariableTable, var,
};
use crate::log;
use crate::proto::header::HeaderId;
use crate::proto::params;
use crate::sys::time::Calendar;
use crate::sys::{process, time};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The module.
pub struct UserId;

impl HttpModule for UserId {
    type Main = Main;
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("userid",         ANY_HTTP, call(exactly(1), RawLoc::mode)),
        d("userid_service", ANY_HTTP, num(0, u32::MAX as i64, |c| &mut c.service)),
        d("userid_name",    ANY_HTTP, text(|c| &mut c.name)),
        d("userid_domain",  ANY_HTTP, text(|c| &mut c.domain)),
        d("userid_path",    ANY_HTTP, text(|c| &mut c.path)),
        d("userid_expires", ANY_HTTP, call(exactly(1), RawLoc::expires)),
        d("userid_flags",   ANY_HTTP, call(between(1, 3), RawLoc::flags)),
        d("userid_p3p",     ANY_HTTP, text(|c| &mut c.p3p)),
        d("userid_mark",    ANY_HTTP, call(exactly(1), RawLoc::mark)),
    ];
    const VARIABLES: &'static [Builtin] = &[var("uid_got", got), var("uid_set", set)];
    const CHANGEABLE: &'static [Builtin] = &[var("uid_reset", |_, _| true)];

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        if m.shelf.of::<Used>().0 {
            let table = m.shelf.of::<VariableTable>();
            main.notes = Some(table.compute("userid's notes", true, Rc::new(|_, _| false))?);
            main.reset = Some(table.refer("uid_reset"));
        }
        Ok(())
    }

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        let attribute = |own: Option<String>, up: &Rc<str>| own.map_or(up.clone(), Rc::from);
        Ok(Loc {
            mode: raw.mode.unwrap_or(up.mode),
            service: raw.service.map(|n| n as u32).or(up.service),
            name: attribute(raw.name, &up.name),
            domain: attribute(raw.domain, &up.domain),
            path: attribute(raw.path, &up.path),
            expires: raw.expires.unwrap_or(up.expires),
            flags: raw.flags.unwrap_or(up.flags),
            p3p: attribute(raw.p3p, &up.p3p),
            mark: raw.mark.unwrap_or(up.mark),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if matches!(loc.mode, Mode::V1 | Mode::On) {
            let loc = loc.clone();
            p.filter(move |r| give_cookie(&loc, r));
        }
    }
}

/// The variables that the module itself uses; there if `userid` was written somewhere.
#[derive(Default)]
pub struct Main {
    notes: Option<VarRef>,
    reset: Option<VarRef>,
}

/// On the reading's shelf: `userid` was written.
#[derive(Default)]
struct Used(bool);

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    mode: Option<Mode>,
    service: Option<i64>,
    name: Option<String>,
    domain: Option<String>,
    path: Option<String>,
    expires: Option<Expires>,
    flags: Option<Flags>,
    p3p: Option<String>,
    mark: Option<Option<u8>>,
}

/// What is in force.
pub struct Loc {
    mode: Mode,
    service: Option<u32>,
    name: Rc<str>,
    /// `none` and nothing are the same.
    domain: Rc<str>,
    path: Rc<str>,
    expires: Expires,
    flags: Flags,
    p3p: Rc<str>,
    mark: Option<u8>,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            mode: Mode::Off,
            service: None,
            name: "uid".into(),
            domain: "".into(),
            path: "/".into(),
            expires: Expires::Session,
            flags: Flags::default(),
            p3p: "".into(),
            mark: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    /// Received cookies are told to the log, none is set.
    Log,
    /// Version 1: words in the machine's own order.
    V1,
    /// Version 2: words in network order.
    On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expires {
    Session,
    After(Duration),
    Max,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    secure: bool,
    httponly: bool,
    strict: bool,
    lax: bool,
    none: bool,
}

/// A number, as the bytes of a cookie hold it.
type Uid = [u32; 4];

// ---- one request ---------------------------------------------------------------------------

/// What is known of one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Notes {
    /// The number that the cookie will say; its last word is not 0 if there is one.
    set: Uid,
    /// It is a new number although the client sent one.
    reset: bool,
    /// What the client sent.
    cookie: Vec<u8>,
}

fn give_cookie(loc: &Loc, r: &mut Request) -> Filtered {
    if r.is_subrequest {
        return Filtered::Pass;
    }
    let mut notes = Notes::of(r, loc);
    notes.settle(r, loc);
    if notes.set[3] != 0 {
        let value = set_cookie(loc, &notes);
        r.reply.fields.push(HeaderId::SetCookie, &value);
        if !matches!(&*loc.p3p, "" | "none") {
            r.reply.fields.push_named(b"P3P", loc.p3p.as_bytes());
        }
    }
    Filtered::Pass
}

fn got(r: &Request, out: &mut Vec<u8>) -> bool {
    let loc = r.conf::<UserId>();
    if loc.mode == Mode::Off {
        return false;
    }
    let uid = Notes::of(r, loc).got();
    uid.is_some_and(|uid| push_uid(loc, uid, out))
}

fn set(r: &Request, out: &mut Vec<u8>) -> bool {
    let loc = r.conf::<UserId>();
    if matches!(loc.mode, Mode::Off | Mode::Log) {
        return false;
    }
    let mut notes = Notes::of(r, loc);
    notes.settle(r, loc);
    notes.set[3] != 0 && push_uid(loc, notes.set, out)
}

fn push_uid(loc: &Loc, uid: Uid, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(said(loc, uid).as_bytes());
    true
}

fn said(loc: &Loc, [a, b, c, d]: Uid) -> String {
    format!("{}={a:08X}{b:08X}{c:08X}{d:08X}", loc.name)
}

impl Notes {
    /// What was noted before, or what the client sent.
    fn of(r: &Request, loc: &Loc) -> Notes {
        let mut kept = Vec::new();
        if let Some(place) = &r.main::<UserId>().notes
            && r.variable(place, &mut kept)
        {
            return Notes::unpack(&kept).expect("packed here");
        }
        let mut notes = Notes::default();
        let sent = r.head.fields.all(HeaderId::Cookie);
        let found = sent.filter_map(|f| Some((f, params::cookie(f, loc.name.as_bytes())?))).next();
        if let Some((field, cookie)) = found {
            notes.cookie = cookie.to_vec();
            let whole = log::Raw(field);
            if cookie.len() < COOKIE_CHARS {
                log::error!(r, "client sent too short userid cookie \"{whole}\"");
            } else if decode(cookie).is_none() {
                log::error!(r, "client sent invalid userid cookie \"{whole}\"");
            }
        }
        notes.keep(r);
        notes
    }

    /// The client's number.
    fn got(&self) -> Option<Uid> {
        decode(&self.cookie).filter(|uid| uid[3] != 0)
    }

    /// Decides which number the cookie will say.
    fn settle(&mut self, r: &Request, loc: &Loc) {
        if self.set[3] != 0 {
            return;
        }
        if let Some(got) = self.got() {
            let reset = asked_to_reset(r);
            if matches!(&reset[..], b"" | b"0") {
                if loc.mark.is_none() || self.is_marked(loc.mark) {
                    return;
                }
                self.set = got;
                return self.keep(r);
            }
            self.reset = true;
            if reset == b"log" {
                log::notice!(r, "userid cookie \"{}\" was reset", said(loc, got));
            }
        }
        self.set = next_uid(r, loc);
        self.keep(r);
    }

    fn is_marked(&self, mark: Option<u8>) -> bool {
        self.cookie.get(COOKIE_CHARS).copied() == mark
            && self.cookie.get(COOKIE_CHARS + 1) == Some(&b'=')
    }

    fn keep(&self, r: &Request) {
        if let Some(place) = &r.main::<UserId>().notes {
            r.store_variable(place, Some(&self.pack()));
        }
    }

    fn pack(&self) -> Vec<u8> {
        let mut out = bytes_of(self.set).to_vec();
        out.push(u8::from(self.reset));
        out.extend_from_slice(&self.cookie);
        out
    }

    fn unpack(kept: &[u8]) -> Option<Notes> {
        let (set, rest) = kept.split_first_chunk::<16>()?;
        let (reset, cookie) = rest.split_first()?;
        Some(Notes { set: words_of(set), reset: *reset != 0, cookie: cookie.to_vec() })
    }
}

fn asked_to_reset(r: &Request) -> Vec<u8> {
    let mut value = Vec::new();
    if let Some(reset) = &r.main::<UserId>().reset {
        r.variable(reset, &mut value);
    }
    value
}

/// The value of `Set-Cookie`.
fn set_cookie(loc: &Loc, notes: &Notes) -> Vec<u8> {
    let mut out = format!("{}=", loc.name).into_bytes();
    let start = out.len();
    match notes.got() {
        Some(_) if !notes.reset => {
            out.extend_from_slice(&notes.cookie[..COOKIE_CHARS]);
            out.extend_from_slice(b"==");
        }
        _ => out.extend_from_slice(STANDARD.encode(bytes_of(notes.set)).as_bytes()),
    }
    if let Some(mark) = loc.mark {
        out[start + COOKIE_CHARS] = mark;
    }
    match loc.expires {
        Expires::Session => {}
        Expires::Max => out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
        Expires::After(age) => {
            let at = time::unix_seconds().saturating_add(age.as_secs() as i64);
            out.extend_from_slice(format!("; expires={}", cookie_time(at)).as_bytes());
        }
    }
    if !matches!(&*loc.domain, "" | "none") {
        out.extend_from_slice(format!("; domain={}", loc.domain).as_bytes());
    }
    out.extend_from_slice(format!("; path={}", loc.path).as_bytes());
    out.extend_from_slice(loc.flags.attributes().as_bytes());
    out
}

/// `Thu, 31-Dec-37 23:55:55 GMT`; four digits of the year from 2038 on.
fn cookie_time(unix: i64) -> String {
    let at = Calendar::utc(unix);
    let text = at.http_date();
    let (before, rest) = text.as_str().split_at(16);
    let (day, month) = (&before[..7], &before[8..11]);
    let year =
        if at.year > 2037 { format!("{:04}", at.year) } else { format!("{:02}", at.year % 100) };
    format!("{day}-{month}-{year}{rest}")
}

impl Flags {
    fn attributes(self) -> String {
        let all = [
            (self.secure, "; secure"),
            (self.httponly, "; httponly"),
            (self.strict, "; samesite=strict"),
            (self.lax, "; samesite=lax"),
            (self.none, "; samesite=none"),
        ];
        all.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect()
    }
}

// ---- numbers -------------------------------------------------------------------------------

/// Characters of a cookie that hold the number: a mark and garbage may follow.
const COOKIE_CHARS: usize = 22;
/// Where the counter of version 2 starts, and starts again.
const FIRST_V2: u32 = 0x0303_0302;
/// Counters leave room for the low byte, as nginx's do.
const STEP: u32 = 0x100;

thread_local! {
    static COUNTED_V1: Cell<u32> = const { Cell::new(1) };
    static COUNTED_V2: Cell<u32> = const { Cell::new(FIRST_V2) };
    /// Which process: made when the first number is, so after the fork.
    static PROCESS: u32 = {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_micros());
        (micros / 20) << 16 | process::id() & 0xffff
    };
}

fn next_uid(r: &Request, loc: &Loc) -> Uid {
    let now = time::unix_seconds() as u32;
    let process = PROCESS.with(|p| *p);
    if loc.mode == Mode::V1 {
        let counted = COUNTED_V1.replace(COUNTED_V1.get().wrapping_add(STEP));
        return [loc.service.unwrap_or(0), now, process, counted];
    }
    let counted = COUNTED_V2.get();
    COUNTED_V2.set(counted.wrapping_add(STEP).max(FIRST_V2));
    let place = loc.service.map_or_else(|| own_address(r), u32::to_be);
    [place, now.to_be(), process.to_be(), counted.to_be()]
}

/// The last four bytes of the address that the client talked to.
fn own_address(r: &Request) -> u32 {
    let last = |bytes: &[u8]| u32::from_ne_bytes(*bytes.last_chunk().expect("four or more"));
    match r.client.local.inet().map(|end| end.ip()) {
        Some(IpAddr::V4(ip)) => last(&ip.octets()),
        Some(IpAddr::V6(ip)) => last(&ip.octets()),
        None => 0,
    }
}

/// The number in a cookie; what follows an early `=` counts as zeros.
fn decode(cookie: &[u8]) -> Option<Uid> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = cookie.get(..COOKIE_CHARS)?;
    let text = text.split(|b| *b == b'=').next().unwrap_or(text);
    let bytes = LENIENT.decode(text).ok()?;
    let mut whole = [0; 16];
    whole[..bytes.len()].copy_from_slice(&bytes);
    Some(words_of(&whole))
}

fn bytes_of(uid: Uid) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, word) in out.chunks_exact_mut(4).zip(uid) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    out
}

fn words_of(bytes: &[u8; 16]) -> Uid {
    let mut uid = [0; 4];
    for (to, word) in uid.iter_mut().zip(bytes.chunks_exact(4)) {
        *to = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
    }
    uid
}

// ---- directives ----------------------------------------------------------------------------

impl RawLoc {
    fn mode(&mut self, r: &mut Reading) -> Result<(), Reason> {
        r.shelf.of::<Used>().0 = true;
        once(&mut self.mode, || match r.arg(0) {
            "off" => Ok(Mode::Off),
            "log" => Ok(Mode::Log),
            "v1" => Ok(Mode::V1),
            "on" => Ok(Mode::On),
            other => Err(Reason::says(format!("invalid value \"{other}\""))),
        })
    }

    fn expires(&mut self, r: &mut Reading) -> Result<(), Reason> {
        once(&mut self.expires, || match r.arg(0) {
            "max" => Ok(Expires::Max),
            "off" => Ok(Expires::Session),
            text => match value::seconds(text).ok_or(Reason::InvalidValue)? {
                Duration::ZERO => Ok(Expires::Session),
                age => Ok(Expires::After(age)),
            },
        })
    }

    fn flags(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let mut flags = self.flags.unwrap_or_default();
        for word in r.take_args() {
            match word.as_str() {
                "off" => {}
                "secure" => flags.secure = true,
                "httponly" => flags.httponly = true,
                "samesite=strict" => flags.strict = true,
                "samesite=lax" => flags.lax = true,
                "samesite=none" => flags.none = true,
                other => return Err(Reason::says(format!("invalid value \"{other}\""))),
            }
        }
        self.flags = Some(flags);
        Ok(())
    }

    fn mark(&mut self, r: &mut Reading) -> Result<(), Reason> {
        once(&mut self.mark, || match r.arg(0).as_bytes() {
            b"off" => Ok(None),
            [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Ok(Some(*mark)),
            _ => Err(Reason::says(
                "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\"",
            )),
        })
    }
}

fn once<V>(slot: &mut Option<V>, read: impl FnOnce() -> Result<V, Reason>) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    *slot = Some(read()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cookies_say_everything() {
        let notes = Notes { set: [1, 2, 3, 4], ..Notes::default() };
        let mut loc = Loc::default();
        let text = |loc: &Loc, notes: &Notes| String::from_utf8(set_cookie(loc, notes)).unwrap();
        assert!(text(&loc, &notes).ends_with("==; path=/"));
        loc.mark = Some(b't');
        loc.domain = "x.example".into();
        loc.expires = Expires::Max;
        loc.flags = Flags { secure: true, none: true, ..Flags::default() };
        let all = text(&loc, &notes);
        assert!(all.ends_with(
            "t=; expires=Thu, 31-Dec-37 23:55:55 GMT; domain=x.example; path=/; secure; \
             samesite=none"
        ));
        let cookie = all.as_bytes()[4..28].to_vec();
        let marked = Notes { cookie, ..Notes::default() };
        assert!(marked.is_marked(Some(b't')) && !marked.is_marked(Some(b'u')));
        assert_eq!(marked.got(), Some([1, 2, 3, 4]));
    }

    #[test]
    fn times_are_written_the_old_way() {
        assert_eq!(cookie_time(784_111_777), "Sun, 06-Nov-94 08:49:37 GMT");
        assert_eq!(cookie_time(2_208_988_800), "Sun, 01-Jan-2040 00:00:00 GMT");
    }

    #[test]
    fn what_is_no_number() {
        assert_eq!(decode(b"short"), None);
        assert_eq!(decode(b"!!!!!!!!!!!!!!!!!!!!!!"), None);
        assert_eq!(
            decode(b"AQ==AAAAAAAAAAAAAAAAAA"),
            Some(words_of(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        );
    }

    proptest! {
        #[test]
        fn notes_and_numbers_survive(set: [u32; 4], reset: bool, cookie: Vec<u8>) {
            let _ = decode(&cookie);
            prop_assert_eq!(decode(STANDARD.encode(bytes_of(set)).as_bytes()), Some(set));
            let notes = Notes { set, reset, cookie };
            prop_assert_eq!(Notes::unpack(&notes.pack()), Some(notes));
        }
    }
}
