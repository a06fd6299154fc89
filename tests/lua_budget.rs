//! `lua_budget`: code that decides about a request has so long and no longer.

use crate::harness::lua::{lua_test, with_lua};

lua_test!(
    code_has_so_long,
    r#"log_format b "$uri $status $lua_budget_status"; access_log {DIR}/budget.log b;
    server {
        lua_budget 60ms on_timeout=pass;
        location /ok { access_by_lua_block { ngx.sleep(0.001) } content_by_lua_block { ngx.print(ngx.var.lua_budget_status) } }
        location /pass { access_by_lua_block { ngx.sleep(5) ngx.exit(403) } content_by_lua_block { ngx.print("let in ", ngx.var.lua_budget_status) } }
        location /deny { lua_budget 20ms on_timeout=deny; access_by_lua_block { ngx.sleep(5) } content_by_lua_block { ngx.print("no") } }
        location /status { lua_budget 20ms on_timeout=503; rewrite_by_lua_block { ngx.sleep(5) } content_by_lua_block { ngx.print("no") } }
        location /threads { lua_budget 20ms on_timeout=503; access_by_lua_block { ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(5) end)) } content_by_lua_block { ngx.print("no") } }
        location /socket { lua_budget 30ms; access_by_lua_block { local s = ngx.socket.tcp() s:settimeout(5000) s:connect("{BACKEND}") s:connect("127.0.0.1", ("{BACKEND}"):match(":(%d+)")) s:send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n") s:receive() ngx.exit(403) } content_by_lua_block { ngx.print("let in") } }
        location /error { access_by_lua_block { error("x") } content_by_lua_block { ngx.print("no") } }
        location /off { lua_budget off; access_by_lua_block { ngx.sleep(0.1) } content_by_lua_block { ngx.print("[", ngx.var.lua_budget_status, "]") } }
        location /content { content_by_lua_block { ngx.sleep(0.1) ngx.print("slow") } }
        location /both { rewrite_by_lua_block { ngx.sleep(5) } access_by_lua_block { ngx.sleep(5) } content_by_lua_block { ngx.print("in time") } }
    }"#,
    |t| {
        t.backend().on("/hold", vec![vec![crate::harness::Step::Hold]]);
        t.check(
            "
        GET /ok      -> 200 ok
        GET /pass    -> 200 let in timeout
        GET /deny    -> 403
        GET /status  -> 503
        GET /threads -> 503
        GET /socket  -> 200 let in
        GET /error   -> 500
        GET /off     -> 200 [nil]
        GET /content -> 200 slow
        GET /both    -> 200 in time
    ",
        );
        let log = t.log("budget.log");
        log.expect("/status 503 timeout");
        log.expect("/error 500 error");
        t.error_log().expect("[warn] *lua budget of 20 ms is spent*client");
    }
);

#[test]
fn what_is_no_budget_is_refused() {
    for (args, says) in [
        ("0", "\"lua_budget\" directive invalid value"),
        ("x", "\"lua_budget\" directive invalid value"),
        ("5ms on_timeout=maybe", "invalid parameter \"on_timeout=maybe\""),
        ("5ms on_timeout=200", "invalid parameter \"on_timeout=200\""),
        ("5ms later", "invalid parameter \"later\""),
    ] {
        let Some(site) = with_lua(&format!("lua_budget {args}; server {{ }}")) else { return };
        let said = String::from_utf8_lossy(&site.run_with(&["-t"]).stderr).into_owned();
        assert!(said.contains(says), "{args}\n{said}");
    }
}
