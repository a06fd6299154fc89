//! `sslhandshake`: a plain connection becomes a secure one.

use super::fault::Fault;
use super::settings::Tls;
use super::tcp::{End, Tcp};
use crate::event::Deadline;
use crate::io::Conn;
use crate::log;
use crate::lua::vm::{Operation, Stack};
use crate::sys;
use crate::tls::path::PathFault;
use crate::tls::secure::{self, TlsSession};
use crate::tls::{host_name, x509::Cert};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use std::ffi::c_int;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

/// Tickets that a session keeps.
const TICKETS_PER_SESSION: usize = 4;

/// What resumes a session: the tickets that came over its connections.
pub type Session = Arc<dyn ClientSessionStore>;

/// A certificate with its key, for `setclientcert`.
pub type Identity = CertifiedKey;

/// What `sslhandshake` was called with.
pub struct Shake {
    /// What a handshake before came to.
    pub session: Option<Session>,
    /// Whether its own session is wanted.
    pub keeps_session: bool,
    /// What the server is called.
    pub name: String,
    pub verify: bool,
    pub identity: Option<Identity>,
}

/// What the last handshake came to.
#[derive(Default)]
pub struct Shaken {
    pub session: Option<Session>,
    pub failed: Option<Failed>,
}

/// A handshake that failed: what Lua is told, and OpenSSL's number if it was the certificate.
#[derive(Clone)]
pub struct Failed {
    pub says: String,
    pub number: u16,
}

impl Failed {
    fn says(text: impl Into<String>) -> Failed {
        Failed { says: text.into(), number: 0 }
    }
}

impl Tcp {
    /// Whether TLS is on the connection already.
    pub fn is_secure(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is_secure())
    }

    /// What the last handshake came to.
    pub fn session(&self) -> Option<Session> {
        self.shaken.borrow().session.clone()
    }

    /// Why the last handshake failed.
    pub fn handshake_failure(&self) -> Option<Failed> {
        self.shaken.borrow().failed.clone()
    }
}

/// Begins a handshake: the operation that must be waited for, if it is not over at once.
pub fn shake(tcp: &Rc<Tcp>, shake: Shake) -> Option<Box<dyn Operation>> {
    tcp.shaken.take();
    let mut shaking = Shaking {
        tcp: tcp.clone(),
        future: Box::pin(secure_with(tcp.clone(), shake)),
        is_over: false,
    };
    tcp.set_waits(|waits| waits.connecting = true);
    let mut nobody = Context::from_waker(Waker::noop());
    match shaking.poll(&mut nobody) {
        Poll::Ready(()) => None,
        Poll::Pending => Some(Box::new(shaking)),
    }
}

async fn secure_with(tcp: Rc<Tcp>, shake: Shake) -> Result<Session, Failed> {
    let settings = tcp.settings();
    let failed = |fault: &dyn std::fmt::Display| {
        if settings.log_errors {
            log::error!(&tcp.speaker, "{fault}");
        }
        Failed::says("handshake failed")
    };
    let conn = match std::mem::replace(&mut *tcp.end.borrow_mut(), End::Coming) {
        End::Peer(conn) => conn,
        _ => return Err(Failed::says("closed")),
    };
    let conn = Rc::try_unwrap(conn).map_err(|_| Failed::says("handshake failed"))?;
    let client = settings.tls.client().map_err(|why| failed(&why))?;
    let session = shake
        .session
        .unwrap_or_else(|| Arc::new(ClientSessionMemoryCache::new(TICKETS_PER_SESSION)));
    let client = match (shake.identity, shake.keeps_session) {
        (Some(identity), true) => &client.with_certificate(identity).with_sessions(&session),
        (Some(identity), false) => &client.with_certificate(identity),
        (None, true) => &client.with_sessions(&session),
        (None, false) => client,
    };
    if !shake.name.is_empty() {
        log::debug_http!(&tcp.speaker, "lua ssl server name: \"{}\"", shake.name);
    }
    let shaking = secure::connect(conn.into_stream(), client, "", &shake.name);
    let done = Deadline::after(tcp.timeouts.connect.get()).bound(shaking).await;
    let (conn, _) = match done {
        Ok(done) => done.map_err(|fault| failed(&fault))?,
        Err(_) => return Err(Failed::says(Fault::Timeout.text())),
    };
    if shake.verify {
        verify(&tcp, &conn, &settings.tls, &shake.name)?;
    }
    tcp.end.replace(End::Peer(Rc::new(conn)));
    Ok(session)
}

/// Judges the certificate of a server that should be called `name`, if it is called anything.
fn verify(tcp: &Tcp, conn: &Conn, tls: &Tls, name: &str) -> Result<(), Failed> {
    let log_errors = tcp.settings().log_errors;
    let chain = conn.session(|session: &TlsSession| session.peer_certificates().to_vec());
    let chain: Vec<CertificateDer<'static>> = chain.unwrap_or_default();
    let trust = tls.trust().map_err(|why| Failed::says(why.to_string()))?;
    let now = u64::try_from(sys::time::unix_seconds()).unwrap_or_default();
    trust.judge(&chain, now).map_err(|fault| {
        // OpenSSL stops at the first fault here, where nginx lets it go on.
        let fault = match fault {
            PathFault::UnverifiedLeaf => PathFault::NoLocalIssuer,
            other => other,
        };
        if log_errors {
            log::error!(
                &tcp.speaker,
                "lua ssl certificate verify error: ({}: {})",
                fault.number(),
                fault.text()
            );
        }
        Failed { says: fault.text().to_owned(), number: fault.number() }
    })?;
    let leaf = chain.first().and_then(|der| Cert::parse(der));
    if name.is_empty() || leaf.is_some_and(|leaf| host_name::matches(&leaf, name)) {
        return Ok(());
    }
    if log_errors {
        log::error!(&tcp.speaker, "lua ssl certificate does not match host \"{name}\"");
    }
    Err(Failed::says("certificate host mismatch"))
}

/// A handshake under way.
struct Shaking {
    tcp: Rc<Tcp>,
    future: Pin<Box<dyn Future<Output = Result<Session, Failed>>>>,
    is_over: bool,
}

impl Operation for Shaking {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let result = ready!(self.future.as_mut().poll(cx));
        self.is_over = true;
        self.tcp.set_waits(|waits| waits.connecting = false);
        let shaken = match result {
            Ok(session) => Shaken { session: Some(session), failed: None },
            Err(failed) => {
                self.tcp.close();
                Shaken { session: None, failed: Some(failed) }
            }
        };
        self.tcp.shaken.replace(shaken);
        Poll::Ready(())
    }

    /// lua-resty-core asks for the result.
    fn finish(&mut self, _: &mut Stack) -> c_int {
        0
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        if !self.is_over {
            self.tcp.set_waits(|waits| waits.connecting = false);
            self.tcp.close();
        }
    }
}
