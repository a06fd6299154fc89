//! rustls without a socket: ciphertext in, plaintext and ciphertext out, for either side.
//!
//! Call [`Engine::process`] with whatever the peer sent; it consumes whole records and says how far
//! it came. What must be sent goes to an [`Outgoing`]. rustls's unbuffered interface is
//! used, because a connection then owns no buffers of its own: records are decrypted where the
//! socket's bytes lie, in memory that all connections of the worker share.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::session::{Carried, carrying};

/// One side of a TLS connection.
pub(super) struct Engine {
    machine: Machine,
    pub carried: Carried,
    peer_closed: bool,
    /// Whole records were left in the input on purpose.
    is_full: bool,
    /// After a fault rustls must not be called again.
    fault: Option<Error>,
}

enum Machine {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What [`Engine::process`] left off at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// All whole records are consumed; the handshake or the application needs more.
    NeedInput,
    /// The sink wants no more for now; there may be more records in the input.
    Full,
    /// The peer said close_notify. Nothing more will come.
    PeerClosed,
}

/// Most plaintext of one record, and what encryption adds to it at most (TLS 1.2 with AES-GCM).
pub(super) const RECORD_PLAIN_MAX: usize = 16 * 1024;
pub(super) const RECORD_OVERHEAD: usize = 5 + 8 + 16 + 1;

impl Engine {
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::of(Machine::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let machine = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::of(Machine::Client(Box::new(machine))))
    }

    fn of(machine: Machine) -> Self {
        Self {
            machine,
            carried: Carried::default(),
            peer_closed: false,
            is_full: false,
            fault: None,
        }
    }

    /// rustls's facts about the connection.
    pub fn state(&self) -> &CommonState {
        self.machine.state()
    }

    pub fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    pub fn is_server(&self) -> bool {
        matches!(self.machine, Machine::Server(_))
    }

    /// Whether whole records wait in the input.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a close_notify was seen, while reading or while writing.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes records off `input`; `sink` gets their plaintext and says whether it wants more, `out`
    /// gets what must be sent. Returns how many bytes of `input` are done with, also on an error;
    /// after an error `out` ends with the alert to send. What is not done with must stand at the
    /// front of the next input: rustls remembers positions in it.
    pub fn process(
        &mut self,
        input: &mut [u8],
        out: &mut Outgoing,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> (usize, Result<Pause, Error>) {
        let Self { machine, carried, peer_closed, is_full, fault } = self;
        if let Some(fault) = fault {
            return (0, Err(fault.clone()));
        }
        carrying(carried, || {
            let mut done = 0;
            loop {
                let rest = &mut input[done..];
                let (consumed, step) = match machine {
                    Machine::Server(server) => server_step(server, rest, out, sink),
                    Machine::Client(client) => client_step(client, rest, out, sink),
                };
                done += consumed;
                match step {
                    Ok(Step::Again) => {}
                    Ok(Step::Pause(pause)) => {
                        *peer_closed |= pause == Pause::PeerClosed;
                        *is_full = pause == Pause::Full;
                        return (done, Ok(pause));
                    }
                    Err(error) => {
                        machine.take_queued(&mut input[done..], out);
                        *fault = Some(error.clone());
                        return (done, Err(error));
                    }
                }
            }
        })
    }

    /// Encrypts all of `plain`, in as few records as possible. `rest` is the input that
    /// [`Engine::process`] was not done with.
    pub fn encrypt(
        &mut self,
        plain: &[u8],
        rest: &mut [u8],
        out: &mut Outgoing,
    ) -> Result<(), Error> {
        self.write(
            rest,
            out,
            |traffic, room| traffic.encrypt(plain, room),
            |traffic, room| traffic.encrypt(plain, room),
        )
    }

    /// Writes a close_notify alert.
    pub fn close_notify(&mut self, rest: &mut [u8], out: &mut Outgoing) {
        // Nothing is to be done where it cannot be written any more.
        let _ = self.write(
            rest,
            out,
            |traffic, room| traffic.queue_close_notify(room),
            |traffic, room| traffic.queue_close_notify(room),
        );
    }

    /// Brings rustls to the state in which it writes, and has it write.
    fn write(
        &mut self,
        rest: &mut [u8],
        out: &mut Outgoing,
        server: impl Fn(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Written,
        client: impl Fn(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Written,
    ) -> Result<(), Error> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // Whole records that wait would be read, not written past: they are kept from rustls. It
        // remembers nothing of its input then, since it paused after application data.
        let rest = if self.is_full { &mut [] } else { rest };
        // Queued records, a mark that they were sent, the peer's close, then it writes.
        for _ in 0..8 {
            let step = match &mut self.machine {
                Machine::Server(machine) => {
                    write_step(machine.process_tls_records(rest).state, out, &server)
                }
                Machine::Client(machine) => {
                    write_step(machine.process_tls_records(rest).state, out, &client)
                }
            };
            match step.inspect_err(|error| self.fault = Some(error.clone()))? {
                WriteStep::Done => return Ok(()),
                WriteStep::Again => {}
                WriteStep::PeerClosed => self.peer_closed = true,
            }
        }
        Err(Error::EncryptError)
    }
}

impl Machine {
    fn state(&self) -> &CommonState {
        match self {
            Machine::Server(server) => server,
            Machine::Client(client) => client,
        }
    }

    /// Takes what rustls has queued and nothing more: after an error, its alert.
    fn take_queued(&mut self, rest: &mut [u8], out: &mut Outgoing) {
        while self.state().wants_write() {
            let mut ignore = |_: &[u8]| true;
            let (_, step) = match self {
                Machine::Server(server) => server_step(server, rest, out, &mut ignore),
                Machine::Client(client) => client_step(client, rest, out, &mut ignore),
            };
            if !matches!(step, Ok(Step::Again)) {
                return;
            }
        }
    }
}

/// Ciphertext on its way to a socket: one buffer for all connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Filled up to `used`; the rest is room from earlier use.
    bytes: Vec<u8>,
    used: usize,
}

/// Room that is kept between uses.
const ROOM_KEPT: usize = 128 * 1024;

impl Outgoing {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub fn clear(&mut self) {
        self.used = 0;
        if self.bytes.len() > ROOM_KEPT {
            self.bytes = Vec::new();
        }
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// All room behind what is used, at least `len` bytes.
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() - self.used < len {
            self.bytes.resize((self.used + len).max(FIRST_ROOM), 0);
        }
        &mut self.bytes[self.used..]
    }
}

/// Four full records; most of what is ever sent at once.
const FIRST_ROOM: usize = 4 * (RECORD_PLAIN_MAX + RECORD_OVERHEAD);

enum Step {
    Again,
    Pause(Pause),
}

type Sink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

fn server_step(
    server: &mut UnbufferedServerConnection,
    input: &mut [u8],
    out: &mut Outgoing,
    sink: &mut Sink<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = server.process_tls_records(input);
    (discard, state.map(|state| handle::<ServerConnectionData>(state, out, sink)))
}

fn client_step(
    client: &mut UnbufferedClientConnection,
    input: &mut [u8],
    out: &mut Outgoing,
    sink: &mut Sink<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = client.process_tls_records(input);
    (discard, state.map(|state| handle::<ClientConnectionData>(state, out, sink)))
}

fn handle<D>(state: ConnectionState<'_, '_, D>, out: &mut Outgoing, sink: &mut Sink<'_>) -> Step {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut wants_more = true;
            while let Some(Ok(record)) = traffic.next_record() {
                wants_more = sink(record.payload);
            }
            if wants_more { Step::Again } else { Step::Pause(Pause::Full) }
        }
        ConnectionState::EncodeTlsData(encoding) => {
            encode(encoding, out);
            Step::Again
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Step::Again
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Step::Pause(Pause::PeerClosed),
        _ => Step::Pause(Pause::NeedInput),
    }
}

fn encode<D>(mut encoding: EncodeTlsData<'_, D>, out: &mut Outgoing) {
    let mut need = 0;
    // The first try may lack room and says how much is needed.
    for _ in 0..2 {
        match encoding.encode(out.room(need)) {
            Ok(len) => {
                out.used += len;
                return;
            }
            Err(EncodeError::InsufficientSize(short)) => need = short.required_size,
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

type Written = Result<usize, EncryptError>;

enum WriteStep {
    Done,
    Again,
    PeerClosed,
}

fn write_step<D>(
    state: Result<ConnectionState<'_, '_, D>, Error>,
    out: &mut Outgoing,
    write: &impl Fn(&mut WriteTraffic<'_, D>, &mut [u8]) -> Written,
) -> Result<WriteStep, Error> {
    match state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let mut need = 0;
            for _ in 0..2 {
                match write(&mut traffic, out.room(need)) {
                    Ok(len) => {
                        out.used += len;
                        return Ok(WriteStep::Done);
                    }
                    Err(EncryptError::InsufficientSize(short)) => need = short.required_size,
                    Err(EncryptError::EncryptExhausted) => break,
                }
            }
            Err(Error::EncryptError)
        }
        ConnectionState::EncodeTlsData(encoding) => {
            encode(encoding, out);
            Ok(WriteStep::Again)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(WriteStep::Again)
        }
        ConnectionState::PeerClosed => Ok(WriteStep::PeerClosed),
        _ => Err(Error::HandshakeNotComplete),
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{made, pair};
    use super::super::fingerprint::hex;
    use super::super::server::{Server, ServerSpec, SessionCache, VerifyClient};
    use super::super::shelf::{Memory, Shelf};
    use super::super::verifier::AnyServer;
    use super::*;
    use rustls::version;

    fn shelf() -> Arc<dyn Shelf> {
        Arc::new(Memory::new(100))
    }

    fn spec(shelf: &Arc<dyn Shelf>) -> ServerSpec {
        let mut spec = ServerSpec::new(shelf.clone());
        spec.certificates.push(pair(&made(&["localhost"], &rcgen::PKCS_ECDSA_P256_SHA256)));
        spec
    }

    fn server(spec: &ServerSpec) -> Arc<ServerConfig> {
        Server::build(spec).map_err(|e| e.to_string()).unwrap().0.config().unwrap().clone()
    }

    fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        ClientConfig::builder_with_protocol_versions(versions)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth()
    }

    struct Pair {
        server: Engine,
        client: Engine,
        /// Plaintext that arrived at the server and at the client.
        got: (Vec<u8>, Vec<u8>),
    }

    /// Feeds one side in pieces of `piece` bytes, as sockets do; returns its answer.
    fn feed(
        to: &mut Engine,
        bytes: &[u8],
        piece: usize,
        got: &mut Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let (mut held, mut out) = (Vec::new(), Outgoing::default());
        let mut pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        for piece in pieces {
            held.extend_from_slice(piece);
            let (done, result) = to.process(&mut held, &mut out, &mut |plain| {
                got.extend_from_slice(plain);
                true
            });
            held.drain(..done);
            result?;
        }
        assert!(held.is_empty(), "whole records were sent");
        Ok(out.bytes().to_vec())
    }

    fn connect(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, piece: usize) -> Pair {
        let name = ServerName::try_from("localhost").unwrap();
        let mut pair = Pair {
            server: Engine::server(server.clone()).unwrap(),
            client: Engine::client(client.clone(), name).unwrap(),
            got: Default::default(),
        };
        let mut to_client = Vec::new();
        for _ in 0..4 {
            let to_server = feed(&mut pair.client, &to_client, piece, &mut pair.got.1).unwrap();
            to_client = feed(&mut pair.server, &to_server, piece, &mut pair.got.0).unwrap();
        }
        assert!(!pair.server.is_handshaking() && !pair.client.is_handshaking());
        pair
    }

    impl Pair {
        /// Sends from the server to the client.
        fn send(&mut self, plain: &[u8]) -> usize {
            let mut out = Outgoing::default();
            self.server.encrypt(plain, &mut [], &mut out).unwrap();
            feed(&mut self.client, out.bytes(), 7_000, &mut self.got.1).unwrap();
            out.bytes().len()
        }
    }

    #[test]
    fn both_versions_in_pieces_of_any_size() {
        let server = server(&spec(&shelf()));
        for version in [&version::TLS12, &version::TLS13] {
            let client = Arc::new(client(&[version]));
            for piece in [1, 100, 100_000] {
                let mut pair = connect(&server, &client, piece);
                let sent = pair.send(b"hello");
                assert!(sent <= 5 + RECORD_OVERHEAD, "one small record, not {sent} bytes");
                let big = vec![7; 100_000];
                let sent = pair.send(&big);
                assert!(sent <= big.len() + 7 * RECORD_OVERHEAD, "full records, not {sent} bytes");
                assert_eq!(pair.got.1, [&b"hello"[..], &big].concat());
                let mut out = Outgoing::default();
                pair.server.close_notify(&mut [], &mut out);
                feed(&mut pair.client, out.bytes(), 100, &mut Vec::new()).unwrap();
                assert!(pair.client.peer_has_closed());
                out.clear();
                pair.client.encrypt(b"still", &mut [], &mut out).unwrap();
                feed(&mut pair.server, out.bytes(), 100, &mut pair.got.0).unwrap();
                assert_eq!(pair.got.0, b"still", "half-closed only");
            }
        }
    }

    #[test]
    fn a_full_sink_pauses_between_records() {
        let mut pair =
            connect(&server(&spec(&shelf())), &Arc::new(client(&[&version::TLS13])), 9999);
        let mut out = Outgoing::default();
        pair.client.encrypt(b"one", &mut [], &mut out).unwrap();
        pair.client.encrypt(b"two", &mut [], &mut out).unwrap();
        let (mut input, mut got, mut back) =
            (out.bytes().to_vec(), Vec::new(), Outgoing::default());
        let (done, pause) = pair.server.process(&mut input, &mut back, &mut |plain| {
            got.extend_from_slice(plain);
            false
        });
        assert_eq!((&got[..], pause.unwrap()), (&b"one"[..], Pause::Full));
        pair.server.encrypt(b"between", &mut input, &mut back).unwrap();
        input.drain(..done);
        let (_, pause) = pair.server.process(&mut input, &mut back, &mut |plain| {
            got.extend_from_slice(plain);
            true
        });
        assert_eq!((&got[..], pause.unwrap()), (&b"onetwo"[..], Pause::NeedInput));
    }

    /// rustls remembers where a split message lies in its input, also while we write.
    #[test]
    fn writing_amid_a_split_message() {
        let server = server(&spec(&shelf()));
        let mut pair = connect(&server, &Arc::new(client(&[&version::TLS13])), 9999);
        let mut out = Outgoing::default();
        let Machine::Client(machine) = &mut pair.client.machine else { unreachable!() };
        if let Ok(ConnectionState::WriteTraffic(traffic)) =
            machine.process_tls_records(&mut []).state
        {
            traffic.refresh_traffic_keys().unwrap();
        }
        pair.client.encrypt(b"new keys", &mut [], &mut out).unwrap();
        let input = out.bytes().to_vec();
        for cut in 0..input.len() {
            let mut pair = connect(&server, &Arc::new(client(&[&version::TLS13])), 9999);
            let mut wire = Outgoing::default();
            pair.client.encrypt(b"first", &mut [], &mut wire).unwrap();
            let mut held = [wire.bytes(), &input[..cut]].concat();
            let mut back = Outgoing::default();
            let (done, _) = pair.server.process(&mut held, &mut back, &mut |_| true);
            held.drain(..done);
            let _ = pair.server.encrypt(b"answer", &mut held, &mut back);
            pair.server.close_notify(&mut held, &mut back);
        }
    }

    #[test]
    fn a_fault_ends_with_an_alert() {
        let mut engine = Engine::server(server(&spec(&shelf()))).unwrap();
        let mut out = Outgoing::default();
        let hello = super::super::client_hello::tests::message(0x0301, &[4], &[]);
        let mut input = super::super::client_hello::tests::record(&hello);
        let (_, result) = engine.process(&mut input, &mut out, &mut |_| true);
        assert!(result.is_err());
        assert_eq!(out.bytes().len(), 7, "{}", hex(out.bytes()));
        assert_eq!(out.bytes()[0], 0x15);
        assert!(engine.process(&mut [], &mut out, &mut |_| true).1.is_err(), "and stays faulty");
        assert!(engine.encrypt(b"x", &mut [], &mut out).is_err());
    }

    /// Whether a second connection resumes the first one's session, as the server sees it, and
    /// with the same session id.
    fn resumes(
        first: &Arc<ServerConfig>,
        second: &Arc<ServerConfig>,
        client: ClientConfig,
    ) -> bool {
        let client = Arc::new(client);
        let old = connect(first, &client, 9999);
        let new = connect(second, &client, 9999);
        let reused = new.server.state().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        if reused {
            assert_eq!(new.server.carried, old.server.carried);
            assert_ne!(new.server.carried.id, [0; 32]);
        }
        reused
    }

    #[test]
    fn sessions_are_resumed_by_any_worker() {
        for version in [&version::TLS12, &version::TLS13] {
            let shared = shelf();
            let base = spec(&shared);
            let with = |cache: SessionCache, tickets: bool| {
                let mut spec = base.clone();
                (spec.session_cache, spec.session_tickets) = (cache, tickets);
                // Two builds are two workers: nothing is common but the shelf.
                (server(&spec), server(&spec))
            };
            let case = |(a, b): (_, _)| resumes(&a, &b, client(&[version]));
            assert!(case(with(SessionCache::None, true)), "tickets");
            assert!(case(with(SessionCache::On(shared.clone()), false)), "cache");
            assert!(case(with(SessionCache::On(shared.clone()), true)), "both");
            assert!(!case(with(SessionCache::None, false)), "neither");
            let (ours, _) = with(SessionCache::None, true);
            assert!(
                !resumes(&ours, &server(&spec(&shared)), client(&[version])),
                "another certificate"
            );
        }
    }

    #[test]
    fn a_verdict_on_a_client_is_carried_over() {
        let shared = shelf();
        let mut spec = spec(&shared);
        let (cert, key) = made(&["client"], &rcgen::PKCS_ECDSA_P256_SHA256);
        spec.verify_client = VerifyClient::OptionalNoCa;
        let server = server(&spec);
        for version in [&version::TLS12, &version::TLS13] {
            let mut client = client(&[version]);
            let pair =
                super::super::certificate::load_pair(&pair(&(cert.clone(), key.clone())), &[])
                    .unwrap();
            client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
            let client = Arc::new(client);
            for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
                let pair = connect(&server, &client, 9999);
                assert_eq!(pair.server.state().handshake_kind(), Some(kind));
                assert_eq!(pair.server.carried.verdict, 18);
                assert_eq!(pair.server.state().peer_certificates().unwrap().len(), 1);
            }
        }
    }
}
