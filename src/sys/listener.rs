//! Listening sockets: what `socket2` lacks, and how new connections are steered in a group.
//!
//! Sockets with SO_REUSEPORT on one address form a group, and the kernel gives each new
//! connection to one of them. [`steer`] narrows the choice to some members, so that a socket can
//! be emptied before it is closed: connections in the queue of a closed socket are reset.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// New connections to the group of `fd` go to its members of these numbers only, at random; their
/// queues are not touched. A member's number is its place in the order in which the members began
/// to listen, the last one taking the place of one that is closed.
pub fn steer(fd: BorrowedFd<'_>, members: &[u16]) -> io::Result<()> {
    let mut program = selection_program(members);
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// New connections go to every member of the group of `fd` again.
pub fn stop_steering(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set(fd, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &0i32) {
        // There was no program.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// How many connections wait to be accepted.
pub fn waiting(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all-zero is a valid `tcp_info`, which is numbers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info`.
    checked(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut len,
        )
    })?;
    // Of a listening socket these two fields are the queue and its bound.
    Ok(info.tcpi_unacked)
}

/// `fastopen=queue`: how many connections may wait with data in their first packet.
pub fn set_fast_open(fd: BorrowedFd<'_>, queue: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &queue)
}

/// `deferred`: a connection is accepted when data has come, or `seconds` have passed; 0 ends it.
pub fn set_deferred(fd: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live value.
    checked(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Classic BPF that returns one of `members` at random.
fn selection_program(members: &[u16]) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let random = (libc::SKF_AD_OFF + SKF_AD_RANDOM) as u32;
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, random)];
    program.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, members.len() as u32));
    for (place, &member) in members.iter().enumerate() {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, place as u32));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, member.into()));
    }
    // Not reached; the kernel wants a program to end in a return. An index without a socket
    // lets it choose by itself.
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::from(u16::MAX)));
    program
}

const SO_DETACH_REUSEPORT_BPF: i32 = 68;
const SKF_AD_RANDOM: i32 = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpStream};
    use std::os::fd::AsFd;

    fn member(addr: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        socket.listen(128).unwrap();
        socket
    }

    fn queues(group: &[Socket]) -> Vec<u32> {
        group.iter().map(|socket| waiting(socket.as_fd()).unwrap()).collect()
    }

    #[test]
    fn new_connections_go_where_they_are_steered() {
        let mut group = vec![member("127.0.0.1:0".parse().unwrap())];
        let addr = group[0].local_addr().unwrap().as_socket().unwrap();
        group.extend((1..4).map(|_| member(addr)));
        steer(group[3].as_fd(), &[0, 2]).unwrap();
        let held: Vec<_> = (0..40).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let before = queues(&group);
        assert_eq!(before[0] + before[2], 40, "{before:?}");
        assert!(before[0] > 0 && before[2] > 0, "{before:?}");
        steer(group[0].as_fd(), &[1]).unwrap();
        let more: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        assert_eq!(queues(&group)[1], 10);
        stop_steering(group[0].as_fd()).unwrap();
        stop_steering(group[0].as_fd()).unwrap();
        let rest: Vec<_> = (0..60).map(|_| TcpStream::connect(addr).unwrap()).collect();
        assert!(queues(&group)[3] > 0);
        drop((held, more, rest));
    }

    #[test]
    fn the_last_member_takes_the_place_of_a_closed_one() {
        let mut group = vec![member("127.0.0.1:0".parse().unwrap())];
        let addr = group[0].local_addr().unwrap().as_socket().unwrap();
        group.extend((1..4).map(|_| member(addr)));
        drop(group.remove(1));
        // Left are 0, 2, 3 of which 3 is member 1 now.
        steer(group[0].as_fd(), &[1]).unwrap();
        let held: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        assert_eq!(queues(&group), [0, 0, 10]);
        drop(held);
    }
}
