//! TLS handshakes: each connection shakes hands, asks once, and leaves.

use crate::{Outcome, Plan};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind};
use rustls::{SignatureScheme, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn run(plan: &Plan, resumed: bool) -> Outcome {
    let end = Instant::now() + plan.time;
    let threads: Vec<Outcome> = std::thread::scope(|scope| {
        let spawned: Vec<_> =
            (0..plan.connections).map(|_| scope.spawn(|| one(plan, resumed, end))).collect();
        spawned.into_iter().map(|t| t.join().unwrap_or_default()).collect()
    });
    let mut all = Outcome::default();
    for outcome in threads {
        all.latencies.extend(outcome.latencies);
        all.errors += outcome.errors;
        all.resumed += outcome.resumed;
    }
    all
}

/// One connection after the other, until the end.
fn one(plan: &Plan, resumed: bool, end: Instant) -> Outcome {
    let config = config(resumed);
    let mut outcome = Outcome::default();
    while Instant::now() < end {
        let started = Instant::now();
        match shake(plan, &config) {
            Ok(kind) => {
                outcome.latencies.push(started.elapsed());
                outcome.resumed += (kind == Some(HandshakeKind::Resumed)) as u64;
            }
            Err(_) => outcome.errors += 1,
        }
    }
    outcome
}

fn shake(plan: &Plan, config: &Arc<ClientConfig>) -> std::io::Result<Option<HandshakeKind>> {
    let stream = TcpStream::connect(plan.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let client = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(client, stream);
    let path = &plan.path;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(stream.conn.handshake_kind()),
        false => Err(std::io::Error::other("not 200")),
    }
}

fn config(resumed: bool) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    if !resumed {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Takes any certificate: the server's work is measured, not ours.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
