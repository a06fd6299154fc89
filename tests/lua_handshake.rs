//! Lua in TLS handshakes: `ssl_client_hello_by_lua`, `ssl_certificate_by_lua`, `ngx.ssl`,
//! `ngx.ssl.clienthello`, `tollbar.clienthello`.

use crate::harness::lua::{lua_test, with_lua};
use crate::harness::tls::{Authority, showing, trusting, trusting_with};
use crate::harness::{Client, Site, h2::H2};
use rustls::version::{TLS12, TLS13};
use std::process::{Command, Stdio};

const CERTIFICATE: &str = "ssl_certificate cert.pem; ssl_certificate_key key.pem;";

fn site(conf: &str) -> Option<Site> {
    with_lua(&format!("{CERTIFICATE} lua_shared_dict d 1m;\n{conf}"))
}

fn refused(t: &Site, name: &str) -> String {
    t.try_tls(name, trusting()).err().expect("a refusal")
}

/// The common name, or the first other name, of the certificate that a client is shown.
fn shown_names(client: &Client) -> String {
    let leaf = &client.tls().peer_certificates().expect("certificates")[0];
    String::from_utf8_lossy(leaf).into_owned()
}

#[test]
fn the_hello_is_looked_at() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT} ssl; server_name first.example;
        ssl_client_hello_by_lua_block {
            local hello = require "ngx.ssl.clienthello"
            local name = hello.get_client_hello_server_name()
            ngx.log(ngx.WARN, "hello from ", name, " in ", ngx.get_phase())
            ngx.ctx.name, ngx.ctx.alpn = name, #(hello.get_client_hello_ext(16) or "")
            ngx.ctx.versions = table.concat(hello.get_supported_versions() or {}, ",")
            if name == "slow.example" then ngx.sleep(0.01) end
            if name == "old.example" then hello.set_protocols({ "TLSv1.2" }) end
            if name == "bad.example" then ngx.exit(ngx.ERROR) end
            if name == "late.example" then ngx.sleep(0.001) ngx.exit(ngx.ERROR) end
            if name == "fails.example" then error("no such client") end
            if name == "fine.example" then ngx.exit(ngx.OK) end
        }
        location / { content_by_lua_block {
            ngx.print(ngx.ctx.name, " ", ngx.ctx.alpn, " ", ngx.ctx.versions, " ", ngx.var.ssl_protocol) } }
        location /own { content_by_lua_block {
            local before = ngx.ctx.name ngx.ctx.name = "mine" ngx.print(before, " ", ngx.ctx.name) } } }
    server { listen 127.0.0.1:{PORT} ssl; server_name second.example; return 200 second; }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        let mut client = t.try_tls("a.example", trusting_with(&[&TLS13], &["http/1.1"])).unwrap();
        client.ask("GET /").expect("200 a.example 11 TLSv1.3 TLSv1.3");
        client.ask("GET /own").expect("200 a.example mine");
        client.ask("GET /own").expect("200 a.example mine");
        t.connect_tls("slow.example").ask("GET /").expect("200 slow.example 0 *");
        t.connect_tls("fine.example").ask("GET /").expect("200 fine.example 0 *");
        t.connect_tls("old.example").ask("GET /").expect("200 old.example 0 * TLSv1.2");
        t.connect_tls("second.example").ask("GET / | Host: second.example").expect("200 second");
        for name in ["bad.example", "late.example", "fails.example"] {
            assert!(refused(t, name).contains("InternalError"), "{name}");
        }
        let log = t.error_log();
        log.expect("[warn] *[lua] ssl_client_hello_by_lua(nginx.conf:*):4: hello from a.example in ssl_client_hello, context: ssl_client_hello_by_lua*, client: 127.0.0.1, server: 127.0.0.1:*");
        log.expect("*hello from second.example in*");
        log.expect("[error] *lua entry thread aborted: runtime error: ssl_client_hello_by_lua(nginx.conf:*):11: no such client");
        log.expect_times("[info] *SSL_do_handshake() failed (SSL: error:0A0000EA:SSL routines::callback failed) while SSL handshaking, client: 127.0.0.1*", 3);
    });
}

#[test]
fn every_request_of_a_connection_finds_its_context() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT} ssl; http2 on;
        ssl_client_hello_by_lua_block { ngx.ctx.seen = { n = 0 } }
        ssl_certificate_by_lua_block { ngx.ctx.seen.n = ngx.ctx.seen.n + 10 }
        location / { content_by_lua_block {
            ngx.ctx.seen.n = ngx.ctx.seen.n + 1
            local own = ngx.ctx.own
            ngx.ctx.own = "set"
            ngx.print(ngx.ctx.seen.n, " ", own) } } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        let mut client = t.connect_tls("localhost");
        client.ask("GET /").expect("200 11 nil");
        client.ask("GET /").expect("200 12 nil");
        t.connect_tls("localhost").ask("GET /").expect("200 11 nil");
        let client = t.try_tls("localhost", trusting_with(&[&TLS13], &["h2"])).unwrap();
        H2::over(client).check("GET / -> 200 11 nil\nGET / -> 200 12 nil");
    });
}

#[test]
fn certificates_are_set_by_code() {
    let conf = r#"
    init_by_lua_block {
        function read(name) local f = io.open("{DIR}/" .. name) local text = f:read("*a") f:close() return text end
        function set(name)
            local ssl = require "ngx.ssl"
            assert(ssl.clear_certs())
            assert(ssl.set_cert(assert(ssl.parse_pem_cert(read(name .. ".pem")))))
            assert(ssl.set_priv_key(assert(ssl.parse_pem_priv_key(read(name .. ".key")))))
        end
    }
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_certificate_by_lua_block {
            local ssl = require "ngx.ssl"
            local name = ssl.server_name()
            if name == "pem.example" then set("tenant") end
            if name == "der.example" then
                assert(ssl.clear_certs())
                assert(ssl.set_der_cert(assert(ssl.cert_pem_to_der(read("tenant.pem")))))
                assert(ssl.set_der_priv_key(assert(ssl.priv_key_pem_to_der(read("tenant.key")))))
            end
            if name == "none.example" then assert(ssl.clear_certs()) end
            if name == "wrong.example" then
                ssl.clear_certs()
                ssl.set_cert(ssl.parse_pem_cert(read("tenant.pem")))
                local ok, why = ssl.set_priv_key(ssl.parse_pem_priv_key(read("key.pem")))
                ngx.log(ngx.WARN, "wrong: ", ok, " ", why)
                ngx.log(ngx.WARN, "junk: ", select(2, ssl.parse_pem_cert("x")), ", ", select(2, ssl.set_der_cert("x")))
            end
        }
        location / { return 200 in; } }
    server { listen 127.0.0.1:{PORT} ssl; server_name hello.example;
        ssl_client_hello_by_lua_block { set("tenant") }
        location / { return 200 in; } }"#;
    let Some(site) = site(conf) else { return };
    let (certificate, key) = Authority::new("tenants").sign(&["tenant.test"], 9);
    site.with_file("tenant.pem", certificate).with_file("tenant.key", key).run(|t| {
        for (name, is_tenants) in [
            ("pem.example", true),
            ("der.example", true),
            ("hello.example", true),
            ("other.example", false),
        ] {
            for version in [&TLS12, &TLS13] {
                let mut client = t.try_tls(name, trusting_with(&[version], &[])).unwrap();
                assert_eq!(shown_names(&client).contains("tenant.test"), is_tenants, "{name}");
                client.ask(&format!("GET / | Host: {name}")).expect("200 in");
            }
        }
        assert!(t.try_tls("none.example", trusting()).is_err());
        assert!(t.try_tls("wrong.example", trusting()).is_err());
        t.error_log().expect("*wrong: nil SSL_use_PrivateKey() failed*");
        t.error_log().expect("*junk: PEM_read_bio_X509_AUX() failed, d2i_X509_bio() failed*");
    });
}

#[test]
fn what_code_knows_of_a_handshake() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_certificate_by_lua_block {
            local ssl = require "ngx.ssl"
            local ours, kind = ssl.raw_server_addr()
            local client = ssl.raw_client_addr()
            ngx.ctx.said = table.concat({ ngx.get_phase(), ssl.get_tls1_version_str(), kind, #ours, client:byte(1),
                tostring(ssl.server_port() == {PORT}), tostring(ssl.server_name()),
                ssl.get_client_random and #ssl.get_client_random() or 32 }, " ")
            ngx.ctx.refused = select(2, pcall(function() return ngx.var.uri end)) .. "; "
                .. select(2, pcall(ngx.req.get_headers)) .. "; " .. select(2, pcall(ngx.say, "x"))
        }
        location / { content_by_lua_block { ngx.print(ngx.ctx.said) } }
        location /refused { content_by_lua_block { ngx.print(ngx.ctx.refused) } }
        location /later { content_by_lua_block {
            local ssl = require "ngx.ssl"
            ngx.print(ssl.get_tls1_version_str(), " ", ssl.server_name(), " ", ssl.server_port() == {PORT}, " ", select(2, ssl.clear_certs())) } } }
    server { listen 127.0.0.1:{PORT2};
        location / { content_by_lua_block { local ssl = require "ngx.ssl"
            ngx.print(select(2, ssl.get_tls1_version()), " ", select(2, ssl.server_name())) } } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        let mut client = t.connect_tls("a.example");
        client.ask("GET /").expect("200 ssl_cert TLSv1.3 inet 4 127 true a.example 32");
        client
            .ask("GET /refused")
            .expect("200 *API disabled in the context of ssl_certificate_by_lua*");
        client.ask("GET /later").expect("200 TLSv1.3 a.example true bad request");
        let mut old = t.try_tls("a.example", trusting_with(&[&TLS12], &[])).unwrap();
        old.ask("GET /").expect("200 ssl_cert TLSv1.2 *");
        Client::connect(t.address("PORT2")).ask("GET /").expect("200 bad request bad request");
    });
}

#[test]
fn clients_are_asked_for_certificates() {
    let conf = r#"
    init_by_lua_block {
        function read(name) local f = io.open("{DIR}/" .. name) local text = f:read("*a") f:close() return text end
    }
    server { listen 127.0.0.1:{PORT} ssl; ssl_session_cache shared:s:1m;
        ssl_certificate_by_lua_block {
            local ssl = require "ngx.ssl"
            if ssl.server_name() == "asks.example" then
                assert(ssl.verify_client(assert(ssl.parse_pem_cert(read("ca.pem"))), 1))
            end
        }
        location / { return 200 "$ssl_client_verify $ssl_session_reused"; } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        let with = showing(&t.read("client.pem").unwrap(), &t.read("client.key").unwrap());
        let ask = |name: &str, config| {
            t.try_tls(name, config).unwrap().ask(&format!("GET / | Host: {name}"))
        };
        ask("asks.example", with.clone()).expect("200 SUCCESS .");
        ask("asks.example", trusting()).expect("200 NONE .");
        let (certificate, key) = Authority::new("others").sign(&["x"], 3);
        ask("asks.example", showing(&certificate, &key)).expect("200 FAILED:* .");
        // What was judged for one is no session of another.
        ask("asks.example", with.clone()).expect("200 SUCCESS .");
        let plain = trusting();
        ask("plain.example", plain.clone()).expect("200 NONE .");
        ask("plain.example", plain).expect("200 NONE r");
    });
}

#[test]
fn the_hello_may_wait_for_others() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT2};
        location /judge { content_by_lua_block { ngx.print(ngx.var.arg_ja4:sub(1, 1) == "t" and "allow" or "deny") } } }
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_client_hello_by_lua_block {
            local hello = require "tollbar.clienthello"
            local sock = ngx.socket.tcp()
            sock:settimeouts(1000, 1000, 1000)
            assert(sock:connect("127.0.0.1", {PORT2}))
            sock:send("GET /judge?ja4=" .. hello.ja4() .. " HTTP/1.0\r\nHost: a\r\n\r\n")
            local thread = ngx.thread.spawn(function() return sock:receive("*a") end)
            local _, reply = ngx.thread.wait(thread)
            ngx.ctx.verdict = reply:match("\r\n\r\n(.*)$")
            ngx.shared.d:incr("hellos", 1, 0)
            ngx.timer.at(0, function() ngx.log(ngx.WARN, "a timer of a hello") end)
            if ngx.ctx.verdict ~= "allow" then ngx.exit(ngx.ERROR) end
        }
        location / { content_by_lua_block { ngx.print(ngx.ctx.verdict, " ", ngx.shared.d:get("hellos")) } } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        t.connect_tls("localhost").ask("GET /").expect("200 allow 1");
        t.connect_tls("localhost").ask("GET /").expect("200 allow 2");
        t.error_log().expect("[warn] *a timer of a hello, context: ngx.timer, client: 127.0.0.1, server: 127.0.0.1:*");
    });
}

#[test]
fn a_client_that_leaves_ends_the_code() {
    let conf = r#"client_header_timeout 300ms;
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_client_hello_by_lua_block {
            local name = require("ngx.ssl.clienthello").get_client_hello_server_name()
            if name == "wait.example" then
                ngx.shared.d:incr("begun", 1, 0) ngx.sleep(60) ngx.shared.d:incr("ended", 1, 0)
            end
        }
        location / { content_by_lua_block { ngx.print(ngx.shared.d:get("begun"), " ", ngx.shared.d:get("ended")) } } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        assert!(t.try_tls("wait.example", trusting()).is_err());
        t.connect_tls("localhost").ask("GET /").expect("200 1 nil");
        t.error_log().expect("[info] *client timed out (110: Connection timed out) while SSL handshaking, client: 127.0.0.1*");
    });
}

/// Both modules, and code in files, on the level of `http {}`.
#[test]
fn facts_of_the_hello() {
    let conf = r#"
    ssl_client_hello_by_lua_file {DIR}/hello.lua; ssl_certificate_by_lua_file {DIR}/cert.lua;
    server { listen 127.0.0.1:{PORT} ssl;
        location / { content_by_lua_block {
            local hello, facts = require "tollbar.clienthello", ngx.ctx.facts
            ngx.say(hello.ja3_hash() == facts.ja3_hash and ngx.var.http_ssl_ja3_hash == nil)
            ngx.say(hello.ja4() == facts.ja4, " ", facts.ja4:sub(1, 4), " ", #facts.ja4_raw > #facts.ja4)
            ngx.say(hello.server_name(), " ", facts.name, " ", facts.alpn, " ", hello.alpn(), " ", hello.raw())
            ngx.say(facts.raw:byte(1), " ", #facts.raw > 100, " ", facts.same, " ", facts.certificate)
            ngx.say(#hello.ciphers() == facts.ciphers, " ", hello.versions()[1], " ", #hello.groups() > 0, " ", #hello.signature_algorithms() > 0)
        } } }
    server { listen 127.0.0.1:{PORT2};
        location / { content_by_lua_block { ngx.print(require("tollbar.clienthello").ja4()) } } }"#;
    let Some(site) = site(conf) else { return };
    let site = site.with_file(
        "hello.lua",
        r#"local hello, ours = require "ngx.ssl.clienthello", require "tollbar.clienthello"
        local facts = { ja3_hash = ours.ja3_hash(), ja4 = ours.ja4(), ja4_raw = ours.ja4_raw(), name = ours.server_name(),
            alpn = table.concat(ours.alpn(), ","), raw = ours.raw(), ciphers = #ours.ciphers() }
        facts.same = true
        for _, kind in ipairs(ours.extensions()) do
            facts.same = facts.same and hello.get_client_hello_ext(kind) ~= nil
        end
        ngx.ctx.facts = facts"#,
    );
    site.with_file("cert.lua", "ngx.ctx.facts.certificate = ngx.get_phase()").run(|t| {
        let mut client = t.try_tls("a.example", trusting_with(&[&TLS13], &["http/1.1"])).unwrap();
        let said = client.ask("GET /").expect("200").text();
        assert_eq!(
            said,
            "true\ntrue t13d true\na.example a.example http/1.1 nil nil\n1 true true ssl_cert\ntrue 772 true true\n"
        );
        Client::connect(t.address("PORT2")).ask("GET /").expect("200 nil");
    });
}

/// A real client, whose fingerprint the variable and the module agree on.
#[test]
fn openssl_is_known_by_its_hello() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_client_hello_by_lua_block { ngx.ctx.ja4 = require("tollbar.clienthello").ja4() }
        location / { content_by_lua_block { ngx.print(ngx.ctx.ja4 == ngx.var.ssl_ja4, " ", ngx.ctx.ja4) } } }"#;
    let Some(site) = site(conf) else { return };
    site.run(|t| {
        let Ok(mut client) = Command::new("openssl")
            .args(["s_client", "-quiet", "-servername", "a.example", "-connect"])
            .arg(t.address("PORT").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        else {
            return;
        };
        use std::io::{Read, Write};
        let mut stdin = client.stdin.take().expect("piped");
        stdin.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
        let mut reply = String::new();
        client.stdout.take().expect("piped").read_to_string(&mut reply).unwrap();
        client.wait().unwrap();
        assert!(reply.contains("true t13d"), "{reply}");
    });
}

lua_test!(
    a_server_without_tls_has_no_handshakes,
    "ssl_client_hello_by_lua_block { error('never') }
     server { location / { return 200 plain; } }",
    "GET / -> 200 plain"
);

/// Recorded hellos, with the fingerprints that another implementation gives them.
#[test]
fn recorded_clients_have_the_fingerprints_that_others_give_them() {
    let conf = r#"
    server { listen 127.0.0.1:{PORT} ssl;
        ssl_client_hello_by_lua_block {
            local hello = require "tollbar.clienthello"
            ngx.shared.d:set("last", hello.ja3_hash() .. " " .. hello.ja4())
            ngx.exit(ngx.ERROR)
        } }
    server { listen 127.0.0.1:{PORT2};
        location / { content_by_lua_block { ngx.print(ngx.shared.d:get("last")) } } }"#;
    let Some(site) = site(conf) else { return };
    let rows = include_str!("hellos.tsv").lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() >= 20);
    site.run(|t| {
        for row in &rows {
            let [name, ja3, ja4, hex] = row[..] else { panic!("four columns: {row:?}") };
            let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            let mut client = Client::connect(t.address("PORT"));
            client.send(bytes);
            client.read_to_end();
            let seen = Client::connect(t.address("PORT2")).ask("GET /").text();
            assert_eq!(seen, format!("{ja3} {ja4}"), "{name}");
        }
    });
}
