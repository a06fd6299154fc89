//! The core of a location: its files, limits, timeouts and how its connections are kept.
//!
//! A module like any other in form (directives, merge), but known to the rest of `http/`: every
//! location has its [`Loc`] at hand as `location.core`.
//!
//! Sizing hints for nginx's own tables and pools (`variables_hash_max_size`,
//! `connection_pool_size` …) are accepted: the structures here size themselves.

use super::Request;
use super::conf::Here;
use super::error_page::ErrorPage;
use super::module::{HttpModule, Level, Merging};
use super::template::Template;
use super::variable::Builtin;
use crate::conf::*;
use crate::event::ThreadPools;
use crate::io::FileWay;
use crate::log;
use crate::upstream::resolver::{self, Resolver};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The core module.
pub struct Core;

impl HttpModule for Core {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = LOC_TABLE;
    const VARIABLES: &'static [Builtin] = super::core_variables::ALL;

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        merge(raw, up, m)
    }
}

const SRV_ONLY: Context = HTTP | SRV;
const WITH_IF: Context = ANY_HTTP | LIF;

#[rustfmt::skip]
const LOC_TABLE: &[Directive<RawLoc>] = &[
    d("variables_hash_max_size",      HTTP,     call(exactly(1), sizing_hint)),
    d("variables_hash_bucket_size",   HTTP,     call(exactly(1), sizing_hint)),
    d("server_names_hash_max_size",   HTTP,     call(exactly(1), sizing_hint)),
    d("server_names_hash_bucket_size",HTTP,     call(exactly(1), sizing_hint)),
    d("types_hash_max_size",          ANY_HTTP, call(exactly(1), sizing_hint)),
    d("types_hash_bucket_size",       ANY_HTTP, call(exactly(1), sizing_hint)),
    d("connection_pool_size",         SRV_ONLY, call(exactly(1), sizing_hint)),
    d("request_pool_size",            SRV_ONLY, call(exactly(1), sizing_hint)),

    d("client_header_timeout",        SRV_ONLY, msec(|c| &mut c.client_header_timeout)),
    d("client_header_buffer_size",    SRV_ONLY, size(|c| &mut c.client_header_buffer_size)),
    d("large_client_header_buffers",  SRV_ONLY, call(exactly(2), RawLoc::large_buffers)),
    d("max_headers",                  SRV_ONLY, num(1, 1_000_000, |c| &mut c.max_headers)),
    d("ignore_invalid_headers",       SRV_ONLY, flag(|c| &mut c.ignore_invalid_headers)),
    d("merge_slashes",                SRV_ONLY, flag(|c| &mut c.merge_slashes)),
    d("underscores_in_headers",       SRV_ONLY, flag(|c| &mut c.underscores_in_headers)),

    d("types",                        ANY_HTTP, block(exactly(0), RawLoc::types)),
    d("default_type",                 ANY_HTTP, text(|c| &mut c.default_type)),
    d("root",                         WITH_IF,  call(exactly(1), RawLoc::root)),
    d("alias",                        LOC,      call(exactly(1), RawLoc::alias)),
    d("internal",                     LOC,      call(exactly(0), RawLoc::internal)),
    d("client_max_body_size",         ANY_HTTP, size(|c| &mut c.client_max_body_size)),
    d("client_body_buffer_size",      ANY_HTTP, size(|c| &mut c.client_body_buffer_size)),
    d("client_body_timeout",          ANY_HTTP, msec(|c| &mut c.client_body_timeout)),
    d("client_body_temp_path",        ANY_HTTP, call(between(1, 4), RawLoc::body_temp_path)),
    d("client_body_in_file_only",     ANY_HTTP, choice(&["off", "on", "clean"], |c| &mut c.body_in_file_only)),
    d("client_body_in_single_buffer", ANY_HTTP, flag(|c| &mut c.body_in_single_buffer)),
    d("sendfile",                     WITH_IF,  flag(|c| &mut c.sendfile)),
    d("sendfile_max_chunk",           ANY_HTTP, size(|c| &mut c.sendfile_max_chunk)),
    d("output_buffers",               ANY_HTTP, bufs(|c| &mut c.output_buffers)),
    // What nginx keeps replies of subrequests in memory in; here they are streamed.
    d("subrequest_output_buffer_size",ANY_HTTP, call(exactly(1), sizing_hint)),
    d("aio",                          ANY_HTTP, call(exactly(1), RawLoc::aio)),
    d("tcp_nopush",                   ANY_HTTP, flag(|c| &mut c.tcp_nopush)),
    d("tcp_nodelay",                  ANY_HTTP, flag(|c| &mut c.tcp_nodelay)),
    d("send_timeout",                 ANY_HTTP, msec(|c| &mut c.send_timeout)),
    d("postpone_output",              ANY_HTTP, size(|c| &mut c.postpone_output)),
    d("limit_rate",                   WITH_IF,  call(exactly(1), RawLoc::limit_rate)),
    d("limit_rate_after",             WITH_IF,  call(exactly(1), RawLoc::limit_rate_after)),
    d("keepalive_time",               ANY_HTTP, msec(|c| &mut c.keepalive_time)),
    d("keepalive_timeout",            ANY_HTTP, call(between(1, 2), RawLoc::keepalive_timeout)),
    d("keepalive_min_timeout",        ANY_HTTP, msec(|c| &mut c.keepalive_min_timeout)),
    d("keepalive_requests",           ANY_HTTP, num(0, u32::MAX as i64, |c| &mut c.keepalive_requests)),
    d("keepalive_disable",            ANY_HTTP, call(at_least(1), RawLoc::keepalive_disable)),
    d("early_hints",                  ANY_HTTP, call(at_least(1), RawLoc::early_hints)),
    d("satisfy",                      ANY_HTTP, choice(&["all", "any"], |c| &mut c.satisfy)),
    d("auth_delay",                   ANY_HTTP, msec(|c| &mut c.auth_delay)),
    d("lingering_close",              ANY_HTTP, choice(&["off", "on", "always"], |c| &mut c.lingering_close)),
    d("lingering_time",               ANY_HTTP, msec(|c| &mut c.lingering_time)),
    d("lingering_timeout",            ANY_HTTP, msec(|c| &mut c.lingering_timeout)),
    d("reset_timedout_connection",    ANY_HTTP, flag(|c| &mut c.reset_timedout)),
    d("absolute_redirect",            ANY_HTTP, flag(|c| &mut c.absolute_redirect)),
    d("server_name_in_redirect",      ANY_HTTP, flag(|c| &mut c.server_name_in_redirect)),
    d("port_in_redirect",             ANY_HTTP, flag(|c| &mut c.port_in_redirect)),
    d("msie_padding",                 ANY_HTTP, flag(|c| &mut c.msie_padding)),
    d("log_not_found",                ANY_HTTP, flag(|c| &mut c.log_not_found)),
    d("log_subrequest",               ANY_HTTP, flag(|c| &mut c.log_subrequest)),
    d("recursive_error_pages",        ANY_HTTP, flag(|c| &mut c.recursive_error_pages)),
    d("server_tokens",                ANY_HTTP, choice(&["off", "on", "build"], |c| &mut c.server_tokens)),
    d("if_modified_since",            ANY_HTTP, choice(&["off", "exact", "before"], |c| &mut c.if_modified_since)),
    d("max_ranges",                   ANY_HTTP, num(0, i32::MAX as i64, |c| &mut c.max_ranges)),
    d("chunked_transfer_encoding",    ANY_HTTP, flag(|c| &mut c.chunked)),
    d("etag",                         ANY_HTTP, flag(|c| &mut c.etag)),
    d("post_action",                  WITH_IF,  text(|c| &mut c.post_action)),
    d("error_page",                   WITH_IF,  call(at_least(2), RawLoc::error_page)),
    d("resolver",                     ANY_HTTP, call(at_least(1), RawLoc::resolver)),
    d("resolver_timeout",             ANY_HTTP, call(exactly(1), RawLoc::resolver_timeout)),
    d("error_log",                    ANY_HTTP, call(at_least(1), RawLoc::error_log)),
];

/// What was written in one block.
#[derive(Default)]
pub struct RawLoc {
    client_header_timeout: Option<Duration>,
    client_header_buffer_size: Option<u64>,
    large_client_header_buffers: Option<(u64, u64)>,
    max_headers: Option<i64>,
    ignore_invalid_headers: Option<bool>,
    merge_slashes: Option<bool>,
    underscores_in_headers: Option<bool>,
    types: Option<HashMap<Box<str>, Rc<str>>>,
    default_type: Option<String>,
    root: Option<(Template, bool)>,
    internal: Option<bool>,
    client_max_body_size: Option<u64>,
    client_body_buffer_size: Option<u64>,
    client_body_timeout: Option<Duration>,
    client_body_temp_path: Option<TempPath>,
    body_in_file_only: Option<&'static str>,
    body_in_single_buffer: Option<bool>,
    sendfile: Option<bool>,
    sendfile_max_chunk: Option<u64>,
    output_buffers: Option<(u64, u64)>,
    aio: Option<bool>,
    tcp_nopush: Option<bool>,
    tcp_nodelay: Option<bool>,
    send_timeout: Option<Duration>,
    postpone_output: Option<u64>,
    limit_rate: Option<Template>,
    limit_rate_after: Option<Template>,
    keepalive_time: Option<Duration>,
    keepalive_timeout: Option<(Duration, Option<Duration>)>,
    keepalive_min_timeout: Option<Duration>,
    keepalive_requests: Option<i64>,
    keepalive_disable: Option<Browsers>,
    early_hints: Option<Vec<Template>>,
    satisfy: Option<&'static str>,
    auth_delay: Option<Duration>,
    lingering_close: Option<&'static str>,
    lingering_time: Option<Duration>,
    lingering_timeout: Option<Duration>,
    reset_timedout: Option<bool>,
    absolute_redirect: Option<bool>,
    server_name_in_redirect: Option<bool>,
    port_in_redirect: Option<bool>,
    msie_padding: Option<bool>,
    log_not_found: Option<bool>,
    log_subrequest: Option<bool>,
    recursive_error_pages: Option<bool>,
    server_tokens: Option<&'static str>,
    if_modified_since: Option<&'static str>,
    max_ranges: Option<i64>,
    chunked: Option<bool>,
    etag: Option<bool>,
    post_action: Option<String>,
    error_pages: Vec<ErrorPage>,
    resolver: Option<Rc<Resolver>>,
    resolver_timeout: Option<Duration>,
    error_log: log::Spec,
}

/// `client_body_temp_path` and its kin: a folder with up to three levels of subfolders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    /// The folder.
    pub path: PathBuf,
    /// How many characters name each level.
    pub levels: Vec<u8>,
}

/// Old browsers that `keepalive_disable` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browsers {
    /// `msie6`
    pub msie6: bool,
    /// `safari`
    pub safari: bool,
}

/// What is true in one location.
pub struct Loc {
    pub client_header_timeout: Duration,
    pub client_header_buffer_size: u64,
    pub large_client_header_buffers: (u64, u64),
    pub max_headers: u32,
    pub ignore_invalid_headers: bool,
    pub merge_slashes: bool,
    pub underscores_in_headers: bool,
    pub types: Rc<HashMap<Box<str>, Rc<str>>>,
    pub default_type: Rc<str>,
    /// `root` or, if the flag is set, `alias`.
    pub root: Rc<(Template, bool)>,
    /// Where a root that turns out to be relative starts.
    pub prefix: Rc<Path>,
    /// Length of the location's name, which an alias replaces.
    pub name_len: usize,
    /// The location is an expression: its alias is the whole path.
    pub is_regex: bool,
    pub internal: bool,
    pub client_max_body_size: u64,
    pub client_body_buffer_size: u64,
    pub client_body_timeout: Duration,
    pub client_body_temp_path: TempPath,
    pub body_in_file_only: &'static str,
    pub body_in_single_buffer: bool,
    /// `sendfile`, `sendfile_max_chunk`, `output_buffers`, `aio`: how files leave.
    pub files: FileWay,
    pub tcp_nopush: bool,
    pub tcp_nodelay: bool,
    pub send_timeout: Duration,
    pub postpone_output: u64,
    pub limit_rate: Option<Template>,
    pub limit_rate_after: Option<Template>,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    /// What `Keep-Alive: timeout=` says.
    pub keepalive_header: Option<Duration>,
    pub keepalive_min_timeout: Duration,
    pub keepalive_requests: u64,
    pub keepalive_disable: Browsers,
    /// A 103 of an upstream is passed on if one of these is neither empty nor `0`.
    pub early_hints: Rc<[Template]>,
    pub satisfy_any: bool,
    pub auth_delay: Duration,
    pub lingering_close: &'static str,
    pub lingering_time: Duration,
    pub lingering_timeout: Duration,
    pub reset_timedout: bool,
    pub absolute_redirect: bool,
    pub server_name_in_redirect: bool,
    pub port_in_redirect: bool,
    pub msie_padding: bool,
    pub log_not_found: bool,
    pub log_subrequest: bool,
    pub recursive_error_pages: bool,
    pub server_tokens: bool,
    pub if_modified_since: &'static str,
    pub max_ranges: Option<u32>,
    pub chunked: bool,
    pub etag: bool,
    /// A URI or `@name`, handled when the reply has been sent.
    pub post_action: Option<Rc<str>>,
    pub error_pages: Rc<[ErrorPage]>,
    pub resolver: Option<Rc<Resolver>>,
    pub resolver_timeout: Duration,
    pub error_log: Option<log::Log>,
}

/// nginx's default for `keepalive_min_timeout` is 0; an old worker waits this long for the request
/// that may be on its way before it closes an idle connection.
const KEEPALIVE_MIN_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Loc {
    fn default() -> Loc {
        let secs = Duration::from_secs;
        Loc {
            client_header_timeout: secs(60),
            client_header_buffer_size: 1024,
            large_client_header_buffers: (4, 8192),
            max_headers: 1000,
            ignore_invalid_headers: true,
            merge_slashes: true,
            underscores_in_headers: false,
            types: Rc::new(default_types()),
            default_type: "text/plain".into(),
            root: Rc::new((Template::plain("html"), false)),
            prefix: Path::new("").into(),
            name_len: 0,
            is_regex: false,
            internal: false,
            client_max_body_size: 1 << 20,
            client_body_buffer_size: 16384,
            client_body_timeout: secs(60),
            client_body_temp_path: TempPath {
                path: PathBuf::from("client_body_temp"),
                levels: Vec::new(),
            },
            body_in_file_only: "off",
            body_in_single_buffer: false,
            files: FileWay::default(),
            tcp_nopush: false,
            tcp_nodelay: true,
            send_timeout: secs(60),
            postpone_output: 1460,
            limit_rate: None,
            limit_rate_after: None,
            keepalive_time: secs(3600),
            keepalive_timeout: secs(75),
            keepalive_header: None,
            keepalive_min_timeout: KEEPALIVE_MIN_TIMEOUT,
            keepalive_requests: 1000,
            keepalive_disable: Browsers { msie6: true, safari: false },
            early_hints: Rc::new([]),
            satisfy_any: false,
            auth_delay: Duration::ZERO,
            lingering_close: "on",
            lingering_time: secs(30),
            lingering_timeout: secs(5),
            reset_timedout: false,
            absolute_redirect: true,
            server_name_in_redirect: false,
            port_in_redirect: true,
            msie_padding: true,
            log_not_found: true,
            log_subrequest: false,
            recursive_error_pages: false,
            server_tokens: true,
            if_modified_since: "exact",
            max_ranges: None,
            chunked: true,
            etag: true,
            post_action: None,
            error_pages: Rc::new([]),
            resolver: None,
            resolver_timeout: resolver::TIMEOUT,
            error_log: None,
        }
    }
}

fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
    let is_location = m.level == Level::Location;
    let (name, is_regex) = match m.name.strip_prefix('~') {
        Some(_) => ("", true),
        None => (m.name, false),
    };
    let (keepalive_timeout, keepalive_header) =
        raw.keepalive_timeout.unwrap_or((up.keepalive_timeout, up.keepalive_header));
    Ok(Loc {
        client_header_timeout: raw.client_header_timeout.unwrap_or(up.client_header_timeout),
        client_header_buffer_size: raw
            .client_header_buffer_size
            .unwrap_or(up.client_header_buffer_size),
        large_client_header_buffers: raw
            .large_client_header_buffers
            .unwrap_or(up.large_client_header_buffers),
        max_headers: raw.max_headers.map_or(up.max_headers, |n| n as u32),
        ignore_invalid_headers: raw.ignore_invalid_headers.unwrap_or(up.ignore_invalid_headers),
        merge_slashes: raw.merge_slashes.unwrap_or(up.merge_slashes),
        underscores_in_headers: raw.underscores_in_headers.unwrap_or(up.underscores_in_headers),
        types: raw.types.map_or_else(|| up.types.clone(), Rc::new),
        default_type: raw.default_type.map_or_else(|| up.default_type.clone(), Into::into),
        root: match raw.root {
            Some((root, alias)) => Rc::new((absolute(root, m), alias)),
            None if m.level == Level::Http => Rc::new((absolute(up.root.0.clone(), m), false)),
            None => up.root.clone(),
        },
        prefix: match m.level {
            Level::Http => m.paths.prefix.as_path().into(),
            _ => up.prefix.clone(),
        },
        name_len: if is_location { name.len() } else { up.name_len },
        is_regex: if is_location { is_regex } else { up.is_regex },
        internal: raw.internal.unwrap_or(up.internal && m.level.is_nameless()),
        client_max_body_size: raw.client_max_body_size.unwrap_or(up.client_max_body_size),
        client_body_buffer_size: raw.client_body_buffer_size.unwrap_or(up.client_body_buffer_size),
        client_body_timeout: raw.client_body_timeout.unwrap_or(up.client_body_timeout),
        client_body_temp_path: temp_path(raw.client_body_temp_path, up, m),
        body_in_file_only: raw.body_in_file_only.unwrap_or(up.body_in_file_only),
        body_in_single_buffer: raw.body_in_single_buffer.unwrap_or(up.body_in_single_buffer),
        files: FileWay {
            sendfile: raw.sendfile.unwrap_or(up.files.sendfile),
            send_max: raw.sendfile_max_chunk.unwrap_or(up.files.send_max),
            read_max: raw
                .output_buffers
                .map_or(up.files.read_max, |(count, size)| count.saturating_mul(size)),
            offload: raw.aio.unwrap_or(up.files.offload),
        },
        tcp_nopush: raw.tcp_nopush.unwrap_or(up.tcp_nopush),
        tcp_nodelay: raw.tcp_nodelay.unwrap_or(up.tcp_nodelay),
        send_timeout: raw.send_timeout.unwrap_or(up.send_timeout),
        postpone_output: raw.postpone_output.unwrap_or(up.postpone_output),
        limit_rate: raw.limit_rate.or_else(|| up.limit_rate.clone()),
        limit_rate_after: raw.limit_rate_after.or_else(|| up.limit_rate_after.clone()),
        keepalive_time: raw.keepalive_time.unwrap_or(up.keepalive_time),
        keepalive_timeout,
        keepalive_header,
        keepalive_min_timeout: raw.keepalive_min_timeout.unwrap_or(up.keepalive_min_timeout),
        keepalive_requests: raw.keepalive_requests.map_or(up.keepalive_requests, |n| n as u64),
        keepalive_disable: raw.keepalive_disable.unwrap_or(up.keepalive_disable),
        early_hints: raw.early_hints.map_or_else(|| up.early_hints.clone(), Into::into),
        satisfy_any: raw.satisfy.map_or(up.satisfy_any, |s| s == "any"),
        auth_delay: raw.auth_delay.unwrap_or(up.auth_delay),
        post_action: raw.post_action.map(Rc::from).or_else(|| up.post_action.clone()),
        lingering_close: raw.lingering_close.unwrap_or(up.lingering_close),
        lingering_time: raw.lingering_time.unwrap_or(up.lingering_time),
        lingering_timeout: raw.lingering_timeout.unwrap_or(up.lingering_timeout),
        reset_timedout: raw.reset_timedout.unwrap_or(up.reset_timedout),
        absolute_redirect: raw.absolute_redirect.unwrap_or(up.absolute_redirect),
        server_name_in_redirect: raw.server_name_in_redirect.unwrap_or(up.server_name_in_redirect),
        port_in_redirect: raw.port_in_redirect.unwrap_or(up.port_in_redirect),
        msie_padding: raw.msie_padding.unwrap_or(up.msie_padding),
        log_not_found: raw.log_not_found.unwrap_or(up.log_not_found),
        log_subrequest: raw.log_subrequest.unwrap_or(up.log_subrequest),
        recursive_error_pages: raw.recursive_error_pages.unwrap_or(up.recursive_error_pages),
        server_tokens: raw.server_tokens.map_or(up.server_tokens, |s| s != "off"),
        if_modified_since: raw.if_modified_since.unwrap_or(up.if_modified_since),
        max_ranges: raw.max_ranges.map(|n| n as u32).or(up.max_ranges),
        chunked: raw.chunked.unwrap_or(up.chunked),
        etag: raw.etag.unwrap_or(up.etag),
        error_pages: match raw.error_pages.is_empty() {
            true => up.error_pages.clone(),
            false => raw.error_pages.into(),
        },
        resolver: raw.resolver.or_else(|| up.resolver.clone()),
        resolver_timeout: raw.resolver_timeout.unwrap_or(up.resolver_timeout),
        error_log: match raw.error_log.is_empty() {
            true => up.error_log.clone(),
            false => Some(raw.error_log.into_log()),
        },
    })
}

/// A root that starts with text is relative to the prefix.
fn absolute(root: Template, m: &Merging) -> Template {
    match root.constant() {
        Some(text) if !text.starts_with(b"/") => {
            let text = String::from_utf8_lossy(text);
            Template::plain(&m.paths.in_prefix(&text).to_string_lossy())
        }
        _ => root,
    }
}

fn temp_path(raw: Option<TempPath>, up: &Loc, m: &mut Merging) -> TempPath {
    let mut path = raw.unwrap_or_else(|| up.client_body_temp_path.clone());
    path.path = m.paths.prefix.join(&path.path);
    m.shelf.of::<crate::event::Wanted>().folder(&path.path);
    path
}

fn default_types() -> HashMap<Box<str>, Rc<str>> {
    [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")]
        .map(|(ext, media)| (ext.into(), media.into()))
        .into()
}

fn sizing_hint(_: &mut RawLoc, r: &mut Reading) -> Result<(), Reason> {
    let invalid = || Reason::says(format!("\"{}\" directive invalid number", r.name()));
    value::size(r.arg(0)).map(|_| ()).ok_or_else(invalid)
}

impl RawLoc {
    fn resolver(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.resolver.is_some() {
            return Err(Reason::Duplicate);
        }
        let resolver = Resolver::read(r.args())?;
        self.resolver = Some(resolver.clone());
        if r.shelf.of::<Here>().level == Level::Http {
            r.shelf.of::<resolver::Inherited>().resolver = Some(resolver);
        }
        Ok(())
    }

    fn resolver_timeout(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.resolver_timeout.is_some() {
            return Err(Reason::Duplicate);
        }
        self.resolver_timeout = Some(value::milliseconds(r.arg(0)).ok_or(Reason::InvalidValue)?);
        if r.shelf.of::<Here>().level == Level::Http {
            r.shelf.of::<resolver::Inherited>().timeout = self.resolver_timeout;
        }
        Ok(())
    }

    /// `on` is `threads`: what threads read need not be aligned.
    fn aio(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.aio.is_some() {
            return Err(Reason::Duplicate);
        }
        let word = r.arg(0).to_owned();
        self.aio = Some(match word.as_str() {
            "off" => false,
            "on" | "threads" => true,
            other => {
                let pool = other.strip_prefix("threads=").filter(|pool| !pool.is_empty());
                let pool = pool.ok_or(Reason::InvalidValue)?.to_owned();
                let place = r.place();
                r.shelf.of::<ThreadPools>().used.push((pool, place));
                true
            }
        });
        Ok(())
    }

    fn large_buffers(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.large_client_header_buffers.is_some() {
            return Err(Reason::Duplicate);
        }
        let count = value::number(r.arg(0)).filter(|n| (1..=1024).contains(n));
        let size = value::size(r.arg(1)).filter(|n| (1..=16 << 20).contains(n));
        self.large_client_header_buffers =
            Some((count.ok_or(Reason::InvalidValue)?, size.ok_or(Reason::InvalidValue)?));
        Ok(())
    }

    fn types(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let types = self.types.get_or_insert_with(HashMap::new);
        r.rows(|row| {
            let media: Rc<str> = row.name().into();
            for ext in row.take_args() {
                let old = types.insert(ext.to_ascii_lowercase().into(), media.clone());
                if let Some(old) = old {
                    row.warn(format!(
                        "duplicate extension \"{ext}\", content type: \"{media}\", \
                         previous content type: \"{old}\""
                    ));
                }
            }
            Ok(())
        })
    }

    fn root(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.set_root(r, false)
    }

    fn alias(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.set_root(r, true)
    }

    fn set_root(&mut self, r: &mut Reading, alias: bool) -> Result<(), Reason> {
        if let Some((_, was_alias)) = self.root {
            if was_alias == alias {
                return Err(Reason::Duplicate);
            }
            let (this, other) = if alias { ("alias", "root") } else { ("root", "alias") };
            return Err(Reason::says(format!(
                "\"{this}\" directive is duplicate, \"{other}\" directive was specified earlier"
            )));
        }
        let path = r.arg(0).to_owned();
        for bad in ["$document_root", "${document_root}", "$realpath_root", "${realpath_root}"] {
            if path.contains(bad) {
                let name = bad.trim_matches(['$', '{', '}']);
                return Err(Reason::says(format!(
                    "the ${name} variable cannot be used in the \"{}\" directive",
                    r.name()
                )));
            }
        }
        let path = if alias || path.len() < 2 { path } else { path.trim_end_matches('/').into() };
        self.root = Some((Template::parse(&path, r)?, alias));
        Ok(())
    }

    fn internal(&mut self, _: &mut Reading) -> Result<(), Reason> {
        self.internal = Some(true);
        Ok(())
    }

    fn body_temp_path(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.client_body_temp_path.is_some() {
            return Err(Reason::Duplicate);
        }
        self.client_body_temp_path = Some(TempPath::read(r)?);
        Ok(())
    }

    fn limit_rate(&mut self, r: &mut Reading) -> Result<(), Reason> {
        set_size_template(&mut self.limit_rate, r)
    }

    fn limit_rate_after(&mut self, r: &mut Reading) -> Result<(), Reason> {
        set_size_template(&mut self.limit_rate_after, r)
    }

    fn keepalive_timeout(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.keepalive_timeout.is_some() {
            return Err(Reason::Duplicate);
        }
        let timeout = value::milliseconds(r.arg(0)).ok_or(Reason::InvalidValue)?;
        let header = match r.args().get(1) {
            Some(text) => Some(value::seconds(text).ok_or(Reason::InvalidValue)?),
            None => None,
        };
        self.keepalive_timeout = Some((timeout, header));
        Ok(())
    }

    fn early_hints(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.early_hints.is_some() {
            return Err(Reason::Duplicate);
        }
        let args = r.take_args();
        self.early_hints =
            Some(args.iter().map(|text| Template::parse(text, r)).collect::<Result<_, _>>()?);
        Ok(())
    }

    fn keepalive_disable(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.keepalive_disable.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut browsers = Browsers::default();
        for word in r.args() {
            match word.as_str() {
                "none" => {}
                "msie6" => browsers.msie6 = true,
                "safari" => browsers.safari = true,
                other => return Err(Reason::says(format!("invalid value \"{other}\""))),
            }
        }
        self.keepalive_disable = Some(browsers);
        Ok(())
    }

    fn error_page(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let mut args = r.take_args();
        let uri = args.pop().expect("two or more arguments");
        let mut overwrite = None;
        if let Some(code) = args.last().and_then(|a| a.strip_prefix('=')) {
            overwrite = Some(match code {
                "" => 0,
                digits => value::number(digits)
                    .filter(|n| *n <= 999)
                    .ok_or_else(|| Reason::says(format!("invalid value \"={digits}\"")))?
                    as u16,
            });
            args.pop();
        }
        if args.is_empty() {
            return Err(Reason::WrongArity);
        }
        let uri = Template::parse(&uri, r)?;
        for word in args {
            let status = value::number(&word)
                .ok_or_else(|| Reason::says(format!("invalid value \"{word}\"")))?;
            if status == 499 || !(300..=599).contains(&status) {
                return Err(Reason::says(format!("value \"{word}\" must be between 300 and 599")));
            }
            let status = status as u16;
            self.error_pages.push(ErrorPage { status, overwrite, uri: uri.clone() });
        }
        Ok(())
    }

    fn error_log(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let paths = r.paths.clone();
        let files = r.shelf.of::<log::Files>();
        let added = self.error_log.add(&words, files, |name| paths.in_prefix(name));
        added.map_err(|e| Reason::says(e.to_string()))
    }
}

impl TempPath {
    /// Reads `path [level1 [level2 [level3]]]`.
    pub fn read(r: &mut Reading) -> Result<TempPath, Reason> {
        let args = r.take_args();
        let path = r.paths.in_prefix(&args[0]);
        let mut levels = Vec::new();
        for word in &args[1..] {
            let level = value::number(word).filter(|n| (1..=3).contains(n));
            levels.push(level.ok_or_else(|| Reason::says(format!("invalid value \"{word}\"")))? as u8);
        }
        Ok(TempPath { path, levels })
    }
}

/// A size that may hold variables.
fn set_size_template(slot: &mut Option<Template>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    let text = r.arg(0).to_owned();
    let template = Template::parse(&text, r)?;
    if template.constant().is_some() && value::size(&text).is_none() {
        return Err(Reason::InvalidValue);
    }
    *slot = Some(template);
    Ok(())
}

impl Loc {
    /// The media type that the URI's extension stands for.
    pub fn content_type_of(&self, r: &Request) -> Option<Rc<str>> {
        let extension = extension(&r.place.uri).and_then(|e| std::str::from_utf8(e).ok());
        let known = extension.and_then(|e| match self.types.get(e) {
            Some(found) => Some(found),
            None => self.types.get(&*e.to_ascii_lowercase()),
        });
        let media = known.unwrap_or(&self.default_type);
        (!media.is_empty()).then(|| media.clone())
    }

    /// `$document_root`: the value of `root` or `alias`.
    pub fn root_of(&self, r: &Request) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.root.0.source().len() + r.place.uri.len() + 16);
        self.root.0.append(r, &mut path);
        if path.first() != Some(&b'/') {
            let prefix = self.prefix.as_os_str().as_bytes();
            let slash: &[u8] = if prefix.ends_with(b"/") { b"" } else { b"/" };
            path.splice(0..0, prefix.iter().chain(slash).copied());
        }
        path
    }

    /// The file that the URI stands for, under `root` or `alias`.
    pub fn path_of(&self, r: &Request) -> Vec<u8> {
        let mut path = self.root_of(r);
        if !self.root.1 || self.is_regex && r.place.adds_uri_to_alias {
            path.extend_from_slice(&r.place.uri);
        } else if !self.is_regex {
            path.extend_from_slice(r.place.uri.get(self.name_len..).unwrap_or_default());
        }
        path
    }
}

/// What follows the last dot of the path's last part, unless the part begins with it.
pub fn extension(uri: &[u8]) -> Option<&[u8]> {
    let last = uri.rsplit(|b| *b == b'/').next().unwrap_or(uri);
    let dot = last.iter().rposition(|b| *b == b'.').filter(|at| *at > 0)?;
    Some(&last[dot + 1..])
}
