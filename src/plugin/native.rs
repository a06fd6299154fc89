//! The C side: a library's file mapped, its descriptor read, its callbacks called, and the table of
//! functions that it calls. `include/tollbar_plugin.h` is the contract; what is `repr(C)` here
//! stands there in the same order.
//!
//! A library is loaded from a sealed copy of its file in memory. So nobody changes what is mapped,
//! and the loader, which knows libraries by their names, takes no two generations for one.
//!
//! **Invariant:** what a plugin gives is checked for what can be checked (versions, NULL, numbers)
//! before it is used, and no panic of ours leaves a function that C calls.

use super::call::{Answer, Call, Stage, blame, one_line};
use crate::conf::os_error;
use crate::log::{self, Area, Level, Raw};
use crate::sys::file;
use crate::sys::process::{self, Ended};
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::rc::Rc;

/// `TOLLBAR_PLUGIN_ABI`
pub const ABI: u32 = 1;
/// Bytes of a name or a version.
const NAME_MAX_BYTES: usize = 64;
/// Bytes of what a plugin says when it refuses, NUL included.
const ERROR_BYTES: usize = 512;
/// Bytes of a path in a mapping's name.
const MAPPING_NAME_MAX_BYTES: usize = 200;

/// `tollbar_str`
#[derive(Clone, Copy)]
#[repr(C)]
struct Str {
    data: *const u8,
    len: usize,
}

/// `tollbar_request *`: a [`Call`].
type R = *mut c_void;
type Init = extern "C" fn(*const Str, usize, *mut c_char, usize) -> i32;
type Configure = extern "C" fn(*const Str, usize, *mut *mut c_void, *mut c_char, usize) -> i32;
type Judge = extern "C" fn(*mut c_void, R) -> i32;

/// `tollbar_plugin_descriptor`
#[derive(Clone, Copy)]
#[repr(C)]
struct Descriptor {
    abi: u32,
    size: u32,
    name: Str,
    version: Str,
    init: Option<Init>,
    exit: Option<extern "C" fn()>,
    configure: Option<Configure>,
    free_conf: Option<extern "C" fn(*mut c_void)>,
    rewrite: Option<Judge>,
    access: Option<Judge>,
    header_filter: Option<Judge>,
    log: Option<extern "C" fn(*mut c_void, R)>,
}

/// A loaded plugin.
pub struct Plugin {
    pub name: String,
    pub version: String,
    descriptor: Descriptor,
    is_begun: bool,
    /// Last: everything above is in it.
    _library: Library,
}

impl Plugin {
    /// Loads `path` and begins the plugin with these arguments, unless that ends a process.
    pub fn load(path: &Path, args: &[String]) -> Result<Plugin, String> {
        let copy = copy_of(path)?;
        rehearse(&format!("loading \"{}\"", path.display()), || {
            let plugin = copy.try_clone().map(|copy| Plugin::load_from(copy, path, args));
            std::mem::forget(plugin);
        })?;
        Plugin::load_from(copy, path, args)
    }

    fn load_from(copy: OwnedFd, path: &Path, args: &[String]) -> Result<Plugin, String> {
        let library = Library::open(copy, path)?;
        let descriptor = describe(&library, path)?;
        let told = |what: &str| format!("plugin \"{}\" {what}", path.display());
        // SAFETY: a descriptor of our version has its texts, which live as long as the library.
        let (name, version) = unsafe { (text(descriptor.name), text(descriptor.version)) };
        let name = name.filter(|name| is_name(name)).ok_or_else(|| told("has no usable name"))?;
        let is_printable = |c: char| !c.is_control();
        let version = version.filter(|v| v.len() <= NAME_MAX_BYTES && v.chars().all(is_printable));
        let version = version.ok_or_else(|| told("has no usable version"))?;
        let mut plugin = Plugin { name, version, descriptor, is_begun: false, _library: library };
        plugin.begin(args)?;
        plugin.is_begun = true;
        Ok(plugin)
    }

    fn begin(&self, args: &[String]) -> Result<(), String> {
        match self.descriptor.init {
            None if args.is_empty() => Ok(()),
            None => Err(format!("plugin \"{}\" takes no arguments of \"load_plugin\"", self.name)),
            Some(init) => {
                let args = strs(args);
                let says = refusable(|error, size| init(args.as_ptr(), args.len(), error, size));
                says.map_err(|why| format!("plugin \"{}\" refused to start: {why}", self.name))
            }
        }
    }

    /// Configures the plugin for one place, unless that ends a process.
    pub fn configure(self: &Rc<Plugin>, args: &[String]) -> Result<Conf, String> {
        rehearse(&format!("configuring plugin \"{}\"", self.name), || {
            std::mem::forget(self.configure_here(args));
        })?;
        self.configure_here(args)
    }

    fn configure_here(self: &Rc<Plugin>, args: &[String]) -> Result<Conf, String> {
        let mut conf = null_mut();
        match self.descriptor.configure {
            None if args.is_empty() => {}
            None => return Err(format!("plugin \"{}\" takes no configuration", self.name)),
            Some(configure) => {
                let args = strs(args);
                let (start, count) = (args.as_ptr(), args.len());
                let says = refusable(|error, size| configure(start, count, &mut conf, error, size));
                says.map_err(|why| format!("plugin \"{}\" refused: {why}", self.name))?;
            }
        }
        Ok(Conf { plugin: self.clone(), conf })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(exit) = self.descriptor.exit.filter(|_| self.is_begun) {
            exit();
        }
    }
}

/// A plugin's configuration for one place.
pub struct Conf {
    plugin: Rc<Plugin>,
    /// The plugin's own; never looked at.
    conf: *mut c_void,
}

impl Conf {
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Whether the plugin has such a callback.
    pub fn takes_part(&self, stage: Stage) -> bool {
        match stage {
            Stage::Log => self.plugin.descriptor.log.is_some(),
            _ => self.judge_of(stage).is_some(),
        }
    }

    /// Calls the callback; what it returned.
    pub fn ask(&self, call: &mut Call<'_>) -> i32 {
        let (stage, r) = (call.stage, std::ptr::from_mut(call).cast());
        match (self.judge_of(stage), self.plugin.descriptor.log) {
            (Some(judge), _) => judge(self.conf, r),
            (None, Some(log)) if stage == Stage::Log => {
                log(self.conf, r);
                0
            }
            _ => 0,
        }
    }

    fn judge_of(&self, stage: Stage) -> Option<Judge> {
        let descriptor = &self.plugin.descriptor;
        match stage {
            Stage::Rewrite => descriptor.rewrite,
            Stage::Access => descriptor.access,
            Stage::HeaderFilter => descriptor.header_filter,
            Stage::Log => None,
        }
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        if let Some(free_conf) = self.plugin.descriptor.free_conf.filter(|_| !self.conf.is_null()) {
            free_conf(self.conf);
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_part) && name != "off"
}

/// Does in a copy of this process what a broken library does not survive: a crash refuses the
/// configuration then, and the master lives on. With threads around there is no rehearsal.
fn rehearse(what: &str, task: impl FnOnce()) -> Result<(), String> {
    match process::rehearse(task) {
        Ok(None) | Err(_) => Ok(()),
        Ok(Some(Ended::Killed { signal, .. })) => {
            Err(format!("{what} ends the process with signal {signal}"))
        }
        Ok(Some(Ended::Exited(code))) => Err(format!("{what} ends the process with code {code}")),
    }
}

/// Gets the descriptor of a library.
fn describe(library: &Library, path: &Path) -> Result<Descriptor, String> {
    let told = |what: String| format!("plugin \"{}\" {what}", path.display());
    let entry = library.symbol(c"tollbar_plugin").map_err(|why| {
        format!("dlsym() \"{}\", \"tollbar_plugin\" failed ({why})", path.display())
    })?;
    // SAFETY: a library that exports this name promises the header's type with it.
    let entry = unsafe {
        std::mem::transmute::<NonNull<c_void>, extern "C" fn(*const Host) -> *const Descriptor>(
            entry,
        )
    };
    let found = entry(&HOST);
    if found.is_null() || !found.is_aligned() {
        return Err(told("has no descriptor".into()));
    }
    // SAFETY: every version of the descriptor begins with its version, and it is not NULL and
    // aligned (checked above).
    let abi = unsafe { (*found).abi };
    if abi != ABI {
        return Err(told(format!("has ABI version {abi}, this server has {ABI}")));
    }
    // SAFETY: this version has a size behind it.
    let size = unsafe { (*found).size };
    if (size as usize) < size_of::<Descriptor>() {
        return Err(told(format!("has a descriptor of {size} bytes, which is too short")));
    }
    // SAFETY: so many bytes are there (checked above). A function is NULL, which is `None`, or one
    // of the type that the header says.
    Ok(unsafe { *found })
}

/// Arguments as C sees them; they are borrowed.
fn strs(args: &[String]) -> Vec<Str> {
    args.iter().map(|arg| Str { data: arg.as_ptr(), len: arg.len() }).collect()
}

/// Calls what may refuse and says why in a buffer.
fn refusable(run: impl FnOnce(*mut c_char, usize) -> i32) -> Result<(), String> {
    let mut error = [0u8; ERROR_BYTES];
    if run(error.as_mut_ptr().cast(), ERROR_BYTES) == 0 {
        return Ok(());
    }
    let end = error.iter().position(|byte| *byte == 0).unwrap_or(ERROR_BYTES);
    match &error[..end] {
        [] => Err("it does not say why".into()),
        why => Err(Raw(&one_line(why)).to_string()),
    }
}

// ---- the library ---------------------------------------------------------------------------

/// A library in memory.
struct Library {
    handle: NonNull<c_void>,
    /// What the loader knows it by: a path to the copy's descriptor.
    name: CString,
    copy: Option<OwnedFd>,
}

/// A copy of a file in memory.
fn copy_of(path: &Path) -> Result<OwnedFd, String> {
    let shown = path.display();
    let failed =
        |what: &str, e: std::io::Error| format!("{what} \"{shown}\" failed ({})", os_error(&e));
    let facts = file::facts(path).map_err(|e| failed("open()", e))?;
    if !facts.is_file() {
        return Err(format!("\"{shown}\" is not a file"));
    }
    let bytes = std::fs::read(path).map_err(|e| failed("open()", e))?;
    file::sealed_copy(&mapping_name(path), &bytes).map_err(|e| failed("memfd_create() of", e))
}

impl Library {
    fn open(copy: OwnedFd, path: &Path) -> Result<Library, String> {
        let shown = path.display();
        let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let c_name = CString::new(name.as_str()).expect("no NUL in a number");
        // SAFETY: the name ends in NUL. What the library does when it is loaded is the plugin's.
        let handle = unsafe { libc::dlopen(c_name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| {
            let why = loader_error().replace(&name, &shown.to_string());
            format!("dlopen() \"{shown}\" failed ({why})")
        })?;
        Ok(Library { handle, name: c_name, copy: Some(copy) })
    }

    fn symbol(&self, name: &CStr) -> Result<NonNull<c_void>, String> {
        // SAFETY: the handle is open for as long as we are, and the name ends in NUL.
        let found = unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) };
        NonNull::new(found).ok_or_else(|| loader_error().replace("/proc/self/fd/", "copy "))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and whoever has a function of the library keeps us.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
        // SAFETY: the name ends in NUL; with NOLOAD nothing is loaded.
        let left = unsafe { libc::dlopen(self.name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !left.is_null() {
            // SAFETY: it was opened just now.
            unsafe { libc::dlclose(left) };
            // It did not leave. Its name must not become another one's, so the descriptor stays.
            std::mem::forget(self.copy.take());
        }
    }
}

/// What `/proc/…/maps` calls the copy.
fn mapping_name(path: &Path) -> CString {
    let file = path.file_name().unwrap_or_default().as_encoded_bytes();
    let file = &file[..file.len().min(MAPPING_NAME_MAX_BYTES)];
    CString::new([b"plugin:", file].concat()).unwrap_or_default()
}

fn loader_error() -> String {
    // SAFETY: this process has one thread that loads libraries, so the text is ours until the next
    // call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown error".into();
    }
    // SAFETY: it is not NULL (checked above) and ends in NUL.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

// ---- what C passes -------------------------------------------------------------------------

/// The bytes of a text; `None`, noted as the plugin's fault, if it is NULL with a length.
///
/// # Safety
/// So many bytes are there, and live as long as `'a`.
unsafe fn bytes<'a>(text: Str) -> Option<&'a [u8]> {
    match (text.data.is_null(), text.len) {
        (_, 0) => Some(&[]),
        (false, len) if isize::try_from(len).is_ok() => {
            // SAFETY: it is not NULL and not too long (checked here); the rest is the caller's.
            Some(unsafe { std::slice::from_raw_parts(text.data, len) })
        }
        _ => {
            blame("passed a text that is NULL or too long");
            None
        }
    }
}

/// # Safety
/// As [`bytes`], for the call.
unsafe fn text(text: Str) -> Option<String> {
    // SAFETY: the caller's.
    let text = unsafe { bytes(text) }?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// A value that may be absent: NULL without a length.
///
/// # Safety
/// As [`bytes`].
unsafe fn optional<'a>(text: Str) -> Option<Option<&'a [u8]>> {
    match (text.data.is_null(), text.len) {
        (true, 0) => Some(None),
        // SAFETY: the caller's.
        _ => unsafe { bytes(text) }.map(Some),
    }
}

/// Runs a function of the host for the call that `r` is.
fn within<T>(r: R, otherwise: T, run: impl FnOnce(&mut Call<'_>) -> T) -> T {
    // SAFETY: by contract `r` is what the running callback got: the call that `Conf::ask` borrowed
    // for it alone, and does not touch meanwhile.
    let Some(call) = (unsafe { r.cast::<Call<'_>>().as_mut() }) else {
        blame("passed NULL for its request");
        return otherwise;
    };
    catch_unwind(AssertUnwindSafe(|| run(call))).unwrap_or_else(|_| {
        blame("called a function of the server that panicked");
        otherwise
    })
}

/// Hands a text out.
fn give(call: &mut Call<'_>, text: &[u8]) -> Str {
    let given = call.give(text);
    Str { data: given.as_ptr(), len: given.len() }
}

/// Hands a text out through a pointer, if there is one.
fn put(call: &mut Call<'_>, found: Result<Vec<u8>, Answer>, out: *mut Str) -> i32 {
    match found {
        _ if out.is_null() => {
            blame("passed NULL for the place of a result");
            Answer::Invalid as i32
        }
        Ok(found) => {
            let given = give(call, &found);
            // SAFETY: it is not NULL (checked above), and the plugin's own by contract.
            unsafe { out.write(given) };
            Answer::Ok as i32
        }
        Err(answer) => answer as i32,
    }
}

fn done(result: Result<(), Answer>) -> i32 {
    result.err().unwrap_or(Answer::Ok) as i32
}

const NOTHING: Str = Str { data: null(), len: 0 };
const INVALID: i32 = Answer::Invalid as i32;

// ---- what C calls --------------------------------------------------------------------------

/// `tollbar_host`
#[repr(C)]
struct Host {
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

static HOST: Host = Host {
    abi: ABI,
    size: size_of::<Host>() as u32,
    method,
    uri,
    args,
    remote_address,
    request_header,
    response_header,
    response_status,
    variable,
    set_request_header,
    set_response_header,
    set_response_status,
    reply,
    log: write_log,
    dict_get,
    dict_set,
    dict_incr,
    dict_delete,
};

extern "C" fn method(r: R) -> Str {
    within(r, NOTHING, |call| {
        let text = call.r.method_name().to_vec();
        give(call, &text)
    })
}

extern "C" fn uri(r: R) -> Str {
    within(r, NOTHING, |call| {
        let text = call.r.place.uri.clone();
        give(call, &text)
    })
}

extern "C" fn args(r: R) -> Str {
    within(r, NOTHING, |call| {
        let text = call.r.place.args.clone();
        give(call, &text)
    })
}

extern "C" fn remote_address(r: R) -> Str {
    within(r, NOTHING, |call| {
        let text = call.r.client.peer_text();
        give(call, text.as_bytes())
    })
}

extern "C" fn request_header(r: R, name: Str, value: *mut Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: a text of the plugin's, which by contract lives until we return.
        let Some(name) = (unsafe { bytes(name) }) else { return INVALID };
        let found = call.r.head.fields.get_named(name).map(<[u8]>::to_vec);
        put(call, found.ok_or(Answer::None), value)
    })
}

extern "C" fn response_header(r: R, name: Str, value: *mut Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: a text of the plugin's, which by contract lives until we return.
        let Some(name) = (unsafe { bytes(name) }) else { return INVALID };
        let found = call.response_header(name);
        put(call, found.ok_or(Answer::None), value)
    })
}

extern "C" fn response_status(r: R) -> i32 {
    within(r, 0, |call| i32::from(call.r.reply.status))
}

extern "C" fn variable(r: R, name: Str, value: *mut Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: a text of the plugin's, which by contract lives until we return.
        let Some(name) = (unsafe { bytes(name) }) else { return INVALID };
        let found = call.variable(name);
        put(call, found.ok_or(Answer::None), value)
    })
}

extern "C" fn set_request_header(r: R, name: Str, value: Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (bytes(name), optional(value)) } {
            (Some(name), Some(value)) => call.set_request_header(name, value) as i32,
            _ => INVALID,
        }
    })
}

extern "C" fn set_response_header(r: R, name: Str, value: Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (bytes(name), optional(value)) } {
            (Some(name), Some(value)) => call.set_response_header(name, value) as i32,
            _ => INVALID,
        }
    })
}

extern "C" fn set_response_status(r: R, status: i32) -> i32 {
    within(r, INVALID, |call| call.set_response_status(status) as i32)
}

extern "C" fn reply(r: R, status: i32, content_type: Str, body: Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (optional(content_type), bytes(body)) } {
            (Some(content_type), Some(body)) => call.reply(status, content_type, body) as i32,
            _ => INVALID,
        }
    })
}

extern "C" fn write_log(r: R, level: i32, text: Str) {
    let Some(level) = Level::ALL.into_iter().find(|known| *known as i32 == level) else {
        blame("passed a log level that is none");
        return;
    };
    // SAFETY: a text of the plugin's, which by contract lives until we return.
    let Some(text) = (unsafe { bytes(text) }) else { return };
    match r.is_null() {
        false => within(r, (), |call| call.log(level, text)),
        true => drop(catch_unwind(|| {
            if log::reaches(level) {
                log::write(level, Area::Core, format_args!("plugin: {}", Raw(&one_line(text))));
            }
        })),
    }
}

extern "C" fn dict_get(r: R, dict: Str, key: Str, value: *mut Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (bytes(dict), bytes(key)) } {
            (Some(dict), Some(key)) => {
                let found = call.dict_get(dict, key);
                put(call, found, value)
            }
            _ => INVALID,
        }
    })
}

extern "C" fn dict_set(r: R, dict: Str, key: Str, value: Str, ttl_ms: u64) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (bytes(dict), bytes(key), bytes(value)) } {
            (Some(dict), Some(key), Some(value)) => done(call.dict_set(dict, key, value, ttl_ms)),
            _ => INVALID,
        }
    })
}

extern "C" fn dict_incr(
    r: R,
    dict: Str,
    key: Str,
    by: f64,
    start: f64,
    ttl_ms: u64,
    value: *mut f64,
) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        let (Some(dict), Some(key)) = (unsafe { (bytes(dict), bytes(key)) }) else {
            return INVALID;
        };
        done(call.dict_incr(dict, key, (by, start), ttl_ms).map(|number| {
            // SAFETY: NULL, or by contract a place of the plugin's for the result.
            if let Some(value) = unsafe { value.as_mut() } {
                *value = number;
            }
        }))
    })
}

extern "C" fn dict_delete(r: R, dict: Str, key: Str) -> i32 {
    within(r, INVALID, |call| {
        // SAFETY: texts of the plugin's, which by contract live until we return.
        match unsafe { (bytes(dict), bytes(key)) } {
            (Some(dict), Some(key)) => done(call.dict_delete(dict, key)),
            _ => INVALID,
        }
    })
}
