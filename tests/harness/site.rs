//! One configuration, started in a folder of its own, and stopped with its log looked at.

use super::ports::Port;
use super::procs::{self, Proc};
use super::talk::{cases, request_bytes};
use super::tls::Authority;
use super::{Backend, Client, Log, Response, matches, wait_for};
use nix::sys::signal::Signal;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// The running program and everything around it.
///
/// Placeholders of a configuration and of a talk: `{DIR}` the site's folder, `{PORT}`, `{PORT2}` …
/// ports of the server, `{BACKEND}`, `{BACKEND2}` … addresses of backends (`127.0.0.1:NNN`),
/// `{DEAD}` an address where nobody listens.
pub struct Site {
    dir: TempDir,
    conf: String,
    args: Vec<String>,
    ports: BTreeMap<String, Port>,
    backends: BTreeMap<String, Backend>,
    daemon: bool,
    started: Option<Child>,
    master: Option<i32>,
    /// Alerts that belong to the test.
    expected: Vec<String>,
}

/// The program under test.
pub fn program() -> PathBuf {
    let other = std::env::var_os("TOLLBAR_TEST_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| env!("CARGO_BIN_EXE_tollbar").into())
}

impl Site {
    /// A site whose configuration's `http { }` holds this.
    pub fn http(inside: &str) -> Site {
        let servers = with_listen(inside);
        Site::whole(&format!(
            "events {{ worker_connections 512; }}\n\
             http {{ access_log {{DIR}}/access.log;\n{servers}\n}}"
        ))
    }

    /// A site with this configuration; what keeps it in the foreground and its log verbose is
    /// added in front.
    pub fn whole(conf: &str) -> Site {
        let dir = tempfile::Builder::new().prefix("tollbar-test-").tempdir().expect("a folder");
        // Workers give up root, and still have to read what is served.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for folder in ["logs", "html"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let mut site = Site {
            dir,
            conf: String::new(),
            args: Vec::new(),
            ports: BTreeMap::new(),
            backends: BTreeMap::new(),
            daemon: false,
            started: None,
            master: None,
            expected: Vec::new(),
        };
        let conf = site.fill_in(conf);
        if conf.contains("cert.pem") {
            site.make_certificates();
        }
        site.configure(&conf);
        site
    }

    /// Writes the configuration file, for the start or for the next reload.
    pub fn configure(&mut self, conf: &str) {
        let conf = self.fill_in(conf);
        let dir = self.dir().display();
        // On one line with the configuration's first: its line numbers stay.
        let daemon = if self.daemon { "on" } else { "off" };
        let log = format!("{dir}/error.log");
        self.conf = format!("daemon {daemon}; pid nginx.pid; error_log {log} info; {conf}");
        self.file("nginx.conf", &self.conf);
    }

    /// The program goes into the background by itself.
    pub fn into_background(mut self) -> Site {
        self.daemon = true;
        self.conf = self.conf.replace("daemon off", "daemon on");
        self.file("nginx.conf", &self.conf);
        self
    }

    /// A file of the site's folder, there before the program starts.
    pub fn with_file(self, name: &str, text: impl AsRef<[u8]>) -> Site {
        self.file(name, text);
        self
    }

    pub fn with_args(mut self, args: &[&str]) -> Site {
        self.args.extend(args.iter().map(|a| a.to_string()));
        self
    }

    /// Starts, runs the talk, stops; panics when the log holds an alert.
    pub fn run(mut self, talk: impl FnOnce(&mut Site)) {
        self.start();
        talk(&mut self);
        self.stop();
    }

    #[track_caller]
    pub fn start(&mut self) {
        let stderr = fs::File::create(self.dir().join("stderr")).expect("a file");
        let mut child = self.command().stderr(stderr).spawn().expect("the program starts");
        let foreground = (!self.daemon).then_some(child.id() as i32);
        let ready = wait_for(|| {
            let written = self.read("nginx.pid").and_then(|p| p.trim().parse::<i32>().ok());
            let written = written.filter(|pid| foreground.is_none_or(|f| f == *pid));
            match (child.try_wait(), self.daemon) {
                (Ok(None), false) => written.map(Some),
                (Ok(None), true) => None,
                (Ok(Some(status)), true) if status.success() => written.map(Some),
                _ => Some(None),
            }
        });
        self.started = Some(child);
        self.master = ready.flatten();
        if self.master.is_none() {
            let stderr = self.read("stderr").unwrap_or_default();
            panic!("did not start: {stderr}\nwith\n{}", self.conf);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        let prefix = format!("{}/", self.dir().display());
        command.args(["-p", &prefix, "-c", "nginx.conf", "-e", "error.log"]).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs the program with these arguments beside the prefix and the configuration.
    pub fn run_with(&self, args: &[&str]) -> Output {
        self.command().args(args).stdout(Stdio::piped()).output().expect("the program runs")
    }

    /// Ends the program; nothing of it may remain, and its log must be clean.
    #[track_caller]
    pub fn stop(&mut self) {
        self.stop_by(Signal::SIGTERM);
    }

    #[track_caller]
    pub fn stop_by(&mut self, signal: Signal) {
        let Some(pid) = self.master.take() else { return };
        // After an upgrade there is another master, or two.
        for p in procs::tree(pid, self.dir()) {
            if p.pid == pid || p.role.starts_with("master process") {
                procs::signal(p.pid, signal);
            }
        }
        let gone = wait_for(|| {
            self.started.as_mut().map(Child::try_wait);
            procs::tree(pid, self.dir()).is_empty().then_some(())
        });
        let left = procs::tree(pid, self.dir());
        kill_all(&left);
        assert!(gone.is_some(), "still there after {signal}: {left:?}");
        for bad in ["[alert]", "[emerg]", "panicked at"] {
            let mut lines = self.error_log().lines(bad);
            lines.retain(|l| !self.expected.iter().any(|e| matches(&format!("*{e}*"), l)));
            assert!(lines.is_empty(), "{lines:#?}");
        }
    }

    /// An alert in the error log that is part of the test.
    pub fn expect_alert(&mut self, pattern: &str) {
        self.expected.push(pattern.into());
    }

    /// Plays the cases of a talk and reports all that differ.
    #[track_caller]
    pub fn check(&self, talk: &str) {
        let mut differences = Vec::new();
        for case in cases(&self.fill_in_known(talk)) {
            if let Err(e) = case.play(&mut self.connect()) {
                differences.push(format!("{}\n    {}", case.line, e.replace('\n', "\n    ")));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// A connection to the first port.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address("PORT"))
    }

    /// Sends a request written as in a talk, on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &str) -> Response {
        let (bytes, method) = request_bytes(&self.fill_in_known(request), "close");
        let mut client = self.connect();
        client.send(bytes);
        client.response_to(&method)
    }

    /// Sends bytes as they are, and reads until the server closes.
    #[track_caller]
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(bytes);
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    }

    /// Shakes hands with a server name, trusting whoever is there.
    #[track_caller]
    pub fn connect_tls(&self, name: &str) -> Client {
        self.try_tls(name, super::tls::trusting()).unwrap_or_else(|e| panic!("handshake: {e}"))
    }

    pub fn try_tls(&self, name: &str, config: Arc<ClientConfig>) -> Result<Client, String> {
        self.connect().try_tls(name, config)
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports.get(name).unwrap_or_else(|| panic!("no {{{name}}}")).number
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(name)).into()
    }

    pub fn backend(&self) -> &Backend {
        self.backend_named("BACKEND")
    }

    pub fn backend_named(&self, name: &str) -> &Backend {
        self.backends.get(name).unwrap_or_else(|| panic!("no {{{name}}}"))
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the site's folder, readable for all.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir().join(name);
        let folder = path.parent().expect("inside the site");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir().join(name)).ok()
    }

    pub fn error_log(&self) -> Log {
        self.log("error.log")
    }

    pub fn log(&self, name: &str) -> Log {
        Log::at(self.dir().join(name))
    }

    pub fn master(&self) -> i32 {
        self.master.expect("started")
    }

    pub fn procs(&self) -> Vec<Proc> {
        procs::tree(self.master(), self.dir())
    }

    /// Waits until exactly `n` processes have this role, and returns them.
    #[track_caller]
    pub fn expect_procs(&self, role: &str, n: usize) -> Vec<Proc> {
        let of_role = || self.procs().into_iter().filter(|p| matches(role, &p.role)).collect();
        let found = wait_for(|| Some(of_role()).filter(|found: &Vec<Proc>| found.len() == n));
        found.unwrap_or_else(|| panic!("not {n} x {role:?} in {:#?}", self.procs()))
    }

    pub fn signal(&self, signal: Signal) {
        procs::signal(self.master(), signal);
    }

    /// Puts ports, backends and the folder in place of their names; makes those that are new.
    pub fn fill_in(&mut self, text: &str) -> String {
        for n in std::iter::once(String::new()).chain((2..10).map(|n| n.to_string())) {
            let (port, backend) = (format!("PORT{n}"), format!("BACKEND{n}"));
            if text.contains(&format!("{{{port}}}")) {
                self.ports.entry(port).or_insert_with(Port::hold);
            }
            if text.contains(&format!("{{{backend}}}")) {
                self.backends.entry(backend).or_insert_with(Backend::start);
            }
        }
        if text.contains("{DEAD}") {
            self.ports.entry("DEAD".into()).or_insert_with(Port::hold);
        }
        self.fill_in_known(text)
    }

    fn fill_in_known(&self, text: &str) -> String {
        let mut text = text.replace("{DIR}", &self.dir().display().to_string());
        for (name, port) in &self.ports {
            let number = port.number;
            let value =
                if name == "DEAD" { format!("127.0.0.1:{number}") } else { number.to_string() };
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        for (name, backend) in &self.backends {
            text = text.replace(&format!("{{{name}}}"), &backend.address.to_string());
        }
        text
    }

    /// `cert.pem` and `key.pem` for the server, `client.pem` and `client.key`, `ca.pem` of who
    /// signed both, `crl.pem` that revokes neither and `revoked.pem` that revokes the client.
    fn make_certificates(&self) {
        let authority = Authority::new("an authority");
        let names = ["localhost", "example.com", "*.example.com"];
        let (certificate, key) = authority.sign(&names, 7);
        let (client, client_key) = authority.sign(&["client"], 77);
        self.file("cert.pem", certificate);
        self.file("key.pem", key);
        self.file("client.pem", client);
        self.file("client.key", client_key);
        self.file("ca.pem", &authority.pem);
        self.file("crl.pem", authority.revoke(&[]));
        self.file("revoked.pem", authority.revoke(&[77]));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(pid) = self.master.take() {
            kill_all(&procs::tree(pid, self.dir()));
        }
        if let Some(mut child) = self.started.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.error_log().text();
            let from = log.lines().count().saturating_sub(30);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("--- error.log\n{}\n---", tail.join("\n"));
        }
    }
}

fn kill_all(procs: &[Proc]) {
    procs.iter().for_each(|p| procs::signal(p.pid, Signal::SIGKILL));
}

/// Gives each `server { }` that does not say where it listens the first port
/// (`location /server { }` is none, and `server {BACKEND};` is none).
fn with_listen(conf: &str) -> String {
    let mut out = String::new();
    let mut rest = conf;
    while let Some(at) = rest.find("server {") {
        let start = at + "server {".len();
        let block = &rest[start..start + length_of_block(&rest[start..])];
        out += &rest[..start];
        let is_path = rest[..at].ends_with('/');
        let is_peer = block.starts_with(|c: char| c.is_uppercase());
        if !is_path && !is_peer && !block.contains("listen ") {
            out += " listen 127.0.0.1:{PORT};";
        }
        rest = &rest[start..];
    }
    out + rest
}

/// How far it is to the brace that closes the block this text starts in.
fn length_of_block(text: &str) -> usize {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        depth += (byte == b'{') as i32 - (byte == b'}') as i32;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// What the program says to `-t` with a configuration, whether it accepts it, and what `message`
/// is with its placeholders (`{CONF}` is the configuration's file).
fn conf_test(conf: &str, message: &str) -> (bool, String, String) {
    let mut site = Site::whole(conf);
    let message = site.fill_in(message);
    let message = message.replace("{CONF}", &format!("{}/nginx.conf", site.dir().display()));
    let output = site.run_with(&["-t"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said, format!("*{message}*"))
}

/// What there is to say against the program's refusal of `conf` with `message`.
pub fn refuses_conf(conf: &str, message: &str) -> Result<(), String> {
    let (accepted, said, pattern) = conf_test(conf, message);
    match accepted {
        true => Err(format!("accepted: {conf}")),
        false if said.lines().any(|l| matches(&pattern, l)) => Ok(()),
        false => Err(format!("{conf}\n    {}\n    not {pattern}", said.replace('\n', "\n    "))),
    }
}

/// The same for a configuration that is accepted but not silently.
pub fn warns_of_conf(conf: &str, message: &str) -> Result<(), String> {
    let (accepted, said, pattern) = conf_test(conf, message);
    match accepted && said.lines().any(|l| matches(&pattern, l)) {
        true => Ok(()),
        false => Err(format!("{conf}\n    {}\n    not {pattern}", said.replace('\n', "\n    "))),
    }
}
