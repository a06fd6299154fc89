//! What this program says it is: nginx's version, for those who ask for it, and its own;
//! and OpenResty's, for those who look for that.

use super::command_line::PREFIX;
use std::ffi::OsStr;
use std::path::Path;

/// The nginx whose configuration, logs and signals are spoken here.
const NGINX: &str = "1.31.5";
/// The OpenResty whose Lua is spoken here: its numbers are nginx's and one more.
const OPENRESTY: &str = "1.31.5.1";
/// Called by this name, by a link, the program is known to OpenResty's tools.
const OPENRESTY_NAME: &str = "openresty";
/// What `-V` names, as if it had been given to nginx's configure: tools look for modules there.
/// Modules that nginx has by default and that are missing here are named too.
const CONFIGURE: &[&str] = &[
    "--with-threads",
    "--with-pcre-jit",
    "--with-http_ssl_module",
    "--with-http_v2_module",
    "--with-http_realip_module",
    "--with-http_auth_request_module",
    "--with-http_secure_link_module",
    "--with-http_gzip_static_module",
    "--with-http_gunzip_module",
    "--with-http_random_index_module",
    "--with-http_stub_status_module",
    "--with-http_sub_module",
    "--with-http_addition_module",
    "--without-http_ssi_module",
    "--without-http_fastcgi_module",
    "--without-http_uwsgi_module",
    "--without-http_scgi_module",
    "--without-http_grpc_module",
    "--without-http_memcached_module",
    "--without-http_empty_gif_module",
    "--without-http_browser_module",
    "--without-http_upstream_least_time_module",
    "--without-http_upstream_sticky_module",
    "--without-http_tunnel_module",
    "--without-http-cache",
    "--add-module=../ngx_devel_kit",
    "--add-module=../echo-nginx-module",
    "--add-module=../set-misc-nginx-module",
    "--add-module=../headers-more-nginx-module",
    "--add-module=../ngx_lua",
];

/// The lines of `-v`. OpenResty's tools expect one line of theirs and nothing else.
pub fn version(called: &OsStr) -> String {
    match is_openresty(called) {
        true => openresty(),
        false => format!("nginx version: nginx/{NGINX}\ntollbar version: tollbar/{}\n", own()),
    }
}

/// What `-V` adds. Tools read OpenSSL's version to know which TLS features they may expect, and
/// OpenResty's to know that they may expect Lua.
pub fn configuration(called: &OsStr) -> String {
    // OpenResty's nginx has a folder of its own beside those of its other programs, and who looks
    // for its `luajit` starts there.
    let (openresty, prefix) = match is_openresty(called) {
        true => (String::new(), format!("--prefix={PREFIX}/nginx ")),
        false => (openresty(), String::new()),
    };
    format!(
        "{openresty}built by rustc {}\nbuilt with OpenSSL 3.0.17 (compatible; rustls with aws-lc)\n\
         TLS SNI support enabled\nconfigure arguments: {prefix}{}\n",
        env!("CARGO_PKG_RUST_VERSION"),
        CONFIGURE.join(" ")
    )
}

fn is_openresty(called: &OsStr) -> bool {
    Path::new(called).file_name() == Some(OsStr::new(OPENRESTY_NAME))
}

fn openresty() -> String {
    format!("nginx version: openresty/{OPENRESTY}\n")
}

/// The lines of the log at start.
pub fn banner() -> Vec<String> {
    let limits = match crate::sys::user::descriptor_limits() {
        Ok((now, most)) => vec![format!("getrlimit(RLIMIT_NOFILE): {now}:{most}")],
        Err(_) => vec![],
    };
    let mut lines = vec![
        "using the \"epoll\" event method".into(),
        format!("nginx/{NGINX}"),
        format!("tollbar/{}", own()),
        format!("OS: {}", crate::sys::process::system_name()),
    ];
    lines.extend(limits);
    lines
}

fn own() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
