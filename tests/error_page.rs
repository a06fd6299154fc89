//! `error_page`, `recursive_error_pages`, internal redirects.

nginx_test!(
    errors_go_where_they_are_sent,
    r#"
    server { error_page 404 /404.html; error_page 500 502 503 =200 /ok.html; error_page 403 http://elsewhere.example/;
        error_page 410 =301 http://moved.example/; error_page 405 = /dynamic; error_page 401 /$arg_to; error_page 418 @named;
        location / { return 404; } location /404.html { return 200 "missing $uri"; }
        location /ok.html { return 200 ok; } location /500 { return 500; } location /503 { return 503; }
        location /403 { return 403; } location /410 { return 410; }
        location /405 { return 405; } location /dynamic { return 202 "dyn $status $request_uri"; }
        location /401 { return 401; } location /target { return 200 target; }
        location /418 { return 418; } location @named { return 200 $uri; } }"#,
    "
    GET /x      -> 404 missing /404.html
    GET /500    -> 200 ok
    GET /503    -> 200 ok
    GET /403    -> 302 * | Location: http://elsewhere.example/
    GET /410    -> 301 * | Location: http://moved.example/
    GET /405    -> 202 *
    GET /401?to=target -> 401 target
    GET /418    -> 418 /418
    POST /x     -> 404 missing /404.html
    HEAD /x     -> 404
"
);

nginx_test!(levels_inherit_unless_they_say_more, "
    error_page 404 /http; server { error_page 403 /server;
        location /http { return 200 http; } location /server { return 200 server; } location /own { return 200 own; }
        location /a { return 404; } location /b { return 403; }
        location /c { error_page 404 /own; return 404; } location /d { error_page 404 /own; return 403; } }", "
    GET /a -> 404 *404 Not Found*
    GET /b -> 403 server
    GET /c -> 404 own
    GET /d -> 403 *403 Forbidden*
");

nginx_test!(recursion_is_asked_for, "
    server { error_page 404 /first; error_page 403 /second;
        location / { return 404; } location /first { return 403; } location /second { return 200 second; }
        location /deep { recursive_error_pages on; error_page 404 /deep2; return 404; }
        location /deep2 { recursive_error_pages on; error_page 403 /second; return 403; } }", "
    GET /x    -> 404 *404 Not Found*
    GET /deep -> 403 second
".replace("GET /x    -> 404 *404 Not Found*", "GET /x    -> 403 *403 Forbidden*").as_str());

nginx_test!(files_as_error_pages, "
    server { root {DIR}/html; error_page 404 /404.html; location / { } location = /404.html { internal; } }", |t| {
    t.file("html/404.html", "nothing here");
    t.check("
        GET /none     -> 404 nothing here | Content-Type: text/html
        GET /404.html -> 404 nothing here
    ");
});

nginx_test!(
    pages_for_what_a_filter_refuses,
    "
    server { error_page 412 /412; error_page 416 =200 @416;
        location / { root {DIR}; } location = /412 { internal; return 412 cond:$uri; }
        location @416 { return 200 range:$uri; } location /own { error_page 412 http://x.example/; root {DIR}; } }",
    |t| {
        t.file("f", "0123456789");
        t.file("own/f", "0123456789");
        t.check(
            "
        GET /f     | If-Match: \"x\"        -> 412 cond:/412
        GET /f     | Range: bytes=10-       -> 200 range:/f
        GET /own/f | If-Match: \"x\"        -> 302 * | Location: http://x.example/
        GET /f                              -> 200 0123456789
    ",
        );
    }
);
