//! Clients that leave while Lua works for them: `lua_check_client_abort`, `ngx.on_abort`.

use crate::harness::lua::lua_test;
use crate::harness::{Site, wait_for};

/// Asks for `uri`, leaves once its code has begun, and gives what became of it.
fn leave(t: &Site, uri: &str) -> String {
    let mut client = t.connect();
    client.send(format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let seen = |key: &str| {
        let text = t.ask(&format!("GET /seen?key={uri}{key}")).text();
        (text != "nil").then_some(text)
    };
    wait_for(|| seen("begun")).expect("it begins");
    drop(client);
    wait_for(|| seen("end")).expect("it ends")
}

lua_test!(
    code_is_told_that_its_client_leaves,
    r#"lua_shared_dict d 1m; log_format s "$uri $status"; access_log {DIR}/s.log s;
    init_by_lua_block { function note(key, value) ngx.shared.d:set(ngx.var.uri .. key, value) end }
    server { lua_check_client_abort on;
        location /seen { access_log off; content_by_lua_block { ngx.print(ngx.shared.d:get(ngx.var.arg_key)) } }
        location /told { content_by_lua_block {
            ngx.on_abort(function() note("end", "told " .. tostring(ngx.ctx.n) .. tostring(select(2, ngx.on_abort(function() end)))) ngx.exit(499) end)
            ngx.ctx.n = 7 note("begun", 1) ngx.sleep(60) note("end", "never") } }
        location /goes-on { content_by_lua_block {
            ngx.on_abort(function() note("told", 1) end) note("begun", 1)
            while not ngx.shared.d:get("/goes-ontold") do ngx.sleep(0.001) end note("end", "went on") } }
        location /stopped { content_by_lua_block { note("begun", 1) ngx.sleep(60) note("end", "never") }
            log_by_lua_block { note("end", "stopped " .. ngx.status) } }
        location /access { access_by_lua_block { note("begun", 1) ngx.sleep(60) } log_by_lua_block { note("end", "stopped " .. ngx.status) } }
        location /off { lua_check_client_abort off; content_by_lua_block { ngx.print(ngx.on_abort(function() end)) } }
        location /bad { content_by_lua_block { ngx.print(pcall(ngx.on_abort)) } }
    }"#,
    |t| {
        assert_eq!(leave(t, "/told"), "told 7duplicate call");
        assert_eq!(leave(t, "/goes-on"), "went on");
        assert_eq!(leave(t, "/stopped"), "stopped 499");
        assert_eq!(leave(t, "/access"), "stopped 499");
        t.check(
            "
        GET /off -> 200 nillua_check_client_abort is off
        GET /bad -> 200 false*bad argument #1 to 'on_abort' (function expected, got no value)
        ",
        );
        t.log("s.log").expect("/told 499");
        t.error_log().expect_times("[info] *client prematurely closed connection, client: *", 4);
    }
);
