//! The master: signals, children, configurations. It never serves a byte.
use super::family::{Child, Duty, Family, Vacancy};
use super::signals::tell;
use super::turns::take_all;
use super::upgrade::{self, Successor};
use super::worker::Birth;
use super::{Launch, pid_file, privileged, set_title, tell_end, worker};
use crate::cycle::{Cycle, Draft, Opening};
use crate::event::{Post, Role};
use crate::log::{self, Os};
use crate::sys::process::{self, Fork};
use crate::sys::signal::{Received, Signal, Signals, wait_readable};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long children may take to obey `TERM` before they are killed.
const TERM_PATIENCE: Duration = Duration::from_millis(1500);
/// How long new workers may take to begin before the old ones are told to leave all the same.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the privileged process may take to go before the new binary starts.
const CHANGE_PATIENCE: Duration = Duration::from_secs(6);

/// The first process of the tree.
pub struct Master {
    launch: Launch,
    cycle: Rc<Cycle>,
    signals: Option<Signals>,
    family: Family,
    stage: Stage,
    /// The new binary, while ours is being replaced.
    successor: Option<Successor>,
    /// The binary is changed when the privileged process has gone, by this time at the latest.
    change_by: Option<Instant>,
    /// We ourselves were started by a master that we are to replace.
    is_successor: bool,
    /// Who started us; a successor's parent is the old master while that lives.
    first_parent: u32,
    daemonized: bool,
    pid: u32,
    /// Workers were told by `WINCH` to stop, and their places stay empty.
    resting: bool,
    /// The older generations leave once the new one is ready, or at this time.
    handover: Option<Instant>,
    /// New connections are kept away from empty places.
    detour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Quitting,
    Terminating { kill_at: Option<Instant> },
}

impl Master {
    pub fn new(launch: Launch, cycle: Cycle, is_successor: bool) -> Master {
        Master {
            daemonized: is_successor || cycle.core.daemon,
            launch,
            cycle: Rc::new(cycle),
            signals: None,
            family: Family::default(),
            stage: Stage::Serving,
            successor: None,
            change_by: None,
            is_successor,
            first_parent: process::parent_id(),
            pid: process::id(),
            resting: false,
            handover: None,
            detour: false,
        }
    }

    /// Lives until the operator says otherwise.
    pub fn run(mut self) -> ExitCode {
        match Signals::install() {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => {
                log::emerg!("signalfd() failed{}", Os(&error));
                return ExitCode::FAILURE;
            }
        }
        self.show_title();
        self.start_children();
        while !self.is_done() {
            for received in self.wait() {
                self.obey(received);
            }
            self.reap();
            self.family.hear();
            self.hand_over();
            self.look_at_the_clock();
        }
        self.exit()
    }

    fn show_title(&self) {
        let words = self.launch.arguments.iter().map(|word| word.to_string_lossy());
        let words: Vec<_> = words.collect();
        set_title(&format!("master process {}", words.join(" ")));
    }

    fn is_done(&self) -> bool {
        self.stage != Stage::Serving && self.family.children.is_empty()
    }

    /// Waits for signals, words of children, or the next thing to do.
    fn wait(&mut self) -> Vec<Received> {
        let kill_at = match self.stage {
            Stage::Terminating { kill_at } => kill_at,
            _ => None,
        };
        let due = self.family.vacancies.iter().map(|vacancy| vacancy.due).min();
        let retired = self.cycle.listening.borrow_mut().close_retired(Instant::now());
        let next = [kill_at, due, retired, self.handover, self.change_by];
        let next = next.into_iter().flatten().min();
        let max_wait = next.map(|at| at.saturating_duration_since(Instant::now()));
        let Some(signals) = &self.signals else { return Vec::new() };
        let mut fds = vec![signals.as_fd()];
        fds.extend(self.family.channels());
        if let Err(error) = wait_readable(&fds, max_wait) {
            log::alert!("poll() failed{}", Os(&error));
        }
        take_all(signals)
    }

    fn obey(&mut self, received: Received) {
        let action = match received.signal {
            Signal::Term | Signal::Int => ", exiting",
            Signal::Quit => ", shutting down",
            Signal::Winch if self.daemonized => ", stop accepting connections",
            Signal::Hup => ", reconfiguring",
            Signal::Usr1 => ", reopening logs",
            Signal::Usr2 if self.may_be_replaced() => ", changing binary",
            Signal::Usr2 => ", ignoring",
            _ => "",
        };
        tell(received, action);
        match received.signal {
            Signal::Term | Signal::Int => self.terminate(),
            Signal::Quit => self.quit(),
            Signal::Winch if self.daemonized => self.rest(),
            Signal::Hup if self.stage == Stage::Serving => self.reload(),
            Signal::Usr1 => self.reopen(),
            Signal::Usr2 => self.change_binary(),
            _ => {}
        }
    }

    fn terminate(&mut self) {
        if !matches!(self.stage, Stage::Terminating { .. }) {
            let kill_at = Some(Instant::now() + TERM_PATIENCE);
            self.stage = Stage::Terminating { kill_at };
            self.change_by = None;
            self.stop_hiring();
        }
        self.tell_children(Signal::Term, |_| true);
    }

    fn quit(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        self.stage = Stage::Quitting;
        self.change_by = None;
        self.stop_hiring();
        self.tell_children(Signal::Quit, |child| !child.leaving);
        self.stop_listening();
    }

    /// `WINCH`: workers finish and stop, the master stays and can be told to begin again.
    fn rest(&mut self) {
        self.resting = true;
        self.stop_hiring();
        self.tell_children(Signal::Quit, |child| !child.leaving);
    }

    fn stop_hiring(&mut self) {
        self.family.vacancies.clear();
        self.handover = None;
    }

    fn reload(&mut self) {
        if self.successor.is_some() {
            // The new binary is not wanted: our workers come back, with our configuration.
            if self.resting {
                self.start_again();
            }
            return;
        }
        log::notice!("reconfiguring");
        if let Err(message) = self.reconfigure() {
            log::emerg!("{message}");
            return;
        }
        log::settle();
        self.start_children();
        self.handover = Some(Instant::now() + HANDOVER_PATIENCE);
    }

    /// Puts the configuration file's present contents in force, or changes nothing.
    fn reconfigure(&mut self) -> Result<(), String> {
        let draft = Draft::read(&self.launch.options).map_err(|error| error.to_string())?;
        let cycle =
            draft.open(&self.cycle.listening.borrow(), &self.cycle.zones, Opening::Exclusive)?;
        if cycle.core.pid != self.cycle.core.pid {
            pid_file::write(&cycle.core.pid)?;
            pid_file::remove(&self.cycle.core.pid);
        }
        cycle.enter(&self.cycle.listening.borrow());
        cycle.redirect_stderr();
        self.cycle = Rc::new(cycle);
        self.detour = false;
        Ok(())
    }

    /// Starts workers again after they were told to rest.
    fn start_again(&mut self) {
        self.cycle.listening.borrow_mut().steer_anew();
        self.start_children();
        self.resting = false;
    }

    /// Starts a new generation: all workers, and the privileged process.
    fn start_children(&mut self) {
        log::notice!("start worker processes");
        self.family.next_generation();
        for seat in 0..self.cycle.core.workers {
            self.spawn(Duty::Worker { seat }, 0);
        }
        self.keep_privileged();
    }

    /// Starts the privileged process if it is missed. There is one at a time: the one of a new
    /// configuration begins when the old one has gone, a new binary's when ours has.
    fn keep_privileged(&mut self) {
        let wanted = self.cycle.core.privileged
            && self.stage == Stage::Serving
            && !self.resting
            && self.change_by.is_none()
            && self.successor.is_none();
        if wanted && !self.family.has_privileged() {
            self.spawn(Duty::Privileged, 0);
        }
    }

    /// Forks a child. In the child this does not return.
    fn spawn(&mut self, duty: Duty, early_deaths: u32) {
        let name = duty.name();
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((ours, theirs))
        });
        let forked = pair.and_then(|pair| Ok((pair, process::fork()?)));
        match forked {
            Ok(((ours, _), Fork::Parent { child })) => {
                log::notice!("start {name} {child}");
                self.family.add(child, duty, ours, early_deaths);
            }
            Ok(((ours, theirs), Fork::Child)) => {
                // Only the master may hold it: that it closes tells us that the master is gone.
                drop(ours);
                self.become_child(duty, theirs)
            }
            Err(error) => {
                log::alert!("fork() failed while spawning \"{name}\"{}", Os(&error));
                let due = Instant::now() + Duration::from_secs(1);
                self.family.vacancies.push(Vacancy { duty, due, early_deaths });
            }
        }
    }

    /// Leaves the master behind: what a child must not hold is closed before it begins.
    fn become_child(&mut self, duty: Duty, channel: UnixStream) -> ! {
        set_title(duty.name());
        self.signals = None;
        self.family.children.clear();
        let listening = self.cycle.listening.take();
        let (role, seat) = match duty {
            Duty::Worker { seat } => (Role::Worker, seat),
            Duty::Privileged => (Role::Privileged, 0),
        };
        let listeners = if role.serves() { listening.of_worker(seat) } else { Vec::new() };
        drop(listening);
        let workers = self.cycle.core.workers;
        let multi_accept = self.cycle.events.multi_accept;
        let birth = Birth {
            launch: self.launch.clone(),
            cycle: self.cycle.clone(),
            post: Post { role, seat, workers, multi_accept, listeners },
            channel,
            daemonized: self.daemonized,
            parent: self.pid,
        };
        match duty {
            Duty::Worker { .. } => worker::run(birth),
            Duty::Privileged => privileged::run(birth),
        }
    }

    /// Sends a signal to the children that `whom` picks. Any but `USR1` tells them to go.
    fn tell_children(&mut self, signal: Signal, whom: impl Fn(&Child) -> bool) {
        for child in self.family.children.iter_mut().filter(|child| whom(child)) {
            if let Err(error) = process::kill(child.pid, signal) {
                let why = Os(&error);
                log::alert!("kill({}, {}) failed{why}", child.pid, signal.number());
            }
            child.leaving |= signal != Signal::Usr1;
        }
    }

    fn reap(&mut self) {
        while let Some((pid, ended)) = process::reap() {
            let child = self.family.remove(pid);
            let is_successor = self.successor.as_ref().is_some_and(|s| s.pid == pid);
            let name = match &child {
                Some(child) => child.duty.name(),
                None if is_successor => upgrade::NAME,
                None => "unknown process",
            };
            tell_end(name, pid, ended);
            if is_successor {
                self.take_over_again();
            }
            // A child of an older generation has successors already.
            if let Some(child) = child.filter(|child| self.is_missed(child)) {
                self.family.vacate(&child, ended, Instant::now());
            }
        }
    }

    fn is_missed(&self, child: &Child) -> bool {
        self.stage == Stage::Serving
            && !self.resting
            && !child.leaving
            && child.generation == self.family.generation
    }

    /// The new binary has gone without replacing us.
    fn take_over_again(&mut self) {
        self.successor = None;
        let core = &self.cycle.core;
        let when = "after the new binary process exited";
        pid_file::rename(&core.old_pid(), &core.pid, when);
        if self.stage != Stage::Serving {
            return;
        }
        if self.resting {
            self.start_again();
            return;
        }
        self.cycle.listening.borrow_mut().steer_anew();
    }

    /// Tells the older generations to leave once the present one serves.
    fn hand_over(&mut self) {
        let Some(deadline) = self.handover else { return };
        let (present, ready) = self.family.present_workers();
        let all = present > 0 && ready == present && self.family.vacancies.is_empty();
        let late = Instant::now() >= deadline;
        if late && ready == 0 {
            log::alert!("no new worker process has begun to serve, the old ones stay");
            self.handover = Some(Instant::now() + HANDOVER_PATIENCE);
        } else if all || late {
            self.handover = None;
            let present = self.family.generation;
            self.tell_children(Signal::Quit, |child| !child.leaving && child.generation != present);
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if let Stage::Terminating { kill_at: Some(at) } = self.stage
            && at <= now
        {
            self.stage = Stage::Terminating { kill_at: None };
            self.tell_children(Signal::Kill, |_| true);
        }
        if self.stage == Stage::Serving {
            self.go_on_changing(now);
        }
        self.keep_privileged();
        for vacancy in self.family.take_due(now) {
            self.spawn(vacancy.duty, vacancy.early_deaths);
        }
        self.make_detours();
    }

    /// A place that stays empty for a while gets no new connections.
    fn make_detours(&mut self) {
        let seats = 0..self.cycle.core.workers;
        let wanted = self.stage == Stage::Serving
            && !self.resting
            && seats.into_iter().any(|seat| !self.family.is_manned(seat));
        if wanted || self.detour {
            let family = &self.family;
            let everybody = !wanted;
            let live = |seat| everybody || family.is_manned(seat);
            self.cycle.listening.borrow_mut().steer(live);
        }
        self.detour = wanted;
    }

    fn reopen(&mut self) {
        log::notice!("reopening logs");
        self.cycle.files.reopen(self.cycle.core.user.as_ref().map(|user| user.uid));
        self.tell_children(Signal::Usr1, |_| true);
    }

    /// The master whose new binary we are still lives, and may go on without us.
    fn has_older_master(&self) -> bool {
        self.is_successor && process::parent_id() == self.first_parent
    }

    /// Not while a new binary runs, nor while the master runs whose new binary we are.
    fn may_be_replaced(&self) -> bool {
        self.successor.is_none() && self.change_by.is_none() && !self.has_older_master()
    }

    fn change_binary(&mut self) {
        if !self.may_be_replaced() {
            log::crit!(
                "the changing binary signal is ignored: you should shutdown or terminate before \
                 either old or new binary's process"
            );
            return;
        }
        if self.stage != Stage::Serving {
            return;
        }
        log::notice!("changing binary");
        self.change_by = Some(Instant::now() + CHANGE_PATIENCE);
        self.family.vacancies.retain(|vacancy| vacancy.duty != Duty::Privileged);
        self.tell_children(Signal::Quit, |child| child.duty == Duty::Privileged && !child.leaving);
    }

    /// Starts the new binary once our privileged process has gone: its own takes over.
    fn go_on_changing(&mut self, now: Instant) {
        let Some(by) = self.change_by else { return };
        match self.family.privileged() {
            Some(_) if by > now => {}
            Some(_) => {
                self.change_by = Some(now + CHANGE_PATIENCE);
                self.tell_children(Signal::Kill, |child| child.duty == Duty::Privileged);
            }
            None => {
                self.change_by = None;
                self.successor = upgrade::start(&self.launch, &self.cycle);
            }
        }
    }

    fn stop_listening(&mut self) {
        let listening = self.cycle.listening.take();
        if self.successor.is_none() && !self.has_older_master() {
            listening.unlink();
        }
    }

    fn exit(&mut self) -> ExitCode {
        let core = &self.cycle.core;
        match self.successor {
            Some(_) => pid_file::remove(&core.old_pid()),
            None => pid_file::remove(&core.pid),
        }
        log::notice!("exit");
        self.stop_listening();
        ExitCode::SUCCESS
    }
}
