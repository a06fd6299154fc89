//! Why a handshake failed, as nginx would log it.

use std::fmt;
use std::io;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use super::client_hello::NotHello;
use super::names;
use super::server::Part;

/// A handshake that did not end in a connection.
#[derive(Debug)]
pub enum HandshakeFault {
    /// The peer closed before the handshake was over.
    PeerClosed,
    /// Nothing came at all: the connection was opened and closed.
    ClosedBeforeHello,
    /// The socket failed.
    Io(io::Error),
    /// We refused: `ssl_reject_handshake`.
    Rejected,
    /// Code that takes part in handshakes refused.
    Stopped(Part),
    /// What came first is no ClientHello.
    NotHello(NotHello),
    /// The protocol failed; whose fault it is, rustls knows.
    Protocol(Error),
    /// The upstream's certificate is not believed; a whole sentence of nginx's.
    Certificate(String),
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("peer closed connection in SSL handshake"),
            Self::ClosedBeforeHello => f.write_str("client closed connection"),
            Self::Rejected => f.write_str("handshake rejected"),
            Self::Stopped(part) => {
                let text = match part {
                    Part::ClientHello => in_brackets(0xea, "callback failed"),
                    Part::Certificate => in_brackets(0x179, "cert cb error"),
                };
                write!(f, "SSL_do_handshake() failed {text}")
            }
            Self::Io(error) => write!(f, "SSL_do_handshake() failed ({})", with_number(error)),
            Self::NotHello(fault) => {
                let (number, reason) = match fault {
                    NotHello::NotTls => (0x10b, "wrong version number"),
                    NotHello::OtherMessage => (0xf4, "unexpected message"),
                    NotHello::Malformed => (0x9f, "length mismatch"),
                    NotHello::TooLarge => (0x98, "excessive message size"),
                };
                write!(f, "SSL_do_handshake() failed {}", in_brackets(number, reason))
            }
            Self::Protocol(error) => {
                write!(f, "SSL_do_handshake() failed {}", openssl_text(error))
            }
            Self::Certificate(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for HandshakeFault {}

impl From<Error> for HandshakeFault {
    fn from(error: Error) -> Self {
        Self::Protocol(error)
    }
}

/// `(SSL: error:0A000410:SSL routines::sslv3 alert handshake failure:SSL alert number 40)`: an
/// error of rustls as OpenSSL would have put it.
pub fn openssl_text(error: &Error) -> String {
    let (number, reason) = match error {
        Error::AlertReceived(alert) => {
            let code = u8::from(*alert);
            let detail = format!("{}:SSL alert number {code}", names::alert(code));
            return in_brackets(1000 + u32::from(code), &detail);
        }
        Error::DecryptError => (0x119, "decryption failed or bad record mac"),
        Error::PeerSentOversizedRecord => (0xc6, "packet length too long"),
        Error::NoApplicationProtocol => (0xeb, "no application protocol"),
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
                (0xc1, "no shared cipher")
            }
            PeerIncompatible::NoKxGroupsInCommon => (0x65, "no suitable key share"),
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13 => (0x102, "unsupported protocol"),
            PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
                (0x70, "missing sigalgs extension")
            }
            other => return in_brackets(0, &format!("{other:?}")),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            (0x10b, "wrong version number")
        }
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            (0x10b, "wrong version number")
        }
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            (0x98, "excessive message size")
        }
        Error::InvalidMessage(_) => (0x9f, "length mismatch"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            (0xf4, "unexpected message")
        }
        other => return in_brackets(0, &other.to_string()),
    };
    in_brackets(number, reason)
}

fn in_brackets(number: u32, reason: &str) -> String {
    format!("(SSL: error:{:08X}:SSL routines::{reason})", 0x0A00_0000 + number)
}

/// `104: Connection reset by peer`.
fn with_number(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.find(" (os error")) {
        (Some(number), Some(end)) => format!("{number}: {}", &text[..end]),
        _ => text,
    }
}

/// Whether an alert of the peer only says that it goes away.
pub(super) fn is_goodbye(error: &Error) -> bool {
    matches!(
        error,
        Error::AlertReceived(AlertDescription::UserCanceled | AlertDescription::CloseNotify)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let text = |error| HandshakeFault::Protocol(error).to_string();
        assert_eq!(
            text(Error::AlertReceived(AlertDescription::HandshakeFailure)),
            "SSL_do_handshake() failed (SSL: error:0A000410:SSL routines::sslv3 alert handshake \
             failure:SSL alert number 40)"
        );
        assert_eq!(
            text(PeerIncompatible::NoCipherSuitesInCommon.into()),
            "SSL_do_handshake() failed (SSL: error:0A0000C1:SSL routines::no shared cipher)"
        );
        assert_eq!(
            HandshakeFault::Io(io::Error::from_raw_os_error(104)).to_string(),
            "SSL_do_handshake() failed (104: Connection reset by peer)"
        );
        assert_eq!(
            HandshakeFault::NotHello(NotHello::NotTls).to_string(),
            "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)"
        );
    }
}
