//! Parsers of reply heads, used again and again.

use crate::proto::h1::ReplyHead;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Parsers that a worker keeps.
const KEPT: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes move in and out, not what is in them")]
    static SPARE: RefCell<Vec<Box<ReplyHead>>> = const { RefCell::new(Vec::new()) };
}

/// A parser that goes back to the others when it is dropped.
pub struct SpareHead(Option<Box<ReplyHead>>);

impl SpareHead {
    /// One that has read nothing.
    pub fn take() -> SpareHead {
        SpareHead(Some(SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Deref for SpareHead {
    type Target = ReplyHead;
    fn deref(&self) -> &ReplyHead {
        self.0.as_ref().expect("present until dropped")
    }
}

impl DerefMut for SpareHead {
    fn deref_mut(&mut self) -> &mut ReplyHead {
        self.0.as_mut().expect("present until dropped")
    }
}

impl Drop for SpareHead {
    fn drop(&mut self) {
        let Some(mut head) = self.0.take() else { return };
        head.clear();
        // While the thread ends there is no store any more; the parser is just freed.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(head);
            }
        });
    }
}
