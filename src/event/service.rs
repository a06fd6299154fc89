//! What a block of the configuration does in the processes of the tree.
//!
//! `http`, `stream` and `agent` each hand a [`Service`] to `cycle`; `process` calls it. The order
//! of a worker's life is: [`Service::start`] → turns of the loop → [`Service::quit`] → turns
//! until [`Service::is_drained`], or [`Service::cut`] when the operator's patience is over → exit.
use super::{ListenSpec, Notify};
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// What the blocks of one configuration want of the cycle. They put it on the reading's shelf.
#[derive(Default)]
pub struct Wanted {
    pub listeners: Vec<Rc<ListenSpec>>,
    pub services: Vec<Rc<dyn Service>>,
    /// Something needs the privileged process, whatever `privileged_process` says.
    pub privileged: bool,
    /// Folders for temporary files, made for the workers' user if they are missing.
    pub folders: Vec<PathBuf>,
}

impl Wanted {
    /// A folder that workers write to.
    pub fn folder(&mut self, path: &Path) {
        if !self.folders.iter().any(|known| known == path) {
            self.folders.push(path.to_owned());
        }
    }
}

/// The part a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves traffic, unprivileged.
    Worker,
    /// Does what must happen once; no traffic, no threads (it forks the helper).
    Privileged,
    /// Does heavy or risky work for the privileged process.
    Helper,
    /// `master_process off`: everything a worker does, in the only process.
    Single,
}

impl Role {
    /// True for the processes that accept connections.
    pub fn serves(self) -> bool {
        matches!(self, Role::Worker | Role::Single)
    }
}

/// Where a process stands and what it was given.
#[derive(Debug)]
pub struct Post {
    pub role: Role,
    /// The worker's number, from 0; a respawned worker has the number of the one before it.
    pub seat: usize,
    /// How many workers there are.
    pub workers: usize,
    /// A worker takes all connections that wait at once.
    pub multi_accept: bool,
    /// The sockets to accept from. A service takes those of its own `ListenSpec`s.
    pub listeners: Vec<Seated>,
}

/// A listening socket of this process.
#[derive(Debug)]
pub struct Seated {
    pub spec: Rc<ListenSpec>,
    pub socket: OwnedFd,
    /// Several processes accept from this very socket.
    pub shared: bool,
    /// The socket is going away and gets no new connections: accept what waits, and at this time
    /// drain it once more and close it.
    pub until: Option<Instant>,
}

impl Post {
    /// Takes the sockets of one address.
    pub fn take(&mut self, spec: &ListenSpec) -> Vec<Seated> {
        let of =
            |seated: &Seated| seated.spec.address == spec.address && seated.spec.kind == spec.kind;
        self.listeners.extract_if(.., |seated| of(seated)).collect()
    }
}

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(0) };
    static ROLE: Cell<Role> = const { Cell::new(Role::Single) };
    static WORKERS: Cell<usize> = const { Cell::new(1) };
    static ENDING: Cell<bool> = const { Cell::new(false) };
    static END: Rc<Notify> = Rc::default();
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The number of this worker, from 0: its own part of what all workers share.
pub fn seat() -> usize {
    SEAT.get()
}

/// Called once, when a process takes its post.
pub fn take_seat(post: &Post) {
    SEAT.set(post.seat);
    ROLE.set(post.role);
    WORKERS.set(post.workers);
    ENDING.set(false);
}

/// What this process is.
pub fn role() -> Role {
    ROLE.get()
}

/// How many workers there are.
pub fn workers() -> usize {
    WORKERS.get()
}

/// Called when the process takes no more work.
pub fn begin_to_end() {
    ENDING.set(true);
    END.with(|end| end.notify_all());
}

/// Waits until the process takes no more work.
pub async fn ending() {
    while !is_ending() {
        END.with(Rc::clone).notified().await;
    }
}

/// Work that a process finishes before it ends, while the guard lives.
#[derive(Debug)]
pub struct Held(());

/// See [`Held`].
pub fn hold() -> Held {
    HELD.set(HELD.get() + 1);
    Held(())
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// How much of it there is.
pub fn held() -> usize {
    HELD.get()
}

/// Whether the process takes no more work.
pub fn is_ending() -> bool {
    ENDING.get()
}

/// One block's work. All calls come on the process's main thread; within `start` the loop of the
/// thread exists, so tasks may be spawned.
pub trait Service {
    /// Called in the master when everything that the configuration wants is open and nothing is
    /// in force yet: what children are to inherit is made here. An error is a sentence; it
    /// refuses the configuration.
    fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    /// Begins to work in this process: registers listeners, spawns tasks.
    fn start(&self, post: &mut Post) -> io::Result<()>;

    /// Takes no more work: accepts what already waits in the queues, stops accepting, finishes.
    fn quit(&self) {}

    /// True once nothing is held any more, after `quit`.
    fn is_drained(&self) -> bool {
        true
    }

    /// Closes what is still open, after `worker_shutdown_timeout`.
    fn cut(&self) {}

    /// The process ends: nothing is called after this but `flush_logs`.
    fn end(&self) {}

    /// Writes what is buffered for log files: they will be opened anew, or the process ends.
    fn flush_logs(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::Address;
    use std::net::TcpListener;

    #[test]
    fn a_service_takes_its_own_sockets() {
        let seat = |address: &str| Seated {
            spec: Rc::new(ListenSpec::new(Address::Inet(address.parse().unwrap()))),
            socket: TcpListener::bind("127.0.0.1:0").unwrap().into(),
            shared: false,
            until: None,
        };
        let listeners = vec![seat("127.0.0.1:1"), seat("127.0.0.1:2"), seat("127.0.0.1:1")];
        let mut post =
            Post { role: Role::Worker, seat: 0, workers: 1, multi_accept: false, listeners };
        let mine = ListenSpec::new(Address::Inet("127.0.0.1:1".parse().unwrap()));
        assert_eq!(post.take(&mine).len(), 2);
        assert_eq!(post.listeners.len(), 1);
    }
}
