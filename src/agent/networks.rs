//! Networks as feeds write them: one in a line, perhaps with a value.
//!
//! ```text
//! # anything            ; anything
//! 192.0.2.0/24
//! 2001:db8::/32  deny   # the value is what follows a blank or a comma
//! 198.51.100.7,captcha
//! {"cidr":"203.0.113.0/24","value":"deny"}
//! ```
//!
//! A line that is none of this is skipped and counted. Where too many are, the source is not what
//! it should be, and nothing is taken from it.

use crate::http::keyval::network;
use serde::Deserialize;
use std::fmt::Display;
use std::io::{BufRead, Read};
use tollbar_shm::prefixes::{Builder, Full, VALUE_MAX_BYTES};

/// The longest line.
const LINE_MAX_BYTES: usize = 4096;
/// The longest source.
const SOURCE_MAX_BYTES: u64 = 1 << 30;
/// One in so many lines may make no sense.
const LINES_PER_MISTAKE: u64 = 100;
/// Lines that are a short piece of work.
const LINES_PER_STEP: u64 = 64;
/// The value of a network that has none.
const VALUE_DEFAULT: &[u8] = b"1";

/// What was read.
#[derive(Debug, Default)]
pub struct Networks {
    pub builder: Builder,
    lines: u64,
    /// Lines that were skipped.
    pub mistakes: u64,
    /// The first of them: its number, what is wrong, its text.
    pub first: Option<(u64, Mistake, Vec<u8>)>,
}

/// Why a source gives no table.
#[derive(Debug, thiserror::Error)]
pub enum NoNetworks {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it is too large")]
    TooLarge,
    #[error("{0}")]
    Full(#[from] Full),
    #[error("{mistakes} of its {lines} lines make no sense, such as line {number}: {why}")]
    Nonsense { mistakes: u64, lines: u64, number: u64, why: Mistake },
}

/// Why a line is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("the line is too long")]
    TooLong,
    #[error("no address and no network")]
    NoNetwork,
    #[error("no JSON object with a network")]
    NoJson,
    #[error("a value too long or with control characters")]
    BadValue,
}

/// Reads a source to its end, calling `step` between short pieces of work.
pub fn read(source: impl BufRead, step: &mut dyn FnMut()) -> Result<Networks, NoNetworks> {
    let (mut source, mut networks) = (source.take(SOURCE_MAX_BYTES + 1), Networks::default());
    let (mut line, mut number) = (Vec::new(), 0);
    while read_line(&mut source, &mut line)? {
        number += 1;
        if number % LINES_PER_STEP == 0 {
            step();
        }
        networks.add(number, &line)?;
    }
    match source.limit() {
        0 => return Err(NoNetworks::TooLarge),
        limit if limit > SOURCE_MAX_BYTES => return Err(NoNetworks::Empty),
        _ => {}
    }
    let (mistakes, lines) = (networks.mistakes, networks.lines);
    match networks.first {
        Some((number, why, _)) if mistakes.saturating_mul(LINES_PER_MISTAKE) > lines => {
            Err(NoNetworks::Nonsense { mistakes, lines, number, why })
        }
        _ => Ok(networks),
    }
}

impl Networks {
    fn add(&mut self, number: u64, line: &[u8]) -> Result<(), Full> {
        let text = line.trim_ascii();
        if text.is_empty() || matches!(text[0], b'#' | b';') {
            return Ok(());
        }
        self.lines += 1;
        let taken = match text {
            _ if line.len() > LINE_MAX_BYTES => Err(Mistake::TooLong),
            [b'{', ..] => self.add_json(text)?,
            _ => self.add_text(text)?,
        };
        if let Err(why) = taken {
            self.mistakes += 1;
            self.first.get_or_insert_with(|| (number, why, text.into()));
        }
        Ok(())
    }

    fn add_text(&mut self, text: &[u8]) -> Result<Result<(), Mistake>, Full> {
        let end = text.iter().position(|b| b.is_ascii_whitespace() || *b == b',');
        let (network, rest) = text.split_at(end.unwrap_or(text.len()));
        let rest = rest.strip_prefix(b",").unwrap_or(rest);
        let begins_comment =
            |at: &usize| matches!(rest[*at], b'#' | b';') && (*at == 0 || is_blank(rest[*at - 1]));
        let end = (0..rest.len()).find(begins_comment).unwrap_or(rest.len());
        self.take(network, rest[..end].trim_ascii())
    }

    fn add_json(&mut self, text: &[u8]) -> Result<Result<(), Mistake>, Full> {
        let Ok(item) = serde_json::from_slice::<Item>(text) else {
            return Ok(Err(Mistake::NoJson));
        };
        let value: &dyn Display = match &item.value {
            None => &"",
            Some(Written::Text(text)) => text,
            Some(Written::Number(number)) => number,
            Some(Written::Bool(bool)) => bool,
        };
        self.take(item.network.as_bytes(), value.to_string().as_bytes())
    }

    fn take(&mut self, net: &[u8], value: &[u8]) -> Result<Result<(), Mistake>, Full> {
        let Some(net) = std::str::from_utf8(net).ok().and_then(network) else {
            return Ok(Err(Mistake::NoNetwork));
        };
        if value.len() > VALUE_MAX_BYTES || value.iter().any(u8::is_ascii_control) {
            return Ok(Err(Mistake::BadValue));
        }
        let value = if value.is_empty() { VALUE_DEFAULT } else { value };
        Ok(Ok(self.builder.add(net.addr(), net.prefix_len(), value)?))
    }
}

/// `key` as in the changes of a zone; `cidr` is what several public lists write.
#[derive(Deserialize)]
struct Item {
    #[serde(alias = "key", alias = "cidr", alias = "prefix")]
    network: String,
    value: Option<Written>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The next line, or as much of it as shows that it is too long; false at the end.
fn read_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let begun = source.by_ref().take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', line)? > 0;
    while line.len() > LINE_MAX_BYTES && line.last() != Some(&b'\n') {
        line.truncate(LINE_MAX_BYTES);
        if source.by_ref().take(LINE_MAX_BYTES as u64).read_until(b'\n', line)? == 0 {
            // The rest of the source was this line.
            line.push(b' ');
            break;
        }
    }
    Ok(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &[u8]) -> Result<(Networks, tollbar_shm::Prefixes), NoNetworks> {
        let mut networks = read(text, &mut || ())?;
        let table = std::mem::take(&mut networks.builder).finish("t", 0, 1, &mut || ()).unwrap();
        Ok((networks, table))
    }

    #[test]
    fn lines_as_operators_have_them() {
        let text = b"# a list\n\n192.0.2.0/24\r\n10.1.2.3/8 deny now # why\n\
            2001:db8::/32,six\n1.10.16.0/20 ; SBL256894\n; end\n::ffff:9.0.0.0/104\tmapped\n\
            {\"cidr\":\"203.0.113.0/24\",\"sblid\":\"x\"}\n\
            {\"key\":\"203.0.114.7\",\"value\":7}\n198.51.100.7,a#b";
        let (networks, table) = table(text).unwrap();
        assert_eq!((networks.lines, networks.mistakes, table.networks()), (8, 0, 8));
        for (ip, value) in [
            ("192.0.2.255", "1"),
            ("10.255.0.0", "deny now"),
            ("2001:db8::1", "six"),
            ("1.10.31.255", "1"),
            ("9.8.7.6", "mapped"),
            ("203.0.113.1", "1"),
            ("203.0.114.7", "7"),
            ("198.51.100.7", "a#b"),
        ] {
            assert_eq!(table.find(ip.parse().unwrap()), Some(value.as_bytes()), "{ip}");
        }
        assert_eq!(table.find([192, 0, 3, 0].into()), None);
    }

    #[test]
    fn a_few_mistakes_are_skipped() {
        let mut text: String = (0..200).map(|n| format!("10.0.{n}.0/24\n")).collect();
        text.push_str("10.0.0.0/33\n");
        text.push_str(&"x".repeat(3 * LINE_MAX_BYTES));
        let (networks, table) = table(text.as_bytes()).unwrap();
        assert_eq!((networks.lines, networks.mistakes, table.networks()), (202, 2, 200));
        let (number, why, text) = networks.first.unwrap();
        assert_eq!((number, why, &text[..]), (201, Mistake::NoNetwork, &b"10.0.0.0/33"[..]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(matches!(table(b""), Err(NoNetworks::Empty)));
        let long = [&b"x".repeat(2 * LINE_MAX_BYTES)[..], b"\n10.0.0.1\n"].concat();
        for nonsense in [
            &b"<html>\n<body>Not Found</body>\n"[..],
            &long,
            b"\0\xff\n",
            b"{}",
            b"10.0.0.1 a\x01b",
            b"{\"key\":\"10.0.0.1\",\"value\":\"a\\nb\"}",
            b"10.0.0.1/",
        ] {
            assert!(matches!(table(nonsense), Err(NoNetworks::Nonsense { .. })));
        }
        // Somebody has meant it.
        assert_eq!(table(b"# nothing\n").unwrap().1.networks(), 0);
    }
}
