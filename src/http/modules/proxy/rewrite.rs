//! `proxy_redirect`, `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`.

use crate::conf::{Reading, Reason};
use crate::http::{Regex, Request, Template};

/// One rule: a pattern and what stands for it.
pub struct Rewrite {
    pattern: Pattern,
    replacement: Template,
}

enum Pattern {
    /// The text begins with it; what follows stays.
    Prefix(Template),
    /// The text is it, a dot before it and letter case left aside.
    Domain(Template),
    /// The whole text is replaced.
    Regex(Regex),
}

impl Rewrite {
    /// A rule without variables.
    pub fn plain(pattern: &str, replacement: &str) -> Rewrite {
        Rewrite {
            pattern: Pattern::Prefix(Template::plain(pattern)),
            replacement: Template::plain(replacement),
        }
    }

    /// Reads a prefix, `~ regex` or `~* regex` (written without the blank), and the replacement.
    pub fn read(pattern: &str, replacement: &str, r: &mut Reading) -> Result<Rewrite, Reason> {
        let pattern = match pattern.strip_prefix('~') {
            Some(rest) => Pattern::Regex(match rest.strip_prefix('*') {
                Some(rest) => Regex::compile(rest, true, r)?,
                None => Regex::compile(rest, false, r)?,
            }),
            None => Pattern::Prefix(Template::parse(pattern, r)?),
        };
        Ok(Rewrite { pattern, replacement: Template::parse(replacement, r)? })
    }

    /// Reads a domain or `~regex`, and the replacement.
    pub fn domain(pattern: &str, replacement: &str, r: &mut Reading) -> Result<Rewrite, Reason> {
        if let Some(source) = pattern.strip_prefix('~') {
            let pattern = Pattern::Regex(Regex::compile(source, true, r)?);
            return Ok(Rewrite { pattern, replacement: Template::parse(replacement, r)? });
        }
        let bare = |text: &str| text.strip_prefix('.').unwrap_or(text).to_owned();
        let pattern = Pattern::Domain(Template::parse(&bare(pattern), r)?);
        Ok(Rewrite { pattern, replacement: Template::parse(&bare(replacement), r)? })
    }

    /// The text as it should be; `None` if the rule does not apply.
    fn apply(&self, r: &Request, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match &self.pattern {
            Pattern::Prefix(prefix) => {
                let rest = text.strip_prefix(&*prefix.value(r))?;
                self.replacement.append(r, &mut out);
                out.extend_from_slice(rest);
            }
            Pattern::Domain(domain) => {
                let bare = text.strip_prefix(b".").unwrap_or(text);
                if !bare.eq_ignore_ascii_case(&domain.value(r)) {
                    return None;
                }
                out.extend_from_slice(&text[..text.len() - bare.len()]);
                self.replacement.append(r, &mut out);
            }
            Pattern::Regex(regex) => {
                if !regex.matches(r, text) {
                    return None;
                }
                self.replacement.append(r, &mut out);
            }
        }
        Some(out)
    }
}

/// What the first rule that applies makes of the text.
pub fn first(rules: &[Rewrite], r: &Request, text: &[u8]) -> Option<Vec<u8>> {
    rules.iter().find_map(|rule| rule.apply(r, text))
}

/// One `proxy_cookie_flags`.
pub struct CookieFlags {
    cookie: CookieName,
    flags: Vec<Template>,
}

enum CookieName {
    Plain(Template),
    Regex(Regex),
}

impl CookieFlags {
    /// Reads `cookie flag …`.
    pub fn read(args: &[String], r: &mut Reading) -> Result<CookieFlags, Reason> {
        let cookie = match args[0].strip_prefix('~') {
            Some(source) => CookieName::Regex(Regex::compile(source, true, r)?),
            None => CookieName::Plain(Template::parse(&args[0], r)?),
        };
        let mut flags = Vec::new();
        for word in &args[1..] {
            flags.push(Template::parse(word, r)?);
        }
        Ok(CookieFlags { cookie, flags })
    }

    fn is_for(&self, r: &Request, name: &[u8]) -> bool {
        match &self.cookie {
            CookieName::Plain(template) => template.value(r).eq_ignore_ascii_case(name),
            CookieName::Regex(regex) => regex.matches(r, name),
        }
    }
}

/// An attribute of a cookie: `Path=/`, `Secure`. The first is the cookie itself.
struct Attribute<'a> {
    key: &'a [u8],
    value: Option<Vec<u8>>,
}

fn attributes(line: &[u8]) -> Vec<Attribute<'_>> {
    let spaces = |b: &[u8]| {
        let start = b.iter().position(|c| *c != b' ').unwrap_or(b.len());
        let end = b.iter().rposition(|c| *c != b' ').map_or(start, |at| at + 1);
        start..end
    };
    line.split(|b| *b == b';')
        .map(|part| match memchr::memchr(b'=', part) {
            Some(at) => {
                let (key, value) = (&part[..at], &part[at + 1..]);
                Attribute { key: &key[spaces(key)], value: Some(value[spaces(value)].to_vec()) }
            }
            None => Attribute { key: &part[spaces(part)], value: None },
        })
        .collect()
}

/// `Set-Cookie` as the client should see it; `None` leaves it.
pub fn cookie(
    domains: &[Rewrite],
    paths: &[Rewrite],
    flags: &[CookieFlags],
    r: &Request,
    line: &[u8],
) -> Option<Vec<u8>> {
    let mut parts = attributes(line);
    parts[0].value.as_ref()?;
    let mut changed = false;
    for part in &mut parts[1..] {
        let rules = match part.key {
            key if key.eq_ignore_ascii_case(b"domain") => domains,
            key if key.eq_ignore_ascii_case(b"path") => paths,
            _ => continue,
        };
        if let Some(value) = &part.value
            && let Some(new) = first(rules, r, value)
        {
            part.value = Some(new);
            changed = true;
        }
    }
    if let Some(rule) = flags.iter().find(|f| f.is_for(r, parts[0].key)) {
        let words = rule.flags.iter().map(|t| t.value(r).to_ascii_lowercase());
        changed |= set_flags(&mut parts, &Wanted::of(words));
    }
    changed.then(|| join(&parts))
}

fn join(parts: &[Attribute<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        if !out.is_empty() {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(part.key);
        if let Some(value) = &part.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// What flags a cookie should have.
#[derive(Default, PartialEq)]
struct Wanted {
    secure: Option<bool>,
    http_only: Option<bool>,
    /// `Some("")` takes it away.
    same_site: Option<&'static str>,
}

impl Wanted {
    fn of(words: impl Iterator<Item = Vec<u8>>) -> Wanted {
        let mut wanted = Wanted::default();
        for word in words {
            // Adding goes before taking away, whatever the order.
            let add = |slot: &mut Option<bool>, on: bool| *slot = Some(on || *slot == Some(true));
            match &word[..] {
                b"secure" => add(&mut wanted.secure, true),
                b"nosecure" => add(&mut wanted.secure, false),
                b"httponly" => add(&mut wanted.http_only, true),
                b"nohttponly" => add(&mut wanted.http_only, false),
                b"samesite=strict" => wanted.same_site = Some("Strict"),
                b"samesite=lax" if wanted.same_site != Some("Strict") => {
                    wanted.same_site = Some("Lax");
                }
                b"samesite=none" if matches!(wanted.same_site, None | Some("")) => {
                    wanted.same_site = Some("None");
                }
                b"nosamesite" => {
                    wanted.same_site.get_or_insert("");
                }
                _ => {}
            }
        }
        wanted
    }
}

/// Says whether the flags apply at all: then the line is written anew.
fn set_flags(parts: &mut Vec<Attribute<'_>>, wanted: &Wanted) -> bool {
    if *wanted == Wanted::default() {
        return false;
    }
    for (name, on) in [("Secure", wanted.secure), ("HttpOnly", wanted.http_only)] {
        let is_it = |p: &Attribute<'_>| p.key.eq_ignore_ascii_case(name.as_bytes());
        let has = parts.iter().skip(1).any(is_it);
        match on {
            Some(true) if !has => parts.push(Attribute { key: name.as_bytes(), value: None }),
            Some(false) => retain_behind_first(parts, |p| !is_it(p)),
            _ => {}
        }
    }
    let is_site = |p: &Attribute<'_>| p.key.eq_ignore_ascii_case(b"samesite");
    match wanted.same_site {
        None => {}
        Some("") => retain_behind_first(parts, |p| !is_site(p)),
        Some(site) => {
            let value = Some(site.as_bytes().to_vec());
            match parts.iter_mut().skip(1).find(|p| is_site(p)) {
                Some(p)
                    if p.value
                        .as_ref()
                        .is_some_and(|v| v.eq_ignore_ascii_case(site.as_bytes())) => {}
                Some(p) => *p = Attribute { key: b"SameSite", value },
                None => parts.push(Attribute { key: b"SameSite", value }),
            }
        }
    }
    true
}

fn retain_behind_first(parts: &mut Vec<Attribute<'_>>, keep: impl Fn(&Attribute<'_>) -> bool) {
    let mut index = 0;
    parts.retain(|part| {
        index += 1;
        index == 1 || keep(part)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(line: &str, words: &str) -> String {
        let mut parts = attributes(line.as_bytes());
        set_flags(&mut parts, &Wanted::of(words.split(' ').map(|w| w.as_bytes().to_vec())));
        String::from_utf8(join(&parts)).unwrap()
    }

    #[test]
    fn cookie_flags() {
        for (line, words, want) in [
            ("a=b", "secure httponly", "a=b; Secure; HttpOnly"),
            ("a=b;secure", "secure", "a=b; secure"),
            ("a=b; Secure; Path=/", "nosecure", "a=b; Path=/"),
            ("a = b ;SameSite=lax", "samesite=strict", "a=b; SameSite=Strict"),
            ("a=b; samesite=lax", "samesite=lax", "a=b; samesite=lax"),
            ("a=b; SameSite=None", "nosamesite", "a=b"),
            ("secure=1; secure", "nosecure", "secure=1"),
            ("a=b", "other", "a=b"),
        ] {
            assert_eq!(flagged(line, words), want, "{line} {words}");
        }
    }
}
