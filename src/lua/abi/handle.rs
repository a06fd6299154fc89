//! Things of ours that Lua holds: sockets and patterns, each behind a userdata.
//!
//! A userdata has nothing in it. What it stands for is found by its address in a table of this
//! process, from which the collector's finalizer takes it: a pointer that Lua passes is compared,
//! never followed.

use crate::lua::socket::{Pattern, Tcp, Udp};
use crate::lua::vm::{self, Stack};
use mlua_sys::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// What a userdata stands for.
#[derive(Clone)]
pub enum Thing {
    Tcp(Rc<Tcp>),
    Udp(Rc<Udp>),
    Pattern(Rc<Pattern>),
}

thread_local! {
    static THINGS: RefCell<HashMap<usize, Thing, BuildHasherDefault<AddressHasher>>> =
        RefCell::default();
}

/// An address is as good as a hash, but for its low bits.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }
    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// A place of the registry that is ours by its address.
pub type Key = &'static u8;

/// The metatable of all userdata of ours.
static THING: u8 = 1;

fn key_pointer(key: Key) -> *mut c_void {
    std::ptr::from_ref(key).cast_mut().cast()
}

/// What stands at this address, if it is a userdata of ours.
pub fn at_address(address: usize) -> Option<Thing> {
    THINGS.with_borrow(|things| things.get(&address).cloned())
}

/// What the userdata at `at` stands for.
pub fn thing(stack: &mut Stack, at: c_int) -> Option<Thing> {
    let address = address_of(stack, at);
    at_address(address)
}

fn address_of(stack: &mut Stack, at: c_int) -> usize {
    // SAFETY: any index is accepted; other values than userdata give null.
    unsafe { lua_touserdata(stack.state(), at) as usize }
}

/// Pushes a userdata for `thing`.
pub fn push_thing(stack: &mut Stack, thing: Thing) {
    let state = stack.state();
    // SAFETY: the new value is on top when it gets its metatable, which is a table or nil.
    let address = unsafe {
        let data = lua_newuserdata(state, 1);
        lua_pushlightuserdata(state, key_pointer(&THING));
        lua_rawget(state, LUA_REGISTRYINDEX);
        if lua_type(state, -1) != LUA_TTABLE {
            lua_settop(state, -2);
            make_metatable(state);
        }
        lua_setmetatable(state, -2);
        data as usize
    };
    THINGS.with_borrow_mut(|things| things.insert(address, thing));
}

/// Leaves the metatable on the stack, and in the registry.
///
/// # Safety
/// The state must be valid, with room for four values.
unsafe fn make_metatable(state: *mut lua_State) {
    // SAFETY: each call finds what the one before left; the key is pushed below the copy of the
    // table that it will stand for.
    unsafe {
        lua_createtable(state, 0, 1);
        lua_pushstring(state, c"__gc".as_ptr());
        lua_pushcclosure(state, vm::c_function(collected), 0);
        lua_rawset(state, -3);
        lua_pushlightuserdata(state, key_pointer(&THING));
        lua_pushvalue(state, -2);
        lua_rawset(state, LUA_REGISTRYINDEX);
    }
}

/// The collector's finalizer.
unsafe extern "C-unwind" fn collected(state: *mut lua_State) -> vm::Count {
    // SAFETY: the state is what Lua passes; this is the last act.
    unsafe {
        Stack::call(state, |stack| {
            let address = address_of(stack, 1);
            // At the end of the thread there is no table any more.
            let gone = THINGS.try_with(|things| things.borrow_mut().remove(&address));
            drop(gone);
            Ok(0)
        })
    }
}

/// Keeps the table at `at` in the registry.
pub fn remember(stack: &mut Stack, key: Key, at: c_int) {
    let state = stack.state();
    // SAFETY: `at` is an absolute index that has a value.
    unsafe {
        lua_pushlightuserdata(state, key_pointer(key));
        lua_pushvalue(state, at);
        lua_rawset(state, LUA_REGISTRYINDEX);
    }
}

/// Pushes a new table with the metatable that is kept under `key`.
pub fn push_object(stack: &mut Stack, key: Key, slots: c_int) {
    let state = stack.state();
    // SAFETY: the table is below its metatable when it gets it.
    unsafe {
        lua_createtable(state, slots, 0);
        lua_pushlightuserdata(state, key_pointer(key));
        lua_rawget(state, LUA_REGISTRYINDEX);
        lua_setmetatable(state, -2);
    }
}

/// Sets element `n` of the table at `at` (an absolute index) to the value on top, and takes that
/// off.
pub fn set_element(stack: &mut Stack, at: c_int, n: c_int) {
    debug_assert_eq!(stack.kind(at), LUA_TTABLE);
    // SAFETY: it is a table; there is a value.
    unsafe { lua_rawseti_(stack.state(), at, n) }
}

/// Pushes what the table at `at` has under `name`, without its metatable.
pub fn push_field(stack: &mut Stack, at: c_int, name: &str) {
    debug_assert_eq!(stack.kind(at), LUA_TTABLE);
    stack.push_text(name.as_bytes());
    // SAFETY: it is a table, and the name is on top.
    unsafe { lua_rawget(stack.state(), at) };
}

/// What the userdata in element `n` of the table at `at` stands for.
pub fn element_thing(stack: &mut Stack, at: c_int, n: usize) -> Option<Thing> {
    stack.push_element(at, n);
    let found = thing(stack, -1);
    stack.pop(1);
    found
}

/// `bad argument #1 to 'receive' (…)`, as `luaL_argerror` puts it.
pub fn bad_argument(stack: &mut Stack, mut n: c_int, what: &str) -> Vec<u8> {
    let state = stack.state();
    // SAFETY: `lua_getstack` fills the record that `lua_getinfo` completes; its strings live as
    // long as the function they describe, which runs.
    let (name, is_method) = unsafe {
        let mut about: lua_Debug = std::mem::zeroed();
        if lua_getstack(state, 0, &mut about) == 0
            || lua_getinfo(state, c"n".as_ptr(), &mut about) == 0
            || about.name.is_null()
        {
            ("?".to_owned(), false)
        } else {
            let name = std::ffi::CStr::from_ptr(about.name).to_string_lossy().into_owned();
            let kind = std::ffi::CStr::from_ptr(about.namewhat).to_bytes();
            (name, kind == b"method")
        }
    };
    if is_method {
        n -= 1;
        if n == 0 {
            return format!("calling '{name}' on bad self ({what})").into_bytes();
        }
    }
    format!("bad argument #{n} to '{name}' ({what})").into_bytes()
}

/// An integer argument, as `luaL_checkinteger` reads it.
pub fn need_integer(stack: &mut Stack, at: c_int) -> Result<i64, Vec<u8>> {
    match stack.number(at) {
        Some(number) => Ok(number as i64),
        None => {
            let what = format!("number expected, got {}", stack.kind_name(at));
            Err(bad_argument(stack, at, &what))
        }
    }
}

/// A text argument, as `luaL_checklstring` reads it.
pub fn need_string(stack: &mut Stack, at: c_int) -> Result<Vec<u8>, Vec<u8>> {
    if let Some(text) = stack.text(at) {
        return Ok(text.to_vec());
    }
    let what = format!("string expected, got {}", stack.kind_name(at));
    Err(bad_argument(stack, at, &what))
}

/// Makes sure that an argument is a table.
pub fn need_table(stack: &mut Stack, at: c_int) -> Result<(), Vec<u8>> {
    if stack.kind(at) == LUA_TTABLE {
        return Ok(());
    }
    let what = format!("table expected, got {}", stack.kind_name(at));
    Err(bad_argument(stack, at, &what))
}
