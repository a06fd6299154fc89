//! The command line, in nginx's spelling.

use crate::harness::Site;
use std::process::Output;

const CONF: &str = "events { }\nhttp {\n  include {DIR}/more.conf;\n}\n";

fn site() -> Site {
    Site::whole(CONF).with_file("more.conf", "server { listen 127.0.0.1:1; }\n")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn test_of_a_configuration() {
    let site = site();
    let conf = format!("{}/nginx.conf", site.dir().display());
    let good = site.run_with(&["-t"]);
    assert!(good.status.success());
    assert!(
        said(&good).contains(&format!("the configuration file {conf} syntax is ok\n")),
        "{}",
        said(&good)
    );
    assert!(said(&good).contains(&format!("configuration file {conf} test is successful\n")));
    assert_eq!(said(&site.run_with(&["-tq"])), "");
    assert_eq!(said(&site.run_with(&["-q", "-t"])), "");
    assert_eq!(site.read("nginx.pid").as_deref().unwrap_or_default(), "");
}

#[test]
fn dump_of_a_configuration() {
    let site = site();
    let all = site.run_with(&["-T"]);
    let dir = site.dir().display();
    let text = said(&all);
    assert!(all.status.success());
    assert!(
        text.contains(&format!("# configuration file {dir}/nginx.conf:\ndaemon off;")),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "# configuration file {dir}/more.conf:\nserver {{ listen 127.0.0.1:1; }}\n\n"
        )),
        "{text}"
    );
}

#[test]
fn versions() {
    let site = site();
    let short = said(&site.run_with(&["-v"]));
    assert!(short.lines().any(|l| l.starts_with("nginx version: nginx/1.")), "{short}");
    let long = said(&site.run_with(&["-V"]));
    for part in [
        "nginx version: nginx/1.",
        "built with OpenSSL 3.",
        "TLS SNI support enabled",
        "configure arguments: ",
        "--with-http_ssl_module",
        "nginx version: openresty/1.",
        "--with-http_stub_status_module",
        "ngx_lua",
    ] {
        assert!(long.contains(part), "{long}");
    }
    let help = said(&site.run_with(&["-h"]));
    for option in [
        "-?,-h",
        "-v ",
        "-V ",
        "-t ",
        "-T ",
        "-q ",
        "-s signal",
        "-p prefix",
        "-e filename",
        "-c filename",
        "-g directives",
    ] {
        assert!(help.contains(option), "{help}");
    }
}

/// OpenResty's tools run `openresty -v` and take all of it for the version.
#[test]
fn called_openresty_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("openresty");
    std::os::unix::fs::symlink(crate::harness::program(), &link).expect("a link");
    let says = |option| said(&std::process::Command::new(&link).arg(option).output().unwrap());
    let version = says("-v");
    assert!(version.starts_with("nginx version: openresty/1."), "{version}");
    assert_eq!(version.lines().count(), 1);
    let all = says("-V");
    assert!(all.starts_with(&version) && all.contains("configure arguments: --prefix=/"), "{all}");
    assert!(all.contains("/nginx --with"), "{all}");
}

#[test]
fn global_directives() {
    let site = site();
    let good = site.run_with(&["-t", "-g", "worker_rlimit_nofile 100;"]);
    assert!(good.status.success(), "{}", said(&good));
    let bad = site.run_with(&["-t", "-g", "nonsense 1;"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        said(&bad).contains("unknown directive \"nonsense\" in command line"),
        "{}",
        said(&bad)
    );
}

#[test]
fn options_that_are_wrong() {
    let site = site();
    for (args, message) in [
        (&["-x"][..], "invalid option: \"x\""),
        (&["word"], "invalid option: \"word\""),
        (&["-c"], "option \"-c\" requires file name"),
        (&["-p"], "option \"-p\" requires directory name"),
        (&["-g"], "option \"-g\" requires parameter"),
        (&["-s"], "option \"-s\" requires parameter"),
    ] {
        let output = site.run_with(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(said(&output).contains(message), "{args:?}: {}", said(&output));
    }
}

#[test]
fn no_configuration_and_no_process() {
    let site = site();
    let lost = site.run_with(&["-t", "-c", "none.conf"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(
        said(&lost).contains("[emerg]")
            && said(&lost).contains("none.conf\" failed (2: No such file or directory)"),
        "{}",
        said(&lost)
    );
    let nobody = site.run_with(&["-s", "stop"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        said(&nobody).contains("nginx.pid\" failed (2: No such file or directory)"),
        "{}",
        said(&nobody)
    );
}
