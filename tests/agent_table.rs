//! `table`, in `agent` and in `http`: large lists of networks, in force in all workers as a whole.

use crate::harness::{Site, Step, procs, refuses_conf, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Two workers, a table `nets`, and `/?ip=ADDRESS`, which answers with what it says.
fn site(source: &str) -> Site {
    Site::whole(&conf("2", source, ""))
}

fn conf(workers: &str, source: &str, greeting: &str) -> String {
    format!(
        "worker_processes {workers}; events {{ }} agent {{ table nets {source} interval=100ms; }}
         http {{ access_log off; table $arg_ip $net table=nets;
             server {{ listen 127.0.0.1:{{PORT}};
                 location / {{ return 200 \"{greeting}$net.\"; }} }} }}"
    )
}

/// Puts a new list where the old one is, at one blow.
fn replace(t: &Site, text: impl AsRef<[u8]>) {
    t.file("nets.new", text);
    std::fs::rename(t.dir().join("nets.new"), t.dir().join("nets.txt")).unwrap();
}

/// Waits until this table is in force everywhere.
#[track_caller]
fn expect_generation(t: &Site, generation: u64, what: &str) {
    t.error_log().expect(&format!("[notice] *table \"nets\": generation {generation} with {what}"));
}

const BOTH: &str = "is in force in 2 of 2 workers";

#[test]
fn a_list_is_put_in_force_as_a_whole() {
    let list = "# a list\n10.0.0.0/8 ten\n10.1.0.0/16\n2001:db8::/32 six # why\n";
    site("file:nets.txt").with_file("nets.txt", list).run(|t| {
        expect_generation(t, 1, &format!("3 networks in *{BOTH}"));
        t.check(
            "
        GET /?ip=10.9.9.9        -> 200 ten.
        GET /?ip=10.1.9.9        -> 200 1.
        GET /?ip=::ffff:10.1.9.9 -> 200 1.
        GET /?ip=2001:db8::7     -> 200 six.
        GET /?ip=11.0.0.1        -> 200 .
        GET /?ip=garbage         -> 200 .
        GET /                    -> 200 .
    ",
        );
        replace(t, "11.0.0.0/8,eleven\n");
        expect_generation(t, 2, BOTH_OF_ONE);
        t.check("GET /?ip=10.9.9.9 -> 200 .\nGET /?ip=11.9.9.9 -> 200 eleven.");
        // In place, as editors and shells write.
        t.file("nets.txt", "12.0.0.0/8\n");
        expect_generation(t, 3, BOTH_OF_ONE);
        t.check("GET /?ip=11.9.9.9 -> 200 .\nGET /?ip=12.9.9.9 -> 200 1.");
    });
}

const BOTH_OF_ONE: &str = "1 networks in *is in force in 2 of 2 workers";

#[test]
fn what_is_no_list_changes_nothing() {
    site("file:nets.txt").with_file("nets.txt", "10.0.0.0/8 ten\n").run(|t| {
        expect_generation(t, 1, BOTH_OF_ONE);
        replace(t, "<html>\n<body>404 Not Found\n");
        let log = t.error_log();
        log.expect("[warn] *table \"nets\" of file:nets.txt: was not read: 1 more, 1 in all, such as 2 of its 2 lines make no sense, such as line 1: no address and no network");
        replace(t, "");
        std::fs::remove_file(t.dir().join("nets.txt")).unwrap();
        t.check("GET /?ip=10.9.9.9 -> 200 ten.");
        let mut some: String = (0..150).map(|n| format!("10.0.{n}.0/24\n")).collect();
        some.push_str("10.0.0.300\n");
        replace(t, some);
        log.expect("[warn] *table \"nets\" of file:nets.txt: lines were skipped: 1 more, 1 in all, such as \"10.0.0.300\" (line 151: no address and no network)");
        expect_generation(t, 2, &format!("150 networks in *{BOTH}"));
        t.check("GET /?ip=10.9.9.9 -> 200 .\nGET /?ip=10.0.9.9 -> 200 1.");
    });
}

#[test]
fn a_list_from_a_server() {
    site("http://{BACKEND}/list").run(|t| {
        let list = |text: &str| {
            let length = text.len();
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
            t.backend().on("/list", vec![vec![Step::send(reply)]]);
        };
        list("10.0.0.0/8 ten\n{\"cidr\":\"11.0.0.0/8\",\"value\":\"eleven\"}\n");
        expect_generation(t, 1, &format!("2 networks in *{BOTH}"));
        t.check("GET /?ip=10.9.9.9 -> 200 ten.\nGET /?ip=11.9.9.9 -> 200 eleven.");
        t.backend().reply("/list", "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n12.0.0.0\n");
        t.error_log().expect("table \"nets\" of http:*: was not read: *it answered 503");
        list("12.0.0.0/8\n");
        expect_generation(t, 2, BOTH_OF_ONE);
        t.check("GET /?ip=10.9.9.9 -> 200 .\nGET /?ip=12.9.9.9 -> 200 1.");
    });
}

#[test]
fn whoever_dies_the_table_stays() {
    site("file:nets.txt").with_file("nets.txt", "10.0.0.0/8 ten\n").run(|t| {
        t.expect_alert("process * exited on signal 9");
        expect_generation(t, 1, BOTH_OF_ONE);
        let helper = t.expect_procs("helper process", 1)[0].pid;
        let privileged = t.expect_procs("privileged process", 1)[0].pid;
        std::fs::remove_file(t.dir().join("nets.txt")).unwrap();
        // Nobody is left who has built or seen it.
        let workers = t.expect_procs("worker process", 2);
        for pid in workers.iter().map(|p| p.pid).chain([helper, privileged]) {
            procs::signal(pid, Signal::SIGKILL);
            procs::wait_gone(pid);
        }
        t.expect_procs("worker process", 2);
        for _ in 0..20 {
            t.check("GET /?ip=10.9.9.9 -> 200 ten.");
        }
        t.expect_procs("helper process", 1);
        replace(t, "11.0.0.0/8 eleven\n");
        expect_generation(t, 2, BOTH_OF_ONE);
        t.check("GET /?ip=10.9.9.9 -> 200 .\nGET /?ip=11.9.9.9 -> 200 eleven.");
    });
}

#[test]
fn a_helper_killed_at_work_leaves_the_old_table_or_the_new_one() {
    let large = |value: &str| -> String {
        let line = |n: u32| format!("10.{}.{}.0/24 {value}{}\n", n >> 8, n & 255, n % 2);
        (0..40_000).map(line).collect()
    };
    site("file:nets.txt").with_file("nets.txt", large("0.")).run(|t| {
        t.expect_alert("process * exited on signal 9");
        expect_generation(t, 1, &format!("40000 networks in *{BOTH}"));
        // Each death makes the pause before the next helper longer.
        for round in 1..=5 {
            replace(t, large(&format!("{round}.")));
            std::thread::sleep(Duration::from_millis(60 * round));
            let helper = t.expect_procs("helper process", 1)[0].pid;
            procs::signal(helper, Signal::SIGKILL);
            procs::wait_gone(helper);
            let got = t.ask("GET /?ip=10.7.7.7").text();
            let value: u64 = got.split('.').next().and_then(|v| v.parse().ok()).expect("a value");
            assert!(value <= round, "{got}");
        }
        let all = || (0..12).all(|_| t.ask("GET /?ip=10.155.7.7").text() == "5.1.");
        wait_for(|| all().then_some(())).expect("the last list");
        t.expect_procs("worker process", 2);
    });
}

#[test]
fn a_reload_and_a_new_binary_keep_the_table() {
    let list = "10.0.0.0/8 ten\n";
    site("file:nets.txt").with_file("nets.txt", list).into_background().run(|t| {
        expect_generation(t, 1, BOTH_OF_ONE);
        // The source is away, so that nobody can read it again.
        std::fs::rename(t.dir().join("nets.txt"), t.dir().join("away")).unwrap();
        t.configure(&conf("3", "file:nets.txt", "reloaded "));
        t.signal(Signal::SIGHUP);
        let says = |text: &str| t.ask("GET /?ip=10.9.9.9").text() == text;
        wait_for(|| says("reloaded ten.").then_some(())).expect("the new workers");
        for _ in 0..10 {
            t.ask("GET /?ip=10.9.9.9").expect("200 *ten.");
        }
        let old = t.master();
        t.configure(&conf("2", "file:nets.txt", "upgraded "));
        t.signal(Signal::SIGUSR2);
        let new = || {
            let pid = t.read("nginx.pid")?.trim().parse().ok()?;
            (pid != old && t.read("nginx.pid.oldbin").is_some()).then_some(pid)
        };
        let new: i32 = wait_for(new).expect("a new master");
        t.signal(Signal::SIGQUIT);
        procs::wait_gone(old);
        for _ in 0..10 {
            t.ask("GET /?ip=10.9.9.9").expect("200 upgraded ten.");
        }
        std::fs::rename(t.dir().join("away"), t.dir().join("nets.txt")).unwrap();
        replace(t, "10.0.0.0/8 eleven\n");
        expect_generation(t, 2, BOTH_OF_ONE);
        t.ask("GET /?ip=10.9.9.9").expect("200 upgraded eleven.");
        procs::signal(new, Signal::SIGQUIT);
        procs::wait_gone(new);
    });
}

#[test]
fn one_process_does_it_all() {
    let single = format!("master_process off; {}", conf("1", "file:nets.txt", ""));
    Site::whole(&single).with_file("nets.txt", "10.0.0.0/8 ten\n").run(|t| {
        expect_generation(t, 1, "1 networks in *is in force in 1 of 1 workers");
        t.ask("GET /?ip=10.9.9.9").expect("200 ten.");
        t.signal(Signal::SIGHUP);
        t.error_log().expect("reconfiguring");
        replace(t, "10.0.0.0/8 eleven\n");
        expect_generation(t, 2, "1 networks in *is in force in 1 of 1 workers");
        t.ask("GET /?ip=10.9.9.9").expect("200 eleven.");
    });
}

#[test]
fn what_the_directives_do_not_take() {
    let mut bad = Vec::new();
    for (conf, message) in [
        ("agent { table a; }", "invalid number of arguments in \"table\" directive"),
        ("agent { table a b; }", "invalid source \"b\""),
        ("agent { table a https://x/; }", "https is not supported in \"table https://x/\""),
        ("agent { table a file:x interval=1ms; }", "invalid parameter \"interval=1ms\""),
        ("agent { table a file:x type=string; }", "\"type=string\" of \"table\" is not supported"),
        ("agent { table a file:x type=x; }", "invalid parameter \"type=x\""),
        ("agent { table a file:x; table a file:y; }", "duplicate table \"a\""),
        ("table a file:x;", "\"table\" directive is not allowed here"),
        ("http { table $uri $x table=a; }", "unknown table \"a\""),
        ("http { table $uri x table=a; }", "invalid variable name \"x\""),
        ("http { table $uri $x zone=a; }", "invalid parameter \"zone=a\""),
        ("http { table $uri $x; }", "invalid number of arguments in \"table\" directive"),
    ] {
        bad.extend(refuses_conf(&format!("events {{ }} {conf}"), message).err());
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
