//! `ngx.balancer`, as lua-resty-core calls it.

use super::{ERROR, Message, OK, R, SPOKEN, VERSION_OF_PEER_HOST};
use super::{bytes, export, put, put_message};
use crate::http::upstream::chooser::Choice;
use crate::http::upstream::next::Failed;
use crate::lua::phase::BALANCER;
use crate::lua::vm;
use crate::sys::socket::Address;
use std::ffi::{CStr, c_int, c_long, c_uint, c_ulong, c_void};
use std::time::Duration;

/// What a failed try was: a peer's fault, or a reply that is tried elsewhere.
const FAILED: c_int = 4;
const NEXT: c_int = 2;

/// Gives `f` the request's choice, or the reason why there is none.
unsafe fn choice(
    message: Message,
    f: impl FnOnce(&mut Choice) -> Result<(), &'static CStr>,
) -> c_int {
    let done = match vm::current_phase() == BALANCER {
        true => vm::with_request(|r| f(r.slots.of::<Choice>())).unwrap_or(Err(c"no request found")),
        false => Err(c"API disabled in the current context"),
    };
    match done {
        Ok(()) => OK,
        Err(why) => {
            // SAFETY: lua-resty-core's pointer for messages.
            unsafe { put(message, why.as_ptr()) };
            ERROR
        }
    }
}

export! {
    /// Older versions of lua-resty-core pass the message where newer ones pass a host for TLS.
    fn ngx_http_lua_ffi_balancer_set_current_peer(
        _r: R, address: *const u8, len: usize, port: c_int, host: *mut c_void, host_len: isize,
        message: Message,
    ) -> c_int {
        let has_host = SPOKEN.get() >= VERSION_OF_PEER_HOST;
        let message = if has_host { message } else { host.cast() };
        let named = match has_host && host_len > 0 {
            true => bytes(host.cast(), host_len as usize),
            false => &[],
        };
        let name = (!named.is_empty()).then(|| String::from_utf8_lossy(named).into());
        let text = String::from_utf8_lossy(bytes(address, len)).into_owned();
        choice(message, |choice| {
            choice.address = Some(address_of(&text, port)?);
            choice.host = name;
            Ok(())
        })
    }

    fn ngx_http_lua_ffi_balancer_enable_keepalive(
        _r: R, timeout_ms: c_ulong, requests: c_uint, message: Message,
    ) -> c_int {
        choice(message, |choice| {
            if choice.address.is_none() {
                return Err(c"no current peer set");
            }
            choice.keep = Some((Duration::from_millis(timeout_ms), requests.into()));
            Ok(())
        })
    }

    fn ngx_http_lua_ffi_balancer_set_more_tries(
        _r: R, count: c_int, message: Message,
    ) -> c_int {
        put(message, std::ptr::null());
        let mut is_reduced = false;
        let done = choice(message, |choice| {
            let mut count = count.max(0) as u32;
            if choice.tries_max > 0 && choice.tries + count > choice.tries_max {
                count = choice.tries_max.saturating_sub(choice.tries);
                is_reduced = true;
            }
            choice.more_tries = count;
            Ok(())
        });
        if is_reduced {
            put(message, c"reduced tries due to limit".as_ptr());
        }
        done
    }

    fn ngx_http_lua_ffi_balancer_get_last_failure(
        _r: R, status: *mut c_int, message: Message,
    ) -> c_int {
        let mut last = None;
        let done = choice(message, |choice| {
            last = choice.last;
            Ok(())
        });
        match last {
            None => done,
            Some(failed) => {
                put(status, failed.status().into());
                if matches!(failed, Failed::Status(_)) { NEXT } else { FAILED }
            }
        }
    }

    /// Milliseconds; 0 is what the directives say.
    fn ngx_http_lua_ffi_balancer_set_timeouts(
        _r: R, connect: c_long, send: c_long, read: c_long, message: Message,
    ) -> c_int {
        choice(message, |choice| {
            choice.timeouts = [connect, send, read].map(|ms| {
                u64::try_from(ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
            });
            Ok(())
        })
    }

    /// The request was written before code ran, or for the try before; it is written once more.
    fn ngx_http_lua_ffi_balancer_recreate_request(_r: R, message: Message) -> c_int {
        choice(message, |choice| {
            choice.rewrite = true;
            Ok(())
        })
    }

    fn ngx_http_lua_ffi_balancer_set_upstream_tls(_r: R, on: c_int, message: Message) -> c_int {
        choice(message, |_| match on {
            0 => Err(c"switching TLS off is not supported"),
            _ => Ok(()),
        })
    }

    fn ngx_http_lua_ffi_balancer_bind_to_local_addr(
        _r: R, _address: *const u8, _len: usize, message: *mut u8, message_len: *mut usize,
    ) -> c_int {
        put_message(b"binding to a local address is not supported", message, message_len);
        ERROR
    }
}

/// An address that code named: `10.0.0.1`, `[::1]`, `unix:/path`.
fn address_of(text: &str, port: c_int) -> Result<Address, &'static CStr> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(path.into()));
    }
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse();
    let ip: std::net::IpAddr = ip.map_err(|_| c"no host allowed")?;
    let port = u16::try_from(port).map_err(|_| c"invalid port")?;
    Ok(Address::Inet((ip, port).into()))
}
