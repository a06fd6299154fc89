//! The server side: what a `server{}` block says about TLS, made into something that can serve.
//!
//! [`ServerSpec`] is plain data, filled by the directives of HTTP or layer 4; [`Server::build`]
//! loads files and makes a rustls configuration of it, or says in nginx's words why not. Which
//! server a connection gets is decided per connection by a [`ChooseServer`], from the raw
//! ClientHello, before rustls sees a byte.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, ServerConfig, SupportedProtocolVersion};

use super::certificate::{self, Certificates, Pair};
use super::ciphers::{self, Offer, Protocol, Wish};
use super::client_hello::ClientHello;
use super::path::{Purpose, Trust};
use super::refusal::Refusal;
use super::session::{Context, Keys, Sessions, Tickets};
use super::shelf::Shelf;
use super::verifier::ClientAuth;
use super::x509::Cert;

/// What the directives of one server say. Paths are full.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    pub certificates: Vec<Pair>,
    /// The lines of `ssl_password_file`.
    pub passwords: Vec<Vec<u8>>,
    pub protocols: Vec<Protocol>,
    pub ciphers: String,
    /// `ssl_conf_command Ciphersuites`.
    pub ciphersuites: Option<String>,
    pub ecdh_curve: String,
    pub prefer_server_ciphers: bool,
    /// Protocols for ALPN, the favourite first; empty: no ALPN.
    pub alpn: Vec<Vec<u8>>,
    pub session_timeout: Duration,
    pub session_cache: SessionCache,
    pub session_tickets: bool,
    pub ticket_key_files: Vec<String>,
    /// Where the workers agree on ticket keys: a zone of its own, so that nothing is evicted.
    pub ticket_shelf: Arc<dyn Shelf>,
    pub verify_client: VerifyClient,
    pub client_certificate: Option<String>,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    pub verify_depth: usize,
    pub stapling_file: Option<String>,
    pub early_data: bool,
    pub reject_handshake: bool,
    /// `ssl_buffer_size`: most plaintext bytes of one record.
    pub buffer_size: usize,
}

impl ServerSpec {
    /// nginx's defaults.
    pub fn new(ticket_shelf: Arc<dyn Shelf>) -> Self {
        Self {
            certificates: Vec::new(),
            passwords: Vec::new(),
            protocols: Protocol::DEFAULT.to_vec(),
            ciphers: "HIGH:!aNULL:!MD5".into(),
            ciphersuites: None,
            ecdh_curve: "auto".into(),
            prefer_server_ciphers: false,
            alpn: Vec::new(),
            session_timeout: Duration::from_secs(300),
            session_cache: SessionCache::None,
            session_tickets: true,
            ticket_key_files: Vec::new(),
            ticket_shelf,
            verify_client: VerifyClient::Off,
            client_certificate: None,
            trusted_certificate: None,
            crl: None,
            verify_depth: 1,
            stapling_file: None,
            early_data: false,
            reject_handshake: false,
            buffer_size: 16 * 1024,
        }
    }
}

/// `ssl_session_cache`. `off` and `none` differ only in what old clients are told.
#[derive(Clone, Debug)]
pub enum SessionCache {
    None,
    /// `shared:NAME:SIZE`, or `builtin` over [`super::shelf::Memory`].
    On(Arc<dyn Shelf>),
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    Off,
    On,
    Optional,
    OptionalNoCa,
}

/// A server that can take handshakes, or that refuses them all.
#[derive(Debug)]
pub struct Server {
    /// `None` where `ssl_reject_handshake` stands without a certificate.
    config: Option<Arc<ServerConfig>>,
    parts: Option<Parts>,
    certificates: Arc<Certificates>,
    rejects: bool,
    verify_client: VerifyClient,
    verify_depth: usize,
}

/// What a rustls configuration was made of and does not show.
#[derive(Debug)]
struct Parts {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Whom the configuration trusts with clients' certificates, be they asked for or not.
    trust: Arc<Trust>,
}

/// What is otherwise for one connection: what code of the handshake has set.
#[derive(Debug, Default)]
pub struct Change {
    pub protocols: Option<Vec<Protocol>>,
    pub certificates: Option<Vec<CertifiedKey>>,
    pub clients: Option<AskClient>,
}

impl Change {
    /// Whether everything stays as it is.
    pub fn is_empty(&self) -> bool {
        self.protocols.is_none() && self.certificates.is_none() && self.clients.is_none()
    }
}

/// The client is asked for a certificate. What it shows is judged, and refused by nobody yet.
#[derive(Debug, Default)]
pub struct AskClient {
    /// Their names are sent to the client.
    pub named: Vec<Cert>,
    /// Trusted beside them. If there is neither, whom the configuration trusts, to its depth.
    pub trusted: Vec<Cert>,
    /// `None`: `ssl_verify_depth`.
    pub depth: Option<usize>,
}

/// Sentences for the log at level warn, beside what was built.
pub type Warnings = Vec<String>;

impl Server {
    pub fn build(spec: &ServerSpec) -> Result<(Self, Warnings), Refusal> {
        let certificates = Arc::new(load_certificates(spec)?);
        let mut server = Self {
            config: None,
            parts: None,
            certificates: certificates.clone(),
            rejects: spec.reject_handshake,
            verify_client: spec.verify_client,
            verify_depth: spec.verify_depth,
        };
        match certificates.is_empty() {
            true if spec.reject_handshake => Ok((server, Vec::new())),
            true => Err(Refusal::new("no \"ssl_certificate\" is defined")),
            false => {
                let (config, parts, warnings) = config(spec, certificates)?;
                server.config = Some(Arc::new(config));
                server.parts = Some(parts);
                Ok((server, warnings))
            }
        }
    }

    /// The certificates, to staple OCSP responses to.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    pub fn verify_client(&self) -> VerifyClient {
        self.verify_client
    }

    /// The rustls configuration, unless the server refuses handshakes.
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.config.as_ref().filter(|_| !self.rejects)
    }

    /// The protocol that a client who offers this will speak with it.
    pub fn protocol_for(&self, hello: &ClientHello<'_>) -> Option<Protocol> {
        let ours = &self.parts.as_ref()?.versions;
        let has = |wanted| ours.iter().any(|version| version.version == wanted);
        if hello.offers_tls13() && has(rustls::ProtocolVersion::TLSv1_3) {
            return Some(Protocol::Tls13);
        }
        let is_old = hello.versions.is_empty() && hello.version >= 0x0303;
        let offers = is_old || hello.versions.iter().any(|version| version == 0x0303);
        (offers && has(rustls::ProtocolVersion::TLSv1_2)).then_some(Protocol::Tls12)
    }

    /// The suites that it would speak, in its order.
    pub fn ciphers(&self) -> impl Iterator<Item = u16> {
        let suites = self.parts.iter().flat_map(|parts| &parts.provider.cipher_suites);
        suites.map(|suite| suite.suite().into())
    }

    /// The same server but for `change`.
    ///
    /// Errors: no protocol is left.
    pub fn changed(&self, change: Change) -> Result<Self, Refusal> {
        let (Some(base), Some(parts)) = (&self.config, &self.parts) else {
            return Err(Refusal::new("the server has no certificate of its own"));
        };
        let versions = match &change.protocols {
            Some(protocols) => ciphers::versions(protocols, &mut Vec::new())?,
            None => parts.versions.clone(),
        };
        let certificates = match change.certificates {
            Some(list) => Arc::new(Certificates::new(list, base.ignore_client_order)),
            None => self.certificates.clone(),
        };
        let resumes = change.clients.is_none();
        let parts = Parts {
            provider: parts.provider.clone(),
            versions,
            verifier: match change.clients {
                Some(asked) => self.verifier(asked, &parts.trust),
                None => parts.verifier.clone(),
            },
            trust: parts.trust.clone(),
        };
        let mut config = parts.config(certificates.clone())?;
        config.ignore_client_order = base.ignore_client_order;
        config.alpn_protocols.clone_from(&base.alpn_protocols);
        config.max_fragment_size = base.max_fragment_size;
        // A session carries the verdict of those who were trusted then.
        if resumes {
            config.session_storage = base.session_storage.clone();
            config.ticketer = base.ticketer.clone();
            config.send_tls13_tickets = base.send_tls13_tickets;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Some(Arc::new(config)),
            parts: Some(parts),
            certificates,
            rejects: self.rejects,
            verify_client: self.verify_client,
            verify_depth: self.verify_depth,
        })
    }

    fn verifier(&self, asked: AskClient, ours: &Arc<Trust>) -> Arc<dyn ClientCertVerifier> {
        let hints = hints(&asked.named);
        let mut certs = asked.named;
        certs.extend(asked.trusted);
        let depth = asked.depth.unwrap_or(self.verify_depth);
        let trust = match certs.is_empty() {
            true => ours.clone(),
            false => Arc::new(Trust::new(Purpose::Client, depth, certs, Vec::new())),
        };
        Arc::new(ClientAuth { hints, trust })
    }
}

impl Parts {
    fn config(&self, certificates: Arc<Certificates>) -> Result<ServerConfig, Refusal> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(|e| Refusal::new(format!("no usable TLS configuration: {e}")))?;
        let verified = builder.with_client_cert_verifier(self.verifier.clone());
        Ok(verified.with_cert_resolver(certificates))
    }
}

/// Decides, from the hello alone, which server a connection belongs to.
pub trait ChooseServer {
    fn choose<'a>(&'a self, hello: &'a ClientHello<'a>) -> Chosen<'a>;
}

/// A choice made at once, or one that waits (for Lua, for a lookup).
pub enum Chosen<'a> {
    Now(Choice),
    Later(Pin<Box<dyn Future<Output = Choice> + 'a>>),
}

#[derive(Clone, Debug)]
pub enum Choice {
    Serve(Rc<Server>),
    /// Refuse with a fatal alert.
    Refuse(Alert),
    /// Code that takes part in the handshake does not let it go on.
    Stop(Part),
}

/// Where code takes part in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    ClientHello,
    Certificate,
}

/// Alerts that a choice may answer with (RFC 8446 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    HandshakeFailure = 40,
    AccessDenied = 49,
    ProtocolVersion = 70,
    InternalError = 80,
    UnrecognizedName = 112,
}

/// Every connection gets the same server.
impl ChooseServer for Rc<Server> {
    fn choose<'a>(&'a self, _hello: &'a ClientHello<'a>) -> Chosen<'a> {
        Chosen::Now(Choice::Serve(self.clone()))
    }
}

fn load_certificates(spec: &ServerSpec) -> Result<Certificates, Refusal> {
    let ocsp = spec.stapling_file.as_deref().map(certificate::load_ocsp_response).transpose()?;
    let mut list = Vec::with_capacity(spec.certificates.len());
    for pair in &spec.certificates {
        let mut certified = certificate::load_pair(pair, &spec.passwords)?;
        certified.ocsp = ocsp.clone();
        list.push(certified);
    }
    Ok(Certificates::new(list, spec.prefer_server_ciphers))
}

fn config(
    spec: &ServerSpec,
    certificates: Arc<Certificates>,
) -> Result<(ServerConfig, Parts, Warnings), Refusal> {
    let Offer { provider, versions, mut warnings } = Offer::of(Wish {
        protocols: &spec.protocols,
        ciphers: &spec.ciphers,
        ciphersuites: spec.ciphersuites.as_deref(),
        curves: &spec.ecdh_curve,
    })?;
    let clients = Clients::of(spec)?;
    let context = clients.context(&certificates, spec);
    let verifier = match clients.auth {
        Some(auth) => Arc::new(auth) as _,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let parts = Parts { provider: Arc::new(provider), versions, verifier, trust: clients.trust };
    let mut config = parts.config(certificates)?;
    config.ignore_client_order = spec.prefer_server_ciphers;
    config.alpn_protocols = spec.alpn.clone();
    config.max_fragment_size = fragment_size(spec.buffer_size);
    if spec.early_data {
        warnings.push("\"ssl_early_data\" is on, but early data is refused".into());
    }
    set_resumption(&mut config, spec, context)?;
    Ok((config, parts, warnings))
}

/// rustls counts the record's header as well, and has limits of its own.
fn fragment_size(buffer_size: usize) -> Option<usize> {
    const HEADER: usize = 5;
    (buffer_size < 16 * 1024).then(|| (buffer_size + HEADER).max(32))
}

fn set_resumption(
    config: &mut ServerConfig,
    spec: &ServerSpec,
    context: Context,
) -> Result<(), Refusal> {
    let timeout = spec.session_timeout;
    config.session_storage = match &spec.session_cache {
        SessionCache::None => Arc::new(NoServerSessionStorage {}),
        SessionCache::On(shelf) => Arc::new(Sessions::new(shelf.clone(), context, timeout)),
    };
    if spec.session_tickets {
        let keys = if spec.ticket_key_files.is_empty() {
            Keys::rotating(spec.ticket_shelf.clone(), timeout)
        } else {
            Keys::from_files(&spec.ticket_key_files)?
        };
        config.ticketer = Arc::new(Tickets::new(keys, context, timeout));
    } else if matches!(spec.session_cache, SessionCache::None) {
        config.send_tls13_tickets = 0;
    }
    Ok(())
}

/// Which client certificates are asked for and believed.
struct Clients {
    auth: Option<ClientAuth>,
    trust: Arc<Trust>,
    /// All that decides over a client's certificate, for the session context.
    basis: Vec<Vec<u8>>,
}

impl Clients {
    fn of(spec: &ServerSpec) -> Result<Self, Refusal> {
        let load = |file: &Option<String>| match file {
            Some(file) => certificate::load_trusted(file),
            None => Ok(Vec::new()),
        };
        let (named, trusted) = match spec.verify_client {
            VerifyClient::Off => (Vec::new(), load(&spec.trusted_certificate)?),
            VerifyClient::OptionalNoCa => {
                (load(&spec.client_certificate)?, load(&spec.trusted_certificate)?)
            }
            VerifyClient::On | VerifyClient::Optional => {
                if spec.client_certificate.is_none() && spec.trusted_certificate.is_none() {
                    return Err(Refusal::new(
                        "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
                    ));
                }
                (load(&spec.client_certificate)?, load(&spec.trusted_certificate)?)
            }
        };
        let crls = match &spec.crl {
            Some(file) => certificate::load_crls(file)?,
            None => Vec::new(),
        };
        let mut basis: Vec<Vec<u8>> =
            named.iter().chain(&trusted).map(|cert| cert.der().to_vec()).collect();
        basis.extend(crls.iter().map(|crl| crl.signed_part().to_vec()));
        basis.push(spec.verify_depth.to_be_bytes().to_vec());
        let hints = hints(&named);
        let mut certs = named;
        for cert in trusted {
            if !certs.iter().any(|known| known.der() == cert.der()) {
                certs.push(cert);
            }
        }
        let trust = Arc::new(Trust::new(Purpose::Client, spec.verify_depth, certs, crls));
        if spec.verify_client == VerifyClient::Off {
            return Ok(Self { auth: None, trust, basis: Vec::new() });
        }
        let auth = ClientAuth { hints, trust: trust.clone() };
        Ok(Self { auth: Some(auth), trust, basis })
    }

    fn context(&self, certificates: &Certificates, spec: &ServerSpec) -> Context {
        let all = certificates.all();
        let leaves = all.iter().filter_map(|certified| certified.cert.first());
        let mode: &[u8] = match spec.verify_client {
            VerifyClient::Off => b"off",
            _ => b"verify",
        };
        let mut parts: Vec<&[u8]> = vec![b"tollbar server", mode];
        parts.extend(leaves.map(AsRef::<[u8]>::as_ref));
        parts.extend(self.basis.iter().map(Vec::as_slice));
        Context::of(&parts)
    }
}

/// The names sent to clients, each once.
fn hints(certs: &[Cert]) -> Vec<DistinguishedName> {
    let mut seen: Vec<&[u8]> = Vec::new();
    for cert in certs {
        if !seen.contains(&&*cert.subject) {
            seen.push(&cert.subject);
        }
    }
    let first = |subject: &&[u8]| certs.iter().find(|cert| *cert.subject == **subject);
    let ders = seen.iter().filter_map(first).map(|cert| cert.subject_der().to_vec());
    ders.map(DistinguishedName::from).collect()
}
