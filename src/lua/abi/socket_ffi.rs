//! What lua-resty-core asks of a socket: options, its descriptor, TLS.
//!
//! A socket is passed as the address of its userdata, which is looked up and never followed.

use super::handle::{Thing, at_address};
use super::nginx::NgxStr;
use super::{
    AGAIN, DONE, ERROR, Message, OK, R, bytes, certificate, export, give, put, put_message,
};
use crate::conf;
use crate::lua::socket::{self, Busy, Life, Session, Shake, Tcp};
use crate::lua::vm;
use crate::sys::socket::{Setting, number, set_setting, setting};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

thread_local! {
    /// TLS sessions that Lua holds, by number.
    static SESSIONS: RefCell<HashMap<usize, Session>> = RefCell::default();
    static NEXT_SESSION: std::cell::Cell<usize> = const { std::cell::Cell::new(1) };
}

/// Sessions are known to Lua as multiples of this: it may take them for addresses.
const SESSION_STEP: usize = 16;

fn tcp_of(socket: *mut c_void) -> Option<Rc<Tcp>> {
    match at_address(socket as usize) {
        Some(Thing::Tcp(tcp)) => Some(tcp),
        _ => None,
    }
}

/// Calls `f` with the descriptor of the socket.
fn with_fd<T>(
    socket: *mut c_void,
    f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
) -> Result<T, String> {
    let tcp = tcp_of(socket).ok_or("closed")?;
    let done = tcp.with_fd(f).ok_or("closed")?;
    done.map_err(|error| conf::os_error(&error))
}

fn setting_of(option: c_int) -> Option<Setting> {
    Some(match option {
        1 => Setting::KeepAlive,
        2 => Setting::ReuseAddress,
        3 => Setting::NoDelay,
        4 => Setting::SendBuffer,
        5 => Setting::ReceiveBuffer,
        6 => Setting::KeepAliveInterval,
        7 => Setting::KeepAliveCount,
        _ => return None,
    })
}

/// Gives a message to C, which reads it up to its NUL.
fn say(message: Message, text: &str) {
    let mut text = text.replace('\0', " ").into_bytes();
    text.push(0);
    let (data, _) = give(text);
    // SAFETY: lua-resty-core passes a pointer that it reads before its next call.
    unsafe { put(message, data.cast_const().cast()) }
}

fn number_for(session: Session) -> *mut c_void {
    let number = NEXT_SESSION.replace(NEXT_SESSION.get() + 1) * SESSION_STEP;
    SESSIONS.with_borrow_mut(|sessions| sessions.insert(number, session));
    number as *mut c_void
}

/// Why the socket of a handshake cannot be used, if so.
fn objection(tcp: &Tcp) -> Option<&'static str> {
    if !tcp.may_read() || !tcp.may_write() {
        return Some("closed");
    }
    if Life::current().is_none_or(|life| !tcp.belongs_to(&life)) {
        return Some("bad request");
    }
    if let Some(busy) = tcp.is_busy(Busy::ANY) {
        return Some(busy.text());
    }
    tcp.is_downstream().then_some("not supported for downstream sockets")
}

export! {
    fn ngx_http_lua_ffi_socket_tcp_getoption(
        socket: *mut c_void, option: c_int, value: *mut c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let Some(which) = setting_of(option) else {
            put_message(format!("unsupported option {option}").as_bytes(), message, len);
            return ERROR;
        };
        match with_fd(socket, |fd| setting(fd, which)) {
            Ok(number) => {
                put(value, number);
                OK
            }
            Err(why) => {
                put_message(why.as_bytes(), message, len);
                ERROR
            }
        }
    }

    fn ngx_http_lua_ffi_socket_tcp_setoption(
        socket: *mut c_void, option: c_int, value: c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let Some(which) = setting_of(option) else {
            put_message(format!("unsupported option: {option}").as_bytes(), message, len);
            return ERROR;
        };
        match with_fd(socket, |fd| set_setting(fd, which, value)) {
            Ok(()) => OK,
            Err(why) => {
                put_message(why.as_bytes(), message, len);
                ERROR
            }
        }
    }

    fn ngx_http_lua_ffi_socket_tcp_getfd(
        _r: R, socket: *mut c_void, message: Message,
    ) -> c_int {
        match with_fd(socket, |fd| Ok(number(&fd))) {
            Ok(fd) => fd,
            Err(why) => {
                say(message, &why);
                ERROR
            }
        }
    }

    fn ngx_http_lua_ffi_socket_tcp_sslhandshake(
        _r: R, socket: *mut c_void, session: *mut c_void, keeps_session: c_int,
        server_name: *const NgxStr, verify: c_int, _status_request: c_int, chain: *mut c_void,
        key: *mut c_void, message: Message,
    ) -> c_int {
        let Some(tcp) = tcp_of(socket) else {
            say(message, "closed");
            return ERROR;
        };
        if let Some(why) = objection(&tcp) {
            say(message, why);
            return ERROR;
        }
        if tcp.is_secure() {
            return if session.is_null() { OK } else { DONE };
        }
        let identity = match certificate::identity(chain, key) {
            Ok(identity) => identity,
            Err(why) => {
                say(message, why);
                return ERROR;
            }
        };
        let name = match server_name.is_null() {
            true => &[],
            false => bytes((*server_name).data, (*server_name).len),
        };
        let known = SESSIONS.with_borrow(|sessions| sessions.get(&(session as usize)).cloned());
        let operation = socket::shake(&tcp, Shake {
            keeps_session: known.is_some() || keeps_session != 0,
            session: known,
            name: String::from_utf8_lossy(name).into_owned(),
            verify: verify != 0,
            identity,
        });
        match operation {
            Some(operation) => {
                vm::wait_soon(operation);
                AGAIN
            }
            None => match tcp.handshake_failure() {
                Some(failed) => {
                    say(message, &failed.says);
                    ERROR
                }
                None => OK,
            },
        }
    }

    fn ngx_http_lua_ffi_socket_tcp_get_sslhandshake_result(
        _r: R, socket: *mut c_void, session: *mut *mut c_void, message: Message,
        number: *mut c_int,
    ) -> c_int {
        put(number, 0);
        let Some(tcp) = tcp_of(socket) else {
            say(message, "closed");
            return ERROR;
        };
        if let Some(failed) = tcp.handshake_failure() {
            say(message, &failed.says);
            put(number, c_int::from(failed.number));
            return ERROR;
        }
        // lua-resty-core asks a second time for the one that it keeps.
        let known = tcp.session().map_or(std::ptr::null_mut(), number_for);
        put(session, known);
        OK
    }

    fn ngx_http_lua_socket_tcp_get_ssl_session(
        _r: R, socket: *mut c_void, session: *mut *mut c_void, message: Message,
    ) -> c_int {
        let tcp = tcp_of(socket).filter(|tcp| tcp.is_open());
        match tcp.map(|tcp| tcp.session()) {
            None => say(message, "closed"),
            Some(None) => say(message, "no session"),
            Some(Some(known)) => {
                put(session, number_for(known));
                return OK;
            }
        }
        ERROR
    }

    fn ngx_http_lua_ffi_ssl_free_session(session: *mut c_void) {
        SESSIONS.with_borrow_mut(|sessions| sessions.remove(&(session as usize)));
    }

    /// There is no OpenSSL whose objects could be given.
    fn ngx_http_lua_ffi_socket_tcp_get_ssl_pointer(
        _r: R, _socket: *mut c_void, pointer: *mut *mut c_void, message: Message,
    ) -> c_int {
        put(pointer, std::ptr::null_mut());
        say(message, NO_OPENSSL);
        ERROR
    }

    fn ngx_http_lua_ffi_socket_tcp_get_ssl_ctx(
        _r: R, _socket: *mut c_void, pointer: *mut *mut c_void, message: Message,
    ) -> c_int {
        put(pointer, std::ptr::null_mut());
        say(message, NO_OPENSSL);
        ERROR
    }
}

const NO_OPENSSL: &str = "no ssl connection of OpenSSL";
