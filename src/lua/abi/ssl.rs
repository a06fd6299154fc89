//! `ngx.ssl`: what code of a handshake sees of it and sets, and what requests see afterwards.

use super::bytes;
use super::client_hello::{give_to, with_handshake};
use super::{DECLINED, ERROR, Message, OK, R, certificate, export, put};
use crate::http::handshake::Handshake;
use crate::lua::crew::Crew;
use crate::lua::{phase, vm};
use crate::sys::socket::Address;
use crate::tls::certificate::{belong_together, chain_of_der};
use crate::tls::ciphers::Protocol;
use crate::tls::client_hello::is_grease;
use crate::tls::private_key;
use crate::tls::server::AskClient;
use crate::tls::x509::Cert;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use std::ffi::{CStr, c_int, c_void};
use std::net::IpAddr;
use std::sync::Arc;

/// Certificates that a handshake may set; there are fewer kinds of keys.
const CERTIFICATES_MAX: usize = 8;

/// The certificates that code has set, on the way to being whole.
#[derive(Default)]
struct Wanted {
    /// Those of the configuration are not used.
    is_cleared: bool,
    whole: Vec<CertifiedKey>,
    chain: Option<Vec<CertificateDer<'static>>>,
    key: Option<Arc<dyn SigningKey>>,
}

impl Wanted {
    /// Puts chain and key together, once both are there. Errors: they are of different kinds.
    fn join(&mut self) -> Result<(), ()> {
        let (Some(chain), Some(key)) = (&self.chain, &self.key) else { return Ok(()) };
        if belong_together(chain, &**key) != Some(true) || self.whole.len() >= CERTIFICATES_MAX {
            return Err(());
        }
        self.whole.push(CertifiedKey::new(chain.clone(), key.clone()));
        (self.chain, self.key) = (None, None);
        Ok(())
    }
}

/// Lets `f` change what is wanted, and passes on what is whole. Errors: the sentence for Lua.
fn want(
    handshake: &Handshake,
    f: impl FnOnce(&mut Wanted) -> Result<(), &'static CStr>,
) -> Result<(), &'static CStr> {
    let mut slots = handshake.slots.borrow_mut();
    let wanted = slots.of::<Wanted>();
    f(wanted)?;
    let mut list = Vec::new();
    if let (false, Some(tls)) = (wanted.is_cleared, &handshake.server.tls) {
        list.extend(tls.certificates().all().iter().map(|ours| CertifiedKey::clone(ours)));
    }
    list.extend(wanted.whole.iter().cloned());
    handshake.change.borrow_mut().certificates = Some(list);
    Ok(())
}

fn want_chain(wanted: &mut Wanted, chain: Vec<CertificateDer<'static>>) {
    wanted.chain = Some(chain);
    if wanted.join().is_err() {
        // A key of another certificate: its own is still to come.
        wanted.key = None;
    }
}

fn want_key(wanted: &mut Wanted, key: Arc<dyn SigningKey>) -> Result<(), &'static CStr> {
    wanted.key = Some(key);
    wanted.join().map_err(|()| {
        wanted.key = None;
        c"SSL_use_PrivateKey() failed"
    })
}

/// # Safety
/// `message` must be null or writable.
unsafe fn told(done: Result<(), &'static CStr>, message: Message) -> c_int {
    match done {
        Ok(()) => OK,
        Err(says) => {
            // SAFETY: the caller's.
            unsafe { put(message, says.as_ptr()) };
            ERROR
        }
    }
}

/// The ends of the connection whose code runs: the client's and ours.
fn ends() -> Option<(Address, Address)> {
    match Crew::handshake() {
        Some(handshake) => Some((handshake.peer.clone(), handshake.local.clone())),
        None => vm::with_request(|r| {
            r.client.tls.as_ref()?;
            let peer = r.client.peer.borrow().end.clone();
            Some((peer, r.client.local.clone()))
        })?,
    }
}

/// Gives an address as bytes: 4 of IPv4, 16 of IPv6, or the path of a unix socket.
///
/// # Safety
/// All pointers must be null or writable.
unsafe fn give_address(
    end: Option<Address>,
    (out, len, kind): (*mut *mut u8, *mut usize, *mut c_int),
    message: Message,
) -> c_int {
    let (text, number) = match end {
        Some(Address::Inet(inet)) => match inet.ip() {
            IpAddr::V4(ip) => (ip.octets().to_vec(), 1),
            IpAddr::V6(ip) => (ip.octets().to_vec(), 2),
        },
        Some(unix @ Address::Unix(_)) => {
            let text = unix.to_string();
            (text.strip_prefix("unix:").unwrap_or(&text).as_bytes().to_vec(), 0)
        }
        // SAFETY: the caller's.
        None => return unsafe { told(Err(c"bad request"), message) },
    };
    // SAFETY: the caller's.
    unsafe {
        put(kind, number);
        give_to(&text, out, len)
    }
}

export! {
    fn ngx_http_lua_ffi_ssl_get_tls1_version(_r: R, message: Message) -> c_int {
        let version = match Crew::handshake() {
            Some(handshake) => {
                let tls = handshake.server.tls.clone();
                match tls.and_then(|tls| tls.protocol_for(&handshake.hello())) {
                    Some(Protocol::Tls13) => Some(0x0304),
                    _ => Some(0x0303),
                }
            }
            None => {
                vm::with_request(|r| Some(c_int::from(r.client.tls.as_ref()?.version()))).flatten()
            }
        };
        version.unwrap_or_else(|| told(Err(c"bad request"), message))
    }

    fn ngx_http_lua_ffi_ssl_clear_certs(_r: R, message: Message) -> c_int {
        with_handshake(message, |handshake| {
            let cleared = want(handshake, |wanted| {
                *wanted = Wanted { is_cleared: true, ..Wanted::default() };
                Ok(())
            });
            told(cleared, message)
        })
    }

    fn ngx_http_lua_ffi_ssl_set_der_certificate(
        _r: R, der: *const u8, len: usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let chain = chain_of_der(bytes(der, len)).ok_or(c"d2i_X509_bio() failed");
            let done = want(handshake, |wanted| chain.map(|chain| want_chain(wanted, chain)));
            told(done, message)
        })
    }

    fn ngx_http_lua_ffi_ssl_set_der_private_key(
        _r: R, der: *const u8, len: usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let key = private_key::from_der(bytes(der, len)).ok_or(c"d2i_PrivateKey_bio() failed");
            told(want(handshake, |wanted| want_key(wanted, key?)), message)
        })
    }

    fn ngx_http_lua_ffi_set_cert(_r: R, number: *mut c_void, message: Message) -> c_int {
        with_handshake(message, |handshake| {
            let chain = certificate::chain(number).ok_or(c"invalid certificate chain");
            let done = want(handshake, |wanted| chain.map(|chain| want_chain(wanted, chain)));
            told(done, message)
        })
    }

    fn ngx_http_lua_ffi_set_priv_key(_r: R, number: *mut c_void, message: Message) -> c_int {
        with_handshake(message, |handshake| {
            let key = certificate::key(number).ok_or(c"invalid private key");
            told(want(handshake, |wanted| want_key(wanted, key?)), message)
        })
    }

    fn ngx_http_lua_ffi_ssl_verify_client(
        _r: R, named: *mut c_void, trusted: *mut c_void, depth: c_int, message: Message,
    ) -> c_int {
        if vm::current_phase() != phase::SSL_CERT {
            return told(Err(c"API disabled in the current context"), message);
        }
        with_handshake(message, |handshake| {
            let certs = |number: *mut c_void| {
                let chain = certificate::chain(number).unwrap_or_default();
                chain.iter().filter_map(|der| Cert::parse(der)).collect::<Vec<_>>()
            };
            let depth = usize::try_from(depth).ok();
            let asked = AskClient { named: certs(named), trusted: certs(trusted), depth };
            if depth.is_some() && asked.named.is_empty() && asked.trusted.is_empty() {
                let says = c"a depth without certificates is not supported";
                return told(Err(says), message);
            }
            handshake.change.borrow_mut().clients = Some(asked);
            OK
        })
    }

    fn ngx_http_lua_ffi_ssl_raw_server_addr(
        _r: R, out: *mut *mut u8, len: *mut usize, kind: *mut c_int, message: Message,
    ) -> c_int {
        give_address(ends().map(|(_, ours)| ours), (out, len, kind), message)
    }

    fn ngx_http_lua_ffi_ssl_raw_client_addr(
        _r: R, out: *mut *mut u8, len: *mut usize, kind: *mut c_int, message: Message,
    ) -> c_int {
        give_address(ends().map(|(client, _)| client), (out, len, kind), message)
    }

    fn ngx_http_lua_ffi_ssl_server_port(_r: R, out: *mut u16, message: Message) -> c_int {
        match ends() {
            Some((_, Address::Inet(inet))) => {
                put(out, inet.port());
                OK
            }
            Some(_) => told(Err(c"unix domain has no port"), message),
            None => told(Err(c"bad request"), message),
        }
    }

    fn ngx_http_lua_ffi_ssl_server_name(
        _r: R, out: *mut *mut u8, len: *mut usize, message: Message,
    ) -> c_int {
        let name = match Crew::handshake() {
            Some(handshake) => Some(handshake.hello().server_name.map(<[u8]>::to_vec)),
            None => vm::with_request(|r| {
                r.client.tls.as_ref().map(|tls| tls.server_name().map(<[u8]>::to_vec))
            })
            .flatten(),
        };
        match name {
            Some(Some(name)) => give_to(&name, out, len),
            Some(None) => DECLINED,
            None => told(Err(c"bad request"), message),
        }
    }

    fn ngx_http_lua_ffi_req_shared_ssl_ciphers(
        _r: R, out: *mut u16, count: *mut u16, skips_grease: c_int, message: Message,
    ) -> c_int {
        let (server, theirs) = match Crew::handshake() {
            Some(handshake) => {
                let theirs: Vec<u16> = handshake.hello().ciphers.iter().collect();
                (handshake.server.clone(), theirs)
            }
            None => {
                let known = vm::with_request(|r| {
                    let theirs = r.client.tls.as_ref()?.hello()?.ciphers().to_vec();
                    Some((r.place.server.clone(), theirs))
                });
                match known.flatten() {
                    Some(known) => known,
                    None => return told(Err(c"bad request"), message),
                }
            }
        };
        let ours = server.tls.iter().flat_map(|tls| tls.ciphers());
        let shared = ours.filter(|code| theirs.contains(code));
        let shared: Vec<u16> = shared.filter(|c| skips_grease == 0 || !is_grease(*c)).collect();
        if shared.len() > usize::from(count.read()) {
            put(count, 0);
            return told(Err(c"buffer too small"), message);
        }
        std::ptr::copy_nonoverlapping(shared.as_ptr(), out, shared.len());
        put(count, shared.len() as u16);
        OK
    }

    fn ngx_http_lua_ffi_ssl_client_random(
        _r: R, out: *mut u8, len: *mut usize, message: Message,
    ) -> c_int {
        with_handshake(message, |handshake| {
            let random = *handshake.hello().random;
            // A length of 0 asks for the length.
            let wanted = len.read();
            let count = if wanted == 0 { random.len() } else { wanted.min(random.len()) };
            if wanted > 0 {
                std::ptr::copy_nonoverlapping(random.as_ptr(), out, count);
            }
            put(len, count);
            OK
        })
    }

    /// It is drawn by the TLS library, behind the last handler.
    fn ngx_http_lua_ffi_ssl_server_random(
        _r: R, _out: *mut u8, _len: *mut usize, message: Message,
    ) -> c_int {
        told(Err(c"the server's random is not known"), message)
    }

    fn ngx_http_lua_ffi_ssl_session_master_key(
        _r: R, _out: *mut u8, _len: *mut usize, message: Message,
    ) -> c_int {
        told(Err(c"the master key stays in the TLS library"), message)
    }

    fn ngx_http_lua_ffi_ssl_export_keying_material(
        _r: R, _out: *mut u8, _size: usize, _label: *const u8, _label_len: usize,
        _context: *const u8, _context_len: usize, _has_context: c_int, message: Message,
    ) -> c_int {
        told(Err(c"exporting keying material is not supported"), message)
    }

    fn ngx_http_lua_ffi_ssl_export_keying_material_early(
        _r: R, _out: *mut u8, _size: usize, _label: *const u8, _label_len: usize,
        _context: *const u8, _context_len: usize, message: Message,
    ) -> c_int {
        told(Err(c"exporting keying material is not supported"), message)
    }

    /// There is no OpenSSL here whose `SSL` could be pointed to.
    fn ngx_http_lua_ffi_get_req_ssl_pointer(_r: R, message: Message) -> *mut c_void {
        told(Err(c"there is no OpenSSL connection"), message);
        std::ptr::null_mut()
    }

    fn ngx_http_lua_ffi_get_upstream_ssl_pointer(_r: R, message: Message) -> *mut c_void {
        told(Err(c"there is no OpenSSL connection"), message);
        std::ptr::null_mut()
    }
}
