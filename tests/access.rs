//! `allow` and `deny`, `auth_basic`, `satisfy`.

nginx_test!(
    addresses_are_allowed_or_not,
    "
    server { listen 127.0.0.1:{PORT}; listen unix:{DIR}/a.sock;
        location /first { allow 127.0.0.1; deny all; return 200 ok; }
        location / { return 404; }
        location /allowed { allow 127.0.0.1; deny all; proxy_pass http://{BACKEND}; }
        location /denied { deny 127.0.0.0/8; allow all; proxy_pass http://{BACKEND}; }
        location /order { deny 127.0.0.1; allow 127.0.0.1; proxy_pass http://{BACKEND}; }
        location /six { deny ::1; allow all; proxy_pass http://{BACKEND}; }
        location /unix { allow unix:; deny all; proxy_pass http://{BACKEND}; }
        location /outer { deny all; location /outer/in { allow all; proxy_pass http://{BACKEND}; }
            location /outer/same { proxy_pass http://{BACKEND}; } } }",
    |t| {
        t.check(
            "
        GET /first    -> 200 ok
        GET /allowed  -> 200
        GET /denied   -> 403 *403 Forbidden*
        GET /order    -> 403
        GET /six      -> 200
        GET /unix     -> 403
        GET /outer/in -> 200
        GET /outer/same -> 403
    ",
        );
        crate::harness::Client::connect_unix(&t.dir().join("a.sock"))
            .ask("GET /unix")
            .expect("200");
        t.error_log().expect("[error] *access forbidden by rule, client: 127.0.0.1, server: , request: \"GET /denied HTTP/1.1\"");
    }
);

nginx_test!(
    passwords,
    r#"
    server { auth_basic "the closed site"; auth_basic_user_file {DIR}/users;
        location / { proxy_pass http://{BACKEND}; }
        location /open { auth_basic off; proxy_pass http://{BACKEND}; }
        location /user { proxy_set_header X-User $remote_user; proxy_pass http://{BACKEND}; }
        location /lost { auth_basic_user_file {DIR}/none; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        // The password is "open sesame"; base64 of NAME:open sesame.
        t.file("users", "# comment\n\
        plain:{PLAIN}open sesame\n\
        apr1:$apr1$abcdefgh$T64oOxnD8c28.dQa.2Lty1\n\
        sha:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\n\
        des:ab/G8gtZdMwak\n\
        md5:$1$saltsalt$Yo6tRKYGO/jWyb1etwHDS/\n\
        sha256:$5$saltsalt$yrhPKxCqiWcCE9h0g86j6Ugz7SDFdFm.BjU.d8RaQnC\n\
        sha512:$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1\n\
        bcrypt:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n\
        other:{PLAIN}other:comment\n");
        let user = |name: &str, password: &str| {
            use base64::{Engine, prelude::BASE64_STANDARD};
            format!("Authorization: Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
        };
        t.ask("GET /").expect(
            "401 *401 Authorization Required* | WWW-Authenticate: Basic realm=\"the closed site\"",
        );
        t.ask("GET /open").expect("200");
        for name in ["plain", "apr1", "sha", "des", "md5", "sha256", "sha512", "bcrypt"] {
            t.ask(&format!("GET /{name} | {}", user(name, "open sesame"))).expect("200");
            t.ask(&format!("GET /{name} | {}", user(name, "wrong"))).expect("401");
        }
        t.ask(&format!("GET / | {}", user("nobody", "x"))).expect("401");
        t.ask(&format!("GET / | {}", user("other", "other"))).expect("200");
        t.ask("GET / | Authorization: Bearer x").expect("401");
        t.ask("GET / | Authorization: Basic !!!").expect("401");
        t.ask(&format!("GET /user | {}", user("plain", "open sesame")))
            .expect("200 *X-User: plain*");
        t.ask(&format!("GET /lost | {}", user("plain", "x"))).expect("403");
        t.error_log().expect(
            "[info] *no user/password was provided for basic authentication, client: 127.0.0.1",
        );
        t.error_log().expect("[error] *user \"plain\": password mismatch, client: 127.0.0.1");
        t.error_log()
            .expect("[error] *user \"nobody\" was not found in \"*/users\", client: 127.0.0.1");
    }
);

nginx_test!(
    satisfy_any_or_all,
    r#"
    server { auth_basic site; auth_basic_user_file {DIR}/users;
        location /any { satisfy any; allow 127.0.0.1; deny all; proxy_pass http://{BACKEND}; }
        location /anynot { satisfy any; deny all; proxy_pass http://{BACKEND}; }
        location /all { satisfy all; allow all; proxy_pass http://{BACKEND}; }
        location /allnot { satisfy all; deny all; proxy_pass http://{BACKEND}; } }"#,
    |t| {
        t.file("users", "u:{PLAIN}p\n");
        t.check(
            "
        GET /any    -> 200
        GET /anynot -> 401
        GET /all    -> 401
        GET /allnot -> 403
        GET /anynot | Authorization: Basic dTpw -> 200
        GET /all    | Authorization: Basic dTpw -> 200
        GET /allnot | Authorization: Basic dTpw -> 403
    ",
        );
    }
);
