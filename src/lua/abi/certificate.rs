//! Certificates and keys that Lua has parsed, for `setclientcert` and `ngx.ssl`.
//!
//! Lua knows them by numbers that look like addresses; nobody follows them.

use super::{ERROR, Message, bytes, export, put};
use crate::lua::socket::Identity;
use crate::tls::certificate::{chain_of_der, load_chain, load_key};
use crate::tls::private_key;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

thread_local! {
    static ITEMS: RefCell<HashMap<usize, Item>> = RefCell::default();
    static NEXT: Cell<usize> = const { Cell::new(1) };
}

/// What a number stands for.
enum Item {
    Chain(Vec<CertificateDer<'static>>),
    Key(Arc<dyn SigningKey>),
}

/// Numbers are multiples of this.
const STEP: usize = 16;

/// A chain with its key, if there are any.
///
/// Errors: lua-nginx-module's sentence for the socket.
pub fn identity(chain: *mut c_void, key: *mut c_void) -> Result<Option<Identity>, &'static str> {
    if chain.is_null() {
        return Ok(None);
    }
    ITEMS.with_borrow(|items| {
        let Some(Item::Chain(chain)) = items.get(&(chain as usize)) else {
            return Err("invalid client certificate chain");
        };
        match items.get(&(key as usize)) {
            Some(Item::Key(key)) => Ok(Some(Identity::new(chain.clone(), key.clone()))),
            _ => Err("ssl set client private key failed"),
        }
    })
}

/// The chain of a number.
pub fn chain(number: *mut c_void) -> Option<Vec<CertificateDer<'static>>> {
    ITEMS.with_borrow(|items| match items.get(&(number as usize)) {
        Some(Item::Chain(chain)) => Some(chain.clone()),
        _ => None,
    })
}

/// The key of a number.
pub fn key(number: *mut c_void) -> Option<Arc<dyn SigningKey>> {
    ITEMS.with_borrow(|items| match items.get(&(number as usize)) {
        Some(Item::Key(key)) => Some(key.clone()),
        _ => None,
    })
}

fn keep(item: Item) -> *mut c_void {
    let number = NEXT.replace(NEXT.get() + 1) * STEP;
    ITEMS.with_borrow_mut(|items| items.insert(number, item));
    number as *mut c_void
}

fn forget(number: *mut c_void) {
    let gone = ITEMS.try_with(|items| items.borrow_mut().remove(&(number as usize)));
    drop(gone);
}

/// PEM as the loaders take it.
fn source(pem: &[u8]) -> String {
    format!("data:{}", String::from_utf8_lossy(pem))
}

/// Gives what was parsed, or a sentence.
///
/// # Safety
/// `message` must be null or writable.
unsafe fn parsed(item: Option<Item>, message: Message, says: &'static CStr) -> *mut c_void {
    match item {
        Some(item) => keep(item),
        None => {
            // SAFETY: the caller's.
            unsafe { put(message, says.as_ptr()) };
            std::ptr::null_mut()
        }
    }
}

/// Copies `der` into a buffer of `room` bytes: its length, or `ERROR` and a sentence.
///
/// # Safety
/// `room` bytes from `to` on must be writable; `message` null or writable.
unsafe fn give_der(
    der: Option<Vec<u8>>,
    to: *mut u8,
    room: usize,
    message: Message,
    says: &'static CStr,
) -> c_int {
    match der.filter(|der| der.len() <= room) {
        Some(der) => {
            // SAFETY: the caller's; it fits.
            unsafe { std::ptr::copy_nonoverlapping(der.as_ptr(), to, der.len()) };
            der.len() as c_int
        }
        None => {
            // SAFETY: the caller's.
            unsafe { put(message, says.as_ptr()) };
            ERROR
        }
    }
}

export! {
    fn ngx_http_lua_ffi_parse_pem_cert(
        pem: *const u8, len: usize, message: Message,
    ) -> *mut c_void {
        let chain = load_chain(&source(bytes(pem, len))).ok().map(Item::Chain);
        parsed(chain, message, c"PEM_read_bio_X509_AUX() failed")
    }

    fn ngx_http_lua_ffi_parse_pem_priv_key(
        pem: *const u8, len: usize, message: Message,
    ) -> *mut c_void {
        let key = load_key(&source(bytes(pem, len)), &[]).ok().map(Item::Key);
        parsed(key, message, c"PEM_read_bio_PrivateKey() failed")
    }

    fn ngx_http_lua_ffi_parse_der_cert(
        der: *const u8, len: usize, message: Message,
    ) -> *mut c_void {
        let chain = chain_of_der(bytes(der, len)).map(Item::Chain);
        parsed(chain, message, c"d2i_X509_bio() failed")
    }

    fn ngx_http_lua_ffi_parse_der_priv_key(
        der: *const u8, len: usize, message: Message,
    ) -> *mut c_void {
        let key = private_key::from_der(bytes(der, len)).map(Item::Key);
        parsed(key, message, c"d2i_PrivateKey_bio() failed")
    }

    /// The buffer is as long as the PEM, and thus longer than what is in it.
    fn ngx_http_lua_ffi_cert_pem_to_der(
        pem: *const u8, len: usize, der: *mut u8, message: Message,
    ) -> c_int {
        let chain = load_chain(&source(bytes(pem, len))).ok();
        let whole = chain.map(|chain| chain.iter().flat_map(|c| c.to_vec()).collect());
        give_der(whole, der, len, message, c"PEM_read_bio_X509_AUX() failed")
    }

    fn ngx_http_lua_ffi_priv_key_pem_to_der(
        pem: *const u8, len: usize, password: *const c_char, der: *mut u8, message: Message,
    ) -> c_int {
        let password = match password.is_null() {
            true => Vec::new(),
            false => vec![CStr::from_ptr(password).to_bytes().to_vec()],
        };
        let key = private_key::to_der(bytes(pem, len), &password).ok();
        give_der(key, der, len, message, c"PEM_read_bio_PrivateKey() failed")
    }

    fn ngx_http_lua_ffi_free_cert(number: *mut c_void) {
        forget(number);
    }

    fn ngx_http_lua_ffi_free_priv_key(number: *mut c_void) {
        forget(number);
    }
}
