//! Pairs of processes that pass messages and descriptors.
//!
//! A message arrives whole or not at all (`SOCK_SEQPACKET`), with the descriptors that were sent
//! with it; both ends are nonblocking and close-on-exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use super::socket::retry;

/// Descriptors in one message.
pub const DESCRIPTORS_MAX: usize = 64;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What was received.
#[derive(Debug)]
pub struct Message {
    /// Bytes written to the buffer; 0 with no descriptors: the other end is closed.
    pub len: usize,
    /// Close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected ends, one for each process.
pub fn pair() -> io::Result<(Channel, Channel)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let make = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    let (one, other) = retry(make)?;
    Ok((Channel(one), Channel(other)))
}

impl Channel {
    /// An end that was inherited.
    pub fn adopt(fd: OwnedFd) -> Channel {
        Channel(fd)
    }

    /// Sends a message, not empty, with descriptors, which stay open here.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let numbers: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let pieces = [IoSlice::new(bytes)];
        let send =
            || sendmsg::<()>(self.0.as_raw_fd(), &pieces, rights, MsgFlags::MSG_NOSIGNAL, None);
        retry(send).map(drop)
    }

    /// Receives one message. One that does not fit `buf` is an error, and lost.
    pub fn receive(&self, buf: &mut [u8]) -> io::Result<Message> {
        self.take(buf, MsgFlags::empty())
    }

    /// A copy of the message that waits longest, with descriptors of its own; it goes on waiting.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<Message> {
        self.take(buf, MsgFlags::MSG_PEEK)
    }

    fn take(&self, buf: &mut [u8], how: MsgFlags) -> io::Result<Message> {
        let mut room = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let fd = self.0.as_raw_fd();
        let mut pieces = [IoSliceMut::new(buf)];
        let received = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | how;
            match recvmsg::<()>(fd, &mut pieces, Some(&mut room), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just made these descriptors for this process.
                let owned = numbers.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) });
                descriptors.extend(owned);
            }
        }
        if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message does not fit"));
        }
        Ok(Message { len: received.bytes, descriptors })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_keep_their_bounds() {
        let (a, b) = pair().unwrap();
        a.send(b"one", &[]).unwrap();
        a.send(b"three", &[]).unwrap();
        let mut buf = [0; 16];
        for expected in [&b"one"[..], b"three"] {
            let message = b.receive(&mut buf).unwrap();
            assert_eq!((&buf[..message.len], message.descriptors.len()), (expected, 0));
        }
        assert_eq!(b.receive(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send(b"too long", &[]).unwrap();
        assert_eq!(b.receive(&mut buf[..3]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert_eq!(b.receive(&mut buf).unwrap().len, 0);
    }

    #[test]
    fn descriptors_travel() {
        let (a, b) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"content").unwrap();
        a.send(b"x", &[file.as_fd(), file.as_fd()]).unwrap();
        let message = b.receive(&mut [0; 4]).unwrap();
        let [first, _second] = <[OwnedFd; 2]>::try_from(message.descriptors).unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::fs::File::from(first).read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }
}
