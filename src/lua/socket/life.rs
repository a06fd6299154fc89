//! To whom a socket belongs: a request, or what runs without one.

use super::settings::Settings;
use crate::http::Confs;
use crate::http::Request;
use crate::http::core::Core;
use crate::log;
use crate::lua::abi;
use crate::lua::conf::Lua;
use crate::lua::vm;
use crate::upstream::resolver::{self, Resolver};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Sockets of one life after which those that are gone are forgotten.
const SOCKETS_BEFORE_SWEEP: usize = 32;

thread_local! {
    /// Whose code runs, if it is no request's.
    static APART: RefCell<Option<Rc<Life>>> = const { RefCell::new(None) };
}

/// Something that ends with its owner.
pub trait Mortal {
    /// Closes it, whoever still holds it.
    fn end(&self);
}

/// The owner of sockets. When it is dropped they are closed.
pub struct Life {
    sockets: RefCell<Vec<Weak<dyn Mortal>>>,
    speaks: Option<Rc<dyn log::Context>>,
    /// What is true where it began; a request looks where it is now.
    around: Around,
}

/// What the place of running code says about sockets.
#[derive(Clone)]
pub struct Around {
    pub settings: Rc<Settings>,
    pub resolver: Option<Rc<Resolver>>,
    pub resolver_timeout: Duration,
    /// `tcp_nodelay`
    pub nodelay: bool,
}

impl Default for Around {
    fn default() -> Around {
        Around {
            settings: Rc::default(),
            resolver: None,
            resolver_timeout: resolver::TIMEOUT,
            nodelay: true,
        }
    }
}

impl Around {
    /// What is true where `r` is.
    pub fn of(r: &Request) -> Around {
        Around::at(&r.place.location.confs)
    }

    /// What is true in a block.
    pub fn at(confs: &Confs) -> Around {
        let core = confs.loc::<Core>();
        Around {
            settings: confs.loc::<Lua>().socket.clone(),
            resolver: core.resolver.clone(),
            resolver_timeout: core.resolver_timeout,
            nodelay: core.tcp_nodelay,
        }
    }

    /// What is true where code runs now.
    pub fn current() -> Around {
        vm::with_request(|r| Around::of(r)).unwrap_or_else(|| {
            let around = APART.with_borrow(|life| life.as_ref().map(|life| life.around.clone()));
            // A worker's start is nowhere else than in `http {}`.
            let start = || abi::http().map(|http| Around::at(&http.http));
            around.or_else(start).unwrap_or_default()
        })
    }
}

/// The life of a request, in its slots.
#[derive(Default)]
struct Held(Option<Rc<Life>>);

impl Life {
    /// A life without a request, with what is true where it belongs and who speaks for it.
    pub fn apart(around: Around, speaks: Option<Rc<dyn log::Context>>) -> Rc<Life> {
        Life::new(speaks, around)
    }

    /// Calls `f` as code of this life: what its crew does around each resume.
    pub fn with<T>(self: &Rc<Life>, f: impl FnOnce() -> T) -> T {
        let before = APART.replace(Some(self.clone()));
        let result = f();
        APART.set(before);
        result
    }
}

impl Life {
    fn new(speaks: Option<Rc<dyn log::Context>>, around: Around) -> Rc<Life> {
        Rc::new(Life { sockets: RefCell::default(), speaks, around })
    }

    /// That of the code that runs now; `None` if sockets would belong to nobody.
    pub fn current() -> Option<Rc<Life>> {
        let of_request = vm::with_request(|r| {
            if let Some(Held(Some(life))) = r.slots.get::<Held>() {
                return life.clone();
            }
            let life = Life::new(Some(Rc::new(r.about())), Around::of(r));
            r.slots.of::<Held>().0 = Some(life.clone());
            life
        });
        of_request.or_else(|| APART.with_borrow(Clone::clone))
    }

    /// Takes a socket in.
    pub fn adopt(&self, socket: Weak<dyn Mortal>) {
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() >= SOCKETS_BEFORE_SWEEP && sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        sockets.push(socket);
    }

    /// Who speaks in the log.
    pub fn speaker(&self) -> Speaker {
        Speaker { speaks: RefCell::new(self.speaks.clone()), upstream: RefCell::default() }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        for socket in self.sockets.take() {
            if let Some(socket) = socket.upgrade() {
                socket.end();
            }
        }
    }
}

/// A socket's voice in the log.
pub struct Speaker {
    speaks: RefCell<Option<Rc<dyn log::Context>>>,
    /// `host:port(address)`, once it is known.
    pub upstream: RefCell<String>,
}

impl Speaker {
    /// Lets go of the request, and of its connection with it: Lua may keep a socket for long.
    pub fn forget(&self) {
        drop(self.speaks.take());
    }
}

impl log::Context for Speaker {
    fn log(&self) -> Option<log::Log> {
        self.speaks.borrow().as_ref().and_then(|speaks| speaks.log())
    }

    fn connection(&self) -> u64 {
        self.speaks.borrow().as_ref().map_or(0, |speaks| speaks.connection())
    }

    fn describe(&self, line: &mut log::Line) {
        let upstream = self.upstream.borrow();
        if !upstream.is_empty() {
            line.push(b", upstream: ");
            line.push(upstream.as_bytes());
        }
        if let Some(speaks) = &*self.speaks.borrow() {
            speaks.describe(line);
        }
    }
}
