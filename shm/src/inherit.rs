//! What a new binary must be told to find the shared memory of the old one again.
//!
//! A binary upgrade execs a new master: the memfds it is to keep stay open (`keep_over_exec`), and
//! an environment variable lists them as `kind:fd:size:name`, joined by `;`. A name is written with
//! `%XX` for whatever is not plain.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::region::{OpenError, adopt};

/// What is behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShmKind {
    Dict,
    Cells,
    Queue,
    Snapshot,
}

const KINDS: [(ShmKind, &str); 4] = [
    (ShmKind::Dict, "dict"),
    (ShmKind::Cells, "cells"),
    (ShmKind::Queue, "queue"),
    (ShmKind::Snapshot, "snapshot"),
];

/// One piece of shared memory on its way to a new binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bequest {
    pub name: String,
    /// Declared size, bytes.
    pub size: u64,
    pub kind: ShmKind,
    pub fd: RawFd,
}

impl Bequest {
    pub fn new(kind: ShmKind, name: &str, size: u64, fd: BorrowedFd<'_>) -> Bequest {
        Bequest { name: name.into(), size, kind, fd: fd.as_raw_fd() }
    }

    /// The value of the environment variable for all of them.
    pub fn encode(all: &[Bequest]) -> String {
        let one = |b: &Bequest| {
            let kind = KINDS.iter().find(|(k, _)| *k == b.kind).map_or("", |(_, word)| word);
            format!("{kind}:{}:{}:{}", b.fd, b.size, escape(&b.name))
        };
        all.iter().map(one).collect::<Vec<_>>().join(";")
    }

    /// Reads it back; what makes no sense is left out.
    pub fn decode(text: &str) -> Vec<Bequest> {
        text.split(';').filter_map(Bequest::decode_one).collect()
    }

    /// Takes the descriptor over: close-on-exec again. Refused unless it is a sealed memfd. Call it
    /// once per bequest, early, before the process opens descriptors of its own.
    pub fn take(&self) -> Result<OwnedFd, OpenError> {
        adopt(self.fd)
    }

    fn decode_one(text: &str) -> Option<Bequest> {
        let mut parts = text.splitn(4, ':');
        let word = parts.next()?;
        let kind = KINDS.iter().find(|(_, w)| *w == word)?.0;
        let fd = parts.next()?.parse().ok()?;
        let size = parts.next()?.parse().ok()?;
        Some(Bequest { name: unescape(parts.next()?)?, size, kind, fd })
    }
}

fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dict::{Dict, Put};

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let all = [
            Bequest { name: "a;b:c%ü".into(), size: 1 << 40, kind: ShmKind::Dict, fd: 7 },
            Bequest { name: "".into(), size: 0, kind: ShmKind::Queue, fd: 8 },
        ];
        assert_eq!(Bequest::decode(&Bequest::encode(&all)), all);
        assert_eq!(Bequest::decode("x;dict:1;dict:a:1:n;dict:1:1:%G0;;"), []);
    }

    #[test]
    fn the_heir_finds_the_dict() {
        let old = Dict::create("risk", 1 << 20).unwrap();
        old.set(b"k", Put::number(1.0), 0).unwrap();
        // As after exec: the number is all that is left.
        let fd = old.fd().try_clone_to_owned().unwrap();
        let will =
            Bequest::new(ShmKind::Dict, old.name(), old.capacity(), std::os::fd::AsFd::as_fd(&fd));
        std::mem::forget(fd);
        let heir = Dict::open(will.take().unwrap()).unwrap();
        assert!(heir.get(b"k", 0).unwrap().is_some());
        let nothing = Bequest { fd: 9999, ..will.clone() };
        assert!(nothing.take().is_err() && Bequest { fd: 1, ..will }.take().is_err());
    }
}
