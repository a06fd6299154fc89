//! `keyval` and `agent`: programs and sources that tell the workers what to refuse.

use crate::harness::{Client, Response, Site, procs, refuses_conf, wait_for};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Two workers, a zone `risk`, and `/?k=KEY`, which is refused if the zone says `deny`.
fn site(agent: &str) -> Site {
    Site::whole(&format!(
        "worker_processes 2; privileged_process off; events {{ }} agent {{ {agent} }}
         http {{ access_log off; keyval_zone zone=risk:1m; keyval $arg_k $risk zone=risk;
             server {{ listen 127.0.0.1:{{PORT}}; if ($risk = deny) {{ return 403; }}
                 location / {{ return 200 \"$risk.\"; }} }} }}"
    ))
}

/// Waits until the answer for a key is this.
#[track_caller]
fn expect_value(t: &Site, key: &str, answer: &str) {
    let ask = || t.ask(&format!("GET /?k={key}"));
    // What was said last is what is wrong.
    if wait_for(|| is(&ask(), answer).then_some(())).is_none() {
        ask().expect(answer);
    }
}

fn is(got: &Response, answer: &str) -> bool {
    let status = got.status.to_string();
    answer == status || answer == format!("{status} {}", got.text())
}

fn programs(t: &Site) -> Vec<procs::Proc> {
    let helper = t.expect_procs("helper process", 1)[0].pid;
    t.procs().into_iter().filter(|p| p.parent == helper).collect()
}

#[test]
fn a_program_changes_what_workers_refuse() {
    let script = r#"
        echo '{"zone":"risk","key":"bad","value":"deny"}'
        echo '{"zone":"risk","key":"short","value":"deny","ttl":0.5}'
        echo '{"zone":"risk","key":"gone","value":"deny"}'
        echo '{"zone":"risk","op":"delete","key":"gone"}'
        echo '{"zone":"risk","key":"last","value":7}'
        echo 'done saying' >&2
        sleep 1000"#;
    site("helper feed /bin/sh feed.sh;").with_file("feed.sh", script).run(|t| {
        expect_value(t, "last", "200 7.");
        t.ask("GET /?k=bad").expect("403");
        t.ask("GET /?k=gone").expect("200 .");
        t.ask("GET /?k=other").expect("200 .");
        expect_value(t, "short", "200 .");
        t.error_log().expect("[warn] *helper \"feed\" says: done saying");
        // A reload keeps what the zone knows.
        t.configure(
            "worker_processes 1; events { } http { keyval_zone zone=risk:1m; keyval $arg_k $risk zone=risk;
             server { listen 127.0.0.1:{PORT}; location / { return 200 \"new $risk.\"; } } }",
        );
        t.signal(Signal::SIGHUP);
        expect_value(t, "bad", "200 new deny.");
    });
}

#[test]
fn a_program_that_misbehaves_harms_nobody() {
    let agent = "
        helper flood /bin/sh flood.sh; helper garbage /bin/sh garbage.sh; helper long /bin/sh long.sh;
        helper stall /bin/sh stall.sh; helper dies /bin/sh dies.sh restart=50ms; helper none /no/program;
        helper noise /bin/sh noise.sh; sample zone=seen fields=\"$remote_addr $request_uri\";";
    let flood = "yes '{\"zone\":\"risk\",\"key\":\"flood\",\"value\":\"deny\"}'";
    let stall = "printf '{\"zone\":'; exec sleep 1000";
    let dies = "echo '{\"zone\":\"risk\",\"key\":\"dies\",\"value\":\"deny\"}'; exit 7";
    site(agent)
        .with_file("flood.sh", flood)
        .with_file("garbage.sh", "yes 'no \"json\" \\ at all'")
        .with_file("long.sh", "head -c 3000000 /dev/zero | tr '\\0' x; echo; exec sleep 1000")
        .with_file("stall.sh", stall)
        .with_file("dies.sh", dies)
        .with_file("noise.sh", "yes noise >&2")
        .run(|t| {
            expect_value(t, "flood", "403");
            expect_value(t, "dies", "403");
            let log = t.error_log();
            log.expect("helper \"garbage\": lines of its output were no changes: *no \\\"json\\\"");
            log.expect("helper \"long\": *the line is too long");
            log.expect("helper \"none\": cannot start \"/no/program\" (2: No such file");
            log.expect_times("helper \"dies\": * exited with code 7", 3);
            log.expect("helper \"noise\": lines of its standard error were not logged");
            // Each question is a sample that the stalled program does not read.
            let (mut client, begun) = (Client::connect(t.address("PORT")), Instant::now());
            for n in 0..3000 {
                client = if n % 500 == 499 { Client::connect(t.address("PORT")) } else { client };
                client.ask("GET /?k=x").expect("200 .");
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
            assert!(log.lines("were no changes").len() < 20, "the log is flooded");
            assert!(log.lines("says: noise").len() < 1000, "the log is flooded");
            t.expect_procs("worker process", 2);
        });
}

#[test]
fn the_helper_s_death_is_the_end_of_its_programs() {
    let script = "echo '{\"zone\":\"risk\",\"key\":\"bad\",\"value\":\"deny\"}'; exec sleep 1000";
    site("helper feed /bin/sh feed.sh;").with_file("feed.sh", script).run(|t| {
        t.expect_alert("helper process * exited on signal 9");
        expect_value(t, "bad", "403");
        let helper = t.expect_procs("helper process", 1)[0].pid;
        let before = programs(t);
        assert_eq!(before.len(), 1);
        procs::signal(helper, Signal::SIGKILL);
        procs::wait_gone(before[0].pid);
        t.ask("GET /?k=bad").expect("403");
        t.error_log().expect_times("helper \"feed\": start", 2);
        let after = programs(t);
        assert_eq!((after.len(), after[0].pid != before[0].pid), (1, true));
    });
}

#[test]
fn samples_reach_a_program() {
    // It answers each sample with a change.
    let script = r#"exec sed -u -n 's/.*"arg_k":"\([a-z]*\)","status":"200".*/{"zone":"risk","key":"\1","value":"deny"}/p'"#;
    let agent =
        "helper echo /bin/sh echo.sh; sample zone=seen rate=1 fields=\"$http_x $arg_k $status\";";
    site(agent).with_file("echo.sh", script).run(|t| {
        t.error_log().expect("helper \"echo\": start");
        expect_value(t, "once", "403");
        t.ask("GET /?k=twice | X: a\"b\\c").expect("200 .");
        expect_value(t, "twice", "403");
        t.ask("GET /?k=never").expect("200 .");
    });
}

#[test]
fn keys_may_be_networks_and_prefixes() {
    let nets = r#"[{"key":"10.0.0.0/8","value":"ten"},{"key":"10.1.2.3","value":"one"},
        {"key":"2001:db8::/32","value":"six"},{"key":"no net","value":"x"}]"#;
    let paths =
        "{\"key\":\"/admin\",\"value\":\"admin\"}\n{\"key\":\"/admin/open\",\"value\":\"open\"}\n";
    Site::whole(
        "events { } agent { collect file:nets.json zone=nets interval=100ms; collect http://{BACKEND}/p zone=paths interval=100ms; }
         http { keyval_zone zone=nets:1m type=ip; keyval $arg_ip $net zone=nets;
             keyval_zone zone=paths:1m type=prefix timeout=1h; keyval $uri $kind zone=paths;
             server { listen 127.0.0.1:{PORT}; location / { return 200 \"$net|$kind.\"; } } }",
    )
    .with_file("nets.json", nets)
    .run(|t| {
        t.backend().on(
            "/p",
            vec![vec![crate::harness::Step::send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{paths}",
                paths.len()
            ))]],
        );
        let ready = || t.ask("GET /admin/open/x?ip=10.9.9.9").shown().contains("ten|open.");
        wait_for(|| ready().then_some(())).expect("both sources");
        t.check(
            "
        GET /?ip=10.1.2.3        -> 200 one|.
        GET /?ip=10.1.2.4        -> 200 ten|.
        GET /?ip=2001:db8::7     -> 200 six|.
        GET /?ip=11.0.0.1        -> 200 |.
        GET /?ip=garbage         -> 200 |.
        GET /administrator       -> 200 |admin.
        GET /adm                 -> 200 |.
    ",
        );
        t.error_log().expect("collect file:nets.json: items were no changes: *\"item 4\"");
        t.file("nets.json", r#"[{"op":"clear"},{"key":"11.0.0.0/8","value":"eleven"}]"#);
        let ready = || t.ask("GET /?ip=11.0.0.1").shown().contains("eleven");
        wait_for(|| ready().then_some(())).expect("the new file");
        t.ask("GET /?ip=10.1.2.3").expect("200 |.");
    });
}

#[test]
fn the_risk_example_refuses_a_bad_client() {
    let root = env!("CARGO_MANIFEST_DIR");
    let example = std::fs::read_to_string(format!("{root}/conf/examples/risk.conf")).unwrap();
    let feed = std::fs::read(format!("{root}/conf/examples/feeds/reputation.py")).unwrap();
    // The harness has a pid file and a log of its own.
    let own = |line: &&str| !line.starts_with("pid") && !line.starts_with("error_log");
    let conf: Vec<&str> = example.lines().filter(own).collect();
    let conf = conf.join("\n").replace("8080", "127.0.0.1:{PORT}").replace("var/", "logs/");
    let conf = conf.replace("conf/examples/feeds/", "").replace("conf/html", "html");
    let conf = conf.replace("worker_processes  auto", "worker_processes 2");
    Site::whole(&conf).with_file("reputation.py", feed).with_file("html/index.html", "hello").run(
        |t| {
            t.ask("GET /").expect("200 hello");
            t.error_log().expect("helper \"reputation\": start");
            let refused = || t.ask("GET /no/such/page").status == 403;
            wait_for(|| refused().then_some(())).expect("the client is refused");
            t.ask("GET /").expect("403");
            t.error_log().expect("helper \"reputation\" says: 127.0.0.1 is denied for 60 s");
        },
    );
}

#[test]
fn what_the_block_does_not_take() {
    let mut bad = Vec::new();
    for (conf, message) in [
        ("agent { helper a; }", "invalid number of arguments in \"helper\" directive"),
        ("agent { helper a restart=1s; }", "invalid number of arguments in \"helper\" directive"),
        ("agent { helper a b; helper a c; }", "duplicate helper \"a\""),
        ("agent { helper a b restart=x; }", "invalid parameter \"restart=x\""),
        ("agent { collect file:x; }", "invalid number of arguments"),
        (
            "agent { collect https://x/ zone=z; }",
            "https is not supported in \"collect https://x/\"",
        ),
        ("agent { collect x zone=z; }", "invalid source \"x\""),
        ("agent { collect file:x zone=z; }", "zero size shared memory zone \"z\""),
        ("agent { sample zone=q fields=$status; }", "\"sample\" has no \"helper\""),
        ("agent { helper a b; sample zone=q fields=x; }", "\"x\" of \"fields\" is not a variable"),
        ("agent { helper a b; sample zone=q fields=$nope; }", "unknown \"nope\" variable"),
        (
            "agent { helper a b; sample zone=q rate=2 fields=$status; }",
            "invalid parameter \"rate=2\"",
        ),
        ("agent { nothing on; }", "unknown directive \"nothing\""),
        ("agent { } agent { }", "\"agent\" directive is duplicate"),
        ("helper a b;", "\"helper\" directive is not allowed here"),
        (
            "http { keyval_zone zone=z:1m state=f; }",
            "\"state=f\" of \"keyval_zone\" is not supported",
        ),
        ("http { keyval_zone zone=z:1m type=x; }", "invalid parameter \"type=x\""),
        ("http { keyval_zone timeout=1s; }", "\"keyval_zone\" must have \"zone\" parameter"),
        ("http { keyval $uri $x zone=z; }", "zero size shared memory zone \"z\""),
        ("http { keyval $uri x zone=z; }", "invalid variable name \"x\""),
    ] {
        bad.extend(refuses_conf(&format!("events {{ }} {conf}"), message).err());
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
