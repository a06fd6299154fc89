//! A notice board: one descriptor lies on it, for every process that inherited the board.
//!
//! The notice is a message that waits in a pair of sockets and is only ever looked at: `MSG_PEEK`
//! gives each reader a descriptor of its own. So the kernel keeps it: whoever posted it may be
//! dead, and a process that is forked later finds it at once. A new notice wakes everybody who
//! watches the board.
//!
//! One process posts at a time. One that dies while it posts leaves the old notice, the new one or
//! both, and the next one tidies up.

use super::channel::{Channel, pair};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// More notices than can ever lie on a board: a bound for loops.
const NOTICES_MAX: usize = 16;

/// Both ends of the pair.
#[derive(Debug)]
pub struct Board {
    post: Channel,
    look: Channel,
}

/// Tells one notice from another.
type Stamp = [u8; 8];

impl Board {
    /// An empty one.
    pub fn new() -> io::Result<Board> {
        let (post, look) = pair()?;
        Ok(Board { post, look })
    }

    /// Puts a notice in the place of the one that lies there. Until the new one is there, readers
    /// find the old one.
    pub fn replace(&self, notice: BorrowedFd<'_>) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp: Stamp = (since.as_nanos() as u64).to_le_bytes();
        self.post.send(&stamp, &[notice])?;
        self.take_down_until(stamp)?;
        // Who was woken by the first copy may have looked while the old notice was still there.
        self.post.send(&stamp, &[notice])?;
        self.look.receive(&mut Stamp::default()).map(drop)
    }

    /// The notice, if there is one: a descriptor of the caller's own.
    pub fn look(&self) -> io::Result<Option<OwnedFd>> {
        match self.look.peek(&mut Stamp::default()) {
            Ok(message) => Ok(message.descriptors.into_iter().next()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take_down_until(&self, wanted: Stamp) -> io::Result<()> {
        let mut stamp = Stamp::default();
        for _ in 0..NOTICES_MAX {
            let message = self.look.peek(&mut stamp)?;
            if message.len == stamp.len() && stamp == wanted {
                return Ok(());
            }
            self.look.receive(&mut stamp)?;
        }
        Err(io::Error::other("too many notices"))
    }
}

/// Becomes readable, as an edge, with every new notice.
impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.look.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    fn notice(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read(board: &Board) -> Option<String> {
        let mut file = File::from(board.look().unwrap()?);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        Some(text)
    }

    fn count(board: &Board) -> usize {
        let mut count = 0;
        while board.look.receive(&mut Stamp::default()).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn the_last_notice_is_read_again_and_again() {
        let board = Board::new().unwrap();
        assert_eq!(read(&board), None);
        for text in ["one", "two", "three"] {
            board.replace(notice(text).as_fd()).unwrap();
            assert_eq!((read(&board).unwrap(), read(&board).unwrap()), (text.into(), text.into()));
        }
        assert_eq!(count(&board), 1);
    }

    #[test]
    fn what_a_dead_process_left_is_tidied_up() {
        let board = Board::new().unwrap();
        for text in ["old", "half", "half"] {
            board.post.send(&[7; 8], &[notice(text).as_fd()]).unwrap();
        }
        assert_eq!(read(&board).unwrap(), "old");
        board.replace(notice("new").as_fd()).unwrap();
        assert_eq!(read(&board).unwrap(), "new");
        assert_eq!(count(&board), 1);
    }
}
