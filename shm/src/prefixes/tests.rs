//! Tables against a naive search, and against bytes that nobody built.

use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

type Nets = Vec<(IpAddr, u8, u8)>;

fn build(nets: &Nets) -> Prefixes {
    let mut builder = Builder::default();
    for (ip, length, value) in nets {
        builder.add(*ip, *length, format!("v{value}").as_bytes()).unwrap();
    }
    builder.finish("t", 11, 12, &mut || ()).unwrap()
}

/// The longest network that holds `ip`, the last of equal ones.
fn naive(nets: &Nets, ip: IpAddr) -> Option<String> {
    let mut best: Option<(u8, u8)> = None;
    for (net, length, value) in nets {
        let holds = match (net, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let behind = u32::MAX.checked_shr((*length).into()).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & !behind == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let behind = u128::MAX.checked_shr((*length).into()).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & !behind == 0
            }
            _ => false,
        };
        if holds && best.is_none_or(|(longest, _)| longest <= *length) {
            best = Some((*length, *value));
        }
    }
    best.map(|(_, value)| format!("v{value}"))
}

fn agrees(table: &Prefixes, nets: &Nets, ip: IpAddr) {
    let found = table.find(ip).map(|value| String::from_utf8(value.into()).unwrap());
    assert_eq!(found, naive(nets, ip), "{ip}");
}

/// Addresses that lie near one another, so that networks meet.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any::<u32>(),
        (0..64u32).prop_map(|n| 0x0a00_0000 | n),
        (0..64u32).prop_map(|n| n << 26 | 0x00ff_fff0),
        Just(0),
        Just(u32::MAX)
    ]
    .prop_map(Ipv4Addr::from_bits)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        (0..256u128).prop_map(|n| 0x2001_0db8 << 96 | n << 60),
        (0..256u128).prop_map(|n| 0x2001_0db8 << 96 | n),
        Just(1u128 << 127),
        Just(u128::MAX)
    ]
    .prop_map(Ipv6Addr::from_bits)
}

fn net() -> impl Strategy<Value = (IpAddr, u8, u8)> {
    prop_oneof![
        (v4().prop_map(IpAddr::V4), 0..=32u8, 0..5u8),
        (v6().prop_map(IpAddr::V6), 0..=128u8, 0..5u8)
    ]
}

proptest! {
    #[test]
    fn finds_what_a_naive_search_finds(
        nets in prop::collection::vec(net(), 0..120),
        asked in prop::collection::vec(
            prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)], 40),
    ) {
        let table = build(&nets);
        asked.iter().for_each(|ip| agrees(&table, &nets, *ip));
        for (ip, length, _) in &nets {
            // First, last and the neighbours of each network.
            match ip {
                IpAddr::V4(ip) => {
                    let behind = u32::MAX.checked_shr((*length).into()).unwrap_or(0);
                    let (first, last) = (ip.to_bits() & !behind, ip.to_bits() | behind);
                    for near in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                        agrees(&table, &nets, Ipv4Addr::from_bits(near).into());
                    }
                }
                IpAddr::V6(ip) => {
                    let behind = u128::MAX.checked_shr((*length).into()).unwrap_or(0);
                    let (first, last) = (ip.to_bits() & !behind, ip.to_bits() | behind);
                    for near in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                        agrees(&table, &nets, Ipv6Addr::from_bits(near).into());
                    }
                }
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_survived(
        nets in prop::collection::vec(net(), 0..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        early in any::<bool>(),
        cut in 0..40usize,
        asked in prop::collection::vec(net(), 10),
    ) {
        let mut bytes = build(&nets).bytes.to_vec();
        for (at, byte) in damage {
            // Half of the time where the structure is: the index of IPv4 is large and dull.
            let within = if early { 64.min(bytes.len()) } else { bytes.len() };
            let at = at.index(within);
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut % 3);
        let unchecked = Layout::read(&bytes).map(|layout| Prefixes { bytes: &bytes[..], layout });
        for (ip, ..) in asked {
            let _ = unchecked.as_ref().map(|table| table.find(ip).map(<[u8]>::len));
        }
        let checked = Prefixes::check(&bytes[..], &mut || ());
        let _ = checked.map(|table| table.find([10, 0, 0, 1].into()).is_some());
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Prefixes::check(&bytes[..], &mut || ()).is_err());
    }
}

#[test]
fn numbers_grow_with_the_values() {
    for count in [1u32, 255, 256, 65_535, 65_536] {
        let mut builder = Builder::default();
        for n in 0..count {
            builder.add(Ipv4Addr::from_bits(n << 4).into(), 30, n.to_string().as_bytes()).unwrap();
        }
        let table = builder.finish("t", 1, 2, &mut || ()).unwrap();
        let again =
            Prefixes::open(table.bytes.fd().try_clone_to_owned().unwrap(), &mut || ()).unwrap();
        assert_eq!((again.generation(), again.source(), again.networks()), (2, 1, count.into()));
        for n in [0, count / 2, count - 1] {
            let value = again.find(Ipv4Addr::from_bits(n << 4 | 3).into());
            assert_eq!(value, Some(n.to_string().as_bytes()));
            assert_eq!(again.find(Ipv4Addr::from_bits(n << 4 | 4).into()), None);
        }
        let mapped: IpAddr = "::ffff:0.0.0.1".parse().unwrap();
        assert_eq!(again.find(mapped), Some(&b"0"[..]));
        assert!(table.bytes.fd().as_fd().try_clone_to_owned().is_ok());
    }
}

#[test]
fn long_lists_are_sorted_in_runs() {
    let nets: Nets = (0..3 * STEP as u32 + 7)
        .map(|n| {
            let mixed = n.wrapping_mul(0x9e37_79b1);
            (
                Ipv4Addr::from_bits(0x0a00_0000 | mixed >> 14).into(),
                18 + (n % 15) as u8,
                (n % 5) as u8,
            )
        })
        .collect();
    let mut steps = 0;
    let mut builder = Builder::default();
    for (ip, length, value) in &nets {
        builder.add(*ip, *length, format!("v{value}").as_bytes()).unwrap();
    }
    let table = builder.finish("t", 1, 1, &mut || steps += 1).unwrap();
    assert!(steps > 20, "{steps}");
    for n in 0..300u32 {
        agrees(&table, &nets, Ipv4Addr::from_bits(0x0a00_0000 + n * 877).into());
    }
}

#[test]
fn an_empty_table_finds_nothing() {
    let table = Builder::default().finish("t", 0, 1, &mut || ()).unwrap();
    assert_eq!(table.find([1, 2, 3, 4].into()), None);
    assert_eq!(table.find(Ipv6Addr::LOCALHOST.into()), None);
    assert_eq!(table.size_bytes(), HEADER_BYTES + 4);
}

#[test]
fn all_of_the_internet_is_one_range() {
    let nets = vec![("0.0.0.0".parse().unwrap(), 0, 1), ("::".parse().unwrap(), 0, 2)];
    let table = build(&nets);
    for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff::"] {
        agrees(&table, &nets, ip.parse().unwrap());
    }
}
