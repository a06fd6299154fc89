//! TLS handshakes that modules take part in, behind the client's hello.
//!
//! The server is chosen by the name in the hello. Then its handlers run, in this order: those of
//! the hello, and those of the certificate. What they set is true for this connection only.

use super::place::{Address, Server};
use super::request::Slots;
use super::{LocalBoxFuture, client};
use crate::log;
use crate::sys::socket::Address as Socket;
use crate::tls::client_hello::ClientHello;
use crate::tls::server::{Alert, Change, Choice, Part};
use std::cell::RefCell;
use std::rc::Rc;

/// Takes part in handshakes, and may wait. Says whether they go on.
pub type HandshakeHandler = Box<dyn Fn(Rc<Handshake>) -> LocalBoxFuture<'static, bool>>;

/// A handshake whose hello was read, and not answered yet.
pub struct Handshake {
    /// The client.
    pub peer: Socket,
    /// Our end.
    pub local: Socket,
    /// The listening address.
    pub address: Rc<Address>,
    /// Whose handlers run.
    pub server: Rc<Server>,
    /// The hello, a whole message that could be parsed.
    message: Box<[u8]>,
    /// What handlers have set.
    pub change: RefCell<Change>,
    /// What modules remember; the connection's, if it comes to one.
    pub slots: RefCell<Slots>,
}

impl Handshake {
    /// A handshake that begins with `hello`.
    pub(super) fn new(
        (peer, local): (Socket, Socket),
        address: Rc<Address>,
        server: Rc<Server>,
        hello: &ClientHello<'_>,
    ) -> Rc<Handshake> {
        Rc::new(Handshake {
            peer,
            local,
            address,
            server,
            message: hello.message.into(),
            change: RefCell::default(),
            slots: RefCell::default(),
        })
    }

    /// The client's hello.
    pub fn hello(&self) -> ClientHello<'_> {
        ClientHello::parse(&self.message).expect("it was parsed before")
    }

    /// Lets the server's handlers decide.
    pub(super) async fn lead(self: Rc<Handshake>) -> Choice {
        let Some(tls) = self.server.tls.clone() else {
            return Choice::Refuse(Alert::InternalError);
        };
        let (own, default) = (&self.server.root.pipeline, &self.address.default.root.pipeline);
        // The default server's handler of hellos sees those that nobody else looks at: a
        // configuration may have it there alone, to decide for all names.
        let hello = own.client_hello_handler().or(default.client_hello_handler());
        let certificate = own.certificate_handler();
        for (handler, part) in [(hello, Part::ClientHello), (certificate, Part::Certificate)] {
            if let Some(handler) = handler
                && !handler(self.clone()).await
            {
                return Choice::Stop(part);
            }
        }
        let change = self.change.take();
        if change.is_empty() || tls.config().is_none() {
            return Choice::Serve(tls);
        }
        match tls.changed(change) {
            Ok(tls) => Choice::Serve(Rc::new(tls)),
            Err(refusal) => {
                log::error!(&*self, "{refusal} while SSL handshaking");
                Choice::Refuse(Alert::ProtocolVersion)
            }
        }
    }
}

/// Whether modules take part in handshakes with `server`.
pub(super) fn has_handlers(server: &Server, address: &Address) -> bool {
    let (own, default) = (&server.root.pipeline, &address.default.root.pipeline);
    own.certificate_handler().is_some()
        || own.client_hello_handler().is_some()
        || default.client_hello_handler().is_some()
}

impl log::Context for Handshake {
    fn log(&self) -> Option<log::Log> {
        self.server.root.core.error_log.clone()
    }

    fn describe(&self, line: &mut log::Line) {
        client::describe(&client::address_text(&self.peer), &self.address, line);
    }
}
