//! The raw ClientHello, read before anything is chosen for the connection.
//!
//! rustls hides the order of extensions, the legacy version and the point formats, which
//! fingerprints need. So the bytes are read here first, straight from the connection's own buffer,
//! and the same bytes are handed to rustls afterwards. Formats: RFC 8446 section 4.1.2, RFC 5246
//! section 7.4.1.2, RFC 6066 (server name), RFC 7301 (ALPN), RFC 8701 (GREASE).
//!
//! Deliberately absent: any judgement of the offer. What rustls would refuse it refuses later,
//! with the right alert; this file only says what cannot be a ClientHello at all.

/// Most bytes of one ClientHello message, its four header bytes included.
pub const HELLO_MAX: usize = 64 * 1024;

/// Most payload of one plaintext record (RFC 8446 section 5.1).
const RECORD_MAX: usize = 16 * 1024;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// Extension numbers that this program looks into (IANA "TLS ExtensionType Values").
pub mod extension {
    pub const SERVER_NAME: u16 = 0;
    pub const SUPPORTED_GROUPS: u16 = 10;
    pub const EC_POINT_FORMATS: u16 = 11;
    pub const SIGNATURE_ALGORITHMS: u16 = 13;
    pub const ALPN: u16 = 16;
    pub const SUPPORTED_VERSIONS: u16 = 43;
}

/// What the first byte of a connection to an `ssl` port says (nginx draws the line here too).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A TLS handshake record, or an SSLv2 hello, which rustls refuses.
    Tls,
    /// Anything else: plain HTTP sent to the wrong port, answered by HTTP with status 497.
    Plain,
}

impl Opening {
    pub fn of(first: u8) -> Self {
        if first == 0x16 || first & 0x80 != 0 { Self::Tls } else { Self::Plain }
    }
}

/// Why the bytes are not the beginning of a TLS handshake. Always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHello {
    #[error("wrong version number")]
    NotTls,
    #[error("unexpected message")]
    OtherMessage,
    #[error("length mismatch")]
    Malformed,
    #[error("excessive message size")]
    TooLarge,
}

impl NotHello {
    /// The TLS alert that answers it: unexpected_message, decode_error, protocol_version.
    pub fn alert(self) -> u8 {
        match self {
            Self::OtherMessage => 10,
            Self::Malformed | Self::TooLarge => 50,
            Self::NotTls => 70,
        }
    }
}

/// Finds the ClientHello in what a connection has sent so far.
///
/// Call [`HelloReader::advance`] with *all* bytes received from the connection's first byte on,
/// each time there are more; once it says `true`, [`HelloReader::hello`] gives the message. A hello
/// in one record (nearly all) is parsed where it lies; one that is split over records is gathered
/// incrementally, so that feeding it byte by byte costs no more than its length.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// Bytes of the input that whole records have taken.
    walked: usize,
    /// The message so far, when it needs more than one record.
    gathered: Vec<u8>,
    whole_in_first_record: bool,
}

impl HelloReader {
    /// Whether the hello is complete. `input` must begin with the connection's first byte.
    pub fn advance(&mut self, input: &[u8]) -> Result<bool, NotHello> {
        if self.whole_in_first_record {
            return Ok(true);
        }
        loop {
            if self.gathered.len() >= MESSAGE_HEADER
                && self.gathered.len() >= message_len(&self.gathered)?
            {
                return Ok(true);
            }
            let Some(fragment) = next_fragment(input, self.walked)? else { return Ok(false) };
            if self.walked == 0
                && fragment.len() >= MESSAGE_HEADER
                && fragment.len() >= message_len(fragment)?
            {
                self.whole_in_first_record = true;
                return Ok(true);
            }
            self.gathered.extend_from_slice(fragment);
            self.walked += RECORD_HEADER + fragment.len();
            check_type(&self.gathered)?;
            if self.gathered.len() > HELLO_MAX + RECORD_MAX {
                return Err(NotHello::TooLarge);
            }
        }
    }

    /// The hello, after [`HelloReader::advance`] said `true` for the same input.
    pub fn hello<'a>(&'a self, input: &'a [u8]) -> Result<ClientHello<'a>, NotHello> {
        let message = if self.whole_in_first_record {
            next_fragment(input, 0)?.ok_or(NotHello::Malformed)?
        } else {
            &self.gathered
        };
        let len = message_len(message)?;
        ClientHello::parse(message.get(..len).ok_or(NotHello::Malformed)?)
    }
}

/// The payload of the record at `at`, `None` while it is incomplete.
fn next_fragment(input: &[u8], at: usize) -> Result<Option<&[u8]>, NotHello> {
    let rest = input.get(at..).unwrap_or_default();
    match rest.first() {
        None => return Ok(None),
        Some(0x16) => {}
        Some(_) if at == 0 => return Err(NotHello::NotTls),
        Some(_) => return Err(NotHello::OtherMessage),
    }
    if rest.get(1).is_some_and(|&major| major != 3) {
        return Err(NotHello::NotTls);
    }
    let Some(header) = rest.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if len == 0 || len > RECORD_MAX {
        return Err(NotHello::Malformed);
    }
    Ok(rest.get(RECORD_HEADER..RECORD_HEADER + len))
}

fn check_type(message: &[u8]) -> Result<(), NotHello> {
    match message.first() {
        Some(1) | None => Ok(()),
        Some(_) => Err(NotHello::OtherMessage),
    }
}

/// Whole length of the message that begins `bytes`, header included.
fn message_len(bytes: &[u8]) -> Result<usize, NotHello> {
    check_type(bytes)?;
    let Some(&[_, a, b, c]) = bytes.first_chunk::<MESSAGE_HEADER>() else {
        return Err(NotHello::Malformed);
    };
    let len = MESSAGE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
    if len > HELLO_MAX { Err(NotHello::TooLarge) } else { Ok(len) }
}

/// One ClientHello, as the client wrote it; everything borrows from the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct ClientHello<'a> {
    /// The whole handshake message, header included.
    pub message: &'a [u8],
    /// `legacy_version`: 0x0303 for all modern clients.
    pub version: u16,
    pub random: &'a [u8; 32],
    pub session_id: &'a [u8],
    /// Cipher suites in the client's order, GREASE and SCSVs included.
    pub ciphers: Codes<'a>,
    pub compressions: &'a [u8],
    extensions: &'a [u8],
    /// Host name of the server_name extension, exactly as sent. `None`: no such extension, or
    /// one without a usable host name.
    pub server_name: Option<&'a [u8]>,
    pub alpn: Protocols<'a>,
    pub versions: Codes<'a>,
    pub groups: Codes<'a>,
    pub point_formats: &'a [u8],
    pub signature_algorithms: Codes<'a>,
}

impl<'a> ClientHello<'a> {
    /// Parses one whole handshake message (header included).
    pub fn parse(message: &'a [u8]) -> Result<Self, NotHello> {
        check_type(message)?;
        let mut body = Cut(message.get(MESSAGE_HEADER..).ok_or(NotHello::Malformed)?);
        let mut hello = ClientHello {
            message,
            version: body.u16()?,
            random: body.array()?,
            session_id: body.vec8()?,
            ciphers: Codes(body.vec16()?),
            compressions: body.vec8()?,
            extensions: if body.0.is_empty() { &[] } else { body.vec16()? },
            server_name: None,
            alpn: Protocols(&[]),
            versions: Codes(&[]),
            groups: Codes(&[]),
            point_formats: &[],
            signature_algorithms: Codes(&[]),
        };
        if !body.0.is_empty()
            || hello.session_id.len() > 32
            || !hello.ciphers.0.len().is_multiple_of(2)
        {
            return Err(NotHello::Malformed);
        }
        let mut rest = Cut(hello.extensions);
        while !rest.0.is_empty() {
            let (kind, data) = (rest.u16()?, rest.vec16()?);
            hello.look_into(kind, data)?;
        }
        Ok(hello)
    }

    fn look_into(&mut self, kind: u16, data: &'a [u8]) -> Result<(), NotHello> {
        let mut data = Cut(data);
        match kind {
            extension::SERVER_NAME => self.server_name = host_name(data)?,
            extension::SUPPORTED_GROUPS => self.groups = data.codes16()?,
            extension::EC_POINT_FORMATS => self.point_formats = data.vec8()?,
            extension::SIGNATURE_ALGORITHMS => self.signature_algorithms = data.codes16()?,
            extension::ALPN => self.alpn = Protocols::checked(data.vec16()?)?,
            extension::SUPPORTED_VERSIONS => {
                let list = data.vec8()?;
                if !list.len().is_multiple_of(2) {
                    return Err(NotHello::Malformed);
                }
                self.versions = Codes(list);
            }
            _ => {}
        }
        Ok(())
    }

    /// The extensions in wire order: number and contents.
    pub fn extensions(&self) -> impl Iterator<Item = (u16, &'a [u8])> + Clone + use<'a> {
        let mut rest = Cut(self.extensions);
        std::iter::from_fn(move || Some((rest.u16().ok()?, rest.vec16().ok()?)))
    }

    /// Contents of one extension.
    pub fn extension(&self, kind: u16) -> Option<&'a [u8]> {
        self.extensions().find(|(k, _)| *k == kind).map(|(_, data)| data)
    }

    /// Whether the client speaks TLS 1.3 (`supported_versions` names it).
    pub fn offers_tls13(&self) -> bool {
        self.versions.iter().any(|v| v == 0x0304)
    }
}

/// The first host_name entry. An empty list or name is malformed, as OpenSSL has it.
fn host_name(mut data: Cut<'_>) -> Result<Option<&[u8]>, NotHello> {
    if data.0.is_empty() {
        return Ok(None);
    }
    let mut list = Cut(data.vec16()?);
    while !list.0.is_empty() {
        let (kind, name) = (list.u8()?, list.vec16()?);
        if kind == 0 {
            return if name.is_empty() { Err(NotHello::Malformed) } else { Ok(Some(name)) };
        }
    }
    Ok(None)
}

/// A list of 16-bit code points as it lies on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes<'a>(&'a [u8]);

impl<'a> Codes<'a> {
    pub fn iter(self) -> impl Iterator<Item = u16> + Clone + use<'a> {
        self.0.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    pub fn len(self) -> usize {
        self.0.len() / 2
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The protocols of an ALPN extension, the client's favourite first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols<'a>(&'a [u8]);

impl<'a> Protocols<'a> {
    fn checked(list: &'a [u8]) -> Result<Self, NotHello> {
        let mut rest = Cut(list);
        while !rest.0.is_empty() {
            rest.vec8()?;
        }
        Ok(Self(list))
    }

    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Cut(self.0);
        std::iter::from_fn(move || rest.vec8().ok())
    }
}

/// RFC 8701: values that clients send to keep servers tolerant; they say nothing.
pub fn is_grease(code: u16) -> bool {
    code & 0x0f0f == 0x0a0a && code >> 8 == code & 0xff
}

/// Cuts length-prefixed fields off the front of a slice.
#[derive(Clone)]
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NotHello> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(NotHello::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], NotHello> {
        self.take(N)?.first_chunk().ok_or(NotHello::Malformed)
    }

    fn u8(&mut self) -> Result<u8, NotHello> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn u16(&mut self) -> Result<u16, NotHello> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn vec8(&mut self) -> Result<&'a [u8], NotHello> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    fn vec16(&mut self) -> Result<&'a [u8], NotHello> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn codes16(&mut self) -> Result<Codes<'a>, NotHello> {
        let list = self.vec16()?;
        if list.len().is_multiple_of(2) { Ok(Codes(list)) } else { Err(NotHello::Malformed) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A hello message with the given extensions, wrapped in a single record by [`record`].
    pub(crate) fn message(version: u16, ciphers: &[u16], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(u16::try_from(ciphers.len() * 2).unwrap().to_be_bytes());
        body.extend(ciphers.iter().flat_map(|c| c.to_be_bytes()));
        body.extend([1, 0]);
        let block: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, data)| {
                let len = u16::try_from(data.len()).unwrap();
                [&kind.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
            })
            .collect();
        body.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        body.extend(block);
        let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        message[0] = 1;
        message.extend(body);
        message
    }

    pub(crate) fn record(payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1, len[0], len[1]], payload].concat()
    }

    pub(crate) fn sni(name: &str) -> (u16, Vec<u8>) {
        let len = u16::try_from(name.len()).unwrap();
        let entry = [&[0][..], &len.to_be_bytes(), name.as_bytes()].concat();
        (0, [&(len + 3).to_be_bytes()[..], &entry].concat())
    }

    pub(crate) fn list16(codes: &[u16]) -> Vec<u8> {
        let mut out = u16::try_from(codes.len() * 2).unwrap().to_be_bytes().to_vec();
        out.extend(codes.iter().flat_map(|c| c.to_be_bytes()));
        out
    }

    fn sample() -> Vec<u8> {
        let extensions = [
            (0x5a5a, vec![]),
            sni("shop.example"),
            (16, b"\0\x0c\x02h2\x08http/1.1".to_vec()),
            (43, vec![6, 0x1a, 0x1a, 3, 4, 3, 3]),
            (10, list16(&[0x2a2a, 29, 23])),
            (11, vec![1, 0]),
            (13, list16(&[0x0403, 0x0804])),
        ];
        message(0x0303, &[0x3a3a, 0x1301, 0xc02b], &extensions)
    }

    fn check(hello: &ClientHello<'_>) {
        assert_eq!(hello.version, 0x0303);
        assert_eq!(hello.server_name, Some(&b"shop.example"[..]));
        assert_eq!(hello.ciphers.iter().collect::<Vec<_>>(), [0x3a3a, 0x1301, 0xc02b]);
        assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        assert_eq!(hello.groups.iter().collect::<Vec<_>>(), [0x2a2a, 29, 23]);
        assert_eq!(hello.point_formats, [0]);
        assert_eq!(hello.signature_algorithms.iter().collect::<Vec<_>>(), [0x0403, 0x0804]);
        let order: Vec<u16> = hello.extensions().map(|(kind, _)| kind).collect();
        assert_eq!(order, [0x5a5a, 0, 16, 43, 10, 11, 13]);
        assert!(hello.offers_tls13());
        assert_eq!(hello.extension(11), Some(&[1, 0][..]));
    }

    #[test]
    fn one_record_is_read_in_place() {
        let input = record(&sample());
        let mut reader = HelloReader::default();
        assert_eq!(reader.advance(&input), Ok(true));
        assert!(reader.gathered.is_empty());
        check(&reader.hello(&input).unwrap());
    }

    #[test]
    fn every_prefix_is_incomplete_and_never_an_error() {
        let input = record(&sample());
        for end in 0..input.len() {
            assert_eq!(HelloReader::default().advance(&input[..end]), Ok(false), "{end}");
        }
    }

    #[test]
    fn records_and_reads_may_split_anywhere() {
        let whole = sample();
        for size in [1, 2, 3, 5, 100] {
            let input: Vec<u8> = whole.chunks(size).flat_map(record).collect();
            let mut reader = HelloReader::default();
            for end in 0..input.len() {
                assert_eq!(reader.advance(&input[..end]), Ok(false), "{size} {end}");
            }
            assert_eq!(reader.advance(&input), Ok(true));
            check(&reader.hello(&input).unwrap());
        }
    }

    #[test]
    fn what_follows_the_hello_is_left_alone() {
        let mut input = record(&[sample(), vec![20, 0, 0, 1, 1]].concat());
        input.extend([0x17, 3, 3, 0, 9]);
        let mut reader = HelloReader::default();
        assert_eq!(reader.advance(&input), Ok(true));
        check(&reader.hello(&input).unwrap());
    }

    #[test]
    fn other_bytes_are_named() {
        let fault = |input: &[u8]| {
            let mut reader = HelloReader::default();
            reader.advance(input).and_then(|_| reader.hello(input).map(|_| ())).unwrap_err()
        };
        assert_eq!(fault(b"GET / HTTP/1.1\r\n"), NotHello::NotTls);
        assert_eq!(fault(&[0x80, 0x2e, 1, 3, 1]), NotHello::NotTls);
        assert_eq!(fault(&[0x16, 2, 0]), NotHello::NotTls);
        assert_eq!(fault(&record(&[2, 0, 0, 0])), NotHello::OtherMessage);
        assert_eq!(fault(&[0x16, 3, 1, 0, 0]), NotHello::Malformed);
        assert_eq!(fault(&[0x16, 3, 1, 0x40, 1]), NotHello::Malformed);
        assert_eq!(fault(&record(&[1, 1, 0, 0, 3, 3])), NotHello::TooLarge);
        assert_eq!(fault(&record(&[1, 0, 0, 2, 3, 3])), NotHello::Malformed);
        let split = [record(&sample()[..9]), vec![0x15, 3, 1, 0, 2]].concat();
        assert_eq!(fault(&split), NotHello::OtherMessage);
        let odd = message(0x0303, &[1], &[(10, vec![0, 3, 0, 1, 2])]);
        assert_eq!(fault(&record(&odd)), NotHello::Malformed);
    }

    #[test]
    fn a_hello_without_extensions_is_whole() {
        let mut bytes = message(0x0301, &[4, 5], &[]);
        bytes.truncate(bytes.len() - 2);
        bytes[3] -= 2;
        let hello = ClientHello::parse(&bytes).unwrap();
        assert_eq!((hello.version, hello.extensions().count()), (0x0301, 0));
    }

    #[test]
    fn grease_is_known() {
        let grease: Vec<u16> = (0..=u16::MAX).filter(|c| is_grease(*c)).collect();
        assert_eq!(grease.len(), 16);
        assert!(grease.contains(&0x0a0a) && grease.contains(&0xfafa));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = HelloReader::default();
            if let Ok(true) = reader.advance(&bytes) {
                let _ = reader.hello(&bytes);
            }
            let _ = ClientHello::parse(&[&[1, 0, 0, 0], &bytes[..]].concat());
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0usize..200, to in any::<u8>(), cut in 1usize..90) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = to;
            let input: Vec<u8> = bytes.chunks(cut).flat_map(record).collect();
            let mut reader = HelloReader::default();
            if let Ok(true) = reader.advance(&input)
                && let Ok(hello) = reader.hello(&input)
            {
                hello.extensions().count();
                hello.alpn.iter().count();
            }
        }
    }
}
