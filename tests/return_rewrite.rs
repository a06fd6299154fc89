//! `return`, `rewrite`, `if`, `set`, `break`: the rewrite phases.

nginx_test!(
    return_in_all_its_forms,
    r#"
    server { location /text { return 200 "a $uri b"; }
        location /none { return 204; }
        location /code { return 403; }
        location /own { return 299 x; }
        location /url { return http://other.example/x?$args; }
        location /https { return https://other.example/; }
        location /scheme { return $scheme://v.example$request_uri; }
        location /302 { return 302 /b; } location /303 { return 303 /b; }
        location /307 { return 307 /b; } location /308 { return 308 /b; }
        location /empty { return 200 ""; }
        location /typed { default_type application/json; return 200 '{"a":1}'; }
        location /relative { absolute_redirect off; return 301 /b; } }"#,
    "
    GET /text    -> 200 a /text b
    GET /none    -> 204
    GET /code    -> 403 *403 Forbidden*
    GET /own     -> 299 x
    GET /url?q   -> 302 * | Location: http://other.example/x?q
    GET /https   -> 302 * | Location: https://other.example/
    GET /scheme?a -> 302 * | Location: http://v.example/scheme?a
    GET /302     -> 302 * | Location: http://localhost:{PORT}/b
    GET /303     -> 303 * | Location: http://localhost:{PORT}/b
    GET /307     -> 307 * | Location: http://localhost:{PORT}/b
    GET /308     -> 308 * | Location: http://localhost:{PORT}/b
    GET /empty   -> 200 | Content-Length: 0
    GET /typed   -> 200 {\"a\":1} | Content-Type: application/json
    GET /relative -> 301 * | Location: /b
"
);

nginx_test!(redirects_name_the_server_as_told, "
    server { server_name main.example other.example; location / { return 301 /x; } }
    server { listen 127.0.0.1:{PORT2}; server_name main.example other.example; server_name_in_redirect on;
             port_in_redirect off; location / { return 301 /x; } }", |t| {
    t.ask("GET / | Host: other.example").expect("301 * | Location: http://other.example:{PORT}/x".replace("{PORT}", &t.port("PORT").to_string()).as_str());
    crate::harness::Client::connect(t.address("PORT2")).ask("GET / | Host: other.example")
        .expect("301 * | Location: http://main.example/x");
});

nginx_test!(
    rewrite_changes_the_uri,
    r#"
    server { rewrite ^/server/(.*) /a/$1;
        location /a/ { return 200 "$uri|$args"; }
        location /last { rewrite ^/last/(.*) /a/$1?x=1 last; return 500; }
        location /break { rewrite ^/break/(.*) /b/$1 break; return 500; }
        location /noargs { rewrite ^/noargs/(.*) /a/$1? last; }
        location /redirect { rewrite ^/redirect/(.*) /to/$1 redirect; }
        location /permanent { rewrite ^/permanent/(.*) /to/$1 permanent; }
        location /url { rewrite ^/url/(.*) http://u.example/$1; }
        location /two { rewrite ^/two/(\w+)/(\w+) /a/$2-$1 last; }
        location /case { rewrite (?i)^/CASE/(.*) /a/$1 last; }
        location /named { rewrite ^/named/(?<what>.+) /a/$what last; }
        location /multi { rewrite ^/multi /multi2; rewrite ^/multi2 /a/m last; }
        location /escaped { rewrite ^/escaped/(.*) /to/$1 redirect; }
        location /loop { rewrite ^ /loop last; } }"#,
    "
    GET /server/x     -> 200 /a/x|
    GET /server/x?q=1 -> 200 /a/x|q=1
    GET /last/x       -> 200 /a/x|x=1
    GET /last/x?q=1   -> 200 /a/x|x=1&q=1
    GET /break/x      -> 404
    GET /noargs/x?q   -> 200 /a/x|
    GET /redirect/x?q -> 302 * | Location: http://localhost:{PORT}/to/x?q
    GET /permanent/x  -> 301 * | Location: http://localhost:{PORT}/to/x
    GET /url/x?q      -> 302 * | Location: http://u.example/x?q
    GET /two/b/c      -> 200 /a/c-b|
    GET /case/x       -> 200 /a/x|
    GET /named/x      -> 200 /a/x|
    GET /multi        -> 200 /a/m|
    GET /escaped/a%20b -> 302 * | Location: http://localhost:{PORT}/to/a%20b
    GET /loop         -> 500 *500 Internal Server Error*
"
);

nginx_test!(rewrite_cycles_and_logs_are_reported, "
    server { rewrite_log on; error_log {DIR}/rewrite.log notice;
        location /loop { rewrite ^ /loop last; } location /a { rewrite ^/a /b last; } location /b { return 200 b; } }", |t| {
    t.ask("GET /loop").expect("500");
    t.log("rewrite.log").expect("[error] *rewrite or internal redirection cycle while processing \"/loop\"");
    t.ask("GET /a").expect("200 b");
    t.log("rewrite.log").expect("[notice] *\"^/a\" matches \"/a\"");
    t.log("rewrite.log").expect("[notice] *rewritten data: \"/b\", args: \"\"");
});

nginx_test!(
    if_decides,
    r#"
    server { set $x none;
        if ($http_x) { set $x given; }
        if ($http_x = exact) { set $x exact; }
        if ($http_x ~ ^re(.)) { set $x re-$1; }
        if ($http_x ~* ^CASE) { set $x case; }
        if ($http_x !~ .) { set $x empty; }
        if ($request_method = POST) { return 405; }
        if (-f {DIR}/html/$arg_f) { set $x file; }
        if (!-e {DIR}/html$arg_g) { set $x missing; }
        if (-d {DIR}/html/$arg_d.d) { set $x dir; }
        if ($arg_break) { set $x broken; break; set $x no; }
        location / { return 200 $x; }
        location /in { if ($arg_a = 1) { return 200 one; } if ($arg_a != 1) { return 200 other; } }
        location /header { if ($arg_a) { add_header X-If yes; } return 204; } }"#,
    |t| {
        t.file("html/here", "");
        t.file("html/on", "");
        t.file("html/a.d/b", "");
        t.check(
            "
        GET /?g=/on                 -> 200 empty
        GET /?g=/on | X: exact      -> 200 exact
        GET /?g=/on | X: reX        -> 200 re-X
        GET /?g=/on | X: case       -> 200 case
        GET /?g=/on | X: other      -> 200 given
        POST /?g=/on                -> 405
        GET /?g=/on&f=here          -> 200 file
        GET /?g=/nowhere            -> 200 missing
        GET /?g=/on&d=a             -> 200 dir
        GET /?g=/on&d=no&break=1    -> 200 broken
        GET /in?a=1&g=/on           -> 200 one
        GET /in?a=2&g=/on           -> 200 other
        GET /header?a=1&g=/on       -> 204 | X-If: yes
        GET /header?g=/on           -> 204 | !X-If
    ",
        );
    }
);

nginx_test!(
    set_and_captures,
    r#"
    server { location ~ ^/c/(?<name>[^/]+)/(\d+)$ { set $a $name; set $b "${a}-$2"; return 200 "$b|$1"; }
        location /t { set $a ""; return 200 ".$a."; }
        location /order { set $a 1; set $b $a; set $a 2; return 200 $a$b; } }"#,
    "
    GET /c/x/12 -> 200 x-12|x
    GET /c/x/y  -> 404
    GET /t      -> 200 ..
    GET /order  -> 200 21
"
);

nginx_test!(
    a_variable_that_was_not_set_is_empty,
    "
    server { location /a { return 200 .$late.; } location /b { set $late x; return 200 $late; } }",
    |t| {
        t.ask("GET /a").expect("200 ..");
        t.error_log().expect("[warn] *using uninitialized \"late\" variable");
        t.ask("GET /b").expect("200 x");
    }
);
