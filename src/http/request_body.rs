//! The request's body: unread until somebody wants it, then streamed, kept, or thrown away.

use super::Request;
use super::body::{Body, Fault, Pull};
use super::core::TempPath;
use crate::io::{Chunk, OpenFile, Slice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How a body is kept: the directives of its location.
#[derive(Clone, Debug)]
pub struct KeepRules {
    /// `client_max_body_size`; 0 is no limit.
    pub max_bytes: u64,
    /// `client_body_buffer_size`: what goes beyond it goes to a file.
    pub memory_bytes: u64,
    /// `client_body_temp_path`
    pub temp_path: TempPath,
    /// `client_body_in_file_only`: even a small body goes to a file.
    pub in_file_only: bool,
    /// … and the file stays afterwards.
    pub keep_file: bool,
}

impl KeepRules {
    /// Those of the request's location.
    pub fn of(r: &Request) -> KeepRules {
        let core = &r.place.location.core;
        KeepRules {
            max_bytes: core.client_max_body_size,
            memory_bytes: core.client_body_buffer_size,
            temp_path: core.client_body_temp_path.clone(),
            in_file_only: core.body_in_file_only != "off",
            keep_file: core.body_in_file_only == "on",
        }
    }
}

/// A request's body.
#[derive(Default)]
pub struct RequestBody {
    state: State,
    discard: bool,
    file: Option<Rc<OpenFile>>,
}

#[derive(Default)]
enum State {
    /// There is none.
    #[default]
    None,
    /// Not read yet.
    Unread(Box<dyn Pull>),
    /// Read whole.
    Kept(Vec<Chunk>),
    /// Somebody streams it.
    Taken,
}

impl RequestBody {
    /// A body that `source` will give.
    pub fn unread(source: Box<dyn Pull>) -> RequestBody {
        RequestBody { state: State::Unread(source), discard: false, file: None }
    }

    /// A body that is there already (subrequests, modules).
    pub fn kept(chunks: Vec<Chunk>) -> RequestBody {
        RequestBody { state: State::Kept(chunks), discard: false, file: None }
    }

    /// A body that is a file.
    pub fn of_file(file: OpenFile) -> RequestBody {
        let (len, file) = (file.size(), Rc::new(file));
        let whole = (len > 0).then(|| Chunk::File { file: file.clone(), at: 0, len });
        RequestBody { file: Some(file), ..RequestBody::kept(whole.into_iter().collect()) }
    }

    /// Whether nobody has begun to read it.
    pub fn is_untouched(&self) -> bool {
        matches!(self.state, State::Unread(_))
    }

    /// Whether nothing is left to be read from the client.
    pub fn is_read(&self) -> bool {
        matches!(self.state, State::None | State::Kept(_))
    }

    /// Nobody wants the body: the driver reads it off after the reply, or closes.
    pub fn discard_later(&mut self) {
        self.discard = true;
    }

    /// Whether nobody wants it.
    pub fn is_discarded(&self) -> bool {
        self.discard
    }

    /// The chunks of a body that was kept; cheap to clone, so that a request can be sent twice.
    pub fn chunks(&self) -> &[Chunk] {
        match &self.state {
            State::Kept(chunks) => chunks,
            _ => &[],
        }
    }

    /// The length of a body that was kept.
    pub fn kept_len(&self) -> u64 {
        self.chunks().iter().map(Chunk::len).sum()
    }

    /// The kept body if it stands in memory: `$request_body`.
    pub fn in_memory(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for chunk in self.chunks() {
            match chunk {
                Chunk::Mem(slice) => out.extend_from_slice(slice),
                Chunk::File { .. } => return None,
            }
        }
        matches!(self.state, State::Kept(_)).then_some(out)
    }

    /// The file of a body that was kept in one: `$request_body_file`.
    pub fn file(&self) -> Option<&Rc<OpenFile>> {
        self.file.as_ref()
    }

    /// Takes the source, to be streamed (`proxy_request_buffering off`). `None`: nothing to read.
    pub fn take_stream(&mut self) -> Option<Body> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Unread(source) => Some(Body::Stream(source)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Puts a source back that was taken and not read to its end.
    pub fn put_back(&mut self, source: Body) {
        if let (State::Taken, Body::Stream(source)) = (&self.state, source) {
            self.state = State::Unread(source);
        }
    }

    /// Reads the whole body, to memory and, beyond `memory_bytes`, to a file.
    ///
    /// Errors: 413 when it grows over `max_bytes`, the client's faults, a full disk.
    pub async fn keep(&mut self, rules: &KeepRules) -> Result<(), Fault> {
        let State::Unread(source) = &mut self.state else { return Ok(()) };
        let mut keeper = Keeper::new(rules.clone());
        while let Some(chunk) = std::future::poll_fn(|cx| source.poll_pull(cx)).await? {
            keeper.add(chunk)?;
        }
        *self = RequestBody { discard: self.discard, ..keeper.finish()? };
        Ok(())
    }

    /// Forgets what the client has sent already, at most `limit` bytes, without waiting.
    pub fn drain_ready(&mut self, limit: u64) -> Result<(), Fault> {
        let mut context = Context::from_waker(Waker::noop());
        let mut left = limit;
        while let State::Unread(source) = &mut self.state
            && left > 0
        {
            match source.poll_pull(&mut context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(chunk))) => left = left.saturating_sub(chunk.len()),
                Poll::Ready(Ok(None)) => self.state = State::None,
                Poll::Ready(Err(fault)) => {
                    self.state = State::Taken;
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Reads the body off and forgets it, at most `limit` bytes; false if more was left.
    pub async fn drain(&mut self, limit: u64) -> Result<bool, Fault> {
        let State::Unread(source) = &mut self.state else {
            return Ok(!matches!(self.state, State::Taken));
        };
        let mut left = limit;
        while let Some(chunk) = std::future::poll_fn(|cx| source.poll_pull(cx)).await? {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return Ok(false),
            }
        }
        self.state = State::None;
        Ok(true)
    }
}

impl Request {
    /// Reads the whole body by the rules of the request's location.
    pub async fn keep_body(&mut self) -> Result<(), Fault> {
        if self.body.is_read() {
            return Ok(());
        }
        let rules = KeepRules::of(self);
        self.body.keep(&rules).await?;
        if let Some(path) = self.body.file().and_then(|file| file.temporary_path()) {
            let path = path.display();
            crate::log::warn!(
                &*self,
                "a client request body is buffered to a temporary file {path}"
            );
        }
        Ok(())
    }
}

/// A body that is put together, in memory or in a file.
pub struct Keeper {
    rules: KeepRules,
    total: u64,
    memory: Vec<u8>,
    file: Option<crate::sys::file::TempFile>,
    written: u64,
}

impl Keeper {
    pub fn new(rules: KeepRules) -> Keeper {
        Keeper { rules, total: 0, memory: Vec::new(), file: None, written: 0 }
    }

    /// Appends a piece.
    ///
    /// Errors: 413 when it grows over `max_bytes`, a full disk.
    pub fn add(&mut self, chunk: Chunk) -> Result<(), Fault> {
        self.total += chunk.len();
        if self.rules.max_bytes != 0 && self.total > self.rules.max_bytes {
            let what =
                format!("client intended to send too large chunked body: {} bytes", self.total);
            return Err(Fault::client(413, what));
        }
        chunk
            .append_to(&mut self.memory)
            .map_err(|e| Fault::own(format!("read() failed ({e})")))?;
        if self.memory.len() as u64 > self.rules.memory_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), Fault> {
        let failed = |what: &str, e: std::io::Error| {
            Fault::own(format!(
                "{what} \"{}\" failed ({})",
                self.rules.temp_path.path.display(),
                crate::conf::os_error(&e)
            ))
        };
        if self.file.is_none() {
            let keep = match self.rules.keep_file {
                true => crate::sys::file::Keep::ForGood,
                false => crate::sys::file::Keep::WhileUsed,
            };
            let (path, levels) = (&self.rules.temp_path.path, &self.rules.temp_path.levels);
            let file = crate::sys::file::TempFile::create(path, levels, keep);
            self.file = Some(file.map_err(|e| failed("open()", e))?);
        }
        let file = self.file.as_mut().expect("just made");
        file.append(&self.memory).map_err(|e| failed("write()", e))?;
        self.written += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// The body that has come together.
    pub fn finish(mut self) -> Result<RequestBody, Fault> {
        if self.rules.in_file_only || (self.file.is_some() && !self.memory.is_empty()) {
            self.spill()?;
        }
        let mut chunks = Vec::new();
        let file = self.file.map(|f| Rc::new(OpenFile::temporary(f)));
        if let Some(file) = file.clone().filter(|_| self.written > 0) {
            chunks.push(Chunk::File { file, at: 0, len: self.written });
        }
        if !self.memory.is_empty() {
            chunks.push(Chunk::Mem(Slice::from(self.memory)));
        }
        Ok(RequestBody { file, ..RequestBody::kept(chunks) })
    }
}
