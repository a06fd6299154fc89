//! Light threads and semaphores.

use crate::harness::lua::lua_test;

lua_test!(
    threads_run_side_by_side,
    r#"server {
        location /order { content_by_lua_block {
            local t = ngx.thread.spawn(function(a, b) ngx.print(a) ngx.sleep(0.02) ngx.print(b) return "x", { 1 } end, "a", "c")
            ngx.print("b") local ok, x, list = ngx.thread.wait(t) ngx.print(ok, x, list[1]) } }
        location /any { content_by_lua_block {
            local function nap(n) ngx.sleep(n / 100) return n end
            local a, b = ngx.thread.spawn(nap, 20), ngx.thread.spawn(nap, 1)
            ngx.print(select(2, ngx.thread.wait(a, b)), " ", ngx.thread.kill(a), " ", select(2, ngx.thread.kill(a)), " ", select(2, ngx.thread.wait(a))) } }
        location /outlive { content_by_lua_block {
            ngx.thread.spawn(function() ngx.sleep(0.02) ngx.print(" child") end) ngx.print("parent") } }
        location /exit { content_by_lua_block {
            ngx.thread.spawn(function() ngx.sleep(0.01) ngx.exit(403) end) ngx.sleep(10) } }
        location /child-fails { content_by_lua_block {
            local t = ngx.thread.spawn(function() ngx.sleep(0) error("child's fault") end)
            ngx.print(ngx.thread.wait(t)) } }
        location /parent-fails { content_by_lua_block {
            ngx.thread.spawn(function() ngx.sleep(10) end) ngx.sleep(0) error("parent's fault") } }
        location /nested { content_by_lua_block {
            local t = ngx.thread.spawn(function()
                local co = coroutine.wrap(function() ngx.sleep(0.001) coroutine.yield(1) ngx.sleep(0.001) return 2 end)
                return co() + co() end)
            ngx.print(select(2, ngx.thread.wait(t))) } }
        location /yield { content_by_lua_block {
            local function f(name) return function() for i = 1, 3 do ngx.print(name, i) coroutine.yield() end end end
            ngx.thread.spawn(f("a")) ngx.thread.spawn(f("b")) } }
        location /not-mine { content_by_lua_block {
            local inner local outer = ngx.thread.spawn(function() inner = ngx.thread.spawn(function() ngx.sleep(0.01) end) end)
            ngx.sleep(0) ngx.print(pcall(ngx.thread.wait, inner)) ngx.print(" ", select(2, ngx.thread.kill(inner)), " ", pcall(ngx.thread.wait, coroutine.create(function() end))) } }
        location /status { content_by_lua_block {
            local status = coroutine.status
            local t = ngx.thread.spawn(function() ngx.sleep(0.002) end)
            ngx.print(status(t), " ", status(coroutine.running())) ngx.sleep(0.02)
            ngx.print(" ", status(t)) ngx.thread.wait(t) ngx.print(" ", status(t), " ", status(coroutine.create(print)), " ", pcall(status, 1)) } }
        location /many { content_by_lua_block {
            local n, t = 0, {} for i = 1, 2000 do t[i] = ngx.thread.spawn(function() ngx.sleep(0.001) n = n + 1 end) end
            for i = 1, 2000 do ngx.thread.wait(t[i]) end ngx.print(n) } }
        location /access { access_by_lua_block { local t = ngx.thread.spawn(function() ngx.sleep(0.001) return 401 end) ngx.exit(select(2, ngx.thread.wait(t))) } }
        location /capture { content_by_lua_block {
            local function get(n) return ngx.location.capture("/slow?n=" .. n).body end
            local a, b = ngx.thread.spawn(get, 1), ngx.thread.spawn(get, 2)
            ngx.print(select(2, ngx.thread.wait(a)), select(2, ngx.thread.wait(b))) } }
        location /slow { content_by_lua_block { ngx.sleep(0.01) ngx.print("<", ngx.var.arg_n, ">") } }
        location /log { return 200 ok; log_by_lua_block { ngx.thread.spawn(function() end) } }
        location /no { content_by_lua_block { ngx.print(pcall(ngx.thread.spawn, 1)) ngx.print(pcall(ngx.thread.wait)) } }
    }"#,
    |t| {
        t.check(
            "
        GET /order        -> 200 abctruex1
        GET /any          -> 200 1 1 already waited or killed already waited or killed
        GET /outlive      -> 200 parent child
        GET /exit         -> 403
        GET /child-fails  -> 200 falsecontent_by_lua(*: child's fault
        GET /parent-fails -> 500
        GET /nested       -> 200 3
        GET /yield        -> 200 a1b1a2b2a3b3
        GET /not-mine     -> 200 false*only the parent coroutine can wait on the thread killer not parent false*no co ctx found
        GET /status -> 200 running running zombie dead suspended false*
        GET /many         -> 200 2000
        GET /access       -> 401
        GET /capture      -> 200 <1><2>
        GET /log          -> 200 ok
        GET /no           -> 200 false*(function expected, got number)false*at least one coroutine should be specified
    ",
        );
        let log = t.error_log();
        log.expect("lua user thread aborted: runtime error: *child's fault");
        log.expect("lua entry thread aborted: runtime error: *parent's fault");
        log.expect("API disabled in the context of log_by_lua*");
    }
);

lua_test!(
    semaphores_let_threads_wait,
    r#"init_worker_by_lua_block { shared = require("ngx.semaphore").new() }
    server {
        location /order { content_by_lua_block {
            local s = require("ngx.semaphore").new(1)
            local function take(n) local ok, why = s:wait(1) ngx.print(n, ok, why, " ") end
            for i = 1, 3 do ngx.thread.spawn(take, i) end
            ngx.print(s:count(), " ") s:post(2) ngx.sleep(0.01) ngx.print(s:count()) } }
        location /timeout { content_by_lua_block {
            local s = require("ngx.semaphore").new() ngx.print(s:wait(0), s:wait(0.01)) ngx.print(select(2, s:wait(0.01)), s:count()) } }
        location /killed { content_by_lua_block {
            local s = require("ngx.semaphore").new() local t = ngx.thread.spawn(function() s:wait(10) end)
            ngx.thread.kill(t) s:post() ngx.print(s:count(), s:wait(0)) } }
        location /turn { content_by_lua_block {
            local s = require("ngx.semaphore").new() ngx.thread.spawn(function() ngx.print("got ", s:wait(1), " ") end)
            s:post(2) ngx.print(s:wait(0), " ") ngx.sleep(0.01) ngx.print(s:wait(0)) } }
        location /wait { content_by_lua_block { ngx.print(shared:wait(5)) } }
        location /post { content_by_lua_block { shared:post() ngx.print("posted") } }
        location /coroutine { content_by_lua_block {
            local s = require("ngx.semaphore").new() ngx.thread.spawn(function() ngx.sleep(0.005) s:post() end)
            ngx.print(coroutine.wrap(function() return s:wait(1) end)()) } }
    }"#,
    |t| {
        t.check(
            "
        GET /order     -> 200 1truenil -2 2truenil 3truenil 0
        GET /timeout   -> 200 nilniltimeouttimeout0
        GET /killed    -> 200 1true
        GET /coroutine -> 200 truenil
        GET /turn      -> 200 nil got true true
    ",
        );
        let mut client = t.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        t.check("GET /post -> 200 posted");
        assert!(client.response().text().starts_with("true"));
    }
);

/// A client that leaves, errors and killed threads leave nothing behind.
#[test]
fn memory_is_flat() {
    let conf = r#"server {
        location /work { content_by_lua_block {
            local s = require("ngx.semaphore").new()
            local t = ngx.thread.spawn(function() s:wait(10) end)
            ngx.thread.spawn(function() ngx.sleep(0) if ngx.var.arg_fail then error("x") end end)
            ngx.ctx.big = ("x"):rep(10000) ngx.sleep(0) ngx.thread.kill(t)
            if ngx.var.arg_exit then ngx.exit(404) end ngx.print("done") } }
        location /memory { content_by_lua_block { collectgarbage() collectgarbage() ngx.print(collectgarbage("count")) } }
    }"#;
    let Some(site) = crate::harness::lua::with_lua(conf) else { return };
    site.run(|t| {
        let kib = |t: &crate::harness::Site| t.ask("GET /memory").text().parse::<f64>().unwrap();
        let round = |t: &crate::harness::Site, n: usize| {
            let mut client = t.connect();
            for i in 0..n {
                if i % 500 == 0 {
                    client = t.connect();
                }
                let query = ["", "?fail=1", "?exit=1"][i % 3];
                client.send(format!("GET /work{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
                client.response();
            }
        };
        round(t, 300);
        let before = kib(t);
        round(t, 3000);
        let after = kib(t);
        assert!(after < before + 64.0, "{before} KiB, then {after}");
    });
}

/// Every worker names all of them.
#[test]
fn workers_know_each_other() {
    let conf = "worker_processes 2; events {} http { server { listen 127.0.0.1:{PORT};
        location / { content_by_lua_block {
            local pids = ngx.worker.pids() table.sort(pids) ngx.print(table.concat(pids, ' ')) } } } }";
    let Some(paths) = crate::harness::lua::paths() else { return };
    crate::harness::Site::whole(&conf.replace("http {", &format!("http {{ {paths}"))).run(|t| {
        let mut workers: Vec<i32> =
            t.expect_procs("worker process", 2).iter().map(|p| p.pid).collect();
        workers.sort_unstable();
        let named = crate::harness::wait_for(|| {
            let named = t.ask("GET /").text();
            (named.split(' ').count() == 2).then_some(named)
        });
        assert_eq!(named.as_deref(), Some(&*format!("{} {}", workers[0], workers[1])));
    });
}
