//! Who speaks in the log where code runs without a request.

use super::crew::Crew;
use super::phase::{self, Phases};
use super::vm;
use crate::http::client;
use crate::http::handshake::Handshake;
use crate::http::place::Address;
use crate::log::{self, Area, Level};
use std::fmt::Arguments;
use std::rc::Rc;

/// The voice of a timer or of a handshake's code.
pub struct Voice {
    phase: Phases,
    /// The client on whose behalf it runs: its address, and the one that it came to.
    client: Option<(Rc<str>, Rc<Address>)>,
    log: Option<log::Log>,
}

impl Voice {
    /// That of a timer which the running code sets.
    pub fn of_timer() -> Rc<Voice> {
        let of_request = vm::with_request(|r| {
            let client = Some((r.client.peer_text(), r.client.address.clone()));
            Voice { phase: phase::TIMER, client, log: log::Context::log(r) }
        });
        let voice = of_request.unwrap_or_else(|| match Crew::voice() {
            Some(voice) => {
                Voice { phase: phase::TIMER, client: voice.client.clone(), log: voice.log.clone() }
            }
            None => Voice { phase: phase::TIMER, client: None, log: None },
        });
        Rc::new(voice)
    }

    /// That of code that takes part in a handshake.
    pub fn of_handshake(handshake: &Handshake, phase: Phases) -> Rc<Voice> {
        let peer = client::address_text(&handshake.peer).into();
        let client = Some((peer, handshake.address.clone()));
        Rc::new(Voice { phase, client, log: log::Context::log(handshake) })
    }
}

impl log::Context for Voice {
    fn log(&self) -> Option<log::Log> {
        self.log.clone()
    }

    fn describe(&self, line: &mut log::Line) {
        line.push(b", context: ");
        line.push(phase::name(self.phase).as_bytes());
        if let Some((peer, address)) = &self.client {
            client::describe(peer, address, line);
        }
    }
}

/// Writes to the log of the code that runs, whoever that is.
pub fn write(level: Level, text: Arguments<'_>) {
    // What nginx is about meanwhile stands behind the text.
    let of_request = vm::with_request(|r| match vm::current_phase() {
        phase::BALANCER => {
            let text = format_args!("{text} while connecting to upstream");
            log::write_for(&*r, level, Area::Http, text);
        }
        phase::LOG => {
            log::write_for(&*r, level, Area::Http, format_args!("{text} while logging request"));
        }
        _ => log::write_for(&*r, level, Area::Http, text),
    });
    if of_request.is_some() {
        return;
    }
    match Crew::voice() {
        Some(voice) => log::write_for(&*voice, level, Area::Http, text),
        None => log::write(level, Area::Http, text),
    }
}
