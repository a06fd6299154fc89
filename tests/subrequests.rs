//! `auth_request`, `mirror`, `post_action`, `log_subrequest`, `stub_status`.

use crate::harness::{Site, procs};
use nix::sys::signal::Signal;

nginx_test!(auth_request_asks_somebody, r#"
    server { location / { auth_request /auth; auth_request_set $who $upstream_http_x_who; proxy_set_header X-Who $who; proxy_pass http://{BACKEND}; }
        location /open/ { auth_request off; proxy_pass http://{BACKEND}; }
        location /deny { auth_request /no; return 404; proxy_pass http://{BACKEND}; }
        location /login { auth_request /401; proxy_pass http://{BACKEND}; }
        location /broken { auth_request /500; proxy_pass http://{BACKEND}; }
        location = /auth { internal; proxy_pass http://{BACKEND2}; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header X-URI $request_uri; }
        location = /no { return 403; } location = /401 { proxy_pass http://{BACKEND2}; } location = /500 { return 500; } }"#
    .replace("return 404; ", "").as_str(), |t| {
    let auth = t.backend_named("BACKEND2");
    auth.reply("/auth", "HTTP/1.1 204 N\r\nX-Who: someone\r\n\r\n");
    auth.reply("/401", "HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n");
    t.check("
        GET /x       -> 200 *X-Who: someone*
        POST /x << abc -> 200 *abc
        GET /open/x  -> 200
        GET /deny    -> 403
        GET /login   -> 401 * | WWW-Authenticate: Basic realm=x
        GET /broken  -> 500
        GET /auth    -> 404
    ");
    assert_eq!(auth.expect_request(1).header("X-URI"), Some("/x"));
    t.error_log().expect("[error] *auth request unexpected status: 500, client");
});

nginx_test!(
    mirror_sends_a_copy,
    "
    server { location / { mirror /mirror; proxy_pass http://{BACKEND}; }
        location /nobody { mirror /bodyless; mirror_request_body off; proxy_pass http://{BACKEND}; }
        location = /bodyless { internal; proxy_pass_request_body off; proxy_set_header Content-Length \"\"; proxy_pass http://{BACKEND2}; }
        location = /mirror { internal; proxy_pass http://{BACKEND2}$request_uri; } }",
    |t| {
        t.ask("POST /a << hello").expect("200 POST /a*hello");
        let copy = t.backend_named("BACKEND2").expect_request(1);
        assert!(copy.head.starts_with("POST /a ") && copy.body == b"hello", "{}", copy.head);
        t.ask("POST /nobody << hello").expect("200 *hello");
        assert!(t.backend_named("BACKEND2").expect_request(2).body.is_empty());
    }
);

nginx_test!(stub_status_counts, "
    server { location / { return 200; } location /status { stub_status; }
             location /vars { return 200 $connections_active-$connections_reading-$connections_writing-$connections_waiting; } }", |t| {
    let mut idle = t.connect();
    idle.ask("GET /").expect("200");
    t.ask("GET /status").expect("200 Active connections: 2 \\nserver accepts handled requests\\n 2 2 2 \\nReading: 0 Writing: 1 Waiting: 1* | Content-Type: text/plain");
    t.ask("GET /vars").expect("200 2-0-1-1");
    t.ask("POST /status << x").expect("405");
});

#[test]
fn stub_status_forgets_what_killed_workers_held() {
    let conf = "worker_processes 2; events { } http { server { listen 127.0.0.1:{PORT};
        location / { return 200 $pid; } location /status { stub_status; } } }";
    Site::whole(conf).run(|t| {
        t.expect_alert("exited on signal 9");
        let mut idle: Vec<_> = (0..12).map(|_| t.connect()).collect();
        let pids: Vec<String> = idle.iter_mut().map(|c| c.ask("GET /").text()).collect();
        t.ask("GET /status").expect("200 Active connections: 13 *\\n 13 13 13 *");
        for pid in std::collections::HashSet::<&String>::from_iter(&pids) {
            procs::signal(pid.parse().unwrap(), Signal::SIGKILL);
            procs::wait_gone(pid.parse().unwrap());
        }
        t.expect_procs("worker process", 2);
        t.ask("GET /status").expect("200 Active connections: 1 *\\n 14 14 14 *Waiting: 0*");
        // A reload keeps counting.
        t.signal(Signal::SIGHUP);
        t.error_log().expect("gracefully shutting down");
        let counted = |n: usize| format!("200 Active connections: 1 *\\n {n} {n} {n} *");
        t.ask("GET /status").expect(&counted(15));
    });
}

nginx_test!(
    post_action_comes_behind_the_reply,
    "
    log_format uris \"$request_uri $uri $status\";
    server { access_log {DIR}/uris.log uris;
        location / { post_action /done; return 200 here; }
        location /named { post_action @done; return 200 here; }
        location /inherits { post_action /inherits/done; return 200 here;
            location /inherits/done { proxy_pass http://{BACKEND}; } }
        location = /done { internal; proxy_set_header X-Of $request_uri; proxy_pass http://{BACKEND}; }
        location @done { return 204; } }",
    |t| {
        let mut client = t.connect();
        client.ask("GET /a").expect("200 here");
        client.ask("GET /named").expect("200 here");
        client.ask("GET /inherits").expect("200 here");
        assert_eq!(t.backend().expect_request(1).header("X-Of"), Some("/a"));
        assert!(t.backend().expect_request(2).head.starts_with("GET /inherits/done "));
        let lines = t.log("uris.log").expect_lines(3);
        let inherits = "/inherits /inherits/done 200";
        assert_eq!(lines, ["/a /done 200", "/named /named 204", inherits]);
    }
);

nginx_test!(
    subrequests_are_logged_if_that_is_wanted,
    "
    log_format uris \"$request_uri $uri $status\";
    server { access_log {DIR}/uris.log uris;
        location / { auth_request /quiet; mirror /loud; proxy_pass http://{BACKEND}; }
        location /quiet { return 200; }
        location /loud { log_subrequest on; return 418; } }",
    |t| {
        t.ask("GET /a").expect("200");
        let lines = t.log("uris.log").expect_lines(2);
        assert_eq!(lines, ["/a /loud 418", "/a /a 200"]);
    }
);
