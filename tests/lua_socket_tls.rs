//! Cosockets with TLS: `sslhandshake`, and real programs behind cosockets.

use crate::harness::lua::{lua_test, with_lua};
use crate::harness::ports::Port;
use crate::harness::wait_for;
use std::net::TcpStream;
use std::process::{Command, Stdio};

const SHAKE: &str = r#"
    init_by_lua_block {
        function shake(name, verify, session, cert, key)
            local sock = ngx.socket.tcp()
            sock:settimeout(3000)
            assert(sock:connect("127.0.0.1", {PORT2}))
            if cert then assert(sock:setclientcert(cert, key)) end
            local ok, err = sock:sslhandshake(session, name, verify)
            return ok, err, sock
        end
        function ask(sock)
            sock:send("GET /who HTTP/1.0\r\nHost: example.com\r\n\r\n")
            return (sock:receive("*a"):match("\r\n\r\n(.*)$"))
        end
    }
    ssl_certificate {DIR}/cert.pem; ssl_certificate_key {DIR}/key.pem;
    ssl_client_certificate {DIR}/ca.pem; ssl_verify_client optional;
    server { listen 127.0.0.1:{PORT2} ssl; server_name example.com;
        location /who { return 200 "$ssl_server_name:$ssl_session_reused:$ssl_client_verify:$ssl_protocol"; } }
"#;

#[test]
fn a_connection_becomes_secure() {
    let conf = SHAKE.to_owned()
        + r#"
    server {
        location /plain { content_by_lua_block {
            local ok, err, sock = shake("example.com")
            ngx.say(type(ok), " ", ask(sock))
            ok, err, sock = shake("example.com", false, false)
            ngx.say(ok, " ", ask(sock))
            ngx.say(sock:send("x"))
        } }
        location /again { content_by_lua_block {
            local session, err, sock = shake("example.com")
            local first = ask(sock)
            local second
            second, err, sock = shake("example.com", false, session)
            ngx.say(first, " ", ask(sock), " ", type(second), " ", err)
        } }
        location /distrust { content_by_lua_block {
            local ok, err, sock = shake("example.com", true)
            ngx.say(ok, " ", err, " ", sock:send("x"))
        } }
        location /trust {
            lua_ssl_trusted_certificate {DIR}/ca.pem; lua_ssl_verify_depth 2; lua_ssl_crl {DIR}/crl.pem;
            lua_ssl_protocols TLSv1.2; lua_ssl_ciphers HIGH;
            content_by_lua_block {
                local ok, err, sock = shake("example.com", true, false)
                ngx.say(ok, " ", ask(sock))
                local _, why = shake("other.org", true) ngx.say(why)
            }
        }
        location /shown {
            lua_ssl_certificate {DIR}/client.pem; lua_ssl_certificate_key {DIR}/client.key;
            content_by_lua_block { local _, _, sock = shake("example.com") ngx.say(ask(sock)) }
        }
        location /set { content_by_lua_block {
            local ffi = require "ffi"
            ffi.cdef[[
                void *ngx_http_lua_ffi_parse_pem_cert(const unsigned char *pem, size_t len, char **err);
                void *ngx_http_lua_ffi_parse_pem_priv_key(const unsigned char *pem, size_t len, char **err);
                void ngx_http_lua_ffi_free_cert(void *cert);
                void ngx_http_lua_ffi_free_priv_key(void *key);
            ]]
            local function read(name) local f = io.open("{DIR}/" .. name) local text = f:read("*a") f:close() return text end
            local err = ffi.new("char *[1]")
            local pem, text = read("client.pem"), read("client.key")
            local cert = ffi.C.ngx_http_lua_ffi_parse_pem_cert(pem, #pem, err)
            local key = ffi.C.ngx_http_lua_ffi_parse_pem_priv_key(text, #text, err)
            local _, _, sock = shake("example.com", false, nil, cert, key)
            ngx.say(ask(sock))
            ffi.C.ngx_http_lua_ffi_free_cert(cert) ffi.C.ngx_http_lua_ffi_free_priv_key(key)
            local _, why = shake("example.com", false, nil, cert, key) ngx.say(why)
            ngx.say(ffi.C.ngx_http_lua_ffi_parse_pem_cert("x", 1, err) == nil, " ", ffi.string(err[0]))
        } }
        location /bad { content_by_lua_block {
            local sock = ngx.socket.tcp()
            sock:settimeout(300)
            assert(sock:connect("127.0.0.1", {PORT}))
            ngx.say(sock:sslhandshake(nil, "x"))
            ngx.say(sock:sslhandshake(nil, "x"))
        } }
        location /pool { content_by_lua_block {
            local function use()
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", {PORT2}, {pool = "tls"}))
                local reused = sock:getreusedtimes()
                local ok = sock:sslhandshake(false, "example.com")
                sock:send("GET /who HTTP/1.1\r\nHost: example.com\r\n\r\n")
                local length
                repeat
                    local line = sock:receive()
                    length = line:match("^Content%-Length: (%d+)") or length
                until line == ""
                local text = sock:receive(tonumber(length))
                return reused, ok, text, sock:setkeepalive(10000, 5)
            end
            ngx.say(use()) ngx.say(use())
        } }
    }"#;
    let Some(site) = with_lua(&conf) else { return };
    site.run(|t| {
        t.check(
            r#"
        GET /plain -> 200 cdata example.com:.:NONE:TLSv1.3\ntrue example.com:.:NONE:TLSv1.3\n1
        GET /again -> 200 example.com:.:NONE:TLSv1.3 example.com:r:NONE:TLSv1.3 cdata nil
        GET /distrust -> 200 nil 20: unable to get local issuer certificate nilclosed
        GET /trust -> 200 true example.com:.:NONE:TLSv1.2\ncertificate host mismatch
        GET /shown -> 200 example.com:.:SUCCESS:TLSv1.3
        GET /set -> 200 example.com:.:SUCCESS:TLSv1.3\ninvalid client certificate chain\ntrue PEM_read_bio_X509_AUX() failed
        GET /bad -> 200 nilhandshake failed\nnilclosed
        GET /pool -> 200 0trueexample.com:.:NONE:TLSv1.31\n1trueexample.com:.:NONE:TLSv1.31
        "#,
        );
        let log = t.error_log();
        log.expect("lua ssl certificate verify error: (20: unable to get local issuer certificate), upstream: 127.0.0.1:");
        log.expect("lua ssl certificate does not match host \"other.org\"");
        log.expect("SSL_do_handshake() failed");
    });
}

lua_test!(
    certificates_that_cannot_be_read_are_told_with_the_configuration,
    r#"server { location / { content_by_lua_block { ngx.say(ngx.socket.tcp ~= nil) } } }"#,
    |t| {
        t.check("GET / -> 200 true");
        for (directive, message) in [
            ("lua_ssl_trusted_certificate no.pem;", "cannot load certificate"),
            ("lua_ssl_certificate {DIR}/cert.pem;", "no \"lua_ssl_certificate_key\" is defined"),
            ("lua_ssl_protocols SSLv9;", "invalid value \"SSLv9\""),
            ("lua_socket_pool_size -1;", "invalid number"),
        ] {
            let paths = crate::harness::lua::paths().unwrap_or_default();
            let conf = format!("events {{}} http {{ {paths} {directive} }}");
            if let Err(why) = crate::harness::refuses_conf(&conf, message) {
                panic!("{why}");
            }
        }
    }
);

/// A real Redis, asked by lua-resty-redis, if both are there.
#[test]
fn redis_is_asked_over_a_pool() {
    let paths = crate::harness::lua::paths().unwrap_or_default();
    let library = paths.split('"').nth(1).unwrap_or_default();
    let file = library.replace("/?.lua;;", "/resty/redis.lua");
    let port = Port::hold();
    if !std::path::Path::new(&file).exists() {
        return eprintln!("skipped: resty/redis.lua is not there");
    }
    let redis = Command::new("redis-server")
        .args(["--port", &port.number.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn();
    let Ok(redis) = redis else {
        return eprintln!("skipped: redis-server is not there");
    };
    let _redis = Killed(redis);
    let there = wait_for(|| TcpStream::connect(("127.0.0.1", port.number)).ok());
    let conf = r#"server {
        location /redis { content_by_lua_block {
            local redis = require "resty.redis"
            local red = redis:new()
            red:set_timeouts(1000, 1000, 1000)
            assert(red:connect("127.0.0.1", REDIS))
            ngx.print(red:get_reused_times(), " ")
            ngx.print(red:set("a", "1"), " ", red:incr("a"), " ", red:get("a"), " ", red:get("no") == ngx.null, " ")
            red:init_pipeline() red:set("b", ("x"):rep(100000)) red:get("b") red:del("b")
            local all = assert(red:commit_pipeline())
            ngx.print(all[1], " ", #all[2], " ", all[3], " ")
            ngx.say(red:hset("h", "k", "v"), " ", red:hgetall("h")[2], " ", red:set_keepalive(10000, 10))
        } }
    }"#
    .replace("REDIS", &port.number.to_string());
    let site = with_lua(&conf).filter(|_| there.is_some());
    if let Some(site) = site {
        site.run(|t| {
            t.check(
                r#"
            GET /redis -> 200 0 OK 2 2 true OK 100000 1 1 v 1
            GET /redis -> 200 1 OK 2 2 true OK 100000 1 0 v 1
            GET /redis -> 200 2 OK 2 2 true OK 100000 1 0 v 1
            "#,
            );
        });
    }
}

/// A program that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
