//! Bodies of requests that Lua replaces, piece by piece or by a file.

use crate::harness::lua::lua_test;
use std::os::unix::fs::PermissionsExt;

lua_test!(
    a_body_is_put_together,
    r#"server { client_body_temp_path {DIR}/tmp;
        location /see { content_by_lua_block { ngx.req.read_body()
            ngx.print(ngx.var.http_content_length, " ", ngx.req.get_body_data()) } }
        location /pieces { access_by_lua_block { ngx.req.read_body() ngx.req.init_body(100)
                ngx.req.append_body("h") ngx.req.append_body("ell") ngx.req.append_body("o") ngx.req.finish_body() }
            proxy_pass http://127.0.0.1:{PORT}/see; }
        location /file { content_by_lua_block { ngx.req.read_body() ngx.req.init_body(0)
            ngx.req.append_body("he") ngx.req.append_body("llo") ngx.req.finish_body()
            local f = io.open(ngx.req.get_body_file())
            ngx.print(ngx.var.http_content_length, " ", ngx.req.get_body_data(), " ", f:read("*a")) } }
        location /none { content_by_lua_block { ngx.req.read_body() ngx.req.init_body() ngx.req.finish_body()
            ngx.print(ngx.var.http_content_length, " ", ngx.req.get_body_data()) } }
        location /stream { content_by_lua_block { local sock = ngx.req.socket() ngx.req.init_body()
            ngx.req.append_body((sock:receive("*a")):upper()) ngx.req.finish_body() ngx.print(ngx.req.get_body_data()) } }
        location /wrong { content_by_lua_block {
            ngx.say(pcall(ngx.req.append_body, "x")) ngx.say(pcall(ngx.req.finish_body)) ngx.say(pcall(ngx.req.init_body)) ngx.say(pcall(ngx.req.append_body)) } }
        location /discard { content_by_lua_block { ngx.req.discard_body() ngx.req.read_body() ngx.print(ngx.req.get_body_data()) } }
    }"#,
    "
    POST /pieces << was   -> 200 5 hello
    POST /file << was     -> 200 5 nil hello
    POST /none << was     -> 200 0 nil
    POST /stream << shout -> 200 SHOUT
    POST /wrong << was    -> 200 false*request_body not initialized*false*request_body not initialized*false*request body not read yet*false*bad argument #1*
    POST /discard << was  -> 200 nil
    "
);

lua_test!(
    a_file_becomes_the_body,
    r#"server {
        location /see { content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_body_data()) } }
        location /set { access_by_lua_block { ngx.req.read_body() ngx.req.set_body_file("{DIR}/" .. ngx.var.arg_name, ngx.var.arg_ours == "1") }
            proxy_pass http://127.0.0.1:{PORT}/see; }
    }"#,
    |t| {
        // A worker is not root, and removes what it was given.
        std::fs::set_permissions(t.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
        t.file("kept", "the file");
        t.file("ours", "once");
        t.file("empty", "");
        t.check(
            "
        POST /set?name=kept << was        -> 200 the file
        POST /set?name=kept << was        -> 200 the file
        POST /set?name=ours&ours=1 << was -> 200 once
        POST /set?name=ours&ours=1 << was -> 500
        POST /set?name=empty << was       -> 200 nil
        ",
        );
        t.error_log().expect(
            "[error] *open() \"*/ours\" failed (2: No such file or directory), client: 127.0.0.1*",
        );
        assert!(t.dir().join("kept").exists() && !t.dir().join("ours").exists());
    }
);
