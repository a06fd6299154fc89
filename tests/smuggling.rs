//! What could be read in two ways is refused and the connection closed; the backend never sees it.

/// Each of these is answered with 400 (or nothing) and nothing after it is served.
const REFUSED: &[(&str, &str)] = &[
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("a length in hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n"),
    (
        "an endless length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ),
    ("an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    (
        "a length with a space before its colon",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    ),
    ("a folded header", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("a first header that is folded", "GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n"),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n"),
    ("two Host headers", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("a NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a CR in the target", "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "a chunk size that is no number",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    ),
    (
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    ),
    (
        "a chunk size in C's way",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    ),
    (
        "a chunk that is endless",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ),
    (
        "a chunk longer than said",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ),
    ("no space in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
];

/// These are answered with 501.
const UNKNOWN_CODINGS: &[&str] =
    &["identity", "gzip", "chunked, gzip", "gzip, chunked", "xchunked", "chunked;q=1"];

nginx_test!(
    ambiguous_requests_are_refused,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        let mut served = Vec::new();
        for (what, request) in REFUSED {
            let answer = t.raw(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
            if !(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "))
                || answer.contains("smuggled")
            {
                served.push((what, answer.lines().next().unwrap_or_default().to_string()));
            }
        }
        assert!(served.is_empty(), "{served:#?}");
        assert_eq!(t.backend().requests().len(), 0);
    }
);

nginx_test!(
    codings_that_are_unknown_are_not_implemented,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        for coding in UNKNOWN_CODINGS {
            t.ask(&format!("POST / | Transfer-Encoding: {coding} << 0\\r\\n\\r\\n"))
                .expect("501 * | Connection: close");
        }
        assert_eq!(t.backend().requests().len(), 0);
    }
);

nginx_test!(a_bad_request_line_is_not_http, "server { location / { return 200 hi; } }", |t| {
    for line in
        ["", "\u{16}\u{3}\u{1}", "GET", "GET /  x HTTP/1.1", "GET / HTTP/1.1 x", "/ GET HTTP/1.1"]
    {
        let answer = t.raw(format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let refused = answer.starts_with("HTTP/1.1 400 ") || answer.contains("<title>400");
        assert!(refused, "{line:?}: {answer:?}");
    }
    t.error_log().expect("[info] *client sent invalid method while reading client request line");
});

nginx_test!(
    hop_by_hop_headers_do_not_pass,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        t.ask("GET / | TE: trailers | Keep-Alive: 1 | Upgrade: x").expect("200");
        let seen = t.backend().expect_request(1);
        for name in ["TE", "Keep-Alive", "Upgrade"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
    }
);
