//! The configurations that are shipped are right.

use std::fs;
use std::path::Path;
use std::process::Command;

/// `-t` of a shipped configuration, in a copy of `conf/` with a certificate of its own.
fn passes(conf: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied = Command::new("cp").arg("-r").arg(root.join("conf")).arg(dir.path()).status();
    assert!(copied.expect("cp runs").success());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    fs::create_dir(dir.path().join("var")).expect("a folder");
    fs::write(dir.path().join("var/localhost.pem"), made.cert.pem()).expect("written");
    let key = made.signing_key.serialize_pem();
    fs::write(dir.path().join("var/localhost.key"), key).expect("written");
    let mut prefix = dir.path().as_os_str().to_owned();
    prefix.push("/");
    let test = Command::new(env!("CARGO_BIN_EXE_tollbar"))
        .args(["-t", "-e", "stderr", "-c", conf, "-p"])
        .arg(prefix)
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&test.stderr);
    assert!(told.contains("test is successful"), "{told}");
}

#[test]
fn the_main_one() {
    passes("conf/nginx.conf");
}

#[test]
fn the_risk_example() {
    passes("conf/examples/risk.conf");
    passes("conf/examples/blocklist.conf");
}
