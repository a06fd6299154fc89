//! `ngx.location.capture` with all its options.

use crate::harness::lua::lua_test;

lua_test!(
    variables_of_subrequests,
    r#"server {
        location /other { set $dog "$dog world"; content_by_lua_block { ngx.print(ngx.var.uri, " dog:", ngx.var.dog, " cat:", ngx.var.cat, ";") } }
        location /see { content_by_lua_block { ngx.print(ngx.var.dog, ";") } }
        location /own { set $dog hello; set $cat ''; content_by_lua_block {
            ngx.print(ngx.location.capture("/other").body, ngx.var.dog) } }
        location /copy { set $dog hello; content_by_lua_block {
            ngx.print(ngx.location.capture("/other", { copy_all_vars = true }).body, ngx.var.dog) } }
        location /share { set $dog hello; content_by_lua_block {
            ngx.print(ngx.location.capture("/other", { share_all_vars = true }).body, ngx.var.dog, " ")
            ngx.print(ngx.location.capture("/other", { share_all_vars = true, copy_all_vars = true }).body, ngx.var.dog) } }
        location /both { set $dog hello; content_by_lua_block {
            local a, b = ngx.location.capture_multi({ { "/other", { share_all_vars = true } }, { "/see", { share_all_vars = true } } })
            ngx.print(a.body, b.body, ngx.var.dog) } }
        location /vars { content_by_lua_block {
            ngx.print(ngx.location.capture("/other", { vars = { dog = "a", cat = 32 } }).body) } }
        location /bad { content_by_lua_block {
            for _, vars in ipairs { { nobody = "x" }, { uri = "x" }, { dog = {} }, { [1] = "x" }, "x" } do
                ngx.say(select(2, pcall(ngx.location.capture, "/other", { vars = vars }))) end } }
    }"#,
    "
    GET /own   -> 200 /other dog: world cat:;hello
    GET /copy  -> 200 /other dog:hello world cat:;hello
    GET /share -> 200 /other dog:hello world cat:;hello world /other dog:hello world world cat:;hello world world
    GET /both  -> 200 /other dog:hello world cat:;hello world;hello world
    GET /vars  -> 200 /other dog:a world cat:32;
    GET /bad   -> 200 *variable \"nobody\" cannot be assigned a value (maybe you forgot to define it first?) *variable \"uri\" not changeable*attempt to use bad variable value type table*attempt to use a non-string key in the \"vars\" option table*Bad vars option value (table expected, got string)*
    "
);

lua_test!(
    bodies_fields_and_context,
    r#"server {
        location /see { content_by_lua_block { ngx.req.read_body()
            ngx.print(ngx.req.get_method(), " ", ngx.req.get_body_data(), " ", ngx.var.http_x_test, " ", ngx.var.http_x_client, " ", ngx.ctx.seen)
            ngx.ctx.seen = "sub" } }
        location /forward { content_by_lua_block { ngx.req.read_body()
            for _, options in ipairs { {}, { method = ngx.HTTP_POST }, { always_forward_body = true }, { method = ngx.HTTP_PUT, body = "own" } } do
                ngx.say(ngx.location.capture("/see", options).body) end } }
        location /headers { content_by_lua_block {
            ngx.print(ngx.location.capture("/see", { headers = { ["X-Test"] = "aa", ["X-Client"] = { "b", "c" } } }).body) } }
        location /ctx { content_by_lua_block {
            local ctx = { seen = "parent" }
            ngx.print(ngx.location.capture("/see", { ctx = ctx }).body, " ", ctx.seen, " ", ngx.ctx.seen, ";")
            ngx.ctx.seen = "shared"
            ngx.print(ngx.location.capture("/see", { ctx = ngx.ctx }).body, " ", ngx.ctx.seen, " ", select(2, pcall(ngx.location.capture, "/see", { ctx = 1 }))) } }
        location /never { content_by_lua_block { ngx.print(select(2, pcall(ngx.location.capture, "/see", { nonsense = 1 }))) } }
    }"#,
    "
    POST /forward << body -> 200 GET nil nil nil nil*POST body nil nil nil*GET body nil nil nil*PUT own nil nil nil*
    GET /headers | X-Client: a -> 200 GET nil aa b, c nil
    GET /ctx   -> 200 GET nil nil nil parent sub nil;GET nil nil nil shared sub *Bad ctx option value (table expected, got number)
    GET /never -> 200 *option \"nonsense\" is not supported
    "
);

lua_test!(
    what_a_subrequest_comes_to,
    r#"error_page 404 /404.html; server { root {DIR}/html;
        location /refuses { return 500; }
        location /closes { content_by_lua_block { ngx.exit(ngx.ERROR) } }
        location /back { content_by_lua_block { ngx.req.read_body() ngx.say(ngx.var.request_method, " ", ngx.req.get_body_data(), " ", ngx.var.http_content_length) } }
        location /proxied { proxy_pass http://127.0.0.1:{PORT}/back; }
        location /cut { proxy_pass http://{BACKEND}; }
        location /status { content_by_lua_block {
            for _, uri in ipairs { "/refuses", "/closes", "/absent", "/there.txt" } do
                local res = ngx.location.capture(uri) ngx.say(res.status, " [", res.body, "] ", res.truncated) end
            local res = ngx.location.capture("/there.txt", { method = ngx.HTTP_HEAD }) ngx.say(res.header["Content-Length"], " [", res.body, "]") } }
        location /get { content_by_lua_block { ngx.print(ngx.location.capture("/proxied").body) } }
        location /truncated { content_by_lua_block { local res = ngx.location.capture("/cut") ngx.print(res.status, " ", res.body, " ", res.truncated) } }
        location /uri { content_by_lua_block { ngx.req.set_uri("/a\tb") ngx.say(pcall(ngx.req.set_uri, "/a\rb"))
            ngx.req.set_uri("/a\rb", false, true) ngx.say(pcall(ngx.req.set_uri_args)) ngx.say(pcall(ngx.encode_args, { [1] = 2 })) } }
    }"#,
    |t| {
        t.file("html/there.txt", "there");
        t.file("html/404.html", "a page");
        t.backend().reply_and_close("/cut", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        t.check(
            "
        GET /status       -> 200 500 [] false*500 [] true*404 [] false*200 [there] false*5 []*
        POST /get << body -> 200 GET nil 0*
        GET /truncated    -> 200 200 half true
        GET /uri          -> 200 *unsafe byte \"0x0d\" in uri \"/a*x0Db\" (maybe you want to set the 'binary' argument?)*bad argument #1 to 'set_uri_args' (string, number, or table expected, but got nil)*attempt to use a non-string key*
        ",
        );
        t.error_log()
            .expect("[error] *upstream prematurely closed connection*subrequest: \"/cut\"*");
    }
);
