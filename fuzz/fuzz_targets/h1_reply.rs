//! Heads of replies: any bytes, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::h1::{Progress, ReplyHead};
use tollbar::proto::header::HeaderId;

fuzz_target!(|input: &[u8]| {
    let [cut, text @ ..] = input else { return };
    // An unfinished line may be looked at later than it arrives: finish it.
    let text = &[text, b"\n"].concat();
    let cut = usize::from(*cut).min(text.len());
    assert_eq!(outcome(text, text.len()), outcome(text, cut));
});

/// All that reading shows, if the first piece ends at `cut`.
fn outcome(text: &[u8], cut: usize) -> String {
    let mut head = ReplyHead::new();
    for end in [cut, text.len()] {
        match head.read(&text[..end], 256) {
            Ok(Progress::Complete { len }) => {
                assert!(len <= 256);
                for field in &head.fields {
                    assert_eq!(HeaderId::of(field.name.of(text)), field.id);
                    let ends_line = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
                    assert!(!field.value.of(text).iter().any(ends_line));
                }
                let framing = head.framing(false);
                return format!("{len} {} {framing:?} {:?}", head.status, head.fields);
            }
            Ok(progress) => assert_eq!(progress, Progress::Partial),
            Err(error) => return format!("{error:?} {}", error.sentence(text)),
        }
    }
    "partial".into()
}
