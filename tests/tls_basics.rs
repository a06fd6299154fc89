//! TLS: versions, names, ALPN, redirects of plain requests, variables, sessions.

use crate::harness::tls::{trusting, trusting_with};
use rustls::version::{TLS12, TLS13};

nginx_test!(https_is_served, "
    server { listen 127.0.0.1:{PORT} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;
        location / { return 200 $scheme|$https|$ssl_protocol|$ssl_server_name|$ssl_cipher|$ssl_session_reused|$ssl_client_verify; } }", |t| {
    let mut client = t.connect_tls("localhost");
    client.ask("GET /").expect("200 https|on|TLSv1.3|localhost|TLS_AES_*|.|NONE");
    client.ask("GET /").expect("200 https|on|TLSv1.3|localhost|*");
    let mut old = t.try_tls("localhost", trusting_with(&[&TLS12], &[])).unwrap();
    old.ask("GET /").expect("200 https|on|TLSv1.2|localhost|ECDHE-*|.|NONE");
});

nginx_test!(plain_requests_are_told, "
    server { listen 127.0.0.1:{PORT} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem; location / { return 200 ok; } 
             error_page 497 =301 https://$host/; }
    server { listen 127.0.0.1:{PORT2} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem; location / { return 200 ok; } }", |t| {
    t.ask("GET /").expect("301 | Location: https://localhost/");
    let mut client = crate::harness::Client::connect(t.address("PORT2"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response().expect("400 *The plain HTTP request was sent to HTTPS port* | Connection: close");
    t.error_log().expect("[info] *client sent plain HTTP request to HTTPS port while reading client request headers");
});

nginx_test!(names_choose_certificates_and_servers, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; server_name first.example; return 200 first; }
    server { listen 127.0.0.1:{PORT} ssl; server_name second.example; ssl_certificate second.pem; ssl_certificate_key second.key; return 200 second; }
    server { listen 127.0.0.1:{PORT} ssl; server_name refused.example; ssl_reject_handshake on; }
    server { listen 127.0.0.1:{PORT} ssl; server_name *.wild.example; return 200 wild; }".replace("second.pem", "{DIR}/cert.pem").replace("second.key", "{DIR}/key.pem").as_str(), |t| {
    for (name, expected) in [("first.example", "first"), ("second.example", "second"), ("other.example", "first"), ("x.wild.example", "wild")] {
        let mut client = t.connect_tls(name);
        client.ask(&format!("GET / | Host: {name}")).expect(&format!("200 {expected}"));
    }
    let refused = t.try_tls("refused.example", trusting()).err().expect("refused");
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    // The name of the handshake and the Host header may differ within one set of certificates.
    t.connect_tls("first.example").ask("GET / | Host: second.example").expect("200 second");
});

nginx_test!(
    a_server_without_a_certificate_has_the_default_ones,
    "
    server { listen 127.0.0.1:{PORT} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem; return 200 first; }
    server { listen 127.0.0.1:{PORT} ssl; server_name bare.example; return 200 bare; }",
    |t| {
        t.connect_tls("bare.example").ask("GET / | Host: bare.example").expect("200 bare");
    }
);

nginx_test!(versions_and_alpn, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; ssl_protocols TLSv1.2; http2 on; location / { return 200 $ssl_alpn_protocol; } }", |t| {
    let failed = t.try_tls("localhost", trusting_with(&[&TLS13], &[])).err().expect("no TLS 1.3");
    assert!(failed.contains("ProtocolVersion"), "{failed}");
    let mut client = t.try_tls("localhost", trusting_with(&[&TLS12], &["http/1.1"])).unwrap();
    assert_eq!(client.tls().alpn_protocol(), Some(&b"http/1.1"[..]));
    client.ask("GET /").expect("200 http/1.1");
    let h2 = t.try_tls("localhost", trusting_with(&[&TLS12], &["h2", "http/1.1"])).unwrap();
    assert_eq!(h2.tls().alpn_protocol(), Some(&b"h2"[..]));
    let none = t.try_tls("localhost", trusting_with(&[&TLS12], &["other"])).err().expect("no protocol");
    assert!(none.contains("NoApplicationProtocol"), "{none}");
});

nginx_test!(
    sessions_are_resumed_by_any_worker,
    "
    ssl_certificate cert.pem; ssl_certificate_key key.pem; ssl_session_cache shared:s:1m;
    server { listen 127.0.0.1:{PORT} ssl; location / { return 200 $ssl_session_reused; } }",
    |t| {
        for version in [&TLS12, &TLS13] {
            let config = trusting_with(&[version], &[]);
            let mut first = t.try_tls("localhost", config.clone()).unwrap();
            first.ask("GET /").expect("200 .");
            for _ in 0..4 {
                t.try_tls("localhost", config.clone()).unwrap().ask("GET /").expect("200 r");
            }
        }
    }
);

nginx_test!(
    large_bodies_over_tls,
    "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT} ssl; root {DIR}/html; client_max_body_size 10m;
             location /p { proxy_pass http://{BACKEND}; } }",
    |t| {
        let content: Vec<u8> =
            (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        t.file("html/large", &content);
        let mut client = t.connect_tls("localhost");
        assert!(client.ask("GET /large").body == content);
        let body = "x".repeat(1_000_000);
        client.ask(&format!("POST /p << {body}")).expect("200");
        assert_eq!(t.backend().expect_request(1).body.len(), body.len());
    }
);

nginx_test!(backends_over_tls, "
    ssl_certificate cert.pem; ssl_certificate_key key.pem;
    server { listen 127.0.0.1:{PORT2} ssl; location / { return 200 $ssl_server_name|$ssl_protocol; } }
    server { location / { proxy_pass https://127.0.0.1:{PORT2}; }
        location /sni { proxy_ssl_server_name on; proxy_ssl_name back.example; proxy_pass https://127.0.0.1:{PORT2}; }
        location /verify { proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_name localhost; proxy_pass https://127.0.0.1:{PORT2}; }
        location /wrong { proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_name wrong.test; proxy_pass https://127.0.0.1:{PORT2}; } }", |t| {
    t.check("
        GET /       -> 200 |TLSv1.3
        GET /sni    -> 200 back.example|TLSv1.3
        GET /verify -> 200 |TLSv1.3
        GET /wrong  -> 502
    ");
    t.error_log().expect("[error] *upstream SSL certificate does not match \"wrong.test\" while SSL handshaking to upstream");
});
