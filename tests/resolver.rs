//! `resolver`, `resolver_timeout`, names in variables; `server … resolve` and `service`.

use crate::harness::{Dns, Says, Site, Step, refuses_conf, wait_for};
use nix::sys::signal::Signal;

/// A site whose `http { }` holds this. `{DNS}`: the name server; `{BACK}`: the port of a backend.
fn site(dns: &Dns, inside: &str) -> Site {
    let mut site = Site::http("server { location /never { proxy_pass http://{BACKEND}; } }");
    let text = filled(&site, dns, inside);
    site.configure(&text);
    site
}

fn filled(site: &Site, dns: &Dns, inside: &str) -> String {
    let port = site.backend().address.port().to_string();
    let inside = inside.replace("{DNS}", &dns.address.to_string()).replace("{BACK}", &port);
    format!("events {{ worker_connections 512; }} http {{ {inside} }}")
}

const BY_HOST: &str = "resolver {DNS}; resolver_timeout 2s;
    server { listen 127.0.0.1:{PORT}; location / { proxy_pass http://$arg_n:{BACK}; } }";

#[test]
fn names_are_resolved_once_as_long_as_they_hold() {
    let dns = Dns::start();
    dns.say("long.test", Says::hosts(&["127.0.0.1"], 60));
    dns.say("short.test", Says::hosts(&["127.0.0.1"], 1));
    site(&dns, BY_HOST).run(|t| {
        for _ in 0..3 {
            t.ask("GET /?n=long.test").expect("200");
            t.ask("GET /?n=LONG.test.").expect("200");
            t.ask("GET /?n=short.test").expect("200");
        }
        // One question for each family.
        assert_eq!((dns.asked("long.test"), dns.asked("short.test")), (2, 2));
        dns.say("short.test", Says::Code(2));
        let end = wait_for(|| (t.ask("GET /?n=short.test").status == 502).then_some(()));
        assert!(end.is_some(), "the time to live has no end");
        t.error_log().expect("[error] *short.test could not be resolved (2: Server failure)*");
    });
}

#[test]
fn valid_overrides_and_families_are_chosen() {
    let dns = Dns::start();
    dns.say("a.test", Says::hosts(&["127.0.0.1"], 0));
    let conf = BY_HOST.replace("{DNS};", "{DNS} valid=60s ipv6=off;");
    site(&dns, &conf).run(|t| {
        t.ask("GET /?n=a.test").expect("200");
        t.ask("GET /?n=a.test").expect("200");
        assert_eq!(dns.seen(), [("a.test".into(), 1, false)]);
    });
}

#[test]
fn aliases_are_followed() {
    let dns = Dns::start();
    dns.say("alias.test", Says::Alias("next.test".into(), 60));
    dns.say("next.test", Says::Alias("host.test".into(), 60));
    dns.say("host.test", Says::hosts(&["127.0.0.1"], 60));
    dns.say("round.test", Says::Alias("round.test".into(), 60));
    dns.say("nowhere.test", Says::Alias("gone.test".into(), 60));
    site(&dns, BY_HOST).run(|t| {
        t.ask("GET /?n=alias.test").expect("200");
        t.ask("GET /?n=alias.test").expect("200");
        assert_eq!(dns.asked("alias.test"), 2);
        t.ask("GET /?n=round.test").expect("502");
        t.ask("GET /?n=nowhere.test").expect("502");
        t.error_log().expect("[error] *round.test could not be resolved (3: Host not found)*");
        t.error_log().expect("[error] *nowhere.test could not be resolved (3: Host not found)*");
    });
}

#[test]
fn what_cannot_be_resolved_is_a_bad_gateway() {
    let dns = Dns::start();
    dns.say("silent.test", Says::Nothing);
    let conf = BY_HOST.replace("resolver_timeout 2s", "resolver_timeout 200ms")
        + " server { listen 127.0.0.1:{PORT2}; location / { proxy_pass http://$arg_n; } }";
    site(&dns, &conf).run(|t| {
        t.ask("GET /?n=unknown.test").expect("502");
        t.ask("GET /?n=a..test").expect("502");
        t.ask("GET /?n=silent.test").expect("502");
        for said in [
            "[error] *unknown.test could not be resolved (3: Host not found), client: *",
            "[error] *a..test could not be resolved (3: Host not found)*",
            "[error] *silent.test could not be resolved (110: Operation timed out)*",
        ] {
            t.error_log().expect(said);
        }
    });
}

#[test]
fn without_a_resolver_there_is_no_name() {
    let dns = Dns::start();
    let conf =
        "server { listen 127.0.0.1:{PORT}; location / { proxy_pass http://$arg_n:{BACK}; } }";
    site(&dns, conf).run(|t| {
        t.ask("GET /?n=a.test").expect("502");
        t.ask("GET /?n=127.0.0.1").expect("200");
        t.error_log().expect("[error] *no resolver defined to resolve a.test*");
    });
}

#[test]
fn wrong_answers_do_no_harm() {
    let dns = Dns::start();
    let good = Says::hosts(&["127.0.0.1"], 60);
    dns.say("noisy.test", Says::AfterGarbage(Box::new(good.clone())));
    dns.say("large.test", Says::OverTcp(Box::new(good)));
    site(&dns, BY_HOST).run(|t| {
        t.ask("GET /?n=noisy.test").expect("200");
        t.ask("GET /?n=large.test").expect("200");
        assert!(dns.seen().contains(&("large.test".into(), 1, true)));
        for said in ["short DNS response", "invalid UDP DNS response *", "wrong ident *"] {
            let said = format!("[error] *{said} while resolving, resolver: {}", dns.address);
            t.error_log().expect(&said);
        }
    });
}

#[test]
fn a_dead_server_hands_over_to_the_next() {
    let dns = Dns::start();
    dns.say("a.test", Says::hosts(&["127.0.0.1"], 60));
    site(&dns, &BY_HOST.replace("{DNS};", "{DEAD} {DNS};")).run(|t| {
        t.ask("GET /?n=a.test").expect("200");
        t.error_log()
            .expect("[error] *() failed (111: Connection refused) while resolving, resolver: *");
    });
}

#[test]
fn many_requests_are_one_question() {
    let dns = Dns::start();
    dns.say("late.test", Says::Nothing);
    site(&dns, BY_HOST).run(|t| {
        let mut clients: Vec<_> = (0..8).map(|_| t.connect()).collect();
        for client in &mut clients {
            client.send("GET /?n=late.test HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        }
        for client in &mut clients {
            client.response_to("GET").expect("502");
        }
        assert_eq!(dns.asked("late.test"), 2);
    });
}

const UPSTREAM: &str = "resolver {DNS}; resolver_timeout 1s;
    upstream u { zone u 256k; server back.test:{BACK} resolve max_fails=0; }
    server { listen 127.0.0.1:{PORT}; location / {
        proxy_connect_timeout 1s; add_header X-Addr $upstream_addr always; proxy_pass http://u; } }";

/// Waits until requests go to these addresses of the loopback network.
#[track_caller]
fn expect_peers(t: &Site, last: &[u8]) {
    let port = t.backend().address.port();
    let addresses: Vec<String> = last.iter().map(|n| format!("127.0.0.{n}:{port}")).collect();
    let done = wait_for(|| {
        let tried = t.ask("GET /").header("X-Addr").unwrap_or_default().to_owned();
        let mut tried: Vec<&str> = tried.split(", ").collect();
        tried.sort_unstable();
        (tried == addresses).then_some(())
    });
    assert!(done.is_some(), "not {addresses:?}");
}

#[test]
fn peers_follow_their_name_under_traffic() {
    let dns = Dns::start();
    dns.say("back.test", Says::hosts(&["127.0.0.1"], 1));
    site(&dns, UPSTREAM).run(|t| {
        expect_peers(t, &[1]);
        // A request that is on its way keeps its peer.
        t.backend().on(
            "/slow",
            vec![vec![Step::Hold, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")]],
        );
        let mut slow = t.connect();
        slow.send("GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        wait_for(|| t.backend().requests().iter().any(|r| r.head.contains("/slow")).then_some(()));
        // Nobody listens on 127.0.0.9, so both are tried.
        dns.say("back.test", Says::hosts(&["127.0.0.9"], 1));
        expect_peers(t, &[9]);
        dns.say("back.test", Says::hosts(&["127.0.0.8", "127.0.0.9"], 1));
        expect_peers(t, &[8, 9]);
        // A failure changes nothing.
        let asked = dns.asked("back.test");
        dns.say("back.test", Says::Code(2));
        wait_for(|| (dns.asked("back.test") > asked + 1).then_some(()));
        expect_peers(t, &[8, 9]);
        dns.say("back.test", Says::Alias("other.test".into(), 1));
        dns.say("other.test", Says::hosts(&["127.0.0.1"], 1));
        expect_peers(t, &[1]);
        t.backend().release();
        slow.response_to("GET").expect("200 slow");
        t.error_log().expect("[error] *back.test could not be resolved (2: Server failure)");
    });
}

#[test]
fn a_name_that_is_gone_leaves_no_peers() {
    let dns = Dns::start();
    let conf = UPSTREAM.replace("{DNS};", "{DNS} valid=1s;");
    site(&dns, &conf).run(|t| {
        t.ask("GET /").expect("502 * | X-Addr: u");
        t.error_log().expect("[error] *no live upstreams while connecting to upstream*");
        dns.say("back.test", Says::hosts(&["127.0.0.1"], 60));
        expect_peers(t, &[1]);
        dns.say("back.test", Says::Code(3));
        let gone = wait_for(|| (t.ask("GET /").header("X-Addr") == Some("u")).then_some(()));
        assert!(gone.is_some());
    });
}

#[test]
fn a_reload_keeps_the_peers() {
    let dns = Dns::start();
    dns.say("back.test", Says::hosts(&["127.0.0.1"], 600));
    let mut site = site(&dns, UPSTREAM);
    let whole = filled(&site, &dns, UPSTREAM);
    site.configure(&format!("worker_processes 2; {whole}"));
    site.run(|t| {
        expect_peers(t, &[1]);
        dns.say("back.test", Says::Nothing);
        let before = t.expect_procs("worker process", 2);
        t.signal(Signal::SIGHUP);
        let new = wait_for(|| {
            let now = t.procs();
            (!before.iter().any(|b| now.iter().any(|n| n.pid == b.pid))).then_some(())
        });
        assert!(new.is_some(), "old workers are still there");
        for _ in 0..4 {
            t.ask("GET /").expect("200");
        }
    });
}

#[test]
fn services_say_where_they_are() {
    let dns = Dns::start();
    let conf = UPSTREAM.replace("back.test:{BACK} resolve", "shop.test service=http resolve");
    let site = site(&dns, &conf);
    let port = site.backend().address.port();
    let offer = |priority, target: &str| (priority, 5, port, target.to_string());
    dns.say("one.test", Says::hosts(&["127.0.0.1"], 1));
    dns.say("two.test", Says::hosts(&["127.0.0.8"], 1));
    dns.say(
        "_http._tcp.shop.test",
        Says::Services(vec![offer(2, "one.test"), offer(1, "two.test")], 1),
    );
    site.run(|t| {
        // The one of lower priority is a backup.
        let first = wait_for(|| {
            let tried = t.ask("GET /");
            (tried.status == 200).then(|| tried.header("X-Addr").map(String::from))
        });
        let tried = format!("127.0.0.8:{port}, 127.0.0.1:{port}");
        assert_eq!(first.flatten(), Some(tried));
        dns.say("_http._tcp.shop.test", Says::Services(vec![offer(1, "one.test")], 1));
        expect_peers(t, &[1]);
    });
}

#[test]
fn bad_upstreams_are_refused() {
    let refused = [
        (
            "resolver 127.0.0.1; upstream u { server a.test resolve; }",
            "resolving names at run time requires upstream \"u\" to be in shared memory in *",
        ),
        (
            "upstream u { zone z 64k; server a.test resolve; }",
            "no resolver defined to resolve names at run time in upstream \"u\" in *",
        ),
        (
            "upstream u { server a.test service=http; }",
            "service upstream \"a.test\" requires \"resolve\" parameter in *",
        ),
        (
            "upstream u { server a.test:80 service=http resolve; }",
            "service upstream \"a.test:80\" may not have port in *",
        ),
        (
            "upstream u { server 127.0.0.1 service=http resolve; }",
            "service upstream \"127.0.0.1\" requires domain name in *",
        ),
        ("upstream u { server a.test service= resolve; }", "service is empty in *"),
        (
            "upstream u { resolver 127.0.0.1; resolver 127.0.0.1; server 127.0.0.1; }",
            "\"resolver\" directive is duplicate in *",
        ),
    ];
    check_refused(&refused);
}

#[test]
fn bad_directives_are_refused() {
    let refused = [
        ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x*"),
        ("resolver 127.0.0.1 ipv4=off ipv6=off;", "\"ipv4\" and \"ipv6\" cannot both be \"off\"*"),
        ("resolver 127.0.0.1 status_zone=z;", "\"status_zone\" of \"resolver\" is not supported*"),
        ("resolver ipv6=off;", "no name servers defined*"),
        ("resolver 127.0.0.1; resolver 127.0.0.1;", "\"resolver\" directive is duplicate*"),
        ("resolver_timeout x;", "\"resolver_timeout\" directive invalid value*"),
    ];
    check_refused(&refused);
}

#[track_caller]
fn check_refused(refused: &[(&str, &str)]) {
    let refuses = |conf: &str, says: &str| {
        refuses_conf(&format!("events {{}} http {{ {conf} }}"), says).err()
    };
    let wrong: Vec<String> =
        refused.iter().filter_map(|(conf, says)| refuses(conf, says)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
