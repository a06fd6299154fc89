//! What lua-resty-core takes from the executable for sockets while it loads. There are no
//! cosockets yet, so nobody can call it with one.

use super::{ERROR, Message, R, export, put};
use std::ffi::{c_int, c_void};

export! {
    fn ngx_http_lua_ffi_socket_tcp_getoption(
        _r: R, _socket: *mut c_void, _option: c_int, _value: *mut c_int, _message: *mut u8,
        _len: *mut usize,
    ) -> c_int {
        ERROR
    }

    fn ngx_http_lua_ffi_socket_tcp_setoption(
        _r: R, _socket: *mut c_void, _option: c_int, _value: c_int, _message: *mut u8,
        _len: *mut usize,
    ) -> c_int {
        ERROR
    }

    fn ngx_http_lua_ffi_socket_tcp_getfd(
        _r: R, _socket: *mut c_void, message: Message,
    ) -> c_int {
        put(message, c"closed".as_ptr());
        ERROR
    }
}
