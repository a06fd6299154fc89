//! `valid_referers`.

nginx_test!(
    pages_that_may_lead_here,
    "
    server { referer_hash_max_size 1k; referer_hash_bucket_size 64;
        valid_referers none blocked example.com *.example.org ~\\.google\\. www.example.net/path;
        location / { return 200 [$invalid_referer]; } }",
    |t| {
        t.check(
            "
        GET / -> 200 []
        GET / | Referer: junk                        -> 200 []
        GET / | Referer: http://example.com/x        -> 200 []
        GET / | Referer: https://a.example.org:8/x   -> 200 []
        GET / | Referer: http://www.google.com/      -> 200 []
        GET / | Referer: http://www.example.net/path/a -> 200 []
        GET / | Referer: http://www.example.net/     -> 200 [1]
        GET / | Referer: http://evil.example/        -> 200 [1]
        GET / | Referer: http://su                   -> 200 []
    ",
        );
    }
);
