//! The directives of the main context: who the processes are and how they run.
//!
//! What was written is a [`RawCore`]; [`RawCore::finish`] makes it a [`Core`], where nothing is
//! unset.
use super::affinity::Affinity;
use crate::conf::{
    Directive, MAIN, Note, Paths, Reading, Reason, at_least, between, call, choice, d, exactly,
    flag, msec, num, size, text, value,
};
use crate::event::ThreadPools;
use crate::log;
use crate::sys::process::{self, DebugPoint};
use crate::sys::user::{self, Identity};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// The main context as it was written.
#[derive(Default)]
pub struct RawCore {
    user: Option<Identity>,
    /// `user` was written, but this process is not root.
    user_ignored: bool,
    daemon: Option<bool>,
    master: Option<bool>,
    workers: Option<usize>,
    privileged: Option<bool>,
    pid: Option<String>,
    lock_file: Option<String>,
    affinity: Option<Affinity>,
    priority: Option<i32>,
    rlimit_nofile: Option<i64>,
    rlimit_core: Option<u64>,
    working_directory: Option<String>,
    env: Vec<String>,
    shutdown_timeout: Option<Duration>,
    timer_resolution: Option<Duration>,
    debug_points: Option<&'static str>,
    pcre_jit: Option<bool>,
    inheritable: Option<bool>,
    thread_pools: Vec<ThreadPool>,
    error_log: log::Spec,
}

/// A named pool for jobs that would block a worker's loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadPool {
    pub name: String,
    pub threads: usize,
    /// Jobs that may wait.
    pub queue: usize,
}

#[rustfmt::skip]
pub const TABLE: &[Directive<RawCore>] = &[
    d("user",                   MAIN, call(between(1, 2), RawCore::set_user)),
    d("daemon",                 MAIN, flag(|c| &mut c.daemon)),
    d("master_process",         MAIN, flag(|c| &mut c.master)),
    d("worker_processes",       MAIN, call(exactly(1), RawCore::set_workers)),
    d("privileged_process",     MAIN, flag(|c| &mut c.privileged)),
    d("pid",                    MAIN, text(|c| &mut c.pid)),
    d("lock_file",              MAIN, text(|c| &mut c.lock_file)),
    d("worker_cpu_affinity",    MAIN, call(at_least(1), RawCore::set_affinity)),
    d("worker_priority",        MAIN, call(exactly(1), RawCore::set_priority)),
    d("worker_rlimit_nofile",   MAIN, num(0, i64::MAX, |c| &mut c.rlimit_nofile)),
    d("worker_rlimit_core",     MAIN, size(|c| &mut c.rlimit_core)),
    d("worker_shutdown_timeout", MAIN, msec(|c| &mut c.shutdown_timeout)),
    d("working_directory",      MAIN, text(|c| &mut c.working_directory)),
    d("env",                    MAIN, call(exactly(1), RawCore::add_env)),
    d("error_log",              MAIN, call(at_least(1), RawCore::add_error_log)),
    d("thread_pool",            MAIN, call(between(2, 3), RawCore::add_thread_pool)),
    // Accepted for nginx's sake: time is read once per turn of the loop whatever this says.
    d("timer_resolution",       MAIN, msec(|c| &mut c.timer_resolution)),
    d("debug_points",           MAIN, choice(&["stop", "abort"], |c| &mut c.debug_points)),
    // Expressions are always compiled to machine code; `off` asks for nothing one could see.
    d("pcre_jit",               MAIN, flag(|c| &mut c.pcre_jit)),
    // Certificates are read anew at every reload.
    d("ssl_object_cache_inheritable", MAIN, flag(|c| &mut c.inheritable)),
    d("ssl_engine",             MAIN, call(exactly(1), refuse_engine)),
    d("load_module",            MAIN, call(exactly(1), refuse_module)),
];

impl RawCore {
    fn set_user(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.user.is_some() {
            return Err(Reason::Duplicate);
        }
        if !user::is_root() {
            self.user_ignored = true;
            r.warn(
                "the \"user\" directive makes sense only if the master process runs \
                 with super-user privileges, ignored",
            );
            return Ok(());
        }
        let name = r.arg(0);
        let group = r.args().get(1).map_or(name, String::as_str);
        self.user = Some(find_identity(name, &[group]).map_err(Reason::says)?);
        Ok(())
    }

    fn set_workers(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.workers.is_some() {
            return Err(Reason::Duplicate);
        }
        let count = match r.arg(0) {
            "auto" => Some(process::processors()),
            number => value::number(number).map(|n| n as usize),
        };
        let count = count.ok_or_else(|| directive_says(r, "invalid value"))?;
        if !(1..=WORKERS_MAX).contains(&count) {
            return Err(Reason::OutOfRange(1, WORKERS_MAX as i64));
        }
        self.workers = Some(count);
        Ok(())
    }

    fn set_affinity(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.affinity.is_some() {
            return Err(Reason::Duplicate);
        }
        let words: Vec<&str> = r.args().iter().map(String::as_str).collect();
        self.affinity = Some(Affinity::parse(&words).map_err(Reason::says)?);
        Ok(())
    }

    fn set_priority(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.priority.is_some() {
            return Err(Reason::Duplicate);
        }
        let (sign, digits) = match r.arg(0).split_at_checked(1) {
            Some(("-", digits)) => (-1, digits),
            Some(("+", digits)) => (1, digits),
            _ => (1, r.arg(0)),
        };
        let number = value::number(digits).and_then(|n| i32::try_from(n).ok());
        let number = number.ok_or_else(|| directive_says(r, "invalid number"))?;
        self.priority = Some(sign * number);
        Ok(())
    }

    fn add_env(&mut self, r: &mut Reading) -> Result<(), Reason> {
        self.env.push(r.arg(0).to_owned());
        Ok(())
    }

    fn add_error_log(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let full_name = |name: &str| r.paths.in_prefix(name);
        let added = self.error_log.add(&words, r.shelf.of(), full_name);
        added.map_err(|error| Reason::says(error.to_string()))
    }

    fn add_thread_pool(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let name = r.arg(0).to_owned();
        if self.thread_pools.iter().any(|pool| pool.name == name) {
            return Err(Reason::says(format!("duplicate thread pool \"{name}\"")));
        }
        let (mut threads, mut queue) = (0, THREAD_POOL_QUEUE);
        for arg in &r.args()[1..] {
            if let Some(number) = arg.strip_prefix("threads=") {
                threads = value::number(number)
                    .filter(|n| (1..=THREADS_MAX).contains(n))
                    .ok_or_else(|| Reason::says(format!("invalid threads value \"{arg}\"")))?;
            } else if let Some(number) = arg.strip_prefix("max_queue=") {
                queue = value::number(number)
                    .ok_or_else(|| Reason::says(format!("invalid max_queue value \"{arg}\"")))?;
            } else {
                return Err(Reason::InvalidParameter(arg.clone()));
            }
        }
        if threads == 0 {
            return Err(Reason::says(format!("\"{name}\" must have \"threads\" parameter")));
        }
        let pool = ThreadPool { name, threads: threads as usize, queue: queue as usize };
        r.shelf.of::<ThreadPools>().declared.push(pool.name.clone());
        self.thread_pools.push(pool);
        Ok(())
    }

    /// Fills in what was not written. Remarks are added to `notes`.
    pub fn finish(self, paths: &Paths, notes: &mut Vec<Note>) -> Result<(Core, log::Spec), String> {
        let workers = self.workers.unwrap_or(1);
        if self.affinity.as_ref().is_some_and(|affinity| !affinity.fits(workers)) {
            let text = "the number of \"worker_processes\" is not equal to the number of \
                        \"worker_cpu_affinity\" masks, using last mask for remaining worker \
                        processes";
            notes.push(Note { level: "warn", text: text.into() });
        }
        let user = match self.user {
            None if user::is_root() => Some(default_identity()?),
            user => user,
        };
        let core = Core {
            user,
            daemon: self.daemon.unwrap_or(true),
            master: self.master.unwrap_or(true),
            workers,
            privileged: self.privileged.unwrap_or(true),
            pid: paths.in_prefix(self.pid.as_deref().unwrap_or(PID_DEFAULT)),
            affinity: self.affinity,
            priority: self.priority.unwrap_or(0),
            rlimit_nofile: self.rlimit_nofile.map(|n| n as u64),
            rlimit_core: self.rlimit_core,
            working_directory: self.working_directory.map(PathBuf::from),
            env: self.env,
            shutdown_timeout: self.shutdown_timeout.filter(|time| !time.is_zero()),
            thread_pools: self.thread_pools,
            debug_point: match self.debug_points {
                Some("stop") => Some(DebugPoint::Stop),
                Some(_) => Some(DebugPoint::Abort),
                None => None,
            },
        };
        Ok((core, self.error_log))
    }
}

/// The main context in force.
#[derive(Clone, Debug)]
pub struct Core {
    /// Whom the workers become; `None` if the master is not root and they stay what it is.
    pub user: Option<Identity>,
    pub daemon: bool,
    /// False: one process does everything.
    pub master: bool,
    pub workers: usize,
    /// The privileged process and its helper run.
    pub privileged: bool,
    pub pid: PathBuf,
    pub affinity: Option<Affinity>,
    pub priority: i32,
    pub rlimit_nofile: Option<u64>,
    pub rlimit_core: Option<u64>,
    pub working_directory: Option<PathBuf>,
    env: Vec<String>,
    /// How long a worker that quits may take; `None`: as long as its clients want.
    pub shutdown_timeout: Option<Duration>,
    pub thread_pools: Vec<ThreadPool>,
    /// What a process does when it finds a bug of ours in itself.
    pub debug_point: Option<DebugPoint>,
}

impl Core {
    /// The pid file of a master that has started its successor.
    pub fn old_pid(&self) -> PathBuf {
        let mut name = self.pid.clone().into_os_string();
        name.push(".oldbin");
        name.into()
    }

    /// The environment of workers and of a new binary, out of the one the master was started
    /// with: `TZ`, and what `env` names or sets.
    pub fn environment(&self, from: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
        let time_zone = self.env.iter().all(|rule| rule != "TZ" && !rule.starts_with("TZ="));
        let rules = self.env.iter().map(String::as_str).chain(time_zone.then_some("TZ"));
        let resolve = |rule: &str| match rule.split_once('=') {
            Some((name, value)) => Some((name.into(), value.into())),
            None => from.iter().find(|(name, _)| name == OsStr::new(rule)).cloned(),
        };
        rules.filter_map(resolve).collect()
    }
}

/// Looks a user and the first existing of `groups` up.
fn find_identity(name: &str, groups: &[&str]) -> Result<Identity, String> {
    let found = user::find_user(name);
    let Ok(Some((uid, _))) = found else {
        let why = found.err().map(|e| log::Os(&e).to_string()).unwrap_or_default();
        return Err(format!("getpwnam(\"{name}\") failed{why}"));
    };
    for group in groups {
        if let Ok(Some(gid)) = user::find_group(group) {
            return Ok(Identity { name: name.into(), uid, gid });
        }
    }
    Err(format!("getgrnam(\"{}\") failed", groups[0]))
}

/// Whom workers become if nobody says: the machine's nobody.
fn default_identity() -> Result<Identity, String> {
    find_identity("nobody", &["nobody", "nogroup"])
}

fn directive_says(r: &Reading, what: &str) -> Reason {
    Reason::says(format!("\"{}\" directive {what}", r.name()))
}

fn refuse_engine(_: &mut RawCore, _: &mut Reading) -> Result<(), Reason> {
    Err(Reason::says("\"ssl_engine\" is not supported: there is no OpenSSL"))
}

fn refuse_module(_: &mut RawCore, r: &mut Reading) -> Result<(), Reason> {
    Err(Reason::says(format!(
        "\"load_module\" is not supported: \"{}\" is a module for another program",
        r.arg(0)
    )))
}

const PID_DEFAULT: &str = "logs/nginx.pid";
/// As many as nginx can spawn.
const WORKERS_MAX: usize = 1024;
const THREADS_MAX: u64 = 1024;
const THREAD_POOL_QUEUE: u64 = 65536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Block, Found, found, set_from};

    struct Top(RawCore);
    impl Block for Top {
        fn statement(&mut self, r: &mut Reading) -> Result<Found, Reason> {
            found([set_from(TABLE, MAIN, &mut self.0, r)])
        }
    }

    fn read(text: &str) -> Result<(Core, Vec<Note>), String> {
        let paths = Paths { prefix: "/p/".into(), conf_prefix: "/p/conf/".into() };
        let mut reading = Reading::new(paths);
        let mut top = Top(RawCore::default());
        reading.source("F".into(), text.into(), &mut top).map_err(|e| e.to_string())?;
        let (core, _) = top.0.finish(&reading.paths, &mut reading.notes)?;
        Ok((core, reading.notes))
    }

    #[test]
    fn defaults_are_nginx_s() {
        let (core, notes) = read("").unwrap();
        assert!(core.daemon && core.master && core.privileged);
        assert_eq!((core.workers, core.priority), (1, 0));
        assert_eq!(core.pid, PathBuf::from("/p/logs/nginx.pid"));
        assert_eq!(core.old_pid(), PathBuf::from("/p/logs/nginx.pid.oldbin"));
        assert!(core.shutdown_timeout.is_none() && notes.is_empty());
    }

    #[test]
    fn the_environment_is_what_env_lets_through() {
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let from = [pair("TZ", "UTC"), pair("HOME", "/root"), pair("A", "1"), pair("B", "2")];
        let (core, _) = read("env A; env C=3; env MISSING;").unwrap();
        let wanted = [pair("A", "1"), pair("C", "3"), pair("TZ", "UTC")];
        assert_eq!(core.environment(&from), wanted);
    }

    #[test]
    fn faults_are_named() {
        for (text, want) in [
            ("worker_processes x;", "\"worker_processes\" directive invalid value in F:1"),
            ("worker_processes 0;", "value must be between 1 and 1024 in F:1"),
            (
                "worker_processes 1;\nworker_processes 1;",
                "\"worker_processes\" directive is duplicate in F:2",
            ),
            ("worker_priority 1x;", "\"worker_priority\" directive invalid number in F:1"),
            ("thread_pool a max_queue=1;", "\"a\" must have \"threads\" parameter in F:1"),
            ("thread_pool a threads=0;", "invalid threads value \"threads=0\" in F:1"),
            ("error_log x loud;", "invalid log level \"loud\" in F:1"),
            ("ssl_engine x;", "\"ssl_engine\" is not supported: there is no OpenSSL in F:1"),
        ] {
            assert_eq!(read(text).err().unwrap(), want, "{text}");
        }
    }

    #[test]
    fn masks_that_do_not_fit_the_workers_are_remarked() {
        let (_, notes) = read("worker_processes 3; worker_cpu_affinity 01 10;").unwrap();
        assert!(notes[0].text.starts_with("the number of \"worker_processes\" is not equal"));
        let (core, notes) = read("worker_processes 2; worker_cpu_affinity auto;").unwrap();
        assert!(core.affinity.is_some() && notes.is_empty());
    }
}
