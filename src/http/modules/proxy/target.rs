//! Where `proxy_pass` sends a request: a fixed URL, or one that variables give.

use super::Proxy;
use super::rewrite::Rewrite;
use crate::conf::{Reading, Reason};
use crate::http::conf::Here;
use crate::http::upstream::Upstreams;
use crate::http::{Kind, Level, Request, Template};
use crate::log;
use crate::upstream::{Named, Upstream, UpstreamTable, Url};
use std::rc::Rc;

/// The directive.
pub enum Pass {
    /// A URL without variables.
    Fixed(Box<Fixed>),
    /// A URL that is known for a request only.
    Variable(Template),
}

/// A URL without variables.
pub struct Fixed {
    /// As it was written.
    text: String,
    named: Rc<Named>,
    /// The location's name, which the URI replaces.
    location: String,
    facts: Rc<Facts>,
}

/// What a URL says.
pub struct Facts {
    is_secure: bool,
    scheme: Rc<str>,
    /// What `Host` says if nobody says otherwise; `$proxy_host`.
    host_header: Rc<str>,
    /// `$proxy_port`
    port: Rc<str>,
    /// What follows the host.
    uri: Box<str>,
    /// The name for TLS.
    tls_name: Rc<str>,
}

/// A request's target.
pub struct Target {
    pub upstream: Rc<Upstream>,
    pub is_secure: bool,
    pub scheme: Rc<str>,
    pub tls_name: Rc<str>,
    pub facts: Rc<Facts>,
    /// How the URI is made.
    pub uri: UriRule,
}

/// How the URI of the request to the upstream is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriRule {
    /// The client's own, or the URI in force if that changed.
    Own,
    /// The URL's URI stands for so many bytes of the URI in force.
    Replace(usize),
    /// The URL's URI as it is: variables made it.
    Whole,
}

impl Facts {
    /// The host as `Host` and `$proxy_host` have it.
    pub fn host_header(&self) -> &[u8] {
        self.host_header.as_bytes()
    }
    /// `$proxy_port`
    pub fn port(&self) -> &[u8] {
        self.port.as_bytes()
    }
    /// The URL's URI.
    pub fn uri(&self) -> &[u8] {
        self.uri.as_bytes()
    }

    fn new(url: &Url, default_port: u16) -> Facts {
        let is_secure = default_port == 443;
        let (host_header, port) = if url.is_unix() {
            ("localhost".to_owned(), String::new())
        } else if url.no_port || url.port == default_port {
            (url.host.clone(), default_port.to_string())
        } else {
            (format!("{}:{}", url.host, url.port), url.port.to_string())
        };
        Facts {
            is_secure,
            scheme: if is_secure { "https://".into() } else { "http://".into() },
            host_header: host_header.into(),
            port: port.into(),
            uri: url.uri.as_str().into(),
            tls_name: url.host.as_str().into(),
        }
    }
}

/// Cuts the scheme off; gives the default port.
fn scheme(text: &str) -> Option<(&str, u16)> {
    let starts = |p: &str| text.get(..p.len()).is_some_and(|t| t.eq_ignore_ascii_case(p));
    if starts("http://") {
        return Some((&text[7..], 80));
    }
    starts("https://").then(|| (&text[8..], 443))
}

impl Pass {
    /// Reads the directive's argument.
    ///
    /// Errors: `invalid URL prefix`, what is wrong with the URL, and a URI where none may be.
    pub fn read(r: &mut Reading, here: &Here) -> Result<Pass, Reason> {
        let text = r.arg(0).to_owned();
        if crate::http::template::has_variables(&text) {
            return Ok(Pass::Variable(Template::parse(&text, r)?));
        }
        let (rest, port) = scheme(&text).ok_or_else(|| Reason::says("invalid URL prefix"))?;
        let url = Url::parse(rest, port, true)
            .map_err(|e| Reason::says(format!("{e} in upstream \"{rest}\"")))?;
        let named = UpstreamTable::refer(r, &url)?;
        let has_no_name = here.level != Level::Location
            || matches!(here.kind, Some(Kind::Regex | Kind::Named | Kind::Nameless) | None);
        if has_no_name && !url.uri.is_empty() {
            return Err(Reason::says(
                "\"proxy_pass\" cannot have URI part in location given by regular expression, \
                 or inside named location, or inside \"if\" statement, or inside \
                 \"limit_except\" block",
            ));
        }
        let location = if has_no_name { String::new() } else { here.name.clone() };
        let facts = Rc::new(Facts::new(&url, port));
        Ok(Pass::Fixed(Box::new(Fixed { text, named, location, facts })))
    }

    /// Whether TLS may be needed.
    pub fn may_be_secure(&self) -> bool {
        match self {
            Pass::Fixed(fixed) => fixed.facts.is_secure,
            Pass::Variable(_) => true,
        }
    }

    /// `proxy_redirect default`; none with variables.
    pub fn default_redirect(&self) -> Option<Rewrite> {
        let Pass::Fixed(fixed) = self else { return None };
        Some(match fixed.facts.uri.is_empty() {
            true => Rewrite::plain(&format!("{}/", fixed.text), "/"),
            false => Rewrite::plain(&fixed.text, &fixed.location),
        })
    }
}

impl Target {
    /// Where `pass` sends `r`.
    ///
    /// Errors: the status that ends the request; the reason was logged.
    pub async fn of(pass: &Pass, r: &mut Request) -> Result<Target, u16> {
        match pass {
            Pass::Fixed(fixed) => {
                let uri = match fixed.facts.uri.is_empty() {
                    true => UriRule::Own,
                    false => UriRule::Replace(fixed.location.len()),
                };
                Ok(Target::new(fixed.named.get().clone(), fixed.facts.clone(), uri))
            }
            Pass::Variable(template) => by_variable(template, r).await,
        }
    }

    fn new(upstream: Rc<Upstream>, facts: Rc<Facts>, uri: UriRule) -> Target {
        Target {
            upstream,
            is_secure: facts.is_secure,
            scheme: facts.scheme.clone(),
            tls_name: facts.tls_name.clone(),
            facts,
            uri,
        }
    }
}

/// The target that variables gave a request, for `$proxy_host` and `$proxy_port`.
struct Given(Rc<Facts>);

async fn by_variable(template: &Template, r: &mut Request) -> Result<Target, u16> {
    let text = template.text(r);
    let Some((rest, port)) = scheme(&text) else {
        log::error!(&*r, "invalid URL prefix in \"{text}\"");
        return Err(500);
    };
    let mut url = Url::parse(rest, port, true).map_err(|e| {
        log::error!(&*r, "{e} in upstream \"{rest}\"");
        500u16
    })?;
    if url.uri.starts_with('?') {
        url.uri.insert(0, '/');
    }
    let facts = Rc::new(Facts::new(&url, port));
    r.slots.of::<Option<Given>>().replace(Given(facts.clone()));
    let uri = if url.uri.is_empty() { UriRule::Own } else { UriRule::Whole };
    let main = r.main::<Upstreams>().clone();
    if let Some(named) = main.find(&url) {
        return Ok(Target::new(named.get().clone(), facts, uri));
    }
    let upstream = main.resolve(r, &url).await?;
    Ok(Target::new(upstream, facts, uri))
}

/// Tells `look` of the request's target; false if it has none.
pub fn of(r: &Request, look: impl FnOnce(&Facts)) -> bool {
    if let Some(Some(given)) = r.slots.get::<Option<Given>>() {
        look(&given.0);
        return true;
    }
    match r.conf::<Proxy>().pass.as_deref() {
        Some(Pass::Fixed(fixed)) => {
            look(&fixed.facts);
            true
        }
        _ => false,
    }
}
