//! `userid`: a cookie per browser.

nginx_test!(
    browsers_are_numbered,
    "
    map $arg_reset $uid_reset { 1 1; log log; default 0; }
    server { userid on; userid_service 1; add_header X-Set $uid_set; add_header X-Got $uid_got;
        location / { return 200; }
        location /all { userid_name me; userid_domain example.com; userid_path /all; userid_mark t;
            userid_expires max; userid_p3p 'CP=1'; userid_flags secure httponly samesite=lax;
            return 200; }
        location /log { userid log; return 200 $uid_got$uid_set; }
        location /v1 { userid v1; userid_expires 1h; return 200; }
        location /off { userid off; return 200 [$uid_got$uid_set]; } }",
    |t| {
        t.check(
            "
        GET /     -> 200 | Set-Cookie: uid=*==; path=/ | X-Set: uid=01000000* | !X-Got
        GET /all  -> 200 | Set-Cookie: me=*t=; expires=Thu, 31-Dec-37 23:55:55 GMT; domain=example.com; path=/all; secure; httponly; samesite=lax | P3P: CP=1
        GET /log  -> 200 | !Set-Cookie
        GET /off  -> 200 [] | !Set-Cookie
        GET /v1   -> 200 | Set-Cookie: uid=*==; expires=*-*-* *:*:* GMT; path=/ | X-Set: uid=00000001*
        GET / | Cookie: uid=short    -> 200 | Set-Cookie: uid=*
        GET / | Cookie: uid=!!!!!!!!!!!!!!!!!!!!!!!! -> 200 | Set-Cookie: uid=*
    ",
        );
        t.error_log().expect("[error] *client sent too short userid cookie \"uid=short\"");
        t.error_log().expect("[error] *client sent invalid userid cookie \"uid=!!!*\"");
        let first = t.ask("GET /");
        let cookie = first.header("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
        let number = first.header("X-Set").unwrap().to_owned();
        let with = |path: &str| t.ask(&format!("GET {path} | Cookie: a=b; {cookie}"));
        let again = with("/");
        assert_eq!((again.header("X-Got"), again.header("Set-Cookie")), (Some(&*number), None));
        assert_eq!(with("/log").text(), number);
        let reset = with("/?reset=log");
        assert!(reset.header("Set-Cookie").is_some_and(|new| !new.starts_with(&cookie)));
        t.error_log().expect(&format!("[notice] *userid cookie \"{number}\" was reset"));
    }
);
