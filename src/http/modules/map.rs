//! `map`: a variable whose value depends on another value.

use crate::conf::*;
use crate::http::variable::name_of;
use crate::http::{HttpModule, Merging, Regex, Request, Template, VariableTable};
use std::collections::HashMap;
use std::rc::Rc;

/// The module.
pub struct Map;

impl HttpModule for Map {
    type Main = Sizing;
    type RawLoc = ();
    type Loc = ();

    const MAIN: &'static [Directive<Sizing>] = &[
        d("map", HTTP, block(exactly(2), |_, r| read(r))),
        d("map_hash_max_size", HTTP, size(|c| &mut c.max)),
        d("map_hash_bucket_size", HTTP, size(|c| &mut c.bucket)),
    ];

    fn merge(_: (), _: &(), _: &mut Merging) -> Result<(), Reason> {
        Ok(())
    }
}

/// Sizes of nginx's tables; ours size themselves.
#[derive(Default)]
pub struct Sizing {
    max: Option<u64>,
    bucket: Option<u64>,
}

/// One `map`.
struct Table {
    source: Template,
    exact: HashMap<Box<str>, Template>,
    hosts: Option<Hosts>,
    regexes: Vec<(Regex, Template)>,
    default: Template,
}

/// Wildcards, with the parameter `hostnames`.
#[derive(Default)]
struct Hosts {
    /// `.example.com` for `*.example.com`
    suffixes: HashMap<Box<str>, Template>,
    /// `www.example.` for `www.example.*`
    prefixes: HashMap<Box<str>, Template>,
}

fn read(r: &mut Reading) -> Result<(), Reason> {
    let args = r.take_args();
    let name = name_of(&args[1])?;
    let source = Template::parse(&args[0], r)?;
    let mut table = Table {
        source,
        exact: HashMap::new(),
        hosts: None,
        regexes: Vec::new(),
        default: Template::default(),
    };
    let (mut volatile, mut has_default) = (false, false);
    r.rows(|r| {
        let key = r.name().to_owned();
        match (key.as_str(), r.args().len()) {
            ("hostnames", 0) => table.hosts = Some(table.hosts.take().unwrap_or_default()),
            ("volatile", 0) => volatile = true,
            (_, 1) => {
                let value = r.arg(0).to_owned();
                let value = Template::parse(&value, r)?;
                if key == "default" {
                    if std::mem::replace(&mut has_default, true) {
                        return Err(Reason::says("duplicate default map parameter"));
                    }
                    table.default = value;
                } else {
                    table.add(&key, value, r)?;
                }
            }
            _ => return Err(Reason::says("invalid number of the map parameters")),
        }
        Ok(())
    })?;
    let rule = Rc::new(move |r: &Request, out: &mut Vec<u8>| {
        table.find(r).append(r, out);
        true
    });
    r.shelf.of::<VariableTable>().compute(name, volatile, rule)?;
    Ok(())
}

impl Table {
    fn add(&mut self, key: &str, value: Template, r: &mut Reading) -> Result<(), Reason> {
        if let Some(pattern) = key.strip_prefix('~') {
            let (pattern, caseless) = match pattern.strip_prefix('*') {
                Some(rest) => (rest, true),
                None => (pattern, false),
            };
            self.regexes.push((Regex::compile(pattern, caseless, r)?, value));
            return Ok(());
        }
        let plain = key.strip_prefix('\\').unwrap_or(key).to_ascii_lowercase();
        let known = match &mut self.hosts {
            Some(hosts) if !key.starts_with('\\') => hosts.add(&plain, &value, &mut self.exact),
            _ => self.exact.insert(plain.into(), value).is_some(),
        };
        match known {
            true => Err(Reason::says(format!("conflicting parameter \"{key}\""))),
            false => Ok(()),
        }
    }

    fn find(&self, r: &Request) -> &Template {
        let value = self.source.value(r);
        let lower = String::from_utf8_lossy(&value).to_ascii_lowercase();
        let host = match &self.hosts {
            Some(_) => lower.strip_suffix('.').unwrap_or(&lower),
            None => &lower,
        };
        if let Some(found) = self.exact.get(host) {
            return found;
        }
        if let Some(found) = self.hosts.as_ref().and_then(|hosts| hosts.find(host)) {
            return found;
        }
        let matched = self.regexes.iter().find(|(regex, _)| regex.matches(r, &value));
        matched.map_or(&self.default, |(_, found)| found)
    }
}

impl Hosts {
    /// Whether the key was there already.
    fn add(
        &mut self,
        key: &str,
        value: &Template,
        exact: &mut HashMap<Box<str>, Template>,
    ) -> bool {
        if let Some(suffix) = key.strip_prefix('*') {
            self.suffixes.insert(suffix.into(), value.clone()).is_some()
        } else if let Some(prefix) = key.strip_suffix('*') {
            self.prefixes.insert(prefix.into(), value.clone()).is_some()
        } else if let Some(whole) = key.strip_prefix('.') {
            let known = self.suffixes.insert(key.into(), value.clone()).is_some();
            exact.insert(whole.into(), value.clone()).is_some() || known
        } else {
            exact.insert(key.into(), value.clone()).is_some()
        }
    }

    /// The longest suffix, else the longest prefix.
    fn find(&self, host: &str) -> Option<&Template> {
        let dots = || host.match_indices('.').map(|(at, _)| at);
        let suffix = dots().filter(|at| *at > 0).find_map(|at| self.suffixes.get(&host[at..]));
        suffix.or_else(|| dots().filter_map(|at| self.prefixes.get(&host[..=at])).next_back())
    }
}
