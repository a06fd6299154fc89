//! The light threads of one handler or timer: who is ready, who waits, who waits for whom.
//!
//! A crew begins with its entry thread; `ngx.thread.spawn` adds others. They run one at a time, in
//! the order in which they became ready. What a C function of a running thread has to know or
//! change (spawn, wait, kill) stands here; `run` drives.

use super::coroutine::Coroutine;
use super::socket::Life;
use super::vm::{Ctx, Operation, Stack};
use super::voice::Voice;
use crate::http::Request;
use crate::http::handshake::Handshake;
use crate::log;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::fmt::Arguments;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// Threads of one crew that live, or have ended and were not waited for.
const MEMBERS_MAX: usize = 1 << 16;

thread_local! {
    /// The crew whose thread is running.
    static CURRENT: RefCell<Option<Rc<Crew>>> = const { RefCell::new(None) };
}

/// A crew. Its entry thread is number 0.
#[derive(Default)]
pub struct Crew {
    state: RefCell<State>,
    /// `ngx.ctx` where there is no request.
    pub context: RefCell<Ctx>,
    /// What stands in where there is no request.
    apart: Option<Apart>,
    /// `ngx.on_abort`: what runs when the client leaves.
    on_abort: RefCell<Option<Coroutine>>,
    has_on_abort: Cell<bool>,
    /// What `ngx.exit` was called with where there is no request.
    pub exit: Cell<Option<c_int>>,
}

/// What a crew has in place of a request.
pub struct Apart {
    /// To whom its sockets belong.
    pub life: Rc<Life>,
    /// Who speaks in the log.
    pub voice: Rc<Voice>,
    /// The handshake that its code takes part in.
    pub handshake: Option<Rc<Handshake>>,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    ready: VecDeque<u32>,
    /// Who runs now.
    running: u32,
    next: u32,
}

struct Member {
    number: u32,
    /// Who spawned it.
    parent: u32,
    /// Its Lua state, by which Lua names it.
    key: usize,
    stage: Stage,
}

enum Stage {
    /// It can go on, with what this gave.
    Ready(Box<Coroutine>, Option<Box<dyn Operation>>),
    Waiting(Box<Coroutine>, Box<dyn Operation>),
    /// Its coroutine is with who drives it.
    Running,
    /// It has ended, well or not; its results are on its stack.
    Ended(Box<Coroutine>, bool),
    /// It was killed or waited for.
    Gone,
}

/// A thread that is to run now.
pub struct Turn {
    pub number: u32,
    pub coroutine: Box<Coroutine>,
    /// What it waited for, ready.
    pub done: Option<Box<dyn Operation>>,
}

impl Crew {
    /// A crew of one thread.
    pub fn of(entry: Coroutine) -> Rc<Crew> {
        Crew::with(entry, None)
    }

    /// A crew of one thread without a request.
    pub fn apart(entry: Coroutine, apart: Apart) -> Rc<Crew> {
        Crew::with(entry, Some(apart))
    }

    fn with(entry: Coroutine, apart: Option<Apart>) -> Rc<Crew> {
        let crew = Crew { apart, ..Crew::default() };
        crew.state.borrow_mut().add(entry, 0);
        Rc::new(crew)
    }

    /// The crew whose code runs.
    pub fn current() -> Option<Rc<Crew>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// The handshake that the running code takes part in.
    pub fn handshake() -> Option<Rc<Handshake>> {
        CURRENT.with_borrow(|crew| crew.as_ref()?.apart.as_ref()?.handshake.clone())
    }

    /// Who speaks for the running code, if no request does.
    pub fn voice() -> Option<Rc<Voice>> {
        CURRENT.with_borrow(|crew| Some(crew.as_ref()?.apart.as_ref()?.voice.clone()))
    }

    /// Logs what became of one of its threads.
    pub fn complain(&self, r: Option<&Request>, says: Arguments<'_>) {
        match (r, &self.apart) {
            (Some(r), _) => log::error!(r, "{says}"),
            (None, Some(apart)) => log::error!(&*apart.voice, "{says}"),
            (None, None) => log::error!("{says}"),
        }
    }

    /// Lets `f` run as this crew.
    pub fn enter<T>(self: &Rc<Crew>, f: impl FnOnce() -> T) -> T {
        let _back = Restore(CURRENT.replace(Some(self.clone())));
        match &self.apart {
            Some(apart) => apart.life.with(f),
            None => f(),
        }
    }

    /// The next thread that can go on, if there is one now.
    pub fn next(&self) -> Option<Turn> {
        let mut state = self.state.borrow_mut();
        while let Some(number) = state.ready.pop_front() {
            let Some(member) = state.member(number) else { continue };
            if let Stage::Ready(..) = member.stage
                && let Stage::Ready(coroutine, done) =
                    std::mem::replace(&mut member.stage, Stage::Running)
            {
                state.running = number;
                return Some(Turn { number, coroutine, done });
            }
        }
        None
    }

    /// Makes those ready that have what they waited for; Pending if nobody has.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An operation may look at the crew: it is polled outside of it.
        let waiting: Vec<u32> = {
            let state = self.state.borrow();
            let waits = |member: &&Member| matches!(member.stage, Stage::Waiting(..));
            state.members.iter().filter(waits).map(|member| member.number).collect()
        };
        waiting.into_iter().for_each(|number| self.poll_one(number, cx));
        match self.state.borrow().ready.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn poll_one(&self, number: u32, cx: &mut Context<'_>) {
        let taken = self.state.borrow_mut().take_waiting(number);
        let Some((coroutine, mut operation)) = taken else { return };
        let is_ready = operation.poll(cx).is_ready();
        let mut state = self.state.borrow_mut();
        if is_ready {
            state.ready.push_back(number);
        }
        let Some(member) = state.member(number) else { return };
        member.stage = match is_ready {
            true => Stage::Ready(coroutine, Some(operation)),
            false => Stage::Waiting(coroutine, operation),
        };
    }

    /// A thread gave way, and goes on when its turn comes.
    pub fn yielded(&self, number: u32, coroutine: Box<Coroutine>) {
        self.put(number, Stage::Ready(coroutine, None));
        self.state.borrow_mut().ready.push_back(number);
    }

    /// A thread waits. What is ready already takes its turn behind the others.
    pub fn waits(&self, number: u32, coroutine: Box<Coroutine>, operation: Box<dyn Operation>) {
        self.put(number, Stage::Waiting(coroutine, operation));
        self.poll_one(number, &mut Context::from_waker(Waker::noop()));
    }

    /// A thread has ended.
    pub fn ended(&self, number: u32, coroutine: Box<Coroutine>, is_well: bool) {
        self.put(number, Stage::Ended(coroutine, is_well));
    }

    fn put(&self, number: u32, stage: Stage) {
        let mut state = self.state.borrow_mut();
        let before = state.member(number).map(|member| std::mem::replace(&mut member.stage, stage));
        drop(state);
        drop(before);
    }

    /// Whether a thread is still to come to its end.
    pub fn is_alive(&self) -> bool {
        let state = self.state.borrow();
        state.members.iter().any(|m| !matches!(m.stage, Stage::Ended(..) | Stage::Gone))
    }

    /// Ends all of them.
    pub fn disband(&self) {
        let members = std::mem::take(&mut *self.state.borrow_mut());
        drop(members);
    }

    /// Adds a thread that runs before all others. `None`: there are too many.
    pub fn spawn(&self, coroutine: Coroutine) -> Option<()> {
        let mut state = self.state.borrow_mut();
        state.members.retain(|member| !matches!(member.stage, Stage::Gone));
        if state.members.len() >= MEMBERS_MAX {
            return None;
        }
        let parent = state.running;
        state.add(coroutine, parent);
        let newest = state.ready.pop_back();
        newest.into_iter().for_each(|number| state.ready.push_front(number));
        Some(())
    }

    /// `ngx.on_abort`: false if that was called before.
    pub fn set_on_abort(&self, coroutine: Coroutine) -> bool {
        if self.has_on_abort.replace(true) {
            return false;
        }
        self.on_abort.replace(Some(coroutine));
        true
    }

    /// The client has left: what is to run then runs. False: nobody wants to know.
    pub fn abort(&self) -> bool {
        let coroutine = self.on_abort.take();
        coroutine.is_some_and(|coroutine| self.spawn(coroutine).is_some())
    }

    /// `ngx.thread.wait`: what is to be done for the thread that Lua names by `key`.
    pub fn look(&self, key: usize) -> Looked {
        let mut state = self.state.borrow_mut();
        let running = state.running;
        let Some(member) = state.members.iter_mut().find(|m| m.key == key) else {
            return Looked::Unknown;
        };
        if member.parent != running || member.number == 0 {
            return if member.number == 0 { Looked::NoThread } else { Looked::NotOurs };
        }
        match member.stage {
            Stage::Gone => Looked::Gone,
            Stage::Ended(..) => Looked::Ended(member.number),
            _ => Looked::Alive(member.number),
        }
    }

    /// How it stands with the thread that Lua names by `key`, whoever asks.
    pub fn stand(&self, key: usize) -> Stand {
        let state = self.state.borrow();
        match state.members.iter().rev().find(|m| m.key == key).map(|m| &m.stage) {
            None => Stand::Unknown,
            Some(Stage::Gone) => Stand::Gone,
            Some(Stage::Ended(..)) => Stand::Ended,
            Some(_) => Stand::Alive,
        }
    }

    /// Takes a thread out that has ended: pushes whether it ended well, and its results.
    pub fn reap(&self, number: u32, onto: &mut Stack) -> c_int {
        match self.state.borrow_mut().take_ended(number) {
            Some((mut coroutine, is_well)) => {
                onto.push_truth(is_well);
                1 + coroutine.give_results(onto)
            }
            None => 0,
        }
    }

    /// `ngx.thread.kill`: ends it where it stands.
    pub fn kill(&self, number: u32) {
        self.put(number, Stage::Gone);
    }

    fn first_ended(&self, numbers: &[u32]) -> Option<u32> {
        let mut state = self.state.borrow_mut();
        let ended = |number: &&u32| {
            let member = state.member(**number);
            member.is_some_and(|member| matches!(member.stage, Stage::Ended(..)))
        };
        numbers.iter().find(ended).copied()
    }
}

/// How it stands with a thread.
pub enum Stand {
    /// No thread of this crew.
    Unknown,
    Alive,
    Ended,
    /// It was killed or waited for.
    Gone,
}

/// What there is of a thread that somebody wants to wait for or kill.
pub enum Looked {
    /// No coroutine of this crew's threads.
    Unknown,
    /// The entry thread.
    NoThread,
    /// Another thread spawned it.
    NotOurs,
    Alive(u32),
    Ended(u32),
    Gone,
}

impl State {
    fn add(&mut self, coroutine: Coroutine, parent: u32) {
        let (number, key) = (self.next, coroutine.key());
        self.next += 1;
        let stage = Stage::Ready(Box::new(coroutine), None);
        self.members.push(Member { number, parent, key, stage });
        self.ready.push_back(number);
    }

    fn member(&mut self, number: u32) -> Option<&mut Member> {
        let at = self.members.binary_search_by_key(&number, |member| member.number).ok()?;
        Some(&mut self.members[at])
    }

    fn take_ended(&mut self, number: u32) -> Option<(Box<Coroutine>, bool)> {
        let member = self.member(number)?;
        match std::mem::replace(&mut member.stage, Stage::Gone) {
            Stage::Ended(coroutine, is_well) => Some((coroutine, is_well)),
            other => {
                member.stage = other;
                None
            }
        }
    }

    fn take_waiting(&mut self, number: u32) -> Option<(Box<Coroutine>, Box<dyn Operation>)> {
        let member = self.member(number)?;
        match std::mem::replace(&mut member.stage, Stage::Running) {
            Stage::Waiting(coroutine, operation) => Some((coroutine, operation)),
            other => {
                member.stage = other;
                None
            }
        }
    }
}

/// Waits until one of some threads has ended. It stands in its crew, and must not hold it.
pub struct Join {
    crew: Weak<Crew>,
    numbers: Vec<u32>,
}

impl Join {
    pub fn new(crew: &Rc<Crew>, numbers: Vec<u32>) -> Join {
        Join { crew: Rc::downgrade(crew), numbers }
    }

    /// The crew, and the first of the threads that has ended.
    fn ended(&self) -> Option<(Rc<Crew>, u32)> {
        let crew = self.crew.upgrade()?;
        let number = crew.first_ended(&self.numbers)?;
        Some((crew, number))
    }
}

impl Operation for Join {
    /// Nobody has to wake: whoever drives the crew polls when a thread has run.
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match self.ended() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        self.ended().map_or(0, |(crew, number)| crew.reap(number, stack))
    }
}

/// Puts the crew before this one back.
struct Restore(Option<Rc<Crew>>);

impl Drop for Restore {
    fn drop(&mut self) {
        drop(CURRENT.replace(self.0.take()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::vm::{self, Code, Vm};

    #[test]
    fn who_waits_for_a_thread_does_not_hold_the_crew() {
        Vm::new(None).unwrap().enter();
        let code = Code::new("=test".into(), b"return 1".to_vec());
        let crew = Crew::of(Coroutine::new(&code).unwrap());
        let turn = crew.next().unwrap();
        crew.waits(turn.number, turn.coroutine, Box::new(Join::new(&crew, vec![7])));
        let left = Rc::downgrade(&crew);
        drop(crew);
        assert!(left.upgrade().is_none());
        vm::leave();
    }
}
