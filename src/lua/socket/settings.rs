//! The directives `lua_socket_…` and `lua_ssl_…`.

use crate::conf::{Reading, Reason};
use crate::http::Merging;
use crate::tls::certificate::{self, Pair};
use crate::tls::ciphers::Protocol;
use crate::tls::client::{Client, ClientSpec};
use crate::tls::path::{Purpose, Trust};
use crate::tls::refusal::Refusal;
use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// `lua_socket_buffer_size` by default: a page.
const BUFFER_BYTES: usize = 4096;
/// `lua_socket_pool_size` by default.
const POOL_SIZE: usize = 30;

/// What was written in one block.
#[derive(Default)]
pub struct RawSettings {
    pub connect_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
    pub keepalive_timeout: Option<Duration>,
    pub buffer_size: Option<u64>,
    pub pool_size: Option<i64>,
    pub send_lowat: Option<u64>,
    pub log_errors: Option<bool>,
    pub ssl: RawSsl,
}

/// The part about TLS.
#[derive(Default)]
pub struct RawSsl {
    protocols: Option<Vec<Protocol>>,
    pub ciphers: Option<String>,
    pub verify_depth: Option<i64>,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    pub certificate: Option<String>,
    pub certificate_key: Option<String>,
}

/// What is true in one location.
pub struct Settings {
    pub connect_timeout: Duration,
    pub send_timeout: Duration,
    pub read_timeout: Duration,
    pub keepalive_timeout: Duration,
    /// Bytes that are read at once.
    pub buffer_size: usize,
    pub pool_size: usize,
    /// Failures are told in the error log.
    pub log_errors: bool,
    pub tls: Rc<Tls>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect_timeout: MINUTE,
            send_timeout: MINUTE,
            read_timeout: MINUTE,
            keepalive_timeout: MINUTE,
            buffer_size: BUFFER_BYTES,
            pool_size: POOL_SIZE,
            log_errors: true,
            tls: Rc::default(),
        }
    }
}

/// How sockets become secure.
pub struct Tls {
    spec: ClientSpec,
    made: OnceCell<Made>,
}

struct Made {
    client: Client,
    trust: Trust,
}

impl Default for Tls {
    fn default() -> Tls {
        let mut spec = ClientSpec::new("lua");
        (spec.server_name, spec.session_reuse) = (true, false);
        Tls { spec, made: OnceCell::new() }
    }
}

impl Tls {
    /// Who makes handshakes.
    pub fn client(&self) -> Result<&Client, Refusal> {
        Ok(&self.made()?.client)
    }

    /// Who judges certificates.
    pub fn trust(&self) -> Result<&Trust, Refusal> {
        Ok(&self.made()?.trust)
    }

    /// What the files and names come to; they are read once.
    fn made(&self) -> Result<&Made, Refusal> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = self.make().map(|(made, _)| made)?;
        Ok(self.made.get_or_init(|| made))
    }

    fn make(&self) -> Result<(Made, Vec<String>), Refusal> {
        let spec = &self.spec;
        let trusted = spec.trusted_certificate.as_deref().map(certificate::load_trusted);
        let crls = spec.crl.as_deref().map(certificate::load_crls);
        let (trusted, crls) = (trusted.transpose()?, crls.transpose()?);
        let trust = Trust::new(
            Purpose::Server,
            spec.verify_depth,
            trusted.unwrap_or_default(),
            crls.unwrap_or_default(),
        );
        let (client, warnings) = Client::build(spec)?;
        Ok((Made { client, trust }, warnings.into_iter().collect()))
    }
}

impl Settings {
    /// What is true where `raw` was written, below `up`.
    pub fn merge(
        raw: RawSettings,
        up: &Rc<Settings>,
        m: &mut Merging,
    ) -> Result<Rc<Settings>, Reason> {
        if raw.send_lowat.is_some() {
            m.warn("\"lua_socket_send_lowat\" is not supported, ignored");
        }
        if raw.is_empty() {
            return Ok(up.clone());
        }
        Ok(Rc::new(Settings {
            connect_timeout: raw.connect_timeout.unwrap_or(up.connect_timeout),
            send_timeout: raw.send_timeout.unwrap_or(up.send_timeout),
            read_timeout: raw.read_timeout.unwrap_or(up.read_timeout),
            keepalive_timeout: raw.keepalive_timeout.unwrap_or(up.keepalive_timeout),
            buffer_size: raw.buffer_size.map_or(up.buffer_size, |size| size.max(1) as usize),
            pool_size: raw.pool_size.map_or(up.pool_size, |size| size as usize),
            log_errors: raw.log_errors.unwrap_or(up.log_errors),
            tls: raw.ssl.merge(&up.tls, m)?,
        }))
    }
}

impl RawSettings {
    fn is_empty(&self) -> bool {
        let times =
            [self.connect_timeout, self.send_timeout, self.read_timeout, self.keepalive_timeout];
        times.iter().all(Option::is_none)
            && (self.buffer_size.is_none() && self.pool_size.is_none())
            && self.log_errors.is_none()
            && self.ssl.is_empty()
    }
}

impl RawSsl {
    /// `lua_ssl_protocols`
    pub fn protocols(&mut self, r: &mut Reading) -> Result<(), Reason> {
        Protocol::read(&mut self.protocols, r)
    }

    fn is_empty(&self) -> bool {
        let texts = [
            &self.ciphers,
            &self.trusted_certificate,
            &self.crl,
            &self.certificate,
            &self.certificate_key,
        ];
        texts.into_iter().all(Option::is_none)
            && self.protocols.is_none()
            && self.verify_depth.is_none()
    }

    /// Makes what is written, so that what is wrong with it is told with the configuration.
    fn merge(self, up: &Rc<Tls>, m: &mut Merging) -> Result<Rc<Tls>, Reason> {
        if self.is_empty() {
            return Ok(up.clone());
        }
        let file = |name: String| m.paths.certificate(&name);
        let mut spec = up.spec.clone();
        if let Some(protocols) = self.protocols {
            spec.protocols = protocols;
        }
        if let Some(ciphers) = self.ciphers {
            spec.ciphers = ciphers;
        }
        if let Some(depth) = self.verify_depth {
            spec.verify_depth = depth as usize;
        }
        spec.trusted_certificate = self.trusted_certificate.map(file).or(spec.trusted_certificate);
        spec.crl = self.crl.map(file).or(spec.crl);
        if let Some(certificate) = self.certificate {
            let Some(key) = self.certificate_key else {
                return Err(Reason::says(format!(
                    "no \"lua_ssl_certificate_key\" is defined for certificate \"{certificate}\""
                )));
            };
            spec.certificate = Some(Pair { certificate: file(certificate), key: file(key) });
        }
        let tls = Tls { spec, made: OnceCell::new() };
        let (made, warnings) = tls.make().map_err(|why| Reason::says(why.to_string()))?;
        warnings.into_iter().for_each(|text| m.warn(text));
        Ok(Rc::new(Tls { made: OnceCell::from(made), ..tls }))
    }
}
