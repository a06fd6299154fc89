//! One thread's loop: readiness, tasks, timers, jobs handed to threads.
//!
//! A process makes one `Reactor` after it was forked and calls `turn` again and again. Everything
//! that waits is a task: `spawn` an `async` block, and inside it use `sleep`, `Deadline`, `Notify`,
//! `oneshot`, `offload`, or the sockets of `io/`, which stand on `Source`. All of them find the
//! loop of the calling thread by themselves.
//!
//! - `reactor`: the turn · `tasks`: the table of tasks · `source`: readiness of descriptors
//! - `wheel`: timers by the millisecond · `deadline`: what a task may wait for in time
//! - `notify`, `oneshot`, `semaphore`: tasks waiting for tasks
//! - `listen`: accepting · `slots`: how many connections a worker may hold
//! - `offload`: jobs that would block the loop, on a few threads
//! - `service`: what a block of the configuration does in a process
//! - `listen_spec`: where it listens
//! - `zone`: shared memory that the configuration names
//! - `census`: how many connections and requests there are in all processes
//!
//! **Invariant:** a loop's tasks, timers and sources are touched by its own thread only; other
//! threads reach it through wakers. In steady state no event costs an allocation.

mod reactor;
mod tasks;
mod source;
mod wheel;
mod deadline;
mod notify;
mod oneshot;
mod semaphore;
mod listen_spec;
mod service;
mod slots;
mod listen;
mod offload;
mod zone;
pub mod census;

pub use deadline::{Deadline, Elapsed, Next, look_after, sleep, sleep_until, timeout, timeout_at};
pub use listen::{Accepted, Accepting, Acceptor, listen};
pub use notify::Notify;
pub use offload::{
    Busy, DEFAULT_POOL, Lost, Offloaded, Pace, ThreadPools, has_thread_pool, offload, offload_by,
    offload_in, offload_quietly, set_offload, set_thread_pools,
};
pub use oneshot::{Canceled, Receiver, Sender, oneshot};
pub use reactor::{Reactor, Turn, is_running, now, spawn, wake_all, yield_now};
pub use semaphore::{Permit, Semaphore};
pub use slots::{Slot, Slots, slots};
pub use source::{Direction, Source, Trigger, Watch};
pub use tasks::Task;

pub use listen_spec::{BACKLOG_DEFAULT, KeepAlive, ListenSpec, SocketKind};
pub use service::{
    Held, Post, Role, Seated, Service, Wanted, begin_to_end, ending, held, hold, is_ending, role,
    seat, take_seat, workers,
};
pub use zone::{Memory, ZONE_MIN_BYTES, Zone, ZoneTable, declare_zone, zone_name_and_size};
