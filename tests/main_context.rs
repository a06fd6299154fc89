//! The main context and `events`: what a worker is made of, seen from outside.

use crate::harness::{Site, refuses_conf};
use std::fs;

fn site(main: &str) -> Site {
    Site::whole(&format!(
        "{main} events {{ }} http {{ server {{ listen 127.0.0.1:{{PORT}}; return 200 ok; }} }}"
    ))
}

fn of_worker(t: &Site, file: &str) -> String {
    let worker = t.expect_procs("worker process", 1)[0].pid;
    fs::read_to_string(format!("/proc/{worker}/{file}")).unwrap()
}

#[test]
fn limits_and_places_of_a_worker() {
    let main = "worker_rlimit_nofile 777; worker_rlimit_core 100k; worker_priority 5; working_directory {DIR}; worker_cpu_affinity 1;";
    site(main).run(|t| {
        t.ask("GET /").expect("200 ok");
        let limits = of_worker(t, "limits");
        let limit = |name: &str| {
            limits
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap()
                .split_whitespace()
                .nth(3)
                .unwrap()
                .to_string()
        };
        assert_eq!(limit("Max open files"), "777");
        assert_eq!(
            limits
                .lines()
                .find(|l| l.starts_with("Max core file size"))
                .unwrap()
                .split_whitespace()
                .nth(4),
            Some("102400")
        );
        assert_eq!(of_worker(t, "stat").rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("5"));
        let worker = t.expect_procs("worker process", 1)[0].pid;
        assert_eq!(
            fs::read_link(format!("/proc/{worker}/cwd")).unwrap(),
            fs::canonicalize(t.dir()).unwrap()
        );
        assert!(of_worker(t, "status").contains("Cpus_allowed_list:\t0\n"));
    });
}

#[test]
fn workers_give_up_root() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    site("user nobody nogroup;").run(|t| {
        // Who answers has given it up.
        t.ask("GET /").expect("200 ok");
        let status = of_worker(t, "status");
        let ids = |name: &str| {
            status
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap()
                .split_whitespace()
                .skip(1)
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid:"), ["65534"; 4]);
        assert_eq!(ids("Gid:"), ["65534"; 4]);
        assert!(ids("CapEff:").iter().all(|c| c.trim_start_matches('0').is_empty()));
    });
}

#[test]
fn variables_of_the_environment() {
    site("env TOLLBAR_GIVEN=yes; env PATH; user root;").run(|t| {
        t.ask("GET /").expect("200 ok");
    });
}

#[test]
fn what_is_taken_and_changes_nothing() {
    for main in [
        "timer_resolution 100ms;",
        "pcre_jit on;",
        "debug_points stop;",
        "lock_file {DIR}/lock;",
        "thread_pool own threads=2 max_queue=10;",
        "worker_processes auto; worker_cpu_affinity auto;",
        "ssl_object_cache_inheritable off;",
        "events { accept_mutex on; accept_mutex_delay 100ms; multi_accept on; use epoll; worker_connections 100; worker_aio_requests 8; }",
    ] {
        let conf = match main.contains("events") {
            true => {
                format!("{main} http {{ server {{ listen 127.0.0.1:{{PORT}}; return 200 ok; }} }}")
            }
            false => format!(
                "{main} events {{ }} http {{ server {{ listen 127.0.0.1:{{PORT}}; return 200 ok; }} }}"
            ),
        };
        Site::whole(&conf).run(|t| {
            t.ask("GET /").expect("200 ok");
        });
    }
}

#[test]
fn what_is_refused() {
    let cases = [
        ("load_module none.so; events { }", "none.so"),
        ("ssl_engine nothing; events { }", "[emerg]"),
        ("user no_such_user_here; events { }", "getpwnam(\"no_such_user_here\") failed"),
        (
            "working_directory /a /b; events { }",
            "invalid number of arguments in \"working_directory\" directive",
        ),
        ("worker_cpu_affinity x; events { }", "invalid character \"x\" in \"worker_cpu_affinity\""),
        ("worker_priority x; events { }", "invalid number"),
        ("env; events { }", "invalid number of arguments in \"env\" directive"),
        ("daemon maybe; events { }", "\"daemon\" directive is duplicate"),
    ];
    let differences: Vec<String> =
        cases.iter().filter_map(|(conf, said)| refuses_conf(conf, said).err()).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

nginx_test!(what_is_taken_in_http, "
    connection_pool_size 512; request_pool_size 4k; map_hash_bucket_size 64; map_hash_max_size 2048; server_names_hash_bucket_size 64;
    types_hash_bucket_size 64; types_hash_max_size 1024; variables_hash_bucket_size 64; variables_hash_max_size 1024;
    keepalive_min_timeout 0; keepalive_disable none; postpone_output 1460; tcp_nodelay on; client_body_in_single_buffer on;
    client_body_temp_path {DIR}/body 1 2; auth_delay 0s; lingering_close on; lingering_time 5s;
    server { location / { return 200 ok; } }", "
    GET / -> 200 ok
");

nginx_test!(
    a_connection_has_an_age,
    "
    server { keepalive_time 200ms; location / { return 200 ok; } }",
    |t| {
        let mut client = t.connect();
        client.ask("GET /").expect("200 | Connection: keep-alive");
        std::thread::sleep(std::time::Duration::from_millis(300));
        client.ask("GET /").expect("200 | Connection: close");
        client.expect_closed();
    }
);

nginx_test!(
    some_browsers_get_no_keep_alive,
    "
    server { keepalive_disable safari msie6; location / { return 200 ok; } }",
    |t| {
        let mut client = t.connect();
        client.ask("POST / | User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X) AppleWebKit/533 Safari/533 << x").expect("200 | Connection: close");
    }
);

nginx_test!(
    no_chunks_when_told,
    "
    server { chunked_transfer_encoding off; location / { proxy_pass http://{BACKEND}; } }",
    |t| {
        t.backend().reply_and_close("/", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end");
        let mut client = t.connect();
        client.ask("GET /").expect("200 to the end | Connection: close | !Transfer-Encoding");
    }
);

nginx_test!(a_client_that_does_not_read_is_left, "
    server { listen 127.0.0.1:{PORT} sndbuf=32k; send_timeout 300ms; reset_timedout_connection on; root {DIR}/html; }", |t| {
    t.file("html/large", vec![b'x'; 20_000_000]);
    let mut client = t.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    t.error_log().expect("[info] *client timed out (110: Connection timed out) while sending response to client");
    assert!(client.read_to_end().len() < 20_000_000);
});
