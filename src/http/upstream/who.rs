//! The request as the log names it, for what outlives the request's handler.

use super::trail::{Note, Trail};
use crate::http::client::Client;
use crate::http::place::{Location, Server};
use crate::http::request::{Head, Request};
use crate::log;
use std::rc::Rc;

/// What the log says of a request.
pub struct Who {
    client: Rc<Client>,
    head: Rc<Head>,
    server: Rc<Server>,
    location: Rc<Location>,
    note: Option<Note>,
    /// The URI of a subrequest.
    subrequest: Option<Box<[u8]>>,
}

impl Who {
    /// Of `r`, as it stands now.
    pub fn of(r: &Request) -> Who {
        Who {
            client: r.client.clone(),
            head: r.head.clone(),
            server: r.place.server.clone(),
            location: r.place.location.clone(),
            note: r.slots.get::<Trail>().and_then(Trail::noted).cloned(),
            subrequest: r.is_subrequest.then(|| r.place.uri.as_slice().into()),
        }
    }

    /// The client's connection.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl log::Context for Who {
    fn log(&self) -> Option<log::Log> {
        self.location.core.error_log.clone()
    }

    fn connection(&self) -> u64 {
        self.client.serial
    }

    fn describe(&self, line: &mut log::Line) {
        let about = (self.subrequest.as_deref(), self.note.as_ref());
        self.head.describe(&self.client, &self.server, about, line);
    }
}
