//! The VM: what the master makes of it, what children inherit, and its bounds.

use crate::harness::lua::{lua_test, paths, with_lua};
use crate::harness::{Site, procs, wait_for};
use nix::sys::signal::Signal;

/// The file of a unix socket goes with a start that failed: nothing keeps the next one from it.
#[test]
fn a_start_that_fails_leaves_no_socket() {
    let Some(paths) = paths() else { return };
    let conf = |init: &str| {
        format!(
            "events {{ }} http {{ {paths} init_by_lua_block {{ {init} }}
            server {{ listen unix:{{DIR}}/s.sock; }} server {{ listen 127.0.0.1:{{PORT}}; return 200; }} }}"
        )
    };
    let mut site = Site::whole(&conf("error('no')"));
    assert!(!site.run_with(&[]).status.success());
    assert!(!site.dir().join("s.sock").exists());
    site.configure(&conf(""));
    site.run(|t| {
        let socket = t.dir().join("s.sock");
        t.configure(&conf("error('not now')"));
        t.signal(Signal::SIGHUP);
        t.expect_alert("[emerg] *init_by_lua failed");
        assert!(socket.exists());
    });
}

/// The error of a configuration that is not taken.
fn refused(conf: &str) -> Option<String> {
    let output = with_lua(conf)?.run_with(&["-t"]);
    assert!(!output.status.success());
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn init_that_fails_refuses_the_configuration() {
    for (init, says) in [
        ("error('no way')", "init_by_lua error: init_by_lua(nginx.conf:*):*: no way"),
        ("if x then", "'end' expected near '<eof>'"),
        ("local t = {} for i = 1, 1e9 do t[i] = {} end", "not enough memory"),
        ("require 'no.such'", "module 'no.such' not found"),
        ("ngx.say('x')", "API disabled in the context of init_by_lua*"),
    ] {
        let conf = format!("lua_vm_memory_limit 64m; init_by_lua_block {{ {init} }} server {{ }}");
        let Some(said) = refused(&conf) else { return };
        let parts: Vec<&str> = says.split('*').filter(|part| part.len() > 2).collect();
        assert!(parts.iter().all(|part| said.contains(part)), "{init}\n{said}");
    }
}

/// `init_by_lua` runs once, in the master; workers have what it made, dicts included. A new one
/// that fails changes nothing.
#[test]
fn children_inherit_what_init_made() {
    let Some(paths) = paths() else { return };
    let conf = |code: &str| {
        format!(
            "worker_processes 2; events {{ }} http {{ {paths} access_log off;
            lua_shared_dict d 1m;
            init_by_lua_block {{ pid = ngx.worker.pid() ngx.shared.d:incr('runs', 1, 0) {code} }}
            server {{ listen 127.0.0.1:{{PORT}}; location / {{ content_by_lua_block {{
                ngx.print(made, ' ', ngx.shared.d:get('runs'), ' ', ngx.worker.pid() ~= pid)
            }} }} }} }}"
        )
    };
    Site::whole(&conf("made = 'first'")).run(|t| {
        for _ in 0..4 {
            t.check("GET / -> 200 first 1 true");
        }
        t.configure(&conf("error('bad')"));
        t.signal(Signal::SIGHUP);
        t.error_log().expect("[error] *init_by_lua error: *bad");
        t.expect_alert("[emerg] *init_by_lua failed");
        t.check("GET / -> 200 first 2 true");
        // A worker that is born now has the old VM.
        let worker = t.expect_procs("worker process", 2)[0].pid;
        procs::signal(worker, Signal::SIGKILL);
        t.expect_alert("exited on signal 9");
        t.expect_procs("worker process", 2);
        for _ in 0..4 {
            t.check("GET / -> 200 first 2 true");
        }
        t.configure(&conf("made = 'second'"));
        t.signal(Signal::SIGHUP);
        let says = || t.ask("GET /").body == b"second 3 true";
        wait_for(|| says().then_some(())).expect("the new workers");
    });
}

/// `;;` stands for where Lua looks anyway, `$prefix` for the server's.
#[test]
fn modules_are_found_by_the_paths() {
    let Some(paths) = paths() else { return };
    let path = paths.split('"').nth(1).unwrap();
    let conf = format!(
        "lua_package_path \"$prefix/lua/?.lua;{path}\"; lua_package_cpath \"/no/?.so;;\";
        server {{ location / {{ content_by_lua_block {{
            ngx.print(require('mine').said, ' ', package.cpath:sub(1, 9), ' ', #package.cpath > 9)
        }} }} }}"
    );
    let site = Site::http(&conf).with_file("lua/mine.lua", "return { said = 'mine' }");
    site.run(|t| t.check("GET / -> 200 mine /no/?.so; true"));
}

lua_test!(
    memory_is_bounded,
    r#"lua_vm_memory_limit 48m; server {
        location /hog { content_by_lua_block { local t = {} for i = 1, 1e9 do t[i] = { i } end } }
        location /string { content_by_lua_block { ngx.print(#("x"):rep(1e9)) } }
        location /caught { content_by_lua_block {
            ngx.print(select(2, pcall(function() local s = ("x"):rep(1e6) for i = 1, 40 do s = s .. s end end))) } }
        location /deep { content_by_lua_block {
            local function down(n) if n == 0 then ngx.print("x") return end return 1 + down(n - 1) end
            ngx.print(pcall(down, 190000)) } }
        location /ok { content_by_lua_block { ngx.print("fine") } }
    }"#,
    |t| {
        let worker = t.expect_procs("worker process", 1)[0].pid;
        t.check(
            "
        GET /hog    -> 500
        GET /ok     -> 200 fine
        GET /string -> 500
        GET /caught -> 200 not enough memory
        GET /ok     -> 200 fine
        GET /deep   -> 200 *
        GET /ok     -> 200 fine
    ",
        );
        t.error_log()
            .expect("lua entry thread aborted: memory allocation error: not enough memory");
        assert_eq!(t.expect_procs("worker process", 1)[0].pid, worker);
    }
);

lua_test!(
    the_context_ends_with_a_redirect_from_within,
    r#"server {
        location /exec { content_by_lua_block { ngx.ctx.a = 1 ngx.exec("/look") } }
        location /named { content_by_lua_block { ngx.ctx.a = 1 ngx.exec("@look") } }
        location /rewrite { set $to /look; rewrite_by_lua_block { ngx.ctx.a = 1 ngx.req.set_uri("/look", true) } }
        location /look { content_by_lua_block { ngx.print(ngx.ctx.a) } }
        location @look { content_by_lua_block { ngx.print(ngx.ctx.a) } }
    }"#,
    "
    GET /exec    -> 200 nil
    GET /named   -> 200 nil
    GET /rewrite -> 200 1
"
);

/// `ngx.process`: the privileged process runs `init_worker_by_lua` and its timers if code asked.
#[test]
fn the_privileged_process_runs_code() {
    let conf = r#"lua_shared_dict d 1m;
    init_by_lua_block { local p = require "ngx.process" ngx.log(ngx.INFO, "init in ", p.type())
        assert(p.enable_privileged_agent()) }
    init_worker_by_lua_block { local p = require "ngx.process"
        if p.type() == "privileged agent" then
            ngx.timer.at(0.01, function() local s = ngx.socket.tcp()
                ngx.shared.d:set("by", p.type() .. " " .. tostring(p.get_master_pid() ~= ngx.worker.pid())) end) end }
    server {
        location /type { content_by_lua_block { ngx.print(require("ngx.process").type()) } }
        location /by { content_by_lua_block { for i = 1, 200 do if ngx.shared.d:get("by") then break end ngx.sleep(0.01) end ngx.print(ngx.shared.d:get("by")) } }
        location /quit { content_by_lua_block { require("ngx.process").signal_graceful_exit() ngx.print(ngx.worker.pid()) } }
    }"#;
    let Some(site) = with_lua(conf) else { return };
    site.run(|t| {
        t.error_log().expect("init in master");
        t.check("GET /type -> 200 worker\nGET /by -> 200 privileged agent true");
        let before = t.expect_procs("worker process", 1)[0].pid;
        t.check(&format!("GET /quit -> 200 {before}"));
        let others = || t.procs().iter().any(|p| p.role == "worker process" && p.pid != before);
        wait_for(|| others().then_some(())).expect("another worker");
    });
}

lua_test!(
    logs_and_reasons_are_written,
    r#"server {
        location /log { content_by_lua_block { local e = require "ngx.errlog" e.raw_log(ngx.ERR, "just this")
            ngx.print(pcall(e.raw_log, 99, "x")) ngx.print(" ", e.get_sys_filter_level() >= ngx.INFO, select(2, e.get_logs())) } }
        location /reason { content_by_lua_block { local resp = require "ngx.resp"
            -- An older lua-resty-core has no set_status.
            if resp.set_status then resp.set_status(299, "Quite Fine") else ngx.status = 299 end ngx.print("x") } }
    }"#,
    |t| {
        t.check("GET /log -> 200 false*bad log level*truedirective \"lua_capture_error_log\" is not set");
        t.error_log().expect("[error] *#*: *1 just this, client");
        let said = t.raw("GET /reason HTTP/1.0\r\n\r\n");
        let known = ["HTTP/1.1 299 Quite Fine\r\n", "HTTP/1.1 299 \r\n"];
        assert!(known.iter().any(|line| said.starts_with(line)), "{said}");
    }
);
