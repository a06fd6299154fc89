//! `upstream { }`: balancing, keepalive, retries, failures.

use crate::harness::Step;

nginx_test!(
    weights_are_kept_smoothly,
    "
    upstream u { server {BACKEND} weight=3; server {BACKEND2}; keepalive 4; }
    server { location / { add_header X-Addr $upstream_addr; proxy_pass http://u; } }",
    |t| {
        let first = t.backend().address.to_string();
        let order: String = (0..8)
            .map(|_| if t.ask("GET /").header("X-Addr") == Some(&first) { 'a' } else { 'b' })
            .collect();
        assert_eq!(order, "aabaaaba");
    }
);

nginx_test!(
    the_name_of_the_upstream_is_the_host,
    "
    upstream u { server {BACKEND}; } server { location / { proxy_pass http://u/x; } }",
    "
    GET / -> 200 GET /x HTTP/1.1\\r\\nHost: u\\r*
"
);

nginx_test!(
    connections_are_kept,
    "
    upstream u { server {BACKEND}; keepalive 2; keepalive_requests 3; }
    server { location / { proxy_pass http://u; } }",
    |t| {
        for connection in [1, 1, 1, 2, 2, 2, 3] {
            t.ask("GET /").expect(&format!("200 * | X-Connection: {connection}"));
        }
        t.backend()
            .reply("/close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        t.ask("GET /close").expect("200");
        t.ask("GET /").expect("200 * | X-Connection: 4");
    }
);

nginx_test!(
    a_kept_connection_that_died_costs_nothing,
    "
    upstream u { server {BACKEND}; keepalive 2; }
    server { proxy_next_upstream_tries 1; location / { proxy_pass http://u; } }",
    |t| {
        t.ask("GET /").expect("200 * | X-Connection: 1");
        // The second request on the first connection finds it closed.
        t.backend().on(
            "/again",
            vec![
                vec![Step::Close],
                vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
            ],
        );
        t.ask("GET /again").expect("200 ok");
    }
);

nginx_test!(the_next_one_is_tried, "
    upstream u { server {DEAD} max_fails=0; server {BACKEND} max_fails=0; keepalive 4; }
    upstream two { server {BACKEND} max_fails=0; server {BACKEND2} max_fails=0; }
    server { 
        location / { add_header X-Addr $upstream_addr; add_header X-Status $upstream_status; proxy_pass http://u; }
        location /off { proxy_next_upstream off; proxy_pass http://two; }
        location /codes { proxy_next_upstream http_500 http_404; add_header X-Status $upstream_status always; proxy_pass http://two; }
        location /post { proxy_pass http://two; }
        location /idem { proxy_next_upstream error non_idempotent; add_header X-Status $upstream_status; proxy_pass http://two; }
        location /tries { proxy_next_upstream http_500; proxy_next_upstream_tries 1; proxy_pass http://two; } }", |t| {
    let both = [t.backend(), t.backend_named("BACKEND2")];
    for b in both {
        b.reply_and_close("/codes", "HTTP/1.1 500 E\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        b.reply_and_close("/tries", "HTTP/1.1 500 E\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
        b.on("/off", vec![vec![Step::Close]]);
        b.on("/post", vec![vec![Step::Close]]);
    }
    both[0].on("/idem", vec![vec![Step::Close]]);
    both[1].on("/idem", vec![vec![Step::Close]]);
    let answers: Vec<String> = (0..2).map(|_| t.ask("GET /").expect("200").header("X-Status").unwrap().into()).collect();
    assert!(answers.contains(&"502, 200".to_string()), "{answers:?}");
    t.check("
        GET /codes -> 500 | X-Status: 500, 500
        GET /tries -> 500 x
        GET /off   -> 502
        POST /post -> 502
        GET /post  -> 502
        POST /idem << abc -> 502
    ");
    let count = |path: &str| both.iter().flat_map(|b| b.requests()).filter(|r| r.head.contains(path)).count();
    assert_eq!((count("/codes"), count("/tries"), count("/off"), count("POST /post"), count("GET /post"), count("/idem")), (2, 1, 1, 1, 2, 2));
    t.error_log().expect("[error] *connect() failed (111: Connection refused) while connecting to upstream");
});

nginx_test!(
    who_failed_is_left_alone_for_a_while,
    "
    upstream u { server {BACKEND} max_fails=2 fail_timeout=60s; server {BACKEND2}; }
    upstream lone { server {DEAD}; server {DEAD}; }
    server { location / { proxy_pass http://u; } location /lone { proxy_pass http://lone; } }",
    |t| {
        t.backend().on("/", vec![vec![Step::Close]]);
        for _ in 0..10 {
            t.ask("GET /").expect("200");
        }
        assert_eq!(t.backend().requests().len(), 2);
        t.error_log().expect("[warn] *upstream server temporarily disabled while reading response header from upstream");
        t.ask("GET /lone").expect("502");
        t.ask("GET /lone").expect("502");
        t.error_log().expect("[error] *no live upstreams while connecting to upstream, client: 127.0.0.1, server: , request: \"GET /lone HTTP/1.1\", upstream: \"http://lone/lone\"");
    }
);

nginx_test!(
    backup_and_down,
    "
    upstream u { server {DEAD}; server {BACKEND} backup; server {BACKEND2} down; }
    server { location / { proxy_pass http://u; } }",
    |t| {
        for _ in 0..3 {
            t.ask("GET /").expect("200");
        }
        assert_eq!(
            (t.backend().requests().len(), t.backend_named("BACKEND2").requests().len()),
            (3, 0)
        );
    }
);

nginx_test!(balancers_choose_as_told, "
    upstream least { least_conn; server {BACKEND}; server {BACKEND2}; }
    upstream hash { hash $arg_k; server {BACKEND}; server {BACKEND2}; server {BACKEND3}; }
    upstream ring { hash $arg_k consistent; server {BACKEND}; server {BACKEND2}; server {BACKEND3}; }
    upstream ip { ip_hash; server {BACKEND}; server {BACKEND2}; server {BACKEND3}; }
    upstream dice { random; server {BACKEND}; server {BACKEND2}; }
    upstream two { random two least_conn; zone two 128k; server {BACKEND}; server {BACKEND2}; server {BACKEND3}; }
    server { add_header X-Addr $upstream_addr;
        location /least { proxy_pass http://least; } location /hash { proxy_pass http://hash; } location /ring { proxy_pass http://ring; }
        location /ip { proxy_pass http://ip; } location /dice { proxy_pass http://dice; } location /two { proxy_pass http://two; } }", |t| {
    let who = |request: String| t.ask(&format!("GET {request}")).expect("200").header("X-Addr").unwrap().to_string();
    let distinct = |path: &str| (0..30).map(|k| who(format!("{path}?k={k}"))).collect::<std::collections::HashSet<_>>().len();
    for path in ["/hash", "/ring", "/ip"] {
        let first = who(format!("{path}?k=same"));
        assert!((0..5).all(|_| who(format!("{path}?k=same")) == first), "{path}");
    }
    assert_eq!((distinct("/hash"), distinct("/ring"), distinct("/ip"), distinct("/dice"), distinct("/two")), (3, 3, 1, 2, 3));
    t.backend().on("/least", vec![vec![Step::Hold, Step::Close]]);
    t.backend_named("BACKEND2").reply("/least", "HTTP/1.1 204 N\r\n\r\n");
    let before = t.backend().requests().len();
    let mut held = t.connect();
    held.send("GET /least HTTP/1.1\r\nHost: a\r\n\r\n");
    t.backend().expect_request(before + 1);
    for _ in 0..4 {
        assert_eq!(t.ask("GET /least").status, 204);
    }
});

nginx_test!(
    max_conns_is_a_limit,
    "
    upstream u { zone u 128k; server {BACKEND} max_conns=1; }
    server { location / { proxy_pass http://u; } }",
    |t| {
        t.backend().on("/held", vec![vec![Step::Hold, Step::Close]]);
        let mut held = t.connect();
        held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        t.ask("GET /").expect("502");
        t.error_log().expect("[error] *no live upstreams while connecting to upstream");
    }
);
