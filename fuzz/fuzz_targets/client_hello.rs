//! ClientHello as any client may send it: whole, in pieces, in many records; then fingerprints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::tls::client_hello::{ClientHello, HelloReader};
use tollbar::tls::fingerprint::Traits;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, input)) = data.split_first() else { return };
    let mut whole = HelloReader::default();
    let verdict = whole.advance(input);
    // In pieces it must come to the same end, unless a fault shows earlier.
    let mut reader = HelloReader::default();
    let mut end = 0;
    let mut last = Ok(false);
    while end < input.len() && last == Ok(false) {
        end = (end + usize::from(piece) + 1).min(input.len());
        last = reader.advance(&input[..end]);
    }
    if verdict == Ok(true) {
        assert_eq!(last, Ok(true));
        let (a, b) = (whole.hello(input), reader.hello(&input[..end]));
        assert_eq!(a.is_ok(), b.is_ok());
        if let (Ok(a), Ok(b)) = (a, b) {
            assert_eq!(Traits::of(&a), Traits::of(&b));
        }
    }
    if let Ok(hello) = ClientHello::parse(input) {
        let traits = Traits::of(&hello);
        assert_eq!(traits.ja3_hash().len(), 32);
        assert_eq!(traits.ja4().len(), 36);
        assert!(traits.ja4_raw().starts_with(&traits.ja4()[..10]));
        assert_eq!(traits.extensions().len(), hello.extensions().count());
    }
});
