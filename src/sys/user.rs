//! Users, limits, priority, processors: what a worker settles before it serves.
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Group, Pid, Uid, User};
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The uid and gid of a user of the machine; `Ok(None)` if there is none of that name.
pub fn find_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    Ok(User::from_name(name)?.map(|user| (user.uid.as_raw(), user.gid.as_raw())))
}

/// The gid of a group of the machine; `Ok(None)` if there is none of that name.
pub fn find_group(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// Becomes `who` for good: group, the groups of the user, user; and verifies that there is no way
/// back. The error names the call that failed.
pub fn become_user(who: &Identity) -> Result<(), (String, io::Error)> {
    let failed = |call: String| move |error: nix::Error| (call, io::Error::from(error));
    let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
    nix::unistd::setresgid(gid, gid, gid).map_err(failed(format!("setgid({gid})")))?;
    let name = CString::new(who.name.as_str())
        .map_err(|_| ("initgroups()".into(), io::ErrorKind::InvalidInput.into()))?;
    nix::unistd::initgroups(&name, gid)
        .map_err(failed(format!("initgroups({}, {gid})", who.name)))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(failed(format!("setuid({uid})")))?;
    if !uid.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(("setuid()".into(), io::Error::other("root could be regained")));
    }
    Ok(())
}

/// No program that this process executes can gain privileges (set-user-ID, file capabilities).
pub fn renounce_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Lets the kernel write a core file although the process has changed its user.
pub fn allow_core_dumps() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(true)?)
}

/// Open descriptors this process may have.
pub fn limit_descriptors(count: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, count, count)?)
}

/// Open descriptors this process may have now, and could have at most.
pub fn descriptor_limits() -> io::Result<(u64, u64)> {
    Ok(nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?)
}

/// The largest core file, in bytes.
pub fn limit_core(bytes: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, bytes, bytes)?)
}

/// The nice value, -20 (first) to 20 (last).
pub fn set_priority(nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; 0 is this process.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The most processors an affinity mask can name.
pub const CPUS_MAX: usize = 1024;

/// This process runs on the processors of these numbers only.
pub fn pin_to_cpus(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)?;
    PINNED.store(true, Ordering::Relaxed);
    Ok(())
}

static PINNED: AtomicBool = AtomicBool::new(false);

/// Whether this process, or one that it was forked from, was pinned by us.
pub fn is_pinned() -> bool {
    PINNED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        assert_eq!(find_user("root").unwrap(), Some((0, 0)));
        assert_eq!(find_group("root").unwrap(), Some(0));
        assert_eq!(find_user("no such user").unwrap(), None);
        assert!(descriptor_limits().unwrap().0 > 0);
    }
}
