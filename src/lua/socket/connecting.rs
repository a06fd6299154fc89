//! `connect`: a connection out of the pool, or a new one.

use super::fault::Fault;
use super::life::Around;
use super::pool::{self, Pool, Seat, Sitting, TooMany};
use super::tcp::{End, Tcp};
use crate::event::Deadline;
use crate::io;
use crate::log;
use crate::lua::vm::{Operation, Stack, Value};
use crate::sys::socket::{Address, Departure};
use crate::upstream::url::Url;
use std::ffi::c_int;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// What `connect` was called with.
pub struct Plan {
    pub host: String,
    pub port: u16,
    pub around: Around,
    pub pool: Option<Rc<Pool>>,
    pub departure: Departure,
}

/// Answers a call of `connect` for a socket that is not connected.
pub fn connect(stack: &mut Stack, tcp: &Rc<Tcp>, plan: Plan) -> Result<c_int, Vec<u8>> {
    tcp.speaker.upstream.replace(upstream_text(&plan.host, plan.port));
    let sitting = match &plan.pool {
        None => None,
        Some(pool) if pool.lend(tcp) => return Ok(push_connected(stack)),
        Some(pool) => match pool.sit() {
            Ok(sitting) => Some(sitting),
            Err(TooMany) => {
                let sentence = "too many waiting connect operations";
                return Ok(push_fault(stack, &Fault::Says(sentence.into())));
            }
        },
    };
    let mut connecting = Connecting {
        tcp: tcp.clone(),
        future: Box::pin(establish(tcp.clone(), plan, sitting)),
        result: None,
    };
    let mut nobody = Context::from_waker(Waker::noop());
    if let Poll::Ready(result) = connecting.future.as_mut().poll(&mut nobody) {
        connecting.settle(result);
        return Ok(connecting.finish(stack));
    }
    tcp.set_waits(|waits| waits.connecting = true);
    stack.wait_for(Box::new(connecting))
}

/// `host:port`, as the log names a peer whose address is not known.
fn upstream_text(host: &str, port: u16) -> String {
    match port {
        0 => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

async fn establish(tcp: Rc<Tcp>, plan: Plan, sitting: Option<Sitting>) -> Result<(), Fault> {
    let seat = match sitting {
        None => None,
        Some(Sitting::Now(seat)) => Some(seat),
        Some(Sitting::Later(seat, turn)) => {
            let pool = plan.pool.as_ref().expect("who waits waits for a pool");
            match wait_in_line(&tcp, pool, seat, turn).await? {
                Some(seat) => Some(seat),
                None => return Ok(()),
            }
        }
    };
    let address = find(&plan.host, plan.port, &plan.around).await?;
    tcp.speaker.upstream.replace(peer_text(&plan.host, plan.port, &address));
    // Until now there was nothing that could be busy.
    tcp.end.replace(End::Coming);
    let timeout = tcp.timeouts.connect.get();
    log::debug_http!(&tcp.speaker, "lua tcp socket connect timeout: {}", timeout.as_millis());
    let deadline = Deadline::after(timeout);
    let connected = deadline.bound(io::connect(&address, &plan.departure)).await;
    let log_errors = tcp.settings().log_errors;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tell(&tcp, &address, &error, log_errors);
            return Err(error.into());
        }
        Err(elapsed) => {
            if log_errors {
                log::error!(&tcp.speaker, "lua tcp socket connect timed out");
            }
            return Err(elapsed.into());
        }
    };
    if plan.around.nodelay && !address.is_unix() {
        log::debug_http!(&tcp.speaker, "lua socket tcp_nodelay");
        stream.set_nodelay(true)?;
    }
    tcp.connected(stream);
    tcp.seat.replace(seat);
    Ok(())
}

/// Tells the log that `connect()` failed. What a unix socket says it says at once.
fn tell(tcp: &Tcp, address: &Address, error: &std::io::Error, log_errors: bool) {
    let why = log::Os(error);
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::WouldBlock if address.is_unix() => {
            log::error!(&tcp.speaker, "connect() to {address} failed{why}");
        }
        _ if address.is_unix() => log::crit!(&tcp.speaker, "connect() to {address} failed{why}"),
        _ if log_errors => log::error!(&tcp.speaker, "connect() failed{why}"),
        _ => {}
    }
}

/// `host:port(address)`, as the log names a peer whose address is known.
pub(super) fn peer_text(host: &str, port: u16, address: &Address) -> String {
    match address {
        Address::Unix(_) => format!("{host}({address})"),
        Address::Inet(inet) => format!("{host}:{port}({})", inet.ip()),
    }
}

/// Waits for a connection of the pool to come back or to be closed.
async fn wait_in_line(
    tcp: &Tcp,
    pool: &Rc<Pool>,
    seat: Seat,
    turn: crate::event::Receiver<()>,
) -> Result<Option<Seat>, Fault> {
    let waited = Deadline::after(tcp.timeouts.connect.get()).bound(turn).await;
    if waited.is_err() {
        if tcp.settings().log_errors {
            log::error!(&tcp.speaker, "lua tcp socket queued connect timed out");
        }
        return Err(Fault::Timeout);
    }
    Ok(pool::turn_has_come(pool, seat, tcp))
}

/// The address of a host: its own, or what the resolver says.
pub(super) async fn find(host: &str, port: u16, around: &Around) -> Result<Address, Fault> {
    let url = Url::parse(host, port, false)
        .map_err(|why| Fault::Says(format!("failed to parse host name \"{host}\": {why}")))?;
    if let Some(address) = url.address {
        return Ok(address);
    }
    let Some(resolver) = &around.resolver else {
        return Err(Fault::Says(format!("no resolver defined to resolve \"{host}\"")));
    };
    let hosts = resolver
        .hosts(&url.host, around.resolver_timeout)
        .await
        .map_err(|why| Fault::Says(format!("{} could not be resolved ({why})", url.host)))?;
    let ip = hosts.addresses.first().expect("a resolver finds addresses or fails");
    Ok(Address::Inet((*ip, url.port).into()))
}

fn push_connected(stack: &mut Stack) -> c_int {
    stack.push(&Value::Number(1.0));
    1
}

pub(super) fn push_fault(stack: &mut Stack, fault: &Fault) -> c_int {
    stack.refuse(&*fault.text())
}

/// A connect under way.
struct Connecting {
    tcp: Rc<Tcp>,
    future: Pin<Box<dyn Future<Output = Result<(), Fault>>>>,
    result: Option<Result<(), Fault>>,
}

impl Connecting {
    fn settle(&mut self, result: Result<(), Fault>) {
        self.tcp.set_waits(|waits| waits.connecting = false);
        if result.is_err() {
            self.tcp.close();
        }
        self.result = Some(result);
    }
}

impl Operation for Connecting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let result = ready!(self.future.as_mut().poll(cx));
        self.settle(result);
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        match &self.result {
            Some(Err(fault)) => push_fault(stack, fault),
            _ => push_connected(stack),
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if self.result.is_none() {
            self.tcp.set_waits(|waits| waits.connecting = false);
            self.tcp.close();
        }
    }
}
