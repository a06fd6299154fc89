//! The client's hello: `ngx.ssl.clienthello` through ffi, and `tollbar.clienthello`.

use super::{DECLINED, ERROR, Message, OK, R, export, functions, give, need_text, put};
use crate::http::handshake::Handshake;
use crate::lua::crew::Crew;
use crate::lua::vm::{self, Stack, Value};
use crate::tls::ciphers::Protocol;
use crate::tls::client_hello::{ClientHello, extension, is_grease};
use crate::tls::fingerprint::Traits;
use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::rc::Rc;

thread_local! {
    /// Numbers that were given to Lua by pointer, until the next time.
    static NUMBERS: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
}

/// lua-resty-core's bits of protocols.
const PROTOCOLS: [(c_int, Protocol); 6] = [
    (0x0002, Protocol::Sslv2),
    (0x0004, Protocol::Sslv3),
    (0x0008, Protocol::Tls1),
    (0x0010, Protocol::Tls11),
    (0x0020, Protocol::Tls12),
    (0x0040, Protocol::Tls13),
];

/// Calls `f` with the handshake whose code runs; without one, says so.
///
/// # Safety
/// `message` must be null or writable.
pub unsafe fn with_handshake(message: Message, f: impl FnOnce(&Rc<Handshake>) -> c_int) -> c_int {
    match Crew::handshake() {
        Some(handshake) => f(&handshake),
        None => {
            // SAFETY: the caller's.
            unsafe { put(message, c"bad request".as_ptr()) };
            ERROR
        }
    }
}

export! {
    fn ngx_http_lua_ffi_ssl_get_client_hello_server_name(
        _r: R, name: *mut *mut u8, len: *mut usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let hello = handshake.hello();
            match (hello.server_name, hello.extension(extension::SERVER_NAME)) {
                (Some(found), _) => give_to(found, name, len),
                (None, None) => DECLINED,
                (None, Some(_)) => {
                    put(message, c"Bad SSL Client Hello Extension".as_ptr());
                    ERROR
                }
            }
        })
    }

    fn ngx_http_lua_ffi_ssl_get_client_hello_ext(
        _r: R, kind: c_uint, out: *mut *mut u8, len: *mut usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let kind = u16::try_from(kind).ok();
            match kind.and_then(|kind| handshake.hello().extension(kind)) {
                Some(found) => give_to(found, out, len),
                None => DECLINED,
            }
        })
    }

    /// In the order of the wire; OpenSSL leaves out those that it does not know.
    fn ngx_http_lua_ffi_ssl_get_client_hello_ext_present(
        _r: R, out: *mut *const c_int, len: *mut usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let kinds = handshake.hello().extensions().map(|(kind, _)| kind);
            let kinds: Vec<c_int> =
                kinds.filter(|kind| !is_grease(*kind)).map(c_int::from).collect();
            if kinds.is_empty() {
                return DECLINED;
            }
            NUMBERS.with_borrow_mut(|numbers| {
                *numbers = kinds;
                put(out, numbers.as_ptr());
                put(len, numbers.len());
            });
            OK
        })
    }

    fn ngx_http_lua_ffi_ssl_get_client_hello_ciphers(
        _r: R, out: *mut u16, room: usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let ciphers: Vec<u16> = handshake.hello().ciphers.iter().take(room).collect();
            if ciphers.is_empty() {
                put(message, c"failed SSL_client_hello_get0_ciphers()".as_ptr());
                return DECLINED;
            }
            std::ptr::copy_nonoverlapping(ciphers.as_ptr(), out, ciphers.len());
            ciphers.len() as c_int
        })
    }

    fn ngx_http_lua_ffi_ssl_set_protocols(_r: R, wanted: c_int, message: Message) -> c_int {
        with_handshake(message, |handshake| {
            let named = PROTOCOLS.iter().filter(|(bit, _)| wanted & bit != 0);
            let protocols = named.map(|(_, protocol)| *protocol).collect();
            handshake.change.borrow_mut().protocols = Some(protocols);
            OK
        })
    }
}

/// # Safety
/// Both pointers must be null or writable.
pub unsafe fn give_to(found: &[u8], out: *mut *mut u8, len: *mut usize) -> c_int {
    let (data, size) = give(found.to_vec());
    // SAFETY: the caller's.
    unsafe {
        put(out, data);
        put(len, size);
    }
    OK
}

functions! {
    client_hello => push_fact;
}

/// One fact of the hello by its name. In phases of a request some are not known any more, and are
/// nil; so are all on a connection without TLS.
fn push_fact(stack: &mut Stack) -> Result<c_int, Vec<u8>> {
    let name = need_text(stack, 1)?;
    let fact = match Crew::handshake() {
        Some(handshake) => {
            let hello = handshake.hello();
            fact_of_hello(&name, &hello).or_else(|| fact_of_traits(&name, &Traits::of(&hello)))
        }
        None => vm::with_request(|r| {
            let tls = r.client.tls.as_ref()?;
            match &*name {
                b"server_name" => tls.server_name().map(|name| Value::Text(name.to_vec())),
                name => fact_of_traits(name, tls.hello()?),
            }
        })
        .ok_or("no request found")?,
    };
    stack.push(&fact.unwrap_or(Value::Nil));
    Ok(1)
}

fn fact_of_hello(name: &[u8], hello: &ClientHello<'_>) -> Option<Value> {
    match name {
        b"raw" => Some(Value::Text(hello.message.to_vec())),
        b"server_name" => hello.server_name.map(|name| Value::Text(name.to_vec())),
        b"alpn" => {
            let protocols = hello.alpn.iter().map(|protocol| Value::Text(protocol.to_vec()));
            Some(Value::List(protocols.collect()))
        }
        _ => None,
    }
}

fn fact_of_traits(name: &[u8], traits: &Traits) -> Option<Value> {
    let text = |text: String| Some(Value::Text(text.into_bytes()));
    let list = |codes: &[u16]| {
        let codes = codes.iter().map(|code| Value::Number(f64::from(*code)));
        Some(Value::List(codes.collect()))
    };
    match name {
        b"ja3" => text(traits.ja3()),
        b"ja3_hash" => text(traits.ja3_hash()),
        b"ja4" => text(traits.ja4()),
        b"ja4_raw" => text(traits.ja4_raw()),
        b"versions" => list(traits.versions()),
        b"ciphers" => list(traits.ciphers()),
        b"extensions" => list(traits.extensions()),
        b"groups" => list(traits.groups()),
        b"signature_algorithms" => list(traits.signature_algorithms()),
        _ => None,
    }
}
