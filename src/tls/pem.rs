//! PEM files: labelled base64 blocks between anything (RFC 7468, and OpenSSL's encrypted form of
//! RFC 1421 with its headers).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One `-----BEGIN label-----` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub label: String,
    /// `DEK-Info` of a key encrypted in OpenSSL's traditional way: cipher and IV in hexadecimal.
    pub dek_info: Option<String>,
    pub der: Vec<u8>,
}

/// Why a block cannot be read; the text is OpenSSL's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPem {
    EndLine,
    Base64,
}

impl BadPem {
    pub fn reason(self) -> &'static str {
        match self {
            Self::EndLine => "bad end line",
            Self::Base64 => "bad base64 decode",
        }
    }
}

/// All blocks of a file, in order. Text around them is skipped.
pub fn blocks(text: &[u8]) -> Result<Vec<Block>, BadPem> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim_end);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(label) = bracketed(line, "-----BEGIN ") {
            blocks.push(block(label, &mut lines)?);
        }
    }
    Ok(blocks)
}

/// DER as a PEM block with lines of 64 characters, as OpenSSL writes it.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out + "-----END " + label + "-----\n"
}

fn bracketed<'a>(line: &'a str, open: &str) -> Option<&'a str> {
    line.strip_prefix(open)?.strip_suffix("-----")
}

fn block<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Block, BadPem> {
    let (mut body, mut dek_info) = (String::new(), None);
    for line in lines {
        if let Some(end) = bracketed(line, "-----END ") {
            if end != label {
                return Err(BadPem::EndLine);
            }
            let der = STANDARD.decode(&body).map_err(|_| BadPem::Base64)?;
            return Ok(Block { label: label.to_owned(), dek_info, der });
        }
        match line.split_once(':') {
            Some(("DEK-Info", value)) => dek_info = Some(value.trim().to_owned()),
            Some(_) => {}
            None => body.extend(line.chars().filter(|c| !c.is_whitespace())),
        }
    }
    Err(BadPem::EndLine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_between_text() {
        let file = b"subject=x\n-----BEGIN A B-----\r\nAQID\r\n-----END A B-----\njunk\n\
                     -----BEGIN C-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\nBAU=\n-----END C-----";
        let found = blocks(file).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label.as_str(), &found[0].der[..]), ("A B", &[1, 2, 3][..]));
        assert_eq!(found[1].dek_info.as_deref(), Some("AES-128-CBC,00FF"));
        assert_eq!(found[1].der, [4, 5]);
    }

    #[test]
    fn what_is_broken_is_named_as_openssl_names_it() {
        let fault = |text: &[u8]| blocks(text).unwrap_err().reason();
        assert_eq!(fault(b"-----BEGIN A-----\nAQID\n"), "bad end line");
        assert_eq!(fault(b"-----BEGIN A-----\nAQID\n-----END B-----"), "bad end line");
        assert_eq!(fault(b"-----BEGIN A-----\nA!ID\n-----END A-----"), "bad base64 decode");
        assert_eq!(blocks(b"\xff\x00 no blocks"), Ok(vec![]));
    }

    #[test]
    fn what_is_encoded_decodes_again() {
        let der: Vec<u8> = (0..=255).collect();
        let text = encode("CERTIFICATE", &der);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(blocks(text.as_bytes()).unwrap()[0].der, der);
    }
}
