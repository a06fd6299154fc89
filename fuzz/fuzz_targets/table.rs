//! A list of networks: whatever is in it, what is built from it is sound; and a table that somebody
//! has damaged is refused or answers, and never crashes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::agent::networks;
use tollbar_shm::Prefixes;
use tollbar_shm::prefixes::Builder;

fuzz_target!(|data: &[u8]| {
    if let Ok(networks) = networks::read(data, &mut || ()) {
        let count = networks.builder.len() as u64;
        let table = networks.builder.finish("fuzz", 1, 1, &mut || ()).expect("what was built is sound");
        assert_eq!(table.networks(), count);
        ask(&table);
    }
    // Three bytes say where, one says what.
    let mut builder = Builder::default();
    builder.add([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(), 32, b"six").expect("room");
    builder.add([10, 0, 0, 0].into(), 8, b"ten").expect("room");
    let mut bytes = builder.finish("fuzz", 1, 1, &mut || ()).expect("sound").to_vec();
    for patch in data.chunks_exact(4) {
        let at = usize::from(patch[0]) << 16 | usize::from(patch[1]) << 8 | usize::from(patch[2]);
        let at = at % bytes.len();
        bytes[at] = patch[3];
    }
    let _ = Prefixes::check(&bytes[..], &mut || ()).map(|table| ask(&table));
    let _ = Prefixes::check(data, &mut || ()).map(|table| ask(&table));
});

fn ask<B: std::ops::Deref<Target = [u8]>>(table: &Prefixes<B>) {
    for ip in ["0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "2001:db8::1", "ffff::"] {
        let _ = table.find(ip.parse().expect("an address"));
    }
}
