//! Paths, escapes, hosts and arguments: any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::escape::{Escape, Unescape, push_html, unescape};
use tollbar::proto::{host, params, uri};

fuzz_target!(|input: &[u8]| {
    let [choice, text @ ..] = input else { return };
    let merge = choice & 1 != 0;
    let mut path = Vec::new();
    if text.first() == Some(&b'/')
        && let Ok(normal) = uri::normalise(text, merge, &mut path)
    {
        assert_eq!(normal.path, 0..path.len());
        assert!(!path.split(|&b| b == b'/').any(|part| part == b".." || part == b"."));
        let (mut escaped, mut again) = (Vec::new(), Vec::new());
        Escape::Uri.push(&path, &mut escaped);
        uri::normalise(&escaped, merge, &mut again).expect("an escaped path is a path");
        assert_eq!(path, again);
    }
    let _ = (uri::survey(text), uri::is_unsafe(text));
    if let Some(host) = host::validate(text) {
        assert!(host.len > 0 && host.len <= text.len());
    }
    for how in [Unescape::All, Unescape::Path, Unescape::Redirect] {
        assert!(unescape(text, how, &mut Vec::new()) <= text.len());
    }
    push_html(text, &mut Vec::new());
    let _ = (params::arg(text, b"a"), params::cookie(text, b"a"), params::set_cookie(text, b"a"));
});
