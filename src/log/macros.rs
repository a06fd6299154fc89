//! One macro per level. `log::warn!("text {}", x)`, or `log::warn!(&ctx, "text {}", x)`.
//!
//! `debug!` belongs to `debug_core`; the others name their area.

#[doc(hidden)]
#[macro_export]
macro_rules! __log_at {
    ($level:ident, $area:ident, $text:literal $($arg:tt)*) => {
        if $crate::log::reaches($crate::log::Level::$level) {
            $crate::log::write(
                $crate::log::Level::$level,
                $crate::log::Area::$area,
                format_args!($text $($arg)*),
            )
        }
    };
    ($level:ident, $area:ident, $ctx:expr, $($arg:tt)+) => {
        if $crate::log::reaches($crate::log::Level::$level) {
            $crate::log::write_for(
                $ctx,
                $crate::log::Level::$level,
                $crate::log::Area::$area,
                format_args!($($arg)+),
            )
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_emerg { ($($arg:tt)+) => { $crate::__log_at!(Emerg, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_alert { ($($arg:tt)+) => { $crate::__log_at!(Alert, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_crit { ($($arg:tt)+) => { $crate::__log_at!(Crit, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($arg:tt)+) => { $crate::__log_at!(Error, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($arg:tt)+) => { $crate::__log_at!(Warn, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_notice { ($($arg:tt)+) => { $crate::__log_at!(Notice, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($arg:tt)+) => { $crate::__log_at!(Info, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($arg:tt)+) => { $crate::__log_at!(Debug, Core, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug_event { ($($arg:tt)+) => { $crate::__log_at!(Debug, Event, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug_http { ($($arg:tt)+) => { $crate::__log_at!(Debug, Http, $($arg)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug_stream { ($($arg:tt)+) => { $crate::__log_at!(Debug, Stream, $($arg)+) }; }

pub use crate::{
    __log_alert as alert, __log_crit as crit, __log_debug as debug,
    __log_debug_event as debug_event, __log_debug_http as debug_http,
    __log_debug_stream as debug_stream, __log_emerg as emerg, __log_error as error,
    __log_info as info, __log_notice as notice, __log_warn as warn,
};
