//! PROXY protocol headers: any bytes; what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollbar::proto::proxy_protocol::{ProxyHeader, ProxyRead, TlvName, V2_MAX, read, write_v1};

fuzz_target!(|input: &[u8]| {
    let Ok(ProxyRead::Complete { len, header }) = read(input) else { return };
    assert!(len <= input.len() && len <= V2_MAX);
    let Some(header) = header else { return };
    for name in ["alpn", "authority", "0x03", "ssl", "ssl_verify", "ssl_cn", "ssl_0x23"] {
        let _ = header.tlv(TlvName::parse(name).expect("a name that is known"));
    }
    let mut line = Vec::new();
    write_v1(Some((header.source, header.destination)), &mut line);
    let again = ProxyRead::Complete {
        len: line.len(),
        header: Some(ProxyHeader::new(header.source, header.destination)),
    };
    assert_eq!(read(&line), Ok(again));
});
