//! `resolver`, `resolver_timeout`, names in variables.

use crate::harness::{Dns, Says, Site, refuses_conf};

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
        let end =
            crate::harness::wait_for(|| (t.ask("GET /?n=short.test").status == 502).then_some(()));
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
    let wrong: Vec<String> = refused
        .iter()
        .filter_map(|(conf, says)| {
            refuses_conf(&format!("events {{}} http {{ {conf} }}"), says).err()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
