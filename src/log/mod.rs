//! The error log: levels, sinks, reopening.
