//! `ngx.socket.tcp` and its methods, `ngx.req.socket`.
//!
//! A socket is a table of Lua with the metatable of its kind; its elements stand where
//! lua-resty-core looks for them.

use super::handle::{
    Thing, bad_argument, element_thing, need_integer, need_string, need_table, push_field,
    push_object, push_thing, remember, set_element, thing,
};
use super::{functions, in_phase};
use crate::event;
use crate::log;
use crate::lua::phase::{self, MAY_WAIT, YIELDABLE};
use crate::lua::socket::{
    self, Around, Busy, Life, Pattern, Plan, Pool, Receiving, Refused, Rules, Tcp, Want,
};
use crate::lua::vm::{self, Stack, Value};
use crate::sys::socket::{Address, Departure};
use crate::upstream::url::Url;
use mlua_sys::*;
use std::ffi::c_int;
use std::rc::Rc;
use std::time::Duration;

/// Where a socket's table keeps what.
pub const HANDLE: c_int = 1;
const CONNECT_TIMEOUT: c_int = 2;
const POOL_NAME: c_int = 3;
const SEND_TIMEOUT: c_int = 4;
const READ_TIMEOUT: c_int = 5;
const BIND: c_int = 8;
/// lua-resty-core's: `setoption("ip-transparent", …)`.
const TRANSPARENT: c_int = 9;

/// The metatables.
static TCP: u8 = 1;
static BODY: u8 = 2;
static RAW: u8 = 3;

/// How deep tables may nest in what is sent.
const NESTING_MAX: u8 = 32;

functions! {
    socket_setup => |stack| {
        for (at, key) in [(1, &TCP), (2, &BODY), (3, &RAW)] {
            remember(stack, key, at);
        }
        super::socket_udp::setup(stack, 4);
        Ok(0)
    };
    tcp_new => |stack| {
        if stack.top() != 0 {
            return Err(format!("expecting zero arguments, but got {}", stack.top()).into());
        }
        check_phase()?;
        push_object(stack, &TCP, 7);
        Ok(1)
    };
    req_socket => req_socket;
    tcp_bind => bind;
    tcp_connect => connect;
    tcp_settimeout => set_timeout;
    tcp_settimeouts => set_timeouts;
    tcp_send => send;
    tcp_receive => receive;
    tcp_receiveany => receive_any;
    tcp_receiveuntil => receive_until;
    tcp_close => close;
    tcp_getreusedtimes => get_reused_times;
    tcp_setkeepalive => set_keepalive;
}

/// Whether code may use sockets here, and whose it is.
pub fn check_phase() -> Result<Rc<Life>, Vec<u8>> {
    let phase = vm::current_phase();
    let life = Life::current().ok_or_else(|| b"no request found".to_vec())?;
    match phase & YIELDABLE {
        0 => Err(format!("API disabled in the context of {}", phase::name(phase)).into()),
        _ => Ok(life),
    }
}

pub fn current_life() -> Result<Rc<Life>, Vec<u8>> {
    Life::current().ok_or_else(|| b"no request found".to_vec())
}

fn done(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    stack.push(&Value::Number(1.0));
    Ok(1)
}

/// The socket of the table at `at`, if it was ever connected.
fn tcp_at(stack: &mut Stack, at: c_int) -> Option<Rc<Tcp>> {
    match element_thing(stack, at, HANDLE as usize) {
        Some(Thing::Tcp(tcp)) => Some(tcp),
        _ => None,
    }
}

/// Makes sure that it is the running code's own.
fn check_owner(tcp: &Tcp) -> Result<(), Vec<u8>> {
    match tcp.belongs_to(&current_life()?) {
        true => Ok(()),
        false => Err(b"bad request".to_vec()),
    }
}

macro_rules! not_busy {
    ($stack:expr, $tcp:expr, $uses:expr) => {
        if let Some(busy) = $tcp.is_busy($uses) {
            return Ok($stack.refuse(busy.text()));
        }
    };
}

// ---- the client's connection

fn req_socket(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let is_raw = match stack.top() {
        0 => false,
        1 => stack.truth(1),
        n => return Err(format!("expecting 0 or 1 argument, but got {n}").into()),
    };
    let life = current_life()?;
    let made = in_phase(MAY_WAIT, |r| match is_raw {
        true => super::output::may_take_connection(r).and_then(|()| socket::raw_socket(r, &life)),
        false => socket::body_socket(r, &life),
    })?;
    match made {
        Ok(tcp) => {
            push_object(stack, if is_raw { &RAW } else { &BODY }, 5);
            let at = stack.top();
            push_thing(stack, Thing::Tcp(tcp));
            set_element(stack, at, HANDLE);
            Ok(1)
        }
        Err(Refused::Says(why)) => Ok(stack.refuse(why)),
        Err(Refused::Error(why)) => Err(why.into()),
    }
}

// ---- connecting

fn bind(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count != 2 && count != 3 {
        return Err(format!("expecting 2 or 3 arguments, but got {count}").into());
    }
    check_phase()?;
    need_table(stack, 1)?;
    let mut port = 0;
    if count == 3 {
        let Some(number) = stack.number(3) else {
            let kind = stack.kind_name(3);
            let why = format!("expecting port to be anumber but got type: {kind}");
            return Ok(stack.refuse(&why));
        };
        let Ok(number) = u16::try_from(number as i64) else {
            return Ok(stack.refuse(format!("bad port number: {}", number as i64)));
        };
        port = number;
    }
    let text = need_string(stack, 2)?;
    let text = String::from_utf8_lossy(&text);
    if parse_local(&text, port).is_none() {
        return Ok(stack.refuse("bad address"));
    }
    log::debug_http!("lua tcp socket bind ip: {text}");
    stack.push_text(format!("{text} {port}").as_bytes());
    set_element(stack, 1, BIND);
    stack.push(&Value::Bool(true));
    Ok(1)
}

/// A local address: an IP, with a port perhaps, or `unix:/path`.
pub fn parse_local(text: &str, port: u16) -> Option<Address> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Some(Address::Inet((ip, port).into()));
    }
    Url::parse(text, port, false).ok()?.address
}

/// What `bind` and `setoption` said about where connections leave from.
fn departure(stack: &mut Stack) -> Departure {
    let mut departure = Departure::default();
    stack.push_element(1, BIND as usize);
    if let Some(text) = stack.text(-1) {
        let text = String::from_utf8_lossy(text).into_owned();
        let (host, port) = text.split_once(' ').unwrap_or((&text, ""));
        departure.bind = parse_local(host, port.parse().unwrap_or_default());
    }
    stack.pop(1);
    stack.push_element(1, TRANSPARENT as usize);
    departure.transparent = stack.truth(-1);
    stack.pop(1);
    departure
}

/// The last argument of `connect`.
#[derive(Default)]
struct Options {
    pool: Option<Vec<u8>>,
    pool_size: Option<usize>,
    backlog: Option<usize>,
}

fn connect(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if !(2..=4).contains(&count) {
        return Err(format!(
            "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen \
             {count}"
        )
        .into());
    }
    let life = check_phase()?;
    need_table(stack, 1)?;
    let host = need_string(stack, 2)?;
    let around = Around::current();
    let mut options = Options::default();
    let mut last = count;
    if stack.kind(count) == LUA_TTABLE {
        options = read_options(stack, count, &around)?;
        last -= 1;
    }
    let is_unix = host.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"unix:"));
    let port = match stack.number(3).filter(|_| last >= 3) {
        Some(number) => match u16::try_from(number as i64) {
            Ok(port) => Some(port),
            Err(_) => return Ok(stack.refuse(format!("bad port number: {}", number as i64))),
        },
        None if is_unix => None,
        None => return Ok(stack.refuse("missing the port number")),
    };
    let name = options.pool.take().unwrap_or_else(|| match port {
        Some(port) => [&host, format!(":{port}").as_bytes()].concat(),
        None => host.clone(),
    });
    stack.push_text(&name);
    set_element(stack, 1, POOL_NAME);
    let tcp = match tcp_at(stack, 1) {
        Some(tcp) => {
            check_owner(&tcp)?;
            not_busy!(stack, tcp, Busy::ANY);
            if tcp.is_downstream() {
                return Err(b"attempt to re-connect a request socket".to_vec());
            }
            tcp.renew(&around);
            tcp
        }
        None => {
            let tcp = Tcp::new(&life, &around);
            push_thing(stack, Thing::Tcp(tcp.clone()));
            set_element(stack, 1, HANDLE);
            tcp
        }
    };
    apply_timeouts(stack, &tcp);
    let pool = socket::pool_of(&name).or_else(|| {
        let size = options.pool_size?;
        Some(Pool::of(&name, Rules { size, backlog: options.backlog }))
    });
    let plan = Plan {
        host: String::from_utf8_lossy(&host).into_owned(),
        port: port.unwrap_or_default(),
        departure: departure(stack),
        around,
        pool,
    };
    socket::connect(stack, &tcp, plan)
}

fn read_options(stack: &mut Stack, at: c_int, around: &Around) -> Result<Options, Vec<u8>> {
    let mut options = Options::default();
    push_field(stack, at, "pool_size");
    match stack.number(-1) {
        Some(size) if size as i64 <= 0 => {
            let what = format!("bad \"pool_size\" option value: {}", size as i64);
            return Err(bad_argument(stack, at, &what));
        }
        Some(size) => options.pool_size = Some(size as usize),
        None if stack.kind(-1) == LUA_TNIL => {}
        None => {
            let what = format!("bad \"pool_size\" option type: {}", stack.kind_name(-1));
            return Err(bad_argument(stack, at, &what));
        }
    }
    push_field(stack, at, "backlog");
    if let Some(backlog) = stack.number(-1) {
        let Ok(waiting) = usize::try_from(backlog as i64) else {
            let what = format!("bad \"backlog\" option value: {}", backlog as i64);
            return Err(bad_argument(stack, at, &what));
        };
        options.backlog = Some(waiting);
        options.pool_size.get_or_insert(around.settings.pool_size);
    }
    push_field(stack, at, "pool");
    match stack.kind(-1) {
        LUA_TNIL => {}
        LUA_TSTRING | LUA_TNUMBER => options.pool = stack.text(-1).map(<[u8]>::to_vec),
        _ => {
            let what = format!("bad \"pool\" option type: {}", stack.kind_name(-1));
            return Err(bad_argument(stack, at, &what));
        }
    }
    stack.pop(3);
    Ok(options)
}

// ---- timeouts

/// Milliseconds as Lua gives them; `None` asks for what the directives say.
fn milliseconds(number: f64) -> Result<Option<Duration>, Vec<u8>> {
    match number as i64 {
        n if n < 0 || n > i64::from(i32::MAX) => Err(b"bad timeout value".to_vec()),
        0 => Ok(None),
        n => Ok(Some(Duration::from_millis(n as u64))),
    }
}

fn set_timeout(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!(
            "ngx.socket settimeout: expecting 2 arguments (including the object) but seen {}",
            stack.top()
        )
        .into());
    }
    need_table(stack, 1)?;
    let number = stack.number(2).unwrap_or_default();
    milliseconds(number)?;
    for at in [CONNECT_TIMEOUT, SEND_TIMEOUT, READ_TIMEOUT] {
        stack.push(&Value::Number(number.trunc()));
        set_element(stack, 1, at);
    }
    if let Some(tcp) = tcp_at(stack, 1) {
        apply_timeouts(stack, &tcp);
    }
    Ok(0)
}

fn set_timeouts(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 4 {
        return Err(format!(
            "ngx.socket settimeouts: expecting 4 arguments (including the object) but seen {}",
            stack.top()
        )
        .into());
    }
    need_table(stack, 1)?;
    let numbers = [2, 3, 4].map(|at| stack.number(at).unwrap_or_default());
    for number in numbers {
        milliseconds(number)?;
    }
    for (number, at) in numbers.into_iter().zip([CONNECT_TIMEOUT, SEND_TIMEOUT, READ_TIMEOUT]) {
        stack.push(&Value::Number(number.trunc()));
        set_element(stack, 1, at);
    }
    if let Some(tcp) = tcp_at(stack, 1) {
        apply_timeouts(stack, &tcp);
    }
    Ok(0)
}

/// Sets what the table says, or the directives.
fn apply_timeouts(stack: &mut Stack, tcp: &Tcp) {
    let settings = tcp.settings();
    let mut read = |at: c_int, default: Duration| {
        stack.push_element(1, at as usize);
        let number = stack.number(-1).unwrap_or_default();
        stack.pop(1);
        milliseconds(number).ok().flatten().unwrap_or(default)
    };
    tcp.timeouts.connect.set(read(CONNECT_TIMEOUT, settings.connect_timeout));
    tcp.timeouts.send.set(read(SEND_TIMEOUT, settings.send_timeout));
    tcp.timeouts.read.set(read(READ_TIMEOUT, settings.read_timeout));
}

// ---- sending

fn send(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!(
            "expecting 2 arguments (including the object), but got {}",
            stack.top()
        )
        .into());
    }
    need_table(stack, 1)?;
    let Some(tcp) = tcp_at(stack, 1).filter(|tcp| tcp.may_write()) else {
        current_life()?;
        say_closed(stack, "send");
        return Ok(stack.refuse("closed"));
    };
    check_owner(&tcp)?;
    not_busy!(stack, tcp, Busy::TO_WRITE);
    if tcp.is_body() {
        return Err(b"attempt to write to request sockets".to_vec());
    }
    let composed = match stack.kind(2) {
        LUA_TSTRING | LUA_TNUMBER => None,
        _ => Some(payload(stack, 2)?),
    };
    let bytes = match &composed {
        Some(bytes) => bytes,
        None => stack.text(2).unwrap_or_default(),
    };
    let length = bytes.len();
    if length == 0 {
        stack.push(&Value::Number(0.0));
        return Ok(1);
    }
    let begun = socket::begin_send(&tcp, bytes);
    socket::answer_send(stack, &tcp, begun, length)
}

/// The bytes of what is sent: text, a number, `nil`, a boolean, or nested tables of text.
pub fn payload(stack: &mut Stack, at: c_int) -> Result<Vec<u8>, Vec<u8>> {
    let mut out = Vec::new();
    match stack.kind(at) {
        LUA_TSTRING | LUA_TNUMBER => out.extend_from_slice(stack.text(at).unwrap_or_default()),
        LUA_TNIL => out.extend_from_slice(b"nil"),
        LUA_TBOOLEAN => out.extend_from_slice(if stack.truth(at) { b"true" } else { b"false" }),
        LUA_TTABLE => {
            append_table(stack, at, &mut out, 0).map_err(|what| bad_argument(stack, at, &what))?
        }
        _ => {
            let kind = stack.kind_name(at);
            let what = format!("string, number, boolean, nil, or array table expected, got {kind}");
            return Err(bad_argument(stack, at, &what));
        }
    }
    Ok(out)
}

fn append_table(stack: &mut Stack, at: c_int, out: &mut Vec<u8>, depth: u8) -> Result<(), String> {
    let length = largest_index(stack, at)?;
    for n in 1..=length {
        stack.push_element(at, n);
        let top = stack.top();
        let appended = match stack.kind(top) {
            LUA_TSTRING | LUA_TNUMBER => {
                out.extend_from_slice(stack.text(top).unwrap_or_default());
                Ok(())
            }
            LUA_TTABLE if depth < NESTING_MAX => append_table(stack, top, out, depth + 1),
            _ => Err(format!("bad data type {} found", stack.kind_name(top))),
        };
        stack.pop(1);
        appended?;
    }
    Ok(())
}

/// The largest key of an array table; what has other keys is none.
fn largest_index(stack: &mut Stack, at: c_int) -> Result<usize, String> {
    let mut largest = 0;
    stack.push_nil();
    loop {
        // SAFETY: there is a table at `at`, and a key of it (or nil) on top.
        if unsafe { lua_next(stack.state(), at) } == 0 {
            return Ok(largest);
        }
        stack.pop(1);
        let key = match stack.kind(-1) {
            LUA_TNUMBER => stack.number(-1).unwrap_or_default(),
            _ => 0.0,
        };
        if key.fract() != 0.0 || key < 1.0 || key > f64::from(i32::MAX) {
            stack.pop(1);
            return Err("non-array table found".into());
        }
        largest = largest.max(key as usize);
    }
}

// ---- receiving

/// Tells the log of a use of what is closed.
fn say_closed(stack: &mut Stack, doing: &str) {
    let tcp = tcp_at(stack, 1);
    let settings = tcp.as_ref().map_or_else(|| Around::current().settings, |tcp| tcp.settings());
    if !settings.log_errors {
        return;
    }
    let address = tcp.as_ref().map_or(0, |tcp| Rc::as_ptr(tcp) as usize);
    let message = format!(
        "attempt to {doing} data on a closed socket: u:{address:016X}, c:{:016X}, ft:0 eof:{}",
        tcp.as_ref().and_then(|tcp| tcp.conn()).map_or(0, |conn| Rc::as_ptr(&conn) as usize),
        u8::from(tcp.is_some_and(|tcp| tcp.has_end())),
    );
    if vm::with_request(|r| log::error!(&*r, "{message}")).is_none() {
        log::error!("{message}");
    }
}

/// The socket of a receive, or how many results say that there is none.
fn reader(stack: &mut Stack) -> Result<Result<Rc<Tcp>, c_int>, Vec<u8>> {
    need_table(stack, 1)?;
    let Some(tcp) = tcp_at(stack, 1).filter(|tcp| tcp.may_read()) else {
        current_life()?;
        say_closed(stack, "receive");
        return Ok(Err(stack.refuse("closed")));
    };
    check_owner(&tcp)?;
    match tcp.is_busy(Busy::TO_READ) {
        Some(busy) => Ok(Err(stack.refuse(busy.text()))),
        None => Ok(Ok(tcp)),
    }
}

fn receive(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count != 1 && count != 2 {
        return Err(
            format!("expecting 1 or 2 arguments (including the object), but got {count}").into()
        );
    }
    let tcp = match reader(stack)? {
        Ok(tcp) => tcp,
        Err(results) => return Ok(results),
    };
    let want = match wanted(stack, count)? {
        Want::Exactly(0) => {
            stack.push_text(b"");
            return Ok(1);
        }
        want => want,
    };
    Receiving::new(tcp, want).call(stack)
}

fn wanted(stack: &mut Stack, count: c_int) -> Result<Want, Vec<u8>> {
    if count == 1 {
        return Ok(Want::Line { looked_at: 0 });
    }
    if let Some(bytes) = stack.number(2) {
        return match bytes as i64 {
            n if n < 0 => Err(bad_argument(stack, 2, "bad number argument")),
            n => Ok(Want::Exactly(n as usize)),
        };
    }
    if stack.kind(2) != LUA_TSTRING {
        return Err(bad_argument(stack, 2, "bad argument"));
    }
    match stack.text(2).unwrap_or_default() {
        b"*l" => Ok(Want::Line { looked_at: 0 }),
        b"*a" => Ok(Want::All),
        [b'*', _] => Err(bad_argument(stack, 2, "bad pattern argument")),
        other => {
            let what = format!("bad pattern argument: {}", String::from_utf8_lossy(other));
            Err(bad_argument(stack, 2, &what))
        }
    }
}

fn receive_any(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 2 {
        return Err(format!(
            "expecting 2 arguments (including the object), but got {}",
            stack.top()
        )
        .into());
    }
    let tcp = match reader(stack)? {
        Ok(tcp) => tcp,
        Err(results) => return Ok(results),
    };
    match stack.number(2) {
        Some(max) if max as i64 > 0 => Receiving::new(tcp, Want::Any(max as usize)).call(stack),
        _ => Err(bad_argument(stack, 2, "bad max argument")),
    }
}

fn receive_until(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count != 2 && count != 3 {
        return Err(
            format!("expecting 2 or 3 arguments (including the object), but got {count}").into()
        );
    }
    let mut is_inclusive = false;
    if count == 3 {
        need_table(stack, 3)?;
        push_field(stack, 3, "inclusive");
        match stack.kind(-1) {
            LUA_TNIL => {}
            LUA_TBOOLEAN => is_inclusive = stack.truth(-1),
            _ => {
                let kind = stack.kind_name(-1);
                return Err(format!("bad \"inclusive\" option value type: {kind}").into());
            }
        }
        stack.pop(1);
    }
    current_life()?;
    need_table(stack, 1)?;
    let pattern = need_string(stack, 2)?;
    if pattern.is_empty() {
        return Ok(stack.refuse("pattern is empty"));
    }
    let pattern = Rc::new(Pattern::new(&pattern, is_inclusive));
    // SAFETY: the table is at 1; the closure takes it and the userdata off.
    unsafe {
        lua_pushvalue(stack.state(), 1);
        push_thing(stack, Thing::Pattern(pattern));
        lua_pushcclosure(stack.state(), vm::c_function(next_until), 2);
    }
    Ok(1)
}

/// The iterator of `receiveuntil`.
unsafe extern "C-unwind" fn next_until(state: *mut lua_State) -> vm::Count {
    // SAFETY: the state is what Lua passes; this is the last act.
    unsafe { Stack::call(state, iterate) }
}

fn iterate(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if count > 1 {
        return Err(format!("expecting 0 or 1 argument, but seen {count}").into());
    }
    let size = match count {
        0 => 0,
        _ => usize::try_from(need_integer(stack, 1)?).unwrap_or_default(),
    };
    let Some(Thing::Pattern(pattern)) = thing(stack, lua_upvalueindex(2)) else {
        return Err(b"no pattern".to_vec());
    };
    let tcp = tcp_at(stack, lua_upvalueindex(1)).filter(|tcp| tcp.may_read());
    let Some(tcp) = tcp else { return Ok(stack.refuse("closed")) };
    check_owner(&tcp)?;
    not_busy!(stack, tcp, Busy::TO_READ);
    Receiving::new(tcp, Want::until(&pattern, size)).call(stack)
}

// ---- the end

fn close(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 1 {
        return Err(format!(
            "expecting 1 argument (including the object) but seen {}",
            stack.top()
        )
        .into());
    }
    current_life()?;
    need_table(stack, 1)?;
    let Some(tcp) = tcp_at(stack, 1).filter(|tcp| tcp.is_open()) else {
        return Ok(stack.refuse("closed"));
    };
    check_owner(&tcp)?;
    not_busy!(stack, tcp, Busy::ANY);
    if tcp.is_downstream() {
        return Ok(stack.refuse("attempt to close a request socket"));
    }
    tcp.close();
    done(stack)
}

fn get_reused_times(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    if stack.top() != 1 {
        return Err(format!(
            "expecting 1 argument (including the object), but got {}",
            stack.top()
        )
        .into());
    }
    need_table(stack, 1)?;
    let Some(tcp) = tcp_at(stack, 1).filter(|tcp| tcp.is_open()) else {
        return Ok(stack.refuse("closed"));
    };
    stack.push(&Value::Number(f64::from(tcp.reused())));
    Ok(1)
}

fn set_keepalive(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let count = stack.top();
    if !(1..=3).contains(&count) {
        return Err(
            format!("expecting 1 to 3 arguments (including the object), but got {count}").into()
        );
    }
    need_table(stack, 1)?;
    current_life()?;
    let settings = Around::current().settings;
    let timeout = match count >= 2 && stack.kind(2) != LUA_TNIL {
        true => Duration::from_millis(need_integer(stack, 2)?.max(0) as u64),
        false => settings.keepalive_timeout,
    };
    let size = match count >= 3 && stack.kind(3) != LUA_TNIL {
        true => need_integer(stack, 3)?,
        false => settings.pool_size as i64,
    };
    let Some(tcp) = tcp_at(stack, 1) else { return Ok(stack.refuse("closed")) };
    let is_gone = tcp.conn().is_some_and(|conn| conn.stream().is_read_closed());
    if is_gone || !tcp.may_read() || !tcp.may_write() {
        return Ok(stack.refuse("closed"));
    }
    check_owner(&tcp)?;
    not_busy!(stack, tcp, Busy::ANY);
    if tcp.is_downstream() {
        return Ok(stack.refuse("closed"));
    }
    if tcp.unread() > 0 {
        return Ok(stack.refuse("unread data in buffer"));
    }
    if event::is_ending() {
        log::debug_http!("lua tcp socket set keepalive while process exiting, closing connection");
        tcp.close();
        return done(stack);
    }
    stack.push_element(1, POOL_NAME as usize);
    let Some(name) = stack.text(-1).map(<[u8]>::to_vec) else {
        return Ok(stack.refuse("key not found"));
    };
    if socket::pool_of(&name).is_none() && size <= 0 {
        let what = format!("bad \"pool_size\" option value: {size}");
        return Err(bad_argument(stack, count, &what));
    }
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    match socket::keep(&tcp, &name, size.max(1) as usize, timeout) {
        true => done(stack),
        false => Ok(stack.refuse("connection in dubious state")),
    }
}
