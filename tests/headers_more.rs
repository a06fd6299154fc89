//! `more_set_headers`, `more_clear_headers`, and the same for input.

use crate::harness::refuses_conf;

nginx_test!(
    fields_of_replies_are_set_and_removed,
    r#"more_set_headers "X-Http: http" "X-Both: http";
    server { root {DIR}/html; types { text/plain txt; text/html html; }
        location / { return 200 ok; }
        location /own { more_set_headers "X-Both: own $arg_a" "X-More:  two  words"; add_header X-Late yes; return 200 ok; }
        location /codes { more_set_headers -s "404 500" -s 503 "X-A: a"; return 404; }
        location /others { more_set_headers -s 500 "X-A: a"; return 404; }
        location /types { more_set_headers -t "text/html text/plain" "X-T: $sent_http_content_type"; default_type text/plain; return 200 ok; }
        location /no-type { more_set_headers -t text/html "X-T: t"; default_type text/plain; return 200 ok; }
        location /srv { more_set_headers "Server: mine"; return 200 ok; }
        location /no-srv { more_clear_headers Server Date; return 200 ok; }
        location /type { more_set_headers "Content-Type: text/x; charset=koi8-r"; return 200 ok; }
        location /no-content-type { more_clear_headers Content-Type; return 200 ok; }
        location /prefix { add_header X-Hidden-Late l; more_clear_headers "X-Hidden-*"; proxy_pass http://{BACKEND}/; }
        location /keeps { more_set_headers -a "X-Kept: 2"; proxy_pass http://{BACKEND}/; }
        location /clears { more_set_headers "X-Kept: " "X-Both"; proxy_pass http://{BACKEND}/; }
        location /one { more_set_headers "Set-Cookie: c=3"; proxy_pass http://{BACKEND}/; }
        location /if { if ($arg_a) { more_set_headers "X-If: if"; return 200 if; } return 200 ok; }
        location /length { more_set_headers "Content-Length: x"; return 200 ok; }
    }"#,
    |t| {
        t.backend().reply(
            "/",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Hidden-A: 1\r\nx-hidden-b: 2\r\nX-Hid: 3\r\n\
             X-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nhi",
        );
        t.check(
            "
    GET /        -> 200 ok | X-Http: http | X-Both: http
    GET /own?a=1 -> 200 ok | X-Http: http | X-Both: own 1 | X-More: two  words | X-Late: yes
    GET /codes   -> 404 * | X-A: a | X-Http: http
    GET /others  -> 404 * | !X-A
    GET /types   -> 200 ok | X-T: text/plain
    GET /no-type -> 200 ok | !X-T
    GET /srv     -> 200 ok | Server: mine
    GET /no-srv  -> 200 ok | !Server | !Date
    GET /type    -> 200 ok | Content-Type: text/x; charset=koi8-r
    GET /no-content-type -> 200 ok | !Content-Type
    GET /prefix  -> 200 hi | !X-Hidden-A | !X-Hidden-B | X-Hidden-Late: l | X-Hid: 3
    GET /keeps   -> 200 hi | X-Kept: 1 | X-Kept: 2
    GET /clears  -> 200 hi | !X-Kept | !X-Both
    GET /one     -> 200 hi | Set-Cookie: c=3
    GET /if?a=1  -> 200 if | X-If: if | X-Http: http
    GET /if      -> 200 ok | !X-If
    GET /length  -> 500
    ",
        );
        assert_eq!(t.ask("GET /one").all("Set-Cookie").len(), 1);
    }
);

nginx_test!(
    fields_of_requests_are_set_and_removed,
    r#"server {
        location /set { set $dog spot; more_set_input_headers "Host: Other.example:81" "X-New: $dog" "User-Agent:";
            return 200 "$host $http_host $http_x_new [$http_user_agent]"; }
        location /rewritten { more_set_input_headers "X-New: new" "Host: b.example" "Content-Length: 0"; proxy_set_header Host $host; proxy_pass http://{BACKEND}/echo; }
        location /replace { more_set_input_headers -r "X-A: new"; proxy_pass http://{BACKEND}/echo; }
        location /clear { more_clear_input_headers "X-Hidden-*" X-A; proxy_pass http://{BACKEND}/echo; }
        location /typed { more_set_input_headers -t "text/plain a/b" "X-T: t"; proxy_pass http://{BACKEND}/echo; }
        location /bad { more_set_input_headers "Host: a b"; proxy_pass http://{BACKEND}/echo; }
    }"#,
    |t| {
        // `return` runs before the end of the rewrite phase.
        t.check("GET /set | User-Agent: me -> 200 localhost localhost  [me]");
        let seen = |request: &str| t.ask(request).text().to_lowercase();
        let said = seen("GET /rewritten");
        assert!(said.contains("host: b.example\r\n") && said.contains("x-new: new\r\n"), "{said}");
        assert!(!seen("GET /replace").contains("x-a"));
        assert!(seen("GET /replace | X-A: old").contains("x-a: new"));
        let said = seen("GET /clear | X-Hidden-1: a | X-HIDDEN-2: b | X-A: c | X-Hid: d");
        assert!(!said.contains("x-hidden") && !said.contains("x-a") && said.contains("x-hid: d"));
        assert!(seen("GET /typed | Content-Type: a/b; c=d").contains("x-t: t"));
        assert!(!seen("GET /typed | Content-Type: a/c").contains("x-t"));
        t.check("GET /bad -> 400");
    }
);

#[test]
fn what_is_no_field_is_refused() {
    for (directive, says) in [
        ("more_set_headers -t", "more_set_headers: option -t takes an argument."),
        ("more_set_headers -x a", "more_set_headers: invalid option name: \"-x\""),
        ("more_clear_headers -a X", "more_clear_headers: invalid option name: \"-a\""),
        ("more_set_input_headers -s 404 X", "more_set_input_headers: invalid option name: \"-s\""),
        ("more_set_headers -s 4x X", "invalid digit found in status code \"4x\""),
        ("more_set_headers ':'", "more_set_headers: no key found in the header argument: :"),
        ("more_clear_headers '*'", "more_clear_headers: wildcard key too short: *"),
        ("more_set_headers -a 'Server: x'", "can not append builtin headers \"Server\""),
    ] {
        refuses_conf(&format!("events {{ }} http {{ {directive}; }}"), says).unwrap();
    }
}
