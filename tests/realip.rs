//! `real_ip_header`, `set_real_ip_from`, and the PROXY protocol.

nginx_test!(the_address_a_trusted_proxy_names, "
    set_real_ip_from 127.0.0.0/8; set_real_ip_from 192.0.2.0/24;
    server {
        location / { proxy_set_header X-R $remote_addr; proxy_set_header X-P $realip_remote_addr; proxy_pass http://{BACKEND}; }
        location /xff { real_ip_header X-Forwarded-For; proxy_set_header X-R $remote_addr; proxy_pass http://{BACKEND}; }
        location /rec { real_ip_header X-Forwarded-For; real_ip_recursive on; proxy_set_header X-R $remote_addr; proxy_pass http://{BACKEND}; }
        location /own { real_ip_header X-Own; proxy_set_header X-R $remote_addr:$remote_port; proxy_pass http://{BACKEND}; }
        location /deny { real_ip_header X-Real-IP; deny 203.0.113.9; proxy_pass http://{BACKEND}; } }", "
    GET / | X-Real-IP: 203.0.113.1        -> 200 *X-R: 203.0.113.1\\r\\nX-P: 127.0.0.1*
    GET / | X-Real-IP: 2001:db8::1        -> 200 *X-R: 2001:db8::1\\r*
    GET / | X-Real-IP: garbage            -> 200 *X-R: 127.0.0.1\\r*
    GET /                                 -> 200 *X-R: 127.0.0.1\\r*
    GET /xff | X-Forwarded-For: 203.0.113.1, 192.0.2.7 -> 200 *X-R: 192.0.2.7\\r*
    GET /rec | X-Forwarded-For: 203.0.113.1, 192.0.2.7 -> 200 *X-R: 203.0.113.1\\r*
    GET /rec | X-Forwarded-For: 203.0.113.1 | X-Forwarded-For: 192.0.2.7 -> 200 *X-R: 203.0.113.1\\r*
    GET /own | X-Own: 203.0.113.1:81      -> 200 *X-R: 203.0.113.1:81\\r*
    GET /own | X-Own: [2001:db8::2]:82    -> 200 *X-R: 2001:db8::2:82\\r*
    GET /deny | X-Real-IP: 203.0.113.9    -> 403
    GET /deny | X-Real-IP: 203.0.113.8    -> 200
");

nginx_test!(
    nobody_is_trusted_unasked,
    "
    set_real_ip_from 10.0.0.0/8; server { location / { return 200 $remote_addr; } }",
    "
    GET / | X-Real-IP: 203.0.113.1 -> 200 127.0.0.1
"
);

nginx_test!(the_proxy_protocol, "
    set_real_ip_from 127.0.0.1;
    server { listen 127.0.0.1:{PORT} proxy_protocol; real_ip_header proxy_protocol;
        location / { return 200 $remote_addr|$remote_port|$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|$realip_remote_addr; } }", |t| {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let ask = |head: &[u8]| t.raw([head, request.as_bytes()].concat());
    let seen = "203.0.113.1|1234|203.0.113.1|1234|192.0.2.1|80|127.0.0.1";
    assert!(ask(b"PROXY TCP4 203.0.113.1 192.0.2.1 1234 80\r\n").ends_with(seen));
    assert!(ask(b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 80\r\n").contains("2001:db8::1|1234|"));
    assert!(ask(b"PROXY UNKNOWN\r\n").contains("127.0.0.1|"));
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([203, 0, 113, 1, 192, 0, 2, 1]);
    v2.extend([0x04, 0xd2, 0x00, 0x50]);
    assert!(ask(&v2).ends_with(seen));
    assert_eq!(ask(b""), "");
    assert_eq!(ask(b"PROXY TCP4 203.0.113.1\r\n"), "");
    t.error_log().expect("[error] *broken header: \"GET / HTTP/1.1");
});
