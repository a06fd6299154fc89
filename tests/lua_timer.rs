//! `ngx.timer`: code that runs later, without a request.

use crate::harness::lua::{lua_test, with_lua};
use nix::sys::signal::Signal;

lua_test!(
    timers_run_later,
    r#"lua_shared_dict d 1m;
    init_worker_by_lua_block { ngx.timer.at(0, function(premature, a, b)
        ngx.shared.d:set("first", tostring(premature) .. a .. b .. ngx.get_phase()) end, "x", 1) }
    server {
        location /first { content_by_lua_block { ngx.print(ngx.shared.d:get("first")) } }
        location /at { content_by_lua_block {
            ngx.timer.at(0.01, function(_, t) ngx.ctx.n = 7 ngx.sleep(0.01) ngx.shared.d:set("at", t.v + ngx.ctx.n) end, { v = 1 })
            ngx.print(ngx.timer.pending_count(), ngx.timer.running_count()) ngx.sleep(0.05) ngx.print(ngx.shared.d:get("at"), ngx.timer.pending_count()) } }
        location /every { content_by_lua_block {
            ngx.timer.every(0.01, function(premature, name) ngx.shared.d:incr(name, 1, 0) end, "ticks")
            ngx.sleep(0.1) local n = ngx.shared.d:get("ticks") ngx.print(n > 2 and n < 11) } }
        location /threads { content_by_lua_block {
            ngx.timer.at(0, function() local t = ngx.thread.spawn(function() ngx.sleep(0.001) return 5 end)
                ngx.shared.d:set("thread", select(2, ngx.thread.wait(t))) end) ngx.sleep(0.03) ngx.print(ngx.shared.d:get("thread")) } }
        location /socket { content_by_lua_block {
            ngx.timer.at(0, function(_, port) local s = ngx.socket.tcp() s:settimeout(1000)
                assert(s:connect("127.0.0.1", port)) assert(s:send("GET /first HTTP/1.0\r\nHost: a\r\n\r\n"))
                ngx.shared.d:set("line", s:receive()) ngx.shared.d:set("again", tostring(s:setkeepalive())) end, ngx.var.server_port)
            ngx.sleep(0.05) ngx.print(ngx.shared.d:get("line"), ngx.shared.d:get("again")) } }
        location /fails { content_by_lua_block { ngx.timer.at(0, function() error("timer's fault") end) } }
        location /capture { content_by_lua_block { ngx.timer.at(0, function() ngx.location.capture("/first") end) } }
        location /say { content_by_lua_block { ngx.timer.at(0, function() ngx.say("x") end) } }
        location /exit { content_by_lua_block {
            ngx.timer.at(0, function() ngx.shared.d:set("exit", 1) ngx.exit(200) ngx.shared.d:set("exit", 2) end)
            ngx.sleep(0.02) ngx.print(ngx.shared.d:get("exit")) } }
        location /no { content_by_lua_block {
            ngx.say(pcall(ngx.timer.at, 1)) ngx.say(pcall(ngx.timer.at, "x", function() end))
            ngx.say(pcall(ngx.timer.at, 1, tostring)) ngx.say(pcall(ngx.timer.every, 0, function() end)) } }
    }"#,
    |t| {
        t.check(
            "
        GET /first   -> 200 falsex1timer
        GET /at      -> 200 1080
        GET /every   -> 200 true
        GET /threads -> 200 5
        GET /exit    -> 200 1
        GET /socket  -> 200 HTTP/1.1 200 OK*
        GET /fails   -> 200
        GET /say     -> 200
        GET /capture -> 200
        GET /no      -> 200 *at least 2 arguments but got 1*number expected, got string*Lua function expected*delay cannot be zero*
    ",
        );
        let log = t.error_log();
        log.expect("lua entry thread aborted: runtime error: *timer's fault");
        log.expect("*in function <*>, context: ngx.timer, client: 127.0.0.1, server: 127.0.0.1:*");
        log.expect_times("API disabled in the context of ngx.timer", 2);
    }
);

lua_test!(
    timers_have_limits,
    r#"lua_max_pending_timers 2; lua_max_running_timers 1; server {
        location /pending { content_by_lua_block { local f = function() end
            ngx.print(ngx.timer.at(5, f), ngx.timer.at(5, f), ngx.timer.at(5, f)) ngx.print(select(2, ngx.timer.at(5, f))) } }
        location /running { content_by_lua_block { local f = function() ngx.sleep(0.05) end
            ngx.timer.at(0, f) ngx.timer.at(0, f) ngx.sleep(0.02) ngx.print(ngx.timer.running_count()) } }
    }"#,
    |t| {
        t.check("GET /running -> 200 1");
        t.expect_alert("lua failed to run timer with function defined at @*: 1 lua_max_running_timers are not enough");
        t.check("GET /pending -> 200 11niltoo many pending timerstoo many pending timers");
    }
);

/// A worker that ends runs what waits at once, and finishes what runs.
#[test]
fn a_worker_that_ends_runs_its_timers() {
    let conf = r#"init_worker_by_lua_block {
        local function tell(premature, what) ngx.log(ngx.NOTICE, what, " premature: ", premature, " exiting: ", ngx.worker.exiting())
            ngx.sleep(0.02) ngx.log(ngx.NOTICE, what, " is over") 
            ngx.log(ngx.NOTICE, "again: ", select(2, ngx.timer.at(1, tell))) end
        ngx.timer.at(100, tell, "at") ngx.timer.every(100, tell, "every") }
    server { location / { return 200 ok; } }"#;
    let Some(mut site) = with_lua(conf) else { return };
    site.start();
    site.check("GET / -> 200 ok");
    site.stop_by(Signal::SIGQUIT);
    let log = site.error_log();
    for what in ["at", "every"] {
        log.expect(&format!("{what} premature: true exiting: true"));
        log.expect(&format!("{what} is over"));
    }
    log.expect("again: process exiting");
}
