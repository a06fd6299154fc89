//! The name and the password of `Authorization: Basic`.

use super::Request;
use crate::proto::digits::from_base64;
use crate::proto::header::HeaderId;

/// What a client says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Before the first colon; never empty.
    pub user: Vec<u8>,
    /// Behind it.
    pub password: Vec<u8>,
}

impl Credentials {
    /// The credentials of the request. `None`: there are none that can be read.
    pub fn of(r: &Request) -> Option<Credentials> {
        Credentials::parse(r.header(HeaderId::Authorization)?)
    }

    fn parse(field: &[u8]) -> Option<Credentials> {
        let (scheme, rest) = field.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let start = rest.iter().position(|b| *b != b' ')?;
        let both = from_base64(&rest[start..])?;
        let colon = both.iter().position(|b| *b == b':').filter(|at| *at > 0)?;
        Some(Credentials { user: both[..colon].to_vec(), password: both[colon + 1..].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let parse = |text: &str| {
            Credentials::parse(text.as_bytes())
                .map(|c| format!("{}|{}", c.user.escape_ascii(), c.password.escape_ascii()))
        };
        assert_eq!(parse("Basic YTpiOmM=").as_deref(), Some("a|b:c"));
        assert_eq!(parse("basic   YTpiOmM").as_deref(), Some("a|b:c"));
        assert_eq!(parse("Basic YTo=").as_deref(), Some("a|"));
        for bad in ["", "Basic", "Basic ", "Basic OmE=", "Basic YQ==", "Bearer YTpi", "Basic *"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
