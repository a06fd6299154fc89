//! Text with variables in it: `"$scheme://$host$request_uri"`, nginx's complex value.

use super::Request;
use super::variable::{VarRef, VariableTable};
use crate::conf::{Reading, Reason};
use crate::proto::escape::Escape;
use std::borrow::Cow;

/// A value that may name variables and captures.
#[derive(Clone, Default)]
pub struct Template {
    parts: Box<[Part]>,
    source: Box<str>,
}

#[derive(Clone)]
enum Part {
    Text(Box<[u8]>),
    Variable(VarRef),
    Capture(u8),
}

impl Template {
    /// Compiles `text`. Errors: nginx's, for a name that is empty or not closed.
    pub fn parse(text: &str, r: &mut Reading) -> Result<Template, Reason> {
        let (mut parts, mut plain) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.extend_from_slice(&rest.as_bytes()[..at]);
            let (part, after) = one_variable(&rest[at + 1..], r)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(part);
            rest = after;
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Template { parts: parts.into(), source: text.into() })
    }

    /// A value without variables.
    pub fn plain(text: &str) -> Template {
        let parts = match text {
            "" => Box::default(),
            _ => Box::new([Part::Text(text.as_bytes().into())]) as Box<[Part]>,
        };
        Template { parts, source: text.into() }
    }

    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value if no variable is in it.
    pub fn constant(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variable, if the text is that and nothing else.
    pub fn sole_variable(&self) -> Option<&VarRef> {
        match &*self.parts {
            [Part::Variable(v)] => Some(v),
            _ => None,
        }
    }

    /// Whether `$1` … `$9` are in it.
    pub fn has_captures(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Capture(_)))
    }

    /// Appends the value for request `r`.
    pub fn append(&self, r: &Request, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(v) => {
                    r.variable(v, out);
                }
                Part::Capture(n) => r.captures.borrow().append(*n, out),
            }
        }
    }

    /// Appends the value with its captures escaped by `how`: a redirect, or arguments, made of a
    /// path that was decoded.
    pub fn append_escaping_captures(&self, r: &Request, how: Escape, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(v) => {
                    r.variable(v, out);
                }
                Part::Capture(n) => {
                    let mut plain = Vec::new();
                    r.captures.borrow().append(*n, &mut plain);
                    how.push(&plain, out);
                }
            }
        }
    }

    /// The value for request `r`; borrowed if it is constant.
    pub fn value(&self, r: &Request) -> Cow<'_, [u8]> {
        if let Some(constant) = self.constant() {
            return Cow::Borrowed(constant);
        }
        let mut out = Vec::new();
        self.append(r, &mut out);
        Cow::Owned(out)
    }

    /// The value as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self, r: &Request) -> String {
        String::from_utf8_lossy(&self.value(r)).into_owned()
    }

    /// nginx's idea of a true predicate (`if=`, `proxy_no_cache`): neither empty nor `0`.
    pub fn is_true(&self, r: &Request) -> bool {
        let value = self.value(r);
        !value.is_empty() && *value != b"0"[..]
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

/// Whether nginx would take `text` for one with variables.
pub fn has_variables(text: &str) -> bool {
    text.contains('$')
}

/// `rest` stands behind a `$`.
fn one_variable<'a>(rest: &'a str, r: &mut Reading) -> Result<(Part, &'a str), Reason> {
    if let Some(digit) = rest.bytes().next().filter(|b| (b'1'..=b'9').contains(b)) {
        return Ok((Part::Capture(digit - b'0'), &rest[1..]));
    }
    let (name, after) = match rest.strip_prefix('{') {
        Some(inner) => {
            let Some(end) = inner.find('}') else {
                return Err(Reason::says(format!(
                    "the closing bracket in \"{inner}\" variable is missing"
                )));
            };
            (&inner[..end], &inner[end + 1..])
        }
        None => {
            let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            rest.split_at(end)
        }
    };
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Reason::says("invalid variable name"));
    }
    if let [digit @ b'1'..=b'9'] = name.as_bytes() {
        return Ok((Part::Capture(digit - b'0'), after));
    }
    Ok((Part::Variable(r.shelf.of::<VariableTable>().refer(name)), after))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Paths;

    fn shape(text: &str) -> Result<String, Reason> {
        let mut r = Reading::new(Paths::default());
        let t = Template::parse(text, &mut r)?;
        let show = |p: &Part| match p {
            Part::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
            Part::Variable(v) => format!("${}", v.name()),
            Part::Capture(n) => format!("#{n}"),
        };
        Ok(t.parts.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn parts() {
        assert_eq!(shape("a$b-${c}d$1e").unwrap(), "'a' $b '-' $c 'd' #1 'e'");
        assert_eq!(shape("$1x${2}3").unwrap(), "#1 'x' #2 '3'");
        assert_eq!(shape("plain").unwrap(), "'plain'");
        assert_eq!(shape("").unwrap(), "");
        assert_eq!(shape("$HOST").unwrap(), "$host");
        assert_eq!(shape("a$"), Err(Reason::says("invalid variable name")));
        assert!(shape("${a").is_err());
    }
}
