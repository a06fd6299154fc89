//! `mirror`: copies of a request go to other URIs of the server; their answers are ignored.
//!
//! Runs in: before the content. The copies go their own way: neither the request nor the next one
//! on its connection waits for them.

use crate::conf::*;
use crate::event;
use crate::http::request_body::RequestBody;
use crate::http::{HttpModule, Merging, Phase, Pipeline, Request, Verdict, Whose, phase};
use crate::log;
use std::rc::Rc;

/// The module.
pub struct Mirror;

impl HttpModule for Mirror {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("mirror", ANY_HTTP, call(exactly(1), RawLoc::mirror)),
        d("mirror_request_body", ANY_HTTP, flag(|c| &mut c.request_body)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            uris: raw.uris.map_or_else(|| up.uris.clone(), Into::into),
            request_body: raw.request_body.unwrap_or(up.request_body),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.uris.is_empty() {
            let loc = loc.clone();
            p.on_async(Phase::PreContent, move |r| {
                let loc = loc.clone();
                Box::pin(async move { mirror(r, &loc).await })
            });
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    /// Empty: `off`
    uris: Option<Vec<Vec<u8>>>,
    request_body: Option<bool>,
}

/// What is in force.
pub struct Loc {
    uris: Rc<[Vec<u8>]>,
    request_body: bool,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { uris: Rc::new([]), request_body: true }
    }
}

impl RawLoc {
    fn mirror(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let uri = r.arg(0);
        let is_off = self.uris.as_ref().is_some_and(Vec::is_empty);
        if is_off || uri == "off" && self.uris.is_some() {
            return Err(Reason::Duplicate);
        }
        let uris = self.uris.get_or_insert_default();
        if uri != "off" {
            uris.push(uri.into());
        }
        Ok(())
    }
}

async fn mirror(r: &mut Request, loc: &Loc) -> Verdict {
    if r.is_subrequest {
        return Verdict::Decline;
    }
    if loc.request_body
        && let Err(fault) = r.keep_body().await
    {
        r.keep_alive = false;
        if !fault.what.is_empty() {
            match fault.whose {
                Whose::Client => {
                    log::info!(&*r, "{fault} while reading client request body");
                }
                _ => log::crit!(&*r, "{fault} while reading client request body"),
            }
        }
        return Verdict::Finish(fault.status);
    }
    for uri in &*loc.uris {
        let mut copy = r.subrequest(uri.clone(), r.place.args.clone());
        copy.method = r.method;
        if loc.request_body {
            copy.body = RequestBody::kept(r.body.chunks().to_vec());
        }
        event::spawn(async move { phase::run_subrequest(&mut copy).await });
    }
    Verdict::Decline
}
