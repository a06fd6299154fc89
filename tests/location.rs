//! Which location a URI belongs to.

nginx_test!(
    exact_prefix_and_regex,
    r#"
    server {
        location = / { return 200 root; }
        location / { return 200 slash; }
        location /documents/ { return 200 documents; }
        location ^~ /images/ { return 200 images; }
        location ~* \.(gif|jpg)$ { return 200 picture; }
        location ~ \.PHP$ { return 200 PHP; }
        location = /exact { return 200 exact; }
        location /exact { return 200 not; }
        location /doc { return 200 doc; }
    }"#,
    "
    GET /               -> 200 root
    GET /index.html     -> 200 slash
    GET /documents/a    -> 200 documents
    GET /images/1.gif   -> 200 images
    GET /documents/1.GIF -> 200 picture
    GET /a.PHP          -> 200 PHP
    GET /a.php          -> 200 slash
    GET /exact          -> 200 exact
    GET /exact/         -> 200 not
    GET /docs           -> 200 doc
    GET /documents      -> 200 doc
"
);

nginx_test!(
    regexes_are_tried_in_order,
    r"
    server { location ~ ^/a { return 200 first; } location ~ ^/ab { return 200 second; }
             location /ab { return 200 prefix; } location ~ \.x$ { return 200 x; } location / { return 200 none; } }",
    "
    GET /abc  -> 200 first
    GET /b.x  -> 200 x
    GET /b    -> 200 none
"
);

nginx_test!(
    nested_locations,
    r"
    server { location /a/ { return 200 a; 
            location /a/b/ { return 200 b; location = /a/b/c { return 200 c; } }
            location ~ \.x$ { return 200 x; } }
        location ~ ^/r/ { location ~ \.y$ { return 200 y; } return 200 r; } }",
    "
    GET /a/     -> 200 a
    GET /a/b/   -> 200 b
    GET /a/b/c  -> 200 c
    GET /a/1.x  -> 200 x
    GET /r/1.y  -> 200 y
    GET /r/1    -> 200 r
    GET /none   -> 404
"
);

nginx_test!(many_prefixes_longest_wins, "
    server { location /a { return 200 a; } location /aa { return 200 aa; } location /aaa { return 200 aaa; }
             location /ab { return 200 ab; } location /b { return 200 b; } location /ba { return 200 ba; } }", "
    GET /a     -> 200 a
    GET /aa    -> 200 aa
    GET /aab   -> 200 aa
    GET /aaaa  -> 200 aaa
    GET /abc   -> 200 ab
    GET /ac    -> 200 a
    GET /bab   -> 200 ba
    GET /c     -> 404
");

nginx_test!(
    the_decoded_uri_is_matched,
    "
    server { location /a b { return 200 no; } }"
        .replace("/a b", "\"/a b\"")
        .as_str(),
    "
    GET /a%20b/c -> 200 no
"
);

nginx_test!(proxy_locations_redirect_to_their_slash, "
    server { location /dir/ { proxy_pass http://{BACKEND}; }
             location = /other { return 200 exact; } location /other/ { proxy_pass http://{BACKEND}; }
             location = /just/ { proxy_pass http://{BACKEND}; } }", "
    GET /just      -> 301 * | Location: http://localhost:{PORT}/just/
    GET /just/x    -> 404
    GET /dir       -> 301 * | Location: http://localhost:{PORT}/dir/
    GET /dir?a=b   -> 301 * | Location: http://localhost:{PORT}/dir/?a=b
    GET /other     -> 200 exact
");

nginx_test!(
    named_locations_and_internal_ones,
    "
    server { error_page 404 @fallback; error_page 403 /internal;
        location / { return 404; } location /403 { return 403; }
        location @fallback { return 200 named-$uri; }
        location /internal { internal; return 200 internal; } }",
    "
    GET /x        -> 404 named-/x
    GET /403      -> 403 internal
    GET /internal -> 404
"
    .replace("GET /internal -> 404", "GET /internal -> 404 named-/internal")
    .as_str()
);
