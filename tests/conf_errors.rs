//! What the configuration reader refuses, in nginx's words, with file and line.

use crate::harness::{refuses_conf, warns_of_conf};

/// Tries all cases and reports those that differ.
fn all(differences: impl Iterator<Item = Result<(), String>>) {
    let differences: Vec<String> = differences.filter_map(Result::err).collect();
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

/// Configurations of the main context and what is said of them.
#[test]
fn the_language() {
    let cases = [
        ("unknown_thing on;", "[emerg] unknown directive \"unknown_thing\" in {CONF}:1"),
        (
            "events { }\n\nhttp { listen 80; }",
            "\"listen\" directive is not allowed here in {CONF}:3",
        ),
        (
            "events { } worker_processes 1",
            "unexpected end of file, expecting \";\" or \"}\" in {CONF}:1",
        ),
        ("events {", "unexpected end of file, expecting \"}\" in {CONF}:1"),
        ("events { } }", "unexpected \"}\" in {CONF}:1"),
        ("events { } ;", "unexpected \";\" in {CONF}:1"),
        (
            "events { } worker_processes 1 2;",
            "invalid number of arguments in \"worker_processes\" directive in {CONF}:1",
        ),
        (
            "events { } worker_processes;",
            "invalid number of arguments in \"worker_processes\" directive in {CONF}:1",
        ),
        (
            "events { } worker_processes none;",
            "\"worker_processes\" directive invalid value in {CONF}:1",
        ),
        ("events;", "directive \"events\" has no opening \"{\" in {CONF}:1"),
        (
            "events { } worker_processes 1 { }",
            "directive \"worker_processes\" is not terminated by \";\" in {CONF}:1",
        ),
        (
            "events { } worker_processes 1; worker_processes 2;",
            "\"worker_processes\" directive is duplicate in {CONF}:1",
        ),
        ("events { } error_log x.log bad;", "invalid log level \"bad\""),
        (
            "events { } include {DIR}/none.conf;",
            "open() \"{DIR}/none.conf\" failed (2: No such file or directory) in {CONF}:1",
        ),
        ("events { } pid \"a", "unexpected end of file"),
        ("events { } pid \"a\"b;", "unexpected \"b\" in {CONF}:1"),
        ("events { worker_connections x; }", "invalid number \"x\""),
        ("events { use nothing; }", "invalid event type \"nothing\" in {CONF}:1"),
        ("worker_processes 1;", "no \"events\" section in configuration"),
        ("events { } events { }", "\"events\" directive is duplicate in {CONF}:1"),
        ("events { } http { } http { }", "\"http\" directive is duplicate in {CONF}:1"),
    ];
    all(cases.iter().map(|(conf, said)| refuses_conf(conf, said)));
}

/// What is said of the inside of a server.
#[test]
fn servers_and_locations() {
    let cases = [
        (
            "listen 127.0.0.1:99999;",
            "invalid port in \"127.0.0.1:99999\" of the \"listen\" directive",
        ),
        (
            "listen bad_host_name.invalid:80;",
            "host not found in \"bad_host_name.invalid:80\" of the \"listen\" directive",
        ),
        ("listen 127.0.0.1:{PORT} nonsense;", "invalid parameter \"nonsense\""),
        (
            "listen 127.0.0.1:{PORT}; listen 127.0.0.1:{PORT};",
            "a duplicate listen 127.0.0.1:{PORT}",
        ),
        ("location / { } location / { }", "duplicate location \"/\""),
        ("location /a { location /b { } }", "location \"/b\" is outside location \"/a\""),
        (
            "location = /a { location /a/b { } }",
            "location \"/a/b\" cannot be inside the exact location \"/a\"",
        ),
        ("location ~ ^/(a { }", "pcre2_compile() failed: missing closing parenthesis in \"^/(a\""),
        ("location !! /a { }", "invalid location modifier \"!!\""),
        ("location / { location @a { } }", "named location \"@a\" can be on the server level only"),
        ("server_name ~(;", "pcre2_compile() failed"),
        ("root /a; root /b;", "\"root\" directive is duplicate"),
        (
            "location / { root /a; alias /b; }",
            "\"alias\" directive is duplicate, \"root\" directive was specified earlier",
        ),
        ("return;", "invalid number of arguments in \"return\" directive"),
        ("return nonsense;", "invalid return code \"nonsense\""),
        ("return 1000;", "invalid return code \"1000\""),
        ("rewrite a;", "invalid number of arguments in \"rewrite\" directive"),
        ("rewrite a b c;", "invalid parameter \"c\""),
        ("set x y;", "invalid variable name \"x\""),
        ("set $host y;", "the duplicate \"host\" variable"),
        ("return 200 $unknown_one;", "unknown \"unknown_one\" variable"),
        ("return 200 $;", "invalid variable name"),
        ("if ($host = ) { }", "invalid condition"),
        ("if (a b) { }", "invalid condition \"a\""),
        ("client_max_body_size x;", "\"client_max_body_size\" directive invalid value"),
        (
            "sendfile maybe;",
            "invalid value \"maybe\" in \"sendfile\" directive, it must be \"on\" or \"off\"",
        ),
        ("keepalive_timeout x;", "\"keepalive_timeout\" directive invalid value"),
        ("satisfy maybe;", "invalid value \"maybe\""),
        ("error_page 200 /x;", "value \"200\" must be between 300 and 599"),
        ("error_page 499;", "invalid number of arguments in \"error_page\" directive"),
        ("expires nonsense;", "invalid value"),
        ("access_log a.log unknown;", "unknown log format \"unknown\""),
        ("location / { proxy_pass http://; }", "no host in upstream \"\""),
        ("location / { proxy_pass ftp://a/; }", "invalid URL prefix"),
        (
            "location / { proxy_pass http://no_such_host.invalid; }",
            "host not found in upstream \"no_such_host.invalid\"",
        ),
        (
            "location ~ a { proxy_pass http://127.0.0.1/x; }",
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, or inside \"if\" statement, or inside \"limit_except\" block",
        ),
        (
            "location / { proxy_pass http://127.0.0.1; proxy_pass http://127.0.0.1; }",
            "\"proxy_pass\" directive is duplicate",
        ),
        ("proxy_buffers 1 4k;", "there must be at least 2 \"proxy_buffers\""),
        (
            "proxy_busy_buffers_size 1k;",
            "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        ),
        ("limit_req zone=none;", "zero size shared memory zone \"none\""),
        ("limit_conn none 1;", "zero size shared memory zone \"none\""),
        ("allow nonsense;", "invalid parameter \"nonsense\""),
        (
            "auth_basic_user_file;",
            "invalid number of arguments in \"auth_basic_user_file\" directive",
        ),
        ("set_real_ip_from x y;", "invalid number of arguments"),
        ("try_files a;", "invalid number of arguments in \"try_files\" directive"),
        (
            "ssl_certificate none.pem; ssl_certificate_key none.key; listen 127.0.0.1:{PORT} ssl;",
            "cannot load certificate \"{DIR}/none.pem\"",
        ),
        (
            "listen 127.0.0.1:{PORT} ssl;",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {CONF}:1",
        ),
        (
            "listen 127.0.0.1:{PORT} ssl; ssl_reject_handshake on; }\n\
             server { listen 127.0.0.1:{PORT} ssl; server_name a;",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {CONF}:2",
        ),
    ];
    all(cases.iter().map(|(inside, said)| {
        refuses_conf(&format!("events {{ }} http {{ server {{ {inside} }} }}"), said)
    }));
}

/// What is said of the inside of `http`.
#[test]
fn the_http_block() {
    let cases = [
        (
            "server { listen 127.0.0.1:{PORT} default_server; } server { listen 127.0.0.1:{PORT} default_server; }",
            "a duplicate default server for 127.0.0.1:{PORT}",
        ),
        ("upstream u { }", "no servers are inside upstream"),
        (
            "upstream u { server 127.0.0.1; } upstream u { server 127.0.0.1; }",
            "duplicate upstream \"u\"",
        ),
        ("upstream u { server 127.0.0.1 weight=x; }", "invalid parameter \"weight=x\""),
        (
            "upstream u { server no_such_host.invalid; }",
            "host not found in upstream \"no_such_host.invalid\"",
        ),
        ("map $a $b { x; }", "invalid number of the map parameters"),
        ("map $host $b { default a; default b; }", "duplicate default map parameter"),
        ("map $host $b { a 1; a 2; }", "conflicting parameter \"a\""),
        ("geo $g { 10.0.0.0/99 x; }", "invalid network \"10.0.0.0/99\""),
        ("split_clients $host $x { 60% a; 60% b; }", "percent total is greater than 100%"),
        (
            "limit_req_zone $host zone=z:1m;",
            "invalid number of arguments in \"limit_req_zone\" directive",
        ),
        ("limit_req_zone $host zone=z:1k rate=1r/s;", "zone \"zone=z:1k\" is too small"),
        ("limit_req_zone $host zone=z:1m rate=1x;", "invalid rate \"rate=1x\""),
        (
            "limit_conn_zone $host zone=z:1m; limit_conn_zone $uri zone=z:1m;",
            "is already bound to key",
        ),
        (
            "limit_conn_zone $host zone=z:1m; limit_req_zone $host zone=z:1m rate=1r/s;",
            "the shared memory zone \"z\" is already declared for a different use",
        ),
        ("log_format x a; log_format x b;", "duplicate \"log_format\" name \"x\""),
        ("log_format x $nothing;", "unknown \"nothing\" variable"),
        ("variables_hash_max_size x;", "invalid number"),
    ];
    all(cases
        .iter()
        .map(|(inside, said)| refuses_conf(&format!("events {{ }} http {{ {inside} }}"), said)));
}

#[test]
fn warnings_that_do_not_stop() {
    let cases = [
        (
            "server { listen 127.0.0.1:{PORT}; server_name a; } server { listen 127.0.0.1:{PORT}; server_name a; }",
            "[warn] *conflicting server name \"a\" on 127.0.0.1:{PORT}, ignored",
        ),
        (
            "server { listen 127.0.0.1:{PORT} http2; }",
            "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead in {CONF}:1",
        ),
        (
            "types { a/b x; c/d x; }",
            "duplicate extension \"x\", content type: \"c/d\", previous content type: \"a/b\" in {CONF}:1",
        ),
    ];
    all(cases
        .iter()
        .map(|(inside, said)| warns_of_conf(&format!("events {{ }} http {{ {inside} }}"), said)));
}

#[test]
fn includes_count_their_own_lines() {
    let site = crate::harness::Site::whole("events { }\nhttp {\ninclude {DIR}/parts/*.conf;\n}\n")
        .with_file("parts/a.conf", "server { listen 127.0.0.1:1; }\n")
        .with_file("parts/b.conf", "# one\n# two\nnonsense 1;\n");
    let output = site.run_with(&["-t"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(&format!(
            "unknown directive \"nonsense\" in {}/parts/b.conf:3",
            site.dir().display()
        )),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}
