//! Which server a request belongs to: names, wildcards, regexes, defaults, addresses.

nginx_test!(
    names_wildcards_and_regexes,
    r#"
    server { listen 127.0.0.1:{PORT}; return 200 first; }
    server { listen 127.0.0.1:{PORT}; server_name exact.example; return 200 exact; }
    server { listen 127.0.0.1:{PORT}; server_name *.wild.example; return 200 wild; }
    server { listen 127.0.0.1:{PORT}; server_name .both.example; return 200 both; }
    server { listen 127.0.0.1:{PORT}; server_name tail.*; return 200 tail; }
    server { listen 127.0.0.1:{PORT}; server_name *.exact.example long.tail.*; return 200 longer; }
    server { listen 127.0.0.1:{PORT}; server_name ~^re(?<n>\d+)\.example$; return 200 re-$n; }
    server { listen 127.0.0.1:{PORT}; server_name ~^re; return 200 second; }"#,
    "
    GET / | Host: unknown.example  -> 200 first
    GET / | Host: exact.example    -> 200 exact
    GET / | Host: EXACT.example:80 -> 200 exact
    GET / | Host: exact.example.   -> 200 exact
    GET / | Host: a.wild.example   -> 200 wild
    GET / | Host: a.b.wild.example -> 200 wild
    GET / | Host: wild.example     -> 200 first
    GET / | Host: both.example     -> 200 both
    GET / | Host: x.both.example   -> 200 both
    GET / | Host: tail.org         -> 200 tail
    GET / | Host: tail.co.uk       -> 200 tail
    GET / | Host: long.tail.org    -> 200 longer
    GET / | Host: www.exact.example -> 200 longer
    GET / | Host: re12.example     -> 200 re-12
    GET / | Host: rex.example      -> 200 second
"
);

nginx_test!(
    no_host_at_all,
    r#"
    server { listen 127.0.0.1:{PORT}; server_name a; return 200 first; }
    server { listen 127.0.0.1:{PORT}; server_name ""; return 200 none; }"#,
    |t| {
        assert!(t.raw("GET / HTTP/1.0\r\n\r\n").ends_with("none"));
    }
);

nginx_test!(
    default_server_and_addresses,
    "
    server { listen 127.0.0.1:{PORT}; server_name a; return 200 a; }
    server { listen 127.0.0.1:{PORT} default_server; server_name b; return 200 b; }
    server { listen {PORT2}; server_name a; return 200 any; }
    server { listen 127.0.0.2:{PORT2}; server_name a; return 200 special; }
    server { listen unix:{DIR}/http.sock; return 200 \"unix $remote_addr\"; }
    server { listen [::1]:{PORT3}; return 200 $server_addr; }",
    |t| {
        t.ask("GET / | Host: x").expect("200 b");
        t.ask("GET / | Host: a").expect("200 a");
        let port = t.port("PORT2");
        let ask =
            |ip: [u8; 4]| crate::harness::Client::connect((ip, port).into()).ask("GET / | Host: a");
        ask([127, 0, 0, 1]).expect("200 any");
        ask([127, 0, 0, 2]).expect("200 special");
        crate::harness::Client::connect_unix(&t.dir().join("http.sock"))
            .ask("GET /")
            .expect("200 unix unix:");
        let v6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, t.port("PORT3")));
        crate::harness::Client::connect(v6).ask("GET /").expect("200 ::1");
    }
);

nginx_test!(server_variables, "
    server { server_name main.example *.alt.example; location / { return 200 $server_name|$host|$http_host|$server_port; } }", "
    GET / | Host: x.alt.example:99 -> 200 main.example|x.alt.example|x.alt.example:99|{PORT}
    GET / | Host: nobody           -> 200 main.example|nobody|nobody|{PORT}
");

nginx_test!(
    many_names_of_one_kind,
    &{
        let servers: String = (0..300)
            .map(|n| {
                format!("server {{ server_name h{n}.example *.w{n}.example; return 200 {n}; }}\n")
            })
            .collect();
        format!("server_names_hash_max_size 2048; {servers}")
    },
    "
    GET / | Host: h0.example -> 200 0
    GET / | Host: h299.example -> 200 299
    GET / | Host: x.w150.example -> 200 150
    GET / | Host: none.example -> 200 0
"
);
