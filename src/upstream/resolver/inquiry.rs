//! What is asked about one name, and what the answers make of it; no socket and no clock.
//!
//! [`Inquiry::waiting`] tells what is to be sent, [`Inquiry::handle`] takes whatever comes in from
//! a name server, however wrong: only an answer to an open question, with its number, counts.

use super::Kind;
use crate::proto::dns::{self, BadName, DnsError, Failure, Question, Service};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::rc::Rc;

/// The open and answered questions about one name.
pub struct Inquiry {
    name: Rc<str>,
    asks: SmallVec<[Ask; 2]>,
    failure: Option<Failure>,
    ttl: u32,
    addresses: Vec<IpAddr>,
    services: Vec<Service>,
    alias: Option<String>,
    remarks: Vec<String>,
}

struct Ask {
    question: Question,
    id: u16,
    query: Vec<u8>,
    is_answered: bool,
    over_tcp: bool,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its addresses: at least one.
    Hosts(Box<[IpAddr]>),
    /// Who offers the service, by priority: at least one.
    Services(Box<[Service]>),
    /// The name to be asked for instead.
    Alias(Rc<str>),
}

/// All answers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub found: Found,
    /// How long it holds, in seconds.
    pub ttl: u32,
}

/// What a message was good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing; the remarks say why.
    Useless,
    /// One question less.
    Noted,
    /// The answer did not fit: the question with this index must go over TCP.
    Truncated(usize),
    /// No question is left.
    Done(Result<Answer, Failure>),
}

/// A query that waits for its answer.
pub struct Waiting<'a> {
    pub index: usize,
    pub query: &'a [u8],
    pub over_tcp: bool,
}

impl Inquiry {
    /// Asks `questions` about `name`; `new_id` gives numbers that nobody can guess.
    ///
    /// Errors: the name cannot be asked for.
    pub fn new(
        name: Rc<str>,
        questions: &[Question],
        mut new_id: impl FnMut() -> u16,
    ) -> Result<Inquiry, BadName> {
        let mut asks = SmallVec::new();
        for question in questions.iter().copied() {
            let (id, mut query) = (new_id(), Vec::with_capacity(name.len() + 18));
            dns::write_query(id, name.as_bytes(), question, &mut query)?;
            asks.push(Ask { question, id, query, is_answered: false, over_tcp: false });
        }
        let (addresses, services, remarks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Inquiry {
            name,
            asks,
            failure: None,
            ttl: u32::MAX,
            addresses,
            services,
            alias: None,
            remarks,
        })
    }

    /// The queries that wait for an answer.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting<'_>> {
        let open = self.asks.iter().enumerate().filter(|(_, ask)| !ask.is_answered);
        open.map(|(index, ask)| Waiting { index, query: &ask.query, over_tcp: ask.over_tcp })
    }

    /// The query with this index.
    pub fn query(&self, index: usize) -> &[u8] {
        &self.asks[index].query
    }

    /// What is to be logged of the messages so far; each is given once.
    pub fn remarks(&mut self) -> impl Iterator<Item = String> + '_ {
        self.remarks.drain(..)
    }

    /// Takes a message of a name server.
    pub fn handle(&mut self, bytes: &[u8], over_tcp: bool) -> Step {
        let answer = match dns::read_answer(bytes, over_tcp) {
            Ok(answer) => answer,
            Err(error) => return self.useless(self.said_of(&error)),
        };
        let name = &answer.name;
        let asked = self.asks.iter().position(|ask| ask.question == answer.question);
        let Some(index) = asked.filter(|i| **name == *self.name && !self.asks[*i].is_answered)
        else {
            return self.useless(format!("unexpected DNS response for {name}"));
        };
        let ask = &mut self.asks[index];
        if ask.id != answer.id {
            let (id, expected) = (answer.id, ask.id);
            return self.useless(format!(
                "wrong ident {id} in DNS response for {name}, expect {expected}"
            ));
        }
        if answer.is_truncated {
            let is_news = !std::mem::replace(&mut ask.over_tcp, true);
            return if is_news { Step::Truncated(index) } else { Step::Noted };
        }
        ask.is_answered = true;
        for kind in &answer.odd_types {
            self.remarks.push(format!("unexpected RR type {kind} in DNS response"));
        }
        self.take(answer);
        match self.asks.iter().all(|ask| ask.is_answered) {
            true => Step::Done(self.conclude()),
            false => Step::Noted,
        }
    }

    fn useless(&mut self, remark: String) -> Step {
        self.remarks.push(remark);
        Step::Useless
    }

    /// A refusal without the question tells by its number what it refuses.
    fn said_of(&self, error: &DnsError) -> String {
        match error {
            DnsError::Failed { id, .. } if self.asks.iter().any(|ask| ask.id == *id) => {
                format!("{error}, name:\"{}\"", self.name)
            }
            _ => error.to_string(),
        }
    }

    fn take(&mut self, answer: dns::Answer) {
        if let Some(failure) = answer.failure {
            // That there is none of one kind says nothing of the other kind.
            if self.failure.is_none_or(|before| before == Failure::NotFound) {
                self.failure = Some(failure);
            }
            return;
        }
        self.ttl = self.ttl.min(answer.ttl);
        self.addresses.extend(answer.addresses);
        self.services.extend(answer.services);
        self.alias = answer.alias.or(self.alias.take());
    }

    fn conclude(&mut self) -> Result<Answer, Failure> {
        if let Some(failure) = self.failure.filter(|f| *f != Failure::NotFound) {
            return Err(failure);
        }
        let found = if !self.addresses.is_empty() {
            Found::Hosts(std::mem::take(&mut self.addresses).into())
        } else if !self.services.is_empty() {
            Found::Services(std::mem::take(&mut self.services).into())
        } else {
            let alias = self.alias.take().filter(|alias| !alias.is_empty());
            Found::Alias(alias.ok_or(Failure::NotFound)?.into())
        };
        Ok(Answer { found, ttl: self.ttl })
    }
}

impl Kind {
    /// What is asked for, with addresses of these families.
    pub(super) fn questions(self, ipv4: bool, ipv6: bool) -> SmallVec<[Question; 2]> {
        let mut questions = SmallVec::new();
        match self {
            Kind::Services => questions.push(Question::Srv),
            Kind::Hosts => {
                questions.extend(ipv4.then_some(Question::A));
                questions.extend(ipv6.then_some(Question::Aaaa));
            }
        }
        questions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `inquiry`'s question `index` with these records: (type, data).
    fn reply(inquiry: &Inquiry, index: usize, flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = inquiry.query(index).to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (n, (kind, data)) in records.iter().enumerate() {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60 - n as u8, 0, data.len() as u8]);
            message.extend_from_slice(data);
        }
        message
    }

    fn both() -> Inquiry {
        let mut id = 100;
        let new_id = || {
            id += 1;
            id
        };
        Inquiry::new("a.example".into(), &[Question::A, Question::Aaaa], new_id).unwrap()
    }

    const A: u16 = 1;
    const CNAME: u16 = 5;

    #[test]
    fn both_families_are_awaited() {
        let mut inquiry = both();
        let none = reply(&inquiry, 1, 0, &[]);
        let one = reply(&inquiry, 0, 0, &[(A, &[10, 0, 0, 1]), (A, &[10, 0, 0, 2])]);
        assert_eq!(inquiry.waiting().count(), 2);
        assert_eq!(inquiry.handle(&none, false), Step::Noted);
        assert_eq!(inquiry.waiting().map(|w| w.index).collect::<Vec<_>>(), [0]);
        let hosts = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let answer = Answer { found: Found::Hosts(hosts.into()), ttl: 59 };
        assert_eq!(inquiry.handle(&one, false), Step::Done(Ok(answer)));
    }

    #[test]
    fn a_failure_of_one_family_is_one_of_the_name() {
        let mut inquiry = both();
        let failed = reply(&inquiry, 1, 2, &[]);
        let one = reply(&inquiry, 0, 0, &[(A, &[10, 0, 0, 1])]);
        assert_eq!(inquiry.handle(&failed, false), Step::Noted);
        assert_eq!(inquiry.handle(&one, false), Step::Done(Err(Failure::Server)));
        let mut inquiry = both();
        let nothing = [reply(&inquiry, 1, 3, &[]), reply(&inquiry, 0, 0, &[])];
        assert_eq!(inquiry.handle(&nothing[0], false), Step::Noted);
        assert_eq!(inquiry.handle(&nothing[1], false), Step::Done(Err(Failure::NotFound)));
    }

    #[test]
    fn an_alias_counts_without_addresses() {
        let mut inquiry = both();
        let alias = reply(&inquiry, 0, 0, &[(CNAME, b"\x01B\xc0\x0e")]);
        let none = reply(&inquiry, 1, 0, &[]);
        inquiry.handle(&alias, false);
        let answer = Answer { found: Found::Alias("b.example".into()), ttl: 60 };
        assert_eq!(inquiry.handle(&none, false), Step::Done(Ok(answer)));
    }

    #[test]
    fn only_answers_to_open_questions_count() {
        let mut inquiry = both();
        let good = reply(&inquiry, 0, 0, &[(A, &[10, 0, 0, 1])]);
        let mut wrong_id = good.clone();
        wrong_id[1] ^= 1;
        let mut other_name = good.clone();
        other_name[13] = b'b';
        let refused = [&good[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat();
        for (message, said) in [
            (&wrong_id[..], "wrong ident 100 in DNS response for a.example, expect 101"),
            (&other_name, "unexpected DNS response for b.example"),
            (&refused, "DNS error (1: Format error), query id:101, name:\"a.example\""),
            (b"", "short DNS response"),
        ] {
            assert_eq!(inquiry.handle(message, false), Step::Useless);
            assert_eq!(inquiry.remarks().collect::<Vec<_>>(), [said]);
        }
        assert_eq!(inquiry.handle(&good, false), Step::Noted);
        assert_eq!(inquiry.handle(&good, false), Step::Useless);
        assert_eq!(inquiry.waiting().count(), 1);
    }

    #[test]
    fn what_does_not_fit_goes_over_tcp_once() {
        let mut inquiry = both();
        let cut = reply(&inquiry, 0, 0x200, &[]);
        assert_eq!(inquiry.handle(&cut, false), Step::Truncated(0));
        assert_eq!(inquiry.handle(&cut, false), Step::Noted);
        assert_eq!(inquiry.handle(&cut, true), Step::Useless);
        let by: Vec<bool> = inquiry.waiting().map(|w| w.over_tcp).collect();
        assert_eq!(by, [true, false]);
    }

    #[test]
    fn no_message_makes_it_panic() {
        let mut inquiry = both();
        let good = reply(&inquiry, 0, 0, &[(A, &[10, 0, 0, 1]), (CNAME, b"\x01B\xc0\x0e")]);
        for at in 0..good.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = inquiry.handle(&bytes, value & 1 == 0);
                let _ = inquiry.handle(&bytes[..at], false);
                inquiry.remarks().for_each(drop);
            }
        }
    }

    #[test]
    fn names_that_cannot_be_asked_for() {
        for name in ["", "a..b", &"x".repeat(64)] {
            assert!(Inquiry::new(name.into(), &[Question::A], || 1).is_err(), "{name}");
        }
    }
}
