//! `limit_req`, `limit_conn`, `limit_rate`.

use std::time::{Duration, Instant};

nginx_test!(
    limit_req_refuses_what_is_too_fast,
    r#"
    limit_req_zone $arg_k zone=slow:1m rate=1r/m;
    limit_req_zone $arg_k zone=fast:1m rate=100r/s;
    server {
        location /none { limit_req zone=slow; proxy_pass http://{BACKEND}; }
        location /burst { limit_req zone=slow burst=2 nodelay; proxy_pass http://{BACKEND}; }
        location /status { limit_req zone=slow; limit_req_status 429; limit_req_log_level notice; proxy_pass http://{BACKEND}; }
        location /dry { limit_req zone=slow; limit_req_dry_run on; add_header X-L $limit_req_status; proxy_pass http://{BACKEND}; }
        location /var { limit_req zone=slow; add_header X-L $limit_req_status always; proxy_pass http://{BACKEND}; }
        location /queue { limit_req zone=fast burst=50; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.check(
            "
        GET /none?k=1   -> 200
        GET /none?k=1   -> 503 *503 Service Temporarily Unavailable*
        GET /none?k=2   -> 200
        GET /none       -> 200
        GET /none       -> 200
        GET /burst?k=3  -> 200
        GET /burst?k=3  -> 200
        GET /burst?k=3  -> 200
        GET /burst?k=3  -> 503
        GET /status?k=4 -> 200
        GET /status?k=4 -> 429
        GET /dry?k=5    -> 200 * | X-L: PASSED
        GET /dry?k=5    -> 200 * | X-L: REJECTED_DRY_RUN
        GET /var?k=6    -> 200 * | X-L: PASSED
        GET /var?k=6    -> 503 * | X-L: REJECTED
    ",
        );
        t.error_log().expect("[error] *limiting requests, excess: * by zone \"slow\", client: 127.0.0.1, server: , request: \"GET /none?k=1 HTTP/1.1\"");
        t.error_log().expect("[error] *limiting requests, dry run, excess: * by zone \"slow\"");
        let started = Instant::now();
        (0..11).for_each(|_| {
            t.ask("GET /queue?k=7").expect("200");
        });
        assert!(started.elapsed() > Duration::from_millis(80), "{:?}", started.elapsed());
        t.error_log().expect("[warn] *delaying request, excess: *, by zone \"fast\"");
    }
);

nginx_test!(
    limit_conn_counts_connections,
    r#"
    limit_conn_zone $arg_k zone=z:1m;
    server {
        location / { limit_conn z 1; proxy_pass http://{BACKEND}; }
        location /two { limit_conn z 2; proxy_pass http://{BACKEND}; }
        location /status { limit_conn z 1; limit_conn_status 429; limit_conn_log_level notice; proxy_pass http://{BACKEND}; }
        location /dry { limit_conn z 1; limit_conn_dry_run on; add_header X-L $limit_conn_status; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.backend().on(
            "/held",
            vec![vec![
                crate::harness::Step::Hold,
                crate::harness::Step::send("HTTP/1.1 204 N\r\n\r\n"),
            ]],
        );
        let mut held = t.connect();
        held.send("GET /held?k=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        t.check(
            "
        GET /?k=1       -> 503 *503 Service Temporarily Unavailable*
        GET /?k=2       -> 200
        GET /           -> 200
        GET /two?k=1    -> 200
        GET /status?k=1 -> 429
        GET /dry?k=1    -> 200 * | X-L: REJECTED_DRY_RUN
    ",
        );
        t.error_log().expect("[error] *limiting connections by zone \"z\", client: 127.0.0.1, server: , request: \"GET /?k=1 HTTP/1.1\"");
        t.backend().release();
        held.response().expect("204");
        t.ask("GET /?k=1").expect("200");
    }
);

nginx_test!(
    limit_rate_slows_down,
    "
    server { root {DIR}/html; location /f { limit_rate 20k; }
        location /after { limit_rate 20k; limit_rate_after 38k; alias {DIR}/html/f; }
        location /var { set $limit_rate 20k; alias {DIR}/html/f; } }",
    |t| {
        t.file("html/f", vec![b'x'; 40_000]);
        let time = |uri: &str| {
            let started = Instant::now();
            assert_eq!(t.ask(&format!("GET {uri}")).body.len(), 40_000);
            started.elapsed()
        };
        assert!(time("/f") > Duration::from_millis(800));
        assert!(time("/var") > Duration::from_millis(800));
        assert!(time("/after") < Duration::from_millis(600));
    }
);
