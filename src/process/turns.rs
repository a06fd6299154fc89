//! The loop of a process that serves: turns, signals, the parent's voice.
use crate::event::{Reactor, Watch};
use crate::log::{self, Os};
use crate::sys::signal::{Received, Signals};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A process's loop with its signals.
pub struct Turns {
    reactor: Reactor,
    signals: Watch<Signals>,
    /// Readable once the parent is gone: it holds the other end, and nobody else does.
    parent: Option<Watch<UnixStream>>,
}

/// What a turn brought, besides the work that was done in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub signals: Vec<Received>,
    /// The parent has died. Said once.
    pub orphaned: bool,
}

impl Turns {
    /// Makes the thread's loop. `parent` is our end of the pair shared with the parent.
    pub fn new(parent: Option<UnixStream>) -> io::Result<Turns> {
        let reactor = Reactor::new()?;
        let signals = Watch::new(Signals::install()?)?;
        if let Some(end) = &parent {
            end.set_nonblocking(true)?;
        }
        let parent = parent.map(Watch::new).transpose()?;
        Ok(Turns { reactor, signals, parent })
    }

    /// Takes a turn of the loop, waiting at most `max_wait`, and says what came.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> News {
        if let Err(error) = self.reactor.turn(max_wait) {
            log::alert!("epoll_wait() failed{}", Os(&error));
        }
        let mut news = News::default();
        if self.signals.take_ready() {
            news.signals = take_all(self.signals.fd());
        }
        if self.parent.as_ref().is_some_and(|parent| parent.take_ready() && is_closed(parent.fd()))
        {
            self.parent = None;
            news.orphaned = true;
        }
        news
    }
}

/// Every signal that waits.
pub fn take_all(signals: &Signals) -> Vec<Received> {
    let mut taken = Vec::new();
    loop {
        match signals.take() {
            Ok(Some(received)) => taken.push(received),
            Ok(None) => return taken,
            Err(error) => {
                log::alert!("read() of signals failed{}", Os(&error));
                return taken;
            }
        }
    }
}

/// The other end says nothing yet in any build: whatever is readable is the end, or unknown words.
fn is_closed(mut channel: &UnixStream) -> bool {
    let mut words = [0; 64];
    loop {
        match channel.read(&mut words) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_closes_its_end_has_died() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut turns = Turns::new(Some(ours)).unwrap();
        assert_eq!(turns.turn(Some(Duration::ZERO)), News::default());
        drop(theirs);
        assert!(turns.turn(Some(Duration::from_secs(5))).orphaned);
        assert!(!turns.turn(Some(Duration::ZERO)).orphaned);
    }
}
