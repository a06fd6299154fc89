//! A plugin that lets nobody in without a certain header field; `include/example_plugin.c` in Rust.
//!
//! ```text
//! keyval_zone zone=seen:1m;
//! load_plugin plugins/libheader_check.so;
//! location /api { plugin header_check X-Api-Key seen; … }
//! ```
//!
//! The first argument is the field's name. The second, if there is one, is a dict in which requests
//! are counted by their path; the reply says in X-Seen how many there were.

use tollbar_plugin::{Level, Plugin, Refused, Request, Verdict, export_plugin};

/// How long a count is kept after its first request.
const COUNT_TTL_MS: u64 = 3_600_000;

/// What one `plugin` line says.
struct HeaderCheck {
    field: String,
    dict: Option<String>,
}

impl Plugin for HeaderCheck {
    const NAME: &'static str = "header_check";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn configure(args: &[&str]) -> Result<HeaderCheck, String> {
        let (field, dict) = match args {
            [field] => (field, None),
            [field, dict] => (field, Some(dict.to_string())),
            _ => return Err("it needs a header's name, and at most a dict behind it".into()),
        };
        Ok(HeaderCheck { field: field.to_string(), dict })
    }

    fn access(&self, r: &mut Request<'_>) -> Verdict {
        if r.header(&self.field).is_none_or(<[u8]>::is_empty) {
            r.log(Level::Info, "a request without the header");
            return Verdict::Status(403);
        }
        let counted = self.dict.as_ref().map(|d| r.dict_incr(d, r.uri(), 1.0, 0.0, COUNT_TTL_MS));
        if counted == Some(Err(Refused::NoDict)) {
            r.log(Level::Error, "there is no such dict");
            return Verdict::Status(500);
        }
        Verdict::Decline
    }

    fn header_filter(&self, r: &mut Request<'_>) -> Verdict {
        if let Some(dict) = &self.dict
            && let Ok(count) = r.dict_get(dict, r.uri())
        {
            // Digits are a field's value.
            let _ = r.set_response_header("X-Seen", Some(count));
        }
        Verdict::Decline
    }
}

export_plugin!(HeaderCheck);
