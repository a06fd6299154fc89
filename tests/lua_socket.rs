//! Cosockets: `ngx.socket.tcp`, its pools, `ngx.req.socket`.

use crate::harness::lua::{lua_test, with_lua};
use crate::harness::{Dns, Says, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A peer that answers each line with one that begins with `+`, as long as it lives. `slow`
/// waits before it answers, `quit` ends the connection, `halves` sends a line in two pieces.
struct Peer {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Peer {
    fn start() -> Peer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let peer = Peer { address, accepted: Arc::default(), open: Arc::default() };
        let (accepted, open) = (peer.accepted.clone(), peer.open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, SeqCst);
                open.fetch_add(1, SeqCst);
                let open = open.clone();
                std::thread::spawn(move || {
                    let _ = answer(stream);
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        peer
    }

    fn expect_open(&self, n: usize) {
        let found = || (self.open.load(SeqCst) == n).then_some(());
        wait_for(found).unwrap_or_else(|| panic!("{} are open", self.open.load(SeqCst)));
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        match line.trim_end() {
            "quit" => return Ok(()),
            "slow" => std::thread::sleep(Duration::from_millis(400)),
            "halves" => {
                stream.write_all(b"one ")?;
                std::thread::sleep(Duration::from_millis(30));
                stream.write_all(b"two\r\n")?;
            }
            "many" => stream.write_all(&vec![b'x'; 200_000])?,
            _ => {}
        }
        stream.write_all(format!("+{}\r\n", line.trim_end()).as_bytes())?;
        line.clear();
    }
    Ok(())
}

const WITH_PEER: &str = r#"
    init_by_lua_block {
        PEER = PEER_PORT
        function dial(opts)
            local sock = ngx.socket.tcp()
            sock:settimeout(5000)
            assert(sock:connect("127.0.0.1", PEER, opts))
            return sock
        end
    }
    resolver DNS_ADDRESS; resolver_timeout 1s;
"#;

/// A test against a peer: locations of one server, and the talk.
fn with_peer(locations: &str, talk: impl FnOnce(&mut crate::harness::Site, &Peer)) {
    let (peer, dns) = (Peer::start(), Dns::start());
    dns.say("peer.example", Says::hosts(&["127.0.0.1"], 60));
    let head = WITH_PEER
        .replace("PEER_PORT", &peer.port().to_string())
        .replace("DNS_ADDRESS", &dns.address.to_string());
    if let Some(site) = with_lua(&format!("{head} server {{ {locations} }}")) {
        site.run(|t| talk(t, &peer));
    }
}

#[test]
fn lines_and_bytes_come_and_go() {
    with_peer(
        r#"
        location /line { content_by_lua_block {
            local sock = dial()
            ngx.say(sock:send("hello\n"), " ", sock:receive())
            ngx.say(sock:send({"a", {"b", 1}, "\n"}), " ", sock:receive("*l"))
            ngx.print(sock:send(12), sock:send(nil), sock:send(true), " ", sock:send("\n"), sock:receive(4), sock:receive())
            ngx.say(" ", sock:close(), " ", sock:close())
        } }
        location /halves { content_by_lua_block {
            local sock = dial()
            sock:send("halves\n")
            ngx.say(sock:receive(), ";", sock:receiveany(100), ";", sock:send(""))
        } }
        location /many { content_by_lua_block {
            local sock = dial()
            sock:send("many\nquit\n")
            ngx.say(#sock:receive(100000), " ", #sock:receive("*a"))
            ngx.say(sock:receive("*a"))
            ngx.say(sock:receive())
            ngx.say(sock:receive())
        } }
        location /until { content_by_lua_block {
            local sock = dial()
            sock:send("a--b----c\n")
            local read = sock:receiveuntil("--")
            ngx.say(read(), "|", read(), "|", read(), "|", sock:receive())
            sock:send("abcdefgh%%\n")
            read = sock:receiveuntil("%%", {inclusive = true})
            ngx.say(read(4), "|", read(4), "|", read(4), "|", read(4))
            ngx.say(sock:receive(), ".")
        } }
        location /name { content_by_lua_block {
            local sock = ngx.socket.tcp()
            ngx.say(sock:connect("peer.example", PEER))
            sock:send("x\n") ngx.say(sock:receive())
            ngx.say(sock:connect("no.example", PEER))
            ngx.say(sock:receive())
        } }
        location /connect { content_by_lua_block {
            local sock, err = ngx.socket.connect("127.0.0.1", PEER)
            sock:send("x\n") ngx.say(sock:receive())
            ngx.say(ngx.socket.connect("127.0.0.1", DEAD or 1))
        } }
        "#,
        |t, peer| {
            t.check(
                r#"
            GET /line -> 200 6 +hello\n4 +ab1\n234 1+12niltrue 1 nilclosed
            GET /halves -> 200 one two;+halves\r\n;0
            GET /many -> 200 100000 100007\n\nnilclosed\nnilclosed
            GET /until -> 200 +a|b||c\n+abc|defg|h%%|nilnilnil\n.
            GET /connect -> 200 +x\nnilconnection refused
        "#,
            );
            t.check(
                r#"
            GET /name -> 200 1\n+x\nnilno.example could not be resolved (3: Host not found)\nnilclosed
        "#,
            );
            t.error_log().expect("connect() failed (111: Connection refused), upstream: 127.0.0.1:1(127.0.0.1), client: 127.0.0.1");
            t.error_log().expect(
                "attempt to receive data on a closed socket: u:0*, c:0*, ft:0 eof:*, client: ",
            );
            peer.expect_open(0);
        },
    );
}

#[test]
fn what_is_wrong_is_said() {
    with_peer(
        r#"
        location /early { content_by_lua_block {
            local sock = ngx.socket.tcp()
            ngx.say(sock:receive()) ngx.say(sock:send("x")) ngx.say(sock:close())
            ngx.say(sock:setkeepalive()) ngx.say(sock:getreusedtimes())
            ngx.say(pcall(sock.getoption, sock, "keepalive"))
        } }
        location /args { content_by_lua_block {
            local sock = dial()
            local function fails(name, ...) ngx.say(select(2, pcall(sock[name], sock, ...))) end
            local function says(f) ngx.say((select(2, pcall(f)))) end
            says(function() sock:receive("*b") end)
            says(function() sock:receive("all") end)
            says(function() sock:receive(-1) end)
            says(function() sock:receive({}) end)
            says(function() sock:receive(1, 2) end)
            says(function() sock:send() end)
            says(function() sock:send(print) end)
            says(function() sock:send({true}) end)
            says(function() sock:send({a = 1}) end)
            says(function() sock:settimeout(-1) end)
            says(function() sock:settimeouts(1) end)
            says(function() sock:receiveuntil("x", {inclusive = 1}) end)
            says(function() sock:connect("127.0.0.1", PEER, {pool_size = 0}) end)
            says(function() sock:connect("127.0.0.1", PEER, {pool_size = "x"}) end)
            says(function() sock:connect("127.0.0.1", PEER, {backlog = -1}) end)
            says(function() sock:connect("127.0.0.1", PEER, {pool = {}}) end)
            says(function() ngx.socket.tcp(1) end)
            ngx.say(sock:receiveuntil(""))
            ngx.say(sock:connect("127.0.0.1"))
            ngx.say(sock:connect("127.0.0.1", 70000))
            ngx.say(sock:connect("a/b", 80))
            ngx.say(sock:connect("unix:{DIR}/none.sock"))
        } }
        location /options { content_by_lua_block {
            local sock = dial()
            ngx.say(sock:setoption("keepalive", 1), " ", sock:getoption("keepalive"))
            ngx.say(sock:setoption("tcp-nodelay", 0), " ", sock:getoption("tcp-nodelay"))
            ngx.say(sock:getoption("rcvbuf") > 1000, " ", sock:getoption("nothing"))
        } }
        location /keep { content_by_lua_block { SOCK = dial() ngx.say("kept") } }
        location /steal { content_by_lua_block {
            ngx.say(SOCK:receive())
            ngx.say(pcall(SOCK.connect, SOCK, "127.0.0.1", PEER))
        } }
        location /log { return 200 ok; log_by_lua_block { ngx.socket.tcp() } }
        location /set { set_by_lua_block $x { ngx.socket.tcp() } return 200 ok; }
        "#,
        |t, peer| {
            t.check(
                r#"
            GET /early -> 200 nilclosed\nnilclosed\nnilclosed\nnilclosed\nnilclosed\nfalse*socket is never created nor connected
            GET /options -> 200 true 1\ntrue 0\ntrue nilunsupported option nothing
            GET /keep -> 200 kept
            GET /steal -> 200 nilclosed\nfalsebad request
            GET /log -> 200 ok
            GET /set -> 500
            "#,
            );
            let told = t.ask("GET /args").text();
            let told: Vec<&str> = told.lines().collect();
            let expected = [
                "bad argument #1 to 'receive' (bad pattern argument)",
                "bad argument #1 to 'receive' (bad pattern argument: all)",
                "bad argument #1 to 'receive' (bad number argument)",
                "bad argument #1 to 'receive' (bad argument)",
                "expecting 1 or 2 arguments (including the object), but got 3",
                "expecting 2 arguments (including the object), but got 1",
                "bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got function)",
                "bad argument #1 to 'send' (bad data type boolean found)",
                "bad argument #1 to 'send' (non-array table found)",
                "bad timeout value",
                "ngx.socket settimeouts: expecting 4 arguments (including the object) but seen 2",
                "bad \"inclusive\" option value type: number",
                "bad argument #3 to 'connect' (bad \"pool_size\" option value: 0)",
                "bad argument #3 to 'connect' (bad \"pool_size\" option type: string)",
                "bad argument #3 to 'connect' (bad \"backlog\" option value: -1)",
                "bad argument #3 to 'connect' (bad \"pool\" option type: table)",
                "expecting zero arguments, but got 1",
                "nilpattern is empty",
                "nilmissing the port number",
                "nilbad port number: 70000",
                "nilfailed to parse host name \"a/b\": invalid host",
                "nilno such file or directory",
            ];
            assert_eq!(told.len(), expected.len(), "{told:#?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.ends_with(expected), "{told} is not {expected}");
            }
            t.error_log().expect("API disabled in the context of log_by_lua*");
            t.error_log().expect("API disabled in the context of set_by_lua*");
            peer.expect_open(0);
        },
    );
}

#[test]
fn time_is_bounded() {
    with_peer(
        r#"
        lua_socket_read_timeout 50ms; lua_socket_connect_timeout 80ms; lua_socket_send_timeout 60ms;
        location /read { content_by_lua_block {
            local sock = ngx.socket.tcp()
            sock:connect("127.0.0.1", PEER)
            sock:send("slow\n")
            ngx.say(sock:receive())
            sock:settimeout(5000)
            ngx.say(sock:receive())
        } }
        location /partial { content_by_lua_block {
            local sock = ngx.socket.tcp()
            sock:settimeouts(1000, 1000, 60)
            sock:connect("127.0.0.1", PEER)
            sock:send("halves\n")
            ngx.say(sock:receive(100))
            sock:send("slow\nx\n")
            local read = sock:receiveuntil("\r\nnever")
            ngx.say(read())
        } }
        location /write { content_by_lua_block {
            local sock = ngx.socket.tcp()
            sock:connect("127.0.0.1", PEER)
            sock:send("slow\n")
            ngx.say(sock:send(("x"):rep(30000000)))
            ngx.say(sock:send("x"))
        } }
        location /connect { content_by_lua_block {
            local sock = ngx.socket.tcp()
            ngx.say(sock:connect("127.0.0.1", FULL or 1))
        } }
        location /quiet {
            lua_socket_log_errors off; lua_socket_send_lowat 0; lua_socket_buffer_size 16;
            content_by_lua_block { local sock = ngx.socket.tcp() ngx.say(sock:connect("127.0.0.1", 1)) ngx.say(sock:receive()) }
        }
        "#,
        |t, _| {
            t.check(
                r#"
            GET /read    -> 200 niltimeout\n+slow
            GET /partial -> 200 niltimeoutone two\r\n+halves\r\n\nniltimeout*
            GET /write   -> 200 niltimeout\nnilclosed
            GET /quiet   -> 200 nilconnection refused\nnilclosed
            "#,
            );
            let log = t.error_log();
            log.expect("lua tcp socket read timed out, upstream: 127.0.0.1:");
            log.expect("lua tcp socket write timed out, upstream: 127.0.0.1:");
            log.refuse("connect() failed");
        },
    );
}

#[test]
fn pools_keep_connections() {
    with_peer(
        r#"
        lua_socket_pool_size 2; lua_socket_keepalive_timeout 10s;
        location /use { content_by_lua_block {
            local sock = dial()
            sock:send("x\n") sock:receive()
            ngx.say(sock:getreusedtimes(), " ", sock:setkeepalive(), " ", sock:receive())
        } }
        location /three { content_by_lua_block {
            local all = {}
            for i = 1, 3 do all[i] = dial() end
            for i = 1, 3 do ngx.print(all[i]:getreusedtimes(), all[i]:setkeepalive(), ";") end
        } }
        location /unread { content_by_lua_block {
            local sock = dial()
            sock:send("x\n") sock:receive(1)
            ngx.say(sock:setkeepalive())
            sock:receive()
            sock:send("x\n") ngx.sleep(0.05)
            ngx.say(sock:setkeepalive())
        } }
        location /closed { content_by_lua_block {
            local sock = dial({pool = "quits"})
            ngx.print(sock:getreusedtimes(), " ")
            sock:send("quit\n") ngx.sleep(0.05)
            ngx.say(sock:setkeepalive())
            sock = dial({pool = "quits"})
            sock:send("slow\nquit\n") sock:receive("*l") 
            ngx.say(sock:getreusedtimes())
        } }
        location /soon { content_by_lua_block {
            local sock = dial({pool = "soon"})
            ngx.say(sock:getreusedtimes(), sock:setkeepalive(40, 10))
        } }
        location /named { content_by_lua_block {
            local sock = dial({pool = ngx.var.arg_name})
            ngx.say(sock:getreusedtimes(), sock:setkeepalive(0, 1))
        } }
        location /backlog { content_by_lua_block {
            local opts = {pool = "back", pool_size = 1, backlog = 0}
            local one = dial(opts)
            local sock = ngx.socket.tcp()
            ngx.say(sock:connect("127.0.0.1", PEER, opts))
            one:setkeepalive()
            ngx.say(sock:connect("127.0.0.1", PEER, opts), sock:getreusedtimes())
            sock:close()
            ngx.say(sock:connect("127.0.0.1", PEER, opts), sock:getreusedtimes())
        } }
        location /queue { content_by_lua_block {
            local opts = {pool = "q", pool_size = 1, backlog = 1}
            local one = dial(opts)
            local sock = ngx.socket.tcp()
            sock:settimeout(60)
            ngx.say(sock:connect("127.0.0.1", PEER, opts))
        } }
        location /hold { content_by_lua_block {
            local one = dial({pool = "h", pool_size = 1, backlog = 5})
            ngx.sleep(0.2)
            one:setkeepalive()
            ngx.say("held")
        } }
        location /wait { content_by_lua_block {
            local one = dial({pool = "h", pool_size = 1, backlog = 5})
            ngx.say(one:getreusedtimes(), one:setkeepalive())
        } }
        "#,
        |t, peer| {
            t.check(
                r#"
            GET /use -> 200 0 1 nilclosed
            GET /use -> 200 1 1 nilclosed
            GET /use -> 200 2 1 nilclosed
            "#,
            );
            assert_eq!(peer.accepted(), 1);
            t.check("GET /three -> 200 31;01;01;");
            peer.expect_open(2);
            t.check("GET /three -> 200 11;11;01;");
            peer.expect_open(2);
            t.check(
                r#"
            GET /unread -> 200 nilunread data in buffer\nnilconnection in dubious state
            GET /closed -> 200 0 nilclosed\n0
            GET /named?name=a -> 200 01
            GET /named?name=b -> 200 01
            GET /named?name=a -> 200 11
            GET /backlog -> 200 niltoo many waiting connect operations\n11\n10
            GET /queue -> 200 niltimeout
            GET /soon -> 200 01
            "#,
            );
            t.error_log().expect("lua tcp socket queued connect timed out, upstream: 127.0.0.1:");
            std::thread::sleep(Duration::from_millis(100));
            t.check("GET /soon -> 200 01");
            let mut holding = t.connect();
            holding.send("GET /hold HTTP/1.0\r\n\r\n");
            std::thread::sleep(Duration::from_millis(50));
            let before = peer.accepted();
            t.check("GET /wait -> 200 11");
            assert_eq!(peer.accepted(), before);
            assert!(holding.try_response("GET").is_ok_and(|r| r.text() == "held\n"));
        },
    );
}

#[test]
fn sockets_end_with_their_request() {
    with_peer(
        r#"
        location /leave { content_by_lua_block { ALL = ALL or {} ALL[#ALL + 1] = dial() ngx.say("left") } }
        location /fail { content_by_lua_block { ALL[#ALL + 1] = dial() error("x") } }
        location /wait { content_by_lua_block { local sock = dial() sock:settimeout(60000) sock:receive() } }
        location /phases {
            rewrite_by_lua_block { ngx.ctx.sock = dial() ngx.ctx.sock:send("a\n") }
            access_by_lua_block { ngx.ctx.line = ngx.ctx.sock:receive() }
            content_by_lua_block { ngx.ctx.sock:send("b\n") ngx.say(ngx.ctx.line, ngx.ctx.sock:receive()) }
        }
        "#,
        |t, peer| {
            t.check(
                r#"
            GET /leave -> 200 left
            GET /fail -> 500
            GET /phases -> 200 +a+b
            "#,
            );
            peer.expect_open(0);
            // Neither does a socket that Lua has not collected keep its client's connection.
            let mut client = t.connect();
            client.send("GET /phases HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert!(client.read_to_end().ends_with(b"+a+b\n"));
            peer.expect_open(0);
            let mut client = t.connect();
            client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
            peer.expect_open(1);
        },
    );
}

#[test]
fn twenty_thousand_connections_leave_nothing() {
    with_peer(
        r#"
        location /some { content_by_lua_block {
            for i = 1, 50 do
                local sock = dial()
                sock:send("hello\n")
                assert(sock:receive() == "+hello")
                if i % 2 == 0 then sock:close() end
            end
            ngx.say("done")
        } }
        location /pool { content_by_lua_block {
            for i = 1, 50 do
                local sock = dial()
                sock:send("hello\n")
                assert(sock:receive() == "+hello")
                sock:setkeepalive()
            end
            ngx.say("done")
        } }
        location /settle { content_by_lua_block { collectgarbage() collectgarbage() ngx.say(collectgarbage("count")) } }
        "#,
        |t, peer| {
            let worker = t.expect_procs("worker process", 1)[0].pid;
            let many = |path: &str, times: usize| {
                let mut client = t.connect();
                for _ in 0..times {
                    let answer = client.ask(&format!("GET {path}"));
                    assert_eq!(answer.text(), "done\n");
                }
            };
            let look = || {
                let fds =
                    std::fs::read_dir(format!("/proc/{worker}/fd")).expect("a worker").count();
                let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
                let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
                let kib: usize = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
                let lua: f64 = t.ask("GET /settle").text().trim().parse().unwrap();
                (fds, kib, lua)
            };
            many("/some", 40);
            many("/pool", 10);
            let before = look();
            many("/some", 380);
            many("/pool", 20);
            let after = look();
            eprintln!("before {before:?}, after {after:?}, connections {}", peer.accepted());
            assert!(peer.accepted() > 20_000);
            assert!(after.0 <= before.0 + 1, "descriptors {} {}", before.0, after.0);
            assert!(after.1 < before.1 + 4096, "KiB {} {}", before.1, after.1);
            assert!(after.2 < before.2 + 200.0, "KiB of Lua {} {}", before.2, after.2);
        },
    );
}

#[test]
fn threads_share_a_socket() {
    with_peer(
        r#"
        location /busy { content_by_lua_block {
            local sock = dial()
            local reader = ngx.thread.spawn(function() return sock:receive() end)
            ngx.say(sock:receive()) ngx.say(sock:receiveuntil("x")()) ngx.say(sock:close())
            ngx.say(sock:setkeepalive()) ngx.say(sock:connect("127.0.0.1", PEER))
            sock:send("full duplex\n")
            ngx.say(select(2, ngx.thread.wait(reader)))
            sock:send("slow\n")
            local writer = ngx.thread.spawn(function() return sock:send(("x"):rep(20000000)) end)
            ngx.say(sock:send("y")) ngx.say(sock:close()) ngx.say(sock:receive())
        } }
        location /connecting { content_by_lua_block {
            local sock = ngx.socket.tcp()
            local connecting = ngx.thread.spawn(function() return sock:connect("peer.example", PEER) end)
            ngx.say(sock:send("x")) ngx.say(sock:connect("127.0.0.1", PEER)) ngx.say(sock:receive())
            ngx.say(select(2, ngx.thread.wait(connecting)))
        } }
        location /kill { content_by_lua_block {
            local sock = dial()
            local reader = ngx.thread.spawn(function() return sock:receive() end)
            ngx.say(ngx.thread.kill(reader), " ", sock:send("x"))
        } }
        location /timer { content_by_lua_block {
            ngx.timer.at(0, function()
                local sock = dial({pool = "timer"})
                sock:send("from a timer\n")
                local line = sock:receive()
                ngx.log(ngx.WARN, "timer got ", line, " ", sock:setkeepalive())
                LEFT = dial()
            end)
            ngx.say("set")
        } }
        location /timers { content_by_lua_block {
            ngx.say(LEFT:receive())
            ngx.say(pcall(LEFT.connect, LEFT, "127.0.0.1", PEER))
        } }
        "#,
        |t, peer| {
            t.check(
                r#"
            GET /busy -> 200 nilsocket busy reading\nnilsocket busy reading\nnilsocket busy reading\nnilsocket busy reading\nnilsocket busy reading\n+full duplex\nnilsocket busy writing\nnilsocket busy writing\n+slow
            GET /connecting -> 200 nilclosed\nnilsocket busy connecting\nnilclosed\n1
            GET /kill -> 200 1 nilclosed
            "#,
            );
            peer.expect_open(0);
            t.check("GET /timer -> 200 set");
            t.error_log().expect("[lua] content_by_lua(nginx.conf:*):6: timer got +from a timer 1");
            peer.expect_open(1);
            t.check(r"GET /timers -> 200 nilclosed\nfalsebad request");
        },
    );
}
