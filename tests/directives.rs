//! The directive reference is current, and every directive has a case.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Directives that no file in `tests/` names, and why.
const UNTRIED: &[(&str, &str)] = &[
    ("daemon", "in front of every configuration that the harness writes"),
    ("debug_connection", "nginx warns of it unless it was built for debugging"),
    ("proxy_ssl_conf_command", "names commands of OpenSSL"),
    ("proxy_ssl_crl", "revocation is tried in tls/"),
    ("proxy_ssl_password_file", "encrypted keys are tried in tls/"),
    ("privileged_process", "nginx has none; its own tests come with the agent"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tollbar")).arg("--directives").output();
    String::from_utf8(output.expect("the program runs").stdout).expect("UTF-8")
}

#[test]
fn the_page_is_current() {
    let page = fs::read_to_string(root().join("docs/directives.md")).unwrap_or_default();
    assert!(page == reference(), "docs/directives.md is old: run scripts/directives");
}

#[test]
fn every_directive_has_a_case() {
    let mut tests = String::new();
    for entry in fs::read_dir(root().join("tests")).expect("tests/").flatten() {
        if entry.path().extension().is_some_and(|e| e == "rs")
            && entry.file_name() != "directives.rs"
        {
            tests += &fs::read_to_string(entry.path()).expect("UTF-8");
        }
    }
    let words: std::collections::HashSet<&str> =
        tests.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let page = reference();
    let names = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    let untried = |name: &&str| !words.contains(name) && !UNTRIED.iter().any(|(n, _)| n == name);
    let missing: Vec<&str> = names.filter(untried).collect();
    assert!(
        missing.is_empty(),
        "{} directives without a case: {}",
        missing.len(),
        missing.join(" ")
    );
}
