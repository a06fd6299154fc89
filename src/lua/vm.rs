//! The Lua VM of this process: its coroutines, and whose request is running. (Threads have VMs of
//! their own, which are never entered: see `abi/apart`.)
//!
//! A coroutine that has to wait yields [`WAIT`]: alone if what it waits for was left by
//! [`Stack::wait_for`] (an [`Operation`], which needs no request), else with the name of what it
//! wants ([`Ask`]); whoever drives it resumes it with the results. Coroutines that ended well are
//! used again.
//!
//! **Invariant:** no error of Lua's passes through a Rust frame. Code runs only under
//! `lua_resume` and `lua_pcall`; the API that Rust calls could fail for want of memory or of
//! stack: memory is always given then (see [`Memory`]), and room is asked for first.

use super::memory::{Memory, Runs, allocate};
use super::phase::{self, Phases};
use crate::http::Request;
use mlua_sys::*;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::task::{Context, Poll};

/// Nothing is loaded.
pub(super) const NO_REF: c_int = -2;

/// What Lua sees as the request that runs: `thread.exdata` in `boot.lua` reads it through ffi. It
/// is that of the process's own VM; in the VMs of threads `boot.lua` has none to show.
#[unsafe(export_name = "tollbar_lua_request")]
pub static SEEN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Its address is the first value of a yield that is meant for the driver.
static WAIT: u8 = 0;

thread_local! {
    static VM: RefCell<Option<Rc<Vm>>> = const { RefCell::new(None) };
    static TURN: Cell<Turn> = const { Cell::new(Turn { request: None, phase: phase::INIT }) };
    /// What the running coroutine will wait for as soon as it yields.
    static PENDING: RefCell<Option<Box<dyn Operation>>> = const { RefCell::new(None) };
}

/// How many results a C function of ours has pushed: an `int` in a register of its own. LuaJIT
/// reads the whole register, where a C compiler leaves zeros above an `int` and rustc may leave
/// anything.
pub type Count = u64;

/// A C function of ours.
pub type Entry = unsafe extern "C-unwind" fn(*mut lua_State) -> Count;

/// As Lua's headers have it.
pub const fn c_function(entry: Entry) -> lua_CFunction {
    // SAFETY: Lua alone calls it, from assembly; the lower half of the result is the `int`.
    unsafe { std::mem::transmute::<Entry, lua_CFunction>(entry) }
}

fn whole(count: c_int) -> Count {
    Count::from(count as u32)
}

/// What a C function gives that left an operation: it has no results yet.
const WAITS: c_int = c_int::MIN;
/// What Lua itself says, with no position.
const ACROSS_C: &[u8] = b"attempt to yield across C-call boundary";
/// Lines of a traceback.
const TRACE_LINES_MAX: c_int = 22;
/// Results of an operation for which there is room.
pub(super) const RESULTS_ROOM: usize = 8;

unsafe extern "C-unwind" {
    /// LuaJIT's, which mlua-sys does not name.
    fn lua_isyieldable(state: *mut lua_State) -> c_int;
}

/// Something that takes time and needs no request. Dropped before it is ready, it is given up.
pub trait Operation {
    /// Ready when there are results.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Pushes the results: how many. Called once, when it is ready. There is room for a few.
    fn finish(&mut self, stack: &mut Stack) -> c_int;
}

/// Whose code runs, and where in its life.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) request: Option<NonNull<Request>>,
    pub(super) phase: Phases,
}

/// A Lua VM with its libraries. The master opens it with the configuration; a worker that is
/// forked has a copy of it, with all that `init_by_lua` has loaded.
pub struct Vm {
    pub(super) state: *mut lua_State,
    pub(super) idle: RefCell<Vec<Thread>>,
    pub(super) memory: Box<Memory>,
}

/// A coroutine's stack, and what keeps it from being collected.
pub(super) struct Thread {
    pub(super) state: *mut lua_State,
    pub(super) anchor: c_int,
}

/// A value that crosses between Lua and its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    /// A sequence.
    List(Vec<Value>),
}

impl Value {
    /// The text of text, and of a number.
    pub fn text(self) -> Option<Vec<u8>> {
        matches!(self, Value::Text(_) | Value::Number(_)).then(|| self.into_text())
    }

    /// As Lua writes it.
    pub fn into_text(self) -> Vec<u8> {
        match self {
            Value::Text(text) => text,
            Value::Number(n) if n.fract() == 0.0 && n.abs() < 1e14 => {
                format!("{}", n as i64).into_bytes()
            }
            Value::Number(n) => n.to_string().into_bytes(),
            Value::Bool(yes) => yes.to_string().into_bytes(),
            Value::Nil | Value::List(_) => Vec::new(),
        }
    }
}

/// What a coroutine waits for.
#[derive(Debug)]
pub struct Ask {
    pub what: String,
    pub args: Vec<Value>,
}

/// Where a coroutine stands after it was resumed.
pub enum Step {
    /// It returned this first of all.
    Done(Value),
    /// It wants something.
    Asks(Ask),
    /// It waits for this, whose results [`Coroutine::resume_after`] takes.
    Waits(Box<dyn Operation>),
    /// It merely gave way.
    Yielded,
    /// It failed: how, and the message with its traceback.
    Failed(&'static str, Vec<u8>),
}

/// A chunk of Lua, loaded when it first runs.
#[derive(Debug)]
pub struct Code {
    /// As messages name it: `=content_by_lua(nginx.conf:3)`, `@/path/file.lua`.
    pub chunk: String,
    pub source: Vec<u8>,
    pub(super) loaded: Cell<c_int>,
}

impl Code {
    pub fn new(chunk: String, source: Vec<u8>) -> Code {
        Code { chunk, source, loaded: Cell::new(NO_REF) }
    }
}

impl Vm {
    /// A VM with Lua's libraries, and no more than `limit` bytes.
    ///
    /// Errors: there is no memory.
    pub fn new(limit: Option<usize>) -> Result<Rc<Vm>, Vec<u8>> {
        Vm::alone(limit).map(Rc::new)
    }

    /// The same for who has it alone: it is not entered.
    pub fn alone(limit: Option<usize>) -> Result<Vm, Vec<u8>> {
        let memory = Box::new(Memory::new(limit));
        let record = (&raw const *memory).cast_mut().cast();
        // SAFETY: the record lives as long as the state, which is closed first; the libraries run
        // in a state that was just made.
        let state = unsafe {
            let state = lua_newstate(allocate, record);
            if state.is_null() {
                return Err(b"failed to create Lua VM: not enough memory".to_vec());
            }
            luaL_openlibs(state);
            state
        };
        Ok(Vm { state, idle: RefCell::default(), memory })
    }

    /// Makes it the one in which code of this process runs.
    pub fn enter(self: &Rc<Vm>) {
        let before = VM.replace(Some(self.clone()));
        // Closing a VM runs code of its users.
        drop(before);
    }

    /// The stack of its main coroutine.
    pub fn stack(&self) -> Stack {
        Stack(self.state)
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.memory.used()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.idle.borrow_mut().clear();
        // SAFETY: nobody else has the state, as nobody has the VM.
        unsafe { lua_close(self.state) }
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vm({} bytes)", self.bytes())
    }
}

/// No code runs in this process any more.
pub fn leave() {
    drop(VM.take());
}

/// The VM of this process.
pub fn current() -> Option<Rc<Vm>> {
    VM.with_borrow(Clone::clone)
}

pub(super) fn with_vm<T>(f: impl FnOnce(&Vm) -> T) -> T {
    VM.with_borrow(|vm| f(vm.as_ref().expect("Lua is called in processes that entered a VM")))
}

/// The phase whose code runs.
pub fn current_phase() -> Phases {
    TURN.get().phase
}

/// Calls `f` with the request whose code runs; `None` if there is none. While `f` works nobody
/// else gets the request.
pub fn with_request<T>(f: impl FnOnce(&mut Request) -> T) -> Option<T> {
    let turn = TURN.get();
    let mut request = turn.request?;
    let _back = Back::entering(Turn { request: None, ..turn });
    // SAFETY: `Coroutine::resume` put the pointer there from a `&mut` that it holds for as long as
    // the pointer stands; it stands in one place only, from which it was just taken.
    Some(f(unsafe { request.as_mut() }))
}

/// Puts the turn before this one back.
pub(super) struct Back(Turn);

impl Back {
    pub(super) fn entering(turn: Turn) -> Back {
        Back(TURN.replace(turn))
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        TURN.set(self.0);
    }
}

/// Shows Lua a request, and nothing of the one before until it is dropped.
pub(super) struct Shown(*mut c_void);

impl Shown {
    pub(super) fn of(turn: Turn) -> Shown {
        let seen = match turn.request {
            Some(request) => request.as_ptr().cast(),
            // As in OpenResty there is a request of a kind where none came from a client.
            None if turn.phase != phase::INIT => NonNull::<c_void>::dangling().as_ptr(),
            None => ptr::null_mut(),
        };
        Shown(SEEN.swap(seen, Relaxed))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        SEEN.store(self.0, Relaxed);
    }
}

/// A Lua stack: that of the running C function, or of a coroutine that stands.
pub struct Stack(pub(super) *mut lua_State);

/// The body of a C function: gives how many results it pushed, or the message of an error.
pub type Body = fn(&mut Stack) -> Result<c_int, Vec<u8>>;

impl Stack {
    /// Runs `body` as the C function that Lua called.
    ///
    /// # Safety
    /// `state` must be what Lua passed to the C function that calls this as its last act.
    pub unsafe fn call(state: *mut lua_State, body: Body) -> Count {
        let mut stack = Stack(state);
        let runs = Runs::rust();
        let message = match catch_unwind(AssertUnwindSafe(|| body(&mut stack))) {
            Ok(Ok(WAITS)) => {
                drop(runs);
                // SAFETY: the state is that of the C function whose last act this is; nothing
                // here has to be dropped any more.
                return unsafe {
                    lua_settop(state, 0);
                    lua_pushlightuserdata(state, wait_marker());
                    whole(lua_yield(state, 1))
                };
            }
            Ok(Ok(count)) => return whole(count),
            Ok(Err(message)) => message,
            Err(_) => b"internal error".to_vec(),
        };
        // SAFETY: there is room, as a C function has twenty places of its own; nothing that has
        // to be dropped is left when the error is raised.
        unsafe {
            match message == ACROSS_C {
                true => stack.push_text(b""),
                false => stack.push_place(),
            }
            stack.push_text(&message);
            drop(message);
            lua_concat(state, 2);
            drop(runs);
            lua_error(state)
        }
    }

    /// Pushes `file:line: ` of the code that called the running C function; not of `boot.lua`, but
    /// of its caller.
    fn push_place(&mut self) {
        // SAFETY: both levels are looked for and may not be there; a string is pushed in any case.
        unsafe {
            luaL_where(self.0, 1);
            if self.text(-1).is_some_and(|place| place.starts_with(b"boot:")) {
                self.pop(1);
                luaL_where(self.0, 2);
            }
        }
    }

    /// Makes the coroutine wait for `operation`, whose results become those of the C function:
    /// what a body returns that has nothing else to do.
    pub fn wait_for(&mut self, operation: Box<dyn Operation>) -> Result<c_int, Vec<u8>> {
        self.may_yield()?;
        wait_soon(operation);
        Ok(WAITS)
    }

    /// Whether nothing stands in the way of [`Stack::wait_for`]: the message if something does.
    pub fn may_yield(&self) -> Result<(), Vec<u8>> {
        // SAFETY: the state is valid; this only looks.
        match unsafe { lua_isyieldable(self.0) } {
            0 => Err(ACROSS_C.to_vec()),
            _ => Ok(()),
        }
    }

    /// The state, for functions of `abi`.
    #[allow(dead_code)]
    pub fn state(&mut self) -> *mut lua_State {
        self.0
    }

    /// Pushes `nil` and a reason: what a function gives that does not do it.
    pub fn refuse(&mut self, why: impl AsRef<[u8]>) -> c_int {
        self.push_nil();
        self.push_text(why.as_ref());
        2
    }

    /// How many values there are.
    pub fn top(&self) -> c_int {
        // SAFETY: the state is valid as long as the stack is.
        unsafe { lua_gettop(self.0) }
    }

    /// Drops `n` values.
    pub fn pop(&mut self, n: c_int) {
        debug_assert!(n <= self.top());
        // SAFETY: as above; there are that many.
        unsafe { lua_settop(self.0, -n - 1) }
    }

    pub(super) fn clear(&mut self) {
        // SAFETY: an empty stack is valid.
        unsafe { lua_settop(self.0, 0) }
    }

    /// The type of a value, `LUA_T…`; `LUA_TNONE` where there is none.
    pub fn kind(&self, at: c_int) -> c_int {
        // SAFETY: any index that is on the stack or just above it is accepted.
        unsafe { lua_type(self.0, at) }
    }

    /// The name of its type.
    pub fn kind_name(&self, at: c_int) -> &'static str {
        match self.kind(at) {
            LUA_TNONE => "no value",
            LUA_TNIL => "nil",
            LUA_TBOOLEAN => "boolean",
            LUA_TNUMBER => "number",
            LUA_TSTRING => "string",
            LUA_TTABLE => "table",
            LUA_TFUNCTION => "function",
            LUA_TTHREAD => "thread",
            LUA_TLIGHTUSERDATA | LUA_TUSERDATA => "userdata",
            _ => "cdata",
        }
    }

    /// The bytes of a string or number (which becomes a string).
    pub fn text(&mut self, at: c_int) -> Option<&[u8]> {
        let mut len = 0;
        // SAFETY: the string stays on the stack, and thus alive, while `self` is borrowed.
        unsafe {
            let text = lua_tolstring(self.0, at, &mut len);
            (!text.is_null()).then(|| std::slice::from_raw_parts(text.cast(), len))
        }
    }

    /// A number, or a string that reads as one.
    pub fn number(&self, at: c_int) -> Option<f64> {
        // SAFETY: conversions of any value are defined.
        unsafe { (lua_isnumber(self.0, at) != 0).then(|| lua_tonumber(self.0, at)) }
    }

    /// Anything but `nil` and `false`.
    pub fn truth(&self, at: c_int) -> bool {
        // SAFETY: as above.
        unsafe { lua_toboolean(self.0, at) != 0 }
    }

    /// Whether it is a null pointer, `ngx.null`.
    pub fn is_null(&self, at: c_int) -> bool {
        self.kind(at) == LUA_TLIGHTUSERDATA && {
            // SAFETY: the type was checked.
            unsafe { lua_touserdata(self.0, at).is_null() }
        }
    }

    /// The length of a table's sequence.
    pub fn len(&self, at: c_int) -> usize {
        // SAFETY: defined for every type.
        unsafe { lua_objlen(self.0, at) }
    }

    /// Whether `n` more values have room. Lua's own check would raise an error.
    pub(super) fn has_room(&mut self, n: usize) -> bool {
        let n = c_int::try_from(n).unwrap_or(c_int::MAX);
        // SAFETY: it fails without an error.
        unsafe { lua_checkstack(self.0, n) != 0 }
    }

    /// Pushes element `n` of the table at `at`; false if the stack is full.
    pub fn push_element(&mut self, at: c_int, n: usize) -> bool {
        debug_assert_eq!(self.kind(at), LUA_TTABLE);
        if !self.has_room(1) {
            return false;
        }
        // SAFETY: it is a table, and there is room.
        unsafe { lua_rawgeti_(self.0, at, n as c_int) }
        true
    }

    /// The thread at `at`, by what threads are told apart.
    pub fn thread_at(&self, at: c_int) -> Option<usize> {
        // SAFETY: any index is accepted.
        let thread = unsafe { lua_tothread(self.0, at) };
        (!thread.is_null()).then_some(thread as usize)
    }

    /// Takes the top value off and keeps it.
    pub fn keep_top(&mut self) -> Kept {
        let vm = current().expect("code runs in a VM");
        // SAFETY: there is a value on top.
        let reference = unsafe { luaL_ref(self.0, LUA_REGISTRYINDEX) };
        Kept { vm, reference }
    }

    /// Whether it is a function written in Lua.
    pub fn is_lua_function(&self, at: c_int) -> bool {
        // SAFETY: as above.
        self.kind(at) == LUA_TFUNCTION && unsafe { lua_iscfunction(self.0, at) == 0 }
    }

    pub fn push_truth(&mut self, truth: bool) {
        // SAFETY: a function has places of its own.
        unsafe { lua_pushboolean(self.0, c_int::from(truth)) }
    }

    pub fn push_nil(&mut self) {
        self.push(&Value::Nil);
    }

    /// Pushes a number as a light userdata, which Lua can only compare and pass on.
    pub fn push_pointer(&mut self, number: usize) {
        // SAFETY: nobody follows it.
        unsafe { lua_pushlightuserdata(self.0, number as *mut c_void) }
    }

    pub fn push_text(&mut self, text: &[u8]) {
        // SAFETY: Lua copies the bytes.
        unsafe { lua_pushlstring_(self.0, text.as_ptr().cast(), text.len()) }
    }

    /// Pushes a value; nil in its place if the stack is full.
    pub fn push(&mut self, value: &Value) {
        let has_room = self.has_room(3);
        // SAFETY: there is room (for nil always: a function has places of its own); the table is
        // on top when it is filled.
        unsafe {
            match value {
                Value::Nil => lua_pushnil(self.0),
                _ if !has_room => lua_pushnil(self.0),
                Value::Bool(yes) => lua_pushboolean(self.0, c_int::from(*yes)),
                Value::Number(n) => lua_pushnumber(self.0, *n),
                Value::Text(text) => self.push_text(text),
                Value::List(list) => {
                    lua_createtable(self.0, list.len() as c_int, 0);
                    for (n, value) in list.iter().enumerate() {
                        self.push(value);
                        lua_rawseti_(self.0, -2, n as c_int + 1);
                    }
                }
            }
        }
    }

    /// Runs `source` with `arguments`, each a value or a C function; drops its results.
    pub fn run(
        &mut self,
        chunk: &str,
        source: &str,
        functions: &[(&str, lua_CFunction)],
        arguments: &[Value],
    ) -> Result<(), Vec<u8>> {
        let name = CString::new(chunk).expect("names of chunks are ours");
        // SAFETY: each call leaves the stack as the next expects it: chunk, table of functions,
        // the marker of waits, arguments. Errors of the chunk come back as values.
        let status = unsafe {
            let text = source.as_ptr().cast::<c_char>();
            match luaL_loadbuffer(self.0, text, source.len(), name.as_ptr()) {
                LUA_OK => {
                    lua_createtable(self.0, 0, functions.len() as c_int);
                    for (name, function) in functions {
                        self.push_text(name.as_bytes());
                        lua_pushcclosure(self.0, *function, 0);
                        lua_rawset(self.0, -3);
                    }
                    lua_pushlightuserdata(self.0, wait_marker());
                    arguments.iter().for_each(|value| self.push(value));
                    let _runs = Runs::lua();
                    lua_pcall(self.0, arguments.len() as c_int + 2, 0, 0)
                }
                refused => refused,
            }
        };
        match status {
            LUA_OK => Ok(()),
            _ => {
                let message = self.text(-1).unwrap_or(b"unknown reason").to_vec();
                self.pop(1);
                Err(message)
            }
        }
    }

    /// Who called the function of `boot.lua` that called the running C function:
    /// `file:line: function(): `.
    pub fn caller(&mut self) -> Vec<u8> {
        // SAFETY: `lua_getstack` fills the record that `lua_getinfo` completes; its strings live
        // as long as the function they describe, which is on the stack.
        unsafe {
            let mut about: lua_Debug = std::mem::zeroed();
            if lua_getstack(self.0, 2, &mut about) == 0
                || lua_getinfo(self.0, c"nSl".as_ptr(), &mut about) == 0
            {
                return Vec::new();
            }
            let file = std::ffi::CStr::from_ptr(about.short_src.as_ptr()).to_bytes();
            let file = memchr::memrchr(b'/', file).filter(|_| !file.contains(&b'('));
            let short = std::ffi::CStr::from_ptr(about.short_src.as_ptr()).to_bytes();
            let file = file.map_or(short, |slash| &short[slash + 1..]);
            let mut out = [file, format!(":{}: ", about.currentline).as_bytes()].concat();
            if !about.name.is_null() {
                out.extend_from_slice(std::ffi::CStr::from_ptr(about.name).to_bytes());
                out.extend_from_slice(b"(): ");
            }
            out
        }
    }

    pub(super) fn value(&mut self, at: c_int) -> Value {
        match self.kind(at) {
            LUA_TBOOLEAN => Value::Bool(self.truth(at)),
            LUA_TNUMBER => Value::Number(self.number(at).unwrap_or_default()),
            LUA_TSTRING => Value::Text(self.text(at).unwrap_or_default().to_vec()),
            _ => Value::Nil,
        }
    }

    /// A value that may be a sequence of texts, numbers and truths.
    fn argument(&mut self, at: c_int) -> Value {
        if self.kind(at) != LUA_TTABLE {
            return self.value(at);
        }
        let mut list = Vec::new();
        for n in 1..=self.len(at) {
            if !self.push_element(at, n) {
                break;
            }
            list.push(self.value(-1));
            self.pop(1);
        }
        Value::List(list)
    }

    /// Takes off what a yield passed.
    pub(super) fn take_yield(&mut self) -> Step {
        let is_for_driver = self.top() >= 1 && self.kind(1) == LUA_TLIGHTUSERDATA && {
            // SAFETY: the type was checked.
            unsafe { lua_touserdata(self.0, 1) == wait_marker() }
        };
        let step = match is_for_driver {
            true if self.top() == 1 => match PENDING.take() {
                Some(operation) => Step::Waits(operation),
                None => Step::Yielded,
            },
            true => {
                let what = String::from_utf8_lossy(self.text(2).unwrap_or_default()).into_owned();
                let args = (3..=self.top()).map(|at| self.argument(at)).collect();
                Step::Asks(Ask { what, args })
            }
            false => Step::Yielded,
        };
        self.clear();
        step
    }

    /// The message of a coroutine that failed, with its traceback.
    pub(super) fn failure(&mut self) -> Vec<u8> {
        let mut out = match self.kind(-1) {
            LUA_TSTRING | LUA_TNUMBER => self.text(-1).unwrap_or_default().to_vec(),
            _ => b"unknown reason".to_vec(),
        };
        out.extend_from_slice(b"\nstack traceback:\ncoroutine 0:");
        self.push_trace(&mut out);
        out
    }

    /// Appends who called whom, a line each, as OpenResty writes it.
    fn push_trace(&self, out: &mut Vec<u8>) {
        for level in 0.. {
            // SAFETY: `lua_getstack` fills the record that `lua_getinfo` completes; its strings
            // live as long as the functions that they describe, which are on the stack.
            unsafe {
                let mut about: lua_Debug = std::mem::zeroed();
                if lua_getstack(self.0, level, &mut about) == 0 {
                    return;
                }
                if level >= TRACE_LINES_MAX {
                    return out.extend_from_slice(b"\n\t...");
                }
                lua_getinfo(self.0, c"Snl".as_ptr(), &mut about);
                push_frame(&about, out);
            }
        }
    }
}

/// # Safety
/// The record must have been filled by `lua_getinfo` with `Snl`, and its function be alive.
unsafe fn push_frame(about: &lua_Debug, out: &mut Vec<u8>) {
    // SAFETY: the caller's; names that are not known are null or empty.
    let (file, kind, name) = unsafe {
        let text = |text: *const c_char| match text.is_null() {
            true => Vec::new(),
            false => CStr::from_ptr(text).to_bytes().to_vec(),
        };
        let name = if text(about.namewhat).is_empty() { Vec::new() } else { text(about.name) };
        (text(about.short_src.as_ptr()), text(about.what), name)
    };
    out.extend([b"\n\t".as_slice(), &file, b":"].concat());
    if about.currentline > 0 {
        out.extend(format!("{}:", about.currentline).into_bytes());
    }
    match (&*name, kind.first()) {
        (b"", Some(b'm')) => out.extend_from_slice(b" in main chunk"),
        (b"", Some(b'C' | b't')) => out.extend_from_slice(b" ?"),
        (b"", _) => {
            let line = format!(":{}>", about.linedefined);
            out.extend([b" in function <".as_slice(), &file, line.as_bytes()].concat());
        }
        (name, _) => out.extend([b" in function '".as_slice(), name, b"'"].concat()),
    }
}

/// A value of Lua's that is kept.
pub struct Kept {
    vm: Rc<Vm>,
    reference: c_int,
}

impl Kept {
    pub fn push_onto(&self, stack: &mut Stack) {
        // SAFETY: the reference is ours, in the registry that all threads share.
        unsafe { lua_rawgeti_(stack.0, LUA_REGISTRYINDEX, self.reference) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: it is released once.
        unsafe { luaL_unref(self.vm.state, LUA_REGISTRYINDEX, self.reference) }
    }
}

/// Leaves what the running coroutine will wait for when it yields next, which it is told by an
/// ffi function to do.
pub fn wait_soon(operation: Box<dyn Operation>) {
    // What was left before and never waited for is given up.
    drop(PENDING.replace(Some(operation)));
}

/// What was left and never waited for is given up.
pub(super) fn forget_wait() {
    drop(PENDING.take());
}

/// Whether the running coroutine should yield to wait.
pub fn is_about_to_wait() -> bool {
    PENDING.with_borrow(Option::is_some)
}

fn wait_marker() -> *mut c_void {
    (&raw const WAIT).cast_mut().cast()
}

/// A table of `ngx.ctx`, if there is one: of a request, of a connection, of what runs without
/// either. Its place among lua-resty-core's is given back when this is dropped.
#[derive(Default)]
pub struct Ctx(Option<c_int>);

impl Ctx {
    /// The table that lua-resty-core keeps under this reference.
    pub fn of(reference: c_int) -> Ctx {
        Ctx(Some(reference))
    }

    /// The reference as lua-resty-core wants it: from 1, or -1 for none.
    pub fn reference(&self) -> c_int {
        self.0.unwrap_or(-1)
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        if let Some(reference) = self.0 {
            release_context(reference);
        }
    }
}

fn release_context(reference: c_int) {
    // A request may outlive the VM at the end of the process.
    let state = VM.try_with(|vm| vm.borrow().as_ref().map(|vm| vm.state));
    let Ok(Some(state)) = state else { return };
    // SAFETY: the main state is valid; the table's free list is kept as lua-resty-core keeps it:
    // element 0 names the last free place, and a free place names the one before it.
    unsafe {
        lua_getfield_(state, LUA_REGISTRYINDEX, c"ngx_lua_ctx_tables".as_ptr());
        if lua_type(state, -1) == LUA_TTABLE {
            lua_rawgeti_(state, -1, 0);
            lua_rawseti_(state, -2, reference);
            lua_pushnumber(state, f64::from(reference));
            lua_rawseti_(state, -2, 0);
        }
        lua_settop(state, -2);
    }
}
