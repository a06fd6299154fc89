//! 103 Early Hints of an upstream: `early_hints`.

use crate::harness::h2::H2;
use crate::harness::{Site, Step};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\
    X-Accel-Expires: 1\r\nConnection: close\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SERVER: &str = "
    server { http2 on; early_hints $http_x_hints $arg_hints;
        location / { proxy_pass http://{BACKEND}; }
        location /own { early_hints 1; proxy_pass http://{BACKEND}/; }
        location /off { early_hints 0 \"\"; proxy_pass http://{BACKEND}/; } }";

/// The backend says hints, waits, and answers.
fn hold(t: &Site) {
    t.backend().on("/", vec![vec![Step::send(HINTS), Step::Hold, Step::send(ANSWER)]]);
}

nginx_test!(hints_arrive_before_the_reply, SERVER, |t| {
    hold(t);
    let mut client = t.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Hints: 1\r\n\r\n");
    client
        .response()
        .expect("103 | Link: </a.css>; rel=preload | !X-Accel-Expires | !Connection | !Server");
    t.backend().release();
    client.response().expect("200 ok | !Link");
    client.ask("GET /").expect("200 ok");
});

nginx_test!(hints_over_http2, SERVER, |t| {
    hold(t);
    let mut h2 = H2::over(t.connect());
    let mut answer = h2.start("GET / | X-Hints: 1").unwrap();
    let hints = h2.hints(&mut answer).unwrap();
    hints.expect("103 | link: </a.css>; rel=preload | !x-accel-expires | !connection | !server");
    t.backend().release();
    h2.finish(answer).unwrap().expect("200 ok | !link");
});

nginx_test!(only_who_wants_hints_gets_them, SERVER, |t| {
    for path in ["/", "/?hints=0", "/?hints=1"] {
        t.backend().reply(path, [HINTS, ANSWER].concat());
    }
    let mut client = t.connect();
    client.ask("GET /").expect("200 ok");
    client.ask("GET /?hints=0").expect("200 ok");
    client.ask("GET /off").expect("200 ok");
    client.ask("GET /?hints=1").expect("103 | Link: *");
    client.response().expect("200 ok");
    client.ask("GET /own").expect("103 | Link: *");
    client.response().expect("200 ok");
    // HTTP/1.0 knows no interim replies.
    let mut old = t.connect();
    old.send("GET /own HTTP/1.0\r\nHost: a\r\n\r\n");
    old.response().expect("200 ok");
});

nginx_test!(
    hints_are_bounded,
    "
    server { early_hints 1; location / { proxy_buffer_size 4k; proxy_pass http://{BACKEND}; } }",
    |t| {
        let long = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(1500));
        t.backend().reply("/", [long.repeat(3), ANSWER.into()].concat());
        let mut client = t.connect();
        client.ask("GET /").expect("103 | Link: *");
        client.response().expect("103 | Link: *");
        client.response().expect("200 ok");
        t.error_log().expect("[info] *upstream sent too big early hints*");
    }
);
