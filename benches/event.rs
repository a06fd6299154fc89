//! What the loop itself costs: `cargo bench --bench event --profile fast`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use divan::{Bencher, black_box};
use tollbar::event::{self, Deadline, Reactor};
use tollbar::io::{Buf, Chain, Conn, Size, Slice, Stream};

fn main() {
    divan::main();
}

/// One turn with nothing to do: the poll's system call and the clock.
#[divan::bench]
fn turn_without_events(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    bencher.bench_local(|| reactor.turn(Some(Duration::ZERO)).unwrap());
}

/// A thousand tasks woken and polled once, in one turn.
#[divan::bench]
fn wake_and_poll_a_thousand_tasks(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    let wakers = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..1000 {
        let (wakers, mut first) = (wakers.clone(), true);
        event::spawn(poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                wakers.borrow_mut().push(cx.waker().clone());
            }
            Poll::Pending
        }));
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    bencher.bench_local(|| {
        wakers.borrow().iter().for_each(|waker| waker.wake_by_ref());
        reactor.turn(Some(Duration::ZERO)).unwrap()
    });
}

/// Starting and ending a task.
#[divan::bench]
fn spawn_a_thousand_tasks(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    bencher.bench_local(|| {
        for n in 0..1000 {
            event::spawn(async move {
                black_box(n);
            });
        }
        reactor.turn(Some(Duration::ZERO)).unwrap()
    });
}

/// A 60-second timeout around something that waits once: made, armed, dropped.
#[divan::bench]
fn a_thousand_short_waits_with_a_timeout(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    bencher.bench_local(|| {
        let mut waited = false;
        let wait = poll_fn(move |cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        reactor.block_on(async move {
            let mut wait = wait;
            for _ in 0..1000 {
                let _ = event::timeout(Duration::from_secs(60), &mut wait).await;
            }
        })
    });
}

/// Moving a deadline that is armed.
#[divan::bench]
fn move_a_deadline(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    let deadline = Rc::new(Deadline::after(Duration::from_secs(60)));
    let armed = deadline.clone();
    event::spawn(async move { armed.wait().await });
    reactor.turn(Some(Duration::ZERO)).unwrap();
    bencher.bench_local(|| deadline.set_after(black_box(Duration::from_secs(60))));
}

/// A request and an answer over a socket pair: two system calls are the peer's, three are ours.
#[divan::bench]
fn answer_on_a_socket(bencher: Bencher) {
    let mut reactor = Reactor::new().unwrap();
    let (ours, mut peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let conn = Conn::plain(Stream::adopt(ours.into()).unwrap());
    event::spawn(async move {
        let idle = Deadline::never();
        loop {
            idle.set_after(Duration::from_secs(60));
            let read = poll_fn(|cx| conn.poll_read_with(cx, 65_536, |bytes| bytes.len()));
            let Ok(Ok(1..)) = idle.bound(read).await else { return };
            let mut chain = Chain::new();
            chain.push("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            chain.push("hello");
            chain.write_to(&conn).await.unwrap();
        }
    });
    let mut answer = [0; 256];
    bencher.bench_local(|| {
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        reactor.turn(None).unwrap();
        peer.read(&mut answer).unwrap()
    });
}

/// The same system calls without a loop: the floor of the bench above.
#[divan::bench]
fn answer_on_a_socket_by_hand(bencher: Bencher) {
    let (mut ours, mut peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut poll = mio::Poll::new().unwrap();
    let mut events = mio::Events::with_capacity(512);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&ours);
    let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
    poll.registry().register(&mut mio::unix::SourceFd(&fd), mio::Token(0), both).unwrap();
    let (mut answer, mut request) = ([0; 256], vec![0; 65_536]);
    bencher.bench_local(|| {
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        poll.poll(&mut events, None).unwrap();
        black_box(ours.read(&mut request).unwrap());
        let pieces = [
            std::io::IoSlice::new(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            std::io::IoSlice::new(b"hello"),
        ];
        black_box(ours.write_vectored(&pieces).unwrap());
        peer.read(&mut answer).unwrap()
    });
}

/// A pooled block: taken, filled, cut, given back.
#[divan::bench]
fn a_pooled_buffer(bencher: Bencher) {
    bencher.bench_local(|| {
        let mut buf = Buf::with_room(Size::Large, 1024);
        buf.append(black_box(b"some bytes"));
        let mut bytes = buf.freeze();
        black_box(bytes.split_to(4));
    });
}

/// A chain of a head and a body, made and dropped.
#[divan::bench]
fn a_chain_of_two(bencher: Bencher) {
    let body = Slice::from(vec![0; 1024]);
    bencher.bench_local(|| {
        let mut chain = Chain::new();
        chain.push("HTTP/1.1 200 OK\r\n\r\n");
        chain.push(body.clone());
        chain.advance(black_box(1040));
        chain.len()
    });
}
