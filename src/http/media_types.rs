//! A set of media types: `gzip_types`, `sub_filter_types`, `charset_types` and kin.

use super::Reply;
use crate::conf::{Reading, Reason};
use std::collections::HashSet;

/// The media types that a filter works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// `*`
    Any,
    /// These, in lower case.
    Some(HashSet<Box<str>>),
}

impl MediaTypes {
    /// The types that a filter works on where nothing is said.
    pub fn of(types: &[&str]) -> MediaTypes {
        MediaTypes::Some(types.iter().map(|t| Box::from(*t)).collect())
    }

    /// Reads `…_types type … | *` into `set`; `always` is in every set.
    pub fn read(
        set: &mut Option<MediaTypes>,
        always: &[&str],
        r: &mut Reading,
    ) -> Result<(), Reason> {
        let mut types = match set.take() {
            Some(MediaTypes::Some(types)) => types,
            Some(MediaTypes::Any) => {
                *set = Some(MediaTypes::Any);
                return Ok(());
            }
            None => always.iter().map(|t| Box::from(*t)).collect(),
        };
        for word in r.take_args() {
            if word == "*" {
                *set = Some(MediaTypes::Any);
                return Ok(());
            }
            let media: Box<str> = word.to_ascii_lowercase().into();
            if !types.insert(media) {
                r.warn(format!("duplicate MIME type \"{}\"", word.to_ascii_lowercase()));
            }
        }
        *set = Some(MediaTypes::Some(types));
        Ok(())
    }

    /// Whether the reply's type is one of them; its parameters do not matter.
    pub fn holds(&self, reply: &Reply) -> bool {
        let types = match self {
            MediaTypes::Any => return true,
            MediaTypes::Some(types) => types,
        };
        let Some(media) = reply.content_type.as_deref() else { return false };
        let media = media.split(';').next().unwrap_or(media).trim_end();
        types.contains(media)
            || media.bytes().any(|b| b.is_ascii_uppercase())
                && types.contains(&*media.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_without_parameters() {
        let holds = |set: &MediaTypes, media: Option<&str>| {
            set.holds(&Reply { content_type: media.map(Into::into), ..Reply::default() })
        };
        let set = MediaTypes::of(&["text/html", "text/css"]);
        assert!(holds(&set, Some("text/css")));
        assert!(holds(&set, Some("Text/HTML; charset=x")));
        assert!(!holds(&set, Some("text/plain")));
        assert!(!holds(&set, None));
        assert!(holds(&MediaTypes::Any, None));
    }
}
