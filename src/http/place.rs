//! Where a request is handled: address → server → location.

use super::core;
use super::listen::Listen;
use super::module::Confs;
use super::phase::Pipeline;
use super::regex::Regex;
use super::rewrite::Op;
use super::{Level, Request};
use std::collections::HashMap;
use std::rc::Rc;

/// How often a URI may change before it is taken for a circle.
pub const URI_CHANGES_MAX: u8 = 10;

/// Where one request stands.
pub struct Place {
    /// The server chosen by address and host.
    pub server: Rc<Server>,
    /// The location chosen by the URI (the server's own level before that).
    pub location: Rc<Location>,
    /// `$uri`: decoded and normalised.
    pub uri: Vec<u8>,
    /// `$args`: as it was sent.
    pub args: Vec<u8>,
    /// Reached by a redirect from within: `internal` locations let it in.
    pub internal: bool,
    /// How many changes are left.
    pub uri_changes: u8,
    /// How often the request was sent elsewhere from within, by a URI or a name. What modules
    /// remember of a request holds until then.
    pub visits: u8,
    /// A rewrite changed the URI: the location must be found again.
    pub uri_changed: bool,
    /// The URI still is what the client sent (`proxy_pass` without URI forwards the original).
    pub is_original: bool,
    /// The URI still begins as the location's name does: `rewrite … break` changes that.
    pub begins_as_named: bool,
    /// The URI was found by `try_files` below an alias that is an expression: it is appended.
    pub adds_uri_to_alias: bool,
    /// An error page is being made.
    pub is_error_page: bool,
}

impl Place {
    /// The entrance of a server.
    pub fn at(server: Rc<Server>) -> Place {
        Place {
            location: server.root.clone(),
            server,
            uri: Vec::new(),
            args: Vec::new(),
            internal: false,
            uri_changes: URI_CHANGES_MAX + 1,
            visits: 0,
            uri_changed: false,
            is_original: true,
            begins_as_named: true,
            adds_uri_to_alias: false,
            is_error_page: false,
        }
    }
}

/// A listening address with its virtual servers.
pub struct Address {
    /// What `listen` said.
    pub listen: Rc<Listen>,
    /// The server for hosts that no name matches.
    pub default: Rc<Server>,
    /// All by name.
    pub names: ServerNames,
    /// Every name is the default's: none is looked up.
    has_one_server: bool,
}

/// One `server {}`.
pub struct Server {
    /// The first `server_name`; `$server_name`.
    pub name: Box<str>,
    /// Where its block begins: file and line.
    pub at: (Rc<str>, usize),
    /// The server's own level: the parent of its locations.
    pub root: Rc<Location>,
    /// Its TLS, if some `listen … ssl` is among its addresses and it has certificates.
    pub tls: Option<Rc<crate::tls::server::Server>>,
}

/// One place of the configuration: a location, or the own level of a server.
pub struct Location {
    /// As in the file: `/images/`, `~ \.php$`, `@fallback`.
    pub name: Box<str>,
    /// Kind of block.
    pub level: Level,
    /// How it is found.
    pub kind: Kind,
    /// Every module's configuration.
    pub confs: Confs,
    /// The core's, at hand.
    pub core: Rc<core::Loc>,
    /// What runs here.
    pub pipeline: Pipeline,
    /// `rewrite`, `set`, `if`, `return`, in order.
    pub rewrites: Box<[Op]>,
    /// Whether a use of a variable that was never set is worth a warning.
    pub warns_uninitialized: bool,
    /// The bodies of its `if` blocks.
    pub ifs: Vec<Rc<Location>>,
    /// The body of `limit_except`, with the methods it does not limit.
    pub limit_except: Option<(Vec<crate::proto::h1::Method>, Rc<Location>)>,
    /// Locations inside (of a server: all).
    pub nested: LocationTree,
}

/// How a location is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `= /uri`
    Exact,
    /// `/uri`
    Prefix,
    /// `^~ /uri`: regular expressions are not asked.
    PrefixOnly,
    /// `~` or `~*`
    Regex,
    /// `@name`
    Named,
    /// Not found by URI: server level, `if`, `limit_except`.
    Nameless,
}

/// The locations of one level.
#[derive(Default)]
pub struct LocationTree {
    exact: HashMap<Vec<u8>, Rc<Location>>,
    /// The exact ones that requests without the slash at their end are redirected to; by the name
    /// without it.
    slashed: HashMap<Vec<u8>, Rc<Location>>,
    /// Sorted by name; `longest_below` links a name to the longest other that is its prefix.
    prefixes: Vec<Prefix>,
    regexes: Vec<(Regex, Rc<Location>)>,
    named: HashMap<Box<str>, Rc<Location>>,
}

struct Prefix {
    name: Box<[u8]>,
    longest_below: Option<usize>,
    location: Rc<Location>,
}

impl LocationTree {
    /// The tree of `locations`, in the order of the file.
    pub(super) fn new(locations: Vec<(Rc<Location>, Option<Regex>)>) -> LocationTree {
        let mut tree = LocationTree::default();
        for (location, regex) in locations {
            let name = location.name.as_bytes();
            match (location.kind, regex) {
                (_, Some(regex)) => tree.regexes.push((regex, location)),
                (Kind::Exact, _) => {
                    if let Some(bare) = name.strip_suffix(b"/")
                        && location.pipeline.redirects_to_slash()
                    {
                        tree.slashed.insert(bare.to_vec(), location.clone());
                    }
                    tree.exact.insert(name.to_vec(), location);
                }
                (Kind::Named, _) => {
                    tree.named.insert(location.name.clone(), location);
                }
                _ => {
                    tree.prefixes.push(Prefix { name: name.into(), longest_below: None, location })
                }
            }
        }
        tree.prefixes.sort_by(|a, b| a.name.cmp(&b.name));
        for i in 1..tree.prefixes.len() {
            let mut below = Some(i - 1);
            while let Some(b) = below
                && !tree.prefixes[i].name.starts_with(&tree.prefixes[b].name)
            {
                below = tree.prefixes[b].longest_below;
            }
            tree.prefixes[i].longest_below = below;
        }
        tree
    }

    fn longest_prefix(&self, uri: &[u8]) -> Option<&Rc<Location>> {
        let after = self.prefixes.partition_point(|p| &*p.name <= uri);
        let mut at = after.checked_sub(1);
        while let Some(i) = at {
            if uri.starts_with(&self.prefixes[i].name) {
                return Some(&self.prefixes[i].location);
            }
            at = self.prefixes[i].longest_below;
        }
        None
    }

    /// A prefix or exact location whose name is `uri` and a `/` and that wants such requests
    /// redirected.
    fn redirecting(&self, uri: &[u8]) -> Option<&Rc<Location>> {
        let wants = |location: &&Rc<Location>| location.pipeline.redirects_to_slash();
        let found = self
            .prefixes
            .binary_search_by(|p| p.name.iter().copied().cmp(uri.iter().copied().chain([b'/'])));
        let prefix = found.ok().map(|at| &self.prefixes[at].location).filter(wants);
        match self.slashed.is_empty() {
            true => prefix,
            false => prefix.or_else(|| self.slashed.get(uri)),
        }
    }

    /// A named location.
    pub fn named(&self, name: &str) -> Option<&Rc<Location>> {
        self.named.get(name)
    }
}

/// What looking for a location found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// The place is set, or stays on the level it was.
    Found,
    /// The URI is a location's but for the slash at its end.
    NeedsSlash,
}

/// Sets the location for the request's URI, searching from its server.
pub(super) fn find_location(r: &mut Request) -> Sought {
    let root = r.place.server.root.clone();
    r.place.location = root.clone();
    match find_in(&root, r) {
        Step::Redirect => Sought::NeedsSlash,
        _ => Sought::Found,
    }
}

enum Step {
    Exact,
    Some,
    None,
    Redirect,
}

/// One level: the exact name, else the longest prefix and what is inside it, else the first
/// expression that matches and what is inside that.
fn find_in(level: &Rc<Location>, r: &mut Request) -> Step {
    let tree = &level.nested;
    if let Some(exact) = tree.exact.get(&r.place.uri) {
        r.place.location = exact.clone();
        return Step::Exact;
    }
    let (mut ask_regexes, mut found) = (true, Step::None);
    if let Some(prefix) = tree.longest_prefix(&r.place.uri) {
        if prefix.name.len() != r.place.uri.len() && tree.redirecting(&r.place.uri).is_some() {
            return Step::Redirect;
        }
        let prefix = prefix.clone();
        r.place.location = prefix.clone();
        ask_regexes = prefix.kind != Kind::PrefixOnly;
        found = Step::Some;
        if let done @ (Step::Exact | Step::Redirect) = find_in(&prefix, r) {
            return done;
        }
    } else if tree.redirecting(&r.place.uri).is_some() {
        return Step::Redirect;
    }
    if ask_regexes {
        for (regex, location) in &tree.regexes {
            if regex.matches(r, &r.place.uri) {
                r.place.location = location.clone();
                return match find_in(location, r) {
                    Step::Redirect => Step::Redirect,
                    _ => Step::Exact,
                };
            }
        }
    }
    found
}

/// Virtual servers of one address by name.
#[derive(Default)]
pub struct ServerNames {
    exact: HashMap<Box<str>, Rc<Server>>,
    /// `*.example.com` as `.example.com`; `.example.com` stands here and in `exact`.
    suffixes: HashMap<Box<str>, Rc<Server>>,
    /// `www.example.*` as `www.example.`
    prefixes: HashMap<Box<str>, Rc<Server>>,
    regexes: Vec<(Rc<Regex>, Rc<Server>)>,
}

impl ServerNames {
    /// Adds `name` in lower case; false if another server has it already.
    pub(super) fn add(&mut self, name: &str, server: &Rc<Server>) -> bool {
        let put = |map: &mut HashMap<Box<str>, Rc<Server>>, key: &str| {
            let free = !map.contains_key(key);
            map.entry(key.into()).or_insert_with(|| server.clone());
            free
        };
        if let Some(rest) = name.strip_prefix('*') {
            put(&mut self.suffixes, rest)
        } else if let Some(rest) = name.strip_suffix('*') {
            put(&mut self.prefixes, rest)
        } else if let Some(bare) = name.strip_prefix('.') {
            let whole = put(&mut self.suffixes, name);
            put(&mut self.exact, bare) && whole
        } else {
            put(&mut self.exact, name)
        }
    }

    /// Adds an expression.
    pub(super) fn add_regex(&mut self, regex: Rc<Regex>, server: &Rc<Server>) {
        self.regexes.push((regex, server.clone()));
    }

    /// All servers that have a name here, some of them more than once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Server>> {
        let plain = [&self.exact, &self.suffixes, &self.prefixes];
        let by_regex = self.regexes.iter().map(|(_, server)| server);
        plain.into_iter().flat_map(HashMap::values).chain(by_regex)
    }

    /// Whether there is any name.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.suffixes.is_empty()
            && self.prefixes.is_empty()
            && self.regexes.is_empty()
    }

    /// The server for a host without regular expressions: exact, longest `*.x`, longest `x.*`.
    pub fn by_name(&self, host: &str) -> Option<&Rc<Server>> {
        if let Some(server) = self.exact.get(host) {
            return Some(server);
        }
        if !self.suffixes.is_empty() {
            let dots = host.match_indices('.').map(|(i, _)| i).filter(|i| *i > 0);
            for at in dots {
                if let Some(server) = self.suffixes.get(&host[at..]) {
                    return Some(server);
                }
            }
        }
        if !self.prefixes.is_empty() {
            let mut dots: Vec<_> = host.match_indices('.').map(|(i, _)| i + 1).collect();
            dots.reverse();
            for end in dots.into_iter().filter(|end| *end < host.len()) {
                if let Some(server) = self.prefixes.get(&host[..end]) {
                    return Some(server);
                }
            }
        }
        None
    }

    /// The first server whose expression matches; no captures are kept.
    pub fn by_regex(&self, host: &str) -> Option<(&Rc<Regex>, &Rc<Server>)> {
        let found = self.regexes.iter().find(|(regex, _)| regex.is_match(host.as_bytes()));
        found.map(|(regex, server)| (regex, server))
    }
}

impl Address {
    /// An address whose servers are known.
    pub(super) fn new(listen: Listen, default: Rc<Server>, names: ServerNames) -> Address {
        let has_one_server = names.all().all(|server| Rc::ptr_eq(server, &default));
        Address { listen: Rc::new(listen), default, names, has_one_server }
    }

    /// Puts the captures of the expression that chose the request's server into the request.
    pub fn capture_host(&self, r: &Request) {
        if !self.names.regexes.is_empty()
            && self.names.by_name(&r.head.host).is_none()
            && let Some((regex, _)) = self.names.by_regex(&r.head.host)
        {
            regex.matches(r, r.head.host.as_bytes());
        }
    }

    /// The server for `host` (lower case, without port; empty if there was none).
    pub fn server(&self, host: &str) -> &Rc<Server> {
        if self.has_one_server {
            return &self.default;
        }
        self.names
            .by_name(host)
            .or_else(|| self.names.by_regex(host).map(|(_, server)| server))
            .unwrap_or(&self.default)
    }
}
