//! `load_plugin` and `plugin`: shared libraries, made here from C and Rust, that take part in
//! requests.
//!
//! Without the compiler a test is skipped.

use crate::harness::{Client, Site, wait_for};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A plugin that does what its first argument says. `VERSION` is its answer to `version`.
const PLUGIN: &str = r#"
#include "tollbar_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static const tollbar_host *host;
static char started[64];
struct conf { char words[3][64]; };
static tollbar_str t(const char *text) { return (tollbar_str){ text, strlen(text) }; }
static int is(const struct conf *c, const char *word) { return strcmp(c->words[0], word) == 0; }
static int32_t init(const tollbar_str *args, size_t count, char *error, size_t size)
{
    if (count > 0) snprintf(started, sizeof started, "%.*s", (int)args[0].len, args[0].data);
    if (strcmp(started, "crash") == 0) abort();
    if (strcmp(started, "never") == 0) { snprintf(error, size, "never is too\nlate"); return 1; }
    return 0;
}
static int32_t configure(const tollbar_str *args, size_t count, void **conf, char *error, size_t size)
{
    struct conf *c = calloc(1, sizeof *c);
    for (size_t i = 0; i < count && i < 3; i++)
        snprintf(c->words[i], sizeof c->words[i], "%.*s", (int)args[i].len, args[i].data);
    if (is(c, "crash")) *(volatile int *)8 = 1;
    if (is(c, "exit")) exit(3);
    if (is(c, "refuse")) {
        if (count > 1) snprintf(error, size, "not with %s", c->words[1]);
        free(c);
        return 7;
    }
    *conf = c;
    return 0;
}
static int32_t rewrite(void *conf, tollbar_request *r)
{
    const struct conf *c = conf;
    if (is(c, "ask")) {
        char text[512];
        tollbar_str m = host->method(r), u = host->uri(r), a = host->args(r), p = host->remote_address(r);
        tollbar_str h = t("-"), v = t("-"), none = t("kept");
        host->request_header(r, t("x-IN"), &h);
        host->variable(r, t("Arg_b"), &v);
        int n1 = host->request_header(r, t("X-None"), &none), n2 = host->variable(r, t("nothing"), &none);
        snprintf(text, sizeof text, "%.*s %.*s %.*s %.*s %.*s %.*s %d %d %.*s %d", (int)m.len, m.data,
            (int)u.len, u.data, (int)a.len, a.data, (int)p.len, p.data, (int)h.len, h.data,
            (int)v.len, v.data, n1, n2, (int)none.len, none.data, host->response_status(r));
        host->set_response_header(r, t("X-Made"), t("yes"));
        host->reply(r, 201, t("text/x-plugin"), t(text));
        return TOLLBAR_REPLY;
    }
    if (is(c, "change")) {
        tollbar_str gone = { NULL, 0 };
        int codes[] = { host->set_request_header(r, t("X-In"), t("changed")),
            host->set_request_header(r, t("X-Gone"), gone),
            host->set_request_header(r, t("X-Bad"), t("a\r\nb")),
            host->set_request_header(r, t("Content-Length"), t("5")),
            host->set_response_status(r, 200) };
        char text[64];
        snprintf(text, sizeof text, "%d%d%d%d%d", codes[0], codes[1], codes[2], codes[3], codes[4]);
        host->set_request_header(r, t("X-Codes"), t(text));
    }
    return TOLLBAR_DECLINE;
}
static int32_t access_(void *conf, tollbar_request *r)
{
    const struct conf *c = conf;
    tollbar_str null_text = { NULL, 5 }, out;
    double n = 0, m = 0;
    if (is(c, "version")) { host->reply(r, 200, t("text/plain"), t(VERSION)); return TOLLBAR_REPLY; }
    if (is(c, "started")) { host->reply(r, 200, (tollbar_str){ NULL, 0 }, t(started)); return TOLLBAR_REPLY; }
    if (is(c, "return")) return atoi(c->words[1]);
    if (is(c, "both")) { host->reply(r, 200, t("a/b"), t("x")); return 403; }
    if (is(c, "bad-status")) { host->reply(r, 1000, t("a/b"), t("x")); return TOLLBAR_REPLY; }
    if (is(c, "bad-level")) host->log(r, 9, t("x"));
    if (is(c, "null-text")) host->log(r, TOLLBAR_LOG_ERROR, null_text);
    if (is(c, "null-place")) host->variable(r, t("uri"), NULL);
    if (is(c, "null-request")) host->method(NULL);
    if (is(c, "log-nobody")) host->log(NULL, TOLLBAR_LOG_WARN, t("nobody's\nword"));
    if (is(c, "dict")) {
        tollbar_str d = t(c->words[1]);
        char text[256];
        int codes[] = { host->dict_get(r, d, t("k"), &out), host->dict_set(r, d, t("k"), t("v"), 0),
            host->dict_incr(r, d, t("k"), 1, 0, 0, NULL), host->dict_incr(r, d, t("n"), 2, 40, 60000, &n),
            host->dict_incr(r, d, t("n"), 1, 0, 0, &m), host->dict_get(r, d, t("k"), &out),
            host->dict_delete(r, d, t("k")), host->dict_set(r, d, t(""), t("v"), 0),
            host->dict_get(r, t("other"), t("k"), &out) };
        int at = 0;
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) at += sprintf(text + at, "%d", codes[i]);
        sprintf(text + at, " %g %g", n, m);
        host->reply(r, 200, t("text/plain"), t(text));
        return TOLLBAR_REPLY;
    }
    return TOLLBAR_DECLINE;
}
static int32_t header_filter(void *conf, tollbar_request *r)
{
    const struct conf *c = conf;
    tollbar_str media = t("-");
    if (is(c, "headers")) {
        char text[64];
        host->response_header(r, t("content-type"), &media);
        snprintf(text, sizeof text, "%.*s %d %d %d", (int)media.len, media.data, host->response_status(r),
            host->set_response_header(r, t("Connection"), t("close")), host->set_request_header(r, t("X"), t("y")));
        host->set_response_header(r, t("X-Out"), t(text));
        host->set_response_header(r, t("Content-Type"), t("text/x-new"));
        if (c->words[1][0]) host->set_response_status(r, atoi(c->words[1]));
    }
    if (is(c, "copy")) {
        host->response_header(r, t(c->words[1]), &media);
        host->set_response_header(r, t("X-Copy"), media);
        host->set_response_header(r, t(c->words[1]), (tollbar_str){ NULL, 0 });
    }
    if (is(c, "filter")) return host->response_status(r) == 200 ? atoi(c->words[1]) : TOLLBAR_DECLINE;
    if (is(c, "append")) {
        char text[64];
        tollbar_str before = t("");
        host->response_header(r, t("X-Order"), &before);
        snprintf(text, sizeof text, "%.*s%s", (int)before.len, before.data, c->words[1]);
        host->set_response_header(r, t("X-Order"), t(text));
    }
    return TOLLBAR_DECLINE;
}
static void log_(void *conf, tollbar_request *r)
{
    if (is(conf, "log")) {
        char text[128];
        snprintf(text, sizeof text, "ended with %d\nand %d", host->response_status(r),
            host->set_response_header(r, t("X"), t("y")));
        host->log(r, TOLLBAR_LOG_WARN, t(text));
    }
}
static const tollbar_plugin_descriptor descriptor = {
    .abi = ABI, .size = SIZE, .name = { NAME, sizeof NAME - 1 }, .version = { VERSION, sizeof VERSION - 1 },
    .init = init, .configure = configure, .free_conf = free, .rewrite = rewrite, .access = access_,
    .header_filter = header_filter, .log = log_ };
const tollbar_plugin_descriptor *tollbar_plugin(const tollbar_host *given) { host = given; return RESULT; }
"#;

/// A plugin with nothing but a name.
const BARE: &str = r#"
#include "tollbar_plugin.h"
static const tollbar_plugin_descriptor descriptor = {
    .abi = TOLLBAR_PLUGIN_ABI, .size = sizeof descriptor, .name = { "bare", 4 } };
const tollbar_plugin_descriptor *tollbar_plugin(const tollbar_host *host) { (void)host; return &descriptor; }
"#;

/// Whether there is a compiler; says so if there is none.
fn has_compiler() -> bool {
    let found = Command::new("cc").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped: there is no cc");
    }
    found
}

/// Compiles C to a library. It is made aside and moved, or written over what is there.
fn compile(source: &Path, library: &Path, defines: &[&str]) {
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-w", "-I"]);
    command.arg(format!("{ROOT}/include")).args(defines).arg("-o").arg(library).arg(source);
    let output = command.output().expect("cc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes `NAME.so` of the plugin above in the site's folder; later defines win.
fn make(t: &Site, name: &str, defines: &[&str]) {
    let usual = [
        "-DABI=TOLLBAR_PLUGIN_ABI",
        "-DSIZE=sizeof(tollbar_plugin_descriptor)",
        "-DNAME=\"x\"",
        "-DVERSION=\"one\"",
        "-DRESULT=&descriptor",
    ];
    let name_of = |define: &str| define.split('=').next().map(str::to_owned);
    let is_own = |d: &&str| !defines.iter().any(|own| name_of(own) == name_of(d));
    let defines: Vec<&str> =
        usual.into_iter().filter(is_own).chain(defines.iter().copied()).collect();
    let source = t.dir().join(format!("{name}.c"));
    t.file(&format!("{name}.c"), PLUGIN);
    compile(&source, &t.dir().join(format!("{name}.so")), &defines);
}

/// A site with the plugin `x`, if there is a compiler.
fn site(inside: &str) -> Option<Site> {
    if !has_compiler() {
        return None;
    }
    let site = Site::http(inside);
    make(&site, "x", &[]);
    Some(site)
}

fn check(inside: &str, cases: &str) {
    if let Some(site) = site(inside) {
        site.run(|t| t.check(cases));
    }
}

#[test]
fn the_example_of_a_plugin_lets_nobody_in_without_the_header() {
    if !has_compiler() {
        return;
    }
    let site = Site::http(
        r#"keyval_zone zone=seen:1m; load_plugin header_check.so;
        server { plugin header_check X-Api-Key seen;
            location / { echo -n ok; }
            location /open { plugin off; echo -n open; }
            location /lost { plugin header_check X-Api-Key lost; echo -n ok; } }"#,
    );
    let source = Path::new(ROOT).join("include/example_plugin.c");
    compile(&source, &site.dir().join("header_check.so"), &[]);
    site.run(|t| {
        t.check(
            "
    GET /a -> 403 * | !X-Seen
    GET /a | X-Api-Key: k -> 200 ok | X-Seen: 1
    GET /a | x-api-KEY: k -> 200 ok | X-Seen: 2
    GET /a -> 403 * | X-Seen: 2
    GET /b | X-Api-Key: k -> 200 ok | X-Seen: 1
    GET /open -> 200 open | !X-Seen
    GET /lost | X-Api-Key: k -> 500
    ",
        );
        t.error_log().expect("[info] *plugin header_check: a request without the header, client: ");
        t.error_log().expect("[error] *plugin header_check: there is no such dict, client: ");
        t.error_log().expect("[notice] *plugin header_check 1.0 is loaded");
    });
}

#[test]
fn a_plugin_asks_changes_and_answers() {
    let Some(site) = site(
        "load_plugin x.so hello; server {
            location /ask { plugin x ask; echo unseen; }
            location /change { plugin x change; echo -n $http_x_in $http_x_gone. $http_x_codes; }
            location /started { plugin x started; }
            location /headers { plugin x headers; default_type a/b; echo -n ok; }
            location /status { plugin x headers 203; echo -n ok; }
            location /modified { plugin x copy last-modified; alias {DIR}/html/; }
            location /etag { plugin x copy ETag; alias {DIR}/html/; }
            location /length { plugin x copy Content-Length; alias {DIR}/html/; }
            location /other { plugin x copy X-Kept; proxy_pass http://{BACKEND}/; }
            location /order { plugin x append a; plugin x append b; location /order/off { plugin off; echo -n ok; }
                location /order/same { echo -n ok; } location /order/own { plugin x append c; echo -n ok; } }
        }",
    ) else {
        return;
    };
    site.run(|t| {
        t.backend().reply("/", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Kept: kept\r\n\r\nhi");
        t.file("html/a", "abc");
        t.check(
            "
    GET /ask/%41?a=%41&b=2 | X-In: in -> 201 GET /ask/A a=%41&b=2 127.0.0.1 in 2 1 1 kept 0 | Content-Type: text/x-plugin | X-Made: yes
    HEAD /ask -> 201 | Content-Type: text/x-plugin
    POST /ask << a=1 -> 201 POST /ask  127.0.0.1 - - 1 1 kept 0
    GET /change | X-In: a | X-Gone: b -> 200 changed . 00223
    GET /started -> 200 hello | !Content-Type
    GET /headers -> 200 ok | X-Out: a/b 200 2 3 | Content-Type: text/x-new
    GET /status -> 203 ok
    GET /order/same -> 200 ok | X-Order: ab
    GET /order/own -> 200 ok | X-Order: c
    GET /order/off -> 200 ok | !X-Order
    GET /modified/a -> 200 abc | X-Copy: *, * GMT | !Last-Modified | ETag: *
    GET /etag/a -> 200 abc | X-Copy: \"*-3\" | !ETag | Last-Modified: *
    GET /length/a -> 200 abc | X-Copy: 3 | Content-Length: 3
    GET /other -> 200 hi | X-Copy: kept | !X-Kept
    ",
        );
    });
}

#[test]
fn verdicts() {
    let Some(site) = site(
        "load_plugin x.so; error_page 418 /page; server {
            location /page { echo -n a page; }
            location /go { plugin x return 0; echo -n ok; }
            location /allow { plugin x return 1; satisfy any; deny all; echo -n ok; }
            location /forbid { plugin x return 403; echo -n ok; }
            location /page418 { plugin x return 418; echo -n ok; }
            location /close { plugin x return 444; echo -n ok; }
            location /instead { plugin x filter 410; echo -n ok; }
        }",
    ) else {
        return;
    };
    site.run(|t| {
        t.check(
            "
    GET /go -> 200 ok
    GET /allow -> 200 ok
    GET /forbid -> 403
    GET /page418 -> 418 a page
    GET /close -> closed
    GET /instead -> 410 *410 Gone*
    ",
        );
    });
}

#[test]
fn what_a_plugin_must_not_do_is_answered_with_500() {
    let places = [
        ("return 2", "returned TOLLBAR_REPLY without a reply in \"access\""),
        ("return 7", "returned the unknown verdict 7 in \"access\""),
        ("return -1", "returned the unknown verdict -1 in \"access\""),
        ("return 200", "returned the unknown verdict 200 in \"access\""),
        ("both", "made a reply and returned 403 in \"access\""),
        ("bad-status", "gave a reply a status that is none in \"access\""),
        ("bad-level", "passed a log level that is none in \"access\""),
        ("null-text", "passed a text that is NULL or too long in \"access\""),
        ("null-place", "passed NULL for the place of a result in \"access\""),
        ("null-request", "passed NULL for its request in \"access\""),
        ("filter 1", "returned the unknown verdict 1 in \"header_filter\""),
        ("headers 99", "gave a reply a status that is none in \"header_filter\""),
    ];
    let locations = places.iter().enumerate();
    let locations = locations
        .map(|(n, (words, _))| format!("location /{n}. {{ plugin x {words}; echo -n ok; }}"));
    let conf = format!(
        "load_plugin x.so; server {{ {} location /log {{ plugin x log-nobody; echo -n ok; }} }}",
        locations.collect::<String>()
    );
    let Some(site) = site(&conf) else { return };
    site.run(|t| {
        for (n, (words, says)) in places.iter().enumerate() {
            let response = t.ask(&format!("GET /{n}."));
            assert!(response.status == 500, "{words}: {}", response.shown());
            t.error_log().expect(&format!("[error] *plugin x {says}, client: *GET /{n}. "));
        }
        t.ask("GET /log").expect("200 ok");
        t.error_log().expect("[warn] *plugin: nobody's word");
    });
}

#[test]
fn dicts_and_the_log() {
    let Some(site) = site(
        "keyval_zone zone=d:1m; lua_shared_dict l 1m; load_plugin x.so; server {
            location /d { plugin x dict d; } location /l { plugin x dict l; }
            location /none { plugin x dict none; }
            location /log { plugin x log; echo -n ok; } }",
    ) else {
        return;
    };
    site.run(|t| {
        t.check(
            "
    GET /d -> 200 102000024 42 43
    GET /d -> 200 102000024 45 46
    GET /l -> 200 102000024 42 43
    GET /none -> 200 444444444 0 0
    GET /log -> 200 ok
    ",
        );
        t.error_log().expect("[warn] *plugin x: ended with 200 and 3, client: *GET /log");
    });
}

/// Configurations that are refused, by a test as well as at the start, with what is said of them.
#[test]
fn what_is_wrong_has_a_line() {
    if !has_compiler() {
        return;
    }
    let http = |inside: &str| Site::whole(&format!("events {{ }}\nhttp {{\n{inside} }}"));
    let site = http("");
    make(&site, "x", &[]);
    make(&site, "twin", &[]);
    make(&site, "nameless", &["-DNAME=\"\""]);
    make(&site, "off", &["-DNAME=\"off\""]);
    make(&site, "old", &["-DABI=0"]);
    make(&site, "new", &["-DABI=2"]);
    make(&site, "short", &["-DSIZE=8"]);
    make(&site, "empty", &["-DRESULT=(&descriptor)+0*sizeof(descriptor)==0?&descriptor:NULL"]);
    for (name, text) in [("bare", BARE), ("none", "int nothing;\n")] {
        site.file(&format!("{name}.c"), text);
        compile(&site.dir().join(format!("{name}.c")), &site.dir().join(format!("{name}.so")), &[]);
    }
    site.file("text.so", "no library");
    let whole = std::fs::read(site.dir().join("x.so")).unwrap();
    site.file("half.so", &whole[..whole.len() / 2]);
    for (inside, says) in [
        ("load_plugin;", "invalid number of arguments in \"load_plugin\" directive in {CONF}:3"),
        (
            "load_plugin gone.so;",
            "open() \"{DIR}/gone.so\" failed (2: No such file or directory) in {CONF}:3",
        ),
        ("load_plugin logs;", "\"{DIR}/logs\" is not a file in {CONF}:3"),
        (
            "load_plugin text.so;",
            "dlopen() \"{DIR}/text.so\" failed ({DIR}/text.so: file too short) in {CONF}:3",
        ),
        (
            "\nload_plugin none.so;",
            "dlsym() \"{DIR}/none.so\", \"tollbar_plugin\" failed (*undefined symbol: tollbar_plugin) in {CONF}:4",
        ),
        (
            "load_plugin old.so;",
            "plugin \"{DIR}/old.so\" has ABI version 0, this server has 1 in {CONF}:3",
        ),
        (
            "load_plugin new.so;",
            "plugin \"{DIR}/new.so\" has ABI version 2, this server has 1 in {CONF}:3",
        ),
        (
            "load_plugin short.so;",
            "plugin \"{DIR}/short.so\" has a descriptor of 8 bytes, which is too short in {CONF}:3",
        ),
        ("load_plugin empty.so;", "plugin \"{DIR}/empty.so\" has no descriptor in {CONF}:3"),
        ("load_plugin nameless.so;", "plugin \"{DIR}/nameless.so\" has no usable name in {CONF}:3"),
        ("load_plugin off.so;", "plugin \"{DIR}/off.so\" has no usable name in {CONF}:3"),
        ("load_plugin x.so never;", "plugin \"x\" refused to start: never is too late in {CONF}:3"),
        (
            "load_plugin bare.so a;",
            "plugin \"bare\" takes no arguments of \"load_plugin\" in {CONF}:3",
        ),
        ("load_plugin x.so;\nload_plugin twin.so;", "plugin \"x\" is loaded already in {CONF}:4"),
        ("plugin x;\nload_plugin x.so;", "unknown plugin \"x\" in {CONF}:3"),
        (
            "load_plugin x.so;\nserver {\nplugin x refuse this; }",
            "plugin \"x\" refused: not with this in {CONF}:5",
        ),
        (
            "load_plugin x.so; plugin x refuse;",
            "plugin \"x\" refused: it does not say why in {CONF}:3",
        ),
        (
            "load_plugin bare.so; plugin bare a;",
            "plugin \"bare\" takes no configuration in {CONF}:3",
        ),
        (
            "load_plugin bare.so; plugin bare; plugin off;",
            "\"plugin\" directive is duplicate in {CONF}:3",
        ),
        (
            "load_plugin bare.so; plugin off; plugin bare;",
            "\"plugin\" stands behind \"plugin off\" in {CONF}:3",
        ),
        ("plugin off now;", "invalid number of arguments in \"plugin\" directive in {CONF}:3"),
        (
            "server { load_plugin x.so; }",
            "\"load_plugin\" directive is not allowed here in {CONF}:3",
        ),
    ] {
        let dir = site.dir().display().to_string();
        let says = says.replace("{CONF}", "*/nginx.conf").replace("{DIR}", &dir);
        site.file("nginx.conf", format!("events {{ }}\nhttp {{\n{inside} }}"));
        for args in [&["-t"][..], &["-g", "daemon off;"]] {
            let output = site.run_with(args);
            let said = String::from_utf8_lossy(&output.stderr);
            let is_there = said.lines().any(|l| crate::harness::matches(&format!("*{says}"), l));
            assert!(!output.status.success() && is_there, "{inside}\n{said}\nnot {says}");
        }
    }
    site.file(
        "nginx.conf",
        "events { } http { load_plugin bare.so; plugin bare; load_plugin x.so; }",
    );
    assert!(site.run_with(&["-t"]).status.success());
}

fn versions(lines: &str) -> String {
    format!(
        "worker_processes 2; events {{ }} http {{ access_log off; load_plugin x.so; {lines}
         server {{ listen 127.0.0.1:{{PORT}}; location / {{ plugin x version; }} }} }}"
    )
}

/// A site with the first version, if there is a compiler for it.
fn versioned() -> Option<Site> {
    let site = has_compiler().then(|| Site::whole(&versions("")))?;
    make(&site, "x", &[]);
    Some(site)
}

/// The copies of libraries in a process's memory.
fn mapped(pid: i32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut inodes: Vec<&str> = maps
        .lines()
        .filter(|line| line.contains("/memfd:plugin:"))
        .filter_map(|line| line.split_whitespace().nth(4))
        .collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes.len()
}

#[test]
fn a_reload_brings_the_new_file_and_a_bad_one_changes_nothing() {
    let Some(site) = versioned() else { return };
    site.run(|t| {
        t.ask("GET /").expect("200 one");
        let before = t.expect_procs("worker process", 2);
        // The same file, longer and then a ruin: written over, not moved.
        make(t, "x", &["-DVERSION=\"two\""]);
        let good = std::fs::read(t.dir().join("x.so")).unwrap();
        t.ask("GET /").expect("200 one");
        t.file("x.so", &good[..good.len() / 2]);
        t.ask("GET /").expect("200 one");
        for (bad, says) in [
            ("", "[emerg] *\"*/x.so\" * in */nginx.conf:1"),
            ("load_plugin gone.so;", "[emerg] *open() \"*/gone.so\" failed (2: No such file"),
            (
                "plugin x refuse this;",
                "[emerg] *plugin \"x\" refused: not with this in */nginx.conf:1",
            ),
        ] {
            t.expect_alert(says);
            if !bad.is_empty() {
                t.file("x.so", &good);
            }
            t.configure(&versions(bad));
            t.signal(Signal::SIGHUP);
            t.error_log().expect(says);
            t.ask("GET /").expect("200 one");
            assert_eq!(mapped(t.master()), 1);
        }
        assert_eq!(t.expect_procs("worker process", 2), before);
        t.file("x.so", "");
        t.ask("GET /").expect("200 one");
        // A worker that dies is replaced with what the master has, not with what the file is now.
        t.expect_alert("exited on signal 9");
        crate::harness::procs::signal(before[0].pid, Signal::SIGKILL);
        crate::harness::procs::wait_gone(before[0].pid);
        t.expect_procs("worker process", 2);
        (0..8).for_each(|_| drop(t.ask("GET /").expect("200 one")));
        t.file("x.so", &good);
        t.configure(&versions(""));
        for _ in 0..3 {
            t.signal(Signal::SIGHUP);
            wait_for(|| (t.ask("GET /").text() == "two").then_some(())).expect("the new one");
            wait_for(|| (mapped(t.master()) == 1).then_some(())).expect("only one generation");
        }
    });
}

#[test]
fn no_request_is_lost_while_plugins_are_replaced() {
    let Some(site) = versioned() else { return };
    site.run(|t| {
        t.ask("GET /").expect("200 one");
        let (address, is_over) = (t.address("PORT"), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let talk = || {
                let mut seen = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                    let response = client.response();
                    assert_eq!(response.status, 200);
                    seen.push(response.text());
                }
                seen
            };
            let talkers = [scope.spawn(talk), scope.spawn(talk)];
            for version in ["two", "three", "four"] {
                make(t, "x", &[&format!("-DVERSION=\"{version}\"")]);
                let before = t.expect_procs("worker process", 2);
                t.signal(Signal::SIGHUP);
                wait_for(|| (t.ask("GET /").text() == version).then_some(())).expect("the new one");
                wait_for(|| {
                    let now = t.procs();
                    before.iter().all(|old| now.iter().all(|p| p.pid != old.pid)).then_some(())
                })
                .expect("the old workers are gone");
            }
            is_over.store(true, Ordering::Relaxed);
            for talker in talkers {
                let seen = talker.join().expect("every request was answered");
                assert!(seen.iter().all(|v| ["one", "two", "three", "four"].contains(&&**v)));
                assert!(seen.first().is_some_and(|v| v == "one"));
                assert!(seen.last().is_some_and(|v| v == "four" || v == "three"));
            }
        });
    });
}

/// A plugin in Rust that does what its argument says.
const RUST_PLUGIN: &str = r#"
use tollbar_plugin::{Plugin, Refused, Request, Verdict, export_plugin};
struct Rusty(String);
impl Plugin for Rusty {
    const NAME: &'static str = "rusty";
    fn configure(args: &[&str]) -> Result<Rusty, String> {
        match args {
            ["panic-here"] => panic!("it was told to"),
            [word] => Ok(Rusty(word.to_string())),
            _ => Err(format!("it takes one argument, not {}", args.len())),
        }
    }
    fn rewrite(&self, r: &mut Request<'_>) -> Verdict {
        if self.0 == "change" {
            let dropped = r.set_header("X-A", None);
            let split = r.set_header("X-B", Some(b"a\nb"));
            assert_eq!((dropped, split), (Ok(()), Err(Refused::Invalid)));
            r.set_header("X-C", Some(b"new")).unwrap();
        }
        Verdict::Decline
    }
    fn access(&self, r: &mut Request<'_>) -> Verdict {
        match &*self.0 {
            "panic" => panic!("it was told to"),
            "one" => Verdict::Status(1),
            "reply" => {
                let uri = r.uri();
                let length = [r.method(), uri, r.args(), r.remote_address(), r.variable("host").unwrap()];
                r.dict_set("d", b"k", b"v", 0).unwrap();
                let kept = r.dict_get("d", b"k").unwrap();
                r.dict_delete("d", b"k").unwrap();
                assert_eq!(r.dict_get("d", b"k"), Err(Refused::None));
                r.set_response_header("X-Kept", Some(kept)).unwrap();
                r.reply(200, None, &length.join(&b' ')).unwrap();
                Verdict::Reply
            }
            _ => Verdict::Decline,
        }
    }
    fn header_filter(&self, r: &mut Request<'_>) -> Verdict {
        if self.0 == "change" {
            r.set_response_status(203).unwrap();
        }
        Verdict::Decline
    }
    fn log(&self, r: &mut Request<'_>) {
        let text = format!("{} ended with {}", self.0, r.response_status());
        r.log(tollbar_plugin::Level::Notice, &text);
    }
}
export_plugin!(Rusty);
"#;

/// Builds the crate for plugins and its example; where they are, if there is a cargo.
fn build_crate() -> Option<std::path::PathBuf> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        eprintln!("skipped: there is no cargo");
        return None;
    };
    let target = Path::new(ROOT).join("target/plugin");
    let mut command = Command::new(cargo);
    command.args(["build", "--frozen", "-p", "tollbar-plugin", "--lib", "--examples"]);
    command.arg("--target-dir").arg(&target).current_dir(ROOT);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(target.join("debug"))
}

#[test]
fn plugins_in_rust() {
    let Some(built) = build_crate() else { return };
    let site = Site::http(
        r#"keyval_zone zone=d:1m; load_plugin rusty.so; load_plugin header_check.so; server {
            location / { plugin header_check X-Api-Key d; echo -n ok; }
            location /reply { plugin rusty reply; }
            location /change { plugin rusty change; echo -n $http_x_a $http_x_c; }
            location /panic { plugin rusty panic; echo -n ok; }
            location /one { plugin rusty one; echo -n ok; } }"#,
    );
    let library = site.dir().join("header_check.so");
    std::fs::copy(built.join("examples/libheader_check.so"), library).unwrap();
    site.file("rusty.rs", RUST_PLUGIN);
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--extern"]);
    rustc.arg(format!("tollbar_plugin={}", built.join("libtollbar_plugin.rlib").display()));
    rustc.arg("-o").arg(site.dir().join("rusty.so")).arg(site.dir().join("rusty.rs"));
    let output = rustc.output().expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let refused = "events { } http { load_plugin rusty.so; plugin rusty ARG; }";
    for (argument, says) in [
        ("a b", "plugin \"rusty\" refused: it takes one argument, not 2 in *:1"),
        ("panic-here", "plugin \"rusty\" refused: it panicked in *:1"),
    ] {
        site.file("other.conf", refused.replace("ARG", argument));
        let conf = format!("{}/other.conf", site.dir().display());
        let output = site.run_with(&["-t", "-c", &conf]);
        let said = String::from_utf8_lossy(&output.stderr);
        let is_there = said.lines().any(|l| crate::harness::matches(&format!("*{says}"), l));
        assert!(!output.status.success() && is_there, "{said}");
    }
    site.run(|t| {
        // A panic ends its request only.
        t.expect_alert("panicked at");
        t.expect_alert("plugin \"rusty\" refused: it");
        let cases = "
    GET /a -> 403
    GET /a | X-Api-Key: k -> 200 ok | X-Seen: 1
    GET /a | X-Api-Key: k -> 200 ok | X-Seen: 2
    GET /reply/x?y -> 200 GET /reply/x y 127.0.0.1 localhost | X-Kept: v | !Content-Type
    GET /change | X-A: a -> 203  new
    GET /panic -> 500
    GET /one -> 500
    ";
        t.check(cases);
        t.error_log().expect("[error] *plugin rusty: it panicked, client: *GET /panic");
        t.error_log()
            .expect("[error] *plugin rusty returned the unknown verdict 100 in \"access\"");
        t.error_log().expect("[notice] *plugin rusty: change ended with 203, client: ");
        assert_eq!(mapped(t.master()), 2);
        let before = t.expect_procs("worker process", 1);
        t.signal(Signal::SIGHUP);
        wait_for(|| {
            let now = t.procs();
            before.iter().all(|old| now.iter().all(|p| p.pid != old.pid)).then_some(())
        })
        .expect("another worker");
        t.ask("GET /a | X-Api-Key: k").expect("200 ok | X-Seen: 3");
        wait_for(|| (mapped(t.master()) == 2).then_some(())).expect("only one generation");
    });
}
