//! Handshakes over a wire, on either side.
//!
//! The server's begins with the raw hello: it is read, a [`ChooseServer`] decides on it, and only
//! then rustls gets the same bytes. Both are futures; the caller bounds them in time.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustls::ProtocolVersion;

use super::channel::Channel;
use super::client::Client;
use super::client_hello::{HelloReader, NotHello, Opening};
use super::engine::{Engine, Pause};
use super::fault::HandshakeFault;
use super::fingerprint::Traits;
use super::info::TlsInfo;
use super::server::{Alert, Choice, ChooseServer, Chosen, Server};
use super::session::note_origin;
use super::wire::{Unsent, Wire, with_incoming, with_outgoing};

/// Most bytes that a client may spend on its hello, record headers included.
const HELLO_INPUT_MAX: usize = 128 * 1024;

/// Most unprocessed bytes during a handshake; one message and the records around it.
const INPUT_MAX: usize = 128 * 1024;

/// A server's side of a finished handshake.
pub(super) struct Accepted {
    pub channel: Channel,
    pub info: TlsInfo,
    pub server: Rc<Server>,
}

/// What a client began with.
pub(super) enum First {
    Tls(Box<Accepted>),
    /// No TLS at all; the bytes it sent.
    Plain(Vec<u8>),
}

/// Takes a handshake. `input` is what was read of the connection before.
pub(super) async fn accept(
    wire: &impl Wire,
    mut input: Vec<u8>,
    chooser: &dyn ChooseServer,
) -> Result<First, HandshakeFault> {
    if input.is_empty() && receive(wire, &mut input).await.map_err(HandshakeFault::Io)? == 0 {
        return Err(HandshakeFault::ClosedBeforeHello);
    }
    if input.first().is_some_and(|first| Opening::of(*first) == Opening::Plain) {
        return Ok(First::Plain(input));
    }
    accept_tls(wire, input, chooser).await.map(|accepted| First::Tls(Box::new(accepted)))
}

async fn accept_tls(
    wire: &impl Wire,
    mut input: Vec<u8>,
    chooser: &dyn ChooseServer,
) -> Result<Accepted, HandshakeFault> {
    let mut reader = HelloReader::default();
    while !reader.advance(&input).or_else(|fault| refuse(wire, fault))? {
        match receive(wire, &mut input).await {
            Ok(0) => return Err(HandshakeFault::PeerClosed),
            Ok(_) if input.len() > HELLO_INPUT_MAX => refuse(wire, NotHello::TooLarge)?,
            Ok(_) => false,
            Err(error) => return Err(HandshakeFault::Io(error)),
        };
    }
    let hello = reader.hello(&input).or_else(|fault| refuse(wire, fault))?;
    let choice = match chooser.choose(&hello) {
        Chosen::Now(choice) => choice,
        Chosen::Later(waiting) => waiting.await,
    };
    let server = match choice {
        Choice::Serve(server) => server,
        Choice::Refuse(alert) => return Err(reject(wire, alert)),
        Choice::Stop(part) => {
            reject(wire, Alert::InternalError);
            return Err(HandshakeFault::Stopped(part));
        }
    };
    let Some(config) = server.config().cloned() else {
        return Err(reject(wire, Alert::UnrecognizedName));
    };
    let (traits, name) = (Traits::of(&hello), hello.server_name.map(<[u8]>::to_vec));
    drop(reader);
    let handshake = Handshake::new(Engine::server(config)?, input);
    let (channel, info) = handshake.run(wire, name.as_deref(), Some(traits)).await?;
    Ok(Accepted { channel, info, server })
}

/// Makes a handshake with the server `peer`, which is called `name`, and judges its certificate.
pub(super) async fn connect(
    wire: &impl Wire,
    client: &Client,
    peer: &str,
    name: &str,
) -> Result<(Channel, TlsInfo), HandshakeFault> {
    let handshake = Handshake::new(client.engine(peer, name)?, Vec::new());
    let (channel, info) = handshake.run(wire, None, None).await?;
    client.verify(channel.peer_certificates(), name)?;
    Ok((channel, info))
}

/// A handshake that rustls conducts.
struct Handshake {
    engine: Engine,
    input: Vec<u8>,
    /// Application data that came right behind the handshake.
    plain: Vec<u8>,
    unsent: Unsent,
}

impl Handshake {
    fn new(engine: Engine, input: Vec<u8>) -> Self {
        Self { engine, input, plain: Vec::new(), unsent: Unsent::default() }
    }

    async fn run(
        mut self,
        wire: &impl Wire,
        server_name: Option<&[u8]>,
        hello: Option<Traits>,
    ) -> Result<(Channel, TlsInfo), HandshakeFault> {
        loop {
            let step = self.step();
            // Tickets of TLS 1.3 are in no hurry: they go with the first reply.
            let is_over = !self.engine.is_handshaking();
            let may_wait = is_over
                && step.is_ok()
                && self.engine.state().protocol_version() == Some(ProtocolVersion::TLSv1_3)
                && self.engine.is_server();
            if !may_wait {
                let sent = self.unsent.flush(wire).await;
                step?;
                sent.map_err(HandshakeFault::Io)?;
            }
            if is_over {
                break;
            }
            if self.input.len() > INPUT_MAX {
                return Err(HandshakeFault::NotHello(NotHello::TooLarge));
            }
            match receive(wire, &mut self.input).await {
                Ok(0) => return Err(HandshakeFault::PeerClosed),
                Ok(_) => {}
                Err(error) => return Err(HandshakeFault::Io(error)),
            }
        }
        let Self { mut engine, input, plain, unsent } = self;
        note_origin(&mut engine.carried);
        let info = TlsInfo::of(engine.state(), &engine.carried, server_name, hello);
        Ok((Channel::new(engine, input, plain, unsent), info))
    }

    /// Lets rustls work off the input; what it wants to send is appended to `unsent`.
    fn step(&mut self) -> Result<(), HandshakeFault> {
        let Self { engine, input, plain, unsent } = self;
        with_outgoing(|out| {
            let (done, result) = engine.process(input, out, &mut |bytes| {
                plain.extend_from_slice(bytes);
                false
            });
            input.drain(..done);
            unsent.push(out.bytes());
            match result {
                Ok(Pause::PeerClosed) => Err(HandshakeFault::PeerClosed),
                Ok(_) => Ok(()),
                Err(error) => Err(HandshakeFault::Protocol(error)),
            }
        })
    }
}

/// Appends what the peer sent; 0 at its end.
async fn receive(wire: &impl Wire, input: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        with_incoming(|room| {
            let polled = wire.poll_read(cx, room);
            if let Poll::Ready(Ok(len)) = &polled {
                input.extend_from_slice(&room[..*len]);
            }
            polled
        })
    })
    .await
}

/// Answers what is no hello with an alert, as far as the socket takes it.
fn refuse<T>(wire: &impl Wire, fault: NotHello) -> Result<T, HandshakeFault> {
    send_alert(wire, fault.alert());
    Err(HandshakeFault::NotHello(fault))
}

fn reject(wire: &impl Wire, alert: Alert) -> HandshakeFault {
    send_alert(wire, alert as u8);
    HandshakeFault::Rejected
}

/// A fatal alert before any key exists.
fn send_alert(wire: &impl Wire, code: u8) {
    const FATAL: u8 = 2;
    let record = [0x15, 3, 3, 0, 2, FATAL, code];
    let mut cx = Context::from_waker(Waker::noop());
    // A new connection takes seven bytes; if it does not, the client hears nothing.
    let _ = wire.poll_write(&mut cx, &record);
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{made, pair};
    use super::super::client::ClientSpec;
    use super::super::client_hello::ClientHello;
    use super::super::server::{ServerSpec, SessionCache, VerifyClient};
    use super::super::shelf::{Memory, Shelf};
    use super::super::wire::tests::{End, ends, run};
    use super::*;
    use crate::tls::ciphers::Protocol;
    use std::sync::Arc;

    fn shelf() -> Arc<dyn Shelf> {
        Arc::new(Memory::new(100))
    }

    fn server(change: impl FnOnce(&mut ServerSpec)) -> Rc<Server> {
        let mut spec = ServerSpec::new(shelf());
        spec.certificates.push(pair(&made(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256)));
        change(&mut spec);
        Rc::new(Server::build(&spec).map_err(|e| e.to_string()).unwrap().0)
    }

    fn client(change: impl FnOnce(&mut ClientSpec)) -> Client {
        let mut spec = ClientSpec::new("proxy");
        spec.server_name = true;
        change(&mut spec);
        Client::build(&spec).map_err(|e| e.to_string()).unwrap().0
    }

    type Met = (Result<Accepted, HandshakeFault>, Result<(Channel, TlsInfo), HandshakeFault>);

    fn meet(chooser: &dyn ChooseServer, client: &Client, most: usize) -> (Met, End, End) {
        let (a, b) = ends(most);
        let accepting = async {
            let result = accept_tls(&a, Vec::new(), chooser).await;
            if result.is_err() {
                a.close();
            }
            result
        };
        let connecting = async {
            let result = connect(&b, client, "192.0.2.1:443", "a.example").await;
            if result.is_err() {
                b.close();
            }
            result
        };
        (run(accepting, connecting), a, b)
    }

    async fn write(channel: &mut Channel, wire: &End, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = poll_fn(|cx| channel.poll_write(wire, cx, bytes)).await.unwrap();
            bytes = &bytes[len..];
        }
        poll_fn(|cx| channel.poll_flush(wire, cx)).await.unwrap();
    }

    async fn read(channel: &mut Channel, wire: &End, len: usize, piece: usize) -> Vec<u8> {
        let (mut got, mut room) = (Vec::new(), vec![0; piece]);
        while got.len() < len {
            let n = poll_fn(|cx| channel.poll_read(wire, cx, &mut room)).await.unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&room[..n]);
        }
        got
    }

    #[test]
    fn both_sides_agree_and_talk() {
        for version in [Protocol::Tls12, Protocol::Tls13] {
            let server = server(|spec| spec.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()]);
            let client = client(|spec| {
                spec.protocols = vec![version];
                spec.alpn = vec![b"http/1.1".to_vec()];
            });
            for most in [60, 1 << 20] {
                let ((accepted, connected), a, b) = meet(&server, &client, most);
                let Accepted { mut channel, info, .. } = accepted.unwrap();
                let (mut theirs, their_info) = connected.unwrap();
                assert_eq!(info.protocol(), version.name());
                assert_eq!(
                    (info.cipher(), info.curve()),
                    (their_info.cipher(), their_info.curve())
                );
                assert_eq!(info.server_name(), Some(&b"a.example"[..]));
                assert_eq!(info.alpn(), Some(&b"http/1.1"[..]));
                assert_eq!(info.client_verify(), "NONE");
                assert!(info.ciphers().contains("ECDHE") || version == Protocol::Tls13);
                assert!(info.hello().unwrap().ja4().starts_with("t1"));
                let big: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
                let (_, got) =
                    run(write(&mut channel, &a, &big), read(&mut theirs, &b, big.len(), 5000));
                assert_eq!(got, big);
                let (_, got) =
                    run(write(&mut theirs, &b, b"short"), read(&mut channel, &a, 5, 100));
                assert_eq!(got, b"short");
                let (bye, end) =
                    run(poll_fn(|cx| channel.poll_goodbye(&a, cx)), read(&mut theirs, &b, 1, 10));
                assert_eq!((bye.is_ok(), end.len()), (true, 0), "close_notify is an end");
            }
        }
    }

    /// The goal of few system calls: hello back, then tickets and the reply in one.
    #[test]
    fn a_small_reply_is_one_write() {
        let ((accepted, connected), a, b) = meet(&server(|_| ()), &client(|_| ()), 1 << 20);
        let (Accepted { mut channel, .. }, (mut theirs, _)) =
            (accepted.unwrap(), connected.unwrap());
        assert_eq!(a.writes(), 1);
        let pieces = [io::IoSlice::new(b"head "), io::IoSlice::new(b"body")];
        let writing = poll_fn(|cx| channel.poll_write_vectored(&a, cx, &pieces));
        let (written, got) = run(writing, read(&mut theirs, &b, 9, 100));
        assert_eq!((written.unwrap(), &got[..], a.writes()), (9, &b"head body"[..], 2));
        assert!(!channel.has_unsent() && channel.buffered() == 0);
    }

    #[test]
    fn a_waiting_reader_sends_the_tickets() {
        let server = server(|_| ());
        let client = client(|_| ());
        let ((accepted, connected), a, b) = meet(&server, &client, 1 << 20);
        let (mut channel, (mut theirs, _)) = (accepted.unwrap().channel, connected.unwrap());
        let reading = async {
            let mut room = [0; 10];
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                assert!(channel.poll_read(&a, cx, &mut room).is_pending());
                if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            a.close();
        };
        run(reading, read(&mut theirs, &b, 1, 10));
        let ((accepted, connected), ..) = meet(&server, &client, 1 << 20);
        let (ours, theirs) = (accepted.unwrap().info, connected.unwrap().1);
        assert!(ours.is_reused() && theirs.is_reused());
        assert_eq!(ours.session_id().len(), 64);
    }

    struct ByName(Rc<Server>);

    impl ChooseServer for ByName {
        fn choose<'a>(&'a self, hello: &'a ClientHello<'a>) -> Chosen<'a> {
            if hello.server_name == Some(b"a.example") {
                return Chosen::Later(Box::pin(async { Choice::Serve(self.0.clone()) }));
            }
            Chosen::Now(Choice::Refuse(Alert::UnrecognizedName))
        }
    }

    #[test]
    fn a_chooser_decides_on_the_raw_hello() {
        let chooser = ByName(server(|_| ()));
        let ((accepted, connected), ..) = meet(&chooser, &client(|_| ()), 1 << 20);
        assert!(accepted.is_ok() && connected.is_ok());
        let nameless = client(|spec| spec.server_name = false);
        let ((accepted, connected), ..) = meet(&chooser, &nameless, 1 << 20);
        assert_eq!(accepted.err().unwrap().to_string(), "handshake rejected");
        assert!(
            connected.err().unwrap().to_string().contains("unrecognized name:SSL alert number 112")
        );
    }

    #[test]
    fn a_rejecting_server_needs_no_certificate() {
        let server = server(|spec| {
            spec.certificates.clear();
            spec.reject_handshake = true;
        });
        let ((accepted, connected), ..) = meet(&server, &client(|_| ()), 1 << 20);
        assert!(matches!(accepted, Err(HandshakeFault::Rejected)));
        assert!(connected.err().unwrap().to_string().contains("unrecognized name"));
    }

    #[test]
    fn clients_are_asked_and_judged() {
        let (cert, key) = made(&["client"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let other = made(&["other"], &rcgen::PKCS_ECDSA_P256_SHA256).0;
        let trusting = |pem: &str| {
            server(|spec| {
                spec.verify_client = VerifyClient::On;
                spec.client_certificate = Some(format!("data:{pem}"));
                spec.session_cache = SessionCache::On(shelf());
            })
        };
        let client = client(|spec| spec.certificate = Some(pair(&(cert.clone(), key))));
        let info = |server: &Rc<Server>| meet(server, &client, 1 << 20).0.0.unwrap().info;
        let good = info(&trusting(&cert));
        assert_eq!(
            (good.client_verify(), good.client_problem(VerifyClient::On)),
            ("SUCCESS".into(), None)
        );
        assert_eq!(good.details().unwrap().pem(), cert.replace("\r\n", "\n"));
        let bad = info(&trusting(&other));
        assert_eq!(bad.client_verify(), "FAILED:self-signed certificate");
        assert!(bad.client_problem(VerifyClient::Optional).is_some());
        assert_eq!(bad.client_problem(VerifyClient::OptionalNoCa), None);
        let plain = super::tests::client(|_| ());
        let none = meet(&trusting(&cert), &plain, 1 << 20).0.0.unwrap().info;
        assert_eq!(
            none.client_problem(VerifyClient::On),
            Some(super::super::info::ClientCertProblem::Missing)
        );
    }

    #[test]
    fn an_upstream_must_be_who_it_should_be() {
        let judging = client(|spec| {
            let (other, _) = made(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
            (spec.verify, spec.trusted_certificate) = (true, Some(format!("data:{other}")));
        });
        let ((_, connected), ..) = meet(&server(|_| ()), &judging, 1 << 20);
        assert_eq!(
            connected.err().unwrap().to_string(),
            "upstream SSL certificate verify error: (18:self-signed certificate)"
        );
    }

    #[test]
    fn what_is_no_handshake_is_answered_with_an_alert() {
        let server = server(|_| ());
        let fault = |bytes: &[u8]| {
            let (a, b) = ends(1 << 20);
            b.put(bytes);
            b.close();
            match run(accept(&a, Vec::new(), &server), async {}).0 {
                Err(fault) => (fault.to_string(), b.take()),
                Ok(First::Plain(read)) => ("plain".into(), read),
                Ok(First::Tls(_)) => unreachable!(),
            }
        };
        assert_eq!(fault(b""), ("client closed connection".into(), vec![]));
        assert_eq!(
            fault(&[0x16, 3, 1]),
            ("peer closed connection in SSL handshake".into(), vec![])
        );
        assert_eq!(fault(b"GET / HTTP/1.0"), ("plain".into(), b"GET / HTTP/1.0".to_vec()));
        let (text, alert) = fault(&[0x80, 0x2e, 1, 3, 1]);
        assert!(text.contains("wrong version number"), "{text}");
        assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70]);
    }

    #[test]
    fn nothing_in_common_is_a_fault_for_both() {
        let old = server(|spec| spec.protocols = vec![Protocol::Tls12]);
        let new = client(|spec| spec.protocols = vec![Protocol::Tls13]);
        let ((accepted, connected), ..) = meet(&old, &new, 1 << 20);
        assert!(accepted.err().unwrap().to_string().contains("unsupported protocol"));
        assert!(connected.err().unwrap().to_string().contains("alert protocol version"));
    }
}
