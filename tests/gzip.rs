//! `gzip`, `gzip_static`, `gunzip`-able bodies.

use std::io::Read;

fn gunzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).expect("gzip");
    text
}

nginx_test!(
    who_gets_gzip,
    r#"
    gzip on; gzip_min_length 20;
    server { root {DIR}/html;
        location / { }
        location /vary/ { gzip_vary on; alias {DIR}/html/; }
        location /types/ { gzip_types text/plain; alias {DIR}/html/; default_type text/plain; }
        location /any/ { gzip_types *; alias {DIR}/html/; default_type x/y; types { } }
        location /off/ { gzip off; alias {DIR}/html/; }
        location /old/ { gzip_http_version 1.0; alias {DIR}/html/; }
        location /msie/ { gzip_disable msie6 "Bad.*"; alias {DIR}/html/; }
        location /via/ { gzip_proxied any; alias {DIR}/html/; }
        location /private/ { gzip_proxied private; add_header Cache-Control private; alias {DIR}/html/; }
        location /proxy { proxy_pass http://{BACKEND}; } }"#,
    |t| {
        let text = "some text that repeats itself ".repeat(50);
        for name in ["html/a.html", "html/a.txt"] {
            t.file(name, &text);
        }
        t.file("html/short.html", "short");
        t.backend().reply("/proxy", format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        let gz = "Accept-Encoding: gzip";
        t.check(&"
        GET /a.html                     -> 200 some * | !Content-Encoding | Content-Length: *
        GET /a.html | GZ                -> 200 | Content-Encoding: gzip | !Content-Length | !Vary | ETag: W/\"*
        GET /a.html | Accept-Encoding: deflate, gzip;q=0.5 -> 200 | Content-Encoding: gzip
        GET /a.html | Accept-Encoding: gzip;q=0   -> 200 | !Content-Encoding
        GET /a.html | Accept-Encoding: gzip;q=0.0, x -> 200 | !Content-Encoding
        GET /a.html | Accept-Encoding: xgzip  -> 200 | !Content-Encoding
        GET /a.html | Accept-Encoding: *      -> 200 | !Content-Encoding
        GET /a.html HTTP/1.0 | GZ       -> 200 | !Content-Encoding
        HEAD /a.html | GZ               -> 200 | Content-Encoding: gzip
        GET /a.txt | GZ                 -> 200 | !Content-Encoding
        GET /short.html | GZ            -> 200 short | !Content-Encoding
        GET /vary/a.html                -> 200 | Vary: Accept-Encoding
        GET /vary/a.html | GZ           -> 200 | Vary: Accept-Encoding | Content-Encoding: gzip
        GET /types/a.txt | GZ           -> 200 | Content-Encoding: gzip
        GET /any/a.txt | GZ             -> 200 | Content-Encoding: gzip
        GET /off/a.html | GZ            -> 200 | !Content-Encoding
        GET /old/a.html HTTP/1.0 | GZ   -> 200 | Content-Encoding: gzip
        GET /msie/a.html | GZ | User-Agent: Mozilla/4.0 (compatible; MSIE 6.0) -> 200 | !Content-Encoding
        GET /msie/a.html | GZ | User-Agent: Badly -> 200 | !Content-Encoding
        GET /msie/a.html | GZ | User-Agent: Good -> 200 | Content-Encoding: gzip
        GET /a.html | GZ | Via: x       -> 200 | !Content-Encoding
        GET /via/a.html | GZ | Via: x   -> 200 | Content-Encoding: gzip
        GET /private/a.html | GZ | Via: x -> 200 | Content-Encoding: gzip
        GET /proxy | GZ                 -> 200 | Content-Encoding: gzip | ETag: W/\"x\"
        GET /a.html | GZ | Range: bytes=0-3 -> 200 | Content-Encoding: gzip
    ".replace("GZ ", &format!("{gz} ")));
        for path in ["/a.html", "/proxy"] {
            assert_eq!(gunzipped(&t.ask(&format!("GET {path} | {gz}")).body), text, "{path}");
        }
    }
);

nginx_test!(large_bodies_are_streamed, "
    gzip on; gzip_comp_level 6; gzip_types *;
    server { root {DIR}/html; location /proxy { proxy_buffering off; proxy_pass http://{BACKEND}/; } }", |t| {
    let text: String = (0..200_000).map(|n| format!("{n},")).collect();
    t.file("html/large", &text);
    t.backend().reply("/", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    for path in ["/large", "/proxy"] {
        let got = t.ask(&format!("GET {path} | Accept-Encoding: gzip")).expect("200 | Content-Encoding: gzip");
        assert!(got.body.len() < text.len() / 2 && gunzipped(&got.body) == text, "{path}");
    }
});

nginx_test!(gzip_static_serves_the_file_beside, "
    server { root {DIR}/html; gzip_static on; location /always/ { gzip_static always; alias {DIR}/html/; } location /off/ { gzip_static off; alias {DIR}/html/; } }", |t| {
    t.file("html/a.html", "plain");
    t.file("html/a.html.gz", "packed");
    t.check("
        GET /a.html        -> 200 plain | !Content-Encoding
        GET /a.html | Accept-Encoding: gzip -> 200 packed | Content-Encoding: gzip | Content-Type: text/html
        GET /always/a.html -> 200 packed | Content-Encoding: gzip
        GET /off/a.html | Accept-Encoding: gzip -> 200 plain
    ");
});

nginx_test!(
    the_ratio_is_known,
    r#"
    gzip on; log_format ratio "$uri $gzip_ratio"; access_log {DIR}/ratio.log ratio; server { root {DIR}/html; }"#,
    |t| {
        t.file("html/a.html", "x".repeat(5000));
        t.ask("GET /a.html | Accept-Encoding: gzip").expect("200");
        t.log("ratio.log").expect("/a.html *.*");
    }
);
