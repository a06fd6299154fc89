//! The processes of a site, by what their titles say.

use super::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    pub pid: i32,
    pub parent: i32,
    /// What `ps` shows, after the program's name: `worker process`.
    pub role: String,
}

/// All descendants of `root` and all processes that hold a file of `dir` open.
pub fn tree(root: i32, dir: &Path) -> Vec<Proc> {
    let all = running();
    let mut ours: HashSet<i32> = HashSet::from([root]);
    ours.extend(all.iter().filter(|p| holds_file_of(p.pid, dir)).map(|p| p.pid));
    loop {
        // A child may be listed before its parent: again, until nobody is added.
        let children = all.iter().filter(|p| ours.contains(&p.parent)).map(|p| p.pid);
        let more: Vec<i32> = children.filter(|pid| !ours.contains(pid)).collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    ours.remove(&(std::process::id() as i32));
    all.into_iter().filter(|p| ours.contains(&p.pid)).collect()
}

fn running() -> Vec<Proc> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|e| describe(e.file_name().to_str()?.parse().ok()?)).collect()
}

/// A living process; a zombie is not one.
pub fn describe(pid: i32) -> Option<Proc> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title).replace('\0', " ").trim().to_string();
    let role = title.split_once(": ").map_or(title.clone(), |(_, role)| role.to_string());
    (state != "Z").then_some(Proc { pid, parent, role })
}

fn holds_file_of(pid: i32, dir: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let own = pid == std::process::id() as i32;
    !own && open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|f| f.starts_with(dir)))
}

pub fn is_alive(pid: i32) -> bool {
    describe(pid).is_some()
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

#[track_caller]
pub fn wait_gone(pid: i32) {
    wait_for(|| (!is_alive(pid)).then_some(()))
        .unwrap_or_else(|| panic!("still there: {:?}", describe(pid)));
}
