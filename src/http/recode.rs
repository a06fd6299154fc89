//! Recoding between character sets of one byte, and between those and UTF-8: `charset_map`.

use super::transform::Transform;
use crate::conf::{Reading, Reason};
use std::rc::Rc;

/// The maps of a configuration.
#[derive(Default)]
pub struct Maps(Vec<Map>);

/// One `charset_map`: it works in both directions.
struct Map {
    from: String,
    to: String,
    there: Table,
    back: Table,
}

/// How the bytes of one character set are written in another one.
#[derive(Clone)]
pub enum Table {
    /// Byte for byte.
    Bytes(Rc<[u8; 256]>),
    /// Up to four bytes for each.
    ToUtf8(Rc<[Vec<u8>; 256]>),
    /// Pages of 256 characters; 0 is "none".
    FromUtf8(Rc<[Option<Box<[u8; 256]>>; 256]>),
}

/// Bytes that one may be recoded to.
const UTF8_MAX_BYTES: usize = 4;

impl Maps {
    /// Reads `charset_map from to { 80 E282AC; … }`.
    ///
    /// Errors: nginx's, for names that fit badly and for bytes that are none.
    pub fn read(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let (from, to) = (r.arg(0).to_owned(), r.arg(1).to_owned());
        let (low_from, low_to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        let names = format!("\"{from}\" and \"{to}\"");
        if low_from == low_to {
            let what = format!("\"charset_map\" between the same charsets {names}");
            return Err(Reason::says(what));
        }
        if low_from == "utf-8" {
            return Err(Reason::says(
                "\"charset_map\" with \"utf-8\" charset should be given in the second column",
            ));
        }
        if self.find(&from, &to).is_some() {
            return Err(Reason::says(format!("duplicate \"charset_map\" between {names}")));
        }
        let (there, back) = match low_to == "utf-8" {
            true => read_utf8(r)?,
            false => read_bytes(r)?,
        };
        self.0.push(Map { from: low_from, to: low_to, there, back });
        Ok(())
    }

    /// The table from one character set to another.
    pub fn find(&self, from: &str, to: &str) -> Option<&Table> {
        self.0.iter().find_map(|map| {
            let is = |a: &str, b: &str| a.eq_ignore_ascii_case(from) && b.eq_ignore_ascii_case(to);
            if is(&map.from, &map.to) {
                Some(&map.there)
            } else {
                is(&map.to, &map.from).then_some(&map.back)
            }
        })
    }
}

impl Table {
    /// Whether the text keeps its length.
    pub fn keeps_length(&self) -> bool {
        matches!(self, Table::Bytes(_))
    }
}

fn read_bytes(r: &mut Reading) -> Result<(Table, Table), Reason> {
    let ascii = |byte: usize| if byte < 128 { byte as u8 } else { b'?' };
    let mut there: [u8; 256] = std::array::from_fn(ascii);
    let mut back = there;
    r.rows(|row| {
        let (from, to) = (byte(one_word(row)?.0)?, byte(one_word(row)?.1)?);
        there[from as usize] = to;
        back[to as usize] = from;
        Ok(())
    })?;
    Ok((Table::Bytes(Rc::new(there)), Table::Bytes(Rc::new(back))))
}

fn read_utf8(r: &mut Reading) -> Result<(Table, Table), Reason> {
    let ascii = |byte: usize| vec![if byte < 128 { byte as u8 } else { b'?' }];
    let mut there: [Vec<u8>; 256] = std::array::from_fn(ascii);
    let mut back: [Option<Box<[u8; 256]>>; 256] = [const { None }; 256];
    let first = std::array::from_fn(|byte| if byte < 128 { byte as u8 } else { 0 });
    back[0] = Some(Box::new(first));
    r.rows(|row| {
        let (from, written) = one_word(row)?;
        let from = byte(from)?;
        let (bytes, character) = character(written).ok_or_else(|| invalid(written))?;
        let page = back[(character >> 8) as usize].get_or_insert_with(|| Box::new([0; 256]));
        page[(character & 0xff) as usize] = from;
        there[from as usize] = bytes;
        Ok(())
    })?;
    Ok((Table::ToUtf8(Rc::new(there)), Table::FromUtf8(Rc::new(back))))
}

fn one_word(row: &Reading) -> Result<(&str, &str), Reason> {
    match row.args() {
        [word] => Ok((row.name(), word)),
        _ => Err(Reason::says("invalid parameters number")),
    }
}

fn invalid(text: &str) -> Reason {
    Reason::says(format!("invalid value \"{text}\""))
}

fn byte(text: &str) -> Result<u8, Reason> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u8::from_str_radix(text, 16).ok().filter(|_| digits);
    value.ok_or_else(|| invalid(text))
}

/// `E282AC`: the bytes, and the character that they are.
fn character(text: &str) -> Option<(Vec<u8>, u16)> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() / 2 > UTF8_MAX_BYTES {
        return None;
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| byte(str::from_utf8(pair).ok()?).ok());
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    match decode(&bytes) {
        Decoded::Character(n, len) if len == bytes.len() => Some((bytes, u16::try_from(n).ok()?)),
        _ => None,
    }
}

// ---- recoding ------------------------------------------------------------------------------

/// Recodes a text that comes in pieces.
pub struct Recoder {
    table: Table,
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Recoder {
    /// A recoder by `table`.
    pub fn new(table: Table) -> Recoder {
        Recoder { table, begun: Vec::new() }
    }

    fn leave_utf8(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let Table::FromUtf8(pages) = self.table.clone() else { return };
        while !self.begun.is_empty() {
            let Some((next, rest)) = bytes.split_first() else { return };
            self.begun.push(*next);
            match decode(&self.begun) {
                Decoded::Incomplete => bytes = rest,
                Decoded::Character(n, _) => {
                    bytes = rest;
                    self.begun.clear();
                    push(&pages, n, out);
                }
                // The byte that does not fit begins something itself.
                Decoded::Invalid(_) => {
                    self.begun.clear();
                    out.push(b'?');
                }
            }
        }
        while !bytes.is_empty() {
            let plain = bytes.iter().position(|b| *b >= 0x80).unwrap_or(bytes.len());
            out.extend_from_slice(&bytes[..plain]);
            bytes = &bytes[plain..];
            match decode(bytes) {
                Decoded::Character(n, len) => {
                    push(&pages, n, out);
                    bytes = &bytes[len..];
                }
                Decoded::Invalid(len) => {
                    out.push(b'?');
                    bytes = &bytes[len..];
                }
                Decoded::Incomplete => {
                    self.begun = bytes.to_vec();
                    return;
                }
            }
        }
    }
}

/// Characters that the other set lacks are written as HTML has them.
fn push(pages: &[Option<Box<[u8; 256]>>; 256], character: u32, out: &mut Vec<u8>) {
    let page = pages.get((character >> 8) as usize).and_then(Option::as_ref);
    match page.map_or(0, |page| page[(character & 0xff) as usize]) {
        0 => {
            out.extend_from_slice(b"&#");
            out.extend_from_slice(itoa::Buffer::new().format(character).as_bytes());
            out.push(b';');
        }
        byte => out.push(byte),
    }
}

impl Transform for Recoder {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &self.table {
            Table::Bytes(table) => out.extend(bytes.iter().map(|b| table[*b as usize])),
            Table::ToUtf8(table) => {
                bytes.iter().for_each(|b| out.extend_from_slice(&table[*b as usize]));
            }
            Table::FromUtf8(_) => self.leave_utf8(bytes, out),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    /// A character, and how many bytes it takes.
    Character(u32, usize),
    /// No character begins with these bytes.
    Invalid(usize),
    /// Nothing, or the beginning of one.
    Incomplete,
}

fn decode(bytes: &[u8]) -> Decoded {
    let head = &bytes[..bytes.len().min(UTF8_MAX_BYTES)];
    let valid = match str::from_utf8(head) {
        Ok(text) => text.chars().next(),
        Err(e) if e.valid_up_to() > 0 => {
            str::from_utf8(&head[..e.valid_up_to()]).ok().and_then(|text| text.chars().next())
        }
        Err(e) => match e.error_len() {
            Some(len) => return Decoded::Invalid(len),
            None => return Decoded::Incomplete,
        },
    };
    valid.map_or(Decoded::Incomplete, |c| Decoded::Character(c.into(), c.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_koi() -> Table {
        let mut pages = [const { None }; 256];
        pages[0] = Some(Box::new(std::array::from_fn(|b| if b < 128 { b as u8 } else { 0 })));
        let mut cyrillic = Box::new([0; 256]);
        cyrillic[0x42] = 0xd4;
        pages[4] = Some(cyrillic);
        Table::FromUtf8(Rc::new(pages))
    }

    fn recoded<'a>(table: Table, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut recoder, mut out) = (Recoder::new(table), Vec::new());
        pieces.for_each(|piece| recoder.feed(piece, &mut out));
        recoder.end(&mut out);
        out
    }

    #[test]
    fn characters_in_pieces() {
        let text = "aт€😀".as_bytes();
        for size in 1..text.len() {
            let out = recoded(to_koi(), text.chunks(size));
            assert_eq!(out, b"a\xd4&#8364;&#128512;", "{size}");
        }
        assert_eq!(recoded(to_koi(), [&b"\xffx\xd1y"[..]].into_iter()), b"?x?y");
        assert_eq!(recoded(to_koi(), [&b"\xe2\x82"[..], b"x"].into_iter()), b"?x");
    }

    #[test]
    fn rows() {
        assert_eq!(character("E282AC"), Some((vec![0xe2, 0x82, 0xac], 0x20ac)));
        for bad in ["", "E2", "E282ACAC", "F09F9880", "zz", "1", "é"] {
            assert_eq!(character(bad), None, "{bad}");
        }
        assert!(byte("100").is_err() && byte("+1").is_err() && byte("fF") == Ok(255));
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(bytes: Vec<u8>, size in 1usize..5) {
            let whole = recoded(to_koi(), [&bytes[..]].into_iter());
            prop_assert_eq!(recoded(to_koi(), bytes.chunks(size)), whole);
        }
    }
}
