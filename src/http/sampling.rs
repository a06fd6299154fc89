//! Samples: what workers tell the agent's programs about finished requests.
//!
//! The `agent` block says which variables, and of how many requests; the module `sample` pushes a
//! line into a queue when a request is logged. Nobody waits for the reader: a full queue drops.

use super::{Request, VarRef, VariableTable};
use crate::conf::{Reading, Reason};
use crate::event::Zone;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Longest line; a longer one is not sent, and counted as dropped by the queue.
pub const LINE_MAX_BYTES: usize = 8192;

/// What is told of a request: `{"zone":"seen","remote_addr":"192.0.2.1","status":"200"}`.
pub struct Sample {
    /// The queue.
    pub zone: Rc<Zone>,
    /// Of how many requests, 0 to 1.
    rate: f64,
    /// Adds up `rate`; a request is taken when it reaches 1.
    owed: Cell<f64>,
    /// Each with what stands before its value: `,"status":"`.
    fields: Vec<(Box<str>, VarRef)>,
}

/// All samples of a configuration; on the reading's shelf. A clone is the same list.
#[derive(Clone, Default)]
pub struct Samples(Rc<RefCell<Vec<Sample>>>);

impl Samples {
    /// Adds one.
    pub fn add(&self, sample: Sample) {
        self.0.borrow_mut().push(sample);
    }

    /// The queues to read from.
    pub fn zones(&self) -> Vec<Rc<Zone>> {
        self.0.borrow().iter().map(|sample| sample.zone.clone()).collect()
    }

    /// Tells of a finished request.
    pub fn take(&self, r: &Request) {
        self.0.borrow().iter().filter(|sample| sample.is_due()).for_each(|sample| sample.push(r));
    }
}

impl Sample {
    /// Reads `fields` (`"$remote_addr $status"`).
    pub fn new(zone: Rc<Zone>, rate: f64, fields: &str, r: &mut Reading) -> Result<Sample, Reason> {
        let mut read = Vec::new();
        for word in fields.split_ascii_whitespace() {
            let is_name = |name: &&str| {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                !name.is_empty() && name.bytes().all(plain)
            };
            let name = word.strip_prefix('$').filter(is_name).ok_or_else(|| {
                Reason::says(format!("\"{word}\" of \"fields\" is not a variable"))
            })?;
            let variable = r.shelf.of::<VariableTable>().refer(name);
            read.push((format!(",\"{name}\":\"").into(), variable));
        }
        if read.is_empty() {
            return Err(Reason::says("\"fields\" of \"sample\" names no variable"));
        }
        Ok(Sample { zone, rate, owed: Cell::new(0.0), fields: read })
    }

    fn is_due(&self) -> bool {
        let owed = self.owed.get() + self.rate;
        self.owed.set(owed.fract());
        owed >= 1.0
    }

    fn push(&self, r: &Request) {
        let mut line = Vec::with_capacity(256);
        line.extend_from_slice(b"{\"zone\":\"");
        push_json(self.zone.name.as_bytes(), &mut line);
        line.push(b'"');
        let mut value = Vec::new();
        for (before, variable) in &self.fields {
            line.extend_from_slice(before.as_bytes());
            value.clear();
            r.variable(variable, &mut value);
            push_json(&value, &mut line);
            line.push(b'"');
        }
        line.extend_from_slice(b"}\n");
        if line.len() <= LINE_MAX_BYTES {
            self.zone.queue().push(&line);
        }
    }
}

/// Appends `text` as the inside of a JSON string. Bytes that are no UTF-8 are replaced.
fn push_json(text: &[u8], out: &mut Vec<u8>) {
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_client_sends_stays_in_its_string() {
        let mut out = Vec::new();
        push_json(b"a\"b\\c\nd\xff\x7f\xc3\xa9", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\\\"b\\\\c\\u000ad\u{fffd}\\u007f\u{e9}");
    }

    #[test]
    fn a_rate_is_kept_exactly() {
        let owed = Cell::new(0.0);
        let zone = || {
            let mut table = crate::event::ZoneTable::default();
            table.want_queue("q", "sample", 1 << 16).unwrap()
        };
        let sample = Sample { zone: zone(), rate: 0.25, owed, fields: Vec::new() };
        assert_eq!((0..100).filter(|_| sample.is_due()).count(), 25);
        let all = Sample { rate: 1.0, ..sample };
        assert_eq!((0..100).filter(|_| all.is_due()).count(), 100);
    }
}
