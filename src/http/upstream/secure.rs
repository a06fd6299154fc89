//! `…_ssl_…`: TLS towards upstreams.

use crate::conf::{Reading, Reason, value};
use crate::http::{Merging, Request, Template};
use crate::log;
use crate::tls::certificate::{self, Pair};
use crate::tls::ciphers::Protocol;
use crate::tls::client::{Client, ClientSpec, without_port};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// As [`super::upstream_rows!`], with the `…_ssl_…` rows filling `$tls: RawSecure`.
macro_rules! upstream_ssl_rows {
    ($prefix:literal, $raw:ty, $field:ident, $tls:ident, [$($own:expr),* $(,)?]) => {
        $crate::http::upstream::upstream_rows!($prefix, $raw, $field, [
            d(concat!($prefix, "_ssl_session_reuse"), ANY_HTTP, flag(|c| &mut c.$tls.session_reuse)),
            d(concat!($prefix, "_ssl_protocols"), ANY_HTTP, call(at_least(1), |c: &mut $raw, r| c.$tls.protocols(r))),
            d(concat!($prefix, "_ssl_ciphers"), ANY_HTTP, text(|c| &mut c.$tls.ciphers)),
            d(concat!($prefix, "_ssl_name"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$tls.name(r))),
            d(concat!($prefix, "_ssl_server_name"), ANY_HTTP, flag(|c| &mut c.$tls.server_name)),
            d(concat!($prefix, "_ssl_verify"), ANY_HTTP, flag(|c| &mut c.$tls.verify)),
            d(concat!($prefix, "_ssl_verify_depth"), ANY_HTTP, num(0, i32::MAX as i64, |c| &mut c.$tls.verify_depth)),
            d(concat!($prefix, "_ssl_trusted_certificate"), ANY_HTTP, text(|c| &mut c.$tls.trusted_certificate)),
            d(concat!($prefix, "_ssl_crl"), ANY_HTTP, text(|c| &mut c.$tls.crl)),
            d(concat!($prefix, "_ssl_certificate"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$tls.certificate(r))),
            d(concat!($prefix, "_ssl_certificate_key"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$tls.certificate_key(r))),
            d(concat!($prefix, "_ssl_certificate_cache"), ANY_HTTP, call(between(1, 3), |c: &mut $raw, r| c.$tls.certificate_cache(r))),
            d(concat!($prefix, "_ssl_password_file"), ANY_HTTP, call(exactly(1), |c: &mut $raw, r| c.$tls.password_file(r))),
            d(concat!($prefix, "_ssl_conf_command"), ANY_HTTP, call(exactly(2), |c: &mut $raw, r| c.$tls.conf_command(r))),
            $($own),*
        ])
    };
}
pub(crate) use upstream_ssl_rows;

/// What was written in one block.
#[derive(Default)]
pub struct RawSecure {
    pub session_reuse: Option<bool>,
    protocols: Option<Vec<Protocol>>,
    pub ciphers: Option<String>,
    name: Option<Template>,
    pub server_name: Option<bool>,
    pub verify: Option<bool>,
    pub verify_depth: Option<i64>,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    certificate: Option<Template>,
    certificate_key: Option<Template>,
    certificate_cache: Option<Option<CacheRules>>,
    passwords: Option<Vec<Vec<u8>>>,
}

/// `…_ssl_certificate_cache`
#[derive(Clone, Copy, Debug)]
struct CacheRules {
    max: usize,
    inactive: Duration,
    valid: Duration,
}

/// What is true in one location.
#[derive(Clone)]
pub struct Secure {
    spec: ClientSpec,
    name: Option<Template>,
    certificate: Option<Template>,
    certificate_key: Option<Template>,
    cache: Option<CacheRules>,
    client: Option<Rc<Client>>,
    loaded: Rc<RefCell<HashMap<(String, String), Loaded>>>,
}

/// A client with a certificate that variables named.
struct Loaded {
    client: Rc<Client>,
    since: Instant,
    used: Instant,
}

/// What one connection needs.
pub struct Handshake {
    pub client: Rc<Client>,
    /// What the server should be called.
    pub name: Rc<str>,
}

/// Clients of equal specifications are one.
#[derive(Default)]
struct Clients(HashMap<String, Rc<Client>>);

impl Secure {
    /// nginx's defaults.
    pub fn new(prefix: &'static str) -> Secure {
        Secure {
            spec: ClientSpec::new(prefix),
            name: None,
            certificate: None,
            certificate_key: None,
            cache: None,
            client: None,
            loaded: Rc::default(),
        }
    }

    /// What is true where `raw` was written, below `up`. `used`: connections are made with it, so
    /// what it names is loaded.
    pub fn merge(
        raw: RawSecure,
        up: &Secure,
        used: bool,
        m: &mut Merging,
    ) -> Result<Secure, Reason> {
        let file = |name: String| m.paths.certificate(&name);
        let spec = ClientSpec {
            prefix: up.spec.prefix,
            protocols: raw.protocols.unwrap_or_else(|| up.spec.protocols.clone()),
            ciphers: raw.ciphers.unwrap_or_else(|| up.spec.ciphers.clone()),
            ciphersuites: None,
            verify: raw.verify.unwrap_or(up.spec.verify),
            trusted_certificate: raw
                .trusted_certificate
                .map(file)
                .or_else(|| up.spec.trusted_certificate.clone()),
            crl: raw.crl.map(file).or_else(|| up.spec.crl.clone()),
            verify_depth: raw.verify_depth.map_or(up.spec.verify_depth, |n| n as usize),
            certificate: None,
            passwords: raw.passwords.unwrap_or_else(|| up.spec.passwords.clone()),
            server_name: raw.server_name.unwrap_or(up.spec.server_name),
            session_reuse: raw.session_reuse.unwrap_or(up.spec.session_reuse),
            alpn: up.spec.alpn.clone(),
        };
        let mut secure = Secure {
            spec,
            name: raw.name.or_else(|| up.name.clone()),
            certificate: raw.certificate.or_else(|| up.certificate.clone()),
            certificate_key: raw.certificate_key.or_else(|| up.certificate_key.clone()),
            cache: raw.certificate_cache.unwrap_or(up.cache),
            client: None,
            loaded: Rc::default(),
        };
        if used {
            secure.build(m)?;
        }
        Ok(secure)
    }

    fn build(&mut self, m: &mut Merging) -> Result<(), Reason> {
        let prefix = self.spec.prefix;
        let named = self.certificate.as_ref().filter(|t| !t.source().is_empty());
        if let Some(certificate) = named {
            let Some(key) = &self.certificate_key else {
                return Err(Reason::says(format!(
                    "no \"{prefix}_ssl_certificate_key\" is defined for certificate \"{}\"",
                    certificate.source()
                )));
            };
            if certificate.constant().is_some() && key.constant().is_some() {
                let file = |t: &Template| m.paths.certificate(t.source());
                self.spec.certificate =
                    Some(Pair { certificate: file(certificate), key: file(key) });
            }
        }
        let identity = format!("{:?}", self.spec);
        if let Some(client) = m.shelf.of::<Clients>().0.get(&identity) {
            self.client = Some(client.clone());
            return Ok(());
        }
        let (client, warnings) =
            Client::build(&self.spec).map_err(|e| Reason::says(e.to_string()))?;
        warnings.into_iter().for_each(|text| m.warn(text));
        let client = Rc::new(client);
        m.shelf.of::<Clients>().0.insert(identity, client.clone());
        self.client = Some(client);
        Ok(())
    }

    /// What a connection for `r` to a server called `host` needs.
    ///
    /// Errors: the status that ends the request; the reason was logged.
    pub fn handshake(&self, r: &Request, host: &str) -> Result<Handshake, u16> {
        let name = match &self.name {
            Some(template) => template.text(r),
            None => host.to_owned(),
        };
        let client = match self.named_pair(r) {
            None => self.client.clone().expect("built where it is used"),
            Some(pair) => self.load(r, pair)?,
        };
        Ok(Handshake { client, name: without_port(&name).into() })
    }

    /// The certificate that variables name; `None` if none do.
    fn named_pair(&self, r: &Request) -> Option<Pair> {
        let (certificate, key) = (self.certificate.as_ref()?, self.certificate_key.as_ref()?);
        if certificate.constant().is_some() && key.constant().is_some() {
            return None;
        }
        let certificate = certificate.text(r);
        (!certificate.is_empty()).then(|| Pair { certificate, key: key.text(r) })
    }

    fn load(&self, r: &Request, pair: Pair) -> Result<Rc<Client>, u16> {
        let now = crate::event::now();
        let key = (pair.certificate.clone(), pair.key.clone());
        let rules = self.cache;
        if let (Some(rules), Some(found)) = (rules, self.loaded.borrow_mut().get_mut(&key))
            && now.duration_since(found.since) < rules.valid
            && now.duration_since(found.used) < rules.inactive
        {
            found.used = now;
            return Ok(found.client.clone());
        }
        let certified = certificate::load_pair(&pair, &self.spec.passwords).map_err(|e| {
            log::error!(r, "{e} while SSL handshaking to upstream");
            500u16
        })?;
        let base = self.client.as_ref().expect("built where it is used");
        let client = Rc::new(base.with_certificate(certified));
        if let Some(rules) = rules {
            let mut loaded = self.loaded.borrow_mut();
            loaded.retain(|_, l| now.duration_since(l.used) < rules.inactive);
            while loaded.len() >= rules.max
                && let Some(oldest) =
                    loaded.iter().min_by_key(|(_, l)| l.used).map(|(k, _)| k.clone())
            {
                loaded.remove(&oldest);
            }
            let entry = Loaded { client: client.clone(), since: now, used: now };
            loaded.insert(key, entry);
        }
        Ok(client)
    }
}

impl RawSecure {
    pub fn protocols(&mut self, r: &mut Reading) -> Result<(), Reason> {
        Protocol::read(&mut self.protocols, r)
    }

    pub fn name(&mut self, r: &mut Reading) -> Result<(), Reason> {
        template(&mut self.name, r)
    }

    pub fn certificate(&mut self, r: &mut Reading) -> Result<(), Reason> {
        template(&mut self.certificate, r)
    }

    pub fn certificate_key(&mut self, r: &mut Reading) -> Result<(), Reason> {
        template(&mut self.certificate_key, r)
    }

    pub fn certificate_cache(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.certificate_cache.is_some() {
            return Err(Reason::Duplicate);
        }
        let args = r.take_args();
        if args[..] == ["off"] {
            self.certificate_cache = Some(None);
            return Ok(());
        }
        let (mut max, mut inactive, mut valid) =
            (0, Duration::from_secs(10), Duration::from_secs(60));
        for word in &args {
            let invalid = || Reason::InvalidParameter(word.clone());
            match word.split_once('=').ok_or_else(invalid)? {
                ("max", n) => {
                    max = value::number(n).filter(|n| *n > 0).ok_or_else(invalid)? as usize;
                }
                ("inactive", t) => inactive = value::seconds(t).ok_or_else(invalid)?,
                ("valid", t) => valid = value::seconds(t).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        if max == 0 {
            return Err(Reason::says(format!("\"{}\" must have the \"max\" parameter", r.name())));
        }
        self.certificate_cache = Some(Some(CacheRules { max, inactive, valid }));
        Ok(())
    }

    pub fn password_file(&mut self, r: &mut Reading) -> Result<(), Reason> {
        if self.passwords.is_some() {
            return Err(Reason::Duplicate);
        }
        let path = r.paths.in_conf(r.arg(0)).to_string_lossy().into_owned();
        let passwords = certificate::load_passwords(&path);
        self.passwords = Some(passwords.map_err(|e| Reason::says(e.to_string()))?);
        Ok(())
    }

    pub fn conf_command(&mut self, _: &mut Reading) -> Result<(), Reason> {
        Err(Reason::says("SSL_CONF_cmd() is not available on this platform"))
    }
}

fn template(slot: &mut Option<Template>, r: &mut Reading) -> Result<(), Reason> {
    if slot.is_some() {
        return Err(Reason::Duplicate);
    }
    let text = r.arg(0).to_owned();
    *slot = Some(Template::parse(&text, r)?);
    Ok(())
}
