//! Code that takes part in TLS handshakes: `ssl_client_hello_by_lua`, `ssl_certificate_by_lua`.
//!
//! It runs once per connection, between the client's hello and our answer, and may wait. What it
//! sets through `ngx.ssl` goes to the handshake's `Change`; its `ngx.ctx` stays in the connection's
//! slots, where requests that come over it look for what theirs lacks. Unlike OpenResty's, our
//! certificate phase also runs where a session is resumed: whether it will be is known to nobody
//! before.

use super::conf::{CERTIFICATE, CLIENT_HELLO, Loc, Script};
use super::coroutine::Coroutine;
use super::crew::{Apart, Crew};
use super::phase::{self, Phases};
use super::run::{self, Lines, Outcome};
use super::socket::{Around, Life};
use super::voice::Voice;
use crate::http::Pipeline;
use crate::http::handshake::{Handshake, HandshakeHandler};
use crate::log;
use std::rc::Rc;

/// Puts the server's code into its pipeline.
pub fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
    let handler = |script: &Rc<Script>, phase| -> HandshakeHandler {
        let script = script.clone();
        Box::new(move |handshake| {
            let script = script.clone();
            Box::pin(async move { take_part(&script, handshake, phase).await })
        })
    };
    if let Some(script) = &loc.scripts[CLIENT_HELLO] {
        p.on_client_hello(handler(script, phase::SSL_CLIENT_HELLO));
    }
    if let Some(script) = &loc.scripts[CERTIFICATE] {
        p.on_certificate(handler(script, phase::SSL_CERT));
    }
}

/// Says whether the handshake goes on.
async fn take_part(script: &Script, handshake: Rc<Handshake>, phase: Phases) -> bool {
    let voice = Voice::of_handshake(&handshake, phase);
    let coroutine = script.code(None).map_err(|no| no.says().to_vec());
    let coroutine = match coroutine.and_then(|code| Coroutine::new(&code)) {
        Ok(coroutine) => coroutine,
        Err(message) => {
            let what = phase::name(phase);
            log::error!(&*voice, "failed to load {what} code: {}", Lines(&message));
            return false;
        }
    };
    let around = Around::at(&handshake.server.root.confs);
    let life = Life::apart(around, Some(voice.clone()));
    let crew =
        Crew::apart(coroutine, Apart { life, voice: voice.clone(), handshake: Some(handshake) });
    let code = match run::lead(&crew, None, phase).await {
        Outcome::Done(_) => 0,
        Outcome::Exit(code) => code,
        _ => 500,
    };
    let is_fine = (0..300).contains(&code);
    log::debug_http!(
        &*voice,
        "{}: handler return value: {code}, {} cb exit code: {}",
        phase::name(phase).trim_end_matches('*'),
        if phase == phase::SSL_CERT { "cert" } else { "client hello" },
        i32::from(is_fine),
    );
    is_fine
}
