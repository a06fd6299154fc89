//! Chunked bodies: any bytes, in one piece and in pieces of some size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::h1::{Body, BodyError, Framing, Piece};

fuzz_target!(|input: &[u8]| {
    let [step, text @ ..] = input else { return };
    let step = usize::from(*step).max(1);
    assert_eq!(decoded(text, text.len().max(1)), decoded(text, step));
});

/// The body and how many bytes it took.
fn decoded(text: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
    let mut body = Body::new(Framing::Chunked, 64);
    let mut data = Vec::new();
    let mut read = 0;
    for input in text.chunks(step) {
        let mut at = 0;
        loop {
            assert!(body.owed().is_some(), "a chunked body knows what it owes");
            match body.next(input, &mut at)? {
                Piece::Data(range) => data.extend(&input[range]),
                Piece::More => break,
                Piece::End => {
                    if let Some((fields, bytes)) = body.trailer() {
                        assert!(fields.iter().all(|f| f.name.of(bytes).len() > 0));
                    }
                    return Ok(Some((data, read + at)));
                }
            }
        }
        read += input.len();
    }
    Ok(None)
}
