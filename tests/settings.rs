//! The finer settings: directives that change how something is done, not what is answered.

nginx_test!(
    files_and_compression,
    "
    charset_types text/plain;
    open_file_cache max=10;
    open_file_cache_min_uses 1;
    open_file_cache_events off;
    open_log_file_cache max=10;
    server { root {DIR}/html; charset utf-8; source_charset utf-8; override_charset on;
        gzip on; gzip_types text/plain; gzip_min_length 1;
        gzip_buffers 16 8k; gunzip_buffers 16 8k;
        gzip_hash 16k; gzip_no_buffer off; gzip_window 16k; postpone_gzipping 0;
        add_trailer_inherit on;
        read_ahead 32k; autoindex_localtime on;
        location /pick/ { random_index on; alias {DIR}/html/only/; } }",
    |t| {
        t.file("html/a.txt", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        t.file("html/only/x.txt", "x");
        t.check(
            "
        GET /a.txt | Accept-Encoding: gzip -> 200 | Content-Encoding: gzip
        GET /a.txt -> 200 aaaaa*
        GET /pick/ -> 200 x
    ",
        );
    }
);

nginx_test!(
    details_of_tls,
    "
    ssl_password_file {DIR}/nginx.conf;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_dhparam dh.pem;
    ssl_stapling off; ssl_stapling_file {DIR}/none.der;
    server { location / { return 200 plain; } }",
    |t| {
        t.ask("GET /").expect("200 plain");
    }
);

nginx_test!(
    frames_of_http2,
    "
    http2_body_preread_size 64k;
    http2_chunk_size 4k;
    server { http2 on; location / { return 200 both; } }",
    |t| {
        t.ask("GET /").expect("200 both");
    }
);
