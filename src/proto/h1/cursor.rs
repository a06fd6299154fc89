//! Where the reading of a head stands, so that a head which drips in costs no quadratic work.

/// The line being read, and when it is worth another look.
#[derive(Debug, Default)]
pub(super) struct LineCursor {
    /// Where the line starts.
    pub start: usize,
    /// How much of the buffer was searched for the line's end.
    searched: usize,
    /// Look at the unfinished line again when the buffer has this many bytes: errors are found
    /// early, and a line is looked at a logarithmic number of times.
    look_again: usize,
}

/// Lines shorter than this, in bytes, are looked at whenever something arrives.
const OFTEN: usize = 64;

impl LineCursor {
    #[inline]
    pub fn at(start: usize) -> LineCursor {
        LineCursor { start, searched: start, look_again: 0 }
    }

    /// Goes on to the line that starts at `start`, if it is another one.
    #[inline]
    pub fn move_to(&mut self, start: usize) {
        if start != self.start {
            *self = LineCursor::at(start);
        }
    }

    /// Whether looking at the line may tell something that was not known before.
    #[inline]
    pub fn is_worth_a_look(&mut self, buffer: &[u8]) -> bool {
        if buffer.len() >= self.look_again {
            return true;
        }
        let unseen = &buffer[self.searched..];
        self.searched = buffer.len();
        memchr::memchr(b'\n', unseen).is_some()
    }

    /// The line was looked at, or need not be, and is not finished.
    pub fn wait(&mut self, buffer: &[u8]) {
        let len = buffer.len();
        self.searched = len;
        if len >= self.look_again {
            let read = len - self.start;
            self.look_again = len + if read < OFTEN { 1 } else { read };
        }
    }
}
