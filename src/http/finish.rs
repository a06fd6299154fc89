//! The end of a request: what is done behind its reply, and the log phase.

use super::phase::{self, Verdict};
use super::{Body, Request};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A request that is logged when it ends, be it cut off in the middle.
pub struct Ending {
    request: Request,
    is_logged: bool,
}

impl Ending {
    /// `request`, from here on.
    pub fn of(request: Request) -> Ending {
        Ending { request, is_logged: false }
    }

    /// Ends a request whose reply is sent, or will never be.
    pub async fn end(&mut self) {
        if self.place.location.core.post_action.is_some() {
            Box::pin(post_action(&mut self.request)).await;
        }
        self.log_once();
    }

    fn log_once(&mut self) {
        if !std::mem::replace(&mut self.is_logged, true) {
            log(&mut self.request);
        }
    }
}

impl Deref for Ending {
    type Target = Request;
    fn deref(&self) -> &Request {
        &self.request
    }
}

impl DerefMut for Ending {
    fn deref_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.log_once();
    }
}

/// Lets every log handler of the request's place see it.
pub fn log(r: &mut Request) {
    let location = r.place.location.clone();
    for handler in location.pipeline.loggers() {
        handler(r);
    }
}

/// The request is a `post_action`: its client waits for nothing.
#[derive(Default)]
pub struct PostAction;

/// Handles the request once more, elsewhere; nobody gets the answer. The log sees where it went.
///
/// A place that inherits the action that led to it does not start it again.
async fn post_action(r: &mut Request) {
    r.slots.of::<PostAction>();
    let mut done: Option<Rc<str>> = None;
    while let Some(action) = r.place.location.core.post_action.clone()
        && done.as_ref() != Some(&action)
    {
        r.reply.reset();
        r.reply.status_override = 0;
        r.place.is_error_page = false;
        let first = match action.starts_with('/') {
            true => r.internal_redirect(action.as_bytes().to_vec(), Vec::new()),
            false => Verdict::Named((&*action).into()),
        };
        phase::lead(r, first).await;
        (r.reply.body, r.reply.rest) = (Body::Empty, None);
        r.reply.tunnel = None;
        done = Some(action);
    }
}
