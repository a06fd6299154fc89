//! Changes of a zone, as programs and sources write them.
//!
//! ```json
//! {"zone":"risk","key":"192.0.2.1","value":"deny","ttl":60}
//! {"op":"delete","zone":"risk","key":"192.0.2.1"}
//! {"op":"clear","zone":"risk"}
//! ```

use crate::http::keyval::{KeyvalZones, Refused};
use crate::sys;
use serde::Deserialize;
use tollbar_shm::Value;

/// The longest lifetime, seconds: ten years.
const TTL_MAX_S: f64 = 315_360_000.0;

/// A change as it was written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Change {
    zone: Option<String>,
    #[serde(default)]
    op: Op,
    key: Option<String>,
    value: Option<Written>,
    /// Seconds.
    ttl: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    #[default]
    Set,
    Delete,
    Clear,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(f64),
    Bool(bool),
}

/// Why something is no change.
#[derive(Debug, thiserror::Error)]
pub enum NoChange {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("the line is too long")]
    TooLong,
    #[error("no zone is named")]
    NoZone,
    #[error("there is no keyval zone of this name")]
    UnknownZone,
    #[error("it has a zone of its own")]
    OtherZone,
    #[error("there is no key")]
    NoKey,
    #[error("there is no value")]
    NoValue,
    #[error("\"ttl\" is no number of seconds from 0 to ten years")]
    BadTtl,
    #[error("{0}")]
    Refused(#[from] Refused),
}

impl Change {
    /// Reads one line. The position in serde's message is of no use in a line.
    pub fn read(line: &[u8]) -> Result<Change, NoChange> {
        Ok(serde_json::from_slice(line)?)
    }

    /// Makes the change. `zone` is the only one it may change, if given.
    pub fn make(&self, zones: &KeyvalZones, zone: Option<&str>) -> Result<(), NoChange> {
        let name = match (&self.zone, zone) {
            (Some(named), Some(only)) if named != only => return Err(NoChange::OtherZone),
            (None, None) => return Err(NoChange::NoZone),
            (named, only) => only.or(named.as_deref()).unwrap_or_default(),
        };
        let zone = zones.find(name).ok_or(NoChange::UnknownZone)?;
        let now_ms = sys::time::unix_ms();
        let key = || self.key.as_deref().map(str::as_bytes).ok_or(NoChange::NoKey);
        match self.op {
            Op::Clear => zone.clear(now_ms)?,
            Op::Delete => zone.delete(key()?)?,
            Op::Set => {
                let value = self.value.as_ref().ok_or(NoChange::NoValue)?.as_value();
                zone.set(key()?, value, self.ttl_ms()?, now_ms)?;
            }
        }
        Ok(())
    }

    fn ttl_ms(&self) -> Result<Option<u64>, NoChange> {
        match self.ttl {
            None => Ok(None),
            Some(ttl) if (0.0..=TTL_MAX_S).contains(&ttl) => Ok(Some((ttl * 1000.0).ceil() as u64)),
            Some(_) => Err(NoChange::BadTtl),
        }
    }
}

impl Written {
    fn as_value(&self) -> Value<'_> {
        match self {
            Written::Text(text) => Value::String(text.as_bytes()),
            Written::Number(n) => Value::Number(*n),
            Written::Bool(b) => Value::Bool(*b),
        }
    }
}

/// One change of a body, or why it is none, with its text.
pub type Item = (Result<Change, NoChange>, Vec<u8>);

/// What a source gave: a JSON array of changes, or a change in each line. Each comes with the text
/// to show if it is none (in an array: its number).
pub fn read_all(body: &[u8]) -> Result<Vec<Item>, NoChange> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        let items: Vec<serde_json::Value> = serde_json::from_slice(body)?;
        let read = |(n, item): (usize, serde_json::Value)| {
            let change = serde_json::from_value(item).map_err(NoChange::from);
            (change, format!("item {}", n + 1).into_bytes())
        };
        return Ok(items.into_iter().enumerate().map(read).collect());
    }
    let lines = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty());
    Ok(lines.map(|line| (Change::read(line), line[..line.len().min(256)].to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Paths, Reading};
    use crate::event::Memory;
    use crate::http::keyval::Match;
    use std::sync::Arc;
    use tollbar_shm::Dict;

    fn zones() -> KeyvalZones {
        let mut r = Reading::new(Paths::default());
        KeyvalZones::declare(&mut r, "z", 1 << 20, Match::String, None).unwrap();
        let zones = r.shelf.of::<KeyvalZones>().clone();
        let dict = Dict::create("z", 1 << 20).unwrap();
        zones.find("z").unwrap().zone.open(Memory::Dict(Arc::new(dict)));
        zones
    }

    fn value(zones: &KeyvalZones, key: &str) -> Option<String> {
        let mut out = Vec::new();
        let there =
            zones.find("z").unwrap().look_up(key.as_bytes(), sys::time::unix_ms(), &mut out);
        there.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn lines_change_the_zone() {
        let zones = zones();
        let make = |line: &str, only| Change::read(line.as_bytes())?.make(&zones, only);
        make(r#"{"zone":"z","key":"a","value":"x","ttl":60}"#, None).unwrap();
        make(r#"{"key":"b","value":7}"#, Some("z")).unwrap();
        make(r#"{"op":"set","zone":"z","key":"c","value":true,"ttl":0.5}"#, Some("z")).unwrap();
        let now = || (value(&zones, "a"), value(&zones, "b"), value(&zones, "c"));
        assert_eq!(now(), (Some("x".into()), Some("7".into()), Some("true".into())));
        make(r#"{"op":"delete","zone":"z","key":"a"}"#, None).unwrap();
        assert_eq!(now().0, None);
        make(r#"{"op":"clear","zone":"z"}"#, None).unwrap();
        assert_eq!(now(), (None, None, None));
    }

    #[test]
    fn nonsense_is_no_change() {
        let zones = zones();
        for line in [
            "",
            "nonsense",
            "[]",
            r#"{"key":"a","value":"x"}"#,
            r#"{"zone":"other","key":"a","value":"x"}"#,
            r#"{"zone":"z","value":"x"}"#,
            r#"{"zone":"z","key":"","value":"x"}"#,
            r#"{"zone":"z","key":"a"}"#,
            r#"{"zone":"z","key":"a","value":["x"]}"#,
            r#"{"zone":"z","key":"a","value":"x","ttl":-1}"#,
            r#"{"zone":"z","key":"a","value":"x","ttl":1e300}"#,
            r#"{"zone":"z","key":"a","value":"x","tll":1}"#,
            r#"{"zone":"z","key":"a","value":"x","op":"drop"}"#,
        ] {
            let made = Change::read(line.as_bytes()).and_then(|change| change.make(&zones, None));
            assert!(made.is_err(), "{line}");
        }
        let other = Change::read(br#"{"zone":"y","key":"a","value":"x"}"#).unwrap();
        assert!(matches!(other.make(&zones, Some("z")), Err(NoChange::OtherZone)));
        assert_eq!(value(&zones, "a"), None);
    }

    #[test]
    fn a_source_gives_an_array_or_lines() {
        let good = |body: &str| {
            let all = read_all(body.as_bytes()).unwrap();
            (all.len(), all.iter().filter(|(change, _)| change.is_ok()).count())
        };
        assert_eq!(good(r#" [{"key":"a","value":1}, 7, {"key":"b","value":2}]"#), (3, 2));
        assert_eq!(good("{\"key\":\"a\",\"value\":1}\n\nbad\r\n{\"op\":\"clear\"}"), (3, 2));
        assert_eq!(good(""), (0, 0));
        assert!(read_all(b"[{").is_err());
    }
}
