//! OpenResty's set-misc: `set_encode_…`, `set_quote_…`, `set_random` and their kin.

use crate::harness::refuses_conf;

nginx_test!(
    text_is_escaped_and_quoted,
    r#"server { default_type text/plain;
        location /empty { set $a 32; set_if_empty $a 56; set_if_empty $b 72; set $c $arg_c; set_if_empty $c 15;
            set_if_empty $arg_d 25; return 200 "$a $b $c $arg_d"; }
        location /sql { set $v "hello\n\r'\"\\"; set_quote_sql_str $to $v; set_quote_sql_str $v; set_quote_sql_str $no;
            return 200 "$to $v $no"; }
        location /sql-bytes { set_unescape_uri $v $arg_a; set_quote_sql_str $v; return 200 $v; }
        location /pgsql { set $v "hello\n\r'\"\\"; set_quote_pgsql_str $v; set_quote_pgsql_str $no;
            set_quote_pgsql_str $utf "你好"; return 200 "$v $no $utf"; }
        location /pgsql-bytes { set_unescape_uri $v $arg_a; set_quote_pgsql_str $v; return 200 $v; }
        location /json { set $v "hello\n\r'\"\\"; set_quote_json_str $to $v; set_quote_json_str $v; set_quote_json_str $no;
            return 200 "$to $v $no"; }
        location /uri { set $v "hello world"; set_escape_uri $to $v; set_escape_uri $v; set_escape_uri $utf "你好";
            set_escape_uri $all "\"a/b={}:<>;&[]\\^+-._~!*',()"; return 200 "$to $v $utf $all"; }
        location /unescape { set_unescape_uri $v $arg_a; set $w a+b%20c; set_unescape_uri $w; return 200 "$v $w"; }
    }"#,
    |t| {
        t.check(
            "
    GET /empty           -> 200 32 72 15 25
    GET /empty?c=1&d=71  -> 200 32 72 1 71
    GET /empty?c=        -> 200 32 72 15 25
    GET /unescape?a=hello+world%21%2B -> 200 hello world!+ a b c
    ",
        );
        for (target, body) in [
            ("/sql", r#"'hello\n\r\'\"\\' 'hello\n\r\'\"\\' ''"#),
            ("/sql-bytes?a=%00%08%09%1a$", r"'\0\b\t\Z\$'"),
            ("/pgsql", r#"E'hello\n\r\'\"\\' '' E'你好'"#),
            ("/pgsql-bytes?a=%c4%e3%ba%c3", r"E'\\304\\343\\272\\303'"),
            ("/json", r#""hello\n\r'\"\\" "hello\n\r'\"\\" null"#),
            (
                "/uri",
                "hello%20world hello%20world %E4%BD%A0%E5%A5%BD \
                 %22a%2Fb%3D%7B%7D%3A%3C%3E%3B%26%5B%5D%5C%5E%2B-._~!*',()",
            ),
        ] {
            assert_eq!(t.ask(&format!("GET {target}")).text(), body);
        }
    }
);

nginx_test!(
    text_is_encoded_and_hashed,
    r#"server { default_type text/plain;
        location /base32 { set $a "\"hello, world!\nhiya\""; set_encode_base32 $a; set $b $a; set_decode_base32 $b;
            set_encode_base32 $c "!"; set_decode_base32 $d $c; set_decode_base32 $e "0"; return 200 "$a $b $c $d [$e]"; }
        location /bare { set_base32_padding off; set_encode_base32 $c "!"; set_decode_base32 $d $c; return 200 "$c $d"; }
        location /letters { set_base32_alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
            set_encode_base32 $a "\"hello, world!\"abcd"; set_decode_base32 $b $a; return 200 "$a $b";
            location /letters/inner { set_encode_base32 $a abcde; return 200 $a; } }
        location /base64 { set_encode_base64 $a abcde; set_decode_base64 $b $a; set_decode_base64 $c YWJjZGU;
            return 200 "$a $b $c"; }
        location /base64-bad { set_decode_base64 $a "a b"; return 200 $a; }
        location /base64url { set_encode_base64url $a "?b><d?"; set_decode_base64url $b $a; set_encode_base64url $c a;
            return 200 "$a $b $c"; }
        location /base64url-bad { set_decode_base64url $a "P2I+"; return 200 $a; }
        location /hex { set $raw "章亦春"; set_encode_hex $a $raw; set_decode_hex $b $a; return 200 "$a $b"; }
        location /hex-bad { set_decode_hex $a $arg_a; return 200 $a; }
        location /hash { set $v hello; set_sha1 $v; set_sha1 $a ""; set_md5 $b hello; set_md5 $c ""; return 200 "$v $a $b $c"; }
        location /hmac { set $key thisisverysecretstuff; set $text "some string we want to sign";
            set_hmac_sha1 $a $key $text; set_encode_base64 $a; set_hmac_sha256 $b $key $text; set_encode_base64 $b;
            set_hmac_sha256 $c "" ""; set_encode_base64 $c; return 200 "$a $b $c"; }
    }"#,
    |t| {
        t.check(
            r#"
    GET /base32  -> 200 49k6ar3cdsm20trfe9m6888ad1knio92 "hello, world!\nhiya" 44====== ! []
    GET /bare    -> 200 44 !
    GET /letters -> 200 EJUGK3DMN4WCA53POJWGIIJCMFRGGZA= "hello, world!"abcd
    GET /letters/inner -> 200 MFRGGZDF
    GET /base64  -> 200 YWJjZGU= abcde abcde
    GET /base64-bad -> 500
    GET /base64url -> 200 P2I-PGQ_ ?b><d? YQ
    GET /base64url-bad -> 500
    GET /hex     -> 200 e7aba0e4baa6e698a5 章亦春
    GET /hex-bad?a=6 -> 500
    GET /hex-bad?a=6g -> 500
    GET /hex-bad?a=6A -> 200 j
    GET /hash    -> 200 aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d da39a3ee5e6b4b0d3255bfef95601890afd80709 5d41402abc4b2a76b9719d911017c592 d41d8cd98f00b204e9800998ecf8427e
    GET /hmac    -> 200 R/pvxzHC4NLtj7S+kXFg/NePTmk= 4pU3GRQrKKIoeLb9CqYsavHE2l6Hx+KMmRmesU+Cfrs= thNnmggU2ex3L5XXeMNfxf8Wl8STcVZTxscSFEKSxa0=
    "#,
        );
        for what in ["set_decode_base64: invalid value", "set_decode_hex: invalid value"] {
            t.error_log().expect(what);
        }
    }
);

nginx_test!(
    numbers_letters_and_times_are_made,
    r#"server { default_type text/plain;
        location /random { set_random $a $arg_from $arg_to; return 200 $a; }
        location /alphanum { set_secure_random_alphanum $a $arg_n; return 200 $a; }
        location /lcalpha { set $a 16; set_secure_random_lcalpha $a; return 200 $a; }
        location /rotate { set $a $arg_a; set_rotate $a $arg_from $arg_to; return 200 $a; }
        location /kept { set_rotate $a 0 2; return 200 $a; }
        location /own { set_rotate $a 2 0; return 200 $a; }
        location /today { set_local_today $a; set_formatted_local_time $b "%Y-%m-%d"; return 200 "$a $b"; }
        location /time { set_formatted_gmt_time $a "%Y-%m-%dT%H:%M:%S+00:00"; set_formatted_gmt_time $b "";
            set_formatted_local_time $c "hello world"; return 200 "$a $time_iso8601 [$b] $c"; }
        location /long { set_formatted_gmt_time $a "%999A"; return 200 $a; }
        location /order { set $a 1; set_encode_hex $a; set $a "$a!"; if ($arg_x) { set_encode_hex $a; } return 200 $a; }
    }"#,
    |t| {
        for _ in 0..20 {
            let drawn = t.ask("GET /random?from=37&to=35").text();
            assert!(["35", "36", "37"].contains(&drawn.as_str()), "{drawn}");
        }
        t.check(
            "
    GET /random?from=117&to=117 -> 200 117
    GET /random?from=0&to=0     -> 200 0
    GET /random?from=-2&to=4    -> 500
    GET /random?from=2&to=x     -> 500
    GET /random?from=0&to=9223372036854775807 -> 200 *
    GET /random?from=0&to=9223372036854775808 -> 500
    GET /random?from=2          -> 500
    GET /alphanum?n=0  -> 500
    GET /alphanum?n=-4 -> 500
    GET /alphanum?n=65 -> 500
    GET /alphanum      -> 500
    GET /rotate?a=1&from=1&to=3 -> 200 2
    GET /rotate?a=3&from=1&to=3 -> 200 1
    GET /rotate?a=0&from=3&to=1 -> 200 1
    GET /rotate?a=1&from=3&to=5 -> 200 3
    GET /rotate?a=9223372036854775807&from=0&to=1 -> 200 0
    GET /rotate?a=abc&from=3&to=4 -> 200 3
    GET /rotate?from=abc&to=3   -> 500
    GET /rotate?from=1          -> 500
    GET /kept -> 200 0
    GET /own  -> 200 0
    GET /kept -> 200 1
    GET /own  -> 200 1
    GET /kept -> 200 2
    GET /kept -> 200 0
    GET /long -> 500
    GET /order     -> 200 31!
    GET /order?x=1 -> 200 333121
    ",
        );
        for n in [1, 32, 64] {
            let drawn = t.ask(&format!("GET /alphanum?n={n}")).text();
            assert_eq!(drawn.len(), n);
            assert!(drawn.bytes().all(|b| b.is_ascii_alphanumeric()), "{drawn}");
        }
        let drawn = t.ask("GET /lcalpha").text();
        assert!(drawn.len() == 16 && drawn.bytes().all(|b| b.is_ascii_lowercase()), "{drawn}");
        for log in
            ["set_rotate: bad current value: \"abc\"", "set_rotate: bad \"from\" argument value"]
        {
            t.error_log().expect(log);
        }
        let today = t.ask("GET /today").text();
        let (ours, clib) = today.split_once(' ').unwrap();
        assert!(ours == clib && ours.len() == 10, "{today}");
        t.check("GET /time -> 200 * [] hello world");
    }
);

#[test]
fn what_is_wrong_is_said() {
    for (text, says) in [
        ("set_md5 a b;", "invalid variable name \"a\""),
        ("set_md5 $request_id b;", "the duplicate \"request_id\" variable"),
        ("set_md5 $a b c;", "invalid number of arguments in \"set_md5\" directive"),
        (
            "set_base32_alphabet abc;",
            "\"set_base32_alphabet\" directive takes an alphabet of 3 bytes but 32 expected",
        ),
    ] {
        refuses_conf(&format!("server {{ location / {{ {text} }} }}"), says);
    }
}
