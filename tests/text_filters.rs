//! Filters that change a reply's text: `charset_map`, `sub_filter`, `addition`.

nginx_test!(
    texts_are_recoded,
    "
    charset_map koi8-r utf-8 { C1 D0B0; C2 D0B1; }
    charset_map one two { 41 61; }
    server { charset_types text/plain; default_type text/plain;
        location /utf { source_charset koi8-r; charset utf-8; root {DIR}; }
        location /koi { source_charset utf-8; charset koi8-r; root {DIR}; }
        location /two { source_charset one; charset two; root {DIR}; }
        location /any { source_charset one; charset $arg_to; root {DIR}; }
        location /up { charset two; override_charset on; proxy_pass http://{BACKEND}; } }",
    |t| {
        t.file("utf/f", b"a\xc1\xc2z");
        t.file("koi/f", "aбz€");
        t.file("two/f", "ABA");
        t.file("any/f", "ABA");
        t.backend().reply("/up", "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=one\r\nContent-Length: 2\r\n\r\nAB");
        t.check(
            "
        GET /utf/f -> 200 aабz | Content-Type: text/plain; charset=utf-8 | Transfer-Encoding: chunked
        GET /two/f -> 200 aBa | Content-Length: 3
        GET /two/f | Range: bytes=1- -> 206 Ba | Content-Range: bytes 1-2/3
        GET /any/f?to=two -> 200 aBa
        GET /any/f?to=one -> 200 ABA | Content-Type: text/plain; charset=one
        GET /any/f?to=six -> 200 ABA | Content-Type: text/plain
        GET /up -> 200 aB | Content-Type: text/html; charset=two
    ",
        );
        assert_eq!(t.ask("GET /koi/f").body, b"a\xc2z&#8364;");
        t.error_log()
            .expect("[error] *no \"charset_map\" between the charsets \"one\" and \"six\"");
    }
);

#[test]
fn charset_maps_that_cannot_be() {
    let conf = |inside: &str| format!("events {{ }} http {{ {inside} }}");
    for (inside, message) in [
        ("charset_map a A { }", "\"charset_map\" between the same charsets \"a\" and \"A\""),
        ("charset_map utf-8 a { }", "should be given in the second column"),
        ("charset_map a b { } charset_map B A { }", "duplicate \"charset_map\" between \"B\" and"),
        ("charset_map a b { 1FF 2; }", "invalid value \"1FF\""),
        ("charset_map a utf-8 { 80 C3; }", "invalid value \"C3\""),
        ("charset_map a b { 80; }", "invalid parameters number"),
        ("server { charset a; source_charset b; }", "no \"charset_map\" between the charsets"),
    ] {
        crate::harness::refuses_conf(&conf(inside), message).unwrap();
    }
}

nginx_test!(
    words_are_substituted,
    "
    server { sub_filter foo bar; sub_filter_types text/plain; default_type text/plain;
        location / { root {DIR}; }
        location /all { sub_filter_once off; sub_filter_last_modified on; root {DIR}; }
        location /vars { sub_filter $arg_what '<$uri>'; return 200 'ab AB ab'; }
        location /two { sub_filter one 1; sub_filter two 2; return 200 'two one two one'; }
        location /css { sub_filter_types text/css; return 200 'foo'; } }",
    |t| {
        t.file("f", "a Foo foo");
        t.file("all/f", "a Foo foo");
        t.check(
            "
        GET /f      -> 200 a bar foo | !Last-Modified | !ETag | !Content-Length
        GET /all/f  -> 200 a bar bar | Last-Modified | ETag: W/*
        GET /f | Range: bytes=0-1 -> 200 a bar foo
        GET /vars?what=b+ -> 200 ab AB ab
        GET /vars?what=Ab -> 200 </vars> AB ab
        GET /vars   -> 200 ab AB ab | Content-Length: 8
        GET /two    -> 200 2 1 two one
        GET /css    -> 200 foo
        HEAD /f     -> 200
    ",
        );
    }
);

nginx_test!(
    bodies_are_put_around_a_body,
    "
    server { default_type text/html; types { text/css css; } addition_types text/plain;
        location / { add_before_body /before; add_after_body /after; root {DIR}; }
        location /before { internal; return 200 '<'; }
        location /after { internal; proxy_pass http://{BACKEND}; }
        location /not { add_before_body /before; return 404; }
        location /inner { add_before_body /before; location /inner/off { add_before_body ''; root {DIR}; } }
        location /lost { add_after_body /nowhere/f; root {DIR}; } location /nowhere { root /nowhere; } }",
    |t| {
        for name in ["f.html", "f.css", "inner/off/f", "lost/f"] {
            t.file(name, "body");
        }
        t.backend().reply("/after", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n>");
        t.check(
            "
        GET /f.html -> 200 <body> | !Content-Length | !Accept-Ranges
        HEAD /f.html -> 200
        GET /f.css  -> 200 body | Content-Length: 4
        GET /not    -> 404 <html>*
        GET /inner/off/f -> 200 body
        GET /lost/f -> 200 body<html>*404 Not Found*
    ",
        );
    }
);
