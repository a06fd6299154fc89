//! Request bodies: lengths, chunks, Expect, limits, temporary files, discarding.

nginx_test!(
    bodies_reach_the_backend_as_they_were,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        t.ask("POST /a << hello").expect("200 *Content-Length: 5*hello");
        t.ask("POST /b | Transfer-Encoding: chunked << 5\\r\\nhello\\r\\n6;x=y\\r\\n world\\r\\n0\\r\\nA: b\\r\\n\\r\\n")
        .expect("200 *Content-Length: 11*hello world");
        t.ask("POST /c | Content-Length: 0").expect("200 *Content-Length: 0*");
        let large = "x".repeat(300_000);
        t.ask(&format!("POST /d << {large}"));
        assert_eq!(t.backend().expect_request(4).body.len(), 300_000);
        t.error_log().expect("[warn] *a client request body is buffered to a temporary file *");
    }
);

nginx_test!(
    bodies_may_come_in_pieces,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        let mut client = t.connect();
        let talk = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0003\r\ndef\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        for byte in talk.bytes() {
            client.send([byte]);
        }
        client.response().expect("200 *abcdef");
        client.response().expect("200 GET /next*");
    }
);

nginx_test!(
    expect_100_continue,
    "
    server { location / { proxy_pass http://{BACKEND}; } location /no { return 403; }
             location /max { client_max_body_size 3; proxy_pass http://{BACKEND}; } }",
    |t| {
        let ask = |uri: &str| {
            let mut client = t.connect();
            client.send(format!("POST {uri} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"));
            client
        };
        let mut client = ask("/");
        client.response().expect("100");
        client.send("body");
        client.response().expect("200 *body");
        ask("/no").response().expect("403");
        ask("/max").response().expect("413");
    }
);

nginx_test!(
    client_max_body_size_is_kept,
    "
    server { client_max_body_size 10;
        location / { proxy_pass http://{BACKEND}; }
        location /any { client_max_body_size 0; proxy_pass http://{BACKEND}; } }",
    "
    POST / << 0123456789            -> 200
    POST / << 0123456789a           -> 413 *413 Request Entity Too Large*
    POST / | Transfer-Encoding: chunked << b\\r\\n0123456789a\\r\\n0\\r\\n\\r\\n -> 413
    POST /any << 0123456789a        -> 200
"
);

nginx_test!(
    the_body_in_variables_and_files,
    "
    log_format body escape=none $request_body;
    log_format file escape=none $request_body_file;
    server { client_body_buffer_size 1k;
        location / { access_log {DIR}/body.log body; proxy_pass http://{BACKEND}; }
        location /file { client_body_in_file_only clean; access_log {DIR}/file.log file;
            proxy_set_header X-File $request_body_file; proxy_pass http://{BACKEND}; } }",
    |t| {
        t.ask("POST / << some body").expect("200");
        t.log("body.log").expect("some body");
        t.ask("POST /file << some body").expect(
            "200 *X-File: {DIR}*".replace("{DIR}", &t.dir().display().to_string()).as_str(),
        );
        t.log("file.log").expect("client_body_temp");
    }
);

nginx_test!(
    client_body_timeout_closes_and_logs_408,
    "
    server { client_body_timeout 200ms; location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        let mut client = t.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
        client.expect_closed();
        t.log("access.log").expect("\" 408 0 ");
    }
);

nginx_test!(a_body_nobody_reads_is_discarded, "server { location / { return 200 $uri; } }", |t| {
    let mut client = t.connect();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                 POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                 GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().expect("200 /a");
    client.response().expect("200 /b");
    client.response().expect("200 /c");
});

nginx_test!(
    a_client_that_leaves_in_the_body,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        let mut client = t.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
        drop(client);
        t.error_log().expect("[info] *client prematurely closed connection*");
        t.log("access.log").expect("\" 400 ");
        assert_eq!(t.backend().requests().len(), 0);
    }
);

nginx_test!(
    request_buffering_off_streams,
    "
    server { proxy_request_buffering off; proxy_http_version 1.1;
             location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        t.ask("POST /a << hello").expect("200 *Content-Length: 5*hello");
        let mut client = t.connect();
        client.send(
            "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        );
        t.backend().expect_connections(2);
        client.send("1\r\n!\r\n0\r\n\r\n");
        client.response().expect("200 *Transfer-Encoding: chunked*hello!");
    }
);

nginx_test!(
    what_is_wrong_with_a_discarded_body_is_said,
    "server { location / { return 200; } location /no { return 403; } }",
    |t| {
        let head = |uri: &str| {
            format!("POST {uri} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        };
        let broken = "4\r\nrunaway\r\n0\r\n\r\n";
        for (uri, status) in [("/", " 400 "), ("/no", " 403 ")] {
            let answer = t.raw(format!("{}{broken}", head(uri)));
            assert!(answer.contains(status), "{answer}");
        }
        t.error_log().expect("[info] *while discarding request body*");
    }
);

nginx_test!(
    a_discarded_body_may_be_expected_too,
    "server { location / { return 200 $uri; } location /no { return 403; } }",
    |t| {
        let mut client = t.connect();
        let head = |uri: &str| {
            format!(
                "POST {uri} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        client.send(head("/a"));
        assert_eq!(client.read_until(b"\r\n\r\n").unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body");
        client.response().expect("200 /a");
        // An error needs no body, and the connection would be out of step.
        client.send(head("/no"));
        client.response().expect("403 * | Connection: close");
        client.expect_closed();
    }
);
