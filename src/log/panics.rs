//! What a panic leaves behind: a line in the error log.
//!
//! A panic is a bug of ours. It ends the task or job it happened in; the process serves on, so the
//! log is the only place where anybody would see it.

use std::any::Any;
use std::panic::PanicHookInfo;

/// Writes panics of all threads to the log of the process, at level alert, from here on.
pub fn write_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = text(info);
        crate::log::alert!("{text}");
        crate::sys::process::debug_point();
    }));
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let said = message(info.payload());
    match info.location() {
        Some(at) => format!("panic at {}:{}: {said}", at.file(), at.line()),
        None => format!("panic: {said}"),
    }
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_messages_are_read() {
        assert_eq!(message(&"static"), "static");
        assert_eq!(message(&String::from("made")), "made");
        assert_eq!(message(&7), "no message");
    }
}
