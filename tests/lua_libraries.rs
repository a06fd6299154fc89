//! What libraries written for OpenResty look for beside the functions of `ngx`.

use crate::harness::Site;
use crate::harness::lua::{lua_test, paths, with_lua};

lua_test!(
    what_openresty_has_beside_ngx_is_found,
    r#"lua_regex_match_limit 100;
    init_worker_by_lua_block { ngx.ctx.n = 5 started = ngx.ctx.n
        ngx.timer.at(0, function() package.loaded.later = tostring(ngx.ctx.n) end) }
    server {
        location /table { content_by_lua_block {
            local clone, nkeys = require "table.clone", require "table.nkeys"
            local isarray, isempty = require "table.isarray", require "table.isempty"
            local t = setmetatable({ 1, 2, x = 3 }, { __index = { y = 4 } })
            local twin = clone(t)
            ngx.say(twin[1], twin.x, tostring(twin.y), twin ~= t, table.clone == clone)
            ngx.say(nkeys(t), nkeys({}), table.nkeys({ nil, 2 }))
            ngx.say(isarray({ 1, 2 }), isarray({}), isarray(t), isempty({}), isempty(t), isempty({ [false] = 1 }))
            ngx.print(pcall(nkeys, 1)) } }
        location /ffi { content_by_lua_block {
            local ffi, base64 = require "ffi", require "ngx.base64"
            ffi.cdef [[unsigned char *ngx_hex_dump(unsigned char *dst, const unsigned char *src, size_t len);
                intptr_t ngx_atoi(const unsigned char *line, size_t n); intptr_t ngx_hextoi(const unsigned char *line, size_t n);
                uintptr_t ngx_escape_uri(char *dst, const char *src, size_t size, int type);]]
            local buf = ffi.new("unsigned char[8]")
            local last = ffi.C.ngx_hex_dump(buf, "a\1", 2)
            ngx.say(ffi.string(buf, last - buf), " ", tonumber(ffi.C.ngx_atoi("120x", 3)), " ",
                tonumber(ffi.C.ngx_atoi("x", 1)), " ", tonumber(ffi.C.ngx_hextoi("fF", 2)))
            local more = tonumber(ffi.C.ngx_escape_uri(nil, "a b", 3, 0))
            local out = ffi.new("char[?]", 3 + 2 * more)
            ffi.C.ngx_escape_uri(out, "a b", 3, 0)
            ngx.say(more, ffi.string(out, 5))
            ngx.say(base64.encode_base64url("\255\254?"), " ", base64.encode_base64url("a"), " ",
                base64.decode_base64url("__4_") == "\255\254?", tostring(base64.decode_base64url("*")))
            ngx.print(pcall(ffi.C.ngx_hex_dump)) } }
        location /match { content_by_lua_block {
            ngx.say(ngx.re.find(("a"):rep(30), "^(a+)+$"))
            ngx.print(ngx.re.find(("a"):rep(30) .. "b", "^(a+)+$")) } }
        location /ctx { content_by_lua_block { ngx.print(started, package.loaded.later, tostring(ngx.ctx.n)) } }
        location /prefix { content_by_lua_block { ngx.print(ngx.config.prefix():sub(-1)) } }
    }"#,
    "
    GET /table  -> 200 13niltruetrue\\n301\\ntruetruefalsetruefalsefalse\\nfalsebad argument #1 to 'nkeys' (table expected, got number)
    GET /ffi    -> 200 6101 120 -1 255\\n1a%20b\\n__4_ YQ truenil\\nfalse*
    GET /match  -> 200 130\\nnilnil*failed: -47
    GET /ctx    -> 200 5nilnil
    GET /prefix -> 200 /
"
);

/// lua-resty-string, lua-resty-openssl: OpenResty is linked with OpenSSL.
lua_test!(
    openssl_of_the_system_is_found,
    r#"server { location / { content_by_lua_block {
        local ffi = require "ffi"
        ffi.cdef "unsigned long OpenSSL_version_num(void);"
        local ok, library = pcall(ffi.load, "libcrypto.so.3")
        ngx.print(not ok or ffi.C.OpenSSL_version_num() == library.OpenSSL_version_num()) } } }"#,
    "GET / -> 200 true"
);

/// lua-resty-events: one worker gets all connections of a unix socket. Others have numbers, the
/// privileged process has none.
#[test]
fn a_worker_leaves_a_socket_to_others() {
    let Some(paths) = paths() else { return };
    let conf = format!(
        r#"worker_processes 2; events {{ }} http {{ {paths} lua_shared_dict d 1m;
        init_by_lua_block {{
            local ffi = require "ffi"
            require "resty.core.base"
            ffi.cdef "int ngx_lua_ffi_disable_listening_unix_socket(ngx_str_t *sock_name);"
            assert(require "ngx.process".enable_privileged_agent())
            function leave(name)
                local text = ffi.new("ngx_str_t[1]")
                text[0].data, text[0].len = name, #name
                return ffi.C.ngx_lua_ffi_disable_listening_unix_socket(text)
            end }}
        init_worker_by_lua_block {{
            local id = ngx.worker.id()
            if not id then ngx.shared.d:set("privileged", true) return end
            if id == 1 then ngx.shared.d:set("left", leave("unix:{{DIR}}/s.sock") .. leave("unix:{{DIR}}/no.sock")) end }}
        server {{ listen unix:{{DIR}}/s.sock; location / {{ content_by_lua_block {{ ngx.print(ngx.worker.id()) }} }} }}
        server {{ listen 127.0.0.1:{{PORT}}; location / {{ proxy_pass http://unix:{{DIR}}/s.sock; }}
            location /left {{ content_by_lua_block {{ ngx.print(ngx.shared.d:get("left"), " ", ngx.shared.d:get("privileged"),
                " ", leave("unix:{{DIR}}/s.sock")) }} }} }} }}"#
    );
    Site::whole(&conf).run(|t| {
        for _ in 0..30 {
            t.check("GET / -> 200 0");
        }
        t.check("GET /left -> 200 0-1 true -1");
    });
}

/// Where `http {}` says it, it is true for timers of a worker's start: they have no other place.
#[test]
fn timers_of_the_start_know_what_http_says() {
    let conf = r#"resolver 127.0.0.1:{NOBODY}; resolver_timeout 100ms; lua_socket_log_errors off; lua_shared_dict d 1m;
        init_worker_by_lua_block { ngx.timer.at(0, function()
            local s = ngx.socket.tcp()
            ngx.shared.d:set("refused", select(2, s:connect("127.0.0.1", {NOBODY})))
            ngx.shared.d:set("name", select(2, s:connect("a.example", 80)))
        end) }
        server { location / { content_by_lua_block {
            for _ = 1, 100 do if ngx.shared.d:get("name") then break end ngx.sleep(0.01) end
            ngx.print(ngx.shared.d:get("refused"), ": ", ngx.shared.d:get("name")) } } }"#;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(site) = with_lua(&conf.replace("{NOBODY}", &port.to_string())) else { return };
    site.run(|t| {
        t.check("GET / -> 200 connection refused: a.example could not be resolved*");
        t.error_log().expect_times("connect() failed", 0);
    });
}

// `ngx.errlog`: what this process wrote to its logs, whoever wrote it.
lua_test!(
    lines_of_the_log_are_read_back,
    r#"lua_capture_error_log 4k;
    init_by_lua_block { assert(require "ngx.errlog".set_filter_level(ngx.WARN)) }
    server {
        location /two { content_by_lua_block {
            local errlog = require "ngx.errlog"
            ngx.log(ngx.ERR, "first") ngx.log(ngx.INFO, "talk") ngx.log(ngx.WARN, "second")
            local logs = errlog.get_logs()
            ngx.print(#logs, logs[1], math.abs(logs[2] - ngx.now()) < 1, " ", logs[3], " ", logs[4], logs[6], " ", #errlog.get_logs()) } }
        location /missing { root {DIR}; log_by_lua_block { seen = require "ngx.errlog".get_logs(1)[3] } }
        location /seen { content_by_lua_block { ngx.print(rawget(_G, "seen")) } }
        location /many { content_by_lua_block {
            for n = 1, 100 do ngx.log(ngx.ERR, "number ", n) end
            local logs = require "ngx.errlog".get_logs(200)
            ngx.print(#logs < 300, #logs > 30, " ", logs[#logs]) } }
        location /level { content_by_lua_block {
            local errlog = require "ngx.errlog"
            ngx.say(errlog.set_filter_level(99)) ngx.say(errlog.set_filter_level(ngx.STDERR))
            ngx.log(ngx.ERR, "kept by nobody") ngx.print(#errlog.get_logs()) } }
    }"#,
    "
    GET /two     -> 200 64true 2*[error] *first, client: * 5*[warn] *second, client: * 0
    GET /missing -> 404
    GET /seen    -> 200 *open() * failed (2: No such file*
    GET /many    -> 200 truetrue *number 100, client*
    GET /level   -> 200 nilbad log level: 99\\ntrue\\n0
"
);

#[test]
fn too_little_room_for_lines_is_refused() {
    let output = Site::http("lua_capture_error_log 4095; server { }").run_with(&["-t"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("invalid capture error log size \"4095\", minimum size is 4096"),
        "{said}"
    );
}

// nginx counts in words that its exporters read: ours are true when a timer begins.
lua_test!(
    what_nginx_counts_is_read_through_ffi,
    r#"lua_shared_dict d 1m; server { location / { content_by_lua_block {
        ngx.timer.at(0, function()
            local ffi = require "ffi"
            pcall(ffi.cdef, [[extern uint64_t *ngx_stat_accepted, *ngx_stat_handled, *ngx_stat_requests, *ngx_stat_active,
                *ngx_stat_reading, *ngx_stat_writing, *ngx_stat_waiting;]])
            local said = {}
            for name in ("accepted handled requests active reading writing waiting"):gmatch("%S+") do
                said[#said + 1] = tonumber(ffi.C["ngx_stat_" .. name][0])
            end
            ngx.shared.d:set("said", table.concat(said, " ")) end)
        ngx.sleep(0.05) ngx.print(ngx.shared.d:get("said")) } } }"#,
    "GET / -> 200 1 1 1 1 0 1 0"
);

// In the log a table says itself what it is, if it can and somebody wants the line.
lua_test!(
    tables_speak_in_the_log,
    r#"server {
        location / { content_by_lua_block {
            local function speaking(f) return setmetatable({}, { __tostring = f }) end
            ngx.log(ngx.WARN, "it is ", speaking(function() return "a table" end), nil, true, 1.5, ngx.null)
            print("printed ", speaking(function() return "too" end))
            local asked = false
            ngx.log(ngx.DEBUG, speaking(function() asked = true return "" end))
            ngx.say(asked)
            ngx.say(pcall(ngx.log, ngx.WARN, "x", {}))
            ngx.say(pcall(ngx.log, ngx.WARN, speaking(function() error("mute", 0) end)))
            ngx.log(ngx.WARN, "no text: ", speaking(function() return {} end), ".") } }
    }"#,
    |t| {
        t.check(
            "GET / -> 200 false\\nfalsebad argument #2 to 'log' (expected table to have __tostring metamethod)\\nfalsemute*",
        );
        let log = t.error_log();
        log.expect(
            "[warn] *[lua] content_by_lua(nginx.conf:*):3: it is a tableniltrue1.5null, client",
        );
        log.expect("[notice] *[lua] content_by_lua(nginx.conf:*):4: printed too, client");
        log.expect("no text: ., client");
    }
);
