//! What a child does before it works: limits, user, processors, folder, environment.
use crate::cycle::{Cycle, ThreadPool};
use crate::event;
use crate::log::{self, Os};
use crate::sys::{process, user};
use std::ffi::OsString;
use std::io;

/// Exit code of a child that cannot be what it should be; the master does not try again.
pub const FATAL: i32 = 2;

/// Becomes a worker: environment, priority, limits, user, processors, folder. A child that cannot
/// drop its privileges exits.
pub fn worker(cycle: &Cycle, seat: usize, environment: &[(OsString, OsString)]) {
    let core = &cycle.core;
    process::set_environment(&core.environment(environment));
    if core.priority != 0 {
        let call = format!("setpriority({})", core.priority);
        remark(&call, user::set_priority(core.priority));
    }
    limits(cycle);
    process::set_debug_point(core.debug_point);
    drop_privileges(cycle);
    let cpus = core.affinity.as_ref().map_or(&[][..], |affinity| affinity.of_worker(seat));
    if !cpus.is_empty() {
        remark("sched_setaffinity()", user::pin_to_cpus(cpus));
    }
    working_directory(cycle);
}

/// Bounds what the thread's loop may hold: connections, threads, jobs that wait.
pub fn limit_loop(cycle: &Cycle) {
    event::slots().set_limit(cycle.events.connections);
    let is_default = |pool: &&ThreadPool| pool.name == event::DEFAULT_POOL;
    let pools = &cycle.core.thread_pools;
    if let Some(pool) = pools.iter().find(is_default) {
        event::set_offload(pool.threads, pool.queue);
    }
    let named = pools.iter().filter(|pool| !is_default(pool));
    event::set_thread_pools(named.map(|pool| (&*pool.name, pool.threads, pool.queue)));
}

/// Becomes the privileged process: as the master, with the workers' limits and environment.
pub fn privileged(cycle: &Cycle, environment: &[(OsString, OsString)]) {
    process::set_environment(&cycle.core.environment(environment));
    limits(cycle);
    working_directory(cycle);
}

/// Becomes the helper: a process of the workers' user, with what the privileged process settled.
pub fn helper(cycle: &Cycle) {
    drop_privileges(cycle);
}

fn limits(cycle: &Cycle) {
    if let Some(count) = cycle.core.rlimit_nofile {
        remark(&format!("setrlimit(RLIMIT_NOFILE, {count})"), user::limit_descriptors(count));
    }
    if let Some(bytes) = cycle.core.rlimit_core {
        remark(&format!("setrlimit(RLIMIT_CORE, {bytes})"), user::limit_core(bytes));
    }
}

fn drop_privileges(cycle: &Cycle) {
    if let Some(who) = cycle.core.user.as_ref().filter(|_| user::is_root())
        && let Err((call, error)) = user::become_user(who)
    {
        log::emerg!("{call} failed{}", Os(&error));
        std::process::exit(FATAL);
    }
    if let Err(error) = user::renounce_privileges() {
        log::emerg!("prctl(PR_SET_NO_NEW_PRIVS) failed{}", Os(&error));
        std::process::exit(FATAL);
    }
    // The kernel has forbidden it when the user changed; core files were asked for explicitly.
    if cycle.core.rlimit_core.is_some() {
        remark("prctl(PR_SET_DUMPABLE)", user::allow_core_dumps());
    }
}

fn working_directory(cycle: &Cycle) {
    if let Some(folder) = &cycle.core.working_directory
        && let Err(error) = std::env::set_current_dir(folder)
    {
        log::alert!("chdir(\"{}\") failed{}", folder.display(), Os(&error));
        std::process::exit(FATAL);
    }
}

fn remark(call: &str, done: io::Result<()>) {
    if let Err(error) = done {
        log::alert!("{call} failed{}", Os(&error));
    }
}
