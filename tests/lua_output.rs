//! How what Lua says reaches the client: at once, in pieces, and never without bound.

use crate::harness::Site;
use crate::harness::lua::lua_test;

lua_test!(
    a_flush_sends_what_was_said,
    r#"lua_shared_dict d 1m; server {
        location /steps { content_by_lua_block {
            ngx.header["X-A"] = "b" ngx.say("first") ngx.print(ngx.flush(true), ngx.headers_sent)
            ngx.flush(true) ngx.ctx.went = "on" ngx.sleep(0.05) ngx.say("last") }
            log_by_lua_block { ngx.log(ngx.ERR, "it went ", ngx.ctx.went) } }
        location /unflushed { content_by_lua_block { ngx.say("a") ngx.sleep(0.01) ngx.say("b") } }
        location /eof { content_by_lua_block { ngx.print("all") ngx.eof() ngx.sleep(0.05) ngx.shared.d:set("k", tostring(ngx.say("x"))) } }
        location /after { content_by_lua_block { ngx.print(ngx.shared.d:get("k")) } }
        location /fails { content_by_lua_block { ngx.print("some") ngx.flush(true) error("boom") } }
        location /status { content_by_lua_block { ngx.say("x") ngx.flush() ngx.status = 500 ngx.header.a = 1 } }
        location /nothing { content_by_lua_block { ngx.print(select(2, ngx.flush(true))) } }
        location /exec { content_by_lua_block { ngx.say("x") ngx.flush(true) ngx.exec("/nothing") } }
    }"#,
    |t| {
        let mut client = t.connect();
        client.send("GET /steps HTTP/1.1\r\nHost: a\r\n\r\n");
        // The head and the first pieces are there while the code still works.
        let head = client.read_until(b"\r\n\r\n").unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("Transfer-Encoding: chunked") && head.contains("X-A: b"), "{head}");
        assert_eq!(client.read_until(b"first\n\r\n").unwrap(), b"6\r\nfirst\n\r\n");
        assert_eq!(client.read_until(b"true\r\n").unwrap(), b"5\r\n1true\r\n");
        assert_eq!(client.read_until(b"0\r\n\r\n").unwrap(), b"5\r\nlast\n\r\n0\r\n\r\n");
        t.error_log().expect("it went on");
        t.check(
            "
        GET /unflushed  -> 200 a\\nb* | Content-Length: 4
        HEAD /steps     -> 200
        GET /nothing    -> 200 nothing to flush
        GET /status     -> 200 x*
    ",
        );
        // The end is seen before the code ends; what is said behind it goes nowhere.
        client.send("GET /eof HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_until(b"3\r\nall\r\n0\r\n\r\n").unwrap();
        client.read_until(b"\r\n\r\nnil").unwrap();
        // A body that broke off has no end.
        client.send("GET /fails HTTP/1.1\r\nHost: a\r\n\r\n");
        let all = client.read_to_end();
        assert!(all.ends_with(b"4\r\nsome\r\n"), "{}", String::from_utf8_lossy(&all));
        let log = t.error_log();
        log.expect("lua entry thread aborted: runtime error: content_by_lua(*: boom");
        log.expect("attempt to set ngx.status after sending out response headers");
        log.expect("attempt to set ngx.header.a after sending out response headers");
        let mut client = t.connect();
        client.send("GET /exec HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_to_end();
        log.expect("attempt to call ngx.exec after sending out response headers");
    }
);

lua_test!(
    a_fast_producer_waits_for_its_client,
    r#"server {
        location /much { content_by_lua_block {
            local block = ("x"):rep(65536) for i = 1, 400 do assert(ngx.print(block)) end } }
        location /callback { content_by_lua_block {
            ("y"):rep(3):gsub("y", function() ngx.print(("z"):rep(100000)) end) } }
        location /old { content_by_lua_block { ngx.print(("x"):rep(100000)) ngx.print(tostring(ngx.flush(true))) } }
        location /left { content_by_lua_block {
            local ok, why repeat ok, why = ngx.print(("x"):rep(65536)) ngx.sleep(0) until not ok
            ngx.log(ngx.ERR, "it said: ", why) } }
        location /sub { content_by_lua_block { ngx.print(#ngx.location.capture("/much").body) } }
    }"#,
    |t| {
        t.check("GET /sub -> 200 26214400");
        t.check("GET /callback -> 200 *zzz");
        let mut client = t.connect();
        client.send("GET /much HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.read_until(b"\r\n\r\n").unwrap();
        // Nobody reads on: the worker holds some pieces, not all 25 MiB.
        let before = worker_kib(t);
        assert_eq!(client.read_to_end().iter().filter(|b| **b == b'x').count(), 26_214_400);
        let after = worker_kib(t);
        assert!(after < before + 16 * 1024 && before < 64 * 1024, "{before} {after}");
        let mut client = t.connect();
        client.send("GET /old HTTP/1.0\r\n\r\n");
        let all = String::from_utf8(client.read_to_end()).unwrap();
        assert!(
            all.contains("Content-Length: 100003\r\n") && all.ends_with("xnil"),
            "{}",
            &all[..99]
        );
        let mut client = t.connect();
        client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_until(b"xxxx").unwrap();
        drop(client);
        t.error_log().expect("it said: nginx output filter error");
    }
);

/// Memory of the one worker, KiB.
fn worker_kib(t: &Site) -> u64 {
    let worker = t.expect_procs("worker process", 1)[0].pid;
    let text = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

lua_test!(
    what_is_too_late_or_too_much,
    r#"server {
        location /late { content_by_lua_block { ngx.send_headers() ngx.say("x") ngx.exit(403) } }
        location /again { content_by_lua_block { ngx.print(pcall(ngx.exit, ngx.AGAIN)) ngx.say(pcall(ngx.exit, ngx.DONE)) } }
        location /error { content_by_lua_block { ngx.exit(ngx.ERROR) } }
        location /declined { content_by_lua_block { ngx.exit(ngx.DECLINED) } }
        location /filtered { content_by_lua_block { ngx.say("hi") } header_filter_by_lua_block { return ngx.exit(201) } }
        location /eof { content_by_lua_block { ngx.say("x") ngx.eof() local ok, why = ngx.eof() ngx.log(ngx.WARN, "eof: ", ok, " ", why) } }
        location /head { content_by_lua_block { local ok, why = ngx.say("x") ngx.log(ngx.WARN, "say: ", ok, " ", why, " ", select(2, ngx.flush())) } }
        location /set { set_by_lua_block $x { return select(2, pcall(ngx.redirect, "/")) .. select(2, pcall(ngx.exec, "/")) } return 200 $x; }
        location /escape { content_by_lua_block {
            ngx.say(ngx.escape_uri("-_.!~*'(),$")) for kind = 0, 6 do ngx.say(ngx.escape_uri("<a?t=b@ :+", kind)) end } }
    }"#,
    |t| {
        t.check(
            "
        GET /late     -> 200 x*
        GET /again    -> 200 falsebad argument to 'ngx.exit': does not accept NGX_AGAIN or NGX_DONEfalsebad*
        GET /filtered -> 201
        GET /eof      -> 200 x*
        HEAD /head    -> 200
        GET /set      -> 200 API disabled in the context of set_by_lua*API disabled in the context of set_by_lua*
        GET /escape   -> 200 -_.!~*'()%2C%24*<a%3Ft=b@%20:+*<a%3Ft=b@%20:%2B*%3Ca%3Ft%3Db%40%20%3A%2B*<a?t=b@%20:+*<a?t=b@%20:+*<a?t=b@%20:+*<a?t=b@%20:+*
        ",
        );
        for uri in ["/error", "/declined"] {
            assert_eq!(t.raw(format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n")), "");
        }
        let log = t.error_log();
        log.expect("[error] *attempt to set status 403 via ngx.exit after sending out the response status 200*");
        log.expect("*eof: nil seen eof*");
        log.expect("*say: nil header only header only*");
    }
);
