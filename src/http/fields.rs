//! Header fields: one block of bytes and a table of slices into it.
//!
//! Requests, replies and trailers of every protocol use it. A parsed head is copied once, as a
//! whole; a field that is added is appended; a field that goes away loses its row only. So a
//! request costs no allocation per field.

use crate::proto::header::HeaderId;
use smallvec::SmallVec;

/// Rows kept without an allocation of their own.
const ROWS_INLINE: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Row {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    id: HeaderId,
}

/// An ordered list of header fields.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    block: Vec<u8>,
    rows: SmallVec<[Row; ROWS_INLINE]>,
}

/// One field, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name if it is a known one.
    pub id: HeaderId,
    /// The name as it was written.
    pub name: &'a [u8],
    /// The value without surrounding blanks.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Appends the field as a line of HTTP/1.
    #[inline]
    pub fn push_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.value);
        out.extend_from_slice(b"\r\n");
    }
}

impl Fields {
    /// A list over a copied `block`, to be filled with [`Fields::push_range`].
    pub fn over(block: Vec<u8>) -> Fields {
        Fields { block, rows: SmallVec::new() }
    }

    /// The block that the ranges of a parsed head refer to.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Adds a field whose bytes stand in the block already. Ranges are the parser's.
    pub fn push_range(&mut self, id: HeaderId, name: (u32, u32), value: (u32, u32)) {
        debug_assert!(name.1 as usize <= self.block.len() && value.1 as usize <= self.block.len());
        let (name_len, value_len) = ((name.1 - name.0) as u16, value.1 - value.0);
        self.rows.push(Row { name: name.0, name_len, value: value.0, value_len, id });
    }

    /// Adds a field of a known name.
    pub fn push(&mut self, id: HeaderId, value: &[u8]) {
        self.append(id, id.name().as_bytes(), value);
    }

    /// Adds a field of any name.
    pub fn push_named(&mut self, name: &[u8], value: &[u8]) {
        self.append(HeaderId::of(name), name, value);
    }

    /// Adds a field of another list.
    pub fn push_as(&mut self, field: Field<'_>) {
        self.append(field.id, field.name, field.value);
    }

    fn append(&mut self, id: HeaderId, name: &[u8], value: &[u8]) {
        let at = self.block.len() as u32;
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(value);
        let name_len = name.len().min(u16::MAX as usize) as u16;
        let (value, value_len) = (at + name.len() as u32, value.len() as u32);
        self.rows.push(Row { name: at, name_len, value, value_len, id });
    }

    /// Adds text that is no field to the block: where it stands.
    pub fn push_text(&mut self, text: &[u8]) -> (u32, u32) {
        let at = self.block.len() as u32;
        self.block.extend_from_slice(text);
        (at, self.block.len() as u32)
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, id: HeaderId, value: &[u8]) {
        self.remove(id);
        self.push(id, value);
    }

    /// Replaces every field of that name by one.
    pub fn set_named(&mut self, name: &[u8], value: &[u8]) {
        self.remove_named(name);
        self.push_named(name, value);
    }

    /// Drops every field of that name; says whether there was one.
    pub fn remove(&mut self, id: HeaderId) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| row.id != id);
        self.rows.len() != before
    }

    /// Drops every field of that name, in any letter case.
    pub fn remove_named(&mut self, name: &[u8]) {
        let block = &self.block;
        self.rows
            .retain(|row| !slice(block, row.name, row.name_len as u32).eq_ignore_ascii_case(name));
    }

    /// Keeps the fields that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let block = &self.block;
        self.rows.retain(|row| keep(field(block, row)));
    }

    /// Drops all, keeping the memory.
    pub fn clear(&mut self) {
        self.block.clear();
        self.rows.clear();
    }

    /// The first value of a known name.
    pub fn get(&self, id: HeaderId) -> Option<&[u8]> {
        self.rows.iter().find(|row| row.id == id).map(|row| field(&self.block, row).value)
    }

    /// The first value of any name, in any letter case.
    pub fn get_named(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    }

    /// All values of a known name.
    pub fn all(&self, id: HeaderId) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |f| f.id == id).map(|f| f.value)
    }

    /// Every field in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.rows.iter().map(|row| field(&self.block, row))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes that the fields take as lines of HTTP/1.
    pub fn wire_len(&self) -> usize {
        self.rows.iter().map(|r| r.name_len as usize + r.value_len as usize + 4).sum()
    }

    /// Takes the block for reuse.
    pub fn into_block(self) -> Vec<u8> {
        self.block
    }
}

fn slice(block: &[u8], at: u32, len: u32) -> &[u8] {
    &block[at as usize..(at + len) as usize]
}

fn field<'a>(block: &'a [u8], row: &Row) -> Field<'a> {
    Field {
        id: row.id,
        name: slice(block, row.name, row.name_len as u32),
        value: slice(block, row.value, row.value_len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_finds_and_removes() {
        let mut f = Fields::over(b"Host: a".to_vec());
        f.push_range(HeaderId::Host, (0, 4), (6, 7));
        f.push(HeaderId::SetCookie, b"x=1");
        f.push_named(b"set-cookie", b"y=2");
        f.push_named(b"X-Own", b"");
        assert_eq!(f.get(HeaderId::Host), Some(&b"a"[..]));
        assert_eq!(f.all(HeaderId::SetCookie).count(), 2);
        assert_eq!(f.get_named(b"x-own"), Some(&b""[..]));
        f.set(HeaderId::SetCookie, b"z");
        assert_eq!(f.all(HeaderId::SetCookie).collect::<Vec<_>>(), [b"z"]);
        f.remove_named(b"HOST");
        assert_eq!(f.get(HeaderId::Host), None);
        assert_eq!(f.len(), 2);
    }
}
