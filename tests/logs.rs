//! `access_log`, `log_format`, `error_log`, reopening.

use nix::sys::signal::Signal;

nginx_test!(formats_and_conditions, r#"
    log_format own '$remote_addr "$request" $status $body_bytes_sent $bytes_sent "$http_referer" "$http_x" $request_time';
    log_format json escape=json '{"x":"$http_x"}';
    log_format raw escape=none '$http_x';
    map $status $failed { ~^[45] 1; default ""; }
    server { 
        location / { access_log {DIR}/own.log own; return 200 hello; }
        location /combined { access_log {DIR}/combined.log; return 200 hello; }
        location /json { access_log {DIR}/json.log json; return 200; }
        location /raw { access_log {DIR}/raw.log raw; return 200; }
        location /off { access_log off; return 200; }
        location /if { access_log {DIR}/if.log own if=$failed; return $arg_s; }
        location /if4 { access_log {DIR}/if.log own if=$failed; return 404; }
        location /two { access_log {DIR}/one.log; access_log {DIR}/two.log own; return 200; }
        location /var { access_log {DIR}/var-$arg_n.log own; root {DIR}/html; }
        location /buffered { access_log {DIR}/buffered.log own buffer=64k flush=100ms; return 200; } }"#
    .replace("return $arg_s", "return 200").as_str(), |t| {
    t.ask("GET /a?b=c | Referer: ref | X: a\"b\\c\u{7f}é").expect("200");
    let line = t.log("own.log").expect("");
    assert!(crate::harness::matches("127.0.0.1 \"GET /a?b=c HTTP/1.1\" 200 5 * \"ref\" \"a\\x22b\\x5Cc\\x7F\\xC3\\xA9\" 0.0*", &line), "{line}");
    t.ask("GET /combined | User-Agent: me").expect("200");
    t.log("combined.log").expect("127.0.0.1 - - [*/*/*:*:*:* +*] \"GET /combined HTTP/1.1\" 200 5 \"-\" \"me\"");
    t.ask("GET /json | X: a\"\\\tb").expect("200");
    t.log("json.log").expect("{\"x\":\"a\\\"\\\\\\tb\"}");
    t.ask("GET /raw | X: a\"b").expect("200");
    t.log("raw.log").expect("a\"b");
    t.ask("GET /off").expect("200");
    t.ask("GET /if").expect("200");
    t.ask("GET /if4").expect("404");
    t.log("if.log").expect("\"GET /if4 HTTP/1.1\" 404");
    t.log("if.log").refuse("\"GET /if HTTP/1.1\"");
    t.ask("GET /two").expect("200");
    t.log("one.log").expect("GET /two");
    t.log("two.log").expect("GET /two");
    t.ask("GET /buffered").expect("200");
    t.log("buffered.log").expect("GET /buffered");
    t.log("access.log").refuse("GET /off");
});

nginx_test!(
    bad_requests_are_logged_too,
    "
    server { location / { return 200; } }",
    |t| {
        t.raw("garbage\r\n\r\n");
        t.log("access.log").expect("\"garbage\" 400 ");
        t.raw("GET / HTTP/1.1\r\n\r\n");
        t.log("access.log").expect("\"GET / HTTP/1.1\" 400 ");
    }
);

nginx_test!(
    error_levels_and_places,
    "
    server { location /crit { error_log {DIR}/crit.log crit; root {DIR}/html; }
             location /error { error_log {DIR}/level.log error; root {DIR}/html; }
             location /quiet { log_not_found off; root {DIR}/html; }
             location /found { log_subrequest on; root {DIR}/html; } }",
    |t| {
        t.check(
            "
        GET /crit  -> 404
        GET /error -> 404
        GET /quiet -> 404
        GET /found -> 404
    ",
        );
        t.log("level.log").expect("[error] *open() \"*/html/error\" failed");
        t.error_log().expect("/html/found\" failed");
        t.error_log().refuse("/html/quiet");
        t.log("crit.log").refuse("open()");
    }
);

nginx_test!(
    the_form_of_an_error_line,
    "
    server { server_name it.example; location / { root {DIR}/html; } }",
    |t| {
        t.ask("GET /a?b | Host: it.example | Referer: http://r/").expect("404");
        let line = t.error_log().expect("[error]");
        let form = "20*/*/* *:*:* [error] *#*: *1 open() \"*/html/a\" failed (2: No such file or directory), client: 127.0.0.1, server: it.example, request: \"GET /a?b HTTP/1.1\", host: \"it.example\", referrer: \"http://r/\"";
        assert!(crate::harness::matches(form, &line), "{line}");
    }
);

nginx_test!(
    syslog_over_udp,
    r#"
    log_format short "$uri"; server { access_log syslog:server=127.0.0.1:{PORT2},facility=local7,severity=info,tag=mine,nohostname short; location / { return 200; } }"#,
    |t| {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", t.port("PORT2"))).unwrap();
        socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        t.ask("GET /x").expect("200");
        let mut block = [0; 1000];
        let n = socket.recv(&mut block).unwrap();
        let said = String::from_utf8_lossy(&block[..n]).into_owned();
        assert!(crate::harness::matches("<190>* *:*:* mine: /x", &said), "{said}");
    }
);

nginx_test!(logs_are_reopened, "server { location / { return 200; } }", |t| {
    t.ask("GET /one").expect("200");
    t.log("access.log").expect("GET /one");
    for name in ["access.log", "error.log"] {
        std::fs::rename(t.dir().join(name), t.dir().join(format!("{name}.old"))).unwrap();
    }
    t.signal(Signal::SIGUSR1);
    crate::harness::wait_for(|| t.read("access.log").and(t.read("error.log"))).expect("new files");
    t.log("error.log.old").expect("reopening logs");
    crate::harness::wait_for(|| {
        t.ask("GET /two").expect("200");
        (!t.log("access.log").lines("GET /two").is_empty()).then_some(())
    })
    .expect("the new file is written");
});
