//! HTTP/1.0 and HTTP/1.1 as such: versions, keep-alive, pipelining, HEAD, bodies, limits.

nginx_test!(answers_say_who_and_when, "server { location / { return 200 hi; } }", "
    GET /          -> 200 hi | Server: *inx/* | Date: * GMT | Content-Length: 2 | Content-Type: text/plain
    GET / HTTP/1.0 -> 200 hi | Connection: close
    HEAD /         -> 200 | Content-Length: 2
    GET /?a=b&c    -> 200 hi
");

nginx_test!(
    server_tokens_hide_the_version,
    "
    server_tokens off; server { location / { return 404; } }",
    "
    GET / -> 404 *<center>*</center>* | Server: *
"
);

nginx_test!(
    methods_and_versions,
    "server { location / { return 200 $request_method-$server_protocol; } }",
    "
    GET /            -> 200 GET-HTTP/1.1
    OPTIONS /        -> 200 OPTIONS-HTTP/1.1
    FOO-BAR_9 /      -> 400
    FOO_BAR /        -> 200 FOO_BAR-HTTP/1.1
    get /            -> 400
    TRACE /          -> 405
    CONNECT a:1      -> 405
    GET / HTTP/1.0   -> 200 GET-HTTP/1.0
    GET / HTTP/1.9   -> 200 GET-HTTP/1.9
    GET / HTTP/2.0   -> 505
    GET / HTTP/3.0   -> 505
    GET / HTTQ/1.1   -> 400
    GET / HTTP/1.x   -> 400
"
);

nginx_test!(simple_requests_of_http_0_9, "server { location / { return 200 hi; } }", |t| {
    assert_eq!(t.raw("GET /\r\n"), "hi");
    assert_eq!(t.raw("GET /\n"), "hi");
});

nginx_test!(keep_alive_by_version_and_header, "server { location / { return 200 hi; } }", |t| {
    let mut client = t.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response().expect("200 hi | Connection: keep-alive");
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.response().expect("200 hi | Connection: close");
    client.expect_closed();

    let mut client = t.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.response().expect("200 hi | Connection: keep-alive");
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.response().expect("200 hi | Connection: close");
    client.expect_closed();
});

nginx_test!(
    pipelined_requests_are_answered_in_order,
    "
    server { location / { return 200 $uri; } }",
    |t| {
        let mut client = t.connect();
        let requests: String =
            (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(requests);
        for n in 0..20 {
            client.response().expect(&format!("200 /{n}"));
        }
    }
);

nginx_test!(
    a_request_may_come_byte_by_byte,
    "
    server { location / { return 200 $http_x$request_method; } }",
    |t| {
        let mut client = t.connect();
        for byte in "GET /a HTTP/1.1\r\nHost: a\r\nX: yes\r\n\r\n".bytes() {
            client.send([byte]);
            std::thread::yield_now();
        }
        client.response().expect("200 yesGET");
    }
);

nginx_test!(
    keepalive_requests_is_a_limit,
    "
    server { keepalive_requests 2; location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.ask("GET /").expect("200 | Connection: keep-alive");
        client.ask("GET /").expect("200 | Connection: close");
        client.expect_closed();
    }
);

nginx_test!(
    keepalive_timeout_closes_and_says_so,
    "
    server { listen 127.0.0.1:{PORT}; keepalive_timeout 200ms 7s; location / { return 200 hi; } }
    server { listen 127.0.0.1:{PORT2}; keepalive_timeout 0; location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.ask("GET /").expect("200 | Connection: keep-alive | Keep-Alive: timeout=7");
        client.expect_closed();
        let mut client = crate::harness::Client::connect(t.address("PORT2"));
        client.ask("GET /").expect("200 | Connection: close | !Keep-Alive");
        client.expect_closed();
    }
);

nginx_test!(
    a_half_closed_client_gets_its_answer,
    "server { location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.finish_sending();
        client.response().expect("200 hi");
        client.expect_closed();
    }
);

nginx_test!(
    empty_lines_before_a_request_are_skipped,
    "
    server { location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.send("\r\n\nGET / HTTP/1.1\nHost: a\n\n");
        client.response().expect("200 hi");
    }
);

nginx_test!(
    the_target_in_all_its_forms,
    "
    server { location / { return 200 $uri|$args|$host|$request_uri; } }",
    "
    GET /a/b                           -> 200 /a/b||localhost|/a/b
    GET /a//b///c                      -> 200 /a/b/c||localhost|/a//b///c
    GET /a/./b/../c                    -> 200 /a/c||localhost|/a/./b/../c
    GET /%61%2fb%20c                   -> 200 /a/b c||localhost|/%61%2fb%20c
    GET /a?b=/../c                     -> 200 /a|b=/../c|localhost|/a?b=/../c
    GET /a#frag                        -> 200 /a||localhost|/a#frag
    GET http://Abs.Example/x?y | Host: other -> 200 /x|y|abs.example|/x?y
    GET http://abs.example | Host: other -> 200 /||abs.example|/
    GET http://abs.example?q | Host: other -> 200 /|q|abs.example|?q
    OPTIONS *                          -> 400
    GET /..                            -> 400
    GET /a/../../b                     -> 400
    GET /%2e%2e/                       -> 400
    GET /%                             -> 400
    GET /%zz                           -> 400
    GET /%00                           -> 400
    GET a                              -> 400
"
);

nginx_test!(
    merge_slashes_off_keeps_them,
    "
    server { merge_slashes off; location / { return 200 $uri; } }",
    "
    GET /a//b -> 200 /a//b
"
);

nginx_test!(host_is_needed_and_checked, "server { location / { return 200 $host; } }", |t| {
    let status =
        |head: &str| t.raw(format!("{head}\r\n\r\n")).split(' ').nth(1).map(str::to_string);
    let close = "Connection: close";
    for (head, expected) in [
        (format!("GET / HTTP/1.1\r\n{close}"), "400"),
        (format!("GET / HTTP/1.0\r\n{close}"), "200"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n{close}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: a b\r\n{close}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: a/b\r\n{close}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: a..b\r\n{close}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: [::1]:80\r\n{close}"), "200"),
        (format!("GET / HTTP/1.1\r\nHost: \r\n{close}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: A.example.\r\n{close}"), "200"),
    ] {
        assert_eq!(status(&head).as_deref(), Some(expected), "{head}");
    }
    t.ask("GET / | Host: A.Example.:8080").expect("200 a.example");
});

nginx_test!(
    headers_that_are_too_large,
    "
    server { large_client_header_buffers 2 1k; client_header_buffer_size 256;
             location / { return 200 $http_x; } }",
    |t| {
        let long = |n: usize| "x".repeat(n);
        t.ask(&format!("GET / | X: {}", long(900))).expect(&format!("200 {}", long(900)));
        t.ask(&format!("GET / | X: {}", long(1100)))
            .expect("400 *Request Header Or Cookie Too Large*");
        t.ask(&format!("GET /{}", long(1100))).expect("414");
        let many: String = (0..4).map(|_| format!(" | A: {}", long(700))).collect();
        t.ask(&format!("GET /{many}")).expect("400");
        t.error_log().expect("[info] *client sent too long header line: \"X: xxx*\"*while reading client request headers");
        t.error_log().expect("[info] *client sent too long URI while reading client request line");
    }
);

nginx_test!(header_names_that_are_invalid_are_ignored, "
    server { location / { return 200 .$http_a_b.$http_good.; } }
    server { listen 127.0.0.1:{PORT2}; ignore_invalid_headers off; location / { return 200 $http_a_b; } }
    server { listen 127.0.0.1:{PORT3}; underscores_in_headers on; location / { return 200 $http_a_b; } }",
|t| {
    t.ask("GET / | A_B: 1 | Good: 2").expect("200 ..2.");
    t.ask("GET / | A.B: 1 | Good: 2").expect("200 ..2.");
    t.error_log().expect("[info] *client sent invalid header line: \"A.B: 1\" while reading client request headers");
    let mut client = crate::harness::Client::connect(t.address("PORT3"));
    client.ask("GET / | A_B: 1").expect("200 1");
});

nginx_test!(
    more_headers_than_allowed,
    "
    server { max_headers 5; location / { return 200 hi; } }",
    "
    GET / | A: 1 | B: 2 | C: 3          -> 200 hi
    GET / | A: 1 | B: 2 | C: 3 | D: 4   -> 400
"
);

nginx_test!(
    client_header_timeout_closes,
    "
    server { client_header_timeout 200ms; location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.send("GET / HTTP/1.1\r\nHo");
        client.expect_closed();
        t.error_log().expect("[info] *client timed out (110: Connection timed out) while reading client request headers, client: 127.0.0.1, server: ");
    }
);

nginx_test!(
    a_head_has_its_time_however_it_trickles,
    "
    server { client_header_timeout 400ms; location / { return 200 hi; } }",
    |t| {
        let mut client = t.connect();
        client.ask("GET / | Host: a").expect("200 hi");
        let begun = std::time::Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: ");
        while client.try_send(b"x").is_ok() && begun.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(begun.elapsed().as_secs() < 20, "every byte bought time");
        t.error_log().expect("[info] *client timed out (110: Connection timed out) while reading client request headers");
    }
);

nginx_test!(
    lingering_close_reads_what_is_still_sent,
    "
    server { client_max_body_size 10; lingering_timeout 1s;
             location / { return 413; } }",
    |t| {
        let mut client = t.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        for _ in 0..100 {
            client.send(vec![b'x'; 1000]);
        }
        client.response().expect("413 * | Connection: close");
    }
);

nginx_test!(etag_and_error_pages_of_our_own, "
    server { location /404 { return 404; } location /500 { return 500; } location /204 { return 204; }
             location /444 { return 444; } location /301 { return 301 /x; } }", "
    GET /404 -> 404 <html>\\r\\n<head><title>404 Not Found</title></head>\\r\\n<body>\\r\\n<center><h1>404 Not Found</h1></center>\\r\\n<hr><center>*</center>\\r\\n</body>\\r\\n</html>\\r | Content-Type: text/html
    GET /500 -> 500 *500 Internal Server Error*
    GET /204 -> 204 | !Content-Length | !Content-Type
    GET /444 -> closed
    GET /301 -> 301 *301 Moved Permanently* | Location: http://localhost:{PORT}/x
    HEAD /404 -> 404 | Content-Type: text/html
");

nginx_test!(msie_gets_padding, "
    server { location / { return 404; } }
    server { listen 127.0.0.1:{PORT2}; msie_padding off; location / { return 404; } }", "
    GET / | User-Agent: Mozilla/4.0 (MSIE 6.0) -> 404 *a padding to disable MSIE and Chrome friendly error page*
    GET / | User-Agent: curl/7 -> 404 *</html>\\r
");
