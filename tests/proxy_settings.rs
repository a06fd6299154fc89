//! The finer settings of `proxy_pass`: addresses, rates, ranges, trailers, timeouts, TLS.

use crate::harness::Step;
use std::time::{Duration, Instant};

nginx_test!(
    where_the_connection_comes_from,
    "
    server { location / { proxy_bind 127.0.0.9; proxy_pass http://127.0.0.1:{PORT2}; }
        location /var { proxy_bind $arg_from; proxy_pass http://127.0.0.1:{PORT2}; }
        location /off { proxy_bind off; proxy_pass http://127.0.0.1:{PORT2}; }
    }
    server { listen 127.0.0.1:{PORT2}; location / { return 200 $remote_addr; } }",
    "
    GET /                   -> 200 127.0.0.9
    GET /var?from=127.0.0.7 -> 200 127.0.0.7
    GET /off                -> 200 127.0.0.1
"
);

nginx_test!(settings_of_the_socket, "
    server { location / { proxy_socket_keepalive on; proxy_socket_rcvbuf 32k; proxy_socket_sndbuf 32k; proxy_send_lowat 0; proxy_pass http://{BACKEND}; } }", "
    GET / -> 200
");

nginx_test!(ranges_of_what_has_none, "
    server { location / { proxy_pass http://{BACKEND}; } location /force { proxy_force_ranges on; proxy_pass http://{BACKEND}; } }", |t| {
    for path in ["/", "/force"] {
        t.backend().reply(path, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
    }
    t.check("
        GET / | Range: bytes=2-3      -> 200 0123456789
        GET /force | Range: bytes=2-3 -> 206 23 | Content-Range: bytes 2-3/10
    ");
});

nginx_test!(the_rate_of_reading, "
    server { location / { proxy_limit_rate 20k; proxy_buffer_size 4k; proxy_buffers 4 4k; proxy_pass http://{BACKEND}; } }", |t| {
    t.backend().reply("/", format!("HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n{}", "x".repeat(30_000)));
    let started = Instant::now();
    assert_eq!(t.ask("GET /").body.len(), 30_000);
    assert!(started.elapsed() > Duration::from_millis(600), "{:?}", started.elapsed());
});

nginx_test!(trailers_of_the_backend, "
    server { location / { proxy_pass_trailers on; proxy_set_header TE trailers; proxy_pass http://{BACKEND}; }
             location /no { proxy_pass http://{BACKEND}; } }", |t| {
    for path in ["/", "/no"] {
        t.backend().reply(path, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: one\r\n\r\n");
    }
    let passed = t.ask("GET / | TE: trailers").expect("200 hi").trailers;
    assert_eq!(passed, [("X-T".to_string(), "one".to_string())]);
    assert!(t.ask("GET /no | TE: trailers").expect("200 hi").trailers.is_empty());
});

nginx_test!(no_more_tries_when_time_is_up, "
    upstream u { server {BACKEND} max_fails=0; server {BACKEND2} max_fails=0; }
    server { location / { proxy_next_upstream http_500; proxy_next_upstream_timeout 100ms; proxy_pass http://u; } }", |t| {
    for b in [t.backend(), t.backend_named("BACKEND2")] {
        b.on("/", vec![vec![Step::Pause(Duration::from_millis(200)), Step::send("HTTP/1.1 500 E\r\nContent-Length: 4\r\n\r\nlate")]]);
    }
    t.ask("GET /").expect("500 late");
    assert_eq!(t.backend().requests().len() + t.backend_named("BACKEND2").requests().len(), 1);
});

nginx_test!(a_backend_that_does_not_read, "
    server { client_max_body_size 0; proxy_request_buffering off; location / { proxy_send_timeout 300ms; proxy_pass http://127.0.0.1:{PORT2}; } }", |t| {
    let deaf = std::net::TcpListener::bind(("127.0.0.1", t.port("PORT2"))).unwrap();
    let mut client = t.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let block = vec![b'x'; 1_000_000];
    // Both sides' buffers fill up; then the gateway gives up and answers.
    for _ in 0..30 {
        client.send(&block);
        if !t.error_log().lines("upstream timed out").is_empty() {
            break;
        }
    }
    t.error_log().expect("[error] *upstream timed out (110: Connection timed out) while sending request to upstream");
    drop(deaf);
});

nginx_test!(places_of_temporary_files, "
    server { proxy_temp_path {DIR}/spool 1 2; proxy_temp_file_write_size 8k; proxy_headers_hash_max_size 512; proxy_headers_hash_bucket_size 64;
        listen 127.0.0.1:{PORT} sndbuf=32k; proxy_buffer_size 4k; proxy_buffers 4 4k; location / { proxy_pass http://{BACKEND}; } }", |t| {
    t.backend().reply("/", format!("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n{}", "x".repeat(5_000_000)));
    let mut client = t.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    t.error_log().expect("[warn] *an upstream response is buffered to a temporary file {DIR}/spool/*/*/*".replace("{DIR}", &t.dir().display().to_string()).as_str());
    assert_eq!(client.response().body.len(), 5_000_000);
});

nginx_test!(tls_to_the_backend_in_detail, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT2} ssl; ssl_verify_client optional_no_ca; 
             location / { return 200 $ssl_protocol|$ssl_client_s_dn; } }
    server { proxy_ssl_session_reuse off;
        location /old { proxy_ssl_protocols TLSv1.2; proxy_pass https://127.0.0.1:{PORT2}; }
        location /ciphers { proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; proxy_pass https://127.0.0.1:{PORT2}; }
        location /cert { proxy_ssl_certificate cert.pem; proxy_ssl_certificate_key key.pem; proxy_ssl_certificate_cache off; proxy_pass https://127.0.0.1:{PORT2}; }
        location /deep { proxy_ssl_verify on; proxy_ssl_verify_depth 1; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_name localhost; proxy_pass https://127.0.0.1:{PORT2}; } }", "
    GET /old     -> 200 TLSv1.2|
    GET /ciphers -> 200 TLSv1.2|
    GET /cert    -> 200 TLSv1.3|CN=localhost
    GET /deep    -> 200 TLSv1.3|
");
