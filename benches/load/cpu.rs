//! CPU time of a process tree, in the kernel's nanoseconds.

use std::fs;
use std::time::Duration;

/// What a process and all its descendants have spent so far.
pub fn of_tree(root: i32) -> Duration {
    let mut todo = vec![root];
    let mut spent = Duration::ZERO;
    while let Some(pid) = todo.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let schedstat = read("schedstat");
            let on_cpu = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
            spent += Duration::from_nanos(on_cpu.unwrap_or_default());
            todo.extend(
                read("children").split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    spent
}
