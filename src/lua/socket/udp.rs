//! `ngx.socket.udp`: datagrams to one peer and from it.

use super::connecting::{find, peer_text, push_fault};
use super::fault::Fault;
use super::life::{Around, Life, Mortal, Speaker};
use crate::event::Deadline;
use crate::io::Datagram;
use crate::log;
use crate::lua::vm::{Operation, Stack, Value};
use crate::sys::socket::Address;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// The longest datagram that is received, and the most that `receive` gives.
pub const DATAGRAM_MAX: usize = 65_536;

/// A datagram socket as Lua holds it.
pub struct Udp {
    owner: Weak<Life>,
    pub speaker: Speaker,
    around: RefCell<Around>,
    datagram: RefCell<Option<Rc<Datagram>>>,
    /// A coroutine waits for it.
    is_busy: Cell<bool>,
    /// Of a receive.
    pub timeout: Cell<Duration>,
    deadline: Deadline,
}

impl Udp {
    /// A socket of `life` without a peer.
    pub fn new(life: &Rc<Life>, around: &Around) -> Rc<Udp> {
        let udp = Rc::new(Udp {
            owner: Rc::downgrade(life),
            speaker: life.speaker(),
            timeout: Cell::new(around.settings.read_timeout),
            around: RefCell::new(around.clone()),
            datagram: RefCell::default(),
            is_busy: Cell::new(false),
            deadline: Deadline::never(),
        });
        let weak: Weak<Udp> = Rc::downgrade(&udp);
        life.adopt(weak);
        udp
    }

    /// Whether the code that runs now may use it.
    pub fn belongs_to(&self, life: &Rc<Life>) -> bool {
        std::ptr::eq(self.owner.as_ptr(), Rc::as_ptr(life))
    }

    /// Begins anew with what is true where code runs now.
    pub fn renew(&self, around: &Around) {
        if self.is_open() {
            log::debug_http!(&self.speaker, "lua udp socket reconnect without shutting down");
        }
        log::debug_http!(&self.speaker, "lua reuse socket upstream ctx");
        self.close();
        self.around.replace(around.clone());
    }

    pub fn around(&self) -> Around {
        self.around.borrow().clone()
    }

    pub fn is_open(&self) -> bool {
        self.datagram.borrow().is_some()
    }

    pub fn is_busy(&self) -> bool {
        self.is_busy.get()
    }

    pub fn close(&self) {
        drop(self.datagram.take());
    }

    /// Sends one datagram; UDP does not wait.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Fault> {
        let datagram = self.datagram.borrow().clone().ok_or(Fault::Closed)?;
        match datagram.send_now(bytes)? {
            n if n == bytes.len() => Ok(()),
            _ => Err(Fault::Says("partial write".into())),
        }
    }
}

impl Mortal for Udp {
    fn end(&self) {
        self.close();
        self.speaker.forget();
    }
}

/// Answers a call of `setpeername`.
pub fn set_peer(
    stack: &mut Stack,
    udp: &Rc<Udp>,
    host: String,
    port: u16,
    bind: Option<Address>,
) -> Result<c_int, Vec<u8>> {
    udp.speaker.upstream.replace(match port {
        0 => host.clone(),
        port => format!("{host}:{port}"),
    });
    let (around, named) = (udp.around(), udp.clone());
    let future = Box::pin(async move {
        let address = find(&host, port, &around).await?;
        named.speaker.upstream.replace(peer_text(&host, port, &address));
        Ok(Rc::new(Datagram::connect_to(&address, bind.as_ref())?))
    });
    let mut naming = Naming { udp: udp.clone(), future, result: None };
    udp.is_busy.set(true);
    let mut nobody = Context::from_waker(Waker::noop());
    match naming.poll(&mut nobody) {
        Poll::Ready(()) => Ok(naming.finish(stack)),
        Poll::Pending => stack.wait_for(Box::new(naming)),
    }
}

/// A `setpeername` under way.
struct Naming {
    udp: Rc<Udp>,
    future: Pin<Box<dyn Future<Output = Result<Rc<Datagram>, Fault>>>>,
    result: Option<Result<(), Fault>>,
}

impl Operation for Naming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let found = ready!(self.future.as_mut().poll(cx));
        self.udp.is_busy.set(false);
        self.result = Some(found.map(|datagram| {
            self.udp.datagram.replace(Some(datagram));
        }));
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        match &self.result {
            Some(Err(fault)) => push_fault(stack, fault),
            _ => {
                stack.push(&Value::Number(1.0));
                1
            }
        }
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        if self.result.is_none() {
            self.udp.is_busy.set(false);
        }
    }
}

/// Answers a call of `receive`: one datagram, `max` bytes of it.
pub fn receive(stack: &mut Stack, udp: &Rc<Udp>, max: usize) -> Result<c_int, Vec<u8>> {
    let max = max.clamp(1, DATAGRAM_MAX);
    log::debug_http!(&udp.speaker, "lua udp socket receive buffer size: {max}");
    let mut receiving = Receiving { udp: udp.clone(), max, result: None, waits: false };
    let mut nobody = Context::from_waker(Waker::noop());
    if receiving.advance(&mut nobody).is_ready() {
        return Ok(receiving.finish(stack));
    }
    receiving.waits = true;
    udp.is_busy.set(true);
    udp.deadline.set_after(udp.timeout.get());
    stack.wait_for(Box::new(receiving))
}

/// A `receive` under way.
struct Receiving {
    udp: Rc<Udp>,
    max: usize,
    result: Option<Result<Vec<u8>, Fault>>,
    waits: bool,
}

impl Receiving {
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let datagram = self.udp.datagram.borrow().clone();
        let Some(datagram) = datagram else {
            self.result = Some(Err(Fault::Closed));
            return Poll::Ready(());
        };
        let received = crate::io::with_scratch(|scratch| {
            let room = &mut scratch[..self.max];
            datagram.poll_receive(cx, room).map_ok(|len| room[..len].to_vec())
        });
        self.result = Some(ready!(received).map_err(|error| {
            log::error!(&self.udp.speaker, "recv() failed{}", log::Os(&error));
            Fault::from(error)
        }));
        Poll::Ready(())
    }
}

impl Operation for Receiving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.advance(cx).is_pending() {
            ready!(self.udp.deadline.poll(cx));
            if self.udp.around.borrow().settings.log_errors {
                log::error!(&self.udp.speaker, "lua udp socket read timed out");
            }
            self.result = Some(Err(Fault::Timeout));
        }
        self.waits = false;
        self.udp.deadline.clear();
        self.udp.is_busy.set(false);
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        match self.result.take() {
            Some(Ok(bytes)) => {
                stack.push_text(&bytes);
                1
            }
            Some(Err(fault)) => push_fault(stack, &fault),
            None => push_fault(stack, &Fault::Closed),
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.waits {
            self.udp.is_busy.set(false);
        }
    }
}
