//! Files: root, alias, index, types, conditional requests, ranges, redirects to folders.

nginx_test!(
    files_are_found,
    "
    types { text/html html; image/png png; } default_type application/x-other;
    server { root {DIR}/html;
        location /alias/ { alias {DIR}/other/; }
        location /alias-no-slash { alias {DIR}/other; }
        location ~ ^/re/(.+)$ { alias {DIR}/other/$1; }
        location /own/ { root {DIR}/$arg_root; }
        location /forced { default_type text/x; types { } alias {DIR}/html/a.html; } }",
    |t| {
        t.file("html/a.html", "<a>");
        t.file("html/b.png", "png");
        t.file("html/C.HTML", "upper");
        t.file("html/noext", "noext");
        t.file("html/dir/index.html", "index");
        t.file("html/empty/x", "");
        t.file("html/with space%", "space");
        t.file("other/file", "other file");
        t.file("r/own/x", "own");
        t.check("
        GET /a.html         -> 200 <a> | Content-Type: text/html | Accept-Ranges: bytes | Last-Modified: * GMT | ETag: \"*-3\"
        HEAD /a.html        -> 200 | Content-Length: 3 | Accept-Ranges: bytes
        GET /b.png          -> 200 png | Content-Type: image/png
        GET /C.HTML         -> 200 upper | Content-Type: text/html
        GET /noext          -> 200 noext | Content-Type: application/x-other
        GET /dir/           -> 200 index | Content-Type: text/html
        GET /dir            -> 301 * | Location: http://localhost:{PORT}/dir/
        GET /dir?x=y        -> 301 * | Location: http://localhost:{PORT}/dir/?x=y
        GET /empty/         -> 403
        GET /none           -> 404
        GET /a.html/        -> 404
        GET /a.html/x       -> 404
        GET /with%20space%25 -> 200 space
        GET /alias/file     -> 200 other file
        GET /alias-no-slash/file -> 200 other file
        GET /re/file        -> 200 other file
        GET /own/x?root=r   -> 200 own
        GET /forced         -> 200 <a> | Content-Type: text/x
        POST /a.html << x   -> 405
        PUT /a.html << x    -> 405
        DELETE /a.html      -> 405
    ");
        t.error_log().expect("[error] *open() \"{DIR}/html/none\" failed (2: No such file or directory), client: 127.0.0.1, server: , request: \"GET /none HTTP/1.1\", host: \"localhost\"".replace("{DIR}", &t.dir().display().to_string()).as_str());
        t.error_log().expect("[error] *directory index of \"*/html/empty/\" is forbidden");
    }
);

nginx_test!(
    index_in_its_forms,
    "
    server { root {DIR}/html; index first.html x$arg_i second.html;
        location /abs/ { index none /fallback; } location = /fallback { return 200 fallback; }
        location /re/ { index x.re; } location ~ \\.re$ { return 200 re; } }",
    |t| {
        t.file("html/a/second.html", "second");
        t.file("html/b/first.html", "first");
        t.file("html/b/second.html", "second");
        t.file("html/c/xyz", "own");
        t.file("html/re/x.re", "");
        t.file("html/abs/y", "");
        t.check(
            "
        GET /a/        -> 200 second
        GET /b/        -> 200 first
        GET /c/?i=yz   -> 200 own
        GET /c/        -> 403
        GET /abs/      -> 200 fallback
        GET /re/       -> 200 re
    ",
        );
    }
);

nginx_test!(
    conditional_requests,
    "
    server { root {DIR}/html; location /exact { alias {DIR}/html/f; }
        location /before { if_modified_since before; alias {DIR}/html/f; }
        location /off { if_modified_since off; etag off; alias {DIR}/html/f; } }",
    |t| {
        t.file("html/f", "content");
        let first = t.ask("GET /f");
        let (etag, modified) =
            (first.header("ETag").unwrap(), first.header("Last-Modified").unwrap());
        let old = "Thu, 01 Jan 1998 00:00:00 GMT";
        let future = "Fri, 01 Jan 2100 00:00:00 GMT";
        t.check(&format!("
        GET /f | If-None-Match: {etag}          -> 304 | ETag: {etag} | !Content-Length | Last-Modified: {modified}
        GET /f | If-None-Match: \"x\", {etag}   -> 304
        GET /f | If-None-Match: W/{etag}        -> 304
        GET /f | If-None-Match: *               -> 304
        GET /f | If-None-Match: \"x\"           -> 200 content
        GET /f | If-None-Match: \"x\" | If-Modified-Since: {modified} -> 200 content
        GET /f | If-Modified-Since: {modified}  -> 304
        GET /f | If-Modified-Since: {old}       -> 200 content
        GET /f | If-Modified-Since: {future}    -> 200 content
        GET /before | If-Modified-Since: {future} -> 304
        GET /off | If-Modified-Since: {modified} -> 200 content | !ETag
        GET /f | If-Modified-Since: garbage     -> 200 content
        GET /f | If-Match: {etag}               -> 200 content
        GET /f | If-Match: *                    -> 200 content
        GET /f | If-Match: \"x\"                -> 412 *412 Precondition Failed*
        GET /f | If-Unmodified-Since: {modified} -> 200 content
        GET /f | If-Unmodified-Since: {old}     -> 412
        HEAD /f | If-None-Match: {etag}         -> 304
    "));
    }
);

nginx_test!(
    ranges,
    "
    server { root {DIR}/html; location /few { max_ranges 1; alias {DIR}/html/f; }
             location /none { max_ranges 0; alias {DIR}/html/f; } }",
    |t| {
        t.file("html/f", "0123456789");
        t.file("html/empty", "");
        let first = t.ask("GET /f");
        let (etag, modified) =
            (first.header("ETag").unwrap(), first.header("Last-Modified").unwrap());
        t.check(&format!("
        GET /f | Range: bytes=0-0     -> 206 0 | Content-Range: bytes 0-0/10 | Content-Length: 1 | !Accept-Ranges
        GET /f | Range: bytes=2-4     -> 206 234 | Content-Range: bytes 2-4/10
        GET /f | Range: bytes=8-      -> 206 89 | Content-Range: bytes 8-9/10
        GET /f | Range: bytes=8-100   -> 206 89
        GET /f | Range: bytes=-3      -> 206 789 | Content-Range: bytes 7-9/10
        GET /f | Range: bytes=-100    -> 206 0123456789
        GET /f | Range: bytes= 1 - 2  -> 206 12
        GET /f | Range: bytes=10-     -> 416 *416 Requested Range Not Satisfiable* | Content-Range: bytes */10
        GET /f | Range: bytes=5-2     -> 416
        GET /f | Range: bytes=x       -> 416
        GET /f | Range: bytes=-       -> 416
        GET /f | Range: other=0-1     -> 200 0123456789
        GET /f | Range: bytes=0-1 | If-Range: {etag}     -> 206 01
        GET /f | Range: bytes=0-1 | If-Range: \"x\"      -> 200 0123456789
        GET /f | Range: bytes=0-1 | If-Range: {modified} -> 206 01
        GET /f | Range: bytes=0-1 | If-Range: Thu, 01 Jan 1998 00:00:00 GMT -> 200
        GET /few | Range: bytes=0-1     -> 206 01
        GET /few | Range: bytes=0-1,3-4 -> 200 0123456789
        GET /none | Range: bytes=0-1    -> 200 0123456789 | !Accept-Ranges
        GET /empty | Range: bytes=0-1   -> 200
        HEAD /f | Range: bytes=0-1      -> 206 | Content-Length: 2
    "));
        let parts = t
            .ask("GET /f | Range: bytes=0-1,-2")
            .expect("206 | Content-Type: multipart/byteranges; boundary=* | !Content-Range");
        let boundary =
            parts.header("Content-Type").unwrap().split("boundary=").nth(1).unwrap().to_string();
        assert_eq!(
            parts.text(),
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
         \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
         \r\n--{boundary}--\r\n"
            )
        );
    }
);

nginx_test!(large_files_in_every_way_of_sending, "
    server { root {DIR}/html;
        location /sendfile/ { sendfile on; alias {DIR}/html/; }
        location /chunked/ { sendfile on; sendfile_max_chunk 10k; tcp_nopush on; alias {DIR}/html/; }
        location /copied/ { sendfile off; alias {DIR}/html/; }
        location /cached/ { open_file_cache max=10; open_file_cache_valid 1s; open_file_cache_errors on; sendfile on; alias {DIR}/html/; } }", |t| {
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    t.file("html/large", &content);
    for way in ["sendfile", "chunked", "copied", "cached", "cached"] {
        let response = t.ask(&format!("GET /{way}/large"));
        assert!(response.body == content, "{way}: {} bytes", response.body.len());
        let part = t.ask(&format!("GET /{way}/large | Range: bytes=1000001-2000002"));
        assert!(part.body == content[1_000_001..=2_000_002], "{way}: {} bytes", part.body.len());
    }
    t.check("
        GET /cached/none -> 404
        GET /cached/none -> 404
    ");
});

nginx_test!(
    links_and_hidden_corners,
    "
    server { root {DIR}/html; location /strict/ { disable_symlinks on; alias {DIR}/html/; } }",
    |t| {
        t.file("html/real", "real");
        std::os::unix::fs::symlink("real", t.dir().join("html/link")).unwrap();
        std::process::Command::new("mkfifo").arg(t.dir().join("html/pipe")).status().unwrap();
        t.check(
            "
        GET /link        -> 200 real
        GET /strict/real -> 200 real
        GET /strict/link -> 403
        GET /pipe        -> 404
    ",
        );
    }
);

nginx_test!(files_without_permission, "server { root {DIR}/html; }", |t| {
    use std::os::unix::fs::PermissionsExt;
    t.file("html/secret", "secret");
    std::fs::set_permissions(t.dir().join("html/secret"), std::fs::Permissions::from_mode(0o0))
        .unwrap();
    t.ask("GET /secret").expect("403");
    t.error_log().expect("[error] *open() \"*/html/secret\" failed (13: Permission denied)");
});

nginx_test!(
    files_leave_by_many_ways,
    "
    server { root {DIR};
        location /read/ { sendfile off; output_buffers 2 4k; alias {DIR}/; }
        location /chunk/ { sendfile on; sendfile_max_chunk 10k; aio off; alias {DIR}/; }
        location /threads/ { aio threads; subrequest_output_buffer_size 8k; alias {DIR}/; }
        location /direct/ { directio 4k; directio_alignment 4k; output_buffers 1 32k; alias {DIR}/; }
        location /small/ { directio 1g; aio on; alias {DIR}/; } }",
    |t| {
        let text: Vec<u8> = (0..200_001u32).map(|n| (n / 5) as u8).collect();
        t.file("f", &text);
        for way in ["read", "chunk", "threads", "direct", "small"] {
            let whole = t.ask(&format!("GET /{way}/f")).expect("200 * | Content-Length: 200001");
            assert!(whole.body == text, "{way}");
            let part = t.ask(&format!("GET /{way}/f | Range: bytes=777-100000")).expect("206");
            assert!(part.body == text[777..=100_000], "{way}");
            t.ask(&format!("HEAD /{way}/f")).expect("200");
        }
    }
);

#[test]
fn ways_that_files_cannot_leave_by() {
    let conf = |inside: &str| format!("events {{ }} http {{ {inside} }}");
    for (inside, message) in [
        ("aio threads=none;", "unknown thread pool \"none\""),
        ("aio sometimes;", "invalid value"),
        ("aio on; aio off;", "is duplicate"),
        ("directio some;", "invalid value"),
        ("directio_alignment 1000;", "the alignment must be a power of two"),
    ] {
        crate::harness::refuses_conf(&conf(inside), message).unwrap();
    }
}
