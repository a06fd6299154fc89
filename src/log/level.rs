//! Levels, and the areas that `debug_http` and kin select.

/// How grave a message is; smaller is graver. The numbers are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Emerg = 1,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// From the gravest to the most talkative.
    pub const ALL: [Level; 8] = [
        Level::Emerg,
        Level::Alert,
        Level::Crit,
        Level::Error,
        Level::Warn,
        Level::Notice,
        Level::Info,
        Level::Debug,
    ];

    /// The word in the configuration and in the line.
    pub fn name(self) -> &'static str {
        ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"]
            [self as usize - Level::Emerg as usize]
    }

    pub fn named(word: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == word)
    }
}

/// Which part of the server a debug message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Area {
    Core = 1,
    Alloc = 2,
    Mutex = 4,
    Event = 8,
    Http = 16,
    Mail = 32,
    Stream = 64,
}

const AREAS: [(&str, Area); 7] = [
    ("debug_core", Area::Core),
    ("debug_alloc", Area::Alloc),
    ("debug_mutex", Area::Mutex),
    ("debug_event", Area::Event),
    ("debug_http", Area::Http),
    ("debug_mail", Area::Mail),
    ("debug_stream", Area::Stream),
];
const EVERY_AREA: u8 = 0x7f;

/// What one target takes: everything up to a level, or debug messages of some areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    level: Level,
    areas: u8,
}

impl Levels {
    /// Everything as grave as `level` or graver.
    pub const fn up_to(level: Level) -> Levels {
        let areas = if matches!(level, Level::Debug) { EVERY_AREA } else { 0 };
        Levels { level, areas }
    }

    /// Reads the words after the target of `error_log`; no words mean `error`.
    pub fn parse(words: &[&str]) -> Result<Levels, LevelError> {
        let mut level = None;
        let mut areas = 0;
        for &word in words {
            if let Some(found) = Level::named(word) {
                if level.is_some() || areas != 0 {
                    return Err(LevelError::Duplicate(word.into()));
                }
                level = Some(found);
            } else if let Some((_, area)) = AREAS.iter().find(|(name, _)| *name == word) {
                if level.is_some() {
                    return Err(LevelError::Invalid(word.into()));
                }
                areas |= *area as u8;
            } else {
                return Err(LevelError::Invalid(word.into()));
            }
        }
        match (level, areas) {
            (Some(level), _) => Ok(Levels::up_to(level)),
            (None, 0) => Ok(Levels::up_to(Level::Error)),
            (None, areas) => Ok(Levels { level: Level::Debug, areas }),
        }
    }

    /// The most talkative level that may pass.
    pub fn deepest(self) -> Level {
        self.level
    }

    pub fn allow(self, level: Level, area: Area) -> bool {
        level <= self.level && (level != Level::Debug || self.areas & area as u8 != 0)
    }
}

/// nginx's two sentences about a word that is no level, or one too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    #[error("invalid log level \"{0}\"")]
    Invalid(String),
    #[error("duplicate log level \"{0}\"")]
    Duplicate(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_levels_as_in_nginx() {
        let levels = |text: &str| Levels::parse(&text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(levels(""), Ok(Levels::up_to(Level::Error)));
        assert_eq!(levels("info"), Ok(Levels::up_to(Level::Info)));
        assert_eq!(levels("info warn"), Err(LevelError::Duplicate("warn".into())));
        assert_eq!(levels("loud"), Err(LevelError::Invalid("loud".into())));
        assert_eq!(levels("info debug_http"), Err(LevelError::Invalid("debug_http".into())));
    }

    #[test]
    fn an_area_lets_only_its_own_debug_messages_pass() {
        let some = Levels::parse(&["debug_http", "debug_core"]).unwrap();
        assert!(some.allow(Level::Debug, Area::Http));
        assert!(!some.allow(Level::Debug, Area::Event));
        assert!(some.allow(Level::Info, Area::Event));
        assert!(Levels::up_to(Level::Debug).allow(Level::Debug, Area::Stream));
        assert!(!Levels::up_to(Level::Warn).allow(Level::Notice, Area::Core));
    }
}
