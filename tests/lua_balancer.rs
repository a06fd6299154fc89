//! `balancer_by_lua`: code chooses the peer of each try.

use crate::harness::lua::{lua_test, with_lua};

lua_test!(
    code_chooses_the_peer,
    r#"upstream chosen { server 0.0.0.1; balancer_by_lua_block {
            local host, port = ngx.var.arg_to:match("^(.+):(%d+)$")
            assert(require("ngx.balancer").set_current_peer(host, tonumber(port))) ngx.ctx.tries = (ngx.ctx.tries or 0) + 1 } }
    upstream retried { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer"
            if not ngx.ctx.n then ngx.ctx.n = 1 b.set_more_tries(2) b.set_current_peer("127.0.0.1", ngx.var.arg_dead)
            else local state, code = b.get_last_failure() ngx.ctx.last = state .. code
                b.set_current_peer("127.0.0.1", ngx.var.arg_port) end } }
    upstream limited { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer" local _, why = b.set_more_tries(5) ngx.ctx.why = ngx.ctx.why or why
            b.set_current_peer("127.0.0.1", ngx.var.arg_dead) } }
    upstream left { server {BACKEND}; balancer_by_lua_block { } }
    upstream fails { server {BACKEND}; balancer_by_lua_block { error("no peer for you") } }
    upstream refuses { server {BACKEND}; balancer_by_lua_block { ngx.exit(503) } }
    # An older lua-resty-core has no enable_keepalive.
    upstream kept { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer" b.set_current_peer("127.0.0.1", ngx.var.arg_port)
            if b.enable_keepalive then assert(b.enable_keepalive(60, 100)) end } keepalive 4; }
    upstream slow { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer" b.set_current_peer("127.0.0.1", ngx.var.arg_port) assert(b.set_timeouts(1, 1, 0.05)) } }
    upstream nobody { server 0.0.0.1; balancer_by_lua_block { ngx.ctx.no = { require("ngx.balancer").set_current_peer("not.an.address", 80) } ngx.exit(502) } }
    upstream file { server 0.0.0.1; balancer_by_lua_file html/balancer.lua; }
    server { proxy_set_header Connection "";
        location /chosen { proxy_pass http://chosen/; add_header X-Tries "$upstream_addr"; }
        location /retried { proxy_pass http://retried/; header_filter_by_lua_block { ngx.header["X-Last"] = ngx.ctx.last } }
        location /limited { proxy_pass http://limited/; proxy_next_upstream_tries 2; log_by_lua_block { ngx.log(ngx.ERR, "why: ", ngx.ctx.why, " at ", ngx.var.upstream_addr) } }
        location /left { proxy_pass http://left/; }
        location /fails { proxy_pass http://fails/; }
        location /refuses { proxy_pass http://refuses/; }
        location /kept { proxy_pass http://kept/; }
        location /slow { proxy_pass http://slow/slow; }
        location /nobody { proxy_pass http://nobody/; log_by_lua_block { ngx.log(ngx.ERR, "said: ", ngx.ctx.no[2]) } }
        location /file { proxy_pass http://file/; }
    }"#,
    |t| {
        t.file(
            "html/balancer.lua",
            "require('ngx.balancer').set_current_peer('127.0.0.1', ngx.var.arg_port)",
        );
        t.backend().reply("/", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        t.backend().on("/slow", vec![vec![crate::harness::Step::Hold]]);
        let address = t.backend().address;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = address.port();
        t.check(&format!(
            "
        GET /chosen?to={address} -> 200 hi | X-Tries: {address}
        GET /retried?port={port}&dead={dead} -> 200 hi | X-Last: failed502
        GET /limited?dead={dead} -> 502
        GET /left    -> 200 hi
        GET /fails   -> 500
        GET /refuses -> 503
        GET /nobody  -> 502
        GET /file?port={port} -> 200 hi
        GET /slow?port={port} -> 504
    "
        ));
        let before = t.backend().connections();
        t.check(&format!("GET /kept?port={port} -> 200 hi\nGET /kept?port={port} -> 200 hi"));
        assert_eq!(t.backend().connections(), before + 1, "the second request uses the first's");
        let log = t.error_log();
        log.expect("failed to run balancer_by_lua*: balancer_by_lua(*: no peer for you");
        log.expect(&format!(
            "why: reduced tries due to limit at 127.0.0.1:{dead}, 127.0.0.1:{dead}"
        ));
        log.expect("said: no host allowed");
    }
);

// The peer is checked against the name that code gave (an older lua-resty-core cannot give one).
lua_test!(
    code_names_the_peer_for_tls,
    r#"upstream named { server 0.0.0.1; balancer_by_lua_block {
            assert(require("ngx.balancer").set_current_peer("127.0.0.1", {PORT2}, "www.example.com")) } }
    server { listen 127.0.0.1:{PORT};
        location / { proxy_pass https://named/; proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem;
            proxy_ssl_name wrong.test; proxy_ssl_server_name on; }
        location /version { content_by_lua_block { ngx.print(ngx.config.ngx_lua_version) } } }
    server { listen 127.0.0.1:{PORT2} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;
        location / { return 200 "$ssl_server_name"; } }"#,
    |t| {
        let version: u32 = t.ask("GET /version").text().parse().unwrap();
        match version {
            10027.. => t.check("GET / -> 200 www.example.com"),
            _ => t.check("GET / -> 502"),
        }
    }
);

#[test]
fn it_stands_in_an_upstream_only() {
    for (conf, says) in [
        ("balancer_by_lua_block { }", "\"balancer_by_lua_block\" directive is not allowed here"),
        (
            "upstream a { server 127.0.0.1; balancer_by_lua_block { } balancer_by_lua_block { } }",
            "\"balancer_by_lua_block\" directive is duplicate",
        ),
        ("upstream a { server 127.0.0.1; root x; }", "\"root\" directive is not allowed here"),
        ("upstream a { server 127.0.0.1; nonsense x; }", "unknown directive \"nonsense\""),
    ] {
        let Some(site) = with_lua(conf) else { return };
        let said = site.run_with(&["-t"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(says), "{conf}\n{said}");
    }
}

// The request is written before code chooses: what code changes then is in it if it says so.
lua_test!(
    requests_are_written_anew,
    r#"upstream u { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer"
            ngx.ctx.n = (ngx.ctx.n or 0) + 1
            ngx.var.name = "try" .. ngx.ctx.n
            ngx.req.set_header("X-Tries", ngx.ctx.n)
            if ngx.ctx.n == 1 then b.set_more_tries(1) end
            if ngx.var.arg_anew == "1" or ngx.var.arg_anew == tostring(ngx.ctx.n) then assert(b.recreate_request()) end
            b.set_current_peer("127.0.0.1", ngx.ctx.n == 1 and ngx.var.arg_dead or ngx.var.arg_port) } }
    server { location / { set $name first; proxy_set_header Host $name; proxy_pass http://u; } }
    server { listen unix:{DIR}/echo.sock; location / { content_by_lua_block { ngx.req.read_body()
        ngx.print(ngx.var.http_host, ngx.var.http_x_tries or "-", ngx.req.get_body_data() or "") } } }
    server { listen 127.0.0.1:{PORT2}; location / { proxy_set_header Host $http_host; proxy_pass http://unix:{DIR}/echo.sock; } }"#,
    |t| {
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = t.port("PORT2");
        t.check(&format!(
            "
        GET /?dead={dead}&port={port} -> 200 first-
        GET /?dead={port}&port={port}&anew=1 -> 200 try11
        GET /?dead={dead}&port={port}&anew=2 -> 200 try22
        POST /?dead={dead}&port={port}&anew=2 << body -> 200 try22body
    "
        ));
        t.error_log().expect_times("temporarily disabled", 0);
    }
);

// A try for which code found nobody leaves a mark behind those before it, and the log says what
// nginx was about.
lua_test!(
    tries_without_a_peer_are_marked,
    r#"upstream u { server 0.0.0.1; balancer_by_lua_block {
            local b = require "ngx.balancer"
            ngx.ctx.n = (ngx.ctx.n or 0) + 1
            if ngx.ctx.n > tonumber(ngx.var.arg_tries) then ngx.log(ngx.WARN, "nobody left") ngx.exit(503) end
            b.set_more_tries(1) b.set_current_peer("127.0.0.1", ngx.var.arg_dead) } }
    server { location / { proxy_pass http://u; log_by_lua_block { ngx.log(ngx.WARN, "done") }
        header_filter_by_lua_block { ngx.header["X-Status"] = "<" .. ngx.var.upstream_status .. ">" ngx.header["X-Addr"] = "<" .. ngx.var.upstream_addr .. ">" } } }"#,
    |t| {
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        t.check(&format!(
            "
        GET /?tries=2&dead={dead} -> 503 | X-Status: <502, 502 : > | X-Addr: <127.0.0.1:{dead}, 127.0.0.1:{dead} : >
        GET /?tries=0&dead={dead} -> 503 | X-Status: <-> | X-Addr: <*>
    "
        ));
        let log = t.error_log();
        log.expect("nobody left while connecting to upstream, client: ");
        log.expect("done while logging request, client: ");
    }
);
