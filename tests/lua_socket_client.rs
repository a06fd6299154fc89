//! Cosockets that are not connections of Lua's making: datagrams, the request's body, the client.

use crate::harness::lua::{lua_test, with_lua};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

#[test]
fn datagrams_are_answered() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok((len, from)) = server.recv_from(&mut buf) {
            if &buf[..len] != b"silence" {
                let _ = server.send_to(&[b"+", &buf[..len]].concat(), from);
            }
        }
    });
    let conf = r#"server {
        lua_socket_read_timeout 50ms;
        location /udp { content_by_lua_block {
            local sock = ngx.socket.udp()
            ngx.say(sock:receive()) ngx.say(sock:send("x"))
            ngx.say(sock:setpeername("127.0.0.1", UDP))
            ngx.say(sock:send("hello"), " ", sock:receive())
            ngx.say(sock:send({"a", 1}), " ", sock:receive(2))
            sock:send("silence")
            ngx.say(sock:receive())
            ngx.say(sock:settimeout(1000))
            sock:send("more") ngx.say(sock:receive())
            ngx.say(sock:close(), " ", sock:close())
            ngx.say(sock:setpeername("no name", 53))
            ngx.say(sock:setpeername("name", 53))
            ngx.say(sock:setpeername("127.0.0.1", -1))
            ngx.say(pcall(sock.setpeername, sock))
        } }
        location /refused { content_by_lua_block {
            local sock = ngx.socket.udp()
            sock:setpeername("127.0.0.1", 1)
            sock:send("x")
            ngx.say(sock:receive())
        } }
        location /unix { content_by_lua_block {
            local sock = ngx.socket.udp()
            ngx.say(sock:setpeername("unix:{DIR}/datagram.sock"))
            ngx.say(sock:send("hello"), " ", sock:receive())
        } }
    }"#
    .replace("UDP", &port.to_string());
    let Some(site) = with_lua(&conf) else { return };
    site.run(|t| {
        let path = t.dir().join("datagram.sock");
        let unix = UnixDatagram::bind(&path).expect("a socket");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).expect("chmod");
        std::thread::spawn(move || {
            let mut buf = [0; 100];
            while let Ok((len, from)) = unix.recv_from(&mut buf) {
                let to = std::os::unix::net::SocketAddr::clone(&from);
                let _ = unix.send_to_addr(&[b"+", &buf[..len]].concat(), &to);
            }
        });
        t.check(
            r#"
        GET /udp -> 200 nilclosed\nnilclosed\n1\n1 +hello\n1 +a\nniltimeout\n\n+more\n1 nilclosed\nnilno resolver defined to resolve "no name"\nnilno resolver defined to resolve "name"\nnilbad port number: -1\nfalse*setpeername: expecting 2 or 3 arguments (including the object), but seen 1
        GET /refused -> 200 nilconnection refused
        GET /unix -> 200 1\n1 +hello
        "#,
        );
        t.error_log().expect("lua udp socket read timed out, upstream: 127.0.0.1:");
    });
}

lua_test!(
    a_body_is_read_as_a_stream,
    r#"server {
        location /body { content_by_lua_block {
            local sock, err = ngx.req.socket()
            if not sock then return ngx.say(err) end
            sock:settimeout(1000)
            ngx.say(sock:receive(3), "|", sock:receiveuntil("&")(), "|", sock:receive("*a"), "|", sock:receive("*a"), "|", sock:receive())
            ngx.say(ngx.req.socket())
            ngx.say(sock.send, sock.close)
        } }
        location /part { content_by_lua_block { ngx.say(ngx.req.socket():receive(2)) } }
        location /read { content_by_lua_block { ngx.req.read_body() ngx.say(ngx.req.socket()) } }
        location /late { content_by_lua_block {
            local sock = ngx.req.socket()
            sock:settimeout(50)
            ngx.say(sock:receive(5))
            sock:settimeout(5000)
            ngx.say(sock:receive(5))
        } }
        location /sub { content_by_lua_block { ngx.say(ngx.location.capture("/body").status) } }
    }"#,
    |t| {
        t.check(
            r#"
        POST /body << a=1&bb=22&ccc -> 200 a=1||bb=22&ccc||nilclosed\nnilrequest body already exists\nnilnil
        POST /body -> 200 no body
        POST /body | Transfer-Encoding: chunked << 0\r\n\r\n -> 200 chunked request bodies not supported yet
        POST /read << abc -> 200 nilrequest body already exists
        POST /sub << abc -> 200 500
        "#,
        );
        t.error_log().expect("attempt to read the request body in a subrequest");
        let mut client = t.connect();
        client.send("POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345");
        assert_eq!(client.response().text(), "12\n");
        client.send("POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n123");
        std::thread::sleep(std::time::Duration::from_millis(150));
        client.send("45678");
        assert_eq!(client.response().text(), "niltimeout123\n45678\n");
        client.send(
            "POST /part HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n12",
        );
        assert_eq!(client.response().text(), "12\n");
    }
);

lua_test!(
    code_takes_the_connection_of_its_client,
    r#"server {
        location /raw { content_by_lua_block {
            local sock = assert(ngx.req.socket(true))
            sock:settimeout(1000)
            sock:send("HTTP/1.1 200 OK\r\n\r\n")
            while true do
                local line, err = sock:receive()
                if not line then break end
                sock:send("+" .. line .. "\n")
                if line == "quit" then break end
            end
            ngx.log(ngx.ERR, "second: ", select(2, ngx.req.socket(true)))
        } }
        location /after { content_by_lua_block {
            ngx.status = 202
            ngx.header["X-Own"] = "yes"
            ngx.header["Content-Length"] = 1000
            ngx.send_headers()
            ngx.flush(true)
            local sock, err = ngx.req.socket(true)
            if not sock then return ngx.log(ngx.ERR, err) end
            sock:send("+" .. sock:receive() .. "\n")
        } }
        location /access { access_by_lua_block { ngx.req.socket(true):send("by access\n") } content_by_lua_block { ngx.say("no") } }
        location /fails { content_by_lua_block { ngx.req.socket(true):send("some\n") error("x") } }
    }"#,
    |t| {
        assert_eq!(
            t.raw("GET /raw HTTP/1.1\r\nHost: x\r\n\r\none\r\ntwo\nquit\nmore\n"),
            "HTTP/1.1 200 OK\r\n\r\n+one\n+two\n+quit\n"
        );
        t.error_log().expect("second: duplicate call");
        let answer = t.raw("GET /after HTTP/1.1\r\nHost: x\r\n\r\none\n");
        assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
        assert!(
            answer.contains("X-Own: yes\r\n") && answer.ends_with("\r\n\r\n+one\n"),
            "{answer}"
        );
        assert_eq!(t.raw("GET /access HTTP/1.1\r\nHost: x\r\n\r\n"), "by access\n");
        assert_eq!(t.raw("GET /fails HTTP/1.1\r\nHost: x\r\n\r\n"), "some\n");
    }
);
