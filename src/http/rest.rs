//! The code that makes a reply's body goes on while the body is sent.
//!
//! A content handler that sends as it works (Lua's `ngx.flush`) fills the reply's head, leaves a
//! body that is fed from outside, and hands over what is left of itself as a [`Rest`]. The
//! protocol's sender then polls both: the rest has the request, the sender has the body.

use super::Request;
use super::body::{Body, Fault, Pull};
use super::reply::LocalBoxFuture;
use std::task::{Context, Poll};

/// What is left of a content handler when the head of its reply leaves.
pub type Rest = Box<dyn for<'a> FnOnce(&'a mut Request) -> LocalBoxFuture<'a, ()>>;

/// Lets `rest` go on to its end, and `send` send what it makes meanwhile. A client that leaves
/// does not stop it: `send` is not called again after it has ended.
pub(super) async fn go_on(
    rest: Rest,
    r: &mut Request,
    mut send: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Fault>>,
) -> Result<(), Fault> {
    let mut rest = rest(r);
    let mut sent = None;
    std::future::poll_fn(|cx| {
        let is_over = rest.as_mut().poll(cx);
        if sent.is_none()
            && let Poll::Ready(result) = send(cx)
        {
            sent = Some(result);
        }
        is_over
    })
    .await;
    sent.unwrap_or(Ok(()))
}

/// Lets `rest` go on to its end, and gives all of the body that it feeds.
///
/// Errors: the body's; more than `limit` bytes.
pub async fn collect(
    rest: Rest,
    r: &mut Request,
    mut body: Body,
    limit: usize,
) -> Result<Body, Fault> {
    let mut all = Vec::new();
    go_on(rest, r, |cx| {
        loop {
            match std::task::ready!(body.poll_pull(cx)) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(chunk)) if all.len() as u64 + chunk.len() <= limit as u64 => {
                    let copied = chunk.append_to(&mut all);
                    copied.map_err(|e| Fault::own(format!("pread() failed ({e})")))?;
                }
                Ok(Some(_)) => {
                    body = Body::Empty;
                    return Poll::Ready(Err(Fault::own("too much to be kept")));
                }
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
    })
    .await?;
    Ok(Body::bytes(all))
}
