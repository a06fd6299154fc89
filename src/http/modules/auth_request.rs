//! `auth_request`: whether a request may pass is asked of another URI of the server.
//!
//! Runs in: access. The answer's status decides: 2xx lets the request pass, 401 and 403 refuse
//! it, everything else is an error.

use crate::conf::*;
use crate::http::{
    HttpModule, Merging, Phase, Pipeline, Request, Template, VarRef, VariableTable, Verdict, phase,
};
use crate::log;
use crate::proto::header::HeaderId;
use std::rc::Rc;

/// The module.
pub struct AuthRequest;

impl HttpModule for AuthRequest {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] = &[
        d("auth_request", ANY_HTTP, call(exactly(1), RawLoc::uri)),
        d("auth_request_set", ANY_HTTP, call(exactly(2), RawLoc::set)),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc {
            uri: raw.uri.unwrap_or_else(|| up.uri.clone()),
            set: if raw.set.is_empty() { up.set.clone() } else { raw.set.into() },
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.uri.is_empty() {
            let loc = loc.clone();
            p.on_async(Phase::Access, move |r| {
                let loc = loc.clone();
                Box::pin(async move { auth_request(r, &loc).await })
            });
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    /// Empty: `off`
    uri: Option<Vec<u8>>,
    set: Vec<(VarRef, Template)>,
}

/// What is in force.
#[derive(Default)]
pub struct Loc {
    uri: Vec<u8>,
    set: Rc<[(VarRef, Template)]>,
}

impl RawLoc {
    fn uri(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.uri.is_some() {
            return Err(Reason::Duplicate);
        }
        let text = r.arg(0);
        self.uri = Some(if text == "off" { Vec::new() } else { text.into() });
        Ok(())
    }

    fn set(&mut self, r: &mut Reading) -> Result<(), Reason> {
        let args = r.take_args();
        let Some(name) = args[0].strip_prefix('$') else {
            return Err(Reason::says(format!("invalid variable name \"{}\"", args[0])));
        };
        let variable = r.shelf.of::<VariableTable>().assign(name)?;
        let value = Template::parse(&args[1], r)?;
        self.set.push((variable, value));
        Ok(())
    }
}

async fn auth_request(r: &mut Request, loc: &Loc) -> Verdict {
    let mut asked = r.subrequest(loc.uri.clone(), Vec::new());
    phase::run_subrequest(&mut asked).await;
    for (variable, value) in &*loc.set {
        let value = value.value(&asked).into_owned();
        r.set_variable(variable, &value);
    }
    match asked.reply.status {
        403 => Verdict::Finish(403),
        401 => {
            for challenge in asked.reply.fields.all(HeaderId::WwwAuthenticate) {
                r.reply.fields.push(HeaderId::WwwAuthenticate, challenge);
            }
            Verdict::Finish(401)
        }
        200..=299 => Verdict::Settle,
        status => {
            log::error!(&*r, "auth request unexpected status: {status}");
            Verdict::Finish(500)
        }
    }
}
