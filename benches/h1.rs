//! What reading heads costs: `cargo bench --bench h1 --profile fast`.

use divan::{Bencher, black_box};
use tollbar::proto::h1::{HeadRules, Progress, ReplyHead, RequestHead};
use tollbar::proto::uri;

fn main() {
    divan::main();
}

/// 302 bytes, 7 fields: what a browser's fetch looks like.
const REQUEST: &[u8] = b"GET /api/v1/items/12345?sort=asc&page=2 HTTP/1.1\r\n\
Host: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,*/*;q=0.8\r\n\
Accept-Language: en-US,en\r\n\
Accept-Encoding: gzip, br\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcde\r\n\r\n";

/// What a load generator sends.
const SMALL_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.31.5\r\n\
Date: Tue, 24 Nov 2026 23:01:05 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Last-Modified: Tue, 24 Nov 2026 20:00:00 GMT\r\n\
ETag: \"65612d10-400\"\r\n\
Connection: keep-alive\r\n\r\n";

#[divan::bench]
fn request(bencher: Bencher) {
    read_request(bencher, REQUEST);
}

#[divan::bench]
fn small_request(bencher: Bencher) {
    read_request(bencher, SMALL_REQUEST);
}

fn read_request(bencher: Bencher, text: &[u8]) {
    let (mut head, rules) = (RequestHead::new(), HeadRules::default());
    bencher.bench_local(|| {
        head.clear();
        let progress = head.read(black_box(text), &rules);
        assert!(matches!(progress, Ok(Progress::Complete { .. })));
    });
}

#[divan::bench]
fn request_by_httparse(bencher: Bencher) {
    bencher.bench_local(|| {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        black_box(request.parse(black_box(REQUEST)).is_ok())
    });
}

#[divan::bench]
fn reply(bencher: Bencher) {
    let mut head = ReplyHead::new();
    bencher.bench_local(|| {
        head.clear();
        let progress = head.read(black_box(REPLY), 4096);
        assert!(matches!(progress, Ok(Progress::Complete { .. })));
    });
}

#[divan::bench(args = ["/static/js/../css/./site%20main.css"])]
fn normalise(bencher: Bencher, path: &str) {
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        uri::normalise(black_box(path.as_bytes()), true, &mut out).is_ok()
    });
}
