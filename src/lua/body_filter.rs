//! `body_filter_by_lua`: code sees a reply's body piece by piece, and may change it.
//!
//! The code needs its request, which whoever sends the body has. Therefore a body that is not
//! there yet is filtered by a [`Rest`](crate::http::rest::Rest): it pulls from the old body and
//! feeds the new one. A body that is there, small and whole, is filtered at once.

use super::conf::Script;
use super::phase;
use super::run::{self, Outcome, Progress};
use crate::http::body::Bytes;
use crate::http::pipe::{KEPT_MAX, Pipe};
use crate::http::rest::{self, Rest};
use crate::http::{Body, Fault, Filtered, Request};
use crate::io::Chunk;
use crate::log;
use std::future::poll_fn;
use std::rc::Rc;

/// A body of no more bytes that lies in memory is filtered before its head is made.
const AT_ONCE_MAX: u64 = 64 << 10;

/// The piece that the code sees: `ngx.arg`.
#[derive(Default)]
pub struct Piece {
    pub bytes: Vec<u8>,
    pub is_last: bool,
}

/// Lets `script` see the reply's body.
pub fn filter(script: &Rc<Script>, r: &mut Request) -> Filtered {
    if r.is_head() || r.reply.head_only || matches!(r.reply.status, ..200 | 204 | 304) {
        return Filtered::Pass;
    }
    let body = std::mem::take(&mut r.reply.body);
    if let Some(bytes) = at_once(&body) {
        return match run(script, r, bytes, true) {
            Ok(piece) => {
                r.reply.length = None;
                r.reply.body = Body::bytes(piece.bytes);
                Filtered::Pass
            }
            Err(_) => Filtered::Instead(500),
        };
    }
    let (script, pipe, before) = (script.clone(), Pipe::default(), r.reply.rest.take());
    r.reply.body = pipe.body();
    r.reply.rest = Some(Box::new(move |r| {
        Box::pin(async move {
            let is_well = feed(&script, r, body, before, &pipe).await;
            if let Err(fault) = &is_well
                && !fault.what.is_empty()
            {
                log::error!(&*r, "{fault}");
            }
            pipe.close(is_well.is_ok());
        })
    }));
    Filtered::Pass
}

/// The bytes of a body that is there, if they are few.
fn at_once(body: &Body) -> Option<Vec<u8>> {
    match body {
        Body::Empty => Some(Vec::new()),
        Body::Whole(Chunk::Mem(bytes)) if bytes.len() as u64 <= AT_ONCE_MAX => Some(bytes.to_vec()),
        _ => None,
    }
}

/// Filters what `body` gives into `pipe`. What feeds `body` itself comes to its end first, as
/// nobody else may have the request meanwhile.
async fn feed(
    script: &Script,
    r: &mut Request,
    mut body: Body,
    before: Option<Rest>,
    pipe: &Pipe,
) -> Result<(), Fault> {
    if let Some(before) = before {
        body = rest::collect(before, r, body, KEPT_MAX).await?;
    }
    let mut bytes = Bytes::of(body);
    loop {
        let next = poll_fn(|cx| bytes.poll_next(cx)).await?;
        let is_last = next.is_none();
        let piece = next.map_or_else(Vec::new, |bytes| bytes.to_vec());
        let piece = run(script, r, piece, is_last)?;
        pipe.push(piece.bytes);
        if piece.is_last {
            return Ok(());
        }
        pipe.has_room().await;
    }
}

/// Runs the code on a piece. Errors: it failed, which was logged.
fn run(script: &Script, r: &mut Request, bytes: Vec<u8>, is_last: bool) -> Result<Piece, Fault> {
    let progress = r.slots.of::<Progress>();
    progress.piece = Some(Piece { bytes, is_last });
    let is_head_made = std::mem::replace(&mut progress.has_said, true);
    let outcome = run::at_once(script, r, phase::BODY_FILTER);
    let progress = r.slots.of::<Progress>();
    progress.has_said = is_head_made;
    let piece = progress.piece.take().unwrap_or_default();
    match outcome {
        Outcome::Failed => Err(Fault::own("")),
        Outcome::Exit(code) if !(0..300).contains(&code) => Err(Fault::own("")),
        _ => Ok(piece),
    }
}
