//! The process tree when its members are killed, and what a reload leaves of it.

use crate::harness::{Client, Site, procs, wait_for};
use nix::sys::signal::Signal;

fn site(workers: usize) -> Site {
    Site::whole(&conf(workers))
}

fn conf(workers: usize) -> String {
    format!(
        "worker_processes {workers}; events {{ }} \
         http {{ server {{ listen 127.0.0.1:{{PORT}}; location / {{ return 200 a; }} }} }}"
    )
}

#[test]
fn everybody_is_there_with_a_title() {
    site(3).run(|t| {
        let workers = t.expect_procs("worker process", 3);
        let privileged = &t.expect_procs("privileged process", 1)[0];
        let helper = &t.expect_procs("helper process", 1)[0];
        assert!(workers.iter().all(|p| p.parent == t.master()));
        assert_eq!((privileged.parent, helper.parent), (t.master(), privileged.pid));
        for (process, privileged) in [(&workers[0], false), (privileged, true), (helper, false)] {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
            let field = |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap();
            if nix::unistd::getuid().is_root() {
                assert_eq!(field("Uid:").contains("\t0"), privileged, "{}", process.role);
                assert!(privileged || !field("Groups:").contains(" 0 "), "{}", process.role);
            }
            assert!(privileged || field("NoNewPrivs:").ends_with('1'), "{}", process.role);
        }
    });
}

#[test]
fn the_privileged_process_can_be_switched_off() {
    Site::whole(&format!("privileged_process off; {}", conf(1))).run(|t| {
        t.ask("GET /").expect("200 a");
        t.expect_procs("privileged process", 0);
        t.expect_procs("helper process", 0);
    });
}

#[test]
fn killed_members_come_back_and_take_their_own_with_them() {
    site(2).run(|t| {
        t.expect_alert("exited on signal 9");
        let helper = t.expect_procs("helper process", 1)[0].pid;
        procs::signal(helper, Signal::SIGKILL);
        t.error_log().expect(&format!("helper process {helper} exited on signal 9"));
        let helper = t.expect_procs("helper process", 1)[0].pid;
        let privileged = t.expect_procs("privileged process", 1)[0].pid;
        procs::signal(privileged, Signal::SIGKILL);
        procs::wait_gone(helper);
        t.error_log().expect(&format!("privileged process {privileged} exited on signal 9"));
        t.expect_procs("privileged process", 1);
        t.expect_procs("helper process", 1);
        t.ask("GET /").expect("200 a");
    });
}

#[test]
fn a_worker_that_keeps_dying_does_not_make_the_master_spin() {
    site(1).run(|t| {
        t.expect_alert("exited on signal 9");
        for deaths in 1..=4 {
            let worker = t.expect_procs("worker process", 1)[0].pid;
            procs::signal(worker, Signal::SIGKILL);
            procs::wait_gone(worker);
            t.error_log().expect_times("exited on signal 9", deaths);
        }
        // 100, 200, 400, 800 ms.
        let gone = std::time::Instant::now();
        t.expect_procs("worker process", 1);
        assert!(gone.elapsed() > std::time::Duration::from_millis(400));
        t.ask("GET /").expect("200 a");
    });
}

#[test]
fn workers_serve_on_without_a_master_and_leave_to_the_next() {
    let mut t = site(2);
    t.start();
    let orphans = t.expect_procs("worker process", 2);
    let privileged = t.expect_procs("privileged process", 1)[0].pid;
    let helper = t.expect_procs("helper process", 1)[0].pid;
    procs::signal(t.master(), Signal::SIGKILL);
    t.error_log().expect_times("the master process has gone", 2);
    procs::wait_gone(privileged);
    procs::wait_gone(helper);
    for _ in 0..8 {
        t.ask("GET /").expect("200 a");
    }
    t.start();
    for orphan in orphans {
        procs::wait_gone(orphan.pid);
    }
    t.ask("GET /").expect("200 a");
    t.stop();
}

#[test]
fn fewer_workers_lose_no_connection_that_waits() {
    site(4).run(|t| {
        t.expect_procs("worker process", 4);
        let workers = t.expect_procs("worker process", 4);
        // Nobody accepts meanwhile: the connections wait in all four queues.
        workers.iter().for_each(|w| procs::signal(w.pid, Signal::SIGSTOP));
        let clients: Vec<Client> = (0..40).map(|_| t.connect()).collect();
        t.configure(&conf(1));
        t.signal(Signal::SIGHUP);
        wait_for(|| t.procs().iter().any(|p| p.is_new_worker(&workers)).then_some(()))
            .expect("the new worker");
        workers.iter().for_each(|w| procs::signal(w.pid, Signal::SIGCONT));
        for mut client in clients {
            client.ask("GET /").expect("200 a");
        }
        t.expect_procs("worker process", 1);
    });
}

#[test]
fn a_worker_ignores_what_is_the_masters() {
    site(1).run(|t| {
        let worker = t.expect_procs("worker process", 1)[0].pid;
        procs::signal(worker, Signal::SIGHUP);
        t.error_log().expect("signal 1 (SIGHUP) received from *, ignoring");
        // It may not open the master's file: that is why `USR1` goes to the master, who gives it.
        t.expect_alert("open() * failed (13: Permission denied)");
        procs::signal(worker, Signal::SIGUSR1);
        t.error_log().expect("signal 10 (SIGUSR1) received from *, reopening logs");
        procs::signal(worker, Signal::SIGTERM);
        t.error_log().expect(&format!("worker process {worker} exited with code 0"));
        t.expect_procs("worker process", 1);
        t.ask("GET /").expect("200 a");
    });
}

impl procs::Proc {
    fn is_new_worker(&self, old: &[procs::Proc]) -> bool {
        self.role == "worker process" && !old.contains(self)
    }
}
