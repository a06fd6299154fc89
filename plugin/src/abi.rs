//! The C interface, from the plugin's side: types as in `include/tollbar_plugin.h`, in the same
//! order, and the functions that the server calls.

use crate::{Level, Plugin, Refused, Verdict};
use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

const ABI: u32 = 1;
const DECLINE: i32 = 0;
const ALLOW: i32 = 1;
const REPLY: i32 = 2;
const OK: i32 = 0;
const FAILED: i32 = 500;

/// `tollbar_str`
#[derive(Clone, Copy)]
#[repr(C)]
#[doc(hidden)]
pub struct Str {
    data: *const u8,
    len: usize,
}

const ABSENT: Str = Str { data: null(), len: 0 };

const fn str_of(text: &[u8]) -> Str {
    Str { data: text.as_ptr(), len: text.len() }
}

type R = *mut c_void;

/// `tollbar_host`
#[repr(C)]
#[doc(hidden)]
pub struct Host {
    abi: u32,
    size: u32,
    method: extern "C" fn(R) -> Str,
    uri: extern "C" fn(R) -> Str,
    args: extern "C" fn(R) -> Str,
    remote_address: extern "C" fn(R) -> Str,
    request_header: extern "C" fn(R, Str, *mut Str) -> i32,
    response_header: extern "C" fn(R, Str, *mut Str) -> i32,
    response_status: extern "C" fn(R) -> i32,
    variable: extern "C" fn(R, Str, *mut Str) -> i32,
    set_request_header: extern "C" fn(R, Str, Str) -> i32,
    set_response_header: extern "C" fn(R, Str, Str) -> i32,
    set_response_status: extern "C" fn(R, i32) -> i32,
    reply: extern "C" fn(R, i32, Str, Str) -> i32,
    log: extern "C" fn(R, i32, Str),
    dict_get: extern "C" fn(R, Str, Str, *mut Str) -> i32,
    dict_set: extern "C" fn(R, Str, Str, Str, u64) -> i32,
    dict_incr: extern "C" fn(R, Str, Str, f64, f64, u64, *mut f64) -> i32,
    dict_delete: extern "C" fn(R, Str, Str) -> i32,
}

/// `tollbar_plugin_descriptor`
#[repr(C)]
#[doc(hidden)]
pub struct Descriptor {
    abi: u32,
    size: u32,
    name: Str,
    version: Str,
    init: Option<extern "C" fn(*const Str, usize, *mut c_char, usize) -> i32>,
    exit: Option<extern "C" fn()>,
    configure:
        Option<extern "C" fn(*const Str, usize, *mut *mut c_void, *mut c_char, usize) -> i32>,
    free_conf: Option<extern "C" fn(*mut c_void)>,
    rewrite: Option<extern "C" fn(*mut c_void, R) -> i32>,
    access: Option<extern "C" fn(*mut c_void, R) -> i32>,
    header_filter: Option<extern "C" fn(*mut c_void, R) -> i32>,
    log: Option<extern "C" fn(*mut c_void, R)>,
}

/// The server's table; set before anything of a plugin is called.
static HOST: AtomicPtr<Host> = AtomicPtr::new(null_mut());

/// Keeps the server's table and gives the descriptor of `P`.
#[doc(hidden)]
pub fn enter<P: Plugin>(host: *const Host) -> *const Descriptor {
    HOST.store(host.cast_mut(), Ordering::Relaxed);
    Of::<P>::DESCRIPTOR
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn tollbar_plugin(host: *const $crate::Host) -> *const $crate::Descriptor {
            $crate::enter::<$plugin>(host)
        }
    };
}

/// The callbacks of a plugin as the server calls them.
struct Of<P>(PhantomData<P>);

impl<P: Plugin> Of<P> {
    const DESCRIPTOR: &'static Descriptor = &Descriptor {
        abi: ABI,
        size: size_of::<Descriptor>() as u32,
        name: str_of(P::NAME.as_bytes()),
        version: str_of(P::VERSION.as_bytes()),
        init: Some(Self::init),
        exit: None,
        configure: Some(Self::configure),
        free_conf: Some(Self::free_conf),
        rewrite: Some(Self::rewrite),
        access: Some(Self::access),
        header_filter: Some(Self::header_filter),
        log: Some(Self::log),
    };

    extern "C" fn init(args: *const Str, count: usize, error: *mut c_char, size: usize) -> i32 {
        let done = sheltered(|| P::init(&words(args, count)?));
        done.map_or_else(|why| refuse(&why, error, size), |()| OK)
    }

    extern "C" fn configure(
        args: *const Str,
        count: usize,
        conf: *mut *mut c_void,
        error: *mut c_char,
        size: usize,
    ) -> i32 {
        match sheltered(|| P::configure(&words(args, count)?)) {
            Ok(made) => {
                // SAFETY: the server passes a place of its own for the result.
                unsafe { conf.write(Box::into_raw(Box::new(made)).cast()) };
                OK
            }
            Err(why) => refuse(&why, error, size),
        }
    }

    extern "C" fn free_conf(conf: *mut c_void) {
        // SAFETY: it is what `configure` left, and the server gives it back once.
        let conf = unsafe { Box::from_raw(conf.cast::<P>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(conf)));
    }

    extern "C" fn rewrite(conf: *mut c_void, r: R) -> i32 {
        judge(conf, r, P::rewrite)
    }

    extern "C" fn access(conf: *mut c_void, r: R) -> i32 {
        judge(conf, r, P::access)
    }

    extern "C" fn header_filter(conf: *mut c_void, r: R) -> i32 {
        judge(conf, r, P::header_filter)
    }

    extern "C" fn log(conf: *mut c_void, r: R) {
        judge(conf, r, |conf: &P, r| {
            conf.log(r);
            Verdict::Decline
        });
    }
}

/// Runs a callback of a request.
fn judge<P>(conf: *mut c_void, r: R, run: impl FnOnce(&P, &mut Request<'_>) -> Verdict) -> i32 {
    // SAFETY: it is what `configure` left, which lives until `free_conf`; nobody changes it.
    let conf = unsafe { &*conf.cast::<P>() };
    let mut request = Request { r, life: PhantomData };
    match catch_unwind(AssertUnwindSafe(|| run(conf, &mut request))) {
        Ok(Verdict::Decline) => DECLINE,
        Ok(Verdict::Allow) => ALLOW,
        Ok(Verdict::Reply) => REPLY,
        // A number below would be one of the three above.
        Ok(Verdict::Status(status)) => i32::from(status.max(100)),
        Err(_) => {
            request.log(Level::Error, "it panicked");
            FAILED
        }
    }
}

/// Runs what may refuse; a panic is a refusal.
fn sheltered<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked".into()))
}

/// Arguments of a directive, which live as long as the call that has them.
fn words<'a>(args: *const Str, count: usize) -> Result<Vec<&'a str>, String> {
    let word = |n| {
        // SAFETY: the server passes so many texts.
        let word = bytes(unsafe { args.add(n).read() });
        std::str::from_utf8(word).map_err(|_| "an argument is not UTF-8".to_owned())
    };
    (0..count).map(word).collect()
}

fn refuse(why: &str, error: *mut c_char, size: usize) -> i32 {
    let length = why.len().min(size.saturating_sub(1));
    if size > 0 {
        // SAFETY: the server passes room for `size` bytes, and `length + 1` is not more.
        unsafe {
            ptr::copy_nonoverlapping(why.as_ptr(), error.cast(), length);
            error.add(length).write(0);
        }
    }
    1
}

/// What the server hands out; it lives until the callback returns.
fn bytes<'a>(text: Str) -> &'a [u8] {
    match text.data.is_null() {
        true => &[],
        // SAFETY: the server's texts have so many bytes. Who calls has a lifetime that ends with
        // the callback.
        false => unsafe { std::slice::from_raw_parts(text.data, text.len) },
    }
}

fn answer(code: i32) -> Result<(), Refused> {
    match code {
        OK => Ok(()),
        1 => Err(Refused::None),
        2 => Err(Refused::Invalid),
        3 => Err(Refused::NotNow),
        4 => Err(Refused::NoDict),
        5 => Err(Refused::NoRoom),
        other => Err(Refused::Other(other)),
    }
}

/// A request inside one callback, and what the server does for it. Texts live as long as the
/// callback runs.
pub struct Request<'a> {
    r: R,
    life: PhantomData<&'a mut ()>,
}

impl<'a> Request<'a> {
    fn host(&self) -> &'static Host {
        // SAFETY: there is a request, so `enter` was called, with a table that lives as long as
        // this library is loaded. Its first functions are those of this version.
        unsafe { &*HOST.load(Ordering::Relaxed) }
    }

    /// The method's name.
    pub fn method(&self) -> &'a [u8] {
        bytes((self.host().method)(self.r))
    }

    /// The path, decoded and made plain, without arguments.
    pub fn uri(&self) -> &'a [u8] {
        bytes((self.host().uri)(self.r))
    }

    /// What stands behind `?`, as it came.
    pub fn args(&self) -> &'a [u8] {
        bytes((self.host().args)(self.r))
    }

    /// The client's address as text.
    pub fn remote_address(&self) -> &'a [u8] {
        bytes((self.host().remote_address)(self.r))
    }

    /// The first header field of the request of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut value = ABSENT;
        let code = (self.host().request_header)(self.r, str_of(name.as_bytes()), &mut value);
        (code == OK).then(|| bytes(value))
    }

    /// The same of the reply so far.
    pub fn response_header(&self, name: &str) -> Option<&'a [u8]> {
        let mut value = ABSENT;
        let code = (self.host().response_header)(self.r, str_of(name.as_bytes()), &mut value);
        (code == OK).then(|| bytes(value))
    }

    /// The reply's status so far; 0 before there is one.
    pub fn response_status(&self) -> u16 {
        u16::try_from((self.host().response_status)(self.r)).unwrap_or(0)
    }

    /// The variable `$name`.
    pub fn variable(&self, name: &str) -> Option<&'a [u8]> {
        let mut value = ABSENT;
        let code = (self.host().variable)(self.r, str_of(name.as_bytes()), &mut value);
        (code == OK).then(|| bytes(value))
    }

    /// Puts a field of the request in place of all of that name; `None` removes them.
    pub fn set_header(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let (name, value) = (str_of(name.as_bytes()), value.map_or(ABSENT, str_of));
        answer((self.host().set_request_header)(self.r, name, value))
    }

    /// The same of the reply.
    pub fn set_response_header(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let (name, value) = (str_of(name.as_bytes()), value.map_or(ABSENT, str_of));
        answer((self.host().set_response_header)(self.r, name, value))
    }

    /// Gives the reply another status, in `header_filter`.
    pub fn set_response_status(&mut self, status: u16) -> Result<(), Refused> {
        answer((self.host().set_response_status)(self.r, i32::from(status)))
    }

    /// Makes the answer; the callback returns [`Verdict::Reply`] then.
    pub fn reply(
        &mut self,
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(), Refused> {
        let media = content_type.map_or(ABSENT, |media| str_of(media.as_bytes()));
        answer((self.host().reply)(self.r, i32::from(status), media, str_of(body)))
    }

    /// Writes to the error log.
    pub fn log(&self, level: Level, text: &str) {
        (self.host().log)(self.r, level as i32, str_of(text.as_bytes()));
    }

    /// A value of a shared dict.
    pub fn dict_get(&self, dict: &str, key: &[u8]) -> Result<&'a [u8], Refused> {
        let (dict, mut value) = (str_of(dict.as_bytes()), ABSENT);
        answer((self.host().dict_get)(self.r, dict, str_of(key), &mut value))?;
        Ok(bytes(value))
    }

    /// Stores text in a shared dict, for `ttl_ms`; 0 is the dict's timeout, or for ever.
    pub fn dict_set(
        &self,
        dict: &str,
        key: &[u8],
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<(), Refused> {
        let dict = str_of(dict.as_bytes());
        answer((self.host().dict_set)(self.r, dict, str_of(key), str_of(value), ttl_ms))
    }

    /// Adds `by` to a number of a shared dict, or to `start`, which stays for `ttl_ms` then: the
    /// new number.
    pub fn dict_incr(
        &self,
        dict: &str,
        key: &[u8],
        by: f64,
        start: f64,
        ttl_ms: u64,
    ) -> Result<f64, Refused> {
        let (dict, key, mut value) = (str_of(dict.as_bytes()), str_of(key), 0.0);
        answer((self.host().dict_incr)(self.r, dict, key, by, start, ttl_ms, &mut value))?;
        Ok(value)
    }

    /// Removes a key of a shared dict.
    pub fn dict_delete(&self, dict: &str, key: &[u8]) -> Result<(), Refused> {
        answer((self.host().dict_delete)(self.r, str_of(dict.as_bytes()), str_of(key)))
    }
}
