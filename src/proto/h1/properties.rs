//! What must hold for any bytes: nothing panics, pieces make no difference, and whatever
//! another reader of HTTP/1 makes of a head is what we make of it.

use proptest::prelude::*;

use super::*;
use crate::proto::header::HeaderId;

/// Bytes like those of heads: lines of names, values and what does not belong there.
fn headish() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "(Host|X-A|Cookie|Connection|x_y|Content-Length|Transfer-Encoding|Expect): ?[ -~]{0,12}\r\n",
        2 => "(Host: h|Content-Length: [0-9]{1,3}|Transfer-Encoding: chunked|Connection: close)\r\n",
        1 => "[A-Za-z{_-]{1,40}:[ \t]{0,2}[ -~]{0,40}(\r\n|\n)",
        1 => "(\r\n|\n|\r|:| |\t|HTTP/1.1 200 OK\r\n)",
    ]
    .prop_map(String::into_bytes);
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    prop::collection::vec(prop_oneof![9 => piece, 1 => noise], 0..12).prop_map(|p| p.concat())
}

fn requestish() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => "(GET|POST|PUT) /[a-z/.%0-9?#]{0,20} HTTP/1\\.[01]\r\n",
        1 => "GET http://[a-z.:\\[\\]]{0,9}(/|\\?a)? HTTP/1.1\r\n",
        1 => "[A-Z ]{0,4} ?[ -~]{0,30}(\r\n|\n)",
    ];
    (line, headish()).prop_map(|(line, rest)| [line.as_bytes(), &rest, b"\r\n\r\n"].concat())
}

fn replyish() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => "HTTP/1\\.[01] [1-5][0-9]{2}( [ -~]{0,9})?(\r\n|\n)",
        1 => "[ -~]{0,30}(\r\n|\n)",
    ];
    (line, headish()).prop_map(|(line, rest)| [line.as_bytes(), &rest, b"\r\n\r\n"].concat())
}

const RULES: HeadRules = HeadRules {
    first_buffer: 64,
    buffers: 3,
    buffer_size: 128,
    max_headers: 8,
    ignore_invalid_headers: true,
    underscores_in_headers: false,
    allow_connect: true,
    pause_at_host: false,
};

/// All that can be seen of reading a request, which arrives up to each of `ends` in turn.
fn request(text: &[u8], ends: &[usize], rules: &HeadRules) -> String {
    let mut head = RequestHead::new();
    let mut last = None;
    for &end in ends.iter().chain([&text.len()]) {
        let progress = head.read(&text[..end], rules);
        if progress != Ok(Progress::Partial) {
            let line = progress.is_ok().then_some(head.line);
            let error = progress.err().map(|e| e.sentence(text).to_string());
            let facts =
                (&head.fields, head.authority, head.framing, head.keep_alive, &head.ignored);
            return format!("{progress:?} {error:?} {line:?} {facts:?}");
        }
        last = Some(progress);
    }
    format!("{last:?}")
}

fn reply(text: &[u8], ends: &[usize]) -> String {
    let mut head = ReplyHead::new();
    for &end in ends.iter().chain([&text.len()]) {
        let progress = head.read(&text[..end], 200);
        if progress != Ok(Progress::Partial) {
            let error = progress.err().map(|e| e.sentence(text).to_string());
            let facts = (head.status, head.framing(false), head.closes, &head.fields);
            return format!("{progress:?} {error:?} {facts:?}");
        }
    }
    "partial".into()
}

/// A decoded body: its data, the trailer's names and values, and how many bytes it took.
type Decoded = Result<Option<(Vec<u8>, Vec<(String, String)>, usize)>, BodyError>;

fn decoded(text: &[u8], ends: &[usize]) -> Decoded {
    let mut body = Body::new(Framing::Chunked, 100);
    let (mut data, mut start) = (Vec::new(), 0);
    for &end in ends.iter().chain([&text.len()]) {
        let (input, mut at) = (&text[start..end], 0);
        loop {
            match body.next(input, &mut at)? {
                Piece::Data(range) => data.extend(&input[range]),
                Piece::More => break,
                Piece::End => {
                    let (fields, bytes) = body.trailer().unwrap_or_default();
                    let text = |s: Span| String::from_utf8_lossy(s.of(bytes)).into_owned();
                    let trailer = fields.iter().map(|f| (text(f.name), text(f.value))).collect();
                    return Ok(Some((data, trailer, start + at)));
                }
            }
        }
        start = end;
    }
    Ok(None)
}

fn ends(cuts: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    ends.sort();
    ends
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_a_request_make_no_difference(text in requestish(), cuts in cuts()) {
        for rules in [RULES, HeadRules { ignore_invalid_headers: false, ..HeadRules::default() }] {
            let whole = request(&text, &[], &rules);
            prop_assert_eq!(request(&text, &ends(&cuts, text.len()), &rules), whole);
        }
    }

    #[test]
    fn pieces_of_a_reply_make_no_difference(text in replyish(), cuts in cuts()) {
        prop_assert_eq!(reply(&text, &ends(&cuts, text.len())), reply(&text, &[]));
    }

    #[test]
    fn any_bytes_are_survived(text: Vec<u8>, cuts in cuts()) {
        let ends = ends(&cuts, text.len());
        request(&text, &ends, &RULES);
        reply(&text, &ends);
        prop_assert_eq!(decoded(&text, &ends), decoded(&text, &[]));
    }

    /// Where both readers take a request, they see the same in it.
    #[test]
    fn httparse_sees_the_same_request(text in requestish()) {
        let mut head = RequestHead::new();
        let rules = HeadRules { ignore_invalid_headers: false, ..HeadRules::default() };
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Request::new(&mut fields);
        if let (Ok(Progress::Complete { len }), Ok(httparse::Status::Complete(their_len))) =
            (head.read(&text, &rules), theirs.parse(&text))
            && head.line.version > Version::Http09
        {
            prop_assert_eq!(len, their_len);
            prop_assert_eq!(head.line.method_name.of(&text), theirs.method.unwrap().as_bytes());
            prop_assert_eq!(head.fields.len(), theirs.headers.len());
            for (ours, theirs) in head.fields.iter().zip(&*theirs.headers) {
                prop_assert_eq!(ours.name.of(&text), theirs.name.as_bytes());
                // Tabs around a value are part of it for nginx and for us.
                prop_assert_eq!(ours.value.of(&text).trim_ascii(), theirs.value.trim_ascii());
                prop_assert_eq!(ours.id, HeaderId::of(theirs.name.as_bytes()));
            }
        }
    }

    #[test]
    fn httparse_sees_the_same_reply(text in replyish()) {
        let mut head = ReplyHead::new();
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Response::new(&mut fields);
        if let (Ok(Progress::Complete { len }), Ok(httparse::Status::Complete(their_len))) =
            (head.read(&text, 4096), theirs.parse(&text))
        {
            prop_assert_eq!((len, head.status), (their_len, theirs.code.unwrap()));
            prop_assert_eq!(head.fields.len(), theirs.headers.len());
        }
    }

    #[test]
    fn what_is_chunked_can_be_read(
        chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..300), "[a-z=]{0,9}"), 0..6),
        trailer in prop::collection::vec(("[A-Za-z-]{1,9}", "[!-~]{0,9}"), 0..3),
        cuts in cuts(),
    ) {
        let (mut text, mut data) = (Vec::new(), Vec::new());
        for (chunk, extension) in &chunks {
            let head = ChunkHead::new(chunk.len() as u64);
            text.extend(&head[..head.len() - 2]);
            if !extension.is_empty() {
                text.push(b';');
                text.extend(extension.as_bytes());
            }
            text.extend(b"\r\n");
            text.extend(chunk);
            text.extend(CHUNK_END);
            data.extend(chunk);
        }
        push_last_chunk(trailer.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &mut text);
        let len = text.len();
        text.extend(b"GET");
        let got = decoded(&text, &ends(&cuts, text.len()));
        prop_assert_eq!(got, Ok(Some((data, trailer, len))));
    }
}
