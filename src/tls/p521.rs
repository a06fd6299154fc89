//! The group secp521r1 (P-521), which hardening guides put into `ssl_ecdh_curve` and which
//! rustls leaves out. RFC 8446 section 4.2.8.2; the arithmetic is aws-lc's.

use aws_lc_rs::agreement::{self, ECDH_P521, EphemeralPrivateKey, PublicKey, UnparsedPublicKey};
use aws_lc_rs::rand::SystemRandom;
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// To be listed among a provider's groups.
pub(super) static SECP521R1: &dyn SupportedKxGroup = &P521;

#[derive(Debug)]
struct P521;

impl SupportedKxGroup for P521 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private = EphemeralPrivateKey::generate(&ECDH_P521, &SystemRandom::new())
            .map_err(|_| GetRandomFailed)?;
        let public = private.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Exchange {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

/// First byte of the only point format that TLS 1.3 allows.
const UNCOMPRESSED: u8 = 4;

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        if peer.first() != Some(&UNCOMPRESSED) {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let peer = UnparsedPublicKey::new(&ECDH_P521, peer);
        agreement::agree_ephemeral(self.private, peer, PeerMisbehaved::InvalidKeyShare, |secret| {
            Ok(SharedSecret::from(secret))
        })
        .map_err(Error::from)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_share_a_secret() {
        let (a, b) = (SECP521R1.start().unwrap(), SECP521R1.start().unwrap());
        let (a_public, b_public) = (a.pub_key().to_vec(), b.pub_key().to_vec());
        assert_eq!(a_public.len(), 133);
        let (a, b) = (a.complete(&b_public).unwrap(), b.complete(&a_public).unwrap());
        assert_eq!(a.secret_bytes(), b.secret_bytes());
        let refused = |peer: &[u8]| SECP521R1.start().unwrap().complete(peer).is_err();
        assert!(refused(&[]) && refused(&[2; 67]) && refused(&[4; 133]));
    }
}
