//! `add_header`, `add_trailer`, `expires`.

nginx_test!(
    headers_are_added,
    r#"
    add_header X-Http http;
    server { root {DIR}/html;
        location / { return 200 ok; }
        location /own { add_header X-Own "$uri-$arg_a"; add_header X-Empty ""; return 200 ok; }
        location /codes { add_header X-A a; return 404; }
        location /always { add_header X-A a always; return 404; }
        location /twice { add_header X-A 1; add_header X-A 2; return 200 ok; }
        location /merge { add_header_inherit merge; add_header X-B b; return 200 ok; }
        location /none { add_header_inherit off; return 200 ok; }
        location /cc { add_header Cache-Control no-store; return 200 ok; }
        location /lm { add_header Last-Modified "Thu, 01 Jan 1998 00:00:00 GMT"; return 200 ok; } }"#,
    "
    GET /          -> 200 ok | X-Http: http
    GET /own?a=1   -> 200 ok | X-Own: /own-1 | !X-Http | !X-Empty
    GET /codes     -> 404 * | !X-A
    GET /always    -> 404 * | X-A: a
    GET /twice     -> 200 ok | X-A: 1 | X-A: 2
    GET /merge     -> 200 ok | X-Http: http | X-B: b
    GET /none      -> 200 ok | !X-Http
    GET /cc        -> 200 ok | Cache-Control: no-store
    GET /lm        -> 200 ok | Last-Modified: Thu, 01 Jan 1998 00:00:00 GMT
"
);

nginx_test!(expires_in_its_forms, r#"
    map $arg_e $when { epoch epoch; max max; "" off; default $arg_e; }
    server { location /epoch { expires epoch; return 200 ok; } location /max { expires max; return 200 ok; }
        location /day { expires 1d; return 200 ok; } location /past { expires -1; return 200 ok; }
        location /zero { expires 0; return 200 ok; }
        location /at { expires @15h30m; return 200 ok; } location /modified { expires modified 1h; return 200 ok; }
        location /404 { expires 1d; return 404; } location /off { expires off; return 200 ok; }
        location /var { expires $when; return 200 ok; } }"#, "
    GET /epoch     -> 200 ok | Expires: Thu, 01 Jan 1970 00:00:01 GMT | Cache-Control: no-cache
    GET /max       -> 200 ok | Expires: Thu, 31 Dec 2037 23:55:55 GMT | Cache-Control: max-age=315360000
    GET /day       -> 200 ok | Expires: * GMT | Cache-Control: max-age=86400
    GET /past      -> 200 ok | Expires: * GMT | Cache-Control: no-cache
    GET /zero      -> 200 ok | Cache-Control: max-age=0
    GET /at        -> 200 ok | Expires: *15:30:00 GMT | Cache-Control: max-age=*
    GET /modified  -> 200 ok | Cache-Control: max-age=3600
    GET /404       -> 404 * | !Expires
    GET /off       -> 200 ok | !Expires | !Cache-Control
    GET /var?e=epoch -> 200 ok | Cache-Control: no-cache
    GET /var?e=max -> 200 ok | Cache-Control: max-age=315360000
    GET /var?e=60s -> 200 ok | Cache-Control: max-age=60
    GET /var       -> 200 ok | !Expires
");

nginx_test!(
    trailers_are_added,
    "
    server { location / { add_trailer X-T $status; proxy_pass http://{BACKEND}; } }",
    |t| {
        t.backend().reply(
            "/",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        );
        let response = t.ask("GET / | TE: trailers").expect("200 hi | Transfer-Encoding: chunked");
        assert_eq!(response.trailers, [("X-T".to_string(), "200".to_string())]);
    }
);
