//! Finding and opening files by path, perhaps through a cache.
//!
//! Reads: `open_file_cache`, `open_file_cache_valid`, `open_file_cache_min_uses`,
//! `open_file_cache_errors`, `open_file_cache_events`, `disable_symlinks`, `read_ahead`.
//! Used by: every module that serves files. Each worker has a cache of its own.
//!
//! An entry of the cache is asked of the file system again after `…_valid`: a file that is still
//! the same one keeps its descriptor.

use super::lru::Lru;
use super::{Body, HttpModule, Merging, Request, Template};
use crate::conf::*;
use crate::io::{Chunk, OpenFile};
use crate::sys::file::{self, Facts, Links};
use crate::{event, log};
use std::cell::{OnceCell, RefCell};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How files are found at a place.
pub struct OpenFiles;

impl HttpModule for OpenFiles {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("open_file_cache",          ANY_HTTP, call(between(1, 2), RawLoc::cache)),
        d("open_file_cache_valid",    ANY_HTTP, sec(|c| &mut c.valid)),
        d("open_file_cache_min_uses", ANY_HTTP, num(0, u32::MAX as i64, |c| &mut c.min_uses)),
        d("open_file_cache_errors",   ANY_HTTP, flag(|c| &mut c.errors)),
        // For kqueue only, in nginx too.
        d("open_file_cache_events",   ANY_HTTP, flag(|c| &mut c.events)),
        d("disable_symlinks",         ANY_HTTP, call(between(1, 2), RawLoc::links)),
        d("read_ahead",               ANY_HTTP, size(|c| &mut c.read_ahead)),
        d("directio",                 ANY_HTTP, call(exactly(1), RawLoc::directio)),
        d("directio_alignment",       ANY_HTTP, call(exactly(1), RawLoc::alignment)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            cache: match raw.cache {
                Some(rules) => rules.map(|rules| Rc::new(Cache::new(rules))),
                None => up.cache.clone(),
            },
            valid: raw.valid.unwrap_or(up.valid),
            min_uses: raw.min_uses.map_or(up.min_uses, |n| n as u32),
            errors: raw.errors.unwrap_or(up.errors),
            links: raw.links.unwrap_or_else(|| up.links.clone()),
            read_ahead: raw.read_ahead.unwrap_or(up.read_ahead),
            direct_from: raw.direct_from.unwrap_or(up.direct_from),
            alignment: raw.alignment.unwrap_or(up.alignment),
        })
    }
}

#[derive(Default)]
pub struct RawLoc {
    cache: Option<Option<Rules>>,
    valid: Option<Duration>,
    min_uses: Option<i64>,
    errors: Option<bool>,
    events: Option<bool>,
    links: Option<Option<Rc<LinkRule>>>,
    read_ahead: Option<u64>,
    direct_from: Option<Option<u64>>,
    alignment: Option<usize>,
}

/// `max=`, `inactive=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rules {
    max: usize,
    inactive: Duration,
}

/// `disable_symlinks`
pub struct LinkRule {
    links: Links,
    from: Option<Template>,
}

/// How files are opened in one location.
pub struct Loc {
    cache: Option<Rc<Cache>>,
    valid: Duration,
    min_uses: u32,
    errors: bool,
    links: Option<Rc<LinkRule>>,
    read_ahead: u64,
    /// `directio`: files of at least so many bytes are read past the kernel's cache.
    direct_from: Option<u64>,
    alignment: usize,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc {
            cache: None,
            valid: Duration::from_secs(60),
            min_uses: 1,
            errors: false,
            links: None,
            read_ahead: 0,
            direct_from: None,
            alignment: 512,
        }
    }
}

/// What a path leads to.
#[derive(Clone)]
pub struct Found {
    /// Size, times, kind.
    pub facts: Facts,
    /// The open file; not of a directory, and not if only the facts were asked for.
    pub file: Option<Rc<OpenFile>>,
    etag: OnceCell<Rc<str>>,
}

impl Found {
    fn new(facts: Facts, file: Option<Rc<OpenFile>>) -> Rc<Found> {
        Rc::new(Found { facts, file, etag: OnceCell::new() })
    }

    /// Fills the reply with the file, which was opened; its type is left to the caller.
    pub fn answer(&self, r: &mut Request, file: Rc<OpenFile>) {
        r.body.discard_later();
        let len = self.facts.size;
        r.reply.status = 200;
        r.reply.length = Some(len);
        r.reply.last_modified = Some(self.facts.modified);
        r.reply.etag = r.place.location.core.etag.then(|| self.etag());
        r.reply.allow_ranges = true;
        if len > 0 {
            r.reply.body = Body::Whole(Chunk::File { file, at: 0, len });
        }
    }

    /// The entity tag, made of time and size.
    pub fn etag(&self) -> Rc<str> {
        let Facts { modified, size, .. } = self.facts;
        self.etag.get_or_init(|| format!("\"{modified:x}-{size:x}\"").into()).clone()
    }
}

/// Why a file could not be had.
#[derive(Debug)]
pub struct Failed {
    /// `open()` or `stat()`.
    pub call: &'static str,
    /// Its error.
    pub error: io::Error,
}

impl Failed {
    /// Logs nginx's sentence and gives the status that answers the client.
    pub fn answer(&self, r: &Request, path: &[u8]) -> u16 {
        let (call, path, why) = (self.call, log::Raw(path), log::Os(&self.error));
        if file::is_absent(&self.error) {
            if r.place.location.core.log_not_found {
                log::error!(r, "{call} \"{path}\" failed{why}");
            }
            return 404;
        }
        if file::is_denied(&self.error) {
            log::error!(r, "{call} \"{path}\" failed{why}");
            return 403;
        }
        log::crit!(r, "{call} \"{path}\" failed{why}");
        500
    }
}

/// What is wanted of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    File,
    Facts,
}

/// Opens the file at `path` by the rules of the request's location.
pub fn open(r: &Request, path: &[u8]) -> Result<Rc<Found>, Failed> {
    r.conf::<OpenFiles>().clone().find(r, path, Want::File)
}

/// The facts of what `path` leads to.
pub fn look(r: &Request, path: &[u8]) -> Result<Rc<Found>, Failed> {
    r.conf::<OpenFiles>().clone().find(r, path, Want::Facts)
}

impl Loc {
    fn find(&self, r: &Request, path: &[u8], want: Want) -> Result<Rc<Found>, Failed> {
        let Some(rule) = &self.links else {
            let fetch = |want| self.fetch(path, want, None);
            return match &self.cache {
                None => fetch(want),
                Some(cache) => cache.find(path, want, self, event::now(), &fetch),
            };
        };
        let from = rule.from.as_ref().map(|from| from.value(r).into_owned());
        let checked = if from.as_deref() == Some(path) { None } else { Some(rule.links) };
        let from = from.filter(|from| path.starts_with(from));
        let fetch = |want| self.fetch(path, want, checked.map(|links| (links, from.as_deref())));
        let Some(cache) = &self.cache else { return fetch(want) };
        let mut key = path.to_vec();
        key.extend_from_slice(if rule.links == Links::Refuse { b"\0on\0" } else { b"\0if\0" });
        key.extend_from_slice(from.as_deref().unwrap_or_default());
        cache.find(&key, want, self, event::now(), &fetch)
    }

    fn fetch(
        &self,
        path: &[u8],
        want: Want,
        links: Option<(Links, Option<&[u8]>)>,
    ) -> Result<Rc<Found>, Failed> {
        let path = Path::new(OsStr::from_bytes(path));
        if let (Want::Facts, None) = (want, links) {
            let facts = file::facts(path).map_err(|error| Failed { call: "stat()", error })?;
            return Ok(Found::new(facts, None));
        }
        let (call, opened) = match links {
            None => ("open()", file::open(path)),
            Some((links, from)) => {
                let from = from.map(|from| Path::new(OsStr::from_bytes(from)));
                ("openat()", file::open_checked(path, links, from))
            }
        };
        let fd = opened.map_err(|error| Failed { call, error })?;
        let facts =
            file::facts_of(fd.as_fd()).map_err(|error| Failed { call: "fstat()", error })?;
        if want == Want::Facts || facts.is_directory() {
            return Ok(Found::new(facts, None));
        }
        if self.read_ahead > 0 && facts.size > self.read_ahead {
            file::read_ahead(fd.as_fd());
        }
        let file = OpenFile::new(fd, facts);
        if facts.is_file()
            && self.direct_from.is_some_and(|least| facts.size >= least)
            && let Err(error) = file.read_past_cache(self.alignment)
        {
            let path = path.display();
            log::warn!("directio is not possible for \"{path}\"{}", log::Os(&error));
        }
        Ok(Found::new(facts, Some(Rc::new(file))))
    }
}

// ---- the cache -----------------------------------------------------------------------------

/// Entries that are looked at for their age at each use.
const EXPIRED_AT_ONCE: usize = 2;

struct Cache {
    rules: Rules,
    entries: RefCell<Lru<Entry>>,
}

struct Entry {
    known: Known,
    /// When the file system was asked.
    checked: Instant,
    used: Instant,
    uses: u32,
}

#[derive(Clone)]
enum Known {
    Found(Rc<Found>),
    Failed(&'static str, i32),
}

impl Known {
    fn result(&self) -> Result<Rc<Found>, Failed> {
        match self {
            Known::Found(found) => Ok(found.clone()),
            Known::Failed(call, code) => {
                Err(Failed { call, error: io::Error::from_raw_os_error(*code) })
            }
        }
    }

    fn satisfies(&self, want: Want, loc: &Loc) -> bool {
        match self {
            Known::Failed(..) => loc.errors,
            Known::Found(found) => {
                want == Want::Facts || found.file.is_some() || found.facts.is_directory()
            }
        }
    }
}

impl Cache {
    fn new(rules: Rules) -> Cache {
        Cache { rules, entries: RefCell::default() }
    }

    fn find(
        &self,
        key: &[u8],
        want: Want,
        loc: &Loc,
        now: Instant,
        fetch: &dyn Fn(Want) -> Result<Rc<Found>, Failed>,
    ) -> Result<Rc<Found>, Failed> {
        let mut entries = self.entries.borrow_mut();
        self.expire(&mut entries, now);
        let mut uses = 1;
        let mut before = None;
        if let Some(entry) = entries.get(key) {
            entry.uses = entry.uses.saturating_add(1);
            (entry.used, uses) = (now, entry.uses);
            let fresh = now.duration_since(entry.checked) < loc.valid;
            if fresh && entry.known.satisfies(want, loc) {
                return entry.known.result();
            }
            if let (false, Known::Found(found)) = (fresh, &entry.known) {
                before = Some(found.clone());
            }
        }
        let result = renew(before, want, fetch);
        let known = match &result {
            Ok(found) if found.file.is_some() && uses < loc.min_uses => {
                Known::Found(Found::new(found.facts, None))
            }
            Ok(found) => Known::Found(found.clone()),
            Err(Failed { call, error }) => match error.raw_os_error() {
                Some(code) if loc.errors => Known::Failed(call, code),
                _ => {
                    entries.remove(key);
                    return result;
                }
            },
        };
        entries.put(key, Entry { known, checked: now, used: now, uses });
        if entries.len() > self.rules.max {
            entries.pop_oldest();
        }
        result
    }

    fn expire(&self, entries: &mut Lru<Entry>, now: Instant) {
        for _ in 0..EXPIRED_AT_ONCE {
            let idle = entries.oldest().map(|entry| now.saturating_duration_since(entry.used));
            if idle.is_none_or(|idle| idle <= self.rules.inactive) {
                return;
            }
            entries.pop_oldest();
        }
    }
}

/// Asks the file system again; an unchanged file keeps its descriptor.
fn renew(
    before: Option<Rc<Found>>,
    want: Want,
    fetch: &dyn Fn(Want) -> Result<Rc<Found>, Failed>,
) -> Result<Rc<Found>, Failed> {
    let Some(before) = before.filter(|found| want == Want::Facts || found.file.is_some()) else {
        return fetch(want);
    };
    let now = fetch(Want::Facts)?;
    if now.facts.same_content(&before.facts) {
        return Ok(before);
    }
    if want == Want::Facts { Ok(now) } else { fetch(want) }
}

// ---- directives ----------------------------------------------------------------------------

impl RawLoc {
    fn directio(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.direct_from.is_some() {
            return Err(Reason::Duplicate);
        }
        self.direct_from = Some(match r.arg(0) {
            "off" => None,
            least => Some(value::size(least).ok_or(Reason::InvalidValue)?),
        });
        Ok(())
    }

    fn alignment(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.alignment.is_some() {
            return Err(Reason::Duplicate);
        }
        let bytes = value::size(r.arg(0)).ok_or(Reason::InvalidValue)?;
        if !bytes.is_power_of_two() || !(512..=1 << 20).contains(&bytes) {
            return Err(Reason::says("the alignment must be a power of two from 512 to 1m"));
        }
        self.alignment = Some(bytes as usize);
        Ok(())
    }

    fn cache(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.cache.is_some() {
            return Err(Reason::Duplicate);
        }
        let (mut max, mut inactive, mut off) = (None, Duration::from_secs(60), false);
        for word in r.args() {
            let invalid =
                || Reason::says(format!("invalid \"open_file_cache\" parameter \"{word}\""));
            if word == "off" {
                off = true;
            } else if let Some(count) = word.strip_prefix("max=") {
                max = Some(value::number(count).filter(|n| *n > 0).ok_or_else(invalid)?);
            } else if let Some(time) = word.strip_prefix("inactive=") {
                inactive = value::seconds(time).ok_or_else(invalid)?;
            } else {
                return Err(invalid());
            }
        }
        let without_max = || Reason::says("\"open_file_cache\" must have the \"max\" parameter");
        self.cache = Some(match (off, max) {
            (true, _) => None,
            (false, max) => Some(Rules { max: max.ok_or_else(without_max)? as usize, inactive }),
        });
        Ok(())
    }

    fn links(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.links.is_some() {
            return Err(Reason::Duplicate);
        }
        let (mut links, mut from) = (None, None);
        for word in r.take_args() {
            match word.as_str() {
                "off" => links = Some(None),
                "on" => links = Some(Some(Links::Refuse)),
                "if_not_owner" => links = Some(Some(Links::RefuseForeign)),
                other => match other.strip_prefix("from=") {
                    Some(start) => from = Some(Template::parse(start, r)?),
                    None => return Err(Reason::InvalidParameter(word)),
                },
            }
        }
        let links = links.ok_or_else(|| {
            Reason::says(
                "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter",
            )
        })?;
        if links.is_none() && from.is_some() {
            return Err(Reason::says(
                "duplicate parameters \"off\" and \"from=\" of \"disable_symlinks\"",
            ));
        }
        self.links = Some(links.map(|links| Rc::new(LinkRule { links, from })));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn loc(min_uses: u32, errors: bool) -> Loc {
        let rules = Rules { max: 2, inactive: Duration::from_secs(20) };
        Loc { cache: Some(Rc::new(Cache::new(rules))), min_uses, errors, ..Loc::default() }
    }

    /// Finds `path` through the cache `after` seconds; gives size and whether it is the cached one.
    fn size(loc: &Loc, path: &Path, start: Instant, after: u64) -> Result<u64, String> {
        let bytes = path.as_os_str().as_bytes();
        let cache = loc.cache.as_ref().unwrap();
        let now = start + Duration::from_secs(after);
        let found = cache.find(bytes, Want::File, loc, now, &|want| loc.fetch(bytes, want, None));
        found.map(|f| f.facts.size).map_err(|e| format!("{} {}", e.call, log::Os(&e.error)))
    }

    #[test]
    fn an_entry_is_believed_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (loc, start) = (loc(1, false), Instant::now());
        fs::write(&path, "one").unwrap();
        assert_eq!(size(&loc, &path, start, 0), Ok(3));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "longer").unwrap();
        assert_eq!(size(&loc, &path, start, 15), Ok(3));
        assert_eq!(size(&loc, &path, start, 30), Ok(3));
        assert_eq!(size(&loc, &path, start, 45), Ok(3));
        assert_eq!(size(&loc, &path, start, 61), Ok(6));
        fs::remove_file(&path).unwrap();
        assert_eq!(size(&loc, &path, start, 75), Ok(6));
        // Unused for longer than `inactive`.
        assert!(size(&loc, &path, start, 96).is_err());
    }

    #[test]
    fn errors_are_kept_only_if_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (with, without, start) = (loc(1, true), loc(1, false), Instant::now());
        let absent = Err("open()  (2: No such file or directory)".to_owned());
        assert_eq!(size(&with, &path, start, 0), absent);
        assert_eq!(size(&without, &path, start, 0), absent);
        fs::write(&path, "one").unwrap();
        assert_eq!(size(&with, &path, start, 10), absent);
        assert_eq!(size(&without, &path, start, 10), Ok(3));
    }

    #[test]
    fn a_descriptor_stays_open_after_enough_uses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let (loc, start) = (loc(2, false), Instant::now());
        let kept = |loc: &Loc| {
            let mut entries = loc.cache.as_ref().unwrap().entries.borrow_mut();
            let entry = entries.get(path.as_os_str().as_bytes()).unwrap();
            matches!(&entry.known, Known::Found(found) if found.file.is_some())
        };
        size(&loc, &path, start, 0).unwrap();
        assert!(!kept(&loc));
        size(&loc, &path, start, 1).unwrap();
        assert!(kept(&loc));
        for name in ["g", "h", "i"] {
            fs::write(dir.path().join(name), "x").unwrap();
            size(&loc, &dir.path().join(name), start, 2).unwrap();
        }
        assert_eq!(loc.cache.as_ref().unwrap().entries.borrow().len(), 2);
    }

    #[test]
    fn directories_are_found_and_not_kept_open() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = dir.path().as_os_str().as_bytes();
        let found = Loc::default().fetch(bytes, Want::File, None).ok().unwrap();
        assert!(found.facts.is_directory() && found.file.is_none());
        assert!(found.etag().starts_with('"') && found.etag().ends_with('"'));
    }
}
