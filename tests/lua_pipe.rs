//! `ngx.pipe`: processes that Lua starts.

use crate::harness::lua::lua_test;
use crate::harness::{Response, procs};
use nix::sys::signal::Signal;

/// A configuration with `pipe`, and `said`, which prints what a call gave.
macro_rules! with_pipe {
    ($conf:expr) => {
        concat!(
            "init_by_lua_block {
                pipe = require 'ngx.pipe'
                function said(...)
                    local n, out = select('#', ...), {...}
                    while n > 1 and out[n] == nil do n = n - 1 end
                    for i = 1, n do out[i] = '[' .. tostring(out[i]) .. ']' end
                    ngx.print(table.concat(out))
                end
                in_init = { pcall(pipe.spawn, { 'true' }) }
            }
            ",
            $conf
        )
    };
}

lua_test!(
    output_is_read_as_it_is_wanted,
    with_pipe!(
        r#"server {
        location /line { content_by_lua_block { local p = pipe.spawn({ "echo", "hello world" }) said(p:stdout_read_line()) } }
        location /no-end { content_by_lua_block { local p = pipe.spawn({ "printf", "hello world" }) said(p:stdout_read_line()) said(p:stdout_read_line()) } }
        location /bytes { content_by_lua_block { local p = pipe.spawn({ "echo", "hello world" })
            said(p:stdout_read_bytes(5)) said(p:stdout_read_bytes(6)) said(p:stdout_read_bytes(0)) said(p:stdout_read_bytes(9)) said(pcall(p.stdout_read_bytes, p, -1)) } }
        location /all { content_by_lua_block { local p = pipe.spawn({ "sh", "-c", "printf hello && sleep 0.05 && printf world" })
            said(p:stdout_read_all()) said(p:stdout_read_all()) said(p:stdout_read_any(9)) } }
        location /any { content_by_lua_block { local p = pipe.spawn({ "sh", "-c", "printf hello; read x; printf world" })
            said(p:stdout_read_any(4)) said(p:stdout_read_any(3)) p:write("\n") said(p:stdout_read_any(1024)) said(p:stdout_read_any(1024)) } }
        location /mixed { content_by_lua_block {
            local p = pipe.spawn([[printf hello; read x; echo world; echo more; read x; printf 'da\rta\r\n%s' tail]])
            said(p:stdout_read_any(1024)) p:write("\n") said(p:stdout_read_bytes(3)) said(p:stdout_read_line())
            said(p:stdout_read_bytes(2)) said(p:stdout_read_any(2)) p:write("\n")
            said(p:stdout_read_line()) said(p:stdout_read_line()) said(p:stdout_read_all()) } }
        location /at-once { content_by_lua_block { local p = pipe.spawn({ "echo", "hello" }) ngx.sleep(0.1) said(p:stdout_read_line()) } }
        location /much { content_by_lua_block { local s = ("0123"):rep(30000)
            local p = pipe.spawn({ "cat" }, { buffer_size = 100 })
            local t = ngx.thread.spawn(function() said(p:write(s)) p:shutdown("stdin") end)
            local all = p:stdout_read_all() ngx.thread.wait(t) said(all == s) } }
        location /partly { content_by_lua_block { local s = ("0123"):rep(1024)
            local p = pipe.spawn({ "printf", s }) local data, err, partial = p:stdout_read_line() said(data, err, partial == s) } }
        location /chunk { content_by_lua_block { local p = pipe.spawn({ "printf", "0123456789" }, { buffer_size = 4 }) said(p:stdout_read_any(99)) said(p:stdout_read_any(99)) } }
        location /stderr { content_by_lua_block { local p = pipe.spawn("echo hello; echo world >&2; printf more >&2")
            said(p:stderr_read_line()) said(p:stderr_read_bytes(2)) said(p:stderr_read_any(9)) said(p:stderr_read_all()) said(p:stderr_read_line()) said(p:stdout_read_all()) } }
        location /merged { content_by_lua_block { local p = pipe.spawn("echo hello; echo world >&2", { merge_stderr = true })
            said(p:stdout_read_all()) said(p:stderr_read_all()) said(p:shutdown("stderr")) } }
        location /late { content_by_lua_block { local p = pipe.spawn("printf abc; sleep 10") p:set_timeouts(nil, 50, 50)
            said(p:stdout_read_line()) said(p:stderr_read_line()) said(p:stdout_read_any(4)) } }
        location /two { content_by_lua_block { local p = pipe.spawn("read x; echo hello; echo world")
            local function read() said(p:stdout_read_line()) end
            local a, b = ngx.thread.spawn(read), ngx.thread.spawn(read) p:write("\n")
            ngx.thread.wait(a) ngx.thread.wait(b) read() } }
        location /killed { content_by_lua_block { local p = pipe.spawn("read x; echo hello")
            local t = ngx.thread.spawn(function() p:stdout_read_line() said("never") end) ngx.thread.kill(t)
            p:write("\n") said(p:stdout_read_line()) } }
        location /shared { content_by_lua_block { shared = pipe.spawn({ "cat" }) ngx.print(ngx.location.capture("/shared-write").body) said(shared:stdout_read_any(99)) } }
        location /shared-write { content_by_lua_block { said(shared:write("from another")) } }
    }"#
    ),
    "
    GET /line     -> 200 [hello world]
    GET /no-end   -> 200 [nil][closed][hello world][nil][closed][]
    GET /bytes    -> 200 [hello][ world][][nil][closed][\\n][false]*bad len argument]
    GET /all      -> 200 [helloworld][][nil][closed][]
    GET /any      -> 200 [hell][o][world][nil][closed][]
    GET /mixed    -> 200 [hello][wor][ld][mo][re][][data][tail]*
    GET /at-once  -> 200 [hello]
    GET /much     -> 200 [120000][true]
    GET /partly   -> 200 [nil][closed][true]
    GET /chunk    -> 200 [0123][4567]
    GET /stderr   -> 200 [world][mo][re][][nil][closed][][hello\\n]
    GET /merged   -> 200 [hello\\nworld\\n][nil][merged to stdout][nil][merged to stdout]
    GET /late     -> 200 [nil][timeout][abc][nil][timeout][][nil][timeout][]
    GET /two      -> 200 [nil][pipe busy reading][hello][world]
    GET /killed   -> 200 [hello]
    GET /shared   -> 200 [12][from another]
    "
);

lua_test!(
    input_is_written_and_shut,
    with_pipe!(
        r#"server {
        location /write { content_by_lua_block { local p = pipe.spawn({ "cat" })
            said(p:write("")) said(p:write("hello")) said(p:write(10)) said(p:write({ " ", "world" })) said(pcall(p.write, p, true))
            ngx.sleep(0.05) said(p:stdout_read_any(1024)) } }
        location /count { content_by_lua_block { local p = pipe.spawn({ "wc", "-c" }) p:write(("1234"):rep(2048)) said(p:shutdown("stdin")) said(p:stdout_read_line()) } }
        location /broken { content_by_lua_block { local p = pipe.spawn({ "true" }) ngx.sleep(0.1) said(p:write("test")) } }
        location /late { content_by_lua_block { local p, n = pipe.spawn({ "sleep", 10 }, { write_timeout = 50 }), 0
            local function write() return p:write(("1234"):rep(20000)) end
            said(write()) said(write())
            local a, b = ngx.thread.spawn(function() said(write()) end), ngx.thread.spawn(function() said(write()) end)
            ngx.thread.wait(a) ngx.thread.wait(b)
            local t = ngx.thread.spawn(function() write() said("never") end) ngx.thread.kill(t) said(write()) } }
        location /shut { content_by_lua_block { local p = pipe.spawn({ "cat" })
            said(p:shutdown("stdin")) said(p:shutdown("stdin")) said(p:write("x"))
            said(p:shutdown("stdout")) said(p:stdout_read_line()) said(p:shutdown("stderr")) said(p:stderr_read_line())
            said(pcall(p.shutdown, p, "read")) } }
        location /aborted { content_by_lua_block { local p = pipe.spawn({ "sleep", 10 })
            local function on(name, ...) local args = { ... } return ngx.thread.spawn(function() said(name, p[name](p, unpack(args))) end) end
            on("stdout_read_line") p:shutdown("stdout") on("stderr_read_line") p:shutdown("stderr")
            on("write", ("x"):rep(200000)) p:shutdown("stdin") ngx.sleep(0.02)
            said(p:stdout_read_line()) said(p:stderr_read_line()) said(p:write("x")) } }
    }"#
    ),
    "
    GET /write   -> 200 [0][5][2][6][false]*bad data arg: string, number, or table expected, got boolean][hello10 world]
    GET /count   -> 200 [true][8192]
    GET /broken  -> 200 [nil][closed]
    GET /late    -> 200 [nil][timeout][nil][timeout][nil][pipe busy writing][nil][timeout][nil][timeout]
    GET /shut    -> 200 [true][true][nil][closed][true][nil][closed][true][nil][closed][false]*bad shutdown arg: read]
    GET /aborted -> 200 [stdout_read_line][nil][aborted][][stderr_read_line][nil][aborted][][write][nil][aborted][nil][closed][nil][closed][nil][closed]
    "
);

lua_test!(
    ends_are_waited_for,
    with_pipe!(
        r#"init_worker_by_lua_block { early = pipe.spawn({ "echo", "early" }) in_worker = { pcall(early.stdout_read_line, early) } }
    server {
        location /ok { content_by_lua_block { local p = pipe.spawn({ "sleep", 0.02 }) said(p:wait()) said(p:wait()) said(p:kill(9)) said(p:write("x")) said(p:stdout_read_all()) said(p:shutdown("stdin")) } }
        location /before { content_by_lua_block { local p = pipe.spawn("exit 2") ngx.sleep(0.1) said(p:kill(9)) said(p:wait()) } }
        location /status { content_by_lua_block { said(pipe.spawn("sleep 0.02; exit 2"):wait()) } }
        location /signal { content_by_lua_block { local p = pipe.spawn({ "sleep", 10 }) said(p:kill(0)) said(p:kill(10000)) said(p:kill(15)) said(p:wait()) said(type(p:pid())) } }
        location /late { content_by_lua_block { local p = pipe.spawn({ "sleep", 10 }, { wait_timeout = 30 }) said(p:wait()) said(p:kill(9)) said(p:wait()) } }
        location /two { content_by_lua_block { local p = pipe.spawn({ "sleep", 0.05 }) local function wait() said(p:wait()) end
            local a, b = ngx.thread.spawn(wait), ngx.thread.spawn(wait) ngx.thread.wait(a) ngx.thread.wait(b) wait() } }
        location /killed { content_by_lua_block { local p = pipe.spawn({ "sleep", 10 })
            local t = ngx.thread.spawn(function() p:wait() said("never") end) ngx.thread.kill(t) p:set_timeouts(nil, nil, nil, 20) said(p:wait()) } }
        location /absent { content_by_lua_block { said(pipe.spawn({ "/no/such/program" }):wait()) said(pipe.spawn({ "no-such-program" }):wait()) } }
        location /left { content_by_lua_block { local p = pipe.spawn("read x; printf left")
            local t = ngx.thread.spawn(function() said(p:stdout_read_all()) end) p:write("\n") p:wait() ngx.thread.wait(t) } }
        location /environ { content_by_lua_block {
            said(pipe.spawn('echo "$A $B $HOME."', { environ = { "A=one", "B= two" } }):stdout_read_line())
            said(pcall(pipe.spawn, { "true" }, { environ = { "A" } })) } }
        location /pipe-signal { content_by_lua_block { said(pipe.spawn("kill -PIPE $$; echo survived"):stdout_read_line()) } }
        location /descriptors { content_by_lua_block { said(pipe.spawn("ls /proc/self/fd | wc -l; cat /proc/self/status | grep SigBlk"):stdout_read_all()) } }
        location /timer { content_by_lua_block { ngx.timer.at(0, function() of_timer = pipe.spawn({ "echo", "timer" }):stdout_read_line() end) ngx.sleep(0.2) said(of_timer) } }
        location /phases { content_by_lua_block { said(unpack(in_init)) said(unpack(in_worker)) } }
        location /log { return 200 ok; log_by_lua_block { pipe.spawn({ "true" }):wait() } }
        location /access { access_by_lua_block { of_access = pipe.spawn({ "echo", "a" }):stdout_read_line() } content_by_lua_block { ngx.print(of_access) } }
    }"#
    ),
    |t| {
        t.check(
            "
    GET /ok      -> 200 [true][exit][0][nil][exited][nil][exited][nil][closed][nil][closed][nil][closed]
    GET /before  -> 200 [nil][exited][false][exit][2]
    GET /status  -> 200 [false][exit][2]
    GET /signal  -> 200 [true][nil][invalid signal][true][false][signal][15][number]
    GET /late    -> 200 [nil][timeout][true][false][signal][9]
    GET /two     -> 200 [nil][pipe busy waiting][true][exit][0][nil][exited]
    GET /killed  -> 200 [nil][timeout]
    GET /absent  -> 200 [false][exit][1][false][exit][1]
    GET /left    -> 200 *[left]*
    GET /environ -> 200 [one  two .][false]*'name=[value]' format expected, got 'A'*
    GET /pipe-signal -> 200 [nil][closed][]
    GET /descriptors -> 200 [4\\nSigBlk:\t0000000000000000\\n]*
    GET /timer   -> 200 [timer]
    GET /phases  -> 200 [false]*API disabled in the current context][false]*API disabled in the context of init_worker_by_lua*
    GET /log     -> 200 ok
    GET /access  -> 200 a
    ",
        );
        for says in [
            "lua pipe child execvp() failed while executing /no/such/program (2: No such file or directory)",
            "failed while executing no-such-program (2: No such file or directory)",
            "API disabled in the context of log_by_lua*",
        ] {
            t.error_log().expect(says);
        }
    }
);

fn number(said: Response) -> i32 {
    said.text().trim().parse().unwrap()
}

lua_test!(
    a_process_ends_with_who_wanted_it,
    with_pipe!(
        r#"init_worker_by_lua_block { of_worker = pipe.spawn({ "sleep", 1000 }) }
    server {
        location /request { content_by_lua_block { kept = pipe.spawn({ "sleep", 1000 }) ngx.print(kept:pid()) } }
        location /after { content_by_lua_block { said(kept:wait()) said(kept:write("x")) said(kept:kill(0)) said(kept:stdout_read_line()) } }
        location /collected { content_by_lua_block { local pid = pipe.spawn({ "sleep", 1000 }):pid() collectgarbage() collectgarbage()
            for i = 1, 400 do if not io.open("/proc/" .. pid .. "/stat") then return ngx.print("gone") end ngx.sleep(0.02) end
            ngx.print("there") } }
        location /client { content_by_lua_block { local p = pipe.spawn({ "sleep", 1000 }) ngx.say(p:pid()) ngx.flush(true) p:set_timeouts(nil, 500) p:stdout_read_line() } }
        location /worker { content_by_lua_block { ngx.timer.at(0, function() of_timer = pipe.spawn({ "sleep", 1000 }) ngx.sleep(1000) end) ngx.sleep(0.05) ngx.print(of_timer:pid()) } }
        location /of-worker { content_by_lua_block { ngx.print(of_worker:pid()) } }
        location /pid { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
    }"#
    ),
    |t| {
        procs::wait_gone(number(t.ask("GET /request")));
        t.check("GET /after -> 200 [nil][exited][nil][closed][nil][exited][nil][closed]");
        t.check("GET /collected -> 200 gone");
        procs::wait_gone(number(t.ask("GET /client")));
        let (child, worker) = (number(t.ask("GET /worker")), number(t.ask("GET /pid")));
        assert!(procs::is_alive(child));
        t.expect_alert("exited on signal 9");
        procs::signal(worker, Signal::SIGKILL);
        procs::wait_gone(child);
        // The next worker has one of its own, which does not keep it from leaving.
        let (child, worker) = (number(t.ask("GET /of-worker")), number(t.ask("GET /pid")));
        t.signal(Signal::SIGQUIT);
        procs::wait_gone(worker);
        procs::wait_gone(child);
    }
);
