//! Chunks on their way to a connection.
//!
//! How the front of the chain leaves, one system call or two per step:
//! - pieces in memory leave together in one `writev`;
//! - a small file range is read and leaves with them in that call;
//! - a middling one goes by `sendfile` behind a head that waits for it (`MSG_MORE`);
//! - a large one by `sendfile` behind a head that leaves at once;
//! - above a session (TLS) every file range is read.
//!
//! The limits were measured on loopback: CPU per reply against nginx's 0.61 for 1 KiB read, 0.69
//! for 16 KiB behind `MSG_MORE`, 0.91 for 100 KiB plain.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;

use super::chunk::truncated;
use super::warm::{Loading, STRETCH_BYTES, Warming};
use super::{Chunk, Conn, OpenFile, SCRATCH_BYTES, Slice, with_scratch};

/// Pieces in one `writev`.
const PIECES_MAX: usize = 64;
/// File ranges up to this are read and sent with what is before them.
const READ_MAX: u64 = 4 << 10;
/// Pieces that are no longer than this together are copied into one: `send` of one buffer costs
/// less than the copy and `sendmsg`.
const JOIN_MAX: u64 = 4 << 10;
/// The kernel holds the head back for a file range up to this.
const HELD_MAX: u64 = 32 << 10;

/// Bytes read past the kernel's cache at a time.
const LOAD_MAX: u64 = 1 << 20;

type Pieces<'a> = SmallVec<[IoSlice<'a>; PIECES_MAX]>;

/// How ranges of files leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWay {
    /// By `sendfile`, where that is worth it; else they are read.
    pub sendfile: bool,
    /// Bytes of one `sendfile`, 0 for as many as the kernel takes.
    pub send_max: u64,
    /// Bytes read at a time; without `directio` no more than the scratch buffer holds.
    pub read_max: u64,
    /// A thread reads what is not in the kernel's memory.
    pub offload: bool,
}

impl Default for FileWay {
    fn default() -> FileWay {
        FileWay { sendfile: true, send_max: 0, read_max: SCRATCH_BYTES as u64, offload: true }
    }
}

/// A queue of chunks, none of them empty.
#[derive(Default)]
pub struct Chain {
    chunks: SmallVec<[Chunk; 4]>,
    /// Chunks at the front that are gone already.
    gone: usize,
    bytes: u64,
    /// A thread reads what comes next.
    warming: Warming,
    /// A thread reads what comes next past the kernel's cache.
    loading: Loading,
    way: FileWay,
}

impl Chain {
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Says how its files leave.
    pub fn set_way(&mut self, way: FileWay) {
        self.way = way;
    }

    /// Bytes in it.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes of it that are in memory.
    pub fn memory(&self) -> u64 {
        self.iter().filter(|c| matches!(c, Chunk::Mem(_))).map(Chunk::len).sum()
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return;
        }
        if self.gone > 0 && self.chunks.len() == self.chunks.capacity() {
            self.chunks.drain(..self.gone);
            self.gone = 0;
        }
        self.bytes += chunk.len();
        self.chunks.push(chunk);
    }

    /// The chunks, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks[self.gone..].iter()
    }

    /// Takes the first chunk out.
    pub fn pop(&mut self) -> Option<Chunk> {
        let chunk = std::mem::replace(self.chunks.get_mut(self.gone)?, Chunk::Mem(Slice::EMPTY));
        self.bytes -= chunk.len();
        self.step();
        Some(chunk)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks.clear();
        (self.gone, self.bytes) = (0, 0);
    }

    /// Drops the first `n` bytes.
    pub fn advance(&mut self, mut n: u64) {
        assert!(n <= self.bytes, "no more is written than there is");
        if n == self.bytes {
            return self.clear();
        }
        self.bytes -= n;
        while n > 0 {
            let first = &mut self.chunks[self.gone];
            if first.len() > n {
                return first.advance(n);
            }
            n -= first.len();
            *first = Chunk::Mem(Slice::EMPTY);
            self.step();
        }
    }

    fn step(&mut self) {
        self.gone += 1;
        if self.gone == self.chunks.len() {
            self.chunks.clear();
            self.gone = 0;
        }
    }

    /// One step: writes what fits of the first `max` bytes and says how many were taken, at least
    /// one. Above a session they may wait there for a flush. The chain is not empty, `max` not 0.
    pub fn poll_write_to(
        &mut self,
        conn: &Conn,
        cx: &mut Context<'_>,
        max: u64,
    ) -> Poll<io::Result<u64>> {
        debug_assert!(!self.is_empty() && max > 0, "there is something to write");
        ready!(self.poll_load(cx, max))?;
        if !conn.is_secure() {
            ready!(conn.stream().poll_writable(cx));
        }
        let mut warming = std::mem::take(&mut self.warming);
        let sent = self.poll_send(conn, cx, max, &mut warming);
        self.warming = warming;
        let sent = ready!(sent)?;
        self.advance(sent);
        Poll::Ready(Ok(sent))
    }

    /// Reads the front of a file that is read past the kernel's cache.
    fn poll_load(&mut self, cx: &mut Context<'_>, max: u64) -> Poll<io::Result<()>> {
        let Some(Chunk::File { file, at, len }) = self.chunks.get(self.gone) else {
            return Poll::Ready(Ok(()));
        };
        let Some(direct) = file.direct() else { return Poll::Ready(Ok(())) };
        let wanted = (*len).min(max).min(self.way.read_max.clamp(1, LOAD_MAX)) as usize;
        let bytes = ready!(self.loading.poll(direct, cx, *at, wanted))?;
        if bytes.is_empty() {
            return Poll::Ready(Err(truncated()));
        }
        let read = bytes.len() as u64;
        let front = &mut self.chunks[self.gone];
        front.advance(read);
        if front.is_empty() {
            *front = bytes.into();
        } else {
            self.chunks.insert(self.gone, bytes.into());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(
        &self,
        conn: &Conn,
        cx: &mut Context<'_>,
        max: u64,
        warming: &mut Warming,
    ) -> Poll<io::Result<u64>> {
        let mut head = Pieces::new();
        let range = self.front(&mut head, max);
        if let Some(range) = range.as_ref().filter(|_| self.way.offload) {
            ready!(range.file.poll_warm(warming, cx, (range.at, range.len)));
        }
        match range {
            None => poll_pieces(conn, cx, &head, false),
            Some(range) if self.reads(conn) || range.len <= READ_MAX => {
                poll_with_read(conn, cx, &head, &range)
            }
            Some(range) => poll_with_file(conn, cx, &head, &range),
        }
    }

    /// Whether files are read, not sent.
    fn reads(&self, conn: &Conn) -> bool {
        conn.is_secure() || !self.way.sendfile
    }

    /// Bytes of a file that leave at a time.
    fn stretch(&self) -> u64 {
        match (self.way.sendfile, self.way.send_max) {
            (false, _) => self.way.read_max.clamp(1, STRETCH_BYTES),
            (true, 0) => STRETCH_BYTES,
            (true, most) => most.min(STRETCH_BYTES),
        }
    }

    /// Fills in the pieces in memory at the front, and returns the file range behind them; of at
    /// most `max` bytes together.
    fn front<'a>(&'a self, pieces: &mut Pieces<'a>, max: u64) -> Option<Range<'a>> {
        let mut left = max;
        for chunk in self.iter() {
            match chunk {
                _ if left == 0 || pieces.len() == PIECES_MAX => break,
                Chunk::Mem(bytes) => {
                    let part = &bytes[..left.min(bytes.len() as u64) as usize];
                    pieces.push(IoSlice::new(part));
                    left -= part.len() as u64;
                }
                // It is read when it has come to the front.
                Chunk::File { file, .. } if file.direct().is_some() => break,
                Chunk::File { file, at, len } => {
                    let len = (*len).min(left).min(self.stretch());
                    return Some(Range { file, at: *at, len });
                }
            }
        }
        None
    }

    /// Writes everything and flushes; `sent` counts the bytes as they go.
    pub fn poll_drain(
        &mut self,
        conn: &Conn,
        cx: &mut Context<'_>,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            *sent += ready!(self.poll_write_to(conn, cx, u64::MAX))?;
        }
        conn.poll_flush(cx)
    }

    /// Writes everything and flushes. Returns the number of bytes.
    pub async fn write_to(&mut self, conn: &Conn) -> io::Result<u64> {
        let mut sent = 0;
        poll_fn(|cx| self.poll_drain(conn, cx, &mut sent)).await?;
        Ok(sent)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<Chunk> for Chain {
    fn from(chunk: Chunk) -> Chain {
        let mut chain = Chain::new();
        chain.push(chunk);
        chain
    }
}

/// A file range at the front of a chain.
struct Range<'a> {
    file: &'a OpenFile,
    at: u64,
    len: u64,
}

fn total(pieces: &[IoSlice<'_>]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes pieces in memory.
fn poll_pieces(
    conn: &Conn,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
    more: bool,
) -> Poll<io::Result<u64>> {
    let sent = if conn.is_secure() {
        ready!(conn.poll_write_vectored(cx, pieces))?
    } else if pieces.len() > 1 && total(pieces) <= JOIN_MAX {
        ready!(with_scratch(|scratch| {
            let end = join(pieces, scratch);
            conn.stream().poll_send(cx, &scratch[..end], more)
        }))?
    } else {
        ready!(conn.stream().poll_send_vectored(cx, pieces, more))?
    };
    if sent == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    Poll::Ready(Ok(sent as u64))
}

/// Copies the pieces to the front of `to`, which has room for them; says where they end.
fn join(pieces: &[IoSlice<'_>], to: &mut [u8]) -> usize {
    let mut end = 0;
    for piece in pieces {
        to[end..end + piece.len()].copy_from_slice(piece);
        end += piece.len();
    }
    end
}

/// Reads the range and writes it with the pieces before it.
fn poll_with_read(
    conn: &Conn,
    cx: &mut Context<'_>,
    head: &[IoSlice<'_>],
    range: &Range<'_>,
) -> Poll<io::Result<u64>> {
    with_scratch(|scratch| {
        // A head of usual size stands before the bytes that are read: one piece leaves.
        let joined = total(head) <= JOIN_MAX;
        let start = if joined { join(head, scratch) } else { 0 };
        let wanted = range.len.min((SCRATCH_BYTES - start) as u64) as usize;
        let read = range.file.read_at(&mut scratch[start..start + wanted], range.at)?;
        if read == 0 {
            return Poll::Ready(Err(truncated()));
        }
        let bytes = IoSlice::new(&scratch[..start + read]);
        if joined {
            return poll_pieces(conn, cx, &[bytes], false);
        }
        let mut pieces: Pieces<'_> = head.iter().map(|piece| IoSlice::new(piece)).collect();
        pieces.push(bytes);
        poll_pieces(conn, cx, &pieces, false)
    })
}

/// Writes the pieces, then sends the range without reading it.
fn poll_with_file(
    conn: &Conn,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
    range: &Range<'_>,
) -> Poll<io::Result<u64>> {
    let head = total(pieces);
    if head > 0 {
        let sent = ready!(poll_pieces(conn, cx, pieces, range.len <= HELD_MAX))?;
        if sent < head {
            return Poll::Ready(Ok(sent));
        }
    }
    match conn.stream().poll_send_file(cx, range.file.as_fd(), range.at, range.len as usize) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(truncated())),
        Poll::Ready(Ok(sent)) => Poll::Ready(Ok(head + sent as u64)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // The head is gone; that is progress.
        Poll::Pending if head > 0 => Poll::Ready(Ok(head)),
        Poll::Pending => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Reactor, spawn};
    use crate::io::Stream;
    use crate::io::chunk::tests::file;
    use proptest::prelude::*;
    use std::io::{Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;

    fn tcp_pair() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Conn::plain(Stream::adopt(ours.into()).unwrap()), peer)
    }

    /// What the peer of a chain receives.
    fn sent(mut chain: Chain) -> Vec<u8> {
        let mut reactor = Reactor::new().unwrap();
        let (conn, mut peer) = tcp_pair();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let expected = chain.len();
        let counted = reactor.block_on(async move {
            let counted = chain.write_to(&conn).await.unwrap();
            assert!(chain.is_empty());
            counted
        });
        assert_eq!(counted, expected);
        reader.join().unwrap()
    }

    #[test]
    fn every_way_gives_the_same_bytes() {
        let text: Vec<u8> = (0..300_001u32).map(|n| (n / 3) as u8).collect();
        let mut named = tempfile::NamedTempFile::new_in(".").unwrap();
        named.write_all(&text).unwrap();
        named.as_file().sync_all().unwrap();
        named.rewind().unwrap();
        let way = FileWay::default();
        let ways = [
            way,
            FileWay { sendfile: false, read_max: 1000, ..way },
            FileWay { send_max: 5000, offload: false, ..way },
        ];
        for (way, direct) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
            let opened = Rc::new(OpenFile::open(named.path()).unwrap());
            // Not every file system can.
            let _ = direct.then(|| opened.read_past_cache(512));
            let mut chain = Chain::new();
            chain.set_way(way);
            chain.push("head");
            chain.push(Chunk::File { file: opened.clone(), at: 7, len: 299_000 });
            chain.push("middle");
            chain.push(Chunk::File { file: opened, at: 299_999, len: 2 });
            let want = [b"head", &text[7..299_007], b"middle", &text[299_999..]].concat();
            assert!(sent(chain) == want, "{way:?} {direct}");
        }
    }

    #[test]
    fn pieces_and_ranges_arrive_in_order() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let source = file(&bytes);
        for len in [10, 5_000, 200_000] {
            let mut chain = Chain::new();
            chain.push("head\r\n");
            chain.push(Chunk::File { file: source.clone(), at: 3, len });
            chain.push(b"tail".to_vec());
            let got = sent(chain);
            assert_eq!(&got[..6], b"head\r\n");
            assert!(got[6..6 + len as usize] == bytes[3..3 + len as usize]);
            assert_eq!(&got[6 + len as usize..], b"tail");
        }
    }

    #[test]
    fn a_step_writes_no_more_than_it_may() {
        let mut reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            let (conn, mut peer) = tcp_pair();
            let mut chain = Chain::new();
            chain.push("abc");
            chain.push(Chunk::File { file: file(&[b'x'; 9_000]), at: 0, len: 9_000 });
            for (max, expected) in [(2, 2), (3, 3), (4_000, 4_000), (u64::MAX, 4_998)] {
                let step = poll_fn(|cx| chain.poll_write_to(&conn, cx, max)).await;
                assert_eq!(step.unwrap(), expected);
            }
            drop(conn);
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 9_003);
        });
    }

    #[test]
    fn a_file_that_left_memory_arrives_too() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("cold");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 11) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        let cold = OpenFile::open(&path).unwrap();
        crate::sys::file::forget_content(cold.as_fd());
        let len = bytes.len() as u64;
        let chain = Chain::from(Chunk::File { file: Rc::new(cold), at: 0, len });
        assert!(sent(chain) == bytes);
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let mut reactor = Reactor::new().unwrap();
        for len in [100, 20_000, 100_000] {
            let error = reactor.block_on(async move {
                let (conn, _peer) = tcp_pair();
                let mut chain = Chain::from(Chunk::File { file: file(b"short"), at: 0, len });
                chain.write_to(&conn).await.unwrap_err()
            });
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_slow_reader_gets_everything() {
        let mut reactor = Reactor::new().unwrap();
        let (conn, mut peer) = tcp_pair();
        let source = file(&vec![b'y'; 8 << 20]);
        let reader = std::thread::spawn(move || {
            let (mut all, mut part) = (0, vec![0; 100_000]);
            while let Ok(n @ 1..) = peer.read(&mut part) {
                all += n;
                std::thread::yield_now();
            }
            all
        });
        reactor.block_on(async move {
            let conn = Rc::new(conn);
            spawn(async {});
            let mut chain = Chain::from(Chunk::File { file: source, at: 0, len: 8 << 20 });
            chain.push(vec![b'z'; 4 << 20]);
            assert_eq!(chain.write_to(&conn).await.unwrap(), 12 << 20);
        });
        assert_eq!(reader.join().unwrap(), 12 << 20);
    }

    proptest! {
        #[test]
        fn any_chain_is_cut_anywhere(
            parts in prop::collection::vec((any::<bool>(), 1..50usize), 0..90),
            cuts in prop::collection::vec(1..40u64, 0..40),
        ) {
            let content: Vec<u8> = (0..64).collect();
            let source = file(&content);
            let (mut chain, mut expected) = (Chain::new(), Vec::new());
            for (in_file, len) in parts {
                expected.extend_from_slice(&content[..len]);
                if in_file {
                    chain.push(Chunk::File { file: source.clone(), at: 0, len: len as u64 });
                } else {
                    chain.push(content[..len].to_vec());
                }
            }
            for cut in cuts {
                let cut = cut.min(chain.len());
                chain.advance(cut);
                expected.drain(..cut as usize);
                prop_assert_eq!(chain.len(), expected.len() as u64);
            }
            let mut rest = Vec::new();
            while let Some(chunk) = chain.pop() {
                prop_assert!(!chunk.is_empty());
                chunk.append_to(&mut rest).unwrap();
            }
            prop_assert_eq!(rest, expected);
        }
    }
}
