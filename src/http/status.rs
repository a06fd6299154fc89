//! Status codes: their reason phrases and the pages that explain them.

/// Closes the connection without an answer (nginx's own code).
pub const CLOSE: u16 = 444;
/// A request head that is too large; answered as 400 (nginx's own code).
pub const HEADER_TOO_LARGE: u16 = 494;
/// Client certificate error; answered as 400 (nginx's own code).
pub const CERT_ERROR: u16 = 495;
/// No client certificate; answered as 400 (nginx's own code).
pub const NO_CERT: u16 = 496;
/// Plain HTTP on a TLS port; answered as 400 (nginx's own code).
pub const TO_HTTPS: u16 = 497;
/// The client went away (nginx's own code; only in the log).
pub const CLIENT_CLOSED: u16 = 499;

/// `$nginx_version`: the nginx that this server behaves like.
pub const VERSION: &str = "1.31.5";
/// What `Server` says, and the foot of the pages.
pub const SERVER: &str = concat!("nginx/", "1.31.5");
/// The same with `server_tokens off`.
pub const SERVER_SHORT: &str = "nginx";

/// The reason phrase of the status line; empty for codes that have none.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// The code that the client sees: nginx's own 494–497 are answered as 400.
pub fn on_the_wire(status: u16) -> u16 {
    if (HEADER_TOO_LARGE..=TO_HTTPS).contains(&status) { 400 } else { status }
}

/// The page for `status`, with `foot` under the rule; `None` where nginx sends an empty body.
pub fn page(status: u16, foot: &str) -> Option<Vec<u8>> {
    let (title, extra) = match status {
        301..=303 | 307 | 308 => (phrase(status), ""),
        HEADER_TOO_LARGE => (phrase(400), "Request Header Or Cookie Too Large"),
        CERT_ERROR => (phrase(400), "The SSL certificate error"),
        NO_CERT => (phrase(400), "No required SSL certificate was sent"),
        TO_HTTPS => (phrase(400), "The plain HTTP request was sent to HTTPS port"),
        401 => ("401 Authorization Required".to_owned(), ""),
        400..=599 if !reason(status).is_empty() => (phrase(status), ""),
        _ => return None,
    };
    let note = match extra {
        "" => String::new(),
        text => format!("<center>{text}</center>\r\n"),
    };
    Some(
        format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
             <center><h1>{title}</h1></center>\r\n{note}<hr><center>{foot}</center>\r\n\
             </body>\r\n</html>\r\n"
        )
        .into_bytes(),
    )
}

fn phrase(status: u16) -> String {
    match status {
        302 => "302 Found".to_owned(),
        _ => format!("{status} {}", reason(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let text = |s| page(s, "f").map(|p| String::from_utf8(p).unwrap());
        assert!(text(404).unwrap().contains("<h1>404 Not Found</h1>"));
        assert!(text(302).unwrap().contains("302 Found"));
        assert!(text(497).unwrap().contains("<h1>400 Bad Request</h1>"));
        assert_eq!(text(204), None);
        assert_eq!(text(418), None);
        assert_eq!(on_the_wire(494), 400);
    }
}
