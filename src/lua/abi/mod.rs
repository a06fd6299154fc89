//! What Lua calls: the functions that lua-resty-core reaches through ffi, by its names and
//! signatures, and the C functions of the rest of `ngx`.
//!
//! One file per group. An ffi call passes the request's pointer, which nobody follows (see
//! [`vm::with_request`]); all other pointers are those of buffers that lua-resty-core made for the
//! call, with the lengths that stand beside them: that is the contract of the ABI, and the reason
//! of every `unsafe` here.
//!
//! **Invariant:** no panic leaves a function of this folder.

mod apart;
mod balancer;
mod control;
mod copy;
pub mod counts;
mod certificate;
mod client_hello;
mod dict;
mod handle;
mod hash;
mod headers;
mod nginx;
mod output;
mod param;
mod pipe;
mod process;
mod regex;
mod request;
mod semaphore;
mod socket;
mod socket_ffi;
mod socket_udp;
mod ssl;
mod text;
mod thread;
mod time;
mod timer;
mod variables;
mod worker;
mod worker_thread;

use self::apart::Kit;
use super::conf::{Lua, Main};
use super::phase::{self, Phases};
use super::vm::{self, Stack, Value, Vm};
use crate::http::{HttpConf, Request};
use crate::log;
use mlua_sys::lua_CFunction;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// What the functions answer, as lua-resty-core names it.
pub const OK: c_int = 0;
pub const ERROR: c_int = -1;
/// What an ffi function answers that left an operation.
pub const AGAIN: c_int = -2;
pub const DONE: c_int = -4;
pub const DECLINED: c_int = -5;
pub const NO_REQUEST: c_int = -100;
pub const BAD_CONTEXT: c_int = -101;

/// The versions of lua-resty-core's counterpart that the ABI is known to serve: those of
/// lua-resty-core 0.1.25 to 0.1.33.
const VERSIONS: std::ops::RangeInclusive<u32> = 10023..=10033;
/// What is told to a lua-resty-core that does not ask for one of them.
const VERSION: u32 = 10030;
/// From here on `ngx.worker.pids` says for how many there is room.
const VERSION_OF_PIDS_ROOM: u32 = 10024;
/// From here on lua-resty-core speaks of PCRE2.
const VERSION_OF_PCRE2: u32 = 10026;
/// From here on a peer may be given a host.
const VERSION_OF_PEER_HOST: u32 = 10027;

thread_local! {
    /// The configuration in which code runs; none in a thread of `apart`.
    static HOUSE: RefCell<Option<Rc<HttpConf>>> = const { RefCell::new(None) };
    /// What code needs in every thread.
    static KIT: RefCell<Option<Arc<Kit>>> = const { RefCell::new(None) };
    /// The version that lua-resty-core speaks.
    static SPOKEN: Cell<u32> = const { Cell::new(VERSION) };
    /// What was given to Lua by pointer, until the next time.
    static GIVEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_main<T>(f: impl FnOnce(&Main) -> T) -> Option<T> {
    HOUSE.with_borrow(|http| http.as_ref().map(|http| f(http.mains.main::<Lua>())))
}

/// The configuration in which code runs.
pub fn http() -> Option<Rc<HttpConf>> {
    HOUSE.with_borrow(Clone::clone)
}

/// None at the end of the thread, when finalizers may still ask.
fn kit() -> Option<Arc<Kit>> {
    KIT.try_with(|kit| kit.borrow().clone()).ok().flatten()
}

/// Opens the configuration's VM and loads the API into it.
///
/// Errors: the sentence for the log, if lua-resty-core cannot be loaded.
pub fn open(http: &Rc<HttpConf>, main: &Main) -> Result<(), Vec<u8>> {
    let vm = Vm::new(main.memory_limit())?;
    drop(main.vm.set(vm.clone()));
    enter(http, main);
    let kit = kit().ok_or_else(|| b"no configuration".to_vec())?;
    boot(&mut vm.stack(), &kit, [&kit.path, &kit.cpath], false)
}

/// Makes the configuration's VM the one in which code of this process runs.
pub fn enter(http: &Rc<HttpConf>, main: &Main) {
    HOUSE.set(Some(http.clone()));
    log::capture(main.captured_bytes());
    // The one before may have VMs, and closing them runs code of their users.
    drop(KIT.replace(Some(Kit::of(main))));
    main.vm.get().expect("the master has opened it").enter();
}

/// Nobody runs code in this process until somebody enters a VM.
pub fn close() {
    vm::leave();
    KIT.take();
    HOUSE.take();
}

/// Loads the API into a VM. One that is apart has no request, ever.
fn boot(
    stack: &mut Stack,
    kit: &Kit,
    paths: [&Option<Vec<u8>>; 2],
    is_apart: bool,
) -> Result<(), Vec<u8>> {
    let [path, cpath] = paths.map(|text| text.clone().map_or(Value::Nil, Value::Text));
    let dicts = kit.dicts.iter().map(|(name, _)| Value::Text(name.clone().into()));
    let (first, last) = (f64::from(*VERSIONS.start()), f64::from(*VERSIONS.end()));
    // Where there is a VM already, its lua-resty-core has said what it speaks.
    let version = if is_apart { SPOKEN.get() } else { VERSION };
    let versions = [f64::from(version), first, last].map(Value::Number);
    let arguments = [
        path,
        cpath,
        Value::Text(kit.prefix.clone()),
        Value::List(dicts.collect()),
        Value::List(versions.into()),
        Value::Text(env!("CARGO_PKG_VERSION").into()),
        Value::Bool(is_apart),
    ];
    stack.run("=boot", include_str!("../boot.lua"), &all_functions(), &arguments)
}

/// The C functions, as `boot.lua` gets them.
fn all_functions() -> Vec<(&'static str, lua_CFunction)> {
    let groups = [
        client_hello::FUNCTIONS,
        control::FUNCTIONS,
        dict::FUNCTIONS,
        hash::FUNCTIONS,
        output::FUNCTIONS,
        param::FUNCTIONS,
        request::FUNCTIONS,
        thread::FUNCTIONS,
        time::FUNCTIONS,
        socket::FUNCTIONS,
        socket_udp::FUNCTIONS,
        timer::FUNCTIONS,
        worker_thread::FUNCTIONS,
    ];
    groups.concat()
}

/// Whether the phase lets code wait.
fn may_wait() -> Result<(), Vec<u8>> {
    let phase = vm::current_phase();
    match phase & phase::YIELDABLE {
        0 => Err(format!("API disabled in the context of {}", phase::name(phase)).into_bytes()),
        _ => Ok(()),
    }
}

/// Runs `f` for the request if its phase is one of `phases`.
fn in_phase<T>(phases: Phases, f: impl FnOnce(&mut Request) -> T) -> Result<T, Vec<u8>> {
    let phase = vm::current_phase();
    if phases & phase == 0 {
        let message = format!("API disabled in the context of {}", phase::name(phase));
        return Err(message.into());
    }
    vm::with_request(f).ok_or_else(|| b"no request found".to_vec())
}

/// The same, for functions that answer with a number.
fn answer(phases: Phases, f: impl FnOnce(&mut Request) -> c_int) -> c_int {
    match phases & vm::current_phase() {
        0 => BAD_CONTEXT,
        _ => vm::with_request(f).unwrap_or(NO_REQUEST),
    }
}

/// What a function answers if it panicked.
trait Fallback {
    fn fallback() -> Self;
}

macro_rules! fallback {
    ($($kind:ty => $value:expr),*) => {
        $(impl Fallback for $kind { fn fallback() -> $kind { $value } })*
    };
}
fallback!(c_int => ERROR, () => (), usize => 0, isize => -1, u32 => 0, i64 => 0, f64 => 0.0);

impl<T> Fallback for *mut T {
    fn fallback() -> *mut T {
        std::ptr::null_mut()
    }
}
impl<T> Fallback for *const T {
    fn fallback() -> *const T {
        std::ptr::null()
    }
}

/// Runs the body of a function that is reached through ffi. It must not call Lua's API: an error
/// of Lua's would pass through its frames, as [`Runs`](super::memory::Runs) is not changed here.
fn guarded<T: Fallback>(f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
        log::alert!("a panic in a function that Lua called");
        T::fallback()
    })
}

/// Exports functions of the ABI. Their bodies may use the pointers that they were passed.
macro_rules! export {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        #[allow(unused_unsafe)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $kind),*) $(-> $out)? {
            // SAFETY: lua-resty-core's `ffi.cdef` declares the same signature, and its callers
            // pass buffers that live through the call, of the lengths that they pass beside.
            $crate::lua::abi::guarded(move || unsafe { $body })
        }
    )*};
}
use export;

/// Declares C functions of Lua: `name => body`.
macro_rules! functions {
    ($($name:ident => $body:expr;)*) => {
        pub const FUNCTIONS: &[(&str, mlua_sys::lua_CFunction)] = &[$((stringify!($name), {
            unsafe extern "C-unwind" fn call(
                state: *mut mlua_sys::lua_State,
            ) -> $crate::lua::vm::Count {
                // SAFETY: the state is what Lua passes; this is the last act.
                unsafe { $crate::lua::vm::Stack::call(state, $body) }
            }
            $crate::lua::vm::c_function(call)
        })),*];
    };
}
use functions;

/// A string of the ABI with an int as length.
#[repr(C)]
pub struct Str {
    len: c_int,
    data: *const u8,
}

impl Str {
    fn of(bytes: &[u8]) -> Str {
        Str { len: bytes.len().min(c_int::MAX as usize) as c_int, data: bytes.as_ptr() }
    }

    /// # Safety
    /// The string must live while the slice does.
    unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the caller's.
        unsafe { bytes(self.data, self.len.max(0) as usize) }
    }
}

/// # Safety
/// `len` bytes from `data` on must be readable while the slice is used, or `data` null.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    match data.is_null() || len == 0 {
        true => &[],
        // SAFETY: the caller's.
        false => unsafe { std::slice::from_raw_parts(data, len) },
    }
}

/// Writes through a pointer that may be null.
///
/// # Safety
/// `to` must be null or writable.
unsafe fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller's.
        unsafe { to.write(value) }
    }
}

/// Writes as much of a message as its buffer takes.
///
/// # Safety
/// `*len` bytes from `to` on must be writable.
unsafe fn put_message(message: &[u8], to: *mut u8, len: *mut usize) {
    // SAFETY: the caller's; no more is written than fits.
    unsafe {
        let n = message.len().min(*len);
        std::ptr::copy_nonoverlapping(message.as_ptr(), to, n);
        *len = n;
    }
}

/// Keeps `text` until the next call: where it stands.
fn give(text: Vec<u8>) -> (*mut u8, usize) {
    GIVEN.with_borrow_mut(|given| {
        *given = text;
        (given.as_mut_ptr(), given.len())
    })
}

/// The request's pointer as it comes from Lua.
type R = *mut c_void;
/// A static message.
type Message = *mut *const c_char;

/// Reads an argument that must be text or a number.
fn need_text(stack: &mut Stack, at: c_int) -> Result<Vec<u8>, Vec<u8>> {
    let found = stack.kind_name(at);
    stack
        .text(at)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| format!("bad argument #{at} (string expected, got {found})").into_bytes())
}
