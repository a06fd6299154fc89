//! `try_files`.

nginx_test!(
    the_first_that_is_there,
    "
    server { root {DIR}/html;
        location / { try_files $uri $uri/ /fallback$is_args$args; }
        location = /fallback { return 200 fallback-$args; }
        location /code/ { try_files $uri =410; }
        location /named/ { try_files $uri @named; } location @named { return 200 named-$uri; }
        location /dir/ { try_files $uri $uri/ =404; index x.html; }
        location /proxy/ { try_files $uri @proxy; } location @proxy { proxy_pass http://{BACKEND}; }
        location ~ ^/re/(.*)$ { try_files /$1.html =404; }
        location /alias/ { alias {DIR}/html/sub/; try_files $uri =404; } }",
    |t| {
        t.file("html/a", "a");
        t.file("html/folder/index.html", "folder index");
        t.file("html/dir/x/x.html", "x");
        t.file("html/code/here", "here");
        t.file("html/page.html", "page");
        t.file("html/sub/f", "sub f");
        t.check(
            "
        GET /a           -> 200 a
        GET /folder/     -> 200 folder index
        GET /folder      -> 301 * | Location: http://localhost:{PORT}/folder/
        GET /none?q=1    -> 200 fallback-q=1
        GET /code/here   -> 200 here
        GET /code/none   -> 410
        GET /named/x     -> 200 named-/named/x
        GET /dir/x/      -> 200 x
        GET /dir/y       -> 404
        GET /proxy/y?z=1 -> 200 GET /proxy/y?z=1 HTTP/1.*
        GET /re/page     -> 200 page
        GET /re/none     -> 404
        GET /alias/f     -> 200 sub f
        GET /alias/none  -> 404
    ",
        );
    }
);
