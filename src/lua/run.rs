//! What a phase does with its code: it runs, waits, and decides how the request goes on.
//!
//! [`lead`] drives a crew: it resumes the thread whose turn it is, and looks at the [`Step`] where
//! that stands then. A step that waits gives an [`Operation`], which goes to the crew and is polled
//! there without the request; when it is ready the thread is resumed with its results. What asks
//! for the request itself ([`Ask`]: an exit, a redirect, the body) is done here, or becomes an
//! operation. A crew without a request is that of a timer or a handshake.
//!
//! Output that is to leave before the code has ended ends the handler with [`Outcome::Sends`]: the
//! reply begins, and the crew goes on as the reply's [`Rest`](crate::http::rest::Rest).

use super::body_filter::{self, Piece};
use super::budget::Budget;
use super::capture::{self, Capture};
use super::conf::{self, Loc, Lua, NoCode, Script};
use super::coroutine::Coroutine;
use super::crew::Crew;
use super::handshake;
use super::phase::{self, Phases};
use super::socket;
use super::vm::{self, Ask, Operation, Stack, Step, Value};
use crate::event;
use crate::http::pipe::{Pipe, may_begin};
use crate::http::{
    Body, Filtered, Handler, LocalBoxFuture, Phase, Pipeline, Request, Verdict, rewrite, status,
};
use crate::io::Slice;
use crate::log;
use crate::proto::h1::Version;
use std::ffi::c_int;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// `ngx.DECLINED`
const DECLINED: i32 = -5;

/// What Lua has done with a request so far.
#[derive(Default)]
pub struct Progress {
    /// `ngx.ctx`
    pub context: vm::Ctx,
    /// The visit that `context` belongs to; `None`: the next one.
    visit: Option<u8>,
    /// `ngx.exit`'s code, until it is obeyed.
    pub exit: Option<i32>,
    /// What was said and not sent yet.
    pub output: Vec<u8>,
    /// Where output goes that is to leave before the code ends.
    pub pipe: Option<Pipe>,
    /// The head is on its way.
    pub is_sending: bool,
    /// Something was said (be it nothing), or the headers were sent: the reply's head is fixed.
    pub has_said: bool,
    /// Output is to leave as soon as the code waits for something.
    pub is_flushed: bool,
    /// `ngx.eof` was called.
    pub is_over: bool,
    /// `ngx.req.set_uri(uri, true)`.
    pub jumps: bool,
    /// The arguments of the `set_by_lua` that runs.
    pub arguments: Vec<Vec<u8>>,
    /// The piece of the body that a filter sees.
    pub piece: Option<Piece>,
}

impl Progress {
    /// Hands what was said over to the pipe, if there is one.
    fn send(&mut self) -> Option<Pipe> {
        let pipe = self.pipe.clone()?;
        pipe.push(std::mem::take(&mut self.output));
        if self.is_over {
            pipe.close(true);
        }
        Some(pipe)
    }

    /// The client has left: what is said is for nobody.
    pub fn is_left(&self) -> bool {
        self.pipe.as_ref().is_some_and(Pipe::is_left)
    }

    /// Bytes of output that nobody has taken.
    pub fn unsent(&self) -> usize {
        self.output.len() + self.pipe.as_ref().map_or(0, Pipe::bytes)
    }
}

/// How code ended.
pub(super) enum Outcome {
    Done(Value),
    Exit(i32),
    Go(Verdict),
    Failed,
    /// It has not: it waits for this, and what it said so far is to be sent meanwhile.
    Sends(Rc<Crew>),
}

/// A message with its traceback, whose lines the log keeps.
pub struct Lines<'a>(pub &'a [u8]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

/// Puts the location's code into its pipeline.
pub fn install(loc: &Rc<Loc>, p: &mut Pipeline) {
    let of = |at: usize| loc.scripts[at].clone();
    for (at, stage, phase) in [
        (conf::SERVER, Phase::ServerRewrite, phase::SERVER_REWRITE),
        (conf::REWRITE, Phase::Rewrite, phase::REWRITE),
        (conf::ACCESS, Phase::Access, phase::ACCESS),
        (conf::PRECONTENT, Phase::PreContent, phase::PRECONTENT),
    ] {
        if let Some(script) = of(at) {
            p.on_async(stage, move |r| {
                let script = script.clone();
                Box::pin(async move { handle(&script, r, phase).await })
            });
        }
    }
    if let Some(script) = of(conf::CONTENT) {
        p.content(Handler::Async(Box::new(move |r| {
            let script = script.clone();
            Box::pin(async move { handle(&script, r, phase::CONTENT).await })
        })));
    }
    if let Some(script) = of(conf::HEADER) {
        p.filter(move |r| filter_header(&script, r));
    }
    if let Some(script) = of(conf::BODY) {
        p.filter(move |r| body_filter::filter(&script, r));
    }
    handshake::install(loc, p);
    if let Some(script) = of(conf::LOG) {
        p.log(move |r| drop(at_once(&script, r, phase::LOG)));
    }
}

/// Runs code that has no request. Errors: Lua's.
pub fn start(script: &Script, phase: Phases) -> Result<(), Vec<u8>> {
    let code = script.code(None).map_err(|no| no.says().to_vec())?;
    let mut coroutine = Coroutine::new(&code)?;
    let crew = Rc::<Crew>::default();
    match crew.enter(|| coroutine.resume(None, phase, &[])) {
        Step::Done(_) => Ok(()),
        Step::Failed(_, message) => Err(message),
        Step::Asks(_) | Step::Waits(_) | Step::Yielded => {
            Err(b"attempt to yield across C-call boundary".to_vec())
        }
    }
}

/// Runs `set_by_lua`: the value, or the status that ends the request.
pub fn set(script: &Script, arguments: Vec<Vec<u8>>, r: &mut Request) -> Result<Vec<u8>, u16> {
    r.slots.of::<Progress>().arguments = arguments;
    match at_once(script, r, phase::SET) {
        Outcome::Failed => Err(500),
        Outcome::Done(value) => Ok(value.into_text()),
        _ => Ok(Vec::new()),
    }
}

impl NoCode {
    pub fn says(&self) -> &[u8] {
        match self {
            NoCode::Absent(says) | NoCode::Unreadable(says) => says,
        }
    }
}

async fn handle(script: &Script, r: &mut Request, phase: Phases) -> Verdict {
    if r.conf::<Lua>().needs_body
        && let Err(outcome) = read_body(r).await
    {
        return match outcome {
            Outcome::Go(verdict) => verdict,
            _ => Verdict::Finish(500),
        };
    }
    let crew = match begin(script, r, phase) {
        Ok(coroutine) => Crew::of(coroutine),
        Err(verdict) => return verdict,
    };
    let outcome = match r.conf::<Lua>().budget.filter(|_| Budget::covers(phase)) {
        None => lead(&crew, Some(&mut *r), phase).await,
        Some(budget) => {
            let end = budget.end(r);
            match event::timeout_at(end, lead(&crew, Some(&mut *r), phase)).await {
                Ok(outcome) => {
                    budget.settle(r, phase, Some(&outcome));
                    outcome
                }
                Err(_) => {
                    crew.disband();
                    forget_output(r);
                    return budget.settle(r, phase, None);
                }
            }
        }
    };
    if socket::is_raw(r) && !matches!(outcome, Outcome::Sends(..)) {
        return end_raw(r).await;
    }
    let progress = r.slots.of::<Progress>();
    progress.exit = None;
    let (has_said, is_content) = (progress.has_said, phase == phase::CONTENT);
    match outcome {
        Outcome::Sends(crew) => send_on(crew, r, phase),
        Outcome::Go(verdict) => verdict,
        Outcome::Failed => {
            forget_output(r);
            Verdict::Finish(500)
        }
        Outcome::Exit(code) if code > 0 => exit(r, code as u16, has_said),
        // As in nginx an error is no status: the connection is closed.
        Outcome::Exit(code) if code < 0 && !has_said && (code != DECLINED || is_content) => {
            forget_output(r);
            r.reply.is_dropped = true;
            Verdict::Reply
        }
        _ if has_said || is_content => reply(r),
        Outcome::Exit(DECLINED) => Verdict::Decline,
        _ if phase == phase::ACCESS => Verdict::Settle,
        _ if std::mem::take(&mut r.slots.of::<Progress>().jumps) => Verdict::Relocate,
        _ => Verdict::Decline,
    }
}

/// The code had the client's connection: there is no reply.
async fn end_raw(r: &mut Request) -> Verdict {
    socket::linger(r).await;
    forget_output(r);
    if r.reply.status == 0 {
        r.reply.status = 200;
    }
    r.reply.is_dropped = true;
    Verdict::Reply
}

/// The coroutine of a phase, or how the request ends without one.
fn begin(script: &Script, r: &mut Request, phase: Phases) -> Result<Coroutine, Verdict> {
    let visit = r.place.visits;
    let progress = r.slots.of::<Progress>();
    let before = progress.visit.replace(visit);
    if before.is_some_and(|before| before != visit) {
        progress.context = vm::Ctx::default();
    }
    let code = script.code(Some(r)).map_err(|no| {
        log::error!(r, "failed to load external Lua file {}", log::Raw(no.says()));
        let is_absent = matches!(no, NoCode::Absent(_)) && phase == phase::CONTENT;
        Verdict::Finish(if is_absent { 404 } else { 500 })
    })?;
    Coroutine::new(&code).map_err(|message| {
        let message = Lines(&message);
        match code.chunk.strip_prefix('@') {
            Some(path) => {
                log::error!(r, "failed to load external Lua file \"{path}\": {message}");
            }
            None => log::error!(r, "failed to load inlined Lua code: {message}"),
        }
        Verdict::Finish(500)
    })
}

/// The reply begins with what was said so far; the code goes on while it is sent.
fn send_on(crew: Rc<Crew>, r: &mut Request, phase: Phases) -> Verdict {
    let progress = r.slots.of::<Progress>();
    progress.is_sending = true;
    let pipe = progress.pipe.get_or_insert_default().clone();
    make_head(r);
    r.reply.body = pipe.body();
    r.reply.rest = Some(Box::new(move |r| {
        Box::pin(async move {
            drop(r.slots.of::<Progress>().send());
            let outcome = lead(&crew, Some(&mut *r), phase).await;
            let progress = r.slots.of::<Progress>();
            drop(progress.send());
            progress.is_over = true;
            let is_raw = socket::is_raw(r);
            match is_raw {
                true => socket::linger(r).await,
                false => socket::give_back(r),
            }
            pipe.close(!is_raw && !matches!(outcome, Outcome::Failed));
        })
    }));
    Verdict::Reply
}

/// Leads a crew to its end: that of all its threads, or an exit, or its entry thread's failure.
/// Without a request it is that of a timer or a handshake.
pub(super) async fn lead(crew: &Rc<Crew>, mut r: Option<&mut Request>, phase: Phases) -> Outcome {
    let mut entry = Outcome::Done(Value::Nil);
    let mut watches = r.as_deref().is_some_and(watches_client);
    loop {
        let Some(mut turn) = crew.next() else {
            if !crew.is_alive() {
                return entry;
            }
            if !wait(crew, r.as_deref().filter(|_| watches)).await {
                if !crew.abort() {
                    crew.disband();
                    return Outcome::Exit(i32::from(status::CLIENT_CLOSED));
                }
                watches = false;
            }
            continue;
        };
        let step = crew.enter(|| match turn.done.as_deref_mut() {
            None => turn.coroutine.resume(r.as_deref_mut(), phase, &[]),
            Some(done) => turn.coroutine.resume_after(r.as_deref_mut(), phase, done),
        });
        let (number, coroutine) = (turn.number, turn.coroutine);
        let operation = match step {
            Step::Done(value) => {
                if number == 0 {
                    entry = Outcome::Done(value);
                }
                crew.ended(number, coroutine, true);
                continue;
            }
            Step::Failed(kind, message) => {
                let who = if number == 0 { "entry" } else { "user" };
                let message = Lines(&message);
                crew.complain(
                    r.as_deref(),
                    format_args!("lua {who} thread aborted: {kind}: {message}"),
                );
                if number == 0 {
                    crew.disband();
                    return Outcome::Failed;
                }
                crew.ended(number, coroutine, false);
                continue;
            }
            Step::Yielded => {
                crew.yielded(number, coroutine);
                event::yield_now().await;
                // Who waits is not forgotten while others give way to one another.
                poll_fn(|cx| Poll::Ready(crew.poll_ready(cx).is_ready())).await;
                continue;
            }
            Step::Waits(operation) => operation,
            Step::Asks(ask) => match begin_asked(crew, &mut r, ask).await {
                Ok(operation) => operation,
                Err(outcome) => {
                    drop(coroutine);
                    crew.disband();
                    return outcome;
                }
            },
        };
        crew.waits(number, coroutine, operation);
        if let Some(r) = r.as_deref_mut()
            && starts_to_send(r)
        {
            return Outcome::Sends(crew.clone());
        }
    }
}

/// An end behind the request is no leaving, and over HTTP/2 a stream ends alone.
fn watches_client(r: &Request) -> bool {
    r.conf::<Lua>().watches_client
        && r.head.version < Version::Http2
        && !r.is_subrequest
        && !r.client.conn.stream().is_read_closed()
}

/// Waits until a thread of the crew can go on; false if the client of `watched` left before.
async fn wait(crew: &Crew, watched: Option<&Request>) -> bool {
    poll_fn(|cx| {
        if crew.poll_ready(cx).is_ready() {
            return Poll::Ready(true);
        }
        let Some(r) = watched else { return Poll::Pending };
        // What the client still sends is its body's affair.
        if r.body.is_read() && r.client.conn.stream().poll_closed(cx).is_ready() {
            log::info!(r, "client prematurely closed connection");
            return Poll::Ready(false);
        }
        Poll::Pending
    })
    .await
}

/// Whether output is to leave, and nothing of it has yet.
fn starts_to_send(r: &mut Request) -> bool {
    let progress = r.slots.of::<Progress>();
    progress.is_flushed && !progress.is_sending && may_send(r)
}

/// What a thread waits for that asked for something: some of it is done at once.
async fn begin_asked(
    crew: &Crew,
    r: &mut Option<&mut Request>,
    ask: Ask,
) -> Result<Box<dyn Operation>, Outcome> {
    let Some(r) = r.as_deref_mut() else {
        // All else but an exit was refused by its phase.
        return Err(Outcome::Exit(crew.exit.take().unwrap_or_default()));
    };
    let mut args = ask.args.into_iter();
    let mut text = || args.next().and_then(Value::text);
    match ask.what.as_str() {
        "exit" => Err(Outcome::Exit(r.slots.of::<Progress>().exit.take().unwrap_or_default())),
        "flush" => {
            let waits = text().is_some();
            let may_begin = may_send(r);
            let progress = r.slots.of::<Progress>();
            if !progress.is_sending && !may_begin {
                return Ok(Answer::now(Vec::new()));
            }
            progress.pipe.get_or_insert_default();
            Ok(Answer::later(flushed(progress.send(), waits)))
        }
        "body" => read_body(r).await.map(|()| Answer::now(Vec::new())),
        "exec" => {
            let (uri, args) = (text().unwrap_or_default(), text().unwrap_or_default());
            forget_output(r);
            Err(Outcome::Go(match uri.first() {
                Some(b'@') => Verdict::Named(String::from_utf8_lossy(&uri).into()),
                _ => r.internal_redirect(uri, args),
            }))
        }
        "redirect" => {
            let (to, status) = (text().unwrap_or_default(), text().unwrap_or_default());
            let status = String::from_utf8(status).ok().and_then(|n| n.parse().ok());
            Err(Outcome::Go(rewrite::redirect(r, status.unwrap_or(302), &to)))
        }
        "capture" => Ok(match Capture::read(args).subrequest(r) {
            Ok(sub) => Answer::later(capture::fetch(sub)),
            Err(values) => Answer::now(values),
        }),
        other => unreachable!("boot.lua asks for nothing else: {other}"),
    }
}

/// Waits for output to leave.
async fn flushed(pipe: Option<Pipe>, waits: bool) -> Vec<Value> {
    match pipe {
        Some(pipe) if waits => pipe.sinks_to(0).await,
        Some(pipe) => pipe.has_room().await,
        None => {}
    }
    Vec::new()
}

/// Values that come.
struct Answer {
    coming: Option<LocalBoxFuture<'static, Vec<Value>>>,
    values: Vec<Value>,
}

impl Answer {
    fn now(values: Vec<Value>) -> Box<dyn Operation> {
        Box::new(Answer { coming: None, values })
    }

    fn later(coming: impl Future<Output = Vec<Value>> + 'static) -> Box<dyn Operation> {
        Box::new(Answer { coming: Some(Box::pin(coming)), values: Vec::new() })
    }
}

impl Operation for Answer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(coming) = &mut self.coming {
            self.values = ready!(coming.as_mut().poll(cx));
            self.coming = None;
        }
        Poll::Ready(())
    }

    fn finish(&mut self, stack: &mut Stack) -> c_int {
        self.values.iter().for_each(|value| stack.push(value));
        self.values.len() as c_int
    }
}

async fn read_body(r: &mut Request) -> Result<(), Outcome> {
    let read = match r.body.is_discarded() {
        true => r.body.drain(u64::MAX).await.map(drop),
        false => r.keep_body().await,
    };
    read.map_err(|fault| {
        if !fault.what.is_empty() {
            log::error!(&*r, "{}", fault.what);
        }
        Outcome::Go(Verdict::Finish(fault.status))
    })
}

/// Whether output can leave before it is whole.
pub fn may_send(r: &Request) -> bool {
    let is_old = r.head.version < Version::Http11 && !r.is_subrequest;
    may_begin(r) || is_old && !r.reply.head_sent && !r.conf::<Lua>().http10_buffering
}

/// Whether the reply's head is past changing. Its filter comes last, whatever was said before.
pub fn is_head_made(r: &mut Request) -> bool {
    let is_fixed = r.slots.of::<Progress>().has_said && vm::current_phase() != phase::HEADER_FILTER;
    is_fixed || r.reply.head_sent
}

/// The length of the reply's body: what was said of it, or what is known where it is filtered.
pub fn length_of(r: &Request) -> Option<u64> {
    let is_made = vm::current_phase() == phase::HEADER_FILTER;
    r.reply.length.or_else(|| r.reply.body.len().filter(|_| is_made))
}

/// The reply's fields, name and value in turn, those with a place of their own first.
pub fn fields_of(r: &Request) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |name: &[u8], value: &[u8]| {
        out.push(Value::Text(name.to_vec()));
        out.push(Value::Text(value.to_vec()));
    };
    let mut media = Vec::new();
    if r.reply.push_content_type(&mut media) {
        add(b"Content-Type", &media);
    }
    if let Some(length) = length_of(r) {
        add(b"Content-Length", length.to_string().as_bytes());
    }
    if let Some(time) = r.reply.last_modified {
        let date = crate::sys::time::Calendar::utc(time).http_date();
        add(b"Last-Modified", date.as_bytes());
    }
    if let Some(tag) = &r.reply.etag {
        add(b"ETag", tag.as_bytes());
    }
    for field in r.reply.fields.iter() {
        add(field.name, field.value);
    }
    out
}

/// Runs code that may not wait.
pub(super) fn at_once(script: &Script, r: &mut Request, phase: Phases) -> Outcome {
    let Ok(mut coroutine) = begin(script, r, phase) else { return Outcome::Failed };
    let what = phase::name(phase);
    match coroutine.resume(Some(r), phase, &[]) {
        Step::Done(value) => match r.slots.of::<Progress>().exit.take() {
            Some(code) => Outcome::Exit(code),
            None => Outcome::Done(value),
        },
        Step::Asks(ask) if ask.what == "exit" => {
            Outcome::Exit(r.slots.of::<Progress>().exit.take().unwrap_or_default())
        }
        Step::Failed(_, message) => {
            log::error!(&*r, "failed to run {what}: {}", Lines(&message));
            Outcome::Failed
        }
        Step::Asks(_) | Step::Waits(_) | Step::Yielded => {
            log::error!(&*r, "failed to run {what}: attempt to yield across C-call boundary");
            Outcome::Failed
        }
    }
}

/// Runs `balancer_by_lua`. Errors: the status that ends the request.
pub fn balance(script: &Script, r: &mut Request) -> Result<(), u16> {
    match at_once(script, r, phase::BALANCER) {
        Outcome::Failed => Err(500),
        Outcome::Exit(code @ 300..=999) => Err(code as u16),
        Outcome::Exit(code) if code != 0 => Err(500),
        _ => Ok(()),
    }
}

fn filter_header(script: &Script, r: &mut Request) -> Filtered {
    match at_once(script, r, phase::HEADER_FILTER) {
        Outcome::Failed => Filtered::Instead(500),
        Outcome::Exit(code @ 200..=999) => Filtered::Instead(code as u16),
        _ => Filtered::Pass,
    }
}

/// `ngx.exit` with a status.
fn exit(r: &mut Request, status: u16, has_said: bool) -> Verdict {
    match status {
        _ if has_said => reply(r),
        300.. => Verdict::Finish(status),
        _ => {
            if r.reply.status == 0 {
                r.reply.status = status;
            }
            reply(r)
        }
    }
}

fn forget_output(r: &mut Request) {
    let progress = r.slots.of::<Progress>();
    (progress.has_said, progress.is_over, progress.is_flushed) = (false, false, false);
    progress.output.clear();
}

/// What was said is the reply.
fn reply(r: &mut Request) -> Verdict {
    socket::give_back(r);
    let output = std::mem::take(&mut r.slots.of::<Progress>().output);
    forget_output(r);
    make_head(r);
    r.reply.body = Body::bytes(Slice::from(output));
    Verdict::Reply
}

/// Fills in what the code has left open of the head.
fn make_head(r: &mut Request) {
    r.body.discard_later();
    if r.reply.status == 0 {
        r.reply.status = 200;
    }
    if r.reply.content_type.is_none() && r.conf::<Lua>().default_type {
        let core = r.place.location.core.clone();
        r.reply.content_type = core.content_type_of(r);
    }
}
