//! Upgraded connections: bytes go both ways until both are done.

use crate::harness::Step;

const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: thing\r\nConnection: Upgrade\r\n\r\n";
const REQUEST: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: thing\r\nConnection: Upgrade\r\n\r\n";

nginx_test!(
    tunnels_carry_bytes,
    r#"
    log_format bytes "$status $bytes_sent $body_bytes_sent $upstream_bytes_received";
    server { location / { proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        access_log {DIR}/ws.log bytes; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.backend().on("/ws", vec![vec![Step::send(UPGRADED), Step::send("hello"), Step::Tunnel]]);
        let mut client = t.connect();
        client.send(REQUEST);
        client.send("early ");
        let head = client.read_until(b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(
            head.contains("Upgrade: thing\r\n") && head.contains("Connection: upgrade\r\n"),
            "{head}"
        );
        assert_eq!(client.read_exact(11).unwrap(), b"helloearly ");
        let large = vec![b'x'; 500_000];
        let mut sent = 0;
        for part in large.chunks(50_000) {
            client.send(part);
            sent += client.read_exact(part.len()).unwrap().len();
        }
        assert_eq!(sent, large.len());
        client.finish_sending();
        client.expect_closed();
        t.log("ws.log").expect("101 *");
    }
);

nginx_test!(
    tunnels_end_when_idle_or_refused,
    r#"
    server { proxy_read_timeout 200ms; location / { proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade; proxy_pass http://{BACKEND}; }
        location /plain { proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.backend().on("/ws", vec![vec![Step::send(UPGRADED), Step::Hold]]);
        t.backend().reply("/plain", UPGRADED);
        let mut client = t.connect();
        client.send(REQUEST);
        client.response().expect("101");
        client.expect_closed();
        t.error_log().expect("[info] *upstream timed out (110: Connection timed out) while proxying upgraded connection");
        t.ask("GET /no | Upgrade: x").expect("200 GET /no*");
    }
);
