//! Variables made of others: `map`, `geo`, `split_clients`, and the built-in ones.

nginx_test!(
    map_in_its_forms,
    r#"
    map $arg_a $plain { default none; one 1; "two words" 2; UPPER up; "" empty; \default escaped; }
    map $arg_a $regex { default -; ~^a(?<rest>.*) $rest; ~*^B(.) "$1"; "~ x y$" spaced; }
    map $host $hosts { hostnames; default other; .example.com dot; *.wild.com wild; tail.* tail; exact.com exact; }
    map $arg_a$arg_b $two { default "$arg_a-$arg_b"; 12 twelve; }
    map $arg_a $chain { default $plain; one $two; }
    map $arg_a $lost { x y; }
    server { location / { return 200 "$plain|$regex|$chain|$lost"; } location /h { return 200 $hosts; }
             location /two { return 200 $two; } }"#,
    "
    GET /?a=one         -> 200 1|-|one-|
    GET /?a=upper       -> 200 up|-|up|
    GET /?a=other       -> 200 none|-|none|
    GET /               -> 200 empty|-|empty|
    GET /?a=default     -> 200 escaped|-|escaped|
    GET /?a=abc         -> 200 none|bc|none|
    GET /?a=bXY         -> 200 none|X|none|
    GET /?a=x           -> 200 none|-|none|y
    GET /two?a=1&b=2    -> 200 twelve
    GET /two?a=x&b=y    -> 200 x-y
    GET /h | Host: example.com -> 200 dot
    GET /h | Host: a.example.com -> 200 dot
    GET /h | Host: b.wild.com  -> 200 wild
    GET /h | Host: tail.org    -> 200 tail
    GET /h | Host: EXACT.com   -> 200 exact
    GET /h | Host: unknown     -> 200 other
"
);

nginx_test!(
    geo_in_its_forms,
    r#"
    geo $by_addr { default none; 127.0.0.0/8 loop; 127.0.0.1 me; }
    geo $arg_ip $by_arg { default none; 10.0.0.0/8 ten; 10.1.0.0/16 ten-one; 10.1.2.3 exact; 2001:db8::/32 six; 0.0.0.0/1 low; delete 0.0.0.0/1; }
    geo $arg_ip $ranges { ranges; default none; 10.0.0.0-10.0.0.9 first; 10.0.0.10-10.0.255.255 second; }
    geo $proxied { default none; proxy 127.0.0.1; 192.0.2.0/24 net; }
    server { location / { return 200 $by_addr|$by_arg|$ranges|$proxied; } }"#,
    "
    GET /                   -> 200 me|none|none|none
    GET /?ip=10.2.3.4       -> 200 me|ten|none|none
    GET /?ip=10.1.9.9       -> 200 me|ten-one|none|none
    GET /?ip=10.1.2.3       -> 200 me|exact|none|none
    GET /?ip=2001:db8::1    -> 200 me|six|none|none
    GET /?ip=10.0.0.5       -> 200 me|ten|first|none
    GET /?ip=10.0.0.10      -> 200 me|ten|second|none
    GET /?ip=garbage        -> 200 me|none|none|none
    GET / | X-Forwarded-For: 192.0.2.7 -> 200 me|none|none|net
    GET / | X-Forwarded-For: 203.0.113.7 -> 200 me|none|none|none
"
);

nginx_test!(
    split_clients_is_stable_and_fair,
    r#"
    split_clients $arg_k $half { 50% a; * b; }
    split_clients "${arg_k}x" $all { 100% all; }
    split_clients $arg_k $most { 0.5% rare; 2.5% some; * rest; }
    server { location / { return 200 $half$all$most; } }"#,
    |t| {
        let ask = |n: usize| t.ask(&format!("GET /?k={n}")).text();
        let answers: Vec<String> = (0..200).map(ask).collect();
        assert_eq!(answers[7], ask(7));
        let a = answers.iter().filter(|x| x.starts_with("aall")).count();
        assert!((60..140).contains(&a), "{a} of 200");
        // MurmurHash2 with seed 0 decides, as nginx has it.
        t.check(
            "
        GET /?k=192.0.2.1 -> 200 ballrest
        GET /?k=192.0.2.2 -> 200 aallrest
        GET /?k=192.0.2.3 -> 200 aallrest
        GET /?k=tollbar   -> 200 ballrest
    ",
        );
    }
);

nginx_test!(variables_of_the_request, r#"
    server { server_name here.example; root {DIR}/html;
        location / { return 200 "$VAR"; } }"#.replace("$VAR",
        "$args|$query_string|$arg_a|$arg_B|$is_args|$uri|$document_uri|$request_uri|$request_filename|$document_root|$host|$hostname|$http_x_y|$cookie_c|$content_length|$content_type|$remote_addr|$server_addr|$server_port|$server_name|$scheme|$https|$request_method|$request|$server_protocol|$remote_user|$nginx_version|$is_request_port|$request_port").replace("|$is_request_port", "").as_str(), |t| {
    let expected = "200 a=1&b=2|a=1&b=2|1|2|?|/p q|/p q|/p%20q?a=1&b=2|{DIR}/html/p q|{DIR}/html|here.example|*|xy|cc|3|t/x|127.0.0.1|127.0.0.1|{PORT}|here.example|http||POST|POST /p%20q?a=1&b=2 HTTP/1.1|HTTP/1.1||*.*.*|"
        .replace("{DIR}", &t.dir().display().to_string()).replace("{PORT}", &t.port("PORT").to_string());
    t.ask("POST /p%20q?a=1&b=2 | Host: here.example | X-Y: xy | Cookie: a=b; c=cc | Content-Type: t/x << abc").expect(&expected);
});

nginx_test!(
    variables_of_the_connection,
    r#"
    server { location / { return 200 "$connection|$connection_requests|$pid|$msec|$time_iso8601|$time_local|$remote_port|$pipe|$request_id|$request_length|$binary_remote_addr"; } }"#,
    |t| {
        let mut client = t.connect();
        let port = client.local_addr().port();
        let first = client
            .ask("GET /")
            .expect(&format!("200 *|1|*|*.*|20*-*T*:*|*/*/20*:*:*|{port}|.|*"))
            .text();
        let second = client.ask("GET /").expect("200 *|2|*").text();
        let id = |text: &str| text.split('|').nth(8).unwrap().to_string();
        assert_eq!(id(&first).len(), 32);
        assert_ne!(id(&first), id(&second));
    }
);
