//! Fields that handlers set before the answer is known: they stay, whoever answers.

use crate::harness::lua::lua_test;

lua_test!(
    fields_of_earlier_phases_stay,
    r#"error_page 404 /page; error_page 410 @named; server { root {DIR}/html;
        access_by_lua_block { if ngx.var.uri ~= "/back" then ngx.header["X-Early"] = "yes" ngx.header["Set-Cookie"] = { "a=1", "b=2" } end }
        location /back { add_header X-Back $http_x_more; add_header Set-Cookie c=3; return 200 back; }
        location /proxied { proxy_pass http://127.0.0.1:{PORT}/back; }
        location /typed { rewrite_by_lua_block { ngx.header.content_type = "x/y" } proxy_pass http://127.0.0.1:{PORT}/back; }
        location /refused { access_by_lua_block { ngx.header["X-Early"] = "why" ngx.exit(403) } }
        location /asked { access_by_lua_block { ngx.header["WWW-Authenticate"] = "Bearer" ngx.exit(401) } }
        location /gone { content_by_lua_block { ngx.exit(410) } }
        location @named { content_by_lua_block { ngx.print("named") } }
        location /page { content_by_lua_block { ngx.print("page") } }
        location /moved { content_by_lua_block { ngx.redirect("/x") } }
        location /limited { header_filter_by_lua_block { ngx.exit(418) } content_by_lua_block { ngx.print("x") } }
        location /redirected { content_by_lua_block { ngx.header["X-Inner"] = "1" ngx.exec("/back") } }
    }"#,
    "
    GET /proxied    -> 200 back | X-Early: yes | Set-Cookie: a=1 | Set-Cookie: b=2 | Set-Cookie: c=3
    GET /typed      -> 200 back | Content-Type: text/plain
    GET /refused    -> 403 | X-Early: why
    GET /asked      -> 401 | WWW-Authenticate: Bearer
    GET /absent     -> 404 page | X-Early: yes
    GET /gone       -> 410 named | X-Early: yes
    GET /moved      -> 302 | X-Early: yes | Location: http://localhost:{PORT}/x
    GET /limited    -> 418 | !X-Early
    GET /redirected -> 200 back | X-Early: yes | X-Inner: 1
    "
);

lua_test!(
    names_and_numbers_of_fields,
    r#"server {
        location /unsafe { content_by_lua_block { ngx.header["header: value\rfoo"] = "xx" ngx.header.plain = "a\nb" ngx.print("x") } }
        location /seen { content_by_lua_block { ngx.print("abc") }
            header_filter_by_lua_block { local h = ngx.resp.get_headers()
                ngx.header["X-Seen"] = table.concat({ h.content_length, h.connection, tostring(h.transfer_encoding), ngx.header.content_length }, " ") } }
        location /flushed { content_by_lua_block { ngx.print("a") ngx.flush() ngx.print("b") }
            header_filter_by_lua_block { local h = ngx.resp.get_headers() ngx.header["X-Seen"] = tostring(h.content_length) .. " " .. h["Transfer-Encoding"] } }
        location /count { content_by_lua_block { for i = 1, 5 do ngx.header["Foo" .. i] = i end
            local few, why = ngx.resp.get_headers(3) local n = 0 for _ in pairs(few) do n = n + 1 end
            ngx.print(ngx.header.content_length, " ", n, " ", why, " ", ngx.resp.get_headers(0).foo5, " ", ngx.resp.get_headers(0, true)["Foo5"]) } }
    }"#,
    "
    GET /unsafe -> 200 x | header%3A%20value%0Dfoo: xx | plain: a%0Ab
    GET /seen   -> 200 abc | X-Seen: 3 close nil 3
    GET /flushed -> 200 ab | X-Seen: nil chunked
    GET /count  -> 200 nil 3 truncated 5 5
    "
);
