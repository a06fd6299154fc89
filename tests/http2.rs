//! HTTP/2: the same answers as over HTTP/1, flow control, limits, and clients that misbehave.

use crate::harness::h2::{H2, PREFACE, frame, next_frame};
use crate::harness::tls::trusting_with;
use crate::harness::{Client, Site, Step};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method GET, :scheme http, :path /, :authority a` in HPACK.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

fn h2c(t: &Site) -> H2 {
    H2::over(t.connect())
}

nginx_test!(
    requests_over_clear_text,
    r#"
    server { http2 on; root {DIR}/html;
        location / { return 200 "$server_protocol|$http2|$host|$request_uri|$http_x|$request"; }
        location /none { return 204; } location /echo { proxy_pass http://{BACKEND}; } location /files/ { alias {DIR}/html/; }
        location /headers { add_header X-A a; add_header X-A b; return 404; } location /redirect { return 301 /x; } }"#,
    |t| {
        t.file("html/f", "0123456789");
        h2c(t).check(&"
        GET /a?b | Host: h.example | X: x -> 200 HTTP/2.0|h2c|h.example|/a?b|x|GET /a?b HTTP/2.0 | server: * | date: * GMT | content-length: *
        GET /none              -> 204 | !content-length
        GET /echo?a | Cookie: a=1 | Cookie: b=2 -> 200 GET /echo?a HTTP/1.1\\r\\nHost: {BACKEND}\\r\\n*ookie: a=1; b=2\\r* | !x-none | x-connection: 1
        POST /echo << hello    -> 200 POST /echo*Content-Length: 5*hello
        GET /files/f           -> 200 0123456789 | accept-ranges: bytes
        GET /files/f | Range: bytes=2-3 -> 206 23
        HEAD /files/f          -> 200 | content-length: 10
        GET /files/none        -> 404 *404 Not Found*
        GET /redirect          -> 301 * | location: http://localhost:{PORT}/x
    ".replace("{BACKEND}", &t.backend().address.to_string()).replace("{PORT}", &t.port("PORT").to_string()));
        t.log("access.log").expect("\"GET /none HTTP/2.0\" 204 0 ");
    }
);

nginx_test!(
    one_port_for_both,
    "
    server { http2 on; location / { return 200 $server_protocol; } }",
    |t| {
        t.ask("GET /").expect("200 HTTP/1.1");
        h2c(t).ask("GET /").expect("200 HTTP/2.0");
    }
);

nginx_test!(requests_over_tls, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; http2 on; location / { return 200 $http2|$ssl_alpn_protocol|$scheme; } }", |t| {
    let config = trusting_with(rustls::DEFAULT_VERSIONS, &["h2"]);
    let mut h2 = H2::over(t.try_tls("localhost", config).unwrap());
    h2.ask("GET /").expect("200 h2|h2|https");
});

nginx_test!(streams_do_not_wait_for_one_another, "
    server { http2 on; location / { return 200 quick; } location /slow { proxy_pass http://{BACKEND}; } }", |t| {
    t.backend().on("/slow", vec![vec![Step::Hold, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")]]);
    let mut h2 = h2c(t);
    let slow = h2.start("GET /slow").unwrap();
    for _ in 0..20 {
        h2.ask("GET /").expect("200 quick");
    }
    t.backend().release();
    h2.finish(slow).unwrap().expect("200 slow");
});

nginx_test!(large_bodies_both_ways, "
    server { http2 on; client_max_body_size 10m; root {DIR}/html; location /p { proxy_pass http://{BACKEND}; }
             location /s { proxy_request_buffering off; proxy_pass http://{BACKEND}; } }", |t| {
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    t.file("html/large", &content);
    let mut h2 = h2c(t);
    assert!(h2.ask("GET /large").body == content);
    let body = "x".repeat(500_000);
    for (n, path) in ["/p", "/s"].into_iter().enumerate() {
        h2.ask(&format!("POST {path} << {body}")).expect("200");
        assert_eq!(t.backend().expect_request(n + 1).body.len(), body.len());
    }
});

nginx_test!(limits_hold, "
    server { http2 on; client_max_body_size 10; large_client_header_buffers 2 1k; client_header_buffer_size 1k; keepalive_requests 3;
             location / { proxy_pass http://{BACKEND}; } }", |t| {
    let mut h2 = h2c(t);
    h2.ask("POST / << 0123456789a").expect("413");
    h2.ask("POST / << 0123456789").expect("200");
    h2.ask("GET /").expect("200");
    h2.expect_closed();
    let mut h2 = h2c(t);
    match h2.try_ask(&format!("GET / | X: {}", "x".repeat(5000))) {
        Ok(response) => assert_eq!(response.status, 400),
        Err(e) => assert!(e.is_reset() || e.is_go_away() || e.is_io(), "{e}"),
    }
});

nginx_test!(
    idle_connections_are_closed,
    "
    server { http2 on; keepalive_timeout 200ms; location / { return 200 ok; } }",
    |t| {
        let mut h2 = h2c(t);
        h2.ask("GET /").expect("200 ok");
        h2.expect_closed();
    }
);

nginx_test!(
    trailers_pass,
    "
    server { http2 on; location / { add_trailer X-T $status; return 200 ok; } }",
    |t| {
        let response = h2c(t).ask("GET /").expect("200 ok");
        assert_eq!(response.trailers, [("x-t".to_string(), "200".to_string())]);
    }
);

/// Sends frames after the preface and collects what comes until the server ends the connection;
/// `None` when it does not.
fn told(t: &Site, frames: &[Vec<u8>]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut client = t.connect();
    client.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
    client.send(frames.concat());
    std::iter::from_fn(|| next_frame(&mut client)).collect()
}

nginx_test!(
    connections_that_break_the_rules_end,
    "
    server { http2 on; client_header_timeout 5s; location / { return 200 ok; } }",
    |t| {
        let long = vec![0; 20_000];
        for (what, frames) in [
            ("a frame that is too long", vec![frame(DATA, 0, 1, &long)]),
            ("data on the connection's stream", vec![frame(DATA, 0, 0, b"x")]),
            ("headers on an even stream", vec![frame(HEADERS, END_STREAM | END_HEADERS, 2, GET)]),
            (
                "headers that go back",
                vec![
                    frame(HEADERS, END_STREAM | END_HEADERS, 5, GET),
                    frame(HEADERS, END_STREAM | END_HEADERS, 3, GET),
                ],
            ),
            ("a ping of seven bytes", vec![frame(PING, 0, 0, b"1234567")]),
            ("settings of five bytes", vec![frame(SETTINGS, 0, 0, b"12345")]),
            ("a window update of zero", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
            ("a window too large", vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]),
            ("continuation of nothing", vec![frame(9, END_HEADERS, 1, GET)]),
            (
                "something within a header block",
                vec![frame(HEADERS, END_STREAM, 1, GET), frame(PING, 0, 0, b"12345678")],
            ),
            (
                "an index that is not in the table",
                vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\x80\x80\x01")],
            ),
        ] {
            let frames = told(t, &frames);
            assert!(frames.iter().any(|f| f.0 == GOAWAY), "{what}: {frames:?}");
        }
    }
);

nginx_test!(
    streams_that_break_the_rules_fail_alone,
    r#"
    server { http2 on; location / { proxy_pass http://{BACKEND}; } }"#,
    |t| {
        for (what, block) in [
            ("an upper case name", &b"\x82\x86\x84\x41\x01a\x00\x01A\x01b"[..]),
            ("a connection header", b"\x82\x86\x84\x41\x01a\x00\x0aconnection\x05close"),
            ("no path", b"\x82\x86\x41\x01a"),
            ("two paths", b"\x82\x86\x84\x84\x41\x01a"),
            ("a pseudo header behind others", b"\x82\x86\x84\x00\x01x\x01y\x41\x01a"),
            ("an unknown pseudo header", b"\x82\x86\x84\x41\x01a\x00\x02:x\x01y"),
            ("a line break in a value", b"\x82\x86\x84\x41\x01a\x00\x01x\x03a\r\n"),
        ] {
            let mut client = t.connect();
            client.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
            client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block));
            let answer = std::iter::from_fn(|| next_frame(&mut client))
                .find(|f| [HEADERS, RST_STREAM, GOAWAY].contains(&f.0));
            // 400 is index 12 of the static table.
            let refused =
                answer.as_ref().is_some_and(|f| f.0 != HEADERS || f.3.first() == Some(&0x8c));
            assert!(refused, "{what}: {answer:?}");
        }
        assert_eq!(t.backend().requests().len(), 0);
    }
);

nginx_test!(floods_end_the_connection, "
    server { http2 on; http2_max_concurrent_streams 10; location / { proxy_pass http://{BACKEND}; } }", |t| {
    t.backend().on("/", vec![vec![Step::Hold]]);
    let resets: Vec<Vec<u8>> = (0..20_000u32)
        .flat_map(|n| [frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, GET), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])])
        .collect();
    let ended = told(t, &resets);
    assert!(ended.iter().filter(|f| f.0 == HEADERS).count() < 100);
    h2c(t).try_ask("GET /quick").map(|r| assert_eq!(r.status, 200)).ok();
});

nginx_test!(
    a_shutdown_is_announced,
    "
    server { http2 on; location / { return 200 ok; } }",
    |t| {
        let mut h2 = h2c(t);
        h2.ask("GET /").expect("200 ok");
        t.signal(nix::sys::signal::Signal::SIGQUIT);
        h2.expect_closed();
    }
);
