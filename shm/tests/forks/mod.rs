//! Child processes of tests and benches: forked while the parent has no threads.
#![allow(unsafe_code)]

use std::time::Duration;

/// A forked child; killed and reaped on drop.
pub struct Child(libc::pid_t);

/// Runs `job` in a child process, which then exits without unwinding into the parent's frames.
pub fn fork(job: impl FnOnce()) -> Child {
    // SAFETY: these programs start no threads, so the child may do whatever the parent may; it
    // leaves through `_exit` and never returns from here.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_ok();
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(!fine)) }
        }
        pid => Child(pid),
    }
}

#[allow(dead_code)]
impl Child {
    /// SIGKILL, and waits for the end.
    pub fn kill(self) {}

    /// Waits for the child's own end; true if it ended well.
    pub fn join(self) -> bool {
        let mut status = 0;
        // SAFETY: the child is ours and not reaped yet.
        let got = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        std::mem::forget(self);
        got > 0 && status == 0
    }

    /// Whether it has not ended yet, looking at most until `limit` has passed.
    pub fn ends_within(self, limit: Duration) -> bool {
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            let mut status = 0;
            // SAFETY: as in `join`.
            if unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } > 0 {
                std::mem::forget(self);
                return status == 0;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the child is ours and not reaped yet, so the number is still its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, &raw mut status, 0);
        }
    }
}
