//! The listening sockets: opened and kept by the master, one per worker and address.
//!
//! The sockets of one address are a [`Group`] in the kernel, which chooses one of them for each new
//! connection. A group's sockets stand here in the kernel's own order: the first ones are the
//! workers' seats, the ones behind them are *retiring*. When a reload leaves fewer workers, the
//! last sockets retire: new connections are steered to the others, workers accept what still waits
//! in the queues, and only then the sockets are closed, because closing a socket resets its queue.
//! Retiring from the end keeps the numbers of the others (see `sys::listener`).
//!
//! **Invariant:** the master's process holds every socket of a cycle; any child holds only those
//! it accepts from. A socket that a child forgot would go on taking connections.
use super::sockets::{self, Manner};
use crate::event::{ListenSpec, Seated, SocketKind};
use crate::log;
use crate::sys::socket::Address;
use crate::sys::{listener, process};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a retiring socket's queue is looked after. A connection whose handshake had begun
/// before the steering needs a round trip, or a lost packet sent again.
const RETIRING: Duration = Duration::from_secs(5);
/// How much longer the master keeps it, so that a worker has drained it for the last time.
const RETIRED: Duration = Duration::from_secs(1);

/// All listening sockets of a cycle.
#[derive(Debug, Default)]
pub struct Listening {
    groups: Vec<Group>,
    workers: usize,
}

/// The sockets of one address.
#[derive(Debug)]
struct Group {
    spec: Rc<ListenSpec>,
    /// In the kernel's order. Two cycles share them while one gives way to the other.
    sockets: Vec<Rc<OwnedFd>>,
    /// So many are the workers' seats; the rest retires.
    seats: usize,
    /// When the rest may be forgotten.
    retire_at: Option<Instant>,
    /// The kernel has been told to choose among some of them.
    steered: bool,
}

/// How sockets are to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// `-t`: try, keep nothing, and do not mind a running server.
    Test,
    /// An address that somebody else listens on is an error, unless `reuseport` was written.
    Exclusive,
    /// Orphans of a killed master may still listen; we take over from them.
    BesideOrphans,
}

impl Listening {
    /// Opens what `wanted` lacks in `old`; the sockets of `old` are shared, not changed. Faults are
    /// logged as nginx logs them; the error is the last word.
    pub fn open(
        wanted: &[Rc<ListenSpec>],
        workers: usize,
        old: &Listening,
        opening: Opening,
    ) -> Result<Listening, String> {
        let mut new = Listening { groups: Vec::with_capacity(wanted.len()), workers };
        for spec in wanted {
            new.groups.push(Group::beginning(spec.clone(), old, workers));
        }
        if opening == Opening::Test {
            new.groups.iter().try_for_each(|group| sockets::rehearse(&group.spec))?;
            return Ok(new);
        }
        let fresh = bind_all(&mut new.groups, workers, opening)?;
        for (group, bound) in new.groups.iter_mut().zip(fresh) {
            group.begin_to_listen(bound)?;
        }
        Ok(new)
    }

    /// Takes over the sockets that a master before us left open, `3;4;7;`. As in nginx the rest of
    /// a malformed list is ignored.
    pub fn inherit(list: &str) -> Listening {
        log::notice!("using inherited sockets from \"{list}\"");
        let mut inherited = Listening::default();
        for word in list.split_terminator([';', ':']) {
            let Ok(number) = word.parse() else {
                log::emerg!(
                    "invalid socket number \"{word}\" in NGINX environment variable, \
                     ignoring the rest of the variable"
                );
                break;
            };
            match process::adopt(number).map(|fd| (sockets::describe(fd.as_fd()), fd)) {
                Some((Ok(spec), fd)) => inherited.add_inherited(spec, fd),
                Some((Err(error), _)) => {
                    let why = log::Os(&error);
                    log::crit!("getsockname() of the inherited socket #{number} failed{why}");
                }
                None => log::crit!("the inherited socket #{number} is not open"),
            }
        }
        inherited.workers = inherited.groups.iter().map(|group| group.seats).max().unwrap_or(0);
        inherited
    }

    fn add_inherited(&mut self, spec: ListenSpec, fd: OwnedFd) {
        let same = |group: &&mut Group| group.is_at(&spec.address, spec.kind);
        match self.groups.iter_mut().find(same) {
            Some(group) => {
                group.sockets.push(Rc::new(fd));
                group.seats += 1;
            }
            None => self.groups.push(Group {
                spec: Rc::new(spec),
                sockets: vec![Rc::new(fd)],
                seats: 1,
                retire_at: None,
                // Whoever held the group before us may have left a program in it.
                steered: true,
            }),
        }
    }

    /// Puts the options in force that may change while a socket listens, and steers new
    /// connections away from retiring sockets. After this, `old` may be dropped.
    pub fn enter(&mut self, old: &Listening) {
        for group in &mut self.groups {
            let before = old.find(&group.spec.address, group.spec.kind).map(|group| &*group.spec);
            for socket in &group.sockets {
                sockets::configure(socket.as_fd(), &group.spec, before);
            }
            group.steer(|_| true);
        }
        for gone in old.groups.iter().filter(|group| !self.has(group)) {
            if let Address::Unix(path) = &gone.spec.address {
                log::warn!("deleting socket {}", path.display());
                sockets::unlink(path);
            }
        }
    }

    /// Lets only the workers get new connections that `live` names.
    pub fn steer(&mut self, live: impl Fn(usize) -> bool) {
        self.groups.iter_mut().for_each(|group| group.steer(&live));
    }

    /// Tells the kernel anew, although it should know: another master may have had other wishes.
    pub fn steer_anew(&mut self) {
        for group in &mut self.groups {
            group.steered = true;
            group.steer(|_| true);
        }
    }

    /// The sockets of worker `seat`, as descriptors of its own.
    pub fn of_worker(&self, seat: usize) -> Vec<Seated> {
        self.groups.iter().flat_map(|group| group.of_worker(seat, self.workers)).collect()
    }

    /// Closes sockets that have retired for good. Says when to look again.
    pub fn close_retired(&mut self, now: Instant) -> Option<Instant> {
        for group in &mut self.groups {
            if group.retire_at.is_some_and(|at| at + RETIRED <= now) {
                group.sockets.truncate(group.seats);
                group.retire_at = None;
            }
        }
        self.groups.iter().filter_map(|group| group.retire_at).min().map(|at| at + RETIRED)
    }

    /// All sockets in the order in which a successor shall find them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.groups.iter().flat_map(|group| group.sockets.iter().map(|socket| socket.as_fd()))
    }

    /// nginx's list of sockets for a successor: `3;4;7;`.
    pub fn list(&self) -> String {
        self.descriptors().map(|fd| format!("{};", fd.as_raw_fd())).collect()
    }

    /// Deletes the files of unix sockets, when nobody will listen there any more.
    pub fn unlink(&self) {
        for group in &self.groups {
            if let Address::Unix(path) = &group.spec.address {
                sockets::unlink(path);
            }
        }
    }

    /// Deletes the files of unix sockets that `old` lacks: nothing came of listening there.
    pub fn abandon(&self, old: &Listening) {
        for group in self.groups.iter().filter(|group| !group.sockets.is_empty()) {
            if let Address::Unix(path) = &group.spec.address
                && !old.has(group)
            {
                sockets::unlink(path);
            }
        }
    }

    fn find(&self, address: &Address, kind: SocketKind) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_at(address, kind))
    }

    fn has(&self, group: &Group) -> bool {
        self.find(&group.spec.address, group.spec.kind).is_some()
    }
}

impl Group {
    /// The group as it stands in `old`, with as many seats as there can be.
    fn beginning(spec: Rc<ListenSpec>, old: &Listening, workers: usize) -> Group {
        let Some(known) = old.find(&spec.address, spec.kind) else {
            return Group { spec, sockets: vec![], seats: 0, retire_at: None, steered: false };
        };
        let sockets = known.sockets.clone();
        let seats = sockets.len().min(workers);
        let retire_at = match sockets.len() > seats {
            true if seats == known.seats => known.retire_at,
            true => Some(Instant::now() + RETIRING),
            false => None,
        };
        Group { spec, sockets, seats, retire_at, steered: known.steered }
    }

    fn is_at(&self, address: &Address, kind: SocketKind) -> bool {
        self.spec.address == *address && self.spec.kind == kind
    }

    /// How many sockets are to be opened.
    fn lacks(&self, workers: usize) -> usize {
        let wanted = if self.spec.address.is_unix() { 1 } else { workers };
        wanted.saturating_sub(self.sockets.len())
    }

    /// From here on the kernel gives connections to the new sockets too.
    fn begin_to_listen(&mut self, bound: Vec<OwnedFd>) -> Result<(), String> {
        for socket in bound {
            sockets::listen(socket.as_fd(), &self.spec)?;
            self.sockets.push(Rc::new(socket));
            self.seats += 1;
        }
        Ok(())
    }

    fn of_worker(&self, seat: usize, workers: usize) -> Vec<Seated> {
        let shared = self.seats < workers;
        let own = (seat % self.seats.max(1), None);
        let adopted = (self.seats..self.sockets.len()).filter(|number| number % workers == seat);
        let adopted = adopted.map(|number| (number, self.retire_at));
        let mut seated = Vec::new();
        for (number, until) in std::iter::once(own).chain(adopted) {
            let Some(socket) = self.sockets.get(number) else { continue };
            match socket.try_clone() {
                Ok(socket) => {
                    seated.push(Seated { spec: self.spec.clone(), socket, shared, until });
                }
                Err(error) => log::alert!("dup() of a listening socket failed{}", log::Os(&error)),
            }
        }
        seated
    }

    fn steer(&mut self, live: impl Fn(usize) -> bool) {
        if self.spec.kind != SocketKind::Stream || self.sockets.len() < 2 && !self.steered {
            return;
        }
        let Some(first) = self.sockets.first() else { return };
        let chosen: Vec<u16> =
            (0..self.seats).filter(|seat| live(*seat)).map(|seat| seat as u16).collect();
        let everybody = chosen.is_empty() || chosen.len() == self.sockets.len();
        let done = match everybody {
            true if !self.steered => return,
            true => listener::stop_steering(first.as_fd()),
            false => listener::steer(first.as_fd(), &chosen),
        };
        self.steered = !everybody;
        if let Err(error) = done {
            // Not a fault: a single socket that never was in a group says so too.
            let (address, why) = (&self.spec.address, log::Os(&error));
            log::info!("connections to {address} cannot be steered{why}");
        }
    }
}

/// Binds all missing sockets, trying again while an address is in use; none listens yet.
fn bind_all(
    groups: &mut [Group],
    workers: usize,
    opening: Opening,
) -> Result<Vec<Vec<OwnedFd>>, String> {
    let mut fresh: Vec<Vec<OwnedFd>> = groups.iter().map(|_| Vec::new()).collect();
    for _ in 0..BIND_TRIES {
        let mut in_use = false;
        for (group, bound) in groups.iter_mut().zip(&mut fresh) {
            in_use |= !bind_group(group, bound, workers, opening)?;
        }
        if !in_use {
            return Ok(fresh);
        }
        log::notice!("try again to bind() after 500ms");
        std::thread::sleep(BIND_PAUSE);
    }
    Err("still could not bind()".into())
}

/// Binds what one group lacks. False if the address is in use.
fn bind_group(
    group: &Group,
    bound: &mut Vec<OwnedFd>,
    workers: usize,
    opening: Opening,
) -> Result<bool, String> {
    let spec = &group.spec;
    if group.sockets.is_empty() && bound.is_empty() {
        let alone = opening == Opening::Exclusive && !spec.reuseport;
        if alone && !spec.address.is_unix() && sockets::bind(spec, Manner::Alone)?.is_none() {
            return Ok(false);
        }
        let Some(first) = sockets::bind(spec, Manner::InGroup)? else { return Ok(false) };
        bound.push(first);
    }
    let mut present = group.sockets.iter().map(|socket| socket.as_fd());
    let lacking = group.lacks(workers).saturating_sub(bound.len());
    // If the kernel wants a socket to be alone, the workers share it.
    let in_group = present.all(sockets::join_group)
        && bound.iter().all(|socket| sockets::join_group(socket.as_fd()));
    if lacking == 0 || !in_group {
        return Ok(true);
    }
    for _ in 0..lacking {
        match sockets::bind(spec, Manner::InGroup)? {
            Some(socket) => bound.push(socket),
            None => return Ok(false),
        }
    }
    Ok(true)
}

const BIND_TRIES: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// An address that was free a moment ago.
    fn spec() -> Rc<ListenSpec> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Rc::new(ListenSpec::new(Address::Inet(free)))
    }

    fn at(spec: &ListenSpec) -> SocketAddr {
        spec.address.inet().unwrap()
    }

    fn open(spec: &Rc<ListenSpec>, workers: usize, old: &Listening) -> Listening {
        let wanted = std::slice::from_ref(spec);
        let mut new = Listening::open(wanted, workers, old, Opening::Exclusive).unwrap();
        new.enter(old);
        new
    }

    fn waiting(seats: &[Seated]) -> u32 {
        seats.iter().map(|seat| listener::waiting(seat.socket.as_fd()).unwrap()).sum()
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own() {
        let spec = spec();
        let listening = open(&spec, 3, &Listening::default());
        let seats: Vec<_> = (0..3).map(|seat| listening.of_worker(seat)).collect();
        assert!(seats.iter().all(|of| of.len() == 1 && !of[0].shared && of[0].until.is_none()));
        let held: Vec<_> = (0..60).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        let queues: Vec<u32> = seats.iter().map(|of| waiting(of)).collect();
        assert!(queues.iter().all(|queue| *queue > 0) && queues.iter().sum::<u32>() == 60);
        drop(held);
    }

    #[test]
    fn an_address_of_somebody_else_is_not_taken() {
        let spec = spec();
        let theirs = open(&spec, 2, &Listening::default());
        let wanted = [spec.clone()];
        let refused = Listening::open(&wanted, 2, &Listening::default(), Opening::Exclusive);
        assert_eq!(refused.unwrap_err(), "still could not bind()");
        Listening::open(&wanted, 2, &Listening::default(), Opening::Test).unwrap();
        // But beside orphans of our own it is.
        Listening::open(&wanted, 2, &Listening::default(), Opening::BesideOrphans).unwrap();
        drop(theirs);
    }

    #[test]
    fn fewer_workers_adopt_the_sockets_that_retire() {
        let spec = spec();
        let old = open(&spec, 4, &Listening::default());
        let waits: Vec<_> = (0..40).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        let mut new = open(&spec, 1, &old);
        drop(old);
        let seat = new.of_worker(0);
        assert_eq!((seat.len(), waiting(&seat)), (4, 40));
        assert!(seat[0].until.is_none() && seat[1..].iter().all(|of| of.until.is_some()));
        let later: Vec<_> = (0..20).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        assert_eq!(waiting(&seat[1..]), 40 - (waiting(&seat[..1]) - 20));
        let now = Instant::now();
        assert!(new.close_retired(now).is_some());
        assert_eq!(new.close_retired(now + RETIRING + RETIRED), None);
        assert_eq!(new.of_worker(0).len(), 1);
        drop((waits, later));
    }

    #[test]
    fn a_retiring_socket_can_come_back() {
        let spec = spec();
        let four = open(&spec, 4, &Listening::default());
        let before: Vec<i32> = four.descriptors().map(|fd| fd.as_raw_fd()).collect();
        let one = open(&spec, 1, &four);
        drop(four);
        let mut again = open(&spec, 4, &one);
        drop(one);
        assert_eq!(again.descriptors().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>(), before);
        assert_eq!(again.close_retired(Instant::now() + RETIRING + RETIRED), None);
        let held: Vec<_> = (0..60).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        assert!((0..4).all(|seat| waiting(&again.of_worker(seat)) > 0));
        drop(held);
    }

    #[test]
    fn an_empty_place_gets_no_connections() {
        let spec = spec();
        let mut listening = open(&spec, 3, &Listening::default());
        listening.steer(|seat| seat != 1);
        let held: Vec<_> = (0..40).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        assert_eq!(waiting(&listening.of_worker(1)), 0);
        listening.steer(|_| true);
        let more: Vec<_> = (0..40).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        assert!(waiting(&listening.of_worker(1)) > 0);
        drop((held, more));
    }

    #[test]
    fn a_successor_finds_the_sockets_in_order() {
        let spec = spec();
        let ours = open(&spec, 2, &Listening::default());
        // As if exec had carried them over: descriptors that nobody owns.
        let numbers: Vec<i32> = ours
            .descriptors()
            .map(|fd| std::os::fd::IntoRawFd::into_raw_fd(fd.try_clone_to_owned().unwrap()))
            .collect();
        let list: String = numbers.iter().map(|number| format!("{number};")).collect();
        let inherited = Listening::inherit(&list);
        assert_eq!(inherited.list(), list);
        let theirs = open(&spec, 3, &inherited);
        drop((ours, inherited));
        let held: Vec<_> = (0..60).map(|_| TcpStream::connect(at(&spec)).unwrap()).collect();
        assert!((0..3).all(|seat| waiting(&theirs.of_worker(seat)) > 0));
        drop(held);
        assert_eq!(Listening::inherit("x;").list(), "");
    }

    #[test]
    fn a_unix_socket_is_shared_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let unix = Rc::new(ListenSpec::new(Address::Unix(path.clone())));
        let listening = open(&unix, 4, &Listening::default());
        assert!(listening.of_worker(2)[0].shared);
        let kept = open(&unix, 2, &listening);
        assert!(path.exists());
        Listening::default().enter(&kept);
        assert!(!path.exists());
    }
}
