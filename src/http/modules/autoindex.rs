//! `autoindex`: the contents of a folder that has no index, as a page or as data.
//!
//! Reads: `autoindex`, `autoindex_format`, `autoindex_localtime`, `autoindex_exact_size`.
//! Runs in: content, after `index`.

use crate::conf::*;
use crate::http::{
    Body, HttpModule, Merging, Phase, Pipeline, Request, Verdict, charset, open_files,
};
use crate::log;
use crate::proto::escape::{Escape, push_html, push_json};
use crate::proto::h1::Method;
use crate::proto::params;
use crate::sys::file::{self, Facts};
use crate::sys::time::{self, Calendar};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

pub struct Autoindex;

impl HttpModule for Autoindex {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("autoindex",            ANY_HTTP, flag(|c| &mut c.on)),
        d("autoindex_format",     ANY_HTTP, choice(&["html", "json", "jsonp", "xml"], |c| &mut c.format)),
        d("autoindex_localtime",  ANY_HTTP, flag(|c| &mut c.localtime)),
        d("autoindex_exact_size", ANY_HTTP, flag(|c| &mut c.exact_size)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            on: raw.on.unwrap_or(up.on),
            format: raw.format.unwrap_or(up.format),
            localtime: raw.localtime.unwrap_or(up.localtime),
            exact_size: raw.exact_size.unwrap_or(up.exact_size),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.on {
            let loc = loc.clone();
            p.on(Phase::Content, move |r| autoindex(&loc, r));
        }
    }
}

#[derive(Default)]
pub struct RawLoc {
    on: Option<bool>,
    format: Option<&'static str>,
    localtime: Option<bool>,
    exact_size: Option<bool>,
}

pub struct Loc {
    on: bool,
    format: &'static str,
    localtime: bool,
    exact_size: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { on: false, format: "html", localtime: false, exact_size: true }
    }
}

/// Something in the folder.
struct Entry {
    name: Vec<u8>,
    facts: Facts,
}

fn autoindex(loc: &Loc, r: &mut Request) -> Verdict {
    let readable = matches!(r.method, Method::Get | Method::Head);
    if !readable || r.place.uri.last() != Some(&b'/') {
        return Verdict::Decline;
    }
    r.body.discard_later();
    let mut path = r.place.location.core.path_of(r);
    if path.len() > 1 {
        path.pop();
    }
    let callback = match callback(loc, r) {
        Ok(callback) => callback,
        Err(status) => return Verdict::Finish(status),
    };
    let mut entries = match list(r, &path) {
        Ok(entries) => entries,
        Err(error) => {
            let failed = open_files::Failed { call: "opendir()", error };
            return Verdict::Finish(failed.answer(r, &path));
        }
    };
    entries.sort_by(|a, b| {
        let folders_first = b.facts.is_directory().cmp(&a.facts.is_directory());
        folders_first.then_with(|| a.name.cmp(&b.name))
    });
    let (media, text) = match loc.format {
        "json" => ("application/json", json(&entries, None)),
        "jsonp" if callback.is_empty() => ("application/json", json(&entries, None)),
        "jsonp" => ("application/javascript", json(&entries, Some(&callback))),
        "xml" => ("text/xml", xml(&entries)),
        _ => ("text/html", html(loc, r, &entries)),
    };
    r.answer(200, Some(media), Body::bytes(text));
    if loc.format == "xml" {
        r.reply.charset = Some("utf-8".into());
    }
    Verdict::Reply
}

const CALLBACK_BYTES_MAX: usize = 128;

/// The function that `jsonp` calls; only a plain name may be one.
fn callback(loc: &Loc, r: &Request) -> Result<Vec<u8>, u16> {
    if loc.format != "jsonp" {
        return Ok(Vec::new());
    }
    let name = params::arg(&r.place.args, b"callback").unwrap_or_default();
    let refuse = |what: &str| {
        log::info!(r, "client sent {what} callback name: \"{}\"", log::Raw(name));
        Err(400)
    };
    if name.len() > CALLBACK_BYTES_MAX {
        return refuse("too long");
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    if name.iter().all(plain) { Ok(name.to_vec()) } else { refuse("invalid") }
}

/// What is in the folder, without hidden entries and those that cannot be looked at.
fn list(r: &Request, folder: &[u8]) -> io::Result<Vec<Entry>> {
    let folder = Path::new(OsStr::from_bytes(folder));
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(&name);
        let facts = file::facts(&path).or_else(|error| {
            let is_dangling =
                error.kind() == io::ErrorKind::NotFound || file::is_refused_link(&error);
            if is_dangling { file::link_facts(&path) } else { Err(error) }
        });
        match facts {
            Ok(facts) => entries.push(Entry { name: name.into_vec(), facts }),
            Err(error) => {
                log::crit!(r, "stat() \"{}\" failed{}", path.display(), log::Os(&error));
                if !file::is_denied(&error) {
                    return Err(error);
                }
            }
        }
    }
    Ok(entries)
}

// ---- the page ------------------------------------------------------------------------------

/// Columns of a name.
const NAME_COLUMNS: usize = 50;

fn html(loc: &Loc, r: &Request, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + entries.len() * 160);
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    push_html(&r.place.uri, &mut out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    push_html(&r.place.uri, &mut out);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    let is_utf8 = charset::is_utf8(r);
    let shift = if loc.localtime { offset_seconds() } else { 0 };
    for entry in entries {
        row(loc, entry, is_utf8, shift, &mut out);
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

fn offset_seconds() -> i64 {
    i64::from(Calendar::local(time::unix_seconds()).offset_min) * 60
}

fn row(loc: &Loc, entry: &Entry, is_utf8: bool, shift: i64, out: &mut Vec<u8>) {
    let folder = entry.facts.is_directory();
    out.extend_from_slice(b"<a href=\"");
    Escape::UriComponent.push(&entry.name, out);
    out.extend_from_slice(if folder { b"/\">" } else { b"\">" });
    let columns = columns(&entry.name, is_utf8);
    if columns > NAME_COLUMNS {
        push_html(cut(&entry.name, NAME_COLUMNS - 3, is_utf8), out);
        out.extend_from_slice(b"..&gt;</a>");
    } else {
        push_html(&entry.name, out);
        let slash = folder && columns < NAME_COLUMNS;
        out.extend_from_slice(if slash { b"/</a>" } else { b"</a>" });
        out.resize(out.len() + NAME_COLUMNS - columns - usize::from(slash), b' ');
    }
    let at = Calendar::utc(entry.facts.modified + shift);
    let Calendar { year, day, hour, minute, .. } = at;
    let month = MONTHS[(at.month as usize + 11) % 12];
    let size = match (folder, loc.exact_size) {
        (true, true) => format!("{:>19}", "-"),
        (true, false) => format!("{:>7}", "-"),
        (false, true) => format!("{:>19}", entry.facts.size),
        (false, false) => rounded(entry.facts.size),
    };
    let text = format!(" {day:02}-{month}-{year} {hour:02}:{minute:02} {size}\r\n");
    out.extend_from_slice(text.as_bytes());
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How wide a name is shown: characters if the page is UTF-8 and the name too, else bytes.
fn columns(name: &[u8], is_utf8: bool) -> usize {
    match std::str::from_utf8(name) {
        Ok(text) if is_utf8 => text.chars().count(),
        _ => name.len(),
    }
}

/// The first `columns` of a name.
fn cut(name: &[u8], columns: usize, is_utf8: bool) -> &[u8] {
    let end = match std::str::from_utf8(name) {
        Ok(text) if is_utf8 => text.char_indices().nth(columns).map_or(name.len(), |(at, _)| at),
        _ => columns.min(name.len()),
    };
    &name[..end]
}

/// `autoindex_exact_size off`
fn rounded(size: u64) -> String {
    const K: u64 = 1 << 10;
    let (unit, letter) = match size {
        0..=9999 => return format!(" {size:>6}"),
        n if n >= K * K * K => (K * K * K, 'G'),
        n if n >= K * K => (K * K, 'M'),
        _ => (K, 'K'),
    };
    format!("{:>6}{letter}", (size + unit / 2) / unit)
}

// ---- data ----------------------------------------------------------------------------------

fn kind(facts: &Facts) -> &'static str {
    match facts.kind {
        file::Kind::Directory => "directory",
        file::Kind::File => "file",
        _ => "other",
    }
}

fn json(entries: &[Entry], callback: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + entries.len() * 100);
    if let Some(callback) = callback {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(callback);
        out.push(b'(');
    }
    out.push(b'[');
    for (i, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\r\n{ \"name\":\"" } else { b",\r\n{ \"name\":\"" });
        push_json(&entry.name, &mut out);
        let (kind, mtime) = (kind(&entry.facts), Calendar::utc(entry.facts.modified).http_date());
        let text = format!("\", \"type\":\"{kind}\", \"mtime\":\"{mtime}\"");
        out.extend_from_slice(text.as_bytes());
        if entry.facts.is_file() {
            out.extend_from_slice(format!(", \"size\":{}", entry.facts.size).as_bytes());
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if callback.is_some() {
        out.extend_from_slice(b");");
    }
    out
}

fn xml(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"<?xml version=\"1.0\"?>\r\n<list>\r\n".to_vec();
    for entry in entries {
        let kind = kind(&entry.facts);
        let Calendar { year, month, day, hour, minute, second, .. } =
            Calendar::utc(entry.facts.modified);
        let head = format!(
            "<{kind} mtime=\"{year:4}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\""
        );
        out.extend_from_slice(head.as_bytes());
        if entry.facts.is_file() {
            out.extend_from_slice(format!(" size=\"{}\"", entry.facts.size).as_bytes());
        }
        out.push(b'>');
        push_html(&entry.name, &mut out);
        out.extend_from_slice(format!("</{kind}>\r\n").as_bytes());
    }
    out.extend_from_slice(b"</list>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: file::Kind, size: u64) -> Entry {
        let facts = Facts {
            kind,
            size,
            modified: 784_111_777,
            modified_ns: 0,
            inode: 0,
            device: 0,
            mode: 0,
            owner: 0,
            blocks: 0,
        };
        Entry { name: name.into(), facts }
    }

    fn shown(entry: &Entry, exact_size: bool, is_utf8: bool) -> String {
        let mut out = Vec::new();
        row(&Loc { exact_size, ..Loc::default() }, entry, is_utf8, 0, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn rows_stand_in_columns() {
        let file = entry("a&b", file::Kind::File, 12_345);
        assert_eq!(
            shown(&file, true, false),
            format!("<a href=\"a%26b\">a&amp;b</a>{:47} 06-Nov-1994 08:49 {:>19}\r\n", "", 12_345)
        );
        assert!(shown(&file, false, false).ends_with(" 06-Nov-1994 08:49     12K\r\n"));
        let folder = entry("dir", file::Kind::Directory, 4096);
        assert_eq!(
            shown(&folder, false, false),
            format!("<a href=\"dir/\">dir/</a>{:46} 06-Nov-1994 08:49       -\r\n", "")
        );
        let long = shown(&entry(&"x".repeat(51), file::Kind::File, 1), true, false);
        assert!(long.contains(&format!(">{}..&gt;</a> 06-", "x".repeat(47))), "{long}");
        let umlauts = entry(&"\u{e4}".repeat(50), file::Kind::File, 1);
        assert!(shown(&umlauts, true, true).contains("\u{e4}</a> 06-"));
        assert!(shown(&umlauts, true, false).contains("..&gt;</a> 06-"));
    }

    #[test]
    fn sizes_are_rounded() {
        for (size, want) in [
            (0, "      0"),
            (9999, "   9999"),
            (10_000, "    10K"),
            (1 << 20, "     1M"),
            ((3 << 30) / 2, "     2G"),
        ] {
            assert_eq!(rounded(size), want);
        }
    }

    #[test]
    fn data() {
        let entries = [entry("d", file::Kind::Directory, 0), entry("f\"<", file::Kind::File, 7)];
        assert_eq!(
            String::from_utf8(json(&entries, None)).unwrap(),
            "[\r\n{ \"name\":\"d\", \"type\":\"directory\", \"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\" },\r\n\
             { \"name\":\"f\\\"<\", \"type\":\"file\", \"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\", \"size\":7 }\r\n]"
        );
        assert_eq!(json(&[], Some(b"f")), b"/* callback */\r\nf([\r\n]);");
        assert_eq!(
            String::from_utf8(xml(&entries)).unwrap(),
            "<?xml version=\"1.0\"?>\r\n<list>\r\n\
             <directory mtime=\"1994-11-06T08:49:37Z\">d</directory>\r\n\
             <file mtime=\"1994-11-06T08:49:37Z\" size=\"7\">f&quot;&lt;</file>\r\n</list>\r\n"
        );
    }
}
