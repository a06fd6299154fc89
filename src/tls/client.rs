//! The client side: what `proxy_ssl_…` and kin say, made into something that can connect.
//!
//! As in nginx the handshake succeeds with any certificate; whether it is believed is asked
//! afterwards ([`Client::verify`]), so that the log has nginx's sentences.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{ClientSessionStore, ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::{self, Pair};
use super::ciphers::{Offer, Protocol, Wish};
use super::engine::Engine;
use super::fault::HandshakeFault;
use super::host_name;
use super::path::{Purpose, Trust};
use super::refusal::Refusal;
use super::server::Warnings;
use super::unix_time;
use super::verifier::AnyServer;
use super::x509::Cert;

/// What the directives say. Paths are full.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// `proxy`, `uwsgi`, `grpc`: how the directives begin, for complaints.
    pub prefix: &'static str,
    pub protocols: Vec<Protocol>,
    pub ciphers: String,
    pub ciphersuites: Option<String>,
    pub verify: bool,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    pub verify_depth: usize,
    pub certificate: Option<Pair>,
    pub passwords: Vec<Vec<u8>>,
    /// `…_ssl_server_name`: send the name as SNI.
    pub server_name: bool,
    pub session_reuse: bool,
    pub alpn: Vec<Vec<u8>>,
}

impl ClientSpec {
    /// nginx's defaults.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            protocols: Protocol::DEFAULT.to_vec(),
            ciphers: "DEFAULT".into(),
            ciphersuites: None,
            verify: false,
            trusted_certificate: None,
            crl: None,
            verify_depth: 1,
            certificate: None,
            passwords: Vec::new(),
            server_name: false,
            session_reuse: true,
            alpn: Vec::new(),
        }
    }
}

/// Connects to the servers of one configuration.
#[derive(Debug)]
pub struct Client {
    base: ClientConfig,
    trust: Option<Arc<Trust>>,
    sends_name: bool,
    reuses_sessions: bool,
    /// A configuration per peer: each has sessions of its own.
    peers: RefCell<HashMap<PeerKey, Arc<ClientConfig>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PeerKey {
    peer: Box<str>,
    sends_name: bool,
}

/// Peers whose sessions are remembered, and sessions of each.
const PEERS_MAX: usize = 1024;
const SESSIONS_PER_PEER: usize = 8;

impl Client {
    pub fn build(spec: &ClientSpec) -> Result<(Self, Warnings), Refusal> {
        let Offer { provider, versions, warnings } = Offer::of(Wish {
            protocols: &spec.protocols,
            ciphers: &spec.ciphers,
            ciphersuites: spec.ciphersuites.as_deref(),
            curves: "auto",
        })?;
        let mut base = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .map_err(|e| Refusal::new(format!("no usable TLS configuration: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        if let Some(pair) = &spec.certificate {
            base.client_auth_cert_resolver = always(certificate::load_pair(pair, &spec.passwords)?);
        }
        base.alpn_protocols = spec.alpn.clone();
        base.resumption = Resumption::disabled();
        let client = Self {
            base,
            trust: trust(spec)?,
            sends_name: spec.server_name,
            reuses_sessions: spec.session_reuse,
            peers: RefCell::default(),
        };
        Ok((client, warnings))
    }

    /// The same client with another certificate: `proxy_ssl_certificate` with variables.
    pub fn with_certificate(&self, certified: CertifiedKey) -> Self {
        let mut base = self.base.clone();
        base.client_auth_cert_resolver = always(certified);
        Self {
            base,
            trust: self.trust.clone(),
            sends_name: self.sends_name,
            reuses_sessions: self.reuses_sessions,
            peers: RefCell::default(),
        }
    }

    /// The same client with sessions of somebody else's keeping.
    pub fn with_sessions(&self, sessions: &Arc<dyn ClientSessionStore>) -> Self {
        let mut base = self.base.clone();
        base.resumption = Resumption::store(sessions.clone());
        Self {
            base,
            trust: self.trust.clone(),
            sends_name: self.sends_name,
            reuses_sessions: false,
            peers: RefCell::default(),
        }
    }

    /// Begins a connection. `peer` tells servers apart, `name` is what they are called.
    pub(super) fn engine(&self, peer: &str, name: &str) -> Result<Engine, HandshakeFault> {
        let sni = if self.sends_name { sni(name) } else { None };
        let config = self.config_for(peer, sni.is_some());
        let name = match sni {
            Some(name) => name,
            None => ServerName::try_from("nameless.invalid").expect("a valid name"),
        };
        Ok(Engine::client(config, name)?)
    }

    fn config_for(&self, peer: &str, sends_name: bool) -> Arc<ClientConfig> {
        let key = PeerKey { peer: peer.into(), sends_name };
        let mut peers = self.peers.borrow_mut();
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        let config = peers.entry(key).or_insert_with(|| {
            let mut config = self.base.clone();
            config.enable_sni = sends_name;
            if self.reuses_sessions {
                config.resumption = Resumption::in_memory_sessions(SESSIONS_PER_PEER);
            }
            Arc::new(config)
        });
        config.clone()
    }

    /// Judges the certificate of a server that should be called `name`; nginx's sentence if it is
    /// not believed.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
    ) -> Result<(), HandshakeFault> {
        let Some(trust) = &self.trust else { return Ok(()) };
        trust.judge(chain, unix_time()).map_err(|fault| {
            HandshakeFault::Certificate(format!(
                "upstream SSL certificate verify error: ({}:{})",
                fault.number(),
                fault.text()
            ))
        })?;
        let leaf = chain.first().and_then(|der| Cert::parse(der));
        if leaf.is_some_and(|leaf| host_name::matches(&leaf, name)) {
            return Ok(());
        }
        let sentence = format!("upstream SSL certificate does not match \"{name}\"");
        Err(HandshakeFault::Certificate(sentence))
    }
}

/// The name of a server without the port that a variable may have left on it.
pub fn without_port(name: &str) -> &str {
    let after_brackets = match name.strip_prefix('[') {
        Some(_) => name.find(']').unwrap_or(0),
        None => 0,
    };
    match name[after_brackets..].find(':') {
        Some(at) => &name[..after_brackets + at],
        None => name,
    }
}

/// A name for SNI: addresses are not sent, nor what cannot be a host name.
fn sni(name: &str) -> Option<ServerName<'static>> {
    if name.is_empty() || name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    match ServerName::try_from(name.to_owned()) {
        Ok(ServerName::DnsName(name)) => Some(ServerName::DnsName(name)),
        _ => None,
    }
}

fn always(certified: CertifiedKey) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(certified))
}

fn trust(spec: &ClientSpec) -> Result<Option<Arc<Trust>>, Refusal> {
    let certs = match &spec.trusted_certificate {
        Some(file) => certificate::load_trusted(file)?,
        None if spec.verify => {
            return Err(Refusal::new(format!(
                "no {0}_ssl_trusted_certificate for {0}_ssl_verify",
                spec.prefix
            )));
        }
        None => Vec::new(),
    };
    let crls = match &spec.crl {
        Some(file) => certificate::load_crls(file)?,
        None => Vec::new(),
    };
    let trust = || Arc::new(Trust::new(Purpose::Server, spec.verify_depth, certs, crls));
    Ok(spec.verify.then(trust))
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{made, pair};
    use super::*;

    #[test]
    fn names_lose_their_port() {
        let cases = [
            ("example.com:8443", "example.com"),
            ("example.com", "example.com"),
            ("[::1]:443", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "["),
            ("", ""),
        ];
        for (name, bare) in cases {
            assert_eq!(without_port(name), bare, "{name}");
        }
    }

    #[test]
    fn addresses_are_no_sni() {
        assert!(sni("example.com").is_some() && sni("a_b.example").is_some());
        for name in ["", "127.0.0.1", "[::1]", "::1", "a b"] {
            assert!(sni(name).is_none(), "{name}");
        }
    }

    fn client(change: impl FnOnce(&mut ClientSpec)) -> Result<Client, String> {
        let mut spec = ClientSpec::new("proxy");
        change(&mut spec);
        Client::build(&spec).map(|(client, _)| client).map_err(|e| e.to_string())
    }

    #[test]
    fn certificates_are_judged_in_nginxs_words() {
        let (cert, _) = made(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let (other, _) = made(&["b.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let chain = certificate::load_chain(&format!("data:{cert}")).unwrap();
        let believing = |pem: &str| {
            client(|spec| {
                spec.verify = true;
                spec.trusted_certificate = Some(format!("data:{pem}"));
            })
            .unwrap()
        };
        let verdict = |client: &Client, name: &str| {
            client.verify(&chain, name).map_err(|fault| fault.to_string())
        };
        assert_eq!(verdict(&believing(&cert), "a.example"), Ok(()));
        assert_eq!(
            verdict(&believing(&cert), "c.example"),
            Err("upstream SSL certificate does not match \"c.example\"".into())
        );
        assert_eq!(
            verdict(&believing(&other), "a.example"),
            Err("upstream SSL certificate verify error: (18:self-signed certificate)".into())
        );
        assert_eq!(verdict(&client(|_| ()).unwrap(), "c.example"), Ok(()), "not asked to verify");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(
            client(|spec| spec.verify = true).unwrap_err(),
            "no proxy_ssl_trusted_certificate for proxy_ssl_verify"
        );
        let mut mixed = pair(&made(&["a"], &rcgen::PKCS_ECDSA_P256_SHA256));
        mixed.key = pair(&made(&["a"], &rcgen::PKCS_ECDSA_P256_SHA256)).key;
        let error = client(|spec| spec.certificate = Some(mixed)).unwrap_err();
        assert!(error.ends_with("key values mismatch)"));
        assert!(
            client(|spec| spec.ciphers = "RC4".into()).unwrap_err().contains("no cipher match")
        );
    }

    #[test]
    fn each_peer_has_sessions_of_its_own() {
        let client = client(|spec| spec.server_name = true).unwrap();
        let a = client.config_for("192.0.2.1:443", true);
        assert!(Arc::ptr_eq(&a, &client.config_for("192.0.2.1:443", true)));
        assert!(!Arc::ptr_eq(&a, &client.config_for("192.0.2.2:443", true)));
        assert!(!Arc::ptr_eq(&a, &client.config_for("192.0.2.1:443", false)));
        for i in 0..=PEERS_MAX {
            client.config_for(&i.to_string(), true);
        }
        assert!(client.peers.borrow().len() <= PEERS_MAX);
    }
}
