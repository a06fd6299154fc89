//! The process tree: signals, reload, upgrade, respawn.

use crate::harness::{Client, Site, Step, procs, wait_for};
use nix::sys::signal::Signal;

fn site(conf: &str) -> Site {
    Site::whole(&format!(
        "worker_processes 2; events {{ }} http {{ access_log {{DIR}}/access.log; {conf} }}"
    ))
}

fn server(answer: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:{{PORT}}; location / {{ return 200 {answer}; }} location /b {{ proxy_pass http://{{BACKEND}}; }} }}"
    )
}

#[test]
fn titles_and_pid_file() {
    site(&server("a")).run(|t| {
        let master = t.expect_procs("master process *", 1);
        assert_eq!(master[0].pid, t.master());
        assert!(master[0].role.contains(&format!("-p {}/ -c nginx.conf", t.dir().display())));
        let workers = t.expect_procs("worker process", 2);
        assert!(workers.iter().all(|w| w.parent == t.master()));
        assert_eq!(t.read("nginx.pid").unwrap(), format!("{}\n", t.master()));
        t.stop();
        assert_eq!(t.read("nginx.pid"), None);
    });
}

#[test]
fn quit_lets_requests_finish() {
    site(&server("a")).run(|t| {
        t.backend().on(
            "/b",
            vec![vec![Step::Hold, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")]],
        );
        let mut client = t.connect();
        client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        t.signal(Signal::SIGQUIT);
        t.error_log().expect("[notice] *gracefully shutting down");
        t.expect_procs("worker process is shutting down", 1);
        let address = t.address("PORT");
        wait_for(|| std::net::TcpStream::connect(address).err()).expect("nobody listens");
        t.backend().release();
        client.response().expect("200 late | Connection: close");
        client.expect_closed();
        t.error_log().expect("[notice] *exit");
        t.stop();
    });
}

#[test]
fn reload_changes_the_answers() {
    site(&server("first")).run(|t| {
        t.ask("GET /").expect("200 first");
        let before = t.expect_procs("worker process", 2);
        t.backend().on(
            "/b",
            vec![vec![Step::Hold, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")]],
        );
        let mut held = t.connect();
        held.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        t.configure(&format!("worker_processes 3; events {{ }} http {{ {} }}", server("second")));
        t.signal(Signal::SIGHUP);
        wait_for(|| (t.ask("GET /").text() == "second").then_some(()))
            .expect("the new configuration");
        let after = t.expect_procs("worker process", 3);
        assert!(after.iter().all(|p| !before.contains(p)));
        t.expect_procs("worker process is shutting down", 1);
        t.backend().release();
        held.response().expect("200 late");
        t.expect_procs("worker process is shutting down", 0);
        t.error_log().expect("[notice] *signal 1 (SIGHUP) received from *, reconfiguring");
    });
}

#[test]
fn a_bad_configuration_changes_nothing() {
    site(&server("first")).run(|t| {
        let before = t.expect_procs("worker process", 2);
        for (bad, said) in [
            ("nonsense on;", "[emerg] *unknown directive \"nonsense\" in *nginx.conf:1"),
            ("events { } http { server { listen 127.0.0.1:{PORT2} ssl; ssl_certificate none.pem; ssl_certificate_key none.pem; } }", "[emerg] *cannot load certificate"),
        ] {
            t.expect_alert(said);
            t.configure(bad);
            t.signal(Signal::SIGHUP);
            t.error_log().expect(said);
            t.ask("GET /").expect("200 first");
        }
        assert_eq!(t.expect_procs("worker process", 2), before);
    });
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    site(&server("first")).run(|t| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let said =
            format!("[emerg] *bind() to 127.0.0.1:{port} failed (98: Address already in use)");
        t.expect_alert(&said);
        t.expect_alert("still could not bind()");
        t.configure(&format!("events {{ }} http {{ server {{ listen 127.0.0.1:{port}; }} }}"));
        t.signal(Signal::SIGHUP);
        t.error_log().expect("still could not bind()");
        t.ask("GET /").expect("200 first");
    });
}

#[test]
fn a_worker_that_dies_is_replaced() {
    site(&server("a")).run(|t| {
        t.expect_alert("exited on signal 9");
        let before = t.expect_procs("worker process", 2);
        procs::signal(before[0].pid, Signal::SIGKILL);
        t.error_log()
            .expect(&format!("[alert] *worker process {} exited on signal 9", before[0].pid));
        procs::wait_gone(before[0].pid);
        let after = t.expect_procs("worker process", 2);
        assert!(after.contains(&before[1]) && !after.contains(&before[0]));
        for _ in 0..10 {
            t.ask("GET /").expect("200 a");
        }
    });
}

#[test]
fn upgrade_and_finish() {
    site(&server("first")).into_background().run(|t| {
        t.ask("GET /").expect("200 first");
        let old = t.master();
        t.configure(&format!("events {{ }} http {{ {} }}", server("second")));
        t.signal(Signal::SIGUSR2);
        let new = new_master(t, old);
        assert_eq!(t.read("nginx.pid.oldbin").map(|p| p.trim().parse()), Some(Ok(old)));
        t.signal(Signal::SIGWINCH);
        wait_for(|| (workers_of(t, old) == 0).then_some(())).expect("the old workers are gone");
        t.ask("GET /").expect("200 second");
        t.signal(Signal::SIGQUIT);
        wait_for(|| t.read("nginx.pid.oldbin").is_none().then_some(())).expect("no old pid file");
        t.ask("GET /").expect("200 second");
        assert_eq!(t.read("nginx.pid").map(|p| p.trim().parse()), Some(Ok(new)));
        procs::signal(new, Signal::SIGQUIT);
        procs::wait_gone(new);
    });
}

#[test]
fn upgrade_and_go_back() {
    site(&server("first")).into_background().run(|t| {
        let old = t.master();
        t.configure(&format!("events {{ }} http {{ {} }}", server("second")));
        t.signal(Signal::SIGUSR2);
        let new = new_master(t, old);
        t.signal(Signal::SIGWINCH);
        wait_for(|| (workers_of(t, old) == 0).then_some(())).expect("the old workers are gone");
        t.configure(&format!("worker_processes 2; events {{ }} http {{ {} }}", server("first")));
        t.signal(Signal::SIGHUP);
        wait_for(|| (workers_of(t, old) == 2).then_some(())).expect("workers again");
        procs::signal(new, Signal::SIGQUIT);
        procs::wait_gone(new);
        wait_for(|| t.read("nginx.pid.oldbin").is_none().then_some(())).expect("no old pid file");
        t.ask("GET /").expect("200 first");
        assert_eq!(t.read("nginx.pid").map(|p| p.trim().parse()), Some(Ok(old)));
    });
}

#[test]
fn signals_from_the_command_line() {
    site(&server("a")).run(|t| {
        let before = t.expect_procs("worker process", 2);
        assert!(t.run_with(&["-s", "reload"]).status.success());
        wait_for(|| before.iter().all(|p| !procs::is_alive(p.pid)).then_some(()))
            .expect("new workers");
        std::fs::remove_file(t.dir().join("access.log")).unwrap();
        assert!(t.run_with(&["-s", "reopen"]).status.success());
        wait_for(|| t.read("access.log")).expect("a new log");
        let wrong = t.run_with(&["-s", "nonsense"]);
        assert_eq!(wrong.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("invalid option: \"-s nonsense\""));
        assert!(t.run_with(&["-s", "quit"]).status.success());
        procs::wait_gone(t.master());
    });
}

#[test]
fn an_idle_connection_survives_no_quit_for_long() {
    site(&format!("keepalive_min_timeout 300ms; {}", server("a"))).run(|t| {
        let mut idle = t.connect();
        idle.ask("GET /").expect("200 | Connection: keep-alive");
        t.signal(Signal::SIGQUIT);
        idle.expect_closed();
        procs::wait_gone(t.master());
    });
}

#[test]
fn into_the_background() {
    site(&server("a")).into_background().run(|t| {
        t.ask("GET /").expect("200 a");
        let master = procs::describe(t.master()).unwrap();
        assert!(master.role.starts_with("master process"), "{master:?}");
        assert_eq!(
            nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(t.master()))).unwrap().as_raw(),
            t.master()
        );
    });
}

#[test]
fn one_process_when_asked() {
    Site::whole(&format!("master_process off; events {{ }} http {{ {} }}", server("single"))).run(
        |t| {
            t.ask("GET /").expect("200 single");
            assert!(t.procs().iter().all(|p| !p.role.starts_with("worker process")));
        },
    );
}

#[test]
fn worker_shutdown_timeout_ends_the_longest_request() {
    site(&format!("{} ", server("a"))).run(|t| {
        t.configure(&format!(
            "worker_shutdown_timeout 300ms; events {{ }} \
             http {{ access_log {{DIR}}/access.log; {} }}",
            server("a")
        ));
        t.signal(Signal::SIGHUP);
        t.error_log().expect("reconfiguring");
        t.expect_procs("worker process", 1);
        t.backend().on("/b", vec![vec![Step::Hold]]);
        let mut held = t.connect();
        held.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        t.backend().expect_request(1);
        t.signal(Signal::SIGQUIT);
        held.expect_closed();
        procs::wait_gone(t.master());
        assert!(t.log("access.log").text().contains("GET /b"), "what was cut off is logged");
    });
}

fn new_master(t: &Site, old: i32) -> i32 {
    wait_for(|| t.read("nginx.pid")?.trim().parse().ok().filter(|pid| *pid != old))
        .expect("a new master writes the pid file")
}

fn workers_of(t: &Site, master: i32) -> usize {
    t.procs().iter().filter(|p| p.parent == master && p.role == "worker process").count()
}
