//! OpenResty's Lua: the phases, and what every handler calls.

use crate::harness::Site;
use crate::harness::lua::{lua_test, with_lua};

lua_test!(
    content_is_what_was_said,
    r#"init_by_lua_block { answer = 42 }
    server {
        location /say { content_by_lua_block { ngx.say("x ", answer, " ", {1, {2, "y"}}, nil, true) } }
        location /status { content_by_lua_block { ngx.status = 201; ngx.header["X-A"] = {"1", "2"}; ngx.header.content_type = "text/x"; ngx.print(ngx.status, ngx.header.x_a[2]) } }
        location /exit { content_by_lua_block { ngx.exit(406) } }
        location /own { content_by_lua_block { ngx.status = 401; ngx.say("own page"); ngx.exit(401) } }
        location /redirect { content_by_lua_block { ngx.redirect("http://x/y", 301) } }
        location /exec { content_by_lua_block { ngx.exec("/args?b=2", "a=1") } }
        location /args { content_by_lua_block { local a = ngx.req.get_uri_args(); ngx.print(a.a, a.b, " ", ngx.var.uri, " ", ngx.is_subrequest) } }
        location /method { content_by_lua_block { ngx.req.set_method(ngx.HTTP_PUT); ngx.req.set_header("X-Q", "v"); ngx.print(ngx.req.get_method(), ngx.req.get_headers()["x-q"], ngx.var.http_x_q) } }
        location /nested { content_by_lua_block { coroutine.wrap(function() ngx.exit(410) end)() ngx.say("no") } }
        location /braces { content_by_lua_block { local s = "}" --[[ } ]] ngx.print(s, '{', [[}]]) } }
    }"#,
    "
    GET /say       -> 200 x 42 12yniltrue
    GET /status    -> 201 2012 | X-A: 1 | Content-Type: text/x
    GET /exit      -> 406
    GET /own       -> 401 own page
    GET /redirect  -> 301 * | Location: http://x/y
    GET /exec      -> 200 12 /args false
    GET /method    -> 200 PUTvv
    GET /nested    -> 410
    GET /braces    -> 200 }{}
"
);

lua_test!(
    phases_share_the_context,
    r#"server {
        location / {
            set_by_lua_block $computed { return ngx.var.arg_a .. "!" }
            rewrite_by_lua_block { ngx.ctx.who = ngx.var.arg_who }
            access_by_lua_block { if not ngx.ctx.who then ngx.exit(403) end }
            content_by_lua_block { ngx.print(ngx.ctx.who, " ", ngx.var.computed, " ", ngx.get_phase()) }
            header_filter_by_lua_block { ngx.header["X-Who"] = ngx.ctx.who; if ngx.var.arg_teapot then ngx.status = 418 end }
            log_by_lua_block { ngx.log(ngx.ERR, "done ", ngx.ctx.who, " ", ngx.status) }
        }
        location /jump { rewrite_by_lua_block { ngx.req.set_uri("/target", true) } return 500; }
        location /walk { rewrite_by_lua_block { ngx.req.set_uri("/target", true) } }
        location /target { return 200 there; }
        location /said { access_by_lua_block { ngx.print("by access") } return 500; }
    }"#,
    |t| {
        t.check(
            "
        GET /?who=joe&a=1          -> 200 joe 1! content | X-Who: joe
        GET /?who=joe&a=1&teapot=1 -> 418 joe 1! content
        GET /?a=1                  -> 403
        GET /walk                  -> 200 there
        GET /jump                  -> 500
    ",
        );
        t.error_log().expect("[error]*[lua] log_by_lua(nginx.conf:*):1: done joe 200");
    }
);

lua_test!(
    texts_are_signed_quoted_and_gathered,
    r#"server {
        location /hmac { content_by_lua_block { ngx.print(ngx.encode_base64(ngx.hmac_sha1("key", "The quick brown fox jumps over the lazy dog"))) } }
        location /sql { content_by_lua_block { ngx.print(ngx.quote_sql_str("a'b\\c\n\0")) } }
        location /multi { content_by_lua_block {
            local a, b = ngx.location.capture_multi { { "/one" }, { "/two", { args = "x=1" } } }
            ngx.print(a.body, a.status, b.body, b.status) } }
        location /one { content_by_lua_block { ngx.sleep(0.01) ngx.print("one") } }
        location /two { content_by_lua_block { ngx.status = 404 ngx.print("two", ngx.var.arg_x) } }
    }"#,
    |t| {
        t.check("GET /hmac -> 200 3nybhbi3iqa8ino29wqQcBydtNk=\nGET /multi -> 200 one200two1404");
        assert_eq!(t.ask("GET /sql").text(), r"'a\'b\\c\n\0'");
    }
);

lua_test!(
    a_charset_stays_with_its_type,
    r#"server { location / { content_by_lua_block { ngx.header.content_type = "text/x; charset=koi8-r"
        ngx.print(ngx.header.content_type, " ", ngx.resp.get_headers()["content-type"]) } } }"#,
    "GET / -> 200 text/x; charset=koi8-r text/x; charset=koi8-r | Content-Type: text/x; charset=koi8-r"
);

lua_test!(
    a_filter_that_always_fails_ends,
    r#"server {
        location / { return 200 ok; header_filter_by_lua_block { error("no reply is good") } }
        location /exit { return 200 ok; header_filter_by_lua_block { ngx.exit(503) } }
    }"#,
    "
    GET /     -> 500
    GET /exit -> 503
"
);

lua_test!(
    errors_are_logged_with_a_traceback,
    r#"server {
        location /boom { content_by_lua_block {
            local function inner() error("boom") end
            inner() } }
        location /syntax { content_by_lua_block { if x then } }
        location /absent { content_by_lua_file no/such.lua; }
        location /file { content_by_lua_file $document_root/a.lua; }
        location /worker { content_by_lua_block { ngx.print(ngx.worker.id(), ngx.worker.count()) } }
        location /late { content_by_lua_block { ngx.print("x"); ngx.header.late = 1 } }
        location /log { return 200 ok; log_by_lua_block { ngx.say("x") } }
        location /var { content_by_lua_block { ngx.var.nope = 1 } }
    }"#,
    |t| {
        t.file("html/a.lua", "#!/usr/bin/lua\nngx.print('from a file')");
        t.check(
            "
        GET /boom   -> 500
        GET /syntax -> 500
        GET /absent -> 404
        GET /file   -> 200 from a file
        GET /worker -> 200 01
        GET /late   -> 200 x
        GET /log    -> 200 ok
        GET /var    -> 500
    ",
        );
        let log = t.error_log();
        log.expect("lua entry thread aborted: runtime error: content_by_lua(nginx.conf:*):2: boom");
        log.expect("failed to load inlined Lua code: content_by_lua(nginx.conf:*):1: 'end' expected near '<eof>'");
        log.expect("failed to load external Lua file \"*no/such.lua\": cannot open *no/such.lua: 2: No such file or directory");
        log.expect("attempt to set ngx.header.late after sending out response headers");
        log.expect("failed to run log_by_lua*: *API disabled in the context of log_by_lua*");
        log.expect("variable \"nope\" not found for writing");
    }
);

lua_test!(
    code_may_wait,
    r#"server {
        location /sleep { content_by_lua_block { local co = coroutine.wrap(function() for i = 1, 3 do ngx.sleep(0.01) coroutine.yield(i) end end) ngx.print(co(), co(), co()) } }
        location /body { content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_body_data(), " ", ngx.req.get_post_args().z) } }
        location /capture { content_by_lua_block { local r = ngx.location.capture("/body?x=1", {method = ngx.HTTP_POST, body = "z=9"}) ngx.print(r.status, " ", r.body, " ", r.header.content_type) } }
        location /never { log_by_lua_block { ngx.sleep(1) } return 200 ok; }
    }"#,
    |t| {
        t.check(
            "
        GET /sleep     -> 200 123
        GET /capture   -> 200 200 z=9 9 text/plain
        GET /never     -> 200 ok
    ",
        );
        let mut client = t.connect();
        let mut ask = |body: &str| {
            let head =
                format!("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            client.send(head + body);
            client.response().text()
        };
        assert_eq!(ask("z=1&a"), "z=1&a 1");
        assert_eq!(ask("z=%41"), "z=%41 A");
        t.error_log().expect("API disabled in the context of log_by_lua*");
    }
);

lua_test!(
    the_library_computes,
    r#"lua_regex_cache_max_entries 10; lua_code_cache on;
    server {
        location /re { content_by_lua_block {
            local m = ngx.re.match("hello, 1234", "([0-9])[0-9]+", "jo") ngx.say(m[0], " ", m[1])
            ngx.say((ngx.re.gsub("a1b2", "([0-9])", "<$1$$>", "jo")))
            ngx.say((ngx.re.sub("abc", "b", function(m) return m[0]:upper() end)))
            for x in ngx.re.gmatch("a,b", "[a-z]") do ngx.print(x[0]) end
            m = ngx.re.match("ab", "(?<n>a)(?<m>x)?b", "i") ngx.say(m.n, m.m)
            local _, err = ngx.re.match("x", "(abc") ngx.say(err) } }
        location /longest { content_by_lua_block {
            local m = ngx.re.match("hello", "(he|hell)", "d") ngx.say(m[0], " ", m[1])
            ngx.say((ngx.re.gsub("hello hell", "(he|hell)", "[$0$1]", "do"))) ngx.say(ngx.re.match("x", "(he|hell)", "d"), " ", ngx.re.find("a hello", "he|hell", "d"))
            for x in ngx.re.gmatch("he hell", "he|hell", "d") do ngx.print(x[0], ";") end } }
        location /text { content_by_lua_block {
            ngx.say(ngx.md5("a")) ngx.say(ngx.encode_base64(ngx.sha1_bin("a"))) ngx.say(ngx.crc32_long("a"))
            ngx.say(ngx.escape_uri("a b/?"), ngx.unescape_uri("a%20b+c"), ngx.decode_base64("YQ"))
            ngx.say(ngx.encode_args({a = 1}), ngx.decode_args("a=1&b").a)
            ngx.say(ngx.http_time(0)) ngx.say(ngx.cookie_time(0)) ngx.say(ngx.parse_http_time("Thu, 01 Jan 1970 00:00:10 GMT"))
            ngx.say(ngx.now() > 1e9, #ngx.today(), #ngx.localtime()) } }
    }"#,
    "
    GET /re   -> 200 1234 1\\na<1$>b<2$>\\naBc\\nabafalse\\npcre2_compile() failed: missing closing parenthesis in \"(abc\"
    GET /longest -> 200 hell nil\\n[hell]o [hell]\\nnil 36\\nhe;hell;
    GET /text -> 200 0cc175b9c0f1b6a831c399e269772661\\nhvfkN/qlp/zhXR3cuerq6jd2Z7g=\\n3904355907\\na%20b%2F%3Fa b ca\\na=11\\nThu, 01 Jan 1970 00:00:00 GMT\\nThu, 01-Jan-70 00:00:00 GMT\\n10\\ntrue1019
"
);

lua_test!(
    dicts_are_shared_with_keyval,
    r#"lua_shared_dict cats 1m; keyval $arg_k $value zone=cats;
    init_worker_by_lua_block { ngx.shared.cats:set("first", "from the start") }
    server {
        location /set { content_by_lua_block { local d = ngx.shared.cats
            ngx.say(d:set("n", 1), d:incr("n", 2), d:get("none"), d:add("n", 1), d:replace("m", 1))
            d:set("s", "text", 10, 7) ngx.say(d:get("s")) ngx.say(d:ttl("s") > 9, d:expire("s", 1))
            d:set("t", true) ngx.say(d:get("t")) d:set("big", ("x"):rep(10000)) ngx.say(#d:get("big"))
            ngx.say(d:lpush("l", 5), d:rpush("l", "x"), d:llen("l"), d:lpop("l")) d:delete("n") ngx.say(d:get("n"))
            ngx.say(d:incr("new", 1, 5), d:capacity() > 0, d:free_space() > 0, #d:get_keys() > 3) } }
        location /keyval { return 200 $value; }
        location /flush { content_by_lua_block { ngx.shared.cats:flush_all() ngx.print(ngx.shared.cats:get("s")) } }
    }"#,
    "
    GET /set              -> 200 true3nilfalsefalsenot foundfalse\\ntext7\\ntruetrue\\ntrue\\n10000\\n1225\\nnil\\n6truetruetrue
    GET /keyval?k=first   -> 200 from the start
    GET /keyval?k=t       -> 200 true
    GET /flush            -> 200 nil
"
);

/// The files are there before the start.
#[test]
fn files_hold_code_of_every_phase() {
    let conf = "init_by_lua_file html/0.lua; init_worker_by_lua_file html/w.lua;
        server { location / { rewrite_by_lua_file html/1.lua; access_by_lua_file html/2.lua;
            content_by_lua_file html/3.lua; header_filter_by_lua_file html/4.lua;
            log_by_lua_file html/5.lua; } }";
    let Some(site) = with_lua(conf) else { return };
    site.with_file("html/0.lua", "said = 'init '")
        .with_file("html/w.lua", "said = said .. 'worker '")
        .with_file("html/1.lua", "ngx.ctx.said = said .. 'rewrite '")
        .with_file("html/2.lua", "ngx.ctx.said = ngx.ctx.said .. 'access '")
        .with_file("html/3.lua", "ngx.print(ngx.ctx.said, 'content')")
        .with_file("html/4.lua", "ngx.header['X-F'] = ngx.get_phase()")
        .with_file("html/5.lua", "ngx.log(ngx.ERR, 'logged')")
        .run(|t| {
            t.check("GET / -> 200 init worker rewrite access content | X-F: header_filter");
            t.error_log().expect("[lua] 5.lua:1: logged");
        });
}

#[test]
fn what_is_not_offered_is_refused() {
    for (conf, says) in [
        ("lua_code_cache off;", "\"lua_code_cache off\" is not supported"),
        ("lua_shared_dict a 1;", "invalid lua shared dict size \"1\""),
        ("init_by_lua_block { x", "unexpected end of file, expecting \"}\""),
    ] {
        let site = Site::http(&format!("{conf} server {{ }}"));
        let output = site.run_with(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(says), "{conf}\n{said}");
    }
}
