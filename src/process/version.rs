//! What this program says it is: nginx's version, for those who ask for it, and its own.

/// The nginx whose configuration, logs and signals are spoken here.
const NGINX: &str = "1.31.5";
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
];

/// The lines of `-v`.
pub fn version() -> String {
    format!("nginx version: nginx/{NGINX}\ntollbar version: tollbar/{}\n", own())
}

/// What `-V` adds. Tools read OpenSSL's version to know which TLS features they may expect.
pub fn configuration() -> String {
    format!(
        "built by rustc {}\nbuilt with OpenSSL 3.0.17 (compatible; rustls with aws-lc)\n\
         TLS SNI support enabled\nconfigure arguments: {}\n",
        env!("CARGO_PKG_RUST_VERSION"),
        CONFIGURE.join(" ")
    )
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
