//! `ngx.run_worker_thread`: code in threads, with VMs of their own.

use crate::harness::lua::paths;
use crate::harness::{Client, Site, wait_for};
use nix::sys::signal::Signal;

/// What threads run: `require "work"`.
const WORK: &str = r#"
local ffi = require "ffi"
ffi.cdef "int usleep(unsigned n);"
local M, calls = { no = 1 }, 0
function M.echo(...) return ... end
function M.count(...) return select('#', ...) end
function M.calls() calls = calls + 1 return calls end
function M.kinds() return nil, true, 1.5, "x\0y", { 1, 2, { a = { [true] = "z" } } }, nil end
function M.many(n) local t = {} for i = 1, n do t[i] = i end return unpack(t) end
function M.null(null) return null == ngx.null, ngx.null end
function M.fail(what) error(what) end
function M.give_function() return { { print } } end
function M.give_cdata() return 1LL end
function M.hog() local t = {} for i = 1, 1e9 do t[i] = { i } end end
function M.hold(name)
  local d = ngx.shared.d
  d:incr("begun", 1, 0)
  while not d:get("go") do ffi.C.usleep(1000) end
  return name
end
function M.until_the_end()
  ngx.shared.d:incr("begun", 1, 0)
  while not ngx.worker.exiting() do ffi.C.usleep(1000) end
  return "seen"
end
function M.forever() ngx.shared.d:incr("begun", 1, 0) while true do ffi.C.usleep(1000) end end
function M.texts()
  return ngx.md5("hello"), ngx.encode_base64(ngx.sha1_bin("hello")), ngx.decode_base64("aGk="),
    ngx.crc32_long("hello, world"), ngx.escape_uri("a b"), ngx.unescape_uri("a%20b"),
    ngx.encode_args({ a = "b c" }), ngx.decode_args("a=1").a, ngx.quote_sql_str("a'b"),
    ngx.encode_base64(ngx.hmac_sha1("key", "The quick brown fox jumps over the lazy dog"))
end
function M.patterns()
  local m = ngx.re.match("hello 42", [[(\w+) (\d+)]], "jo")
  return m[1], m[2], (ngx.re.gsub("a-b-c", "-", "+", "jo"))
end
function M.clock(before) return ngx.now() >= before, ngx.time() > 1e9, #ngx.localtime(), ngx.http_time(0) end
function M.place() return ngx.config.subsystem, ngx.config.prefix(), ngx.worker.id(), ngx.worker.count(),
  require("ngx.process").type(), ngx.get_phase(), package.path:find("/lua/?.lua", 1, true) ~= nil end
function M.dict() local d = ngx.shared.d
  d:rpush("l", "x") d:set("set", "there") return d:get("here"), d:incr("n", 2), d:add("here", 1), d:llen("l") end
function M.log() ngx.log(ngx.WARN, "said by a thread") print("printed by a thread") end
function M.refused(name, ...)
  local f = ngx
  for part in name:gmatch("%w+[_%w]*") do f = f[part] end
  local ok, why = pcall(f, ...)
  return ok, why
end
function M.read(name) return pcall(function() return ngx[name].x end) end
function M.coroutines() local co = coroutine.wrap(function() coroutine.yield(1) return 2 end) return co() + co() end
function M.semaphore() local s = require("ngx.semaphore").new(1) s:post(2) return s:count(), select(2, pcall(s.wait, s, 1)) end
function M.globals() made_here = 1 return seen_by_all end
function M.timer() return pcall(ngx.timer.at, 0, function() end) end
function M.ssl() return pcall(require, "ngx.ssl") end
return M
"#;

const POOLS: &str = "thread_pool pool threads=4;";

/// A site of one worker whose code finds `work`; `None` without lua-resty-core.
fn site(main: &str, http: &str) -> Option<Site> {
    let paths = paths()?;
    let path = paths.split('"').nth(1).unwrap();
    let conf = format!(
        "worker_processes 1; {main} events {{}} http {{ lua_shared_dict d 1m;
        lua_package_path \"$prefix/lua/?.lua;{path}\"; lua_package_cpath \";;\";
        {http}
        }}"
    );
    Some(Site::whole(&conf).with_file("lua/work.lua", WORK).with_file("lua/odd.lua", "return 1"))
}

/// A server with `run(name, …)` for a call of `work` in the pool.
fn server(locations: &str) -> String {
    format!(
        "init_by_lua_block {{ seen_by_all = 'of the worker'
            function run(name, ...) return ngx.run_worker_thread('pool', 'work', name, ...) end
            function say(ok, ...) ngx.print(tostring(ok)) for i = 1, select('#', ...) do
                ngx.print(' ', tostring((select(i, ...)))) end end }}
        server {{ listen 127.0.0.1:{{PORT}};
            location /begun {{ content_by_lua_block {{ ngx.print(ngx.shared.d:get('begun') or 0) }} }}
            location /asked {{ content_by_lua_block {{ ngx.print(ngx.shared.d:get('asked') or 0) }} }}
            location /go {{ content_by_lua_block {{ ngx.shared.d:set('go', true) ngx.print('gone') }} }}
            location /calls {{ content_by_lua_block {{ say(run('calls')) }} }}
            location /hold {{ content_by_lua_block {{ ngx.shared.d:incr('asked', 1, 0) say(run('hold', ngx.var.arg_n)) }} }}
            {locations}
        }}"
    )
}

/// Sends a request whose reply is read later.
fn begin(t: &Site, uri: &str) -> Client {
    let mut client = t.connect();
    client.send(format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

fn wait_until(t: &Site, uri: &str, says: &str) {
    let is = || t.ask(&format!("GET {uri}")).body == says.as_bytes();
    wait_for(|| is().then_some(())).unwrap_or_else(|| panic!("{uri} does not say {says}"));
}

#[test]
fn values_go_there_and_back() {
    let locations = r#"
        location /echo { content_by_lua_block { say(run("echo", nil, false, -1.5, "a\0b", "1", nil)) } }
        location /count { content_by_lua_block { say(run("count", nil, 1, nil)) } }
        location /tables { content_by_lua_block { local t = { 1, { "x", y = { [true] = 2 } } }
            local ok, back, again = run("echo", t, t)
            say(ok, back[1], back[2][1], back[2].y[true], back ~= t, back ~= again, #again) } }
        location /kinds { content_by_lua_block { local ok, a, b, c, d, e, f = run("kinds")
            say(ok, a, b, c, #d, e[2], e[3].a[true], f, select('#', run("kinds"))) } }
        location /many { content_by_lua_block { say(select('#', run("many", 200)), select(201, run("many", 200))) } }
        location /null { content_by_lua_block { local ok, was, null = run("null", ngx.null) say(ok, was, null == ngx.null) } }
        location /big { content_by_lua_block { local ok, text = run("echo", ("x"):rep(1e7)) say(ok, #text) } }
        location /text { content_by_lua_block { say(run("texts")) } }
        location /re { content_by_lua_block { say(run("patterns")) } }
        location /clock { content_by_lua_block { say(run("clock", ngx.now())) } }
        location /place { content_by_lua_block { say(run("place")) } }
        location /dict { content_by_lua_block { local d = ngx.shared.d d:set("here", "yes") d:set("n", 40)
            say(run("dict")) ngx.print(" ", d:get("set"), d:get("n"), d:lpop("l")) } }
        location /globals { content_by_lua_block { say(run("globals")) ngx.print(" ", rawget(_G, "made_here")) } }
        location /coroutines { content_by_lua_block { say(run("coroutines")) } }
        location /semaphore { content_by_lua_block { say(run("semaphore")) } }
        location /log { content_by_lua_block { say(run("log")) } }
    "#;
    let Some(site) = site(POOLS, &server(locations)) else { return };
    site.run(|t| {
        t.check(
            "
        GET /echo       -> 200 true nil false -1.5 a\0b 1 nil
        GET /count      -> 200 true 3
        GET /tables     -> 200 true 1 x 2 true true 2
        GET /kinds      -> 200 true nil true 1.5 3 2 z nil 7
        GET /many       -> 200 201 200
        GET /null       -> 200 true true true
        GET /big        -> 200 true 10000000
        GET /text       -> 200 true 5d41402abc4b2a76b9719d911017c592 qvTGHdzF6KLavt4PO0gs2a6pQ00= hi 4289425978 a%20b a b a=b%20c 1 'a\\'b' 3nybhbi3iqa8ino29wqQcBydtNk=
        GET /re         -> 200 true hello 42 a+b+c
        GET /clock      -> 200 true true true 19 Thu, 01 Jan 1970 00:00:00 GMT
        GET /place      -> 200 true http */ 0 1 worker init true
        GET /dict       -> 200 true yes 42 false 1 there42x
        GET /globals    -> 200 true nil nil
        GET /coroutines -> 200 true 3
        GET /semaphore  -> 200 true 3 *no request found
        GET /log        -> 200 true
    ",
        );
        t.error_log().expect("[warn]*[lua] work.lua:*: said by a thread");
        t.error_log().expect("[notice]*printed by a thread");
    });
}

#[test]
fn what_cannot_be_is_said() {
    let locations = r#"
        location /few { content_by_lua_block { say(ngx.run_worker_thread("pool", "work")) } }
        location /no-pool { content_by_lua_block { say(ngx.run_worker_thread("other", "work", "echo")) } }
        location /pool { content_by_lua_block { say(ngx.run_worker_thread({}, "work", "echo")) } }
        location /module { content_by_lua_block { say(ngx.run_worker_thread("pool", print, "echo")) } }
        location /function { content_by_lua_block { say(ngx.run_worker_thread("pool", "work", true)) } }
        location /no-module { content_by_lua_block { say(ngx.run_worker_thread("pool", "nowhere", "echo")) } }
        location /odd-module { content_by_lua_block { say(ngx.run_worker_thread("pool", "odd", "echo")) } }
        location /no-function { content_by_lua_block { say(run("nothing")) say(run("no")) } }
        location /fail { content_by_lua_block { say(run("fail", "on purpose")) } }
        location /fail-table { content_by_lua_block { say(run("fail", {})) } }
        location /argument { content_by_lua_block { say(run("echo", 1, { { print } })) } }
        location /result { content_by_lua_block { say(run("give_function")) say(run("give_cdata")) } }
        location /cycle { content_by_lua_block { local t = {} t.t = t say(run("echo", t)) } }
        location /deep { content_by_lua_block { local t = {} for i = 2, 99 do t = { t } end say((run("echo", t))) say(run("echo", { t })) } }
        location /many { content_by_lua_block { say(select('#', run("many", 7000))) say(run("many", 1e5)) } }
        location /callback { content_by_lua_block { say(pcall(string.gsub, "x", "x", function() run("echo") end)) } }
        location /coroutine { content_by_lua_block { say(coroutine.wrap(function() return run("echo", 1) end)()) } }
        location /log { return 200 x; log_by_lua_block { ngx.log(ngx.ERR, select(2, pcall(run, "echo"))) } }
        location /filter { return 200 x; header_filter_by_lua_block { ngx.header.x_why = select(2, pcall(run, "echo")) } }
        location /init { content_by_lua_block { say(in_init) } }
        location /refused { content_by_lua_block { say(run("refused", ngx.var.arg_f, unpack { tonumber(ngx.var.arg_n) })) } }
        location /read { content_by_lua_block { say(run("read", ngx.var.arg_f)) } }
        location /timer { content_by_lua_block { say(run("timer")) } }
        location /ssl { content_by_lua_block { say(run("ssl")) } }
        location /after { content_by_lua_block { say(run("echo", "fine")) } }
    "#;
    let conf = server(locations).replace(
        "seen_by_all =",
        "in_init = select(2, pcall(ngx.run_worker_thread, 'pool', 'work', 'echo')) seen_by_all =",
    );
    let Some(site) = site(POOLS, &conf) else { return };
    site.run(|t| {
        t.check(
            "
        GET /few         -> 200 false expecting at least 3 arguments
        GET /no-pool     -> 200 false thread pool other not found
        GET /pool        -> 200 false threadpool should be a string
        GET /module      -> 200 false module name should be a string
        GET /function    -> 200 false function name should be a string
        GET /no-module   -> 200 false module 'nowhere' not found:*
        GET /odd-module  -> 200 false invalid lua module
        GET /no-function -> 200 false invalid functionfalse invalid function
        GET /fail        -> 200 false */lua/work.lua:*: on purpose
        GET /fail-table  -> 200 false unknown reason
        GET /argument    -> 200 false unsupported Lua type: LUA_TFUNCTION in the argument
        GET /result      -> 200 false unsupported Lua type: LUA_TFUNCTION in the return valuefalse unsupported Lua type in the return value
        GET /cycle       -> 200 false suspicious circular references, table depth exceed max depth: 100 in the argument
        GET /deep        -> 200 truefalse suspicious circular references*
        GET /many        -> 200 7001false *too many results to unpack
        GET /callback    -> 200 false attempt to yield across C-call boundary
        GET /coroutine   -> 200 true 1
        GET /log         -> 200 x
        GET /filter      -> 200 x | X-Why: *API disabled in the context of header_filter_by_lua*
        GET /init        -> 200 *no request found
        GET /timer       -> 200 true false *no request
        GET /ssl         -> 200 true false API disabled in the context of ngx.run_worker_thread
        GET /refused?f=sleep&n=1              -> 200 true false *API disabled in the context of ngx.run_worker_thread
        GET /refused?f=say                -> 200 true false *API disabled in the context of ngx.run_worker_thread
        GET /refused?f=req.read_body      -> 200 true false *API disabled in the context of ngx.run_worker_thread
        GET /refused?f=run_worker_thread  -> 200 true false *API disabled in the context of ngx.run_worker_thread
        GET /refused?f=thread.spawn&n=1       -> 200 true false *API disabled in the context of ngx.run_worker_thread
        GET /refused?f=exit&n=1               -> 200 true false *no request found
        GET /refused?f=req.get_method     -> 200 true false *no request found
        GET /refused?f=socket.tcp         -> 200 true false *no request found
        GET /read?f=var                   -> 200 true false *no request found
        GET /read?f=ctx                   -> 200 true false *no request*
        GET /after       -> 200 true fine
    ",
        );
        t.error_log().expect("[error]*API disabled in the context of log_by_lua*");
    });
}

/// While the threads are busy the worker answers others, and jobs wait or are refused.
#[test]
fn a_busy_thread_keeps_nobody_else_waiting() {
    let main = "thread_pool pool threads=1 max_queue=1; thread_pool other threads=1;";
    let locations = r#"
        location /other { content_by_lua_block { say(ngx.run_worker_thread("other", "work", "echo", "other")) } }
        location /default { content_by_lua_block { say(ngx.run_worker_thread("default", "work", "echo", "default")) } }
    "#;
    let Some(site) = site(main, &server(locations)) else { return };
    site.run(|t| {
        let mut first = begin(t, "/hold?n=first");
        wait_until(t, "/begun", "1");
        let mut second = begin(t, "/hold?n=second");
        wait_until(t, "/asked", "2");
        t.check(
            "
        GET /hold    -> 200 false ngx_thread_task_post failed
        GET /other   -> 200 true other
        GET /default -> 200 true default
        GET /begun   -> 200 1
        GET /go      -> 200 gone
    ",
        );
        assert_eq!(first.response().text(), "true first");
        assert_eq!(second.response().text(), "true second");
    });
}

#[test]
fn there_are_as_many_vms_as_may_be() {
    let http = format!("lua_worker_thread_vm_pool_size 1; {}", server(""));
    let Some(site) = site(POOLS, &http) else { return };
    site.run(|t| {
        t.check("GET /calls -> 200 true 1\nGET /calls -> 200 true 2");
        let mut held = begin(t, "/hold?n=x");
        wait_until(t, "/begun", "1");
        t.check("GET /calls -> 200 false no available Lua vm\nGET /go -> 200 gone");
        assert_eq!(held.response().text(), "true x");
        t.check("GET /calls -> 200 true 3");
    });
}

#[test]
fn timers_and_light_threads_call_too() {
    let locations = r#"
        location /threads { content_by_lua_block { local d = ngx.shared.d
            local a, b = ngx.thread.spawn(run, "hold", "a"), ngx.thread.spawn(run, "hold", "b")
            while d:get("begun") ~= 2 do ngx.sleep(0.001) end d:set("go", true)
            local _, ok, x = ngx.thread.wait(a) local _, _, y = ngx.thread.wait(b) say(ok, x, y) } }
        location /timer { content_by_lua_block { local s, out = require("ngx.semaphore").new()
            ngx.timer.at(0, function() out = select(2, run("echo", "from a timer")) s:post() end)
            s:wait(5) say(out) } }
        location /phases {
            rewrite_by_lua_block { ngx.ctx.a = select(2, run("echo", "r")) }
            access_by_lua_block { ngx.ctx.a = ngx.ctx.a .. select(2, run("echo", "a")) }
            content_by_lua_block { say(ngx.ctx.a) } }
        location /exit { content_by_lua_block { ngx.thread.spawn(run, "hold") ngx.exit(204) } }
        location /kill { content_by_lua_block { ngx.shared.d:delete("go") local t = ngx.thread.spawn(run, "hold") say(ngx.thread.kill(t)) ngx.shared.d:set("go", true) } }
        location /budget { lua_budget 20ms on_timeout=503; access_by_lua_block { ngx.shared.d:delete("go") run("hold") } content_by_lua_block { say("late") } }
    "#;
    let Some(site) = site(POOLS, &server(locations)) else { return };
    site.run(|t| {
        t.check(
            "
        GET /threads -> 200 true a b
        GET /timer   -> 200 from a timer
        GET /phases  -> 200 ra
        GET /kill    -> 200 1
        GET /exit    -> 204
        GET /budget  -> 503
        GET /go      -> 200 gone
        GET /calls   -> 200 true *
    ",
        );
        // Every request has a life of its own, and threads are used again.
        for _ in 0..50 {
            t.check("GET /phases -> 200 ra");
        }
    });
}

#[test]
fn memory_is_bounded_in_threads() {
    let locations = r#"
        location /hog { content_by_lua_block { say(run("hog")) } }
    "#;
    let http =
        format!("lua_vm_memory_limit 48m; lua_worker_thread_vm_pool_size 1; {}", server(locations));
    let Some(site) = site(POOLS, &http) else { return };
    site.run(|t| {
        let worker = t.expect_procs("worker process", 1)[0].pid;
        for _ in 0..2 {
            t.check("GET /hog -> 200 false not enough memory\nGET /calls -> 200 true *");
        }
        assert_eq!(t.expect_procs("worker process", 1)[0].pid, worker);
    });
}

/// The privileged process has no threads, as it forks the helper.
#[test]
fn the_privileged_process_has_no_pools() {
    let locations = r#"
        location /by { content_by_lua_block { for i = 1, 500 do if ngx.shared.d:get("says") then break end ngx.sleep(0.01) end
            ngx.print(ngx.shared.d:get("says")) } }
    "#;
    let conf = format!(
        r#"init_worker_by_lua_block {{ if require("ngx.process").type() == "privileged agent" then
            ngx.timer.at(0, function() ngx.shared.d:set("says", select(2, run("echo", 1))) end) end }}
        {}"#,
        server(locations).replace(
            "seen_by_all =",
            "require('ngx.process').enable_privileged_agent() seen_by_all ="
        )
    );
    let Some(site) = site(POOLS, &conf) else { return };
    site.run(|t| t.check("GET /by -> 200 thread pool pool not found\nGET /calls -> 200 true 1"));
}

/// Many at once: each call has its own result, whichever VM and thread it meets.
#[test]
fn many_calls_do_not_mix() {
    let locations = r#"
        location /many { content_by_lua_block {
            local function one(n) for i = 1, 25 do
                local ok, a, t, m = run("work", n, i)
                if not ok then return a end
                if a ~= n * 100 + i or t[n] ~= tostring(i) or m ~= ngx.md5(n .. "/" .. i) then return "mixed" end
            end return true end
            local threads = {} for n = 1, 8 do threads[n] = ngx.thread.spawn(one, n) end
            for n = 1, 8 do say(select(2, ngx.thread.wait(threads[n]))) end } }
    "#;
    let work = WORK.replace(
        "return M\n",
        r#"function M.work(n, i)
            local text = n .. "/" .. i
            for k = 1, 20 do
                assert(ngx.re.match(text, [[^(\d+)/(\d+)$]], "jo")[2] == tostring(i))
                ngx.shared.d:incr("worked", 1, 0)
                ngx.update_time()
            end
            return n * 100 + i, { [n] = tostring(i) }, ngx.md5(text)
        end
        return M
        "#,
    );
    let Some(site) = site(POOLS, &server(locations)) else { return };
    site.with_file("lua/work.lua", work).run(|t| {
        t.check("GET /many -> 200 truetruetruetruetruetruetruetrue");
        t.check("GET /many -> 200 truetruetruetruetruetruetruetrue");
    });
}

/// Threads that run do not keep a process, and one that looks sees the end come.
#[test]
fn a_process_ends_without_its_threads() {
    let locations = r#"
        location /forever { content_by_lua_block { run("forever") } }
        location /until { content_by_lua_block { say(run("until_the_end")) } }
    "#;
    let Some(mut site) = site(POOLS, &server(locations)) else { return };
    site.start();
    let waiting = begin(&site, "/forever");
    wait_until(&site, "/begun", "1");
    site.stop_by(Signal::SIGTERM);
    drop(waiting);
    site.start();
    let mut seeing = begin(&site, "/until");
    wait_until(&site, "/begun", "1");
    site.signal(Signal::SIGQUIT);
    assert_eq!(seeing.response().text(), "true seen");
    site.stop_by(Signal::SIGQUIT);
}
