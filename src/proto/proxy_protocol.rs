//! The PROXY protocol, versions 1 and 2: who is really at the other end of a connection.
//!
//! Read before anything else on a listener that asks for it, written before anything else to an
//! upstream. Unlike nginx, a header may arrive in pieces.

use std::borrow::Cow;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far a header has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyRead {
    /// More bytes are needed.
    Partial,
    /// The header takes the first `len` bytes. It names nobody if it is `UNKNOWN` or `LOCAL`,
    /// or speaks of something else than TCP.
    Complete { len: usize, header: Option<ProxyHeader> },
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The type-length-value entries of version 2, as they came.
    tlvs: Vec<u8>,
}

/// Why a header was refused; texts as in nginx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("broken header: \"{line}\"")]
    Broken { line: String },
    #[error("unknown PROXY protocol version: {0}")]
    UnknownVersion(u8),
    #[error("header is too large")]
    TooLarge,
    #[error("broken PROXY protocol TLV")]
    BrokenTlv,
}

/// The longest header of version 1, in bytes.
pub const V1_MAX: usize = 107;
/// The longest header of version 2 that is read, in bytes; nginx's buffer.
pub const V2_MAX: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

/// Reads the header that `bytes` start with.
pub fn read(bytes: &[u8]) -> Result<ProxyRead, ProxyError> {
    if starts_like(bytes, SIGNATURE) {
        return if bytes.len() < V2_FIXED { Ok(ProxyRead::Partial) } else { read_v2(bytes) };
    }
    if !starts_like(bytes, b"PROXY ") {
        return Err(broken(bytes));
    }
    let line = &bytes[..bytes.len().min(V1_MAX)];
    match memchr::memchr(b'\n', line) {
        Some(lf) => {
            let header = read_v1(&line[..lf]).ok_or_else(|| broken(bytes))?;
            Ok(ProxyRead::Complete { len: lf + 1, header })
        }
        None if line.len() < V1_MAX => Ok(ProxyRead::Partial),
        None => Err(broken(bytes)),
    }
}

/// Whether `bytes` are, or may become, something that starts with `want`.
fn starts_like(bytes: &[u8], want: &[u8]) -> bool {
    let len = bytes.len().min(want.len());
    bytes[..len] == want[..len]
}

#[cold]
fn broken(bytes: &[u8]) -> ProxyError {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let end = memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len());
    ProxyError::Broken { line: String::from_utf8_lossy(&line[..end]).into_owned() }
}

/// A line of version 1, without its LF. Outer `None`: it is broken; inner: it names nobody.
fn read_v1(line: &[u8]) -> Option<Option<ProxyHeader>> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r")?.strip_prefix(b"PROXY ")?).ok()?;
    if text.starts_with("UNKNOWN") {
        return Some(None);
    }
    let mut words = text.split(' ');
    if !matches!(words.next()?, "TCP4" | "TCP6") {
        return None;
    }
    let addresses = [address(words.next()?)?, address(words.next()?)?];
    let ports = [port(words.next()?)?, port(words.next()?)?];
    let [source, destination] = [0, 1].map(|i| SocketAddr::new(addresses[i], ports[i]));
    words.next().is_none().then_some(Some(ProxyHeader { source, destination, tlvs: Vec::new() }))
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// `bytes` hold the signature and the fixed part.
fn read_v2(bytes: &[u8]) -> Result<ProxyRead, ProxyError> {
    let version = bytes[12] >> 4;
    if version != 2 {
        return Err(ProxyError::UnknownVersion(version));
    }
    let len = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if len > V2_MAX {
        return Err(ProxyError::TooLarge);
    }
    let Some(rest) = bytes.get(V2_FIXED..len) else { return Ok(ProxyRead::Partial) };
    let is_proxied_stream = bytes[12] & 15 == 1 && bytes[13] & 15 == 1;
    let header = match bytes[13] >> 4 {
        _ if !is_proxied_stream => None,
        1 => Some(read_addresses::<4, 12>(rest).ok_or_else(|| broken(bytes))?),
        2 => Some(read_addresses::<16, 36>(rest).ok_or_else(|| broken(bytes))?),
        _ => None,
    };
    Ok(ProxyRead::Complete { len, header })
}

/// Two addresses of `N` bytes and two ports, `ALL` bytes in sum, then TLVs.
fn read_addresses<const N: usize, const ALL: usize>(rest: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (fixed, tlvs) = rest.split_first_chunk::<ALL>()?;
    let end = |address: usize, port: usize| {
        let ip: [u8; N] = fixed[address..address + N].try_into().ok()?;
        let port = u16::from_be_bytes([fixed[port], fixed[port + 1]]);
        Some(SocketAddr::new(IpAddr::from(ip), port))
    };
    Some(ProxyHeader {
        source: end(0, 2 * N)?,
        destination: end(N, 2 * N + 2)?,
        tlvs: tlvs.to_vec(),
    })
}

/// The name of an entry in `$proxy_protocol_tlv_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvName {
    /// An entry of this type.
    Top(u64),
    /// An entry of this type within the one for TLS.
    Ssl(u64),
    /// The result of the client certificate's verification.
    SslVerify,
}

impl TlvName {
    /// Reads `alpn`, `ssl_cn`, `0x05`, `ssl_0x22` and so on; `None` if there is no such name.
    pub fn parse(name: &str) -> Option<TlvName> {
        if let Some(name) = name.strip_prefix("ssl_") {
            return match name {
                "verify" => Some(TlvName::SslVerify),
                "version" => Some(TlvName::Ssl(0x21)),
                "cn" => Some(TlvName::Ssl(0x22)),
                "cipher" => Some(TlvName::Ssl(0x23)),
                "sig_alg" => Some(TlvName::Ssl(0x24)),
                "key_alg" => Some(TlvName::Ssl(0x25)),
                name => hexadecimal(name).map(TlvName::Ssl),
            };
        }
        match name {
            "alpn" => Some(TlvName::Top(0x01)),
            "authority" => Some(TlvName::Top(0x02)),
            "unique_id" => Some(TlvName::Top(0x05)),
            "ssl" => Some(TlvName::Top(TLV_SSL)),
            "netns" => Some(TlvName::Top(0x30)),
            name => hexadecimal(name).map(TlvName::Top),
        }
    }
}

fn hexadecimal(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("0x")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_number { u64::from_str_radix(digits, 16).ok() } else { None }
}

const TLV_ALPN: u8 = 0x01;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_SSL: u64 = 0x20;
/// In front of the entries within the one for TLS: a byte about the client, the result of the
/// verification.
const SSL_FIXED: usize = 5;

impl ProxyHeader {
    /// A header without TLVs.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> ProxyHeader {
        ProxyHeader { source, destination, tlvs: Vec::new() }
    }

    /// The value of an entry, if the header has it.
    pub fn tlv(&self, name: TlvName) -> Result<Option<Cow<'_, [u8]>>, ProxyError> {
        let (kind, in_ssl) = match name {
            TlvName::Top(kind) => return Ok(find(&self.tlvs, kind)?.map(Cow::Borrowed)),
            TlvName::Ssl(kind) => (kind, true),
            TlvName::SslVerify => (0, false),
        };
        let Some(ssl) = find(&self.tlvs, TLV_SSL)? else { return Ok(None) };
        let (fixed, entries) = ssl.split_first_chunk::<SSL_FIXED>().ok_or(ProxyError::BrokenTlv)?;
        if in_ssl {
            return Ok(find(entries, kind)?.map(Cow::Borrowed));
        }
        let verify = u32::from_be_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]);
        Ok(Some(Cow::Owned(verify.to_string().into_bytes())))
    }
}

/// The first entry of this type among `tlvs`.
fn find(mut tlvs: &[u8], kind: u64) -> Result<Option<&[u8]>, ProxyError> {
    while !tlvs.is_empty() {
        let (head, rest) = tlvs.split_first_chunk::<3>().ok_or(ProxyError::BrokenTlv)?;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, rest) = rest.split_at_checked(len).ok_or(ProxyError::BrokenTlv)?;
        if u64::from(head[0]) == kind {
            return Ok(Some(value));
        }
        tlvs = rest;
    }
    Ok(None)
}

/// Appends a header of version 1. Ends that are not both of IP are unknown.
pub fn write_v1(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let Some((source, destination)) = ends else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let ports = (source.port(), destination.port());
    write!(out, "PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1)
        .expect("a vector takes whatever is written");
}

/// What a header of version 2 tells about the client's TLS connection.
#[derive(Clone, Debug, Default)]
pub struct SslFacts<'a> {
    pub server_name: Option<&'a [u8]>,
    pub alpn: Option<&'a [u8]>,
    pub version: &'a str,
    pub cipher: &'a str,
    /// The common name of the client's certificate.
    pub common_name: Option<&'a str>,
    pub signature_algorithm: Option<&'a str>,
    /// Like `RSA2048` or `EC256`.
    pub key_algorithm: Option<&'a str>,
    /// A certificate was shown, on this connection or when its session began.
    pub certificate: Option<Certificate>,
}

/// How the client's certificate was shown and judged.
#[derive(Clone, Copy, Debug)]
pub struct Certificate {
    pub on_this_connection: bool,
    /// OpenSSL's number; 0 is success.
    pub verify: u32,
}

/// Appends a header of version 2 for a TCP connection, with a checksum, as nginx does. Ends
/// that are not both of IP are `LOCAL`; if only one is of IPv6, the other is mapped.
pub fn write_v2(
    ends: Option<(SocketAddr, SocketAddr)>,
    ssl: Option<&SslFacts>,
    out: &mut Vec<u8>,
) -> Result<(), ProxyError> {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    match ends {
        None => out.extend([0x20, 0x00, 0, 0]),
        Some((source, destination)) => write_ends(source, destination, out),
    }
    if let Some(ssl) = ssl {
        write_ssl(ssl, out)?;
    }
    write_tlv(TLV_CRC32C, &[0; 4], out)?;
    let len = u16::try_from(out.len() - start - V2_FIXED).map_err(|_| ProxyError::TooLarge)?;
    out[start + 14..start + 16].copy_from_slice(&len.to_be_bytes());
    let checksum = crc32c(&out[start..]).to_be_bytes();
    let value = out.len() - 4;
    out[value..].copy_from_slice(&checksum);
    Ok(())
}

/// The rest of the fixed part and the addresses.
fn write_ends(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    match (plain_v4(source.ip()), plain_v4(destination.ip())) {
        (Some(from), Some(to)) => {
            out.extend([0x21, 0x11, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        _ => {
            out.extend([0x21, 0x21, 0, 0]);
            out.extend(as_v6(source.ip()).octets());
            out.extend(as_v6(destination.ip()).octets());
        }
    }
    out.extend(source.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
}

fn plain_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn write_ssl(ssl: &SslFacts, out: &mut Vec<u8>) -> Result<(), ProxyError> {
    for (kind, value) in [(TLV_AUTHORITY, ssl.server_name), (TLV_ALPN, ssl.alpn)] {
        if let Some(value) = value {
            write_tlv(kind, value, out)?;
        }
    }
    let (client, verify) = match ssl.certificate {
        None => (1, 1),
        Some(certificate) if certificate.on_this_connection => (1 | 2 | 4, certificate.verify),
        Some(certificate) => (1 | 4, certificate.verify),
    };
    let mut value = vec![client];
    value.extend(verify.to_be_bytes());
    for (kind, text) in [
        (0x21, Some(ssl.version)),
        (0x22, ssl.common_name),
        (0x23, Some(ssl.cipher)),
        (0x24, ssl.signature_algorithm),
        (0x25, ssl.key_algorithm),
    ] {
        if let Some(text) = text {
            write_tlv(kind, text.as_bytes(), &mut value)?;
        }
    }
    write_tlv(TLV_SSL as u8, &value, out)
}

fn write_tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), ProxyError> {
    let len = u16::try_from(value.len()).map_err(|_| ProxyError::TooLarge)?;
    out.push(kind);
    out.extend(len.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

/// CRC-32C (Castagnoli) of `bytes`.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &b| crc >> 8 ^ CRC[usize::from(crc as u8 ^ b)])
}

static CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(bytes: &[u8]) -> String {
        for end in 0..bytes.len() {
            // A header that arrives in pieces is read when it is whole, or refused at once.
            match (read(&bytes[..end]), read(bytes)) {
                (Ok(ProxyRead::Partial), _) | (Err(_), Err(_)) => (),
                (Ok(early), Ok(whole)) => assert_eq!(early, whole),
                other => panic!("{other:?}"),
            }
        }
        match read(bytes) {
            Ok(ProxyRead::Partial) => "partial".into(),
            Ok(ProxyRead::Complete { len, header: None }) => format!("nobody {len}"),
            Ok(ProxyRead::Complete { len, header: Some(h) }) => {
                format!("{} > {} {len}", h.source, h.destination)
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn version_1() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (text, want) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 123 5678\r\nGET", "1.2.3.4:123 > 5.6.7.8:5678 37"),
            ("PROXY TCP6 ::1 2001:DB8::1 0 65535\r\n", "[::1]:0 > [2001:db8::1]:65535 36"),
            ("PROXY UNKNOWN\r\n", "nobody 15"),
            ("PROXY UNKNOWN 1 2 3 4 5 6\r\nGET", "nobody 27"),
            ("PROXY TCP4 1.2.3.4", "partial"),
            ("PRO", "partial"),
            ("", "partial"),
            ("GET / HTTP/1.0\r\n", "broken header: \"GET / HTTP/1.0\""),
            (
                "PROXY TCP4 1.2.3.4 5.6.7.8 123\r\n",
                "broken header: \"PROXY TCP4 1.2.3.4 5.6.7.8 123\"",
            ),
            ("PROXY TCP4 1 5.6.7.8 1 2\r\n", "broken header: \"PROXY TCP4 1 5.6.7.8 1 2\""),
            ("PROXY TCP4 ::1 ::1 1 65536\r\n", "broken header: \"PROXY TCP4 ::1 ::1 1 65536\""),
            ("PROXY TCP4 ::1 ::1 +1 2\r\n", "broken header: \"PROXY TCP4 ::1 ::1 +1 2\""),
            ("PROXY TCP4 ::1 ::1 1 2 3\r\n", "broken header: \"PROXY TCP4 ::1 ::1 1 2 3\""),
            ("PROXY TCP4 ::1 ::1 1 2\n", "broken header: \"PROXY TCP4 ::1 ::1 1 2\""),
            ("PROXY UDP4 ::1 ::1 1 2\r\n", "broken header: \"PROXY UDP4 ::1 ::1 1 2\""),
            (&long, &format!("broken header: \"{}\"", &long[..V1_MAX])),
        ] {
            assert_eq!(show(text.as_bytes()), want, "{text:?}");
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([command, family]);
        out.extend((rest.len() as u16).to_be_bytes());
        out.extend(rest);
        out
    }

    #[test]
    fn version_2() {
        let ends = [192, 0, 2, 1, 192, 0, 2, 2, 0, 123, 0x16, 0x2e];
        assert_eq!(show(&v2(0x21, 0x11, &ends)), "192.0.2.1:123 > 192.0.2.2:5678 28");
        let ends6 = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
        assert_eq!(show(&v2(0x21, 0x21, &ends6)), "[::1]:1 > [::2]:2 52");
        assert_eq!(show(&v2(0x20, 0x11, &ends)), "nobody 28");
        assert_eq!(show(&v2(0x21, 0x12, &ends)), "nobody 28");
        assert_eq!(show(&v2(0x21, 0x31, &[0; 216])), "nobody 232");
        assert_eq!(show(&v2(0x11, 0x11, &ends)), "unknown PROXY protocol version: 1");
        assert_eq!(show(&v2(0x21, 0x11, &ends[..11])), "broken header: \"\"");
        assert_eq!(show(&v2(0x21, 0x11, &[0; 4081])), "header is too large");
        assert_eq!(show(&v2(0x21, 0x11, &[0; 4080])), "0.0.0.0:0 > 0.0.0.0:0 4096");
    }

    #[test]
    fn entries() {
        let ends = (([1, 2, 3, 4], 5).into(), ([6, 7, 8, 9], 10).into());
        let facts = SslFacts {
            server_name: Some(b"example.com"),
            alpn: Some(b"h2"),
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            common_name: Some("cn"),
            key_algorithm: Some("EC256"),
            certificate: Some(Certificate { on_this_connection: true, verify: 255 }),
            ..SslFacts::default()
        };
        let mut out = Vec::new();
        write_v2(Some(ends), Some(&facts), &mut out).unwrap();
        let Ok(ProxyRead::Complete { header: Some(header), .. }) = read(&out) else { panic!() };
        assert_eq!((header.source, header.destination), ends);
        let value = |name: &str| {
            let name = TlvName::parse(name).expect(name);
            header.tlv(name).unwrap().map(|v| String::from_utf8_lossy(&v).into_owned())
        };
        for (name, want) in [
            ("alpn", Some("h2")),
            ("0x1", Some("h2")),
            ("authority", Some("example.com")),
            ("ssl_version", Some("TLSv1.3")),
            ("ssl_cipher", Some("TLS_AES_128_GCM_SHA256")),
            ("ssl_cn", Some("cn")),
            ("ssl_0x0022", Some("cn")),
            ("ssl_sig_alg", None),
            ("ssl_key_alg", Some("EC256")),
            ("ssl_verify", Some("255")),
            ("unique_id", None),
            ("0x101", None),
        ] {
            assert_eq!(value(name).as_deref(), want, "{name}");
        }
        assert_eq!(value("ssl").unwrap().as_bytes()[0], 7);
        for name in ["", "foo", "0x", "0xg", "ssl_", "ssl_foo", "0x11112222333344445"] {
            assert_eq!(TlvName::parse(name), None, "{name}");
        }
        // The checksum is that of the header with zeros in its place.
        let at = out.len() - 4;
        let checksum = u32::from_be_bytes(out[at..].try_into().unwrap());
        out[at..].fill(0);
        assert_eq!(crc32c(&out), checksum);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn broken_entries() {
        let header = |tlvs: &[u8]| ProxyHeader {
            tlvs: tlvs.to_vec(),
            ..ProxyHeader::new(([0; 4], 0).into(), ([0; 4], 0).into())
        };
        for tlvs in [&[1, 0][..], &[1, 0, 2, 0], &[2, 0, 0, 1]] {
            assert_eq!(header(tlvs).tlv(TlvName::Top(1)), Err(ProxyError::BrokenTlv));
        }
        let short = header(&[0x20, 0, 4, 0, 0, 0, 0]);
        assert_eq!(short.tlv(TlvName::SslVerify), Err(ProxyError::BrokenTlv));
        assert_eq!(header(&[]).tlv(TlvName::SslVerify), Ok(None));
    }

    #[test]
    fn writing() {
        let mut out = Vec::new();
        write_v1(None, &mut out);
        let (v4, v6) = (([1, 2, 3, 4], 5).into(), "[::1]:80".parse().unwrap());
        write_v1(Some((v4, v4)), &mut out);
        write_v1(Some((v6, v6)), &mut out);
        let want =
            "PROXY UNKNOWN\r\nPROXY TCP4 1.2.3.4 1.2.3.4 5 5\r\nPROXY TCP6 ::1 ::1 80 80\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().unwrap();
        for (ends, want) in [
            (None, "nobody 23"),
            (Some((mapped, mapped)), "1.2.3.4:5 > 1.2.3.4:5 35"),
            (Some((v4, v6)), "[::ffff:1.2.3.4]:5 > [::1]:80 59"),
        ] {
            let mut out = Vec::new();
            write_v2(ends, None, &mut out).unwrap();
            assert_eq!(show(&out), want);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(bytes: Vec<u8>, is_v2: bool) {
            let bytes = if is_v2 { v2(0x21, 0x11, &bytes) } else { bytes };
            if let Ok(ProxyRead::Complete { header: Some(header), .. }) = read(&bytes) {
                for name in [TlvName::Top(1), TlvName::Ssl(0x22), TlvName::SslVerify] {
                    let _ = header.tlv(name);
                }
            }
        }

        #[test]
        fn what_is_written_is_read(from: SocketAddr, to: SocketAddr) {
            let clean = |a: SocketAddr| SocketAddr::new(a.ip(), a.port());
            let ends = (clean(from), clean(to));
            let mut out = Vec::new();
            write_v1(Some(ends), &mut out);
            let len = out.len();
            let header = Some(ProxyHeader::new(ends.0, ends.1));
            prop_assert_eq!(read(&out), Ok(ProxyRead::Complete { len, header }));
        }
    }
}
