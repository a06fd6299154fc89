//! Where code may stand, and what it may do there.

use crate::harness::lua::{lua_test, with_lua};
use nix::sys::signal::Signal;

lua_test!(
    bodies_are_filtered,
    r#"lua_shared_dict d 1m; server {
        location /upper { return 200 "hello"; body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:upper() } }
        location /count { content_by_lua_block { ngx.print(("x"):rep(300000)) }
            body_filter_by_lua_block { ngx.ctx.n = (ngx.ctx.n or 0) + #ngx.arg[1]
                ngx.arg[1] = ngx.arg[2] and { "total ", { ngx.ctx.n, "\n" } } or nil } }
        location /proxied { proxy_pass http://{BACKEND}/; header_filter_by_lua_block { ngx.header.content_length = nil }
            body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:gsub("l", "L") if ngx.arg[2] then ngx.arg[1] = ngx.arg[1] .. " " .. ngx.var.uri end } }
        location /cut { proxy_pass http://{BACKEND}/; header_filter_by_lua_block { ngx.header.content_length = nil }
            body_filter_by_lua_block { ngx.arg[1] = "only" ngx.arg[2] = true } }
        location /streamed { content_by_lua_block { ngx.print("a") ngx.flush(true) ngx.sleep(0.01) ngx.print("b") }
            body_filter_by_lua_block { if ngx.arg[1] ~= "" then ngx.arg[1] = "<" .. ngx.arg[1] .. ">" end } }
        location /fails { return 200 x; body_filter_by_lua_block { error("bad body") } }
        location /late { return 200 x; body_filter_by_lua_block { ngx.header.late = 1 ngx.arg[1] = tostring(ngx.headers_sent) .. ngx.get_phase() } }
        location /say { return 200 x; body_filter_by_lua_block { ngx.say("no") } }
        location /captured { content_by_lua_block { ngx.print(ngx.location.capture("/proxied").body, ngx.location.capture("/upper").body) } }
        location /index { return 200 x; body_filter_by_lua_block { ngx.arg[3] = 1 } }
        location /gzip { gzip on; gzip_min_length 0; gzip_types *; return 200 "zzz"; body_filter_by_lua_block { ngx.arg[1] = ngx.arg[1]:rep(1000) } }
        location /string { return 200 "hi"; body_filter_by_lua 'ngx.arg[1] = "by a string"'; }
    }"#,
    |t| {
        t.backend().reply("/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        t.check(
            "
        GET /upper    -> 200 HELLO | Content-Length: 5
        HEAD /upper   -> 200
        GET /count    -> 200 total 300000*
        GET /proxied  -> 200 heLLo /proxied
        GET /cut      -> 200 only
        GET /streamed -> 200 <ab>
        GET /fails    -> 500
        GET /late     -> 200 truebody_filter
        GET /say      -> 500
        GET /captured -> 200 heLLo /proxiedHELLO
        GET /index    -> 500
        GET /gzip | Accept-Encoding: gzip -> 200 * | Content-Encoding: gzip
        GET /string   -> 200 by a string
    ",
        );
        let log = t.error_log();
        log.expect("failed to run body_filter_by_lua*: body_filter_by_lua(nginx.conf:*: bad body");
        log.expect("API disabled in the context of body_filter_by_lua*");
        log.expect("bad index to ngx.arg: 3");
        log.expect("attempt to set ngx.header.late after sending out response headers");
    }
);

lua_test!(
    code_stands_in_every_phase,
    r#"server_rewrite_by_lua_block { ngx.ctx.way = (ngx.ctx.way or "") .. "server_rewrite " }
    server {
        rewrite_by_lua 'ngx.ctx.way = ngx.ctx.way .. ngx.get_phase() .. " "';
        access_by_lua 'ngx.ctx.way = ngx.ctx.way .. ngx.get_phase() .. " "';
        precontent_by_lua_block { ngx.ctx.way = ngx.ctx.way .. "precontent " }
        header_filter_by_lua 'ngx.header["X-Way"] = (ngx.ctx.way or "") .. ngx.get_phase()';
        log_by_lua 'ngx.log(ngx.ERR, "at the end: ", ngx.get_phase())';
        location /string { content_by_lua 'ngx.print(ngx.get_phase())'; }
        location /static { return 200 x; }
        location /files { try_files /none /string; }
        location /by-file { precontent_by_lua_file html/pre.lua; content_by_lua 'ngx.print(ngx.ctx.pre)'; body_filter_by_lua_file html/body.lua; }
        location /sub { content_by_lua_block { ngx.print(ngx.location.capture("/way").body) } }
        location /way { content_by_lua_block { ngx.print(ngx.ctx.way) } }
        location /set { set_by_lua $a 'return ngx.arg[1] .. ngx.arg[2] .. tostring(ngx.arg[3])' $arg_x "y";
            set_by_lua_file $b html/set.lua 1 2; return 200 "$a $b"; }
    }
    server { server_name other; server_rewrite_by_lua_file html/server.lua; location / { return 200 here; } location /new { return 200 new; } }"#,
    |t| {
        t.file("html/pre.lua", "ngx.ctx.pre = 'pre'");
        t.file("html/body.lua", "ngx.arg[1] = ngx.arg[1] .. '!'");
        t.file("html/set.lua", "return ngx.arg[1] + ngx.arg[2]");
        t.file(
            "html/server.lua",
            "if ngx.var.uri == '/gone' then ngx.exit(410) end
             if ngx.var.uri == '/old' then ngx.req.set_uri('/new') end ngx.sleep(0.001)",
        );
        t.check(
            "
        GET /string -> 200 content | X-Way: server_rewrite rewrite access precontent header_filter
        GET /static -> 200 x | X-Way: server_rewrite header_filter
        GET /by-file -> 200 pre!
        GET /files  -> 200 content | X-Way: *header_filter
        GET /sub    -> 200 server_rewrite rewrite precontent*
        GET /set?x=x -> 200 xynil 3
        GET /       | Host: other -> 200 here
        GET /gone   | Host: other -> 410
        GET /old    | Host: other -> 200 new
    ",
        );
        t.error_log().expect("at the end: log");
    }
);

lua_test!(
    what_code_does_by_default_can_be_changed,
    r#"default_type text/x; server {
        location /body { lua_need_request_body on; rewrite_by_lua_block { ngx.ctx.b = ngx.req.get_body_data() } content_by_lua_block { ngx.print(ngx.ctx.b) } }
        location /typeless { lua_use_default_type off; content_by_lua_block { ngx.print("x") } }
        location /typed { content_by_lua_block { ngx.print("x") } }
        location /under { lua_transform_underscores_in_response_headers off; content_by_lua_block { ngx.header.x_y = "z" ngx.print(ngx.header.x_y, ngx.header["X-Y"]) } }
        location /old { lua_http10_buffering off; content_by_lua_block { ngx.print("x", ngx.flush(true)) ngx.flush(true) ngx.print("y") } }
    }"#,
    |t| {
        t.check(
            "
        POST /body << hello -> 200 hello
        GET /typeless -> 200 x | !Content-Type
        GET /typed    -> 200 x | Content-Type: text/x
        GET /under    -> 200 znil | x_y: z
    ",
        );
        let all = t.raw("GET /old HTTP/1.0\r\n\r\n");
        assert!(all.ends_with("\r\n\r\nxnilnothing to flushy"), "{all}");
        assert!(!all.contains("Content-Length"), "{all}");
    }
);

#[test]
fn code_runs_when_a_worker_ends() {
    let conf = "lua_shared_dict d 1m;
        init_worker_by_lua 'ngx.log(ngx.NOTICE, \"begun in \", ngx.get_phase())';
        exit_worker_by_lua_block { ngx.shared.d:incr('ends', 1, 0)
            ngx.log(ngx.NOTICE, 'ended in ', ngx.get_phase(), ' ', ngx.shared.d:get('ends')) }
        server { location / { return 200 ok; } }";
    let Some(mut site) = with_lua(conf) else { return };
    site.start();
    site.check("GET / -> 200 ok");
    site.error_log().expect("begun in init_worker");
    site.signal(Signal::SIGHUP);
    site.error_log().expect("ended in exit_worker 1");
    site.error_log().expect_times("begun in init_worker", 2);
    site.stop_by(Signal::SIGTERM);
    site.error_log().expect("ended in exit_worker 2");
    // The privileged process runs no code unless it is asked to, at its end neither.
    assert_eq!(site.error_log().lines("ended in exit_worker").len(), 2);
}

#[test]
fn code_of_a_file_runs_when_a_worker_ends() {
    let conf = "exit_worker_by_lua_file html/end.lua; server { location / { return 200 ok; } }";
    let Some(site) = with_lua(conf) else { return };
    let mut site = site.with_file("html/end.lua", "ngx.log(ngx.NOTICE, 'the end')");
    site.start();
    site.stop_by(Signal::SIGQUIT);
    site.error_log().expect("end.lua:1: the end");
}

// Fields that code adds before the content go out with whatever answers in the end.
lua_test!(
    fields_of_early_code_outlive_what_answers,
    r#"server {
        access_by_lua_block { ngx.header["X-A"] = "1" ngx.header["X-B"] = { "2", "3" }
            local code = tonumber(ngx.var.arg_code) if code then ngx.exit(code) end }
        location / { proxy_pass http://{BACKEND}; }
        location /down { proxy_pass http://127.0.0.1:1; }
        location /file { root {DIR}; }
        location /paged { error_page 403 /page; error_page 404 = @named; }
        location /page { return 200 page; }
        location @named { return 200 named; }
        location /own { access_by_lua_block { ngx.header["Server"] = "me" ngx.header["Date"] = "now" } proxy_pass http://{BACKEND}/; }
        location /intercepted { proxy_intercept_errors on; error_page 404 /page; proxy_pass http://{BACKEND}; }
        location /content { content_by_lua_block { ngx.header["X-C"] = "c" ngx.exit(404) } }
        location /redirect { content_by_lua_block { ngx.redirect("/x") } }
        location /filter { header_filter_by_lua_block { if ngx.status == 200 then ngx.header["X-F"] = 1 error("no") end } return 200; }
    }"#,
    |t| {
        t.backend().reply(
            "/",
            "HTTP/1.1 200 OK\r\nX-A: own\r\nServer: its\r\nContent-Length: 2\r\n\r\nok",
        );
        t.backend().reply(
            "/intercepted",
            "HTTP/1.1 404 Not Found\r\nX-Lost: 1\r\nContent-Length: 0\r\n\r\n",
        );
        t.check(
            "
        GET /              -> 200 ok | X-A: 1 | X-A: own | X-B: 2 | X-B: 3
        GET /?code=401     -> 401 | X-A: 1 | X-B: 2 | X-B: 3
        GET /down          -> 502 | X-A: 1
        GET /file          -> 404 | X-A: 1
        GET /paged?code=403 -> 403 page | X-A: 1
        GET /paged?code=404 -> 200 named | X-A: 1
        GET /own           -> 200 ok | Server: me | Date: now
        GET /intercepted   -> 404 page | X-A: 1 | !X-Lost
        GET /content       -> 404 | X-A: 1 | X-C: c
        GET /redirect      -> 302 | X-A: 1 | Location: http://*/x
        GET /filter        -> 500 | !X-F
    ",
        );
    }
);
