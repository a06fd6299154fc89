//! Every operation of the dict against a plain map with a clock.
#![allow(clippy::type_complexity)]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use tollbar_shm::dict::{Counted, Error, Got, Owned};
use tollbar_shm::{Dict, Init, Put, Record, Room, Update, Value};

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    GetStale(u8),
    Store {
        mode: u8,
        key: u8,
        value: Owned,
        ttl: u64,
        flags: u32,
    },
    Delete(u8),
    Incr {
        key: u8,
        by: i32,
        init: Option<(i32, u64)>,
    },
    Push {
        key: u8,
        left: bool,
        value: Owned,
    },
    Pop {
        key: u8,
        left: bool,
    },
    Len(u8),
    Ttl(u8),
    Expire(u8, u64),
    FlushAll,
    FlushExpired(usize),
    Keys,
    Update(u8, Option<u8>, u64),
    /// Go on with another handle of the region.
    Reopen,
    Wait(u64),
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    One(Owned),
    List(VecDeque<Owned>),
}

#[derive(Clone, Debug)]
struct Entry {
    what: What,
    expires: u64,
    flags: u32,
}

#[derive(Default)]
struct Model {
    map: BTreeMap<u8, Entry>,
    now: u64,
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Owned::String),
        (0usize..12_000, any::<u8>()).prop_map(|(n, b)| Owned::String(vec![b; n])),
        any::<i32>().prop_map(|n| Owned::Number(f64::from(n) / 4.0)),
        any::<bool>().prop_map(Owned::Bool),
    ]
}

fn element() -> impl Strategy<Value = Owned> {
    value().prop_filter("lists hold no booleans", |v| !matches!(v, Owned::Bool(_)))
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1u64..50]
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0u8..12;
    prop_oneof![
        4 => key().prop_map(Op::Get),
        2 => key().prop_map(Op::GetStale),
        8 => (0u8..5, key(), value(), ttl(), any::<u32>()).prop_map(
            |(mode, key, value, ttl, flags)| Op::Store { mode, key, value, ttl, flags }),
        2 => key().prop_map(Op::Delete),
        4 => (key(), any::<i32>(), proptest::option::of((any::<i32>(), ttl())))
            .prop_map(|(key, by, init)| Op::Incr { key, by, init }),
        6 => (key(), any::<bool>(), element())
            .prop_map(|(key, left, value)| Op::Push { key, left, value }),
        3 => (key(), any::<bool>()).prop_map(|(key, left)| Op::Pop { key, left }),
        1 => key().prop_map(Op::Len),
        2 => key().prop_map(Op::Ttl),
        2 => (key(), ttl()).prop_map(|(k, t)| Op::Expire(k, t)),
        1 => Just(Op::FlushAll),
        1 => (0usize..4).prop_map(Op::FlushExpired),
        1 => Just(Op::Keys),
        3 => (key(), proptest::option::of(any::<u8>()), ttl())
            .prop_map(|(k, v, t)| Op::Update(k, v, t)),
        1 => Just(Op::Reopen),
        4 => (0u64..40).prop_map(Op::Wait),
    ]
}

/// Keys of many lengths, one of them longer than a page.
fn name(key: u8) -> Vec<u8> {
    let len = [1, 7, 8, 9, 16, 17, 31, 33, 100, 255, 1000, 5000][usize::from(key)];
    vec![key + 1; len]
}

impl Model {
    fn deadline(&self, ttl: u64) -> u64 {
        if ttl == 0 { 0 } else { self.now + ttl }
    }

    fn is_live(&self, e: &Entry) -> bool {
        e.expires == 0 || e.expires > self.now
    }

    fn live(&self, key: u8) -> Option<&Entry> {
        self.map.get(&key).filter(|e| self.is_live(e))
    }

    fn get(&self, key: u8, stale: bool) -> Result<Option<Got>, Error> {
        let Some(e) = self.map.get(&key) else { return Ok(None) };
        let live = self.is_live(e);
        match &e.what {
            What::One(v) if live || stale => {
                Ok(Some(Got { value: v.clone(), flags: e.flags, stale: !live }))
            }
            What::List(_) if live => Err(Error::IsList),
            _ => Ok(None),
        }
    }

    fn store(&mut self, mode: u8, key: u8, what: Owned, ttl: u64, flags: u32) -> Result<(), Error> {
        match (mode, self.live(key).is_some()) {
            (2 | 3, true) => return Err(Error::Exists),
            (4, false) => return Err(Error::NotFound),
            _ => {}
        }
        let expires = self.deadline(ttl);
        self.map.insert(key, Entry { what: What::One(what), expires, flags });
        Ok(())
    }

    fn incr(&mut self, key: u8, by: f64, init: Option<(f64, u64)>) -> Result<f64, Error> {
        if self.live(key).is_some() {
            return match &mut self.map.get_mut(&key).expect("live").what {
                What::One(Owned::Number(n)) => {
                    *n += by;
                    Ok(*n)
                }
                _ => Err(Error::NotANumber),
            };
        }
        let (start, ttl) = init.ok_or(Error::NotFound)?;
        self.store(0, key, Owned::Number(start + by), ttl, 0).map(|()| start + by)
    }

    fn push(&mut self, key: u8, left: bool, value: Owned) -> Result<u64, Error> {
        if self.live(key).is_none() {
            let what = What::List(VecDeque::new());
            self.map.insert(key, Entry { what, expires: 0, flags: 0 });
        }
        match &mut self.map.get_mut(&key).expect("live").what {
            What::List(list) if left => list.push_front(value),
            What::List(list) => list.push_back(value),
            What::One(_) => return Err(Error::NotAList),
        }
        self.len(key)
    }

    fn pop(&mut self, key: u8, left: bool) -> Result<Option<Owned>, Error> {
        if self.live(key).is_none() {
            return Ok(None);
        }
        let What::List(list) = &mut self.map.get_mut(&key).expect("live").what else {
            return Err(Error::NotAList);
        };
        let value = if left { list.pop_front() } else { list.pop_back() };
        if list.is_empty() {
            self.map.remove(&key);
        }
        Ok(value)
    }

    fn len(&self, key: u8) -> Result<u64, Error> {
        match self.live(key).map(|e| &e.what) {
            None => Ok(0),
            Some(What::List(list)) => Ok(list.len() as u64),
            Some(What::One(_)) => Err(Error::NotAList),
        }
    }
}

fn check(dict: &mut Dict, m: &mut Model, op: Op) {
    match op {
        Op::Get(k) => assert_eq!(dict.get(&name(k), m.now), m.get(k, false)),
        Op::GetStale(k) => assert_eq!(dict.get_stale(&name(k), m.now), m.get(k, true)),
        Op::Store { mode, key, value, ttl, flags } => {
            let put = Put { value: value.borrow(), ttl_ms: ttl, flags };
            let (k, now) = (name(key), m.now);
            let got = match mode {
                0 => dict.set(&k, put, now),
                1 => dict.safe_set(&k, put, now).map(|()| false),
                2 => dict.add(&k, put, now),
                3 => dict.safe_add(&k, put, now).map(|()| false),
                _ => dict.replace(&k, put, now),
            };
            assert_eq!(got, m.store(mode, key, value, ttl, flags).map(|()| false));
        }
        Op::Delete(k) => {
            m.map.remove(&k);
            assert_eq!(dict.delete(&name(k)), Ok(()));
        }
        Op::Incr { key, by, init } => {
            let by = f64::from(by);
            let start = init.map(|(n, ttl)| Init::new(f64::from(n)).ttl(ttl));
            let got = dict.incr(&name(key), by, start, m.now);
            let want = m.incr(key, by, init.map(|(n, ttl)| (f64::from(n), ttl)));
            assert_eq!(got, want.map(|value| Counted { value, forcible: false }));
        }
        Op::Push { key, left, value } => {
            let (k, v) = (name(key), value.borrow());
            let got = if left { dict.lpush(&k, v, m.now) } else { dict.rpush(&k, v, m.now) };
            assert_eq!(got, m.push(key, left, value.clone()));
        }
        Op::Pop { key, left } => {
            let k = name(key);
            let got = if left { dict.lpop(&k, m.now) } else { dict.rpop(&k, m.now) };
            assert_eq!(got, m.pop(key, left));
        }
        Op::Len(k) => assert_eq!(dict.llen(&name(k), m.now), m.len(k)),
        Op::Ttl(k) => {
            let want = m.map.get(&k).map(|e| match e.expires {
                0 => 0,
                at => at as i64 - m.now as i64,
            });
            assert_eq!(dict.ttl(&name(k), m.now).ok(), want);
        }
        Op::Expire(k, ttl) => {
            let at = m.deadline(ttl);
            let there = m.map.get_mut(&k).map(|e| e.expires = at);
            assert_eq!(dict.expire(&name(k), ttl, m.now), there.ok_or(Error::NotFound));
        }
        Op::FlushAll => {
            m.map.values_mut().for_each(|e| e.expires = 1);
            dict.flush_all().unwrap();
        }
        Op::FlushExpired(max) => flush_expired(dict, m, max),
        Op::Keys => {
            let mut want: Vec<_> =
                m.map.iter().filter(|(_, e)| m.is_live(e)).map(|(k, _)| name(*k)).collect();
            let mut got = dict.get_keys(0, m.now).unwrap();
            want.sort();
            got.sort();
            assert_eq!(got, want);
            assert_eq!(dict.get_keys(2, m.now).unwrap().len(), want.len().min(2));
        }
        Op::Update(k, new, ttl) => update(dict, m, k, new, ttl),
        Op::Reopen => *dict = Dict::open(dict.fd().try_clone_to_owned().unwrap()).unwrap(),
        Op::Wait(ms) => m.now += ms,
    }
}

fn flush_expired(dict: &Dict, m: &mut Model, max: usize) {
    let dead: Vec<u8> = m.map.iter().filter(|(_, e)| !m.is_live(e)).map(|(k, _)| *k).collect();
    let freed = dict.flush_expired(max, m.now).unwrap();
    assert_eq!(freed, if max == 0 { dead.len() } else { dead.len().min(max) });
    // Which ones went is the dict's choice.
    m.map.retain(|k, _| {
        !dead.contains(k) || !matches!(dict.ttl(&name(*k), 0), Err(Error::NotFound))
    });
}

fn update(dict: &Dict, m: &mut Model, k: u8, new: Option<u8>, ttl: u64) {
    let old = match m.live(k).map(|e| &e.what) {
        Some(What::One(Owned::String(s))) if s.len() <= 128 => Some(s.clone()),
        _ => None,
    };
    let record = new.map(|b| vec![b; usize::from(b) % 30]);
    let forced = dict.update(&name(k), Room::Evict, m.now, |seen| {
        assert_eq!(seen, old.as_deref());
        match &record {
            Some(r) => Update::Store { record: Record::new(r), ttl_ms: ttl },
            None => Update::Remove,
        }
    });
    assert_eq!(forced, Ok(false));
    match record {
        Some(r) => m.store(0, k, Owned::String(r), ttl, 0).unwrap(),
        None => drop(m.map.remove(&k)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_dict_behaves_like_a_map(ops in proptest::collection::vec(op(), 1..150)) {
        let mut dict = Dict::create("model", 4 << 20).unwrap();
        let mut model = Model { now: 1000, ..Model::default() };
        for op in ops {
            check(&mut dict, &mut model, op);
        }
        prop_assert_eq!(dict.len(), model.map.len() as u64);
        for key in 0..12 {
            check(&mut dict, &mut model, Op::GetStale(key));
            dict.delete(&name(key)).unwrap();
        }
        prop_assert_eq!(dict.free_space(), 4 << 20);
    }

    /// Under pressure: what is read is what was stored last, and nothing is "no memory" that fits.
    #[test]
    fn a_tight_dict_forgets_but_never_lies(
        ops in proptest::collection::vec((0u8..200, 0usize..9000, 0u8..5), 1..300),
    ) {
        let dict = Dict::create("tight", 64 << 10).unwrap();
        let mut model = BTreeMap::new();
        for (key, len, what) in ops {
            let name = [key + 1, 7];
            match what {
                0 => {
                    let got = dict.get(&name, 0).unwrap().map(|g| g.value);
                    if let Some(got) = got {
                        prop_assert_eq!(Some(&got), model.get(&key));
                    }
                }
                1 => {
                    dict.delete(&name).unwrap();
                    model.remove(&key);
                }
                _ => {
                    let value = vec![key; len];
                    dict.set(&name, Put::new(Value::String(&value)), 0).unwrap();
                    prop_assert!(dict.get(&name, 0).unwrap().is_some());
                    model.insert(key, Owned::String(value));
                }
            }
        }
        for key in dict.get_keys(0, 0).unwrap() {
            dict.delete(&key).unwrap();
        }
        prop_assert_eq!(dict.free_space(), 64 << 10);
    }
}
