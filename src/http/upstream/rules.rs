//! The directives that everything which hands requests to an upstream has in common: `proxy_…`,
//! and later `fastcgi_…`, `uwsgi_…`, `scgi_…`, `grpc_…`.
//!
//! A module names its prefix once: [`upstream_rows!`] makes its table.

use super::names::NameSet;
use super::next::{Conditions, NextRules};
use crate::conf::{Reading, Reason, value};
use crate::event::Wanted;
use crate::http::Merging;
use crate::http::Template;
use crate::http::core::TempPath;
use crate::io::Size;
use crate::proto::header::{HeaderId, HeaderSet};
use crate::sys::socket::{Address, Departure};
use crate::upstream::url;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The table of a module whose directives begin with `$prefix`, filling `$field: RawRules` of
/// `$raw`, with the module's own rows behind.
macro_rules! upstream_rows {
    ($prefix:literal, $raw:ty, $field:ident, [$($own:expr),* $(,)?]) => {{
        use $crate::conf::*;
        const ROWS: &[Directive<$raw>] = &[
            d(concat!($prefix, "_bind"), ANY_HTTP, call(between(1, 2), |c: &mut $raw, r| c.$field.bind(r))),
            d(concat!($prefix, "_socket_keepalive"), ANY_HTTP, flag(|c| &mut c.$field.socket_keepalive)),
            d(concat!($prefix, "_socket_rcvbuf"), ANY_HTTP, size(|c| &mut c.$field.socket_rcvbuf)),
            d(concat!($prefix, "_socket_sndbuf"), ANY_HTTP, size(|c| &mut c.$field.socket_sndbuf)),
            d(concat!($prefix, "_connect_timeout"), ANY_HTTP, msec(|c| &mut c.$field.connect_timeout)),
            d(concat!($prefix, "_send_timeout"), ANY_HTTP, msec(|c| &mut c.$field.send_timeout)),
            d(concat!($prefix, "_read_timeout"), ANY_HTTP, msec(|c| &mut c.$field.read_timeout)),
            d(concat!($prefix, "_send_lowat"), ANY_HTTP, size(|c| &mut c.$field.send_lowat)),
            d(concat!($prefix, "_buffering"), ANY_HTTP, flag(|c| &mut c.$field.buffering)),
            d(concat!($prefix, "_request_buffering"), ANY_HTTP, flag(|c| &mut c.$field.request_buffering)),
            d(concat!($prefix, "_buffer_size"), ANY_HTTP, size(|c| &mut c.$field.buffer_size)),
            d(concat!($prefix, "_buffers"), ANY_HTTP, bufs(|c| &mut c.$field.buffers)),
            d(concat!($prefix, "_busy_buffers_size"), ANY_HTTP, size(|c| &mut c.$field.busy_buffers_size)),
            d(concat!($prefix, "_temp_path"), ANY_HTTP, call(between(1, 4), |c: &mut $raw, r| c.$field.temp_path(r))),
            d(concat!($prefix, "_max_temp_file_size"), ANY_HTTP, size(|c| &mut c.$field.max_temp_file_size)),
            d(concat!($prefix, "_temp_file_write_size"), ANY_HTTP, size(|c| &mut c.$field.temp_file_write_size)),
            d(concat!($prefix, "_limit_rate"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$field.limit_rate(r))),
            d(concat!($prefix, "_force_ranges"), ANY_HTTP, flag(|c| &mut c.$field.force_ranges)),
            d(concat!($prefix, "_ignore_client_abort"), ANY_HTTP, flag(|c| &mut c.$field.ignore_client_abort)),
            d(concat!($prefix, "_intercept_errors"), ANY_HTTP, flag(|c| &mut c.$field.intercept_errors)),
            d(concat!($prefix, "_next_upstream"), ANY_HTTP, call(at_least(1), |c: &mut $raw, r| c.$field.next(r))),
            d(concat!($prefix, "_next_upstream_tries"), ANY_HTTP, num(0, u32::MAX as i64, |c| &mut c.$field.next_tries)),
            d(concat!($prefix, "_next_upstream_timeout"), ANY_HTTP, msec(|c| &mut c.$field.next_timeout)),
            d(concat!($prefix, "_pass_header"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$field.pass_header(r))),
            d(concat!($prefix, "_hide_header"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$field.hide_header(r))),
            d(concat!($prefix, "_ignore_headers"), ANY_HTTP, call(at_least(1), |c: &mut $raw, r| c.$field.ignore_headers(r))),
            d(concat!($prefix, "_pass_request_headers"), ANY_HTTP, flag(|c| &mut c.$field.pass_request_headers)),
            d(concat!($prefix, "_pass_request_body"), ANY_HTTP, flag(|c| &mut c.$field.pass_request_body)),
            d(concat!($prefix, "_pass_trailers"), ANY_HTTP, flag(|c| &mut c.$field.pass_trailers)),
            $($own),*
        ];
        ROWS
    }};
}
pub(crate) use upstream_rows;

/// What was written in one block.
#[derive(Default)]
pub struct RawRules {
    bind: Option<Option<Bind>>,
    pub socket_keepalive: Option<bool>,
    pub socket_rcvbuf: Option<u64>,
    pub socket_sndbuf: Option<u64>,
    pub connect_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
    pub send_lowat: Option<u64>,
    pub buffering: Option<bool>,
    pub request_buffering: Option<bool>,
    pub buffer_size: Option<u64>,
    pub buffers: Option<(u64, u64)>,
    pub busy_buffers_size: Option<u64>,
    temp_path: Option<TempPath>,
    pub max_temp_file_size: Option<u64>,
    pub temp_file_write_size: Option<u64>,
    limit_rate: Option<Template>,
    pub force_ranges: Option<bool>,
    pub ignore_client_abort: Option<bool>,
    pub intercept_errors: Option<bool>,
    next: Option<Conditions>,
    pub next_tries: Option<i64>,
    pub next_timeout: Option<Duration>,
    pass_headers: Vec<String>,
    hide_headers: Vec<String>,
    ignore_headers: Option<HeaderSet>,
    pub pass_request_headers: Option<bool>,
    pub pass_request_body: Option<bool>,
    pub pass_trailers: Option<bool>,
}

/// `…_bind`: where connections come from.
#[derive(Clone, Debug)]
pub struct Bind {
    /// An address without variables, parsed.
    fixed: Option<Address>,
    template: Template,
    transparent: bool,
}

/// What is true in one location.
#[derive(Clone, Debug)]
pub struct Rules {
    pub bind: Option<Bind>,
    pub socket_keepalive: bool,
    pub socket_rcvbuf: u64,
    pub socket_sndbuf: u64,
    pub connect_timeout: Duration,
    pub send_timeout: Duration,
    pub read_timeout: Duration,
    pub buffering: bool,
    pub request_buffering: bool,
    /// Bytes that the head of a reply may have.
    pub buffer_size: u64,
    /// Number and bytes of the buffers that are read ahead into.
    pub buffers: (u64, u64),
    pub temp_path: TempPath,
    /// 0: nothing goes to files.
    pub max_temp_file_size: u64,
    pub limit_rate: Option<Template>,
    pub force_ranges: bool,
    pub ignore_client_abort: bool,
    pub intercept_errors: bool,
    pub next: NextRules,
    pass_headers: Rc<[String]>,
    hide_headers: Rc<[String]>,
    /// Fields of replies that do not go on.
    pub hidden: Rc<NameSet>,
    /// Fields of replies that steer nothing.
    pub ignored: HeaderSet,
    pub pass_request_headers: bool,
    pub pass_request_body: bool,
    pub pass_trailers: bool,
    busy_buffers_size: Option<u64>,
    max_temp_file_size_conf: Option<u64>,
    temp_file_write_size_conf: Option<u64>,
}

/// Fields that never go on unless `…_pass_header` says so.
const HIDDEN: [&str; 8] = [
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

/// What `…_ignore_headers` may name.
const IGNORABLE: [HeaderId; 9] = [
    HeaderId::XAccelRedirect,
    HeaderId::XAccelExpires,
    HeaderId::XAccelLimitRate,
    HeaderId::XAccelBuffering,
    HeaderId::XAccelCharset,
    HeaderId::Expires,
    HeaderId::CacheControl,
    HeaderId::SetCookie,
    HeaderId::Vary,
];

/// One page of memory: nginx's measure of a buffer.
const PAGE: u64 = 4096;

impl Rules {
    /// The block that a reply's head is read into: a large one takes the body's begin with it,
    /// which a limited rate does not allow.
    pub fn head_room(&self) -> Size {
        match self.limit_rate {
            None => Size::Large,
            Some(_) => Size::for_bytes(self.buffer_size as usize).unwrap_or(Size::Large),
        }
    }

    /// nginx's defaults; temporary files go to `temp_path`.
    pub fn new(temp_path: &str) -> Rules {
        let minute = Duration::from_secs(60);
        Rules {
            bind: None,
            socket_keepalive: false,
            socket_rcvbuf: 0,
            socket_sndbuf: 0,
            connect_timeout: minute,
            send_timeout: minute,
            read_timeout: minute,
            buffering: true,
            request_buffering: true,
            buffer_size: PAGE,
            buffers: (8, PAGE),
            temp_path: TempPath { path: PathBuf::from(temp_path), levels: vec![1, 2] },
            max_temp_file_size: 1 << 30,
            limit_rate: None,
            force_ranges: false,
            ignore_client_abort: false,
            intercept_errors: false,
            next: NextRules { on: Conditions::DEFAULT, tries: 0, timeout: Duration::ZERO },
            pass_headers: Rc::new([]),
            hide_headers: Rc::new([]),
            hidden: Rc::new(NameSet::of(HIDDEN)),
            ignored: HeaderSet::EMPTY,
            pass_request_headers: true,
            pass_request_body: true,
            pass_trailers: false,
            busy_buffers_size: None,
            max_temp_file_size_conf: None,
            temp_file_write_size_conf: None,
        }
    }

    /// What is true where `raw` was written, below `up`. `prefix` is for complaints.
    pub fn merge(
        raw: RawRules,
        up: &Rules,
        prefix: &str,
        m: &mut Merging,
    ) -> Result<Rules, Reason> {
        let mut temp_path = raw.temp_path.unwrap_or_else(|| up.temp_path.clone());
        temp_path.path = m.paths.prefix.join(&temp_path.path);
        m.shelf.of::<Wanted>().folder(&temp_path.path);
        let same_names = raw.pass_headers.is_empty() && raw.hide_headers.is_empty();
        let pass_headers = or_up(raw.pass_headers, &up.pass_headers);
        let hide_headers = or_up(raw.hide_headers, &up.hide_headers);
        let hidden = match same_names {
            true => up.hidden.clone(),
            false => Rc::new(hidden(&pass_headers, &hide_headers)),
        };
        let max_temp_file_size_conf = raw.max_temp_file_size.or(up.max_temp_file_size_conf);
        let rules = Rules {
            bind: raw.bind.unwrap_or_else(|| up.bind.clone()),
            socket_keepalive: raw.socket_keepalive.unwrap_or(up.socket_keepalive),
            socket_rcvbuf: raw.socket_rcvbuf.unwrap_or(up.socket_rcvbuf),
            socket_sndbuf: raw.socket_sndbuf.unwrap_or(up.socket_sndbuf),
            connect_timeout: raw.connect_timeout.unwrap_or(up.connect_timeout),
            send_timeout: raw.send_timeout.unwrap_or(up.send_timeout),
            read_timeout: raw.read_timeout.unwrap_or(up.read_timeout),
            buffering: raw.buffering.unwrap_or(up.buffering),
            request_buffering: raw.request_buffering.unwrap_or(up.request_buffering),
            buffer_size: raw.buffer_size.unwrap_or(up.buffer_size),
            buffers: raw.buffers.unwrap_or(up.buffers),
            temp_path,
            max_temp_file_size: max_temp_file_size_conf.unwrap_or(up.max_temp_file_size),
            limit_rate: raw.limit_rate.or_else(|| up.limit_rate.clone()),
            force_ranges: raw.force_ranges.unwrap_or(up.force_ranges),
            ignore_client_abort: raw.ignore_client_abort.unwrap_or(up.ignore_client_abort),
            intercept_errors: raw.intercept_errors.unwrap_or(up.intercept_errors),
            next: NextRules {
                on: raw.next.unwrap_or(up.next.on),
                tries: raw.next_tries.map_or(up.next.tries, |n| n as u32),
                timeout: raw.next_timeout.unwrap_or(up.next.timeout),
            },
            pass_headers,
            hide_headers,
            hidden,
            ignored: raw.ignore_headers.unwrap_or(up.ignored),
            pass_request_headers: raw.pass_request_headers.unwrap_or(up.pass_request_headers),
            pass_request_body: raw.pass_request_body.unwrap_or(up.pass_request_body),
            pass_trailers: raw.pass_trailers.unwrap_or(up.pass_trailers),
            busy_buffers_size: raw.busy_buffers_size.or(up.busy_buffers_size),
            max_temp_file_size_conf,
            temp_file_write_size_conf: raw.temp_file_write_size.or(up.temp_file_write_size_conf),
        };
        rules.check(prefix)?;
        Ok(rules)
    }

    /// `…_temp_file_write_size`, if it was said: bytes written to a temporary file at once.
    pub fn temp_file_write_size(&self) -> Option<u64> {
        self.temp_file_write_size_conf
    }

    /// Sizes that do not fit together, in nginx's words.
    fn check(&self, prefix: &str) -> Result<(), Reason> {
        let (count, size) = self.buffers;
        let says = |text: String| Err(Reason::Says(text));
        if count < 2 {
            return says(format!("there must be at least 2 \"{prefix}_buffers\""));
        }
        let largest = self.buffer_size.max(size);
        let of_both = format!(
            "the maximum of the value of \"{prefix}_buffer_size\" and one of the \
             \"{prefix}_buffers\""
        );
        let busy = self.busy_buffers_size.unwrap_or(2 * largest);
        if busy < largest {
            return says(format!(
                "\"{prefix}_busy_buffers_size\" must be equal to or greater than {of_both}"
            ));
        }
        if busy > (count - 1).saturating_mul(size) {
            return says(format!(
                "\"{prefix}_busy_buffers_size\" must be less than the size of all \
                 \"{prefix}_buffers\" minus one buffer"
            ));
        }
        if self.temp_file_write_size_conf.is_some_and(|n| n < largest) {
            return says(format!(
                "\"{prefix}_temp_file_write_size\" must be equal to or greater than {of_both}"
            ));
        }
        if self.max_temp_file_size != 0 && self.max_temp_file_size < largest {
            return says(format!(
                "\"{prefix}_max_temp_file_size\" must be equal to zero to disable temporary \
                 files usage or must be equal to or greater than {of_both}"
            ));
        }
        Ok(())
    }

    /// Whether the operator asked for `name` to be passed on.
    pub fn passes(&self, name: &str) -> bool {
        self.pass_headers.iter().any(|n| n.eq_ignore_ascii_case(name))
    }
}

fn or_up(own: Vec<String>, up: &Rc<[String]>) -> Rc<[String]> {
    if own.is_empty() { up.clone() } else { own.into() }
}

fn hidden(pass: &[String], hide: &[String]) -> NameSet {
    let passes = |name: &str| pass.iter().any(|p| p.eq_ignore_ascii_case(name));
    let default = HIDDEN.into_iter().filter(|name| !passes(name));
    NameSet::of(default.chain(hide.iter().map(String::as_str)))
}

impl Bind {
    /// How a connection for `r` leaves; the text that is no address, if it is none.
    pub fn departure(&self, r: &crate::http::Request) -> Result<Departure, String> {
        let bind = match &self.fixed {
            Some(address) => Some(address.clone()),
            None => match self.template.text(r) {
                text if text.is_empty() => None,
                text => Some(url::local_address(&text).ok_or(text)?),
            },
        };
        Ok(Departure { bind, transparent: self.transparent, receive_buffer: 0 })
    }
}

impl RawRules {
    pub fn bind(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.bind.is_some() {
            return Err(Reason::Duplicate);
        }
        let args = r.take_args();
        if args[..] == ["off"] {
            self.bind = Some(None);
            return Ok(());
        }
        let template = Template::parse(&args[0], r)?;
        let fixed = match template.constant() {
            None => None,
            Some(_) => Some(
                url::local_address(&args[0])
                    .ok_or_else(|| Reason::says(format!("invalid address \"{}\"", args[0])))?,
            ),
        };
        let transparent = match args.get(1).map(String::as_str) {
            None => false,
            Some("transparent") => true,
            Some(other) => return Err(Reason::InvalidParameter(other.to_owned())),
        };
        self.bind = Some(Some(Bind { fixed, template, transparent }));
        Ok(())
    }

    pub fn temp_path(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.temp_path.is_some() {
            return Err(Reason::Duplicate);
        }
        self.temp_path = Some(TempPath::read(r)?);
        Ok(())
    }

    pub fn limit_rate(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.limit_rate.is_some() {
            return Err(Reason::Duplicate);
        }
        let text = r.arg(0).to_owned();
        let template = Template::parse(&text, r)?;
        if template.constant().is_some() && value::size(&text).is_none() {
            return Err(Reason::InvalidValue);
        }
        self.limit_rate = Some(template);
        Ok(())
    }

    pub fn next(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.next.is_some() {
            return Err(Reason::Duplicate);
        }
        self.next = Some(Conditions::read(r)?);
        Ok(())
    }

    pub fn pass_header(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.pass_headers.extend(r.take_args());
        Ok(())
    }

    pub fn hide_header(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.hide_headers.extend(r.take_args());
        Ok(())
    }

    pub fn ignore_headers(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.ignore_headers.is_some() {
            return Err(Reason::Duplicate);
        }
        let mut set = HeaderSet::EMPTY;
        for word in r.take_args() {
            let id = HeaderId::of(word.as_bytes());
            if !IGNORABLE.contains(&id) {
                return Err(Reason::says(format!("invalid value \"{word}\"")));
            }
            set.insert(id);
        }
        self.ignore_headers = Some(set);
        Ok(())
    }
}
