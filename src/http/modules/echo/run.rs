//! Runs the commands, one after another.

use super::variables::{Known, reset_timer};
use super::{Command, Loc, SubBody, Subrequest};
use crate::event::{self, Notify};
use crate::http::pipe::{KEPT_MAX, MUCH, Pipe, may_begin};
use crate::http::subrequest::DEPTH_MAX;
use crate::http::{Body, Request, Verdict, subrequest};
use crate::io::{Chunk, OpenFile};
use crate::log;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Subrequests under way at once.
const SUBREQUESTS_MAX: usize = 200;
/// Pieces of one `echo_foreach_split`.
const PIECES_MAX: usize = 10_000;

/// A run of a location's commands.
struct Run {
    loc: Rc<Loc>,
    /// The next command.
    at: usize,
    /// Where the loop begins, and its pieces to come.
    pieces: Option<(usize, VecDeque<Vec<u8>>)>,
    /// What of a `echo_duplicate` is still to be said.
    copies: Option<(u64, Vec<u8>)>,
    /// What was said, in order, and not sent yet.
    parts: Vec<Part>,
    pipe: Option<Pipe>,
}

enum Part {
    Bytes(Vec<u8>),
    Chunks(Vec<Chunk>),
    /// What a subrequest will have said.
    Coming(Rc<Coming>),
}

/// The reply of a subrequest, which comes by itself.
#[derive(Default)]
struct Coming {
    body: RefCell<Option<Vec<u8>>>,
    there: Notify,
}

/// Why a run stopped.
enum Stop {
    /// It is over.
    Over,
    /// What was said is to leave now.
    Flush,
    Go(Verdict),
}

/// The content handler.
pub async fn handle(loc: Rc<Loc>, r: &mut Request) -> Verdict {
    let mut run = Run { loc, at: 0, pieces: None, copies: None, parts: Vec::new(), pipe: None };
    r.slots.of::<Known>();
    r.reply.status = run.loc.status.unwrap_or(200);
    match run.go_on(r).await {
        Stop::Go(verdict) => return verdict,
        Stop::Over => {
            let chunks = run.whole().await;
            make_head(r);
            r.reply.body = chunks;
        }
        Stop::Flush => {
            make_head(r);
            let pipe = Pipe::default();
            r.reply.body = pipe.body();
            run.pipe = Some(pipe);
            r.reply.rest = Some(Box::new(move |r| Box::pin(run.finish(r))));
        }
    }
    Verdict::Reply
}

fn make_head(r: &mut Request) {
    r.body.discard_later();
    let core = r.place.location.core.clone();
    r.reply.content_type = core.content_type_of(r);
}

impl Run {
    /// Goes on while the reply is sent.
    async fn finish(mut self, r: &mut Request) {
        loop {
            self.send().await;
            match self.go_on(r).await {
                Stop::Flush => {}
                Stop::Over => break,
                Stop::Go(_) => {
                    log::error!(&*r, "echo_exec after the reply has begun");
                    break;
                }
            }
        }
        self.send().await;
        self.pipe.expect("it is sending").close(true);
    }

    /// Hands over what was said so far.
    async fn send(&mut self) {
        let pipe = self.pipe.clone().expect("it is sending");
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Bytes(bytes) => pipe.push(bytes),
                Part::Chunks(chunks) => {
                    for mut chunk in chunks {
                        while !chunk.is_empty()
                            && let Ok(bytes) = chunk.take_bytes()
                        {
                            pipe.push(bytes.to_vec());
                            pipe.has_room().await;
                        }
                    }
                }
                Part::Coming(coming) => pipe.push(coming.body().await),
            }
            pipe.has_room().await;
        }
    }

    /// Everything that was said.
    async fn whole(self) -> Body {
        let mut all = VecDeque::new();
        for part in self.parts {
            match part {
                Part::Bytes(bytes) => all.push_back(Chunk::Mem(bytes.into())),
                Part::Chunks(chunks) => all.extend(chunks),
                Part::Coming(coming) => all.push_back(Chunk::Mem(coming.body().await.into())),
            }
        }
        all.retain(|chunk| !chunk.is_empty());
        match all.len() {
            1 => Body::Whole(all.remove(0).expect("there is one")),
            _ => Body::Several(all),
        }
    }

    fn say(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts.last(), Some(Part::Bytes(_))) {
            self.parts.push(Part::Bytes(Vec::new()));
        }
        match self.parts.last_mut() {
            Some(Part::Bytes(bytes)) => bytes,
            _ => unreachable!("just made"),
        }
    }

    fn said(&self) -> usize {
        let bytes = self.parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len(),
            _ => 0,
        });
        bytes.sum()
    }

    /// Whether it stops to send: it can, or does already.
    fn may_send(&self, r: &Request) -> bool {
        self.pipe.is_some() || may_begin(r)
    }

    async fn go_on(&mut self, r: &mut Request) -> Stop {
        loop {
            if self.copies.is_some()
                && let Some(stop) = self.copy(r)
            {
                return stop;
            }
            let loc = self.loc.clone();
            let Some(command) = loc.commands.get(self.at) else { return Stop::Over };
            self.at += 1;
            if let Some(stop) = self.one(command, r).await {
                return stop;
            }
            if self.said() > MUCH && self.may_send(r) {
                return Stop::Flush;
            }
        }
    }

    async fn one(&mut self, command: &Command, r: &mut Request) -> Option<Stop> {
        match command {
            Command::Say(said) => said.append(r, self.say()),
            Command::Duplicate(count, text) => {
                let digits: String = count.text(r).chars().filter(|c| *c != '_').collect();
                let Ok(count) = digits.parse() else {
                    log::error!(&*r, "invalid size specified: \"{digits}\"");
                    return Some(Stop::Go(Verdict::Finish(500)));
                };
                self.copies = Some((count, text.value(r).into_owned()));
            }
            Command::Flush => return self.may_send(r).then_some(Stop::Flush),
            Command::Sleep(time) => match seconds(&time.text(r)) {
                Some(time) => event::sleep(time).await,
                None => return Some(bad_time(r, &time.text(r))),
            },
            Command::BlockingSleep(time) => match seconds(&time.text(r)) {
                Some(time) => std::thread::sleep(time),
                None => return Some(bad_time(r, &time.text(r))),
            },
            Command::ResetTimer => reset_timer(r),
            Command::ReadBody => {
                if let Err(fault) = r.keep_body().await {
                    log::error!(&*r, "{fault}");
                    return Some(Stop::Go(Verdict::Finish(fault.status)));
                }
            }
            Command::RequestBody => self.parts.push(Part::Chunks(r.body.chunks().to_vec())),
            Command::Subrequest(sub) => return self.subrequest(sub, r).await,
            Command::Foreach(delimiter, text) => {
                let pieces = split(&text.value(r), &delimiter.value(r));
                self.pieces = Some((self.at, pieces));
                self.next_piece(r);
            }
            Command::End => self.next_piece(r),
            Command::Exec(uri, args) => return Some(self.exec(r, uri.text(r), args.as_ref())),
        }
        None
    }

    fn exec(&self, r: &mut Request, uri: String, args: Option<&crate::http::Template>) -> Stop {
        r.reply.status = 0;
        if uri.starts_with('@') {
            return Stop::Go(Verdict::Named(uri.into()));
        }
        let (path, own) = uri.split_once('?').unwrap_or((&uri, ""));
        let args = args.map_or_else(|| own.as_bytes().to_vec(), |args| args.value(r).into_owned());
        Stop::Go(r.internal_redirect(path.as_bytes().to_vec(), args))
    }

    /// The next round of the loop, or what is behind it.
    fn next_piece(&mut self, r: &mut Request) {
        let Some((begin, pieces)) = &mut self.pieces else { return };
        let piece = pieces.pop_front();
        match &piece {
            Some(_) => self.at = *begin,
            None => {
                let commands = &self.loc.commands[*begin..];
                let end = commands.iter().position(|command| matches!(command, Command::End));
                self.at = *begin + end.map_or(commands.len(), |end| end + 1);
                self.pieces = None;
            }
        }
        r.slots.of::<Known>().piece = piece;
    }

    /// Says copies, as many as may be kept.
    fn copy(&mut self, r: &Request) -> Option<Stop> {
        let (mut count, text) = self.copies.take()?;
        let may_send = self.may_send(r);
        while count > 0 && !text.is_empty() {
            let said = self.said();
            if said > MUCH && may_send {
                self.copies = Some((count, text));
                return Some(Stop::Flush);
            }
            if said > KEPT_MAX {
                log::error!(r, "echo_duplicate: too much to be kept");
                return Some(Stop::Go(Verdict::Finish(500)));
            }
            let now = count.min((MUCH / text.len()) as u64 + 1);
            let bytes = self.say();
            (0..now).for_each(|_| bytes.extend_from_slice(&text));
            count -= now;
        }
        None
    }

    async fn subrequest(&mut self, wanted: &Subrequest, r: &mut Request) -> Option<Stop> {
        let is_coming = |part: &&Part| matches!(part, Part::Coming(_));
        let under_way = self.parts.iter().filter(is_coming).count();
        if r.depth >= DEPTH_MAX || under_way >= SUBREQUESTS_MAX {
            log::error!(&*r, "too many subrequests");
            return Some(Stop::Go(Verdict::Finish(500)));
        }
        let args = wanted.args.as_ref().map(|args| args.value(r).into_owned());
        let mut sub = r.subrequest(wanted.uri.value(r).into_owned(), args.unwrap_or_default());
        sub.set_method(&wanted.method.value(r));
        sub.slots.of::<Known>().count = r.slots.of::<Known>().count.clone();
        match &wanted.body {
            None => sub.give_body(Vec::new()),
            Some(SubBody::Text(text)) => {
                let text = text.value(r).into_owned();
                sub.give_body(Some(text).filter(|t| !t.is_empty()).map_or_else(Vec::new, chunk_of));
            }
            Some(SubBody::File(path, prefix)) => {
                let path = prefix.join(path.text(r));
                match file(&path) {
                    Ok(chunk) => sub.give_body(vec![chunk]),
                    Err(error) => {
                        let path = path.display();
                        log::error!(&*r, "open() \"{path}\" failed{}", log::Os(&error));
                        return Some(Stop::Go(Verdict::Finish(500)));
                    }
                }
            }
        }
        let coming = Rc::new(Coming::default());
        self.parts.push(Part::Coming(coming.clone()));
        match wanted.waits {
            true => fetch(sub, &coming).await,
            false => drop(event::spawn(async move { fetch(sub, &coming).await })),
        }
        None
    }
}

/// A file's bytes; a small one is read, so that variables show it.
fn file(path: &Path) -> io::Result<Chunk> {
    let file = OpenFile::open(path)?;
    let len = std::fs::metadata(path)?.len();
    let mut chunk = Chunk::File { file: Rc::new(file), at: 0, len };
    if len <= MUCH as u64 {
        let mut text = Vec::new();
        chunk.append_to(&mut text)?;
        chunk = Chunk::Mem(text.into());
    }
    Ok(chunk)
}

fn chunk_of(text: Vec<u8>) -> Vec<Chunk> {
    vec![Chunk::Mem(text.into())]
}

async fn fetch(sub: Request, coming: &Coming) {
    let mut sub = subrequest::fetch(sub).await;
    let mut text = Vec::new();
    if !sub.reply.is_dropped && !sub.reply.head_only {
        match sub.reply.body.collect(KEPT_MAX).await {
            Ok(Some(all)) => text = all,
            Ok(None) => log::error!(&sub, "too big subrequest response"),
            Err(fault) => log::error!(&sub, "{fault} while reading a subrequest's response"),
        }
    }
    *coming.body.borrow_mut() = Some(text);
    coming.there.notify_one();
}

impl Coming {
    async fn body(&self) -> Vec<u8> {
        loop {
            if let Some(body) = self.body.borrow_mut().take() {
                return body;
            }
            self.there.notified().await;
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn bad_time(r: &Request, text: &str) -> Stop {
    log::error!(r, "invalid sleep duration \"{text}\"");
    Stop::Go(Verdict::Finish(500))
}

/// The pieces of `text` that are not empty.
fn split(text: &[u8], delimiter: &[u8]) -> VecDeque<Vec<u8>> {
    let mut pieces = VecDeque::new();
    let mut rest = text;
    while !rest.is_empty() && pieces.len() < PIECES_MAX {
        let end = match delimiter.is_empty() {
            true => None,
            false => memchr::memmem::find(rest, delimiter),
        };
        let piece = &rest[..end.unwrap_or(rest.len())];
        if !piece.is_empty() {
            pieces.push_back(piece.to_vec());
        }
        rest = end.map_or(&[], |end| &rest[end + delimiter.len()..]);
    }
    pieces
}
