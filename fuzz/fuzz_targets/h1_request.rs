//! Request heads: any bytes, in one piece and in two.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::h1::{HeadRules, Progress, RequestHead, Version};
use tollbar::proto::header::HeaderId;
use tollbar::proto::{params, uri};

fuzz_target!(|input: &[u8]| {
    let [choice, cut, text @ ..] = input else { return };
    // An unfinished line may be looked at later than it arrives: finish it.
    let text = &[text, b"\n"].concat();
    let rules = HeadRules {
        first_buffer: 64,
        buffers: 3,
        buffer_size: 128,
        max_headers: 8,
        ignore_invalid_headers: choice & 1 != 0,
        underscores_in_headers: choice & 2 != 0,
        allow_connect: choice & 4 != 0,
        pause_at_host: choice & 8 != 0,
    };
    let whole = outcome(text, text.len(), &rules);
    let pieces = outcome(text, usize::from(*cut).min(text.len()), &rules);
    assert_eq!(whole, pieces);
});

/// All that reading shows, if the first piece ends at `cut`.
fn outcome(text: &[u8], cut: usize, rules: &HeadRules) -> String {
    let mut head = RequestHead::new();
    for end in [cut, text.len()] {
        loop {
            match head.read(&text[..end], rules) {
                Ok(Progress::Partial) => break,
                Ok(Progress::Host) => assert!(head.authority.is_some()),
                Err(error) => return format!("{error:?} {}", error.sentence(text)),
                Ok(Progress::Complete { len }) => {
                    assert!(len <= text.len());
                    look(&head, text);
                    return format!("{len} {:?} {:?} {:?}", head.line, head.fields, head.framing);
                }
            }
        }
    }
    "partial".into()
}

/// What a server does with a head.
fn look(head: &RequestHead, text: &[u8]) {
    let mut path = Vec::new();
    let _ = uri::normalise(head.line.path.of(text), true, &mut path);
    let _ = params::arg(head.line.args.of(text), b"a");
    for field in &head.fields {
        assert_eq!(HeaderId::of(field.name.of(text)), field.id);
        assert!(!field.value.of(text).iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    }
    let needs_host = head.line.version == Version::Http11;
    assert!(!needs_host || head.find(HeaderId::Host).is_some());
}
