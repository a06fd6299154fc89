//! The resolver's messages: queries for A, AAAA, SRV and PTR, and what answers say.
//!
//! Answers are judged as nginx's resolver judges them, with its sentences. Names are lower-case
//! text without the final dot.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Question {
    A = 1,
    Ptr = 12,
    Aaaa = 28,
    Srv = 33,
}

/// The name cannot be asked for: it is empty or has an empty or too long part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

/// The longest name, in bytes. RFC 1035 says 255; nginx takes longer ones, and so do we.
const NAME_MAX: usize = 1000;
/// The longest part of a name, in bytes.
const LABEL_MAX: usize = 63;

/// Appends a recursive query. A final dot of `name` is ignored.
pub fn write_query(
    id: u16,
    name: &[u8],
    question: Question,
    out: &mut Vec<u8>,
) -> Result<(), BadName> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.len() > NAME_MAX || name.split(|&b| b == b'.').any(is_bad_label) {
        return Err(BadName);
    }
    out.extend(id.to_be_bytes());
    // Recursion is desired; one question, nothing else.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split(|&b| b == b'.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
    out.extend((question as u16).to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    Ok(())
}

fn is_bad_label(label: &[u8]) -> bool {
    label.is_empty() || label.len() > LABEL_MAX
}

/// The name to ask for with [`Question::Ptr`] to learn the name of `ip`.
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(72);
            for octet in v6.octets().iter().rev() {
                name += &format!("{:x}.{:x}.", octet & 15, octet >> 4);
            }
            name + "ip6.arpa"
        }
    }
}

/// An answer to a query; whether it is to one of ours the resolver must compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: u16,
    pub question: Question,
    pub name: String,
    /// It did not fit: ask again over TCP. The rest is empty then.
    pub is_truncated: bool,
    /// Why there are no records; [`Failure::NotFound`] also if none of them is of use.
    pub failure: Option<Failure>,
    /// The lowest time to live of all records, in seconds.
    pub ttl: u32,
    pub addresses: Vec<IpAddr>,
    /// By priority.
    pub services: Vec<Service>,
    /// Where the name points to. Without addresses or services, ask for it.
    pub alias: Option<String>,
    /// The answer to [`Question::Ptr`].
    pub host: Option<String>,
    /// Types of records that nobody asked for, to be logged; at most [`ODD_TYPES_MAX`].
    pub odd_types: Vec<u16>,
}

/// How many odd record types an answer keeps.
pub const ODD_TYPES_MAX: usize = 8;
/// Records of one answer that are used; nginx counts them in sixteen bits.
const RECORDS_MAX: usize = 4096;

/// A record of [`Question::Srv`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    /// At least 1.
    pub weight: u16,
    pub port: u16,
    pub target: String,
}

/// Why a name could not be resolved; the texts are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("Format error")]
    Format,
    #[error("Server failure")]
    Server,
    #[error("Host not found")]
    NotFound,
    #[error("Unimplemented")]
    Unimplemented,
    #[error("Operation refused")]
    Refused,
    /// No answer came in time; not a code of the protocol.
    #[error("Operation timed out")]
    TimedOut,
}

impl Failure {
    /// The number that nginx shows.
    pub fn number(self) -> u16 {
        match self {
            Failure::Format => 1,
            Failure::Server => 2,
            Failure::NotFound => 3,
            Failure::Unimplemented => 4,
            Failure::Refused => 5,
            Failure::TimedOut => 110,
        }
    }
}

/// Why a message is no answer; texts as in nginx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    #[error("short DNS response")]
    Short,
    #[error("invalid {} DNS response {id} fl:{flags:04X}", if *.over_tcp { "TCP" } else { "UDP" })]
    Invalid { over_tcp: bool, id: u16, flags: u16 },
    /// nginx lets the query time out.
    #[error("DNS error ({code}: {}), query id:{id}", CodeText(*.code))]
    Failed { code: u8, id: u16 },
    #[error("invalid number of questions in DNS response")]
    Questions,
    #[error("unexpected compression pointer in DNS response")]
    PointerInQuestion,
    #[error("zero-length domain name in DNS response")]
    EmptyQuestion,
    #[error("unknown query class {0} in DNS response")]
    QueryClass(u16),
    #[error("unknown query type {0} in DNS response")]
    QueryType(u16),
    #[error("unexpected RR class {0} in DNS response")]
    RecordClass(u16),
    #[error("invalid name in DNS response")]
    EmptyName,
    #[error("invalid label type in DNS response")]
    LabelType,
    #[error("name is out of DNS response")]
    NameOutside,
    #[error("compression pointers loop in DNS response")]
    PointerLoop,
    #[error("unexpected {0} record in DNS response")]
    UnexpectedRecord(&'static str),
    #[error("invalid {0} record in DNS response")]
    InvalidRecord(&'static str),
    #[error("no PTR type in DNS response")]
    NoPtr,
}

struct CodeText(u8);

impl fmt::Display for CodeText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match failure(self.0) {
            Some(failure) => failure.fmt(f),
            None => f.write_str("Unknown error"),
        }
    }
}

fn failure(code: u8) -> Option<Failure> {
    match code {
        1 => Some(Failure::Format),
        2 => Some(Failure::Server),
        3 => Some(Failure::NotFound),
        4 => Some(Failure::Unimplemented),
        5 => Some(Failure::Refused),
        _ => None,
    }
}

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_DNAME: u16 = 39;
/// A record without its name and its data; and the shortest name.
const RECORD_FIXED: usize = 10;
const RECORD_MIN: usize = 2 + RECORD_FIXED;

/// Reads an answer. A message that is none is to be logged and forgotten.
pub fn read_answer(bytes: &[u8], over_tcp: bool) -> Result<Answer, DnsError> {
    let message = Message { bytes };
    if bytes.len() < HEADER {
        return Err(DnsError::Short);
    }
    let (id, flags) = (message.u16(0)?, message.u16(2)?);
    let is_truncated = flags & 0x0200 != 0;
    // A response to a standard query, reserved bits clear.
    if flags & 0xf870 != 0x8000 || is_truncated && over_tcp {
        return Err(DnsError::Invalid { over_tcp, id, flags });
    }
    let code = (flags & 15) as u8;
    if code == 1 || code > 5 {
        return Err(DnsError::Failed { code, id });
    }
    if message.u16(4)? != 1 {
        return Err(DnsError::Questions);
    }
    let (question, name, records) = message.question()?;
    let count = usize::from(message.u16(6)?);
    if records + count * RECORD_MIN > bytes.len() {
        return Err(DnsError::Short);
    }
    let failure = match failure(code) {
        None if count == 0 && !is_truncated => Some(Failure::NotFound),
        failure => failure,
    };
    let mut answer = Answer {
        id,
        question,
        name,
        is_truncated,
        failure,
        ttl: u32::MAX,
        addresses: Vec::new(),
        services: Vec::new(),
        alias: None,
        host: None,
        odd_types: Vec::new(),
    };
    if is_truncated || failure.is_some() {
        answer.ttl = 0;
        return Ok(answer);
    }
    answer.read_records(&message, records, count.min(RECORDS_MAX))?;
    Ok(answer)
}

impl Answer {
    fn read_records(
        &mut self,
        message: &Message,
        mut at: usize,
        count: usize,
    ) -> Result<(), DnsError> {
        for _ in 0..count {
            let record = message.record(at)?;
            self.ttl = self.ttl.min(record.ttl);
            self.take(message, &record)?;
            if self.host.is_some() {
                break;
            }
            at = record.data + record.len;
        }
        match self.question {
            Question::Ptr if self.host.is_none() => return Err(DnsError::NoPtr),
            Question::Ptr => (),
            _ if self.addresses.is_empty() && self.services.is_empty() && self.alias.is_none() => {
                self.failure = Some(Failure::NotFound);
            }
            _ => (),
        }
        // Stable: records of one priority keep the server's order.
        self.services.sort_by_key(|service| service.priority);
        Ok(())
    }

    fn take(&mut self, message: &Message, record: &Record) -> Result<(), DnsError> {
        const A: u16 = Question::A as u16;
        const AAAA: u16 = Question::Aaaa as u16;
        const SRV: u16 = Question::Srv as u16;
        const PTR: u16 = Question::Ptr as u16;
        match (record.kind, self.question) {
            (A, Question::A) => {
                let ip: [u8; 4] = message.exactly(record, "A")?;
                self.addresses.push(Ipv4Addr::from(ip).into());
            }
            (AAAA, Question::Aaaa) => {
                let ip: [u8; 16] = message.exactly(record, "AAAA")?;
                self.addresses.push(Ipv6Addr::from(ip).into());
            }
            (A, Question::Aaaa) => return Err(DnsError::UnexpectedRecord("A")),
            (AAAA, Question::A) => return Err(DnsError::UnexpectedRecord("AAAA")),
            (SRV, Question::Srv) => self.services.push(message.service(record)?),
            (PTR, Question::Ptr) => self.host = Some(message.name(record.data)?),
            (TYPE_CNAME, Question::Ptr) | (TYPE_DNAME, _) => (),
            (TYPE_CNAME, _) => self.alias = Some(message.name(record.data)?),
            (kind, _) => {
                if self.odd_types.len() < ODD_TYPES_MAX {
                    self.odd_types.push(kind);
                }
            }
        }
        Ok(())
    }
}

/// A record without its name.
struct Record {
    kind: u16,
    ttl: u32,
    /// Where its data start, and their length; they may reach beyond the message.
    data: usize,
    len: usize,
}

/// A whole message, read by offsets.
struct Message<'a> {
    bytes: &'a [u8],
}

impl Message<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], DnsError> {
        let found = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        found.copied().ok_or(DnsError::Short)
    }

    fn u16(&self, at: usize) -> Result<u16, DnsError> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// The question, its name, and where the records start.
    fn question(&self) -> Result<(Question, String, usize), DnsError> {
        let mut at = HEADER;
        loop {
            match *self.bytes.get(at).ok_or(DnsError::Short)? {
                0 => break,
                len if len > LABEL_MAX as u8 => return Err(DnsError::PointerInQuestion),
                len => at += 1 + usize::from(len),
            }
        }
        if at == HEADER {
            return Err(DnsError::EmptyQuestion);
        }
        let class = self.u16(at + 3)?;
        if class != CLASS_IN {
            return Err(DnsError::QueryClass(class));
        }
        let question = match self.u16(at + 1)? {
            1 => Question::A,
            12 => Question::Ptr,
            28 => Question::Aaaa,
            33 => Question::Srv,
            other => return Err(DnsError::QueryType(other)),
        };
        Ok((question, self.name(HEADER)?, at + 5))
    }

    /// The record that starts at `at`.
    fn record(&self, at: usize) -> Result<Record, DnsError> {
        let start = self.behind_name(at)?;
        let class = self.u16(start + 2)?;
        let ttl = i32::from_be_bytes(self.array(start + 4)?);
        let len = self.u16(start + 8)?;
        if class != CLASS_IN {
            return Err(DnsError::RecordClass(class));
        }
        Ok(Record {
            kind: self.u16(start)?,
            // A negative time is none (RFC 2181, 8).
            ttl: ttl.max(0) as u32,
            data: start + RECORD_FIXED,
            len: usize::from(len),
        })
    }

    /// Where the name that starts at `start` ends, not following pointers.
    fn behind_name(&self, start: usize) -> Result<usize, DnsError> {
        let mut at = start;
        loop {
            match *self.bytes.get(at).ok_or(DnsError::Short)? {
                0 if at == start => return Err(DnsError::EmptyName),
                0 => return Ok(at + 1),
                len if len > LABEL_MAX as u8 => return Ok(at + 2),
                len => at += 1 + usize::from(len),
            }
        }
    }

    /// The name at `at`, following pointers.
    fn name(&self, mut at: usize) -> Result<String, DnsError> {
        let mut name = Vec::new();
        // Pointers can go round in circles; a name has at most 127 parts.
        for _ in 0..128 {
            let len = *self.bytes.get(at).ok_or(DnsError::NameOutside)?;
            at = match len {
                0 => return Ok(String::from_utf8_lossy(&name).into_owned()),
                1..=63 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(len));
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(label.ok_or(DnsError::NameOutside)?.to_ascii_lowercase());
                    if name.len() > NAME_MAX {
                        return Err(DnsError::NameOutside);
                    }
                    at + 1 + usize::from(len)
                }
                64..=191 => return Err(DnsError::LabelType),
                192.. => {
                    let low = *self.bytes.get(at + 1).ok_or(DnsError::NameOutside)?;
                    usize::from(len & 63) << 8 | usize::from(low)
                }
            };
        }
        Err(DnsError::PointerLoop)
    }

    fn exactly<const N: usize>(
        &self,
        record: &Record,
        name: &'static str,
    ) -> Result<[u8; N], DnsError> {
        if record.len != N {
            return Err(DnsError::InvalidRecord(name));
        }
        self.array(record.data)
    }

    fn service(&self, record: &Record) -> Result<Service, DnsError> {
        Ok(Service {
            priority: self.u16(record.data)?,
            weight: self.u16(record.data + 2)?.max(1),
            port: self.u16(record.data + 4)?,
            target: self.name(record.data + 6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message as Theirs, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RData, Record as TheirRecord, RecordType, rdata};
    use proptest::prelude::*;

    fn check(bytes: &[u8]) -> String {
        match read_answer(bytes, false) {
            Err(error) => error.to_string(),
            Ok(a) => {
                let mut out = format!("{} {:?} {}", a.id, a.question, a.name);
                if a.is_truncated {
                    out += " truncated";
                }
                if let Some(failure) = a.failure {
                    return out + &format!(" {failure}");
                }
                out += &format!(" ttl={}", a.ttl);
                for ip in a.addresses {
                    out += &format!(" {ip}");
                }
                for s in a.services {
                    out += &format!(" {}/{} {}:{}", s.priority, s.weight, s.target, s.port);
                }
                for (mark, name) in [(">", a.alias), ("=", a.host)] {
                    if let Some(name) = name {
                        out += &format!(" {mark}{name}");
                    }
                }
                for odd in a.odd_types {
                    out += &format!(" ?{odd}");
                }
                out
            }
        }
    }

    /// A message with one question of `kind` for `a.b`, and `records` (each starting with a
    /// pointer to the question's name).
    fn message(flags: u16, kind: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0, 7];
        out.extend(flags.to_be_bytes());
        out.extend([0, 1, 0, records.len() as u8, 0, 0, 0, 0, 1, b'A', 1, b'b', 0]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        for record in records {
            out.extend([0xc0, 12]);
            out.extend(*record);
        }
        out
    }

    #[test]
    fn answers() {
        let a = [0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
        let negative = [0, 1, 0, 1, 0xff, 0, 0, 9, 0, 4, 1, 2, 3, 5];
        let cname = [0, 5, 0, 1, 0, 0, 0, 5, 0, 4, 1, b'X', 0xc0, 14];
        let srv = [0, 33, 0, 1, 0, 0, 0, 5, 0, 9, 0, 2, 0, 0, 0, 80, 1, b's', 0];
        let srv1 = [0, 33, 0, 1, 0, 0, 0, 5, 0, 9, 0, 1, 0, 3, 0, 81, 1, b't', 0];
        let ptr = [0, 12, 0, 1, 0, 0, 0, 5, 0, 2, 0xc0, 12];
        let txt = [0, 16, 0, 1, 0, 0, 0, 5, 0, 1, 0];
        let aaaa = [&[0, 28, 0, 1, 0, 0, 0, 5, 0, 16][..], &[0; 15], &[1]].concat();
        for (bytes, want) in [
            (message(0x8180, 1, &[&a]), "7 A a.b ttl=9 1.2.3.4"),
            (message(0x8180, 1, &[&a, &negative]), "7 A a.b ttl=0 1.2.3.4 1.2.3.5"),
            (message(0x8180, 1, &[&cname, &a]), "7 A a.b ttl=5 1.2.3.4 >x.b"),
            (message(0x8180, 1, &[&cname]), "7 A a.b ttl=5 >x.b"),
            (message(0x8180, 28, &[&aaaa]), "7 Aaaa a.b ttl=5 ::1"),
            (message(0x8180, 33, &[&srv, &srv1]), "7 Srv a.b ttl=5 1/3 t:81 2/1 s:80"),
            (message(0x8180, 12, &[&cname, &ptr]), "7 Ptr a.b ttl=5 =a.b"),
            (message(0x8180, 1, &[&txt, &a]), "7 A a.b ttl=5 1.2.3.4 ?16"),
            (message(0x8180, 1, &[&txt]), "7 A a.b Host not found"),
            (message(0x8180, 1, &[]), "7 A a.b Host not found"),
            (message(0x8183, 1, &[]), "7 A a.b Host not found"),
            (message(0x8182, 1, &[&a]), "7 A a.b Server failure"),
            (message(0x8380, 1, &[]), "7 A a.b truncated ttl=0"),
            (message(0x8181, 1, &[]), "DNS error (1: Format error), query id:7"),
            (message(0x8186, 1, &[]), "DNS error (6: Unknown error), query id:7"),
            (message(0x0180, 1, &[]), "invalid UDP DNS response 7 fl:0180"),
            (message(0x8180, 1, &[&aaaa]), "unexpected AAAA record in DNS response"),
            (message(0x8180, 28, &[&a]), "unexpected A record in DNS response"),
            (message(0x8180, 12, &[&cname]), "no PTR type in DNS response"),
            (message(0x8180, 16, &[]), "unknown query type 16 in DNS response"),
            (message(0x8180, 1, &[&a[..13]]), "short DNS response"),
            (
                message(0x8180, 1, &[&[0, 1, 0, 1, 0, 0, 0, 9, 0, 0]]),
                "invalid A record in DNS response",
            ),
            (
                message(0x8180, 1, &[&[0, 1, 0, 3, 0, 0, 0, 9, 0, 0]]),
                "unexpected RR class 3 in DNS response",
            ),
            (
                message(0x8180, 1, &[&[0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 33]]),
                "compression pointers loop in DNS response",
            ),
            (
                message(0x8180, 1, &[&[0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc1, 31]]),
                "name is out of DNS response",
            ),
            (
                message(0x8180, 1, &[&[0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0x41, 31]]),
                "invalid label type in DNS response",
            ),
            (vec![0; 11], "short DNS response"),
            (
                vec![0, 7, 0x81, 0x80, 0, 2, 0, 0, 0, 0, 0, 0],
                "invalid number of questions in DNS response",
            ),
            (
                vec![0, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1],
                "zero-length domain name in DNS response",
            ),
            (
                vec![0, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1],
                "unexpected compression pointer in DNS response",
            ),
        ] {
            assert_eq!(check(&bytes), want, "{bytes:?}");
            for end in 0..bytes.len() {
                check(&bytes[..end]);
            }
        }
        let truncated = message(0x8380, 1, &[]);
        assert!(matches!(read_answer(&truncated, true), Err(DnsError::Invalid { .. })));
    }

    #[test]
    fn queries() {
        let mut out = Vec::new();
        write_query(7, b"a.Bc.", Question::Srv, &mut out).unwrap();
        assert_eq!(out, b"\x00\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x02Bc\0\0\x21\0\x01");
        let theirs = Theirs::from_vec(&out).unwrap();
        assert_eq!(theirs.queries[0].name().to_ascii(), "a.Bc.");
        assert_eq!(theirs.queries[0].query_type(), RecordType::SRV);
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", ".a", &long] {
            let mut out = Vec::new();
            assert_eq!(write_query(7, bad.as_bytes(), Question::A, &mut out), Err(BadName));
        }
        assert_eq!(reverse_name([1, 2, 3, 4].into()), "4.3.2.1.in-addr.arpa");
        let v6 = reverse_name("2001:db8::1".parse().unwrap());
        assert_eq!(v6, format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(bytes: Vec<u8>, kind in 0u16..40) {
            check(&bytes);
            check(&message(0x8180, kind, &[&bytes]));
        }

        /// What another implementation writes, with compressed names, is understood.
        #[test]
        fn others_are_understood(
            labels in prop::collection::vec("[a-z0-9]{1,20}", 1..5),
            addresses: Vec<std::net::Ipv4Addr>,
            ttl in 1u32..100_000,
        ) {
            let name = Name::from_ascii(labels.join(".") + ".").unwrap();
            let alias = Name::from_ascii("x.".to_string() + &labels.join(".") + ".").unwrap();
            let mut theirs = Theirs::new(9, MessageType::Response, OpCode::Query);
            theirs.add_query(Query::query(name.clone(), RecordType::A));
            let cname = RData::CNAME(rdata::CNAME(alias.clone()));
            theirs.add_answer(TheirRecord::from_rdata(name, ttl, cname));
            for ip in &addresses {
                let a = RData::A(rdata::A(*ip));
                theirs.add_answer(TheirRecord::from_rdata(alias.clone(), ttl + 1, a));
            }
            let answer = read_answer(&theirs.to_vec().unwrap(), true).unwrap();
            prop_assert_eq!(answer.name, labels.join("."));
            prop_assert_eq!(answer.alias, Some("x.".to_string() + &labels.join(".")));
            prop_assert_eq!(answer.ttl, ttl);
            let want: Vec<IpAddr> = addresses.into_iter().map(IpAddr::from).collect();
            prop_assert_eq!(answer.addresses, want);
        }
    }
}
