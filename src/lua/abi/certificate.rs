//! Certificates and keys that Lua has parsed, for `setclientcert`.
//!
//! Lua knows them by numbers that look like addresses; nobody follows them.

use super::{Message, bytes, export, put};
use crate::lua::socket::Identity;
use crate::tls::certificate::{load_chain, load_key};
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_void};
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

    fn ngx_http_lua_ffi_free_cert(number: *mut c_void) {
        forget(number);
    }

    fn ngx_http_lua_ffi_free_priv_key(number: *mut c_void) {
        forget(number);
    }
}
