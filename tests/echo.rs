//! `echo` and its kin.

use crate::harness::refuses_conf;

nginx_test!(
    words_are_said,
    r#"server { default_type text/plain;
        location /words { echo hello "$arg_a!" ; echo; echo -n no line; echo -- -n; set $o -n; echo $o x; }
        location /dup { echo_duplicate 3 "--"; echo_duplicate 1 " END "; echo_duplicate 1_0 "-"; echo_duplicate 0 x; echo; }
        location /many { echo_duplicate 3_000_000 "hello, "; echo bye; }
        location /status { echo_status 404; echo "missing"; }
        location /steps { echo first; echo_flush; echo_sleep 0.05; echo last; echo_status 201; }
        location /body { echo_read_request_body; echo_request_body; echo " $echo_request_body $request_body"; }
        location /unread { echo "[$echo_request_body]"; }
        location /loop { echo_foreach_split "," $arg_list; echo "item: $echo_it"; echo_end; echo -n done; }
        location /split { echo_foreach_split -- "-a-" "cat-a-dog"; echo -n "$echo_it;"; echo_end; }
        location /exec { echo_exec /words a=b; }
        location /exec2 { echo_exec /words?a=c; }
        location /named { echo_exec @named; }
        location @named { echo -n "$echo_request_uri"; }
        location /if { set $r miss; if ($arg_val ~ ^a) { set $r hit; echo -n $r; } echo -n $r; }
        location /client { echo -n "$echo_client_request_method $echo_client_request_headers"; }
        location /blocking { echo_reset_timer; echo_blocking_sleep 0.01; echo -n "$echo_timer_elapsed"; }
    }"#,
    |t| {
        t.check(
            "
    GET /words?a=b   -> 200 hello b!\\n\\nno line-n\\n-n x*
    GET /dup         -> 200 ------ END ----------*
    GET /status      -> 404 missing* | Content-Type: text/plain
    POST /body << hi -> 200 hi hi hi*
    POST /unread << hi -> 200 []*
    GET /loop?list=cat,,dog -> 200 item: cat\\nitem: dog\\ndone
    GET /loop        -> 200 done
    GET /split       -> 200 cat;dog;
    GET /exec        -> 200 hello b!*
    GET /exec2       -> 200 hello c!*
    GET /named       -> 200 /named
    GET /if?val=abc  -> 200 hit
    GET /if          -> 200 miss
    GET /client | X-A: b -> 200 GET GET /client HTTP/1.1\\r\\n*X-A: b*
    GET /blocking    -> 200 0.01*
    ",
        );
        let many = t.ask("GET /many").body;
        assert!(many.len() == 21_000_004 && many.ends_with(b"hello, bye\n"));
        let mut client = t.connect();
        client.send("GET /steps HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_until(b"6\r\nfirst\n\r\n").unwrap();
        client.read_until(b"5\r\nlast\n\r\n0\r\n\r\n").unwrap();
    }
);

nginx_test!(
    replies_are_put_together,
    r#"server { default_type text/plain;
        location /main { echo_reset_timer; echo_location_async /slow; echo_location_async /fast; echo "took $echo_timer_elapsed"; }
        location /series { echo_location /slow; echo_location /fast b=1; echo -n "end"; }
        location /slow { echo_sleep 0.05; echo slow; }
        location /fast { echo "fast $arg_b"; }
        location /multi { echo_subrequest_async POST /sub -q "foo=Foo" -b hi; echo_subrequest PUT /sub -f {DIR}/html/file.txt; }
        location /sub { echo "$echo_request_method $echo_client_request_method $query_string $echo_request_body $http_content_length"; }
        location /count { echo "pre $echo_incr"; echo_location_async /counted; echo -n "post $echo_incr"; }
        location /counted { echo "sub $echo_incr"; }
        location /cycle { echo_location /cycle; }
        location /merge { echo_foreach_split "&" $query_string; echo -n "<$echo_it>"; echo_location_async $echo_it; echo_end; }
        location /around { echo_before_body before; echo_before_body -n "b2 "; proxy_pass http://{BACKEND}/; echo_after_body after $arg_a; }
        location /flushed { echo a; echo_flush; echo_location_async /slow; echo -n z; }
    }"#,
    |t| {
        t.file("html/file.txt", "from a file");
        t.backend().reply("/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody\n");
        t.check(
            "
    GET /main    -> 200 slow\\nfast \\ntook 0.00*
    GET /series  -> 200 slow\\nfast 1\\nend
    GET /multi   -> 200 POST GET foo=Foo hi 2\\nPUT GET  from a file 11*
    GET /count   -> 200 pre 1\\nsub *\\npost *
    GET /merge?/fast&/slow -> 200 </fast>fast \\n</slow>slow*
    GET /around?a=1 -> 200 before\\nb2 body\\nafter 1*
    GET /flushed -> 200 a\\nslow\\nz
    GET /cycle   -> 200
    ",
        );
        t.error_log().expect("too many subrequests");
    }
);

#[test]
fn what_makes_no_sense_is_refused() {
    for (inside, says) in [
        ("echo_foreach_split , a; echo x;", "\"echo_foreach_split\" without \"echo_end\""),
        ("echo_end;", "\"echo_end\" without \"echo_foreach_split\""),
        (
            "echo_foreach_split , a; echo_foreach_split , b; echo_end; echo_end;",
            "nested \"echo_foreach_split\" is not allowed",
        ),
        ("echo_subrequest GET /a -x b;", "unknown option for echo_subrequest: \"-x\""),
        ("echo_subrequest GET /a -q;", "echo_subrequest should take an argument for \"-q\""),
        ("echo_status x;", "invalid status number \"x\""),
        ("echo_foreach_split a;", "invalid number of arguments in \"echo_foreach_split\""),
    ] {
        let conf = format!("events {{ }} http {{ server {{ location / {{ {inside} }} }} }}");
        refuses_conf(&conf, says).unwrap();
    }
}
