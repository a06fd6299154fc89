//! What each operation answers, in OpenResty's terms.

use super::*;

fn dict() -> Dict {
    Dict::create("t", 1 << 20).unwrap()
}

fn string(s: &str) -> Owned {
    Owned::String(s.as_bytes().to_vec())
}

#[test]
fn values_of_all_kinds_come_back_with_their_flags() {
    let d = dict();
    d.set(b"s", Put::string(b"hello world").flags(7), 0).unwrap();
    d.set(b"n", Put::number(-1.5), 0).unwrap();
    d.set(b"b", Put::new(Value::Bool(true)), 0).unwrap();
    let got = d.get(b"s", 0).unwrap().unwrap();
    assert_eq!(got, Got { value: string("hello world"), flags: 7, stale: false });
    assert_eq!(d.get(b"n", 0).unwrap().unwrap().value, Owned::Number(-1.5));
    assert_eq!(d.get(b"b", 0).unwrap().unwrap().value, Owned::Bool(true));
    assert_eq!(d.get(b"x", 0).unwrap(), None);
    assert_eq!(d.len(), 3);
}

#[test]
fn add_and_replace_mind_what_lives() {
    let d = dict();
    assert_eq!(d.replace(b"k", Put::number(1.0), 0), Err(Error::NotFound));
    assert_eq!(d.add(b"k", Put::number(1.0).ttl(10), 0), Ok(false));
    assert_eq!(d.add(b"k", Put::number(2.0), 9), Err(Error::Exists));
    assert_eq!(d.replace(b"k", Put::number(3.0).ttl(10), 9), Ok(false));
    assert_eq!(d.replace(b"k", Put::number(4.0), 19), Err(Error::NotFound), "expired");
    assert_eq!(d.add(b"k", Put::number(5.0), 19), Ok(false));
    assert_eq!(d.get(b"k", 19).unwrap().unwrap().value, Owned::Number(5.0));
}

#[test]
fn lifetimes() {
    let d = dict();
    d.set(b"k", Put::string(b"v").ttl(100), 1000).unwrap();
    assert_eq!(d.ttl(b"k", 1030), Ok(70));
    assert!(d.get(b"k", 1099).unwrap().is_some());
    assert_eq!(d.get(b"k", 1100).unwrap(), None);
    assert!(d.get_stale(b"k", 1100).unwrap().unwrap().stale);
    d.expire(b"k", 50, 1100).unwrap();
    assert_eq!((d.ttl(b"k", 1100), d.expire(b"x", 1, 0)), (Ok(50), Err(Error::NotFound)));
    d.expire(b"k", 0, 1100).unwrap();
    assert_eq!((d.ttl(b"k", 9999), d.ttl(b"x", 0)), (Ok(0), Err(Error::NotFound)));
}

#[test]
fn incr_counts_from_init_and_only_numbers() {
    let d = dict();
    assert_eq!(d.incr(b"k", 1.0, None, 0), Err(Error::NotFound));
    let init = Some(Init::new(10.0).ttl(5));
    assert_eq!(d.incr(b"k", 1.0, init, 0), Ok(Counted { value: 11.0, forcible: false }));
    assert_eq!(d.incr(b"k", 0.25, init, 4).unwrap().value, 11.25);
    assert_eq!(d.incr(b"k", 1.0, init, 5).unwrap().value, 11.0, "expired: anew");
    d.set(b"s", Put::string(b"12345678"), 0).unwrap();
    assert_eq!(d.incr(b"s", 1.0, init, 0), Err(Error::NotANumber));
}

#[test]
fn lists_work_at_both_ends() {
    let d = dict();
    assert_eq!(d.rpush(b"l", Value::String(b"b"), 0), Ok(1));
    assert_eq!(d.rpush(b"l", Value::Number(3.0), 0), Ok(2));
    assert_eq!(d.lpush(b"l", Value::String(b"a"), 0), Ok(3));
    assert_eq!((d.llen(b"l", 0), d.llen(b"x", 0)), (Ok(3), Ok(0)));
    assert_eq!(d.get(b"l", 0), Err(Error::IsList));
    assert_eq!(d.lpop(b"l", 0), Ok(Some(string("a"))));
    assert_eq!(d.rpop(b"l", 0), Ok(Some(Owned::Number(3.0))));
    assert_eq!(d.rpop(b"l", 0), Ok(Some(string("b"))));
    assert_eq!((d.lpop(b"l", 0), d.len()), (Ok(None), 0));
    d.set(b"s", Put::number(1.0).ttl(5), 0).unwrap();
    assert_eq!(d.lpush(b"s", Value::Number(1.0), 0), Err(Error::NotAList));
    assert_eq!((d.lpop(b"s", 0), d.llen(b"s", 0)), (Err(Error::NotAList), Err(Error::NotAList)));
    assert_eq!(d.lpush(b"s", Value::Number(1.0), 5), Ok(1), "expired: anew");
    assert_eq!(d.free_space(), (1 << 20) - 4096);
    d.delete(b"s").unwrap();
    assert_eq!(d.free_space(), 1 << 20);
}

#[test]
fn keys_have_their_limits() {
    let d = dict();
    assert_eq!(d.get(b"", 0), Err(Error::EmptyKey));
    assert_eq!(d.set(&[7; 65_536], Put::number(1.0), 0), Err(Error::KeyTooLong));
    let long = [7; 65_535];
    d.set(&long, Put::number(1.0), 0).unwrap();
    assert_eq!(d.incr(&long, 1.0, None, 0).unwrap().value, 2.0);
    assert_eq!(d.get_keys(0, 0).unwrap(), [long.to_vec()]);
}

#[test]
fn large_values_take_pages_and_give_them_back() {
    let d = dict();
    for len in [2000, 4000, 4096, 5000, 100_000, 900_000] {
        let value: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
        d.set(b"big", Put::string(&value), 0).unwrap();
        assert_eq!(d.get(b"big", 0).unwrap().unwrap().value, Owned::String(value));
    }
    assert_eq!(
        d.set(b"big2", Put::string(&vec![1; 2 << 20]), 0),
        Err(Error::NoMemory { forcible: false })
    );
    d.delete(b"big").unwrap();
    assert_eq!(d.free_space(), 1 << 20);
}

#[test]
fn set_evicts_and_says_so_and_safe_set_refuses() {
    let d = Dict::create("t", 64 << 10).unwrap();
    let mut n = 0;
    while d.safe_set(format!("key{n}").as_bytes(), Put::string(&[1; 100]), 0).is_ok() {
        n += 1;
    }
    assert!(n > 300, "{n}");
    assert_eq!(d.set(b"one more", Put::string(&[1; 100]), 0), Ok(true));
    assert_eq!(
        d.safe_set(b"again", Put::string(&[1; 100]), 0),
        Err(Error::NoMemory { forcible: false })
    );
    assert_eq!(d.set(b"large", Put::string(&[1; 60_000]), 0), Ok(true), "other classes give way");
    assert!(d.set(b"small", Put::string(&[1; 10]), 0).is_ok());
    d.flush_all().unwrap();
    assert_eq!((d.get(b"small", 5), d.get_keys(0, 5)), (Ok(None), Ok(vec![])));
    assert!(d.get_stale(b"small", 5).unwrap().unwrap().stale);
    d.safe_set(b"again", Put::string(&[1; 100]), 5).unwrap();
    assert!(d.flush_expired(1, 5).unwrap() <= 1);
    d.flush_expired(0, 5).unwrap();
    assert_eq!(d.get_keys(0, 5).unwrap(), [b"again".to_vec()]);
    assert_eq!(d.free_space(), (64 << 10) - 4096);
}

#[test]
fn records_change_under_the_lock() {
    let d = dict();
    let bump = |old: Option<&[u8]>| Update::Store {
        record: Record::new(&[old.map_or(0, |o| o[0] + 1), 9, 9]),
        ttl_ms: 10,
    };
    for _ in 0..3 {
        d.update(b"r", Room::Evict, 0, bump).unwrap();
    }
    d.update(b"r", Room::Evict, 9, |old| {
        assert_eq!(old, Some(&[2, 9, 9][..]));
        Update::Keep
    })
    .unwrap();
    d.update(b"r", Room::Evict, 10, |old| {
        assert_eq!(old, None);
        Update::Remove
    })
    .unwrap();
    assert!(d.is_empty());
}

#[test]
fn another_handle_of_the_same_region_sees_everything() {
    let d = dict();
    d.set(b"k", Put::string(b"v"), 0).unwrap();
    let e = Dict::open(d.fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(e.get(b"k", 0).unwrap().unwrap().value, string("v"));
    e.delete(b"k").unwrap();
    assert_eq!((d.get(b"k", 0).unwrap(), e.name(), e.capacity()), (None, "t", 1 << 20));
}

#[test]
fn entries_move_to_a_dict_of_another_size() {
    let d = dict();
    for n in 0..2000 {
        d.set(format!("k{n}").as_bytes(), Put::string(&[n as u8; 100]).flags(n), 0).unwrap();
    }
    for n in 500..600 {
        d.get(format!("k{n}").as_bytes(), 0).unwrap();
    }
    d.set(b"num", Put::number(4.0).ttl(100), 0).unwrap();
    d.set(b"dead", Put::number(4.0).ttl(1), 0).unwrap();
    d.rpush(b"l", Value::Number(1.0), 0).unwrap();
    d.rpush(b"l", Value::String(b"two"), 0).unwrap();
    let big = Dict::create("t", 4 << 20).unwrap();
    assert_eq!(d.carry_to(&big, 10).unwrap(), Carried { kept: 2002, dropped: 0 });
    assert_eq!(big.get(b"k77", 10), d.get(b"k77", 10));
    assert_eq!(
        (big.ttl(b"num", 10), big.incr(b"num", 1.0, None, 10).unwrap().value),
        (Ok(90), 5.0)
    );
    assert_eq!(big.lpop(b"l", 10), Ok(Some(Owned::Number(1.0))));
    assert_eq!(big.get_stale(b"dead", 10), Ok(None));
    let small = Dict::create("t", 64 << 10).unwrap();
    let carried = d.carry_to(&small, 10).unwrap();
    assert!(carried.kept > 200 && carried.dropped > 1000, "{carried:?}");
    assert!((500..600).all(|n| small.get(format!("k{n}").as_bytes(), 10).unwrap().is_some()));
}

#[test]
fn a_repair_of_a_sound_shard_changes_nothing() {
    let d = Dict::create("t", 256 << 10).unwrap();
    for n in 0..500u32 {
        d.set(&n.to_le_bytes(), Put::string(&vec![n as u8; n as usize]), 0).unwrap();
    }
    d.set(b"big", Put::string(&[5; 20_000]), 0).unwrap();
    d.rpush(b"l", Value::Number(1.0), 0).unwrap();
    d.rpush(b"l", Value::Number(2.0), 0).unwrap();
    let before = (d.len(), d.free_space(), d.get(b"big", 0), d.get(&77u32.to_le_bytes(), 0));
    for n in 0..d.layout.shards {
        d.lock(n).unwrap().repair();
    }
    let after = (d.len(), d.free_space(), d.get(b"big", 0), d.get(&77u32.to_le_bytes(), 0));
    assert_eq!(before, after);
    assert_eq!(d.rpop(b"l", 0), Ok(Some(Owned::Number(2.0))));
    assert_eq!(d.rpop(b"l", 0), Ok(Some(Owned::Number(1.0))));
    for n in 0..500u32 {
        d.delete(&n.to_le_bytes()).unwrap();
    }
    d.delete(b"big").unwrap();
    assert_eq!((d.len(), d.free_space()), (0, 256 << 10));
}
