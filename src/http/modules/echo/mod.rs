//! `echo` and kin: a reply written in the configuration (OpenResty's echo module).
//!
//! Reads: `echo`, `echo_duplicate`, `echo_flush`, `echo_sleep`, `echo_blocking_sleep`,
//! `echo_reset_timer`, `echo_read_request_body`, `echo_request_body`, `echo_location`,
//! `echo_location_async`, `echo_subrequest`, `echo_subrequest_async`, `echo_foreach_split`,
//! `echo_end`, `echo_exec`, `echo_status`, `echo_before_body`, `echo_after_body`.
//! Runs as: content, one command after another ([`run`]); header filter ([`around`]).

mod around;
mod read;
mod run;
mod variables;

use crate::conf::*;
use crate::http::{Builtin, Handler, HttpModule, Merging, Pipeline, Template, settable, var};
use std::path::PathBuf;
use std::rc::Rc;

/// The module.
pub struct Echo;

const PLACES: Context = LOC | LIF;

impl HttpModule for Echo {
    type Main = ();
    type RawLoc = RawLoc;
    type Loc = Loc;

    #[rustfmt::skip]
    const LOC: &'static [Directive<RawLoc>] = &[
        d("echo",                   PLACES, call(at_least(0), read::echo)),
        d("echo_duplicate",         PLACES, call(exactly(2), read::duplicate)),
        d("echo_flush",             PLACES, call(exactly(0), |c, _| c.add(Command::Flush))),
        d("echo_sleep",             PLACES, call(exactly(1), read::sleep)),
        d("echo_blocking_sleep",    PLACES, call(exactly(1), read::blocking_sleep)),
        d("echo_reset_timer",       PLACES, call(exactly(0), |c, _| c.add(Command::ResetTimer))),
        d("echo_read_request_body", PLACES, call(exactly(0), |c, _| c.add(Command::ReadBody))),
        d("echo_request_body",      PLACES, call(exactly(0), |c, _| c.add(Command::RequestBody))),
        d("echo_location",          PLACES, call(between(1, 2), |c, r| read::location(c, r, true))),
        d("echo_location_async",    PLACES, call(between(1, 2), |c, r| read::location(c, r, false))),
        d("echo_subrequest",        PLACES, call(at_least(2), |c, r| read::subrequest(c, r, true))),
        d("echo_subrequest_async",  PLACES, call(at_least(2), |c, r| read::subrequest(c, r, false))),
        d("echo_foreach_split",     PLACES, call(between(2, 3), read::foreach_split)),
        d("echo_end",               PLACES, call(exactly(0), |c, _| c.add(Command::End))),
        d("echo_exec",              PLACES, call(between(1, 2), read::exec)),
        d("echo_status",            PLACES, call(exactly(1), read::status)),
        d("echo_before_body",       PLACES, call(at_least(0), |c, r| read::around(&mut c.before, r))),
        d("echo_after_body",        PLACES, call(at_least(0), |c, r| read::around(&mut c.after, r))),
    ];
    #[rustfmt::skip]
    const VARIABLES: &'static [Builtin] = &[
        settable("echo_it",              variables::it, |_, _| ()),
        var("echo_timer_elapsed",        variables::timer_elapsed),
        var("echo_request_body",         variables::request_body),
        var("echo_request_method",       variables::method),
        var("echo_client_request_method", variables::client_method),
        var("echo_client_request_headers", variables::client_headers),
        var("echo_request_uri",          variables::uri),
        var("echo_cacheable_request_uri", variables::uri),
        var("echo_incr",                 variables::count),
        var("echo_response_status",      variables::status),
    ];

    fn merge(raw: RawLoc, up: &Loc, _: &mut Merging) -> Result<Loc, Reason> {
        let kept = |own: Vec<Said>, up: &Rc<[Said]>| match own.is_empty() {
            true => up.clone(),
            false => own.into(),
        };
        Ok(Loc {
            commands: match raw.commands.is_empty() {
                true => up.commands.clone(),
                false => {
                    read::check_loops(&raw.commands)?;
                    raw.commands.into()
                }
            },
            status: raw.status.or(up.status),
            before: kept(raw.before, &up.before),
            after: kept(raw.after, &up.after),
        })
    }

    fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
        if !loc.commands.is_empty() {
            let loc = loc.clone();
            p.content(Handler::Async(Box::new(move |r| {
                let loc = loc.clone();
                Box::pin(async move { run::handle(loc, r).await })
            })));
        }
        if !loc.before.is_empty() || !loc.after.is_empty() {
            let loc = loc.clone();
            p.filter(move |r| around::add(&loc, r));
        }
    }
}

/// What was written.
#[derive(Default)]
pub struct RawLoc {
    commands: Vec<Command>,
    status: Option<u16>,
    before: Vec<Said>,
    after: Vec<Said>,
}

impl RawLoc {
    fn add(&mut self, command: Command) -> Result<(), Reason> {
        self.commands.push(command);
        Ok(())
    }
}

/// What is in force.
pub struct Loc {
    commands: Rc<[Command]>,
    status: Option<u16>,
    before: Rc<[Said]>,
    after: Rc<[Said]>,
}

impl Default for Loc {
    fn default() -> Loc {
        Loc { commands: Rc::new([]), status: None, before: Rc::new([]), after: Rc::new([]) }
    }
}

/// Words with blanks between them.
struct Said {
    words: Vec<Template>,
    /// A line feed follows.
    ends_line: bool,
}

enum Command {
    Say(Said),
    /// So many times this.
    Duplicate(Template, Template),
    Flush,
    /// Seconds.
    Sleep(Template),
    /// The worker stands still meanwhile.
    BlockingSleep(Template),
    ResetTimer,
    ReadBody,
    RequestBody,
    Subrequest(Box<Subrequest>),
    /// Until its `End`, once per piece: the delimiter and the text.
    Foreach(Template, Template),
    End,
    /// The URI and the arguments.
    Exec(Template, Option<Template>),
}

struct Subrequest {
    method: Template,
    uri: Template,
    args: Option<Template>,
    body: Option<SubBody>,
    /// The next command runs when it is over.
    waits: bool,
}

enum SubBody {
    Text(Template),
    /// Its path, and where a relative one begins.
    File(Template, PathBuf),
}
