//! `stub_status`: how many connections there are; `$connections_active` and its kin.

use crate::conf::*;
use crate::event::census::{self, Census, SEATS};
use crate::event::{Role, Zone, ZoneTable};
use crate::http::{
    Body, Builtin, Handler, HttpConf, HttpModule, Merging, Pipeline, Request, Verdict, var,
};
use crate::log;
use crate::proto::h1::Method;
use std::io;
use std::rc::Rc;

/// The module.
pub struct StubStatus;

impl HttpModule for StubStatus {
    type Main = Main;
    type RawLoc = RawLoc;
    type Loc = Loc;

    const LOC: &'static [Directive<RawLoc>] =
        &[d("stub_status", SRV | LOC, call(between(0, 1), RawLoc::here))];
    const VARIABLES: &'static [Builtin] = &[
        var("connections_active", |r, out| number(r, |c| c.active, out)),
        var("connections_reading", |r, out| number(r, |c| c.reading, out)),
        var("connections_writing", |r, out| number(r, |c| c.writing, out)),
        var("connections_waiting", |r, out| number(r, |c| c.waiting, out)),
    ];

    fn finish(main: &mut Main, m: &mut Merging) -> Result<(), Reason> {
        // No name of a configuration's own zone has a blank.
        let zone = m.shelf.of::<ZoneTable>().want_cells("the census", "stub_status", SEATS)?;
        main.zone = Some(zone);
        Ok(())
    }

    fn merge(raw: RawLoc, up: &Loc, m: &mut Merging) -> Result<Loc, Reason> {
        Ok(Loc { is_here: raw.is_here || m.level.is_nameless() && up.is_here })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if loc.is_here {
            p.content(Handler::Sync(Box::new(stub_status)));
        }
    }

    fn start(http: &Rc<HttpConf>, role: Role) -> io::Result<()> {
        let zone = http.mains.main::<StubStatus>().zone.as_ref().expect("set by finish");
        if role.serves() && !census::take_part(zone) {
            log::warn!("too many processes: the connections of this one are not counted");
        }
        Ok(())
    }
}

/// What all processes have done, and do.
pub fn counted(http: &HttpConf) -> Census {
    sum(http.mains.main::<StubStatus>())
}

fn sum(main: &Main) -> Census {
    main.zone.as_ref().map_or_else(Census::default, |zone| census::sum(zone.cells()))
}

/// Where everybody counts.
#[derive(Default)]
pub struct Main {
    zone: Option<Rc<Zone>>,
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    is_here: bool,
}

/// What is in force.
#[derive(Default)]
pub struct Loc {
    is_here: bool,
}

impl RawLoc {
    /// The argument means nothing, as in nginx.
    fn here(&mut self, _: &mut Reading) -> Result<(), Reason> {
        self.is_here = true;
        Ok(())
    }
}

fn stub_status(r: &mut Request) -> Verdict {
    if !matches!(r.method, Method::Get | Method::Head) {
        return Verdict::Finish(405);
    }
    r.body.discard_later();
    let page = page(&count(r));
    r.answer(200, Some("text/plain"), Body::bytes(page.into_bytes()));
    Verdict::Reply
}

fn page(c: &Census) -> String {
    format!(
        "Active connections: {} \nserver accepts handled requests\n {} {} {} \n\
         Reading: {} Writing: {} Waiting: {} \n",
        c.active, c.accepted, c.handled, c.requests, c.reading, c.writing, c.waiting
    )
}

fn count(r: &Request) -> Census {
    sum(r.main::<StubStatus>())
}

fn number(r: &Request, which: fn(&Census) -> u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(which(&count(r))).as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_nginxs() {
        let census =
            Census { active: 1, accepted: 2, handled: 2, requests: 3, ..Default::default() };
        assert_eq!(
            page(&census),
            "Active connections: 1 \nserver accepts handled requests\n 2 2 3 \n\
             Reading: 0 Writing: 0 Waiting: 0 \n"
        );
    }
}
