//! `ngx.location.capture`: a subrequest whose whole reply becomes a value.

use super::conf::Lua;
use super::run::{Progress, fields_of};
use super::vm::{self, Value};
use crate::http::Request;
use crate::http::error_page::Pageless;
use crate::http::pipe::KEPT_MAX;
use crate::http::subrequest::{self, DEPTH_MAX};
use crate::http::variable::{NotAssigned, Values};
use crate::io::Chunk;
use crate::log;
use crate::proto::h1::Method;
use std::ffi::c_int;

/// What code asked for, as `boot.lua` passes it.
pub struct Capture {
    uri: Vec<u8>,
    args: Vec<u8>,
    method: Vec<u8>,
    body: Option<Vec<u8>>,
    /// `always_forward_body`
    forwards: bool,
    scope: Scope,
    vars: Vec<(Vec<u8>, Vec<u8>)>,
    /// The table that becomes `ngx.ctx`.
    context: vm::Ctx,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Whose values its variables have.
enum Scope {
    /// Only what is set in it.
    Own,
    /// A copy of its parent's.
    Copy,
    /// Its parent's.
    Shared,
}

impl Capture {
    pub fn read(mut args: impl Iterator<Item = Value>) -> Capture {
        let mut next = || args.next().unwrap_or(Value::Nil);
        Capture {
            uri: next().into_text(),
            args: next().into_text(),
            method: next().into_text(),
            body: next().text(),
            forwards: next() == Value::Bool(true),
            scope: match next().text().as_deref() {
                Some(b"share") => Scope::Shared,
                Some(_) => Scope::Copy,
                None => Scope::Own,
            },
            vars: pairs(next()),
            context: match next() {
                Value::Number(reference) => vm::Ctx::of(reference as c_int),
                _ => vm::Ctx::default(),
            },
            headers: pairs(next()),
        }
    }

    /// The subrequest, or what the call gives if there is none.
    pub fn subrequest(self, r: &mut Request) -> Result<Request, Vec<Value>> {
        if r.depth >= DEPTH_MAX {
            log::error!(&*r, "subrequests cycle while processing \"{}\"", log::Raw(&self.uri));
            let empty = Value::List(Vec::new());
            return Err(vec![Value::Number(500.0), Value::Text(Vec::new()), Value::Nil, empty]);
        }
        let mut sub = r.subrequest(self.uri, self.args);
        sub.values = match self.scope {
            Scope::Own => Values::default(),
            Scope::Copy => r.values.inherit(),
            Scope::Shared => r.values.share(),
        };
        sub.set_method(&self.method);
        match self.body {
            Some(body) => sub.give_body(vec![Chunk::Mem(body.into())]),
            None if self.forwards || matches!(sub.method, Method::Post | Method::Put) => {
                sub.give_body(r.body.chunks().to_vec());
            }
            // What the client announced does not come here.
            None if r.head.content_length.is_some() || r.head.chunked => sub.give_body(Vec::new()),
            None => {}
        }
        for (name, value) in &self.vars {
            set_variable(&mut sub, name, value)?;
        }
        for (at, (name, value)) in self.headers.iter().enumerate() {
            let is_first = !self.headers[..at].iter().any(|(known, _)| known == name);
            sub.put_field(name, std::slice::from_ref(value), is_first);
        }
        sub.slots.of::<Progress>().context = self.context;
        sub.slots.of::<Pageless>();
        Ok(sub)
    }
}

/// Errors: what makes the call fail in Lua, a message and no body.
fn set_variable(r: &mut Request, name: &[u8], value: &[u8]) -> Result<(), Vec<Value>> {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let http = r.http.clone();
    let says = match http.mains.main::<Lua>().variables.set(r, &name, value) {
        Ok(()) => return Ok(()),
        Err(NotAssigned::Fixed) => format!("variable \"{name}\" not changeable"),
        Err(NotAssigned::Unknown) => format!(
            "variable \"{name}\" cannot be assigned a value (maybe you forgot to define it first?) "
        ),
    };
    Err(vec![Value::Text(says.into_bytes()), Value::Bool(false)])
}

fn pairs(list: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::List(list) = list else { return Vec::new() };
    let mut out = Vec::with_capacity(list.len() / 2);
    let mut list = list.into_iter().map(Value::into_text);
    while let (Some(name), Some(value)) = (list.next(), list.next()) {
        out.push((name, value));
    }
    out
}

/// Status, body, whether it is cut off, and the fields as a flat list.
pub async fn fetch(sub: Request) -> Vec<Value> {
    let mut sub = subrequest::fetch(sub).await;
    let mut text = Vec::new();
    let has_body = !sub.is_head() && !sub.reply.head_only && !sub.reply.is_dropped;
    let is_whole = match has_body {
        true => pull(&mut sub, &mut text).await,
        false => !sub.reply.is_dropped,
    };
    let is_nothing = sub.reply.is_dropped && sub.reply.status == 0;
    let status = f64::from(if is_nothing { 500 } else { sub.status() });
    let fields = fields_of(&sub);
    vec![Value::Number(status), Value::Text(text), Value::Bool(!is_whole), Value::List(fields)]
}

/// Appends the reply's body; says whether that was all.
async fn pull(sub: &mut Request, text: &mut Vec<u8>) -> bool {
    loop {
        match sub.reply.body.pull().await {
            Ok(None) => return true,
            Ok(Some(chunk)) if text.len() as u64 + chunk.len() > KEPT_MAX as u64 => {
                log::error!(&*sub, "too big subrequest response");
                return false;
            }
            Ok(Some(chunk)) => {
                if chunk.append_to(text).is_err() {
                    return false;
                }
            }
            Err(fault) => {
                if !fault.what.is_empty() {
                    log::error!(&*sub, "{fault}");
                }
                return false;
            }
        }
    }
}
