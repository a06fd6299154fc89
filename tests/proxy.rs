//! `proxy_pass`: what the backend sees, what comes back, buffering, timeouts.

use crate::harness::Step;
use std::time::Duration;

nginx_test!(the_request_as_the_backend_sees_it, r#"
    server { proxy_set_header X-Var $arg_a; proxy_set_header X-None ""; 
        location / { proxy_pass http://{BACKEND}; }
        location /uri/ { proxy_pass http://{BACKEND}/other/; }
        location /root/ { proxy_pass http://{BACKEND}/; }
        location /append { proxy_pass http://{BACKEND}/p; }
        location ~ ^/re/(.*) { proxy_pass http://{BACKEND}/x/$1?q=$arg_a; }
        location /var { set $where {BACKEND}; proxy_pass http://$where/v$is_args$args; }
        location /rw/ { rewrite ^/rw/(.*) /rewritten/$1 break; proxy_pass http://{BACKEND}; }
        location /host { proxy_set_header Host $host; proxy_pass http://{BACKEND}; }
        location /method { proxy_method PATCH; proxy_pass http://{BACKEND}; }
        location /body { proxy_set_body "set $uri"; proxy_pass http://{BACKEND}; }
        location /nobody { proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://{BACKEND}; }
        location /nohead { proxy_pass_request_headers off; proxy_pass http://{BACKEND}; }
        location /old { proxy_http_version 1.0; proxy_pass http://{BACKEND}; } }"#, "
    GET /a%20b?x=%41   -> 200 GET /a%20b?x=%41 HTTP/1.1\\r*
    GET /a?a=1 | X-None: 1 | X-Other: 2 -> 200 GET /a?a=1 HTTP/1.1\\r\\nHost: {BACKEND}\\r\\nX-Var: 1\\r\\nX-Other: 2\\r\\n\\r
    GET /uri/a/b?c     -> 200 GET /other/a/b?c HTTP/1.1*
    GET /uri/a%20/../b -> 200 GET /other/b HTTP/1.1*
    GET /uri/%25%3F    -> 200 GET /other/%25%3F HTTP/1.1*
    GET /root/a        -> 200 GET /a HTTP/1.1*
    GET /appendix      -> 200 GET /pix HTTP/1.1*
    GET /re/a%20b?a=1  -> 200 GET /x/a b?q=1 HTTP/1.1*
    GET /var?a=1       -> 200 GET /v?a=1 HTTP/1.1*
    GET /rw/a%20b?c    -> 200 GET /rewritten/a%20b?c HTTP/1.1*
    GET /host | Host: x.example:81 -> 200 *Host: x.example\\r*
    GET /method        -> 200 PATCH /method*
    POST /body << abc  -> 200 *Content-Length: 9\\r\\n\\r\\nset /body
    POST /nobody << abc -> 200 POST /nobody HTTP/1.1\\r\\nHost: {BACKEND}\\r\\n\\r
    GET /nohead | X-Other: 2 -> 200 GET /nohead HTTP/1.1\\r\\nHost: {BACKEND}\\r\\n\\r
    GET /old           -> 200 GET /old HTTP/1.0\\r\\nHost: {BACKEND}\\r\\n\\r
    GET //a/./b        -> 200 GET //a/./b HTTP/1.1*
    DELETE /a          -> 200 DELETE /a*
");

nginx_test!(
    the_response_as_the_client_sees_it,
    r#"
    server { location / { proxy_pass http://{BACKEND}; }
        location /hide { proxy_hide_header X-Secret; proxy_pass http://{BACKEND}; }
        location /pass { proxy_pass_header Server; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        let head = "HTTP/1.1 200 Fine\r\nServer: backend\r\nDate: Thu, 01 Jan 1998 00:00:00 GMT\r\nX-Secret: s\r\nX-Pad: p\r\nX-Accel-Unknown: u\r\n\
                Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: a/b\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\nhi";
        for path in ["/", "/hide", "/pass"] {
            t.backend().reply(path, head);
        }
        let seen = t.ask("GET /").expect("200 hi | X-Secret: s | Set-Cookie: a=1 | Set-Cookie: b=2 | Content-Type: a/b | ETag: \"x\" | Content-Length: 2 | !X-Pad");
        assert!(seen.head.starts_with("HTTP/1.1 200 Fine\r\n"), "{}", seen.head);
        assert_ne!(seen.header("Server"), Some("backend"));
        assert_ne!(seen.header("Date"), Some("Thu, 01 Jan 1998 00:00:00 GMT"));
        t.ask("GET /hide").expect("200 hi | !X-Secret");
        t.ask("GET /pass").expect("200 hi | Server: backend");
    }
);

nginx_test!(
    bodies_of_every_framing,
    r#"
    server { location / { proxy_pass http://{BACKEND}; }
        location /off/ { proxy_buffering off; proxy_pass http://{BACKEND}/; } }"#,
    |t| {
        t.backend()
            .reply_and_close("/eof", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
        t.backend().reply_and_close("/old", "HTTP/1.0 200 OK\r\n\r\nold");
        t.backend().reply("/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n");
        t.backend().reply("/none", "HTTP/1.1 204 No Content\r\n\r\n");
        t.backend().reply(
            "/304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"x\"\r\n\r\n",
        );
        t.backend().reply("/head", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        t.backend().reply("/early", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        t.backend().reply("/lf", "HTTP/1.1 200 OK\nContent-Length: 2\n\nlf");
        t.backend().reply_and_close("/nostatus", "just text");
        for prefix in ["", "/off"] {
            t.check(
                &"
            GET {P}/eof      -> 200 until the end | Transfer-Encoding: chunked
            GET {P}/eof HTTP/1.0 -> 200 until the end | Connection: close | !Transfer-Encoding
            GET {P}/old      -> 200 old | Transfer-Encoding: chunked
            GET {P}/chunks   -> 200 hello! | Transfer-Encoding: chunked
            GET {P}/chunks HTTP/1.0 -> 200 hello! | !Transfer-Encoding
            GET {P}/none     -> 204 | !Transfer-Encoding
            GET {P}/304      -> 304 | ETag: \"x\"
            HEAD {P}/head    -> 200 | Content-Length: 1000
            GET {P}/lf       -> 200 lf
        "
                .replace("{P}", prefix),
            );
        }
    }
);

nginx_test!(answers_that_are_broken, "
    server { location / { proxy_pass http://{BACKEND}; proxy_buffer_size 4k; proxy_buffers 4 4k; } }", |t| {
    t.backend().reply_and_close("/nohead", "HTTP/1.1 200 OK\r\nX: y\r\n");
    t.backend().reply_and_close("/nothing", "");
    t.backend().reply_and_close("/badheader", "HTTP/1.1 200 OK\r\nbad\0: y\r\n\r\n");
    t.backend().reply_and_close("/huge", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(5000)));
    t.backend().reply_and_close("/twice", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    t.backend().reply_and_close("/both", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    t.backend().reply_and_close("/te", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n");
    t.backend().reply_and_close("/length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab");
    t.check("
        GET /nohead    -> 502
        GET /nothing   -> 502
        GET /badheader -> 502
        GET /huge      -> 502
        GET /twice     -> 502
        GET /both      -> 502
        GET /te        -> 502
        GET /length    -> 502
    ");
    for said in ["upstream prematurely closed connection while reading response header from upstream",
                 "upstream sent invalid header: \"bad\\x00...\" while reading response header from upstream",
                 "upstream sent too big header while reading response header from upstream",
                 "upstream sent duplicate header line: \"Content-Length: 2\", previous value: \"Content-Length: 1\"",
                 "upstream sent unknown \"Transfer-Encoding\": \"gzip\""] {
        t.error_log().expect(&format!("[error] *{said}*, upstream: \"http://127.0.0.1:"));
    }
});

nginx_test!(
    bodies_that_break_off,
    "
    server { location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        t.backend().reply_and_close("/short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        t.backend().reply_and_close(
            "/chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        );
        t.backend().reply_and_close(
            "/badchunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n",
        );
        let short = t.raw("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(short.contains("Content-Length: 10") && short.ends_with("\r\n\r\nabc"), "{short}");
        for path in ["chunk", "badchunk"] {
            let got = t.raw(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert!(!got.ends_with("0\r\n\r\n"), "{path}: {got}");
        }
        t.error_log()
            .expect("[error] *upstream prematurely closed connection while reading upstream");
        t.error_log()
            .expect("[error] *upstream sent invalid chunked response while reading upstream");
    }
);

nginx_test!(
    large_answers_go_through_buffers_and_files,
    "
    server { listen 127.0.0.1:{PORT} sndbuf=32k; proxy_buffer_size 4k; proxy_buffers 4 4k; proxy_busy_buffers_size 8k;
        location / { proxy_pass http://{BACKEND}; }
        location /nofile/ { proxy_max_temp_file_size 0; proxy_pass http://{BACKEND}/; }
        location /off/ { proxy_buffering off; proxy_pass http://{BACKEND}/; } }",
    |t| {
        let body: Vec<u8> =
            (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut reply =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        reply.extend(&body);
        t.backend().reply("/large", reply);
        for path in ["/large", "/nofile/large", "/off/large"] {
            // The client does not read before the answer is whole, so that it has to wait somewhere.
            let mut client = t.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            std::thread::sleep(Duration::from_millis(100));
            let got = client.response();
            assert!(got.body == body, "{path}: {} bytes", got.body.len());
        }
        t.error_log().expect("[warn] *an upstream response is buffered to a temporary file *proxy_temp/*while reading upstream");
    }
);

nginx_test!(
    unbuffered_bytes_come_at_once,
    "
    server { location / { proxy_buffering off; proxy_pass http://{BACKEND}; }
             location /accel { proxy_pass http://{BACKEND}; } }",
    |t| {
        for (path, header) in [("/", ""), ("/accel", "X-Accel-Buffering: no\r\n")] {
            t.backend().on(
                path,
                vec![vec![
                    Step::send(format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 6\r\n\r\nabc")),
                    Step::Hold,
                    Step::send("def"),
                ]],
            );
        }
        let mut both = [t.connect(), t.connect()];
        for (client, path) in both.iter_mut().zip(["/", "/accel"]) {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client.read_until(b"\r\n\r\nabc").unwrap();
        }
        t.backend().release();
        for client in &mut both {
            assert_eq!(client.read_exact(3).unwrap(), b"def");
        }
    }
);

nginx_test!(
    timeouts_and_dead_backends,
    "
    server { proxy_read_timeout 200ms; proxy_connect_timeout 1s;
        location / { proxy_pass http://{BACKEND}; } location /dead { proxy_pass http://{DEAD}; }
        location /unix { proxy_pass http://unix:{DIR}/none.sock:/; } }",
    |t| {
        t.backend().on("/slow", vec![vec![Step::Hold]]);
        t.backend().on(
            "/half",
            vec![vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), Step::Hold]],
        );
        t.backend().on("/reset", vec![vec![Step::Reset]]);
        t.check(
            "
        GET /dead  -> 502 *502 Bad Gateway*
        GET /slow  -> 504 *504 Gateway Time-out*
        GET /reset -> 502
        GET /unix  -> 502
    ",
        );
        assert!(t.raw("GET /half HTTP/1.1\r\nHost: a\r\n\r\n").contains("Content-Length: 5"));
        t.error_log().expect("[error] *connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , request: \"GET /dead HTTP/1.1\", upstream: \"http://*/dead\", host: \"localhost\"");
        t.error_log().expect("[error] *upstream timed out (110: Connection timed out) while reading response header from upstream");
        t.error_log().expect(
            "[error] *upstream timed out (110: Connection timed out) while reading upstream",
        );
        t.error_log().expect("[error] *recv() failed (104: Connection reset by peer) while reading response header from upstream");
        t.error_log().expect("[crit] *connect() to unix:*/none.sock failed (2: No such file or directory) while connecting to upstream");
    }
);

nginx_test!(
    a_client_that_leaves_lets_the_backend_go,
    "
    server { location / { proxy_pass http://{BACKEND}; }
             location /stay { proxy_ignore_client_abort on; proxy_pass http://{BACKEND}; } }",
    |t| {
        t.backend().on("/", vec![vec![Step::Hold, Step::Close]]);
        let mut client = t.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        drop(client);
        t.error_log().expect("[info] *client prematurely closed connection, so upstream connection is closed too*while");
        t.log("access.log").expect("\" 499 0 ");
    }
);

nginx_test!(
    redirects_and_cookies_are_rewritten,
    r#"
    server { server_name front.example;
        location /one/ { proxy_pass http://{BACKEND}/two/; }
        location /off/ { proxy_redirect off; proxy_pass http://{BACKEND}/two/; }
        location /own/ { proxy_redirect http://inside.example/ /outside/; proxy_redirect ~^http://re\.(\w+)/(.*) https://$1.example/$2; proxy_pass http://{BACKEND}/; }
        location /cookie { proxy_cookie_domain inside.example outside.example; proxy_cookie_path /in/ /out/;
            proxy_cookie_flags ~^s secure httponly samesite=lax; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        let own = t.backend().address;
        let redirect = |to: String| {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
        };
        t.backend().reply("/two/a", redirect(format!("http://{own}/two/x")));
        t.backend().reply("/in", redirect("http://inside.example/x".into()));
        t.backend().reply("/re", redirect("http://re.abc/x?y".into()));
        t.backend().reply("/rel", redirect("/relative".into()));
        t.backend().reply("/cookie", "HTTP/1.1 204 N\r\nSet-Cookie: a=1; Domain=inside.example; Path=/in/x\r\nSet-Cookie: s=2\r\n\r\n");
        t.check("
        GET /one/a | Host: front.example -> 302 | Location: http://front.example:{PORT}/one/x
        GET /off/a  -> 302 | Location: http://{BACKEND}/two/x
        GET /own/in -> 302 | Location: http://*/outside/x
        GET /own/re -> 302 | Location: https://abc.example/x?y
        GET /own/rel -> 302 | Location: /relative
        GET /cookie -> 204 | Set-Cookie: a=1; Domain=outside.example; Path=/out/x | Set-Cookie: s=2; Secure; HttpOnly; SameSite=Lax
    ");
    }
);

nginx_test!(
    x_accel_and_intercepted_errors,
    r#"
    server { error_page 404 /missing; location /missing { return 200 missing; }
        location / { proxy_pass http://{BACKEND}; }
        location /intercept { proxy_intercept_errors on; proxy_pass http://{BACKEND}; }
        location /ignore { proxy_ignore_headers X-Accel-Redirect; proxy_pass http://{BACKEND}; }
        location /internal { internal; alias {DIR}/html/file; } 
        location @named { return 200 named; } }"#,
    |t| {
        t.file("html/file", "a file inside");
        let accel = |to: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nX-Accel-Redirect: {to}\r\nContent-Type: x/y\r\nSet-Cookie: c=1\r\nContent-Length: 3\r\n\r\nold"
            )
        };
        t.backend().reply_and_close("/accel", accel("/internal"));
        t.backend().reply_and_close("/named", accel("@named"));
        t.backend().reply_and_close("/ignore", accel("/internal"));
        t.backend().reply("/404", "HTTP/1.1 404 Nope\r\nContent-Length: 4\r\n\r\nnope");
        t.backend().reply("/intercept", "HTTP/1.1 404 Nope\r\nContent-Length: 4\r\n\r\nnope");
        t.check("
        GET /accel     -> 200 a file inside | Content-Type: x/y | Set-Cookie: c=1 | !X-Accel-Redirect
        GET /named     -> 200 named
        GET /ignore    -> 200 old
        GET /404       -> 404 nope
        GET /intercept -> 404 missing
        GET /internal  -> 404 missing
    ");
    }
);

nginx_test!(a_backend_on_a_unix_socket, "
    server { location / { proxy_pass http://unix:{DIR}/b.sock; } location /u/ { proxy_pass http://unix:{DIR}/b.sock:/v/; } }
    server { listen unix:{DIR}/b.sock; location / { return 200 $request_uri|$http_host; } }", "
    GET /a?b   -> 200 /a?b|localhost
    GET /u/a?b -> 200 /v/a?b|localhost
");

nginx_test!(
    variables_about_the_upstream,
    r#"
    log_format up "$upstream_addr $upstream_status $upstream_response_length $upstream_bytes_received $upstream_bytes_sent t=$upstream_response_time/$upstream_header_time/$upstream_connect_time $proxy_host $proxy_port $upstream_http_x_a $upstream_cookie_c";
    server { location / { access_log {DIR}/up.log up; proxy_set_header X-F $proxy_add_x_forwarded_for; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.backend().reply(
            "/",
            "HTTP/1.1 200 OK\r\nX-A: a\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nhi",
        );
        t.ask("GET / | X-Forwarded-For: 1.2.3.4").expect("200 hi");
        let b = t.backend().address.to_string();
        t.log("up.log").expect(
            &format!("{b} 200 2 * * t=0.*/0.*/0.* {b} 80 a d")
                .replace(" 80 a", &format!(" {} a", t.backend().address.port())),
        );
        assert_eq!(t.backend().expect_request(1).header("X-F"), Some("1.2.3.4, 127.0.0.1"));
    }
);
