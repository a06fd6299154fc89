//! One thread's loop: readiness, tasks, timers, jobs handed to threads.
