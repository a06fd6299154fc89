//! Runs of Lua code: coroutines that are resumed until they end.
//!
//! Those that ended well, and that Lua never held, are used again.

use super::memory::Runs;
use super::phase::Phases;
use super::vm::{
    Back, Code, NO_REF, Operation, RESULTS_ROOM, Shown, Stack, Step, Thread, Turn, Value, Vm,
};
use super::vm::{current, forget_wait, with_vm};
use crate::http::Request;
use mlua_sys::*;
use std::ffi::{CString, c_char, c_int};
use std::ptr::NonNull;
use std::rc::Rc;

/// Coroutines that are kept for the next request.
const IDLE_MAX: usize = 256;

/// A run of a chunk.
pub struct Coroutine {
    vm: Rc<Vm>,
    thread: Option<Thread>,
    ended_well: bool,
    /// Lua may hold it: it is not used again, and its results stay on its stack.
    is_seen: bool,
    /// Arguments that stand behind the function, until it begins.
    arguments: c_int,
}

impl Coroutine {
    /// A coroutine that will run `code`. Errors: the compiler's message.
    pub fn new(code: &Code) -> Result<Coroutine, Vec<u8>> {
        let function = load(code)?;
        let vm = current().ok_or_else(|| b"no Lua VM".to_vec())?;
        let thread = vm.thread();
        // SAFETY: the thread is anchored and its stack empty; `function` is a reference that
        // `load` made in the registry that all threads share.
        unsafe { lua_rawgeti_(thread.state, LUA_REGISTRYINDEX, function) };
        Ok(Coroutine { vm, thread: Some(thread), ended_well: false, is_seen: false, arguments: 0 })
    }

    /// A coroutine that will run the function at `at` of `from`, with what stands above it as
    /// arguments; all of it is taken off. `is_seen`: Lua will hold it. `None`: there is no VM, or
    /// no room.
    pub fn of_function(from: &mut Stack, at: c_int, is_seen: bool) -> Option<Coroutine> {
        let vm = current()?;
        let count = from.top() - at + 1;
        let thread = if is_seen { vm.new_thread() } else { vm.thread() };
        let mut coroutine = Coroutine {
            vm,
            thread: Some(thread),
            ended_well: false,
            is_seen,
            arguments: count - 1,
        };
        if !Stack(coroutine.state()).has_room(count as usize + 2) {
            return None;
        }
        // SAFETY: both stacks belong to one VM; the values are there, and there is room for them.
        unsafe { lua_xmove(from.0, coroutine.state(), count) };
        coroutine.arguments = count - 1;
        Some(coroutine)
    }

    /// Another one with the same function and arguments, which has not begun either.
    pub fn again(&self) -> Option<Coroutine> {
        let mut own = Stack(self.state());
        let count = self.arguments + 1;
        if !own.has_room(count as usize) {
            return None;
        }
        // SAFETY: there are that many values, and room for them once more.
        (1..=count).for_each(|at| unsafe { lua_pushvalue(own.0, at) });
        Coroutine::of_function(&mut own, count + 1, false)
    }

    /// Puts a truth before the arguments of one that has not begun.
    pub fn put_first(&mut self, truth: bool) {
        let mut stack = Stack(self.state());
        stack.push_truth(truth);
        // SAFETY: the function stands below, and the truth on top.
        unsafe { lua_insert(stack.0, 2) };
        self.arguments += 1;
    }

    /// Where the function was defined: `file:line`.
    pub fn origin(&self) -> String {
        // SAFETY: `lua_getinfo` with `>` takes the function that was just pushed, and fills the
        // record; its strings live as long as the function, which is on the stack.
        unsafe {
            let mut about: lua_Debug = std::mem::zeroed();
            lua_pushvalue(self.state(), 1);
            lua_getinfo(self.state(), c">S".as_ptr(), &mut about);
            let file = std::ffi::CStr::from_ptr(about.short_src.as_ptr()).to_string_lossy();
            format!("{file}:{}", about.linedefined)
        }
    }

    /// By what Lua's threads are told apart.
    pub fn key(&self) -> usize {
        self.state() as usize
    }

    /// Pushes the thread itself.
    pub fn push_onto(&self, stack: &mut Stack) {
        let anchor = self.thread.as_ref().expect("it is there until it is dropped").anchor;
        // SAFETY: the anchor is a reference of the registry that all threads share.
        unsafe { lua_rawgeti_(stack.0, LUA_REGISTRYINDEX, anchor) }
    }

    /// Moves the results of one that has ended: how many. An error is one result.
    pub fn give_results(&mut self, onto: &mut Stack) -> c_int {
        let count = if self.ended_well { Stack(self.state()).top() } else { 1 };
        if !onto.has_room(count as usize + 1) {
            return 0;
        }
        // SAFETY: both stacks belong to one VM; the results are all that stands on this one, an
        // error is its top.
        unsafe { lua_xmove(self.state(), onto.0, count) };
        count
    }

    /// Runs it until it ends or waits, with `answer` as what the yield gives.
    pub fn resume(
        &mut self,
        request: Option<&mut Request>,
        phase: Phases,
        answer: &[Value],
    ) -> Step {
        let mut stack = Stack(self.state());
        if !stack.has_room(answer.len() + 1) {
            return Step::Failed("runtime error", b"stack overflow".to_vec());
        }
        answer.iter().for_each(|value| stack.push(value));
        self.go(request, phase, answer.len() as c_int)
    }

    /// The same with the results of what it waited for, which is ready.
    pub fn resume_after(
        &mut self,
        request: Option<&mut Request>,
        phase: Phases,
        done: &mut dyn Operation,
    ) -> Step {
        let mut stack = Stack(self.state());
        if !stack.has_room(RESULTS_ROOM) {
            return Step::Failed("runtime error", b"stack overflow".to_vec());
        }
        let count = done.finish(&mut stack);
        debug_assert!(count <= stack.top());
        self.go(request, phase, count)
    }

    fn state(&self) -> *mut lua_State {
        self.thread.as_ref().expect("it is there until it is dropped").state
    }

    fn go(&mut self, request: Option<&mut Request>, phase: Phases, count: c_int) -> Step {
        let state = self.state();
        let mut stack = Stack(state);
        let turn = Turn { request: request.map(NonNull::from), phase };
        let entered = (Back::entering(turn), Shown::of(turn));
        let runs = Runs::lua();
        let count = count + std::mem::take(&mut self.arguments);
        // SAFETY: the stack holds the function or is that of a yield, and the results above it.
        let status = unsafe { lua_resume_(state, count) };
        drop((runs, entered));
        if status != LUA_YIELD {
            // What was never waited for is given up.
            forget_wait();
        }
        if self.vm.memory.was_refused() {
            // What hit the limit is garbage mostly, and Lua does not look for it by itself then.
            // SAFETY: the main state is valid; errors of finalizers stay in there.
            unsafe { lua_gc(self.vm.state, LUA_GCCOLLECT, 0) };
        }
        match status {
            LUA_OK if self.is_seen => {
                self.ended_well = true;
                Step::Done(Value::Nil)
            }
            LUA_OK => {
                let result = stack.value(1);
                stack.clear();
                self.ended_well = true;
                Step::Done(result)
            }
            LUA_YIELD => stack.take_yield(),
            LUA_ERRMEM => Step::Failed("memory allocation error", stack.failure()),
            _ => Step::Failed("runtime error", stack.failure()),
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        match self.ended_well && !self.is_seen && self.vm.idle.borrow().len() < IDLE_MAX {
            true => self.vm.idle.borrow_mut().push(thread),
            // SAFETY: the anchor was made by `Vm::thread` and is released once.
            false => unsafe { luaL_unref(self.vm.state, LUA_REGISTRYINDEX, thread.anchor) },
        }
    }
}

impl Vm {
    fn thread(&self) -> Thread {
        if let Some(thread) = self.idle.borrow_mut().pop() {
            return thread;
        }
        self.new_thread()
    }

    fn new_thread(&self) -> Thread {
        // SAFETY: the main state is valid; the new thread is anchored before anything can
        // collect it.
        unsafe {
            let state = lua_newthread(self.state);
            Thread { state, anchor: luaL_ref(self.state, LUA_REGISTRYINDEX) }
        }
    }
}

/// The reference of the compiled chunk. Errors: the compiler's message.
fn load(code: &Code) -> Result<c_int, Vec<u8>> {
    if code.loaded.get() != NO_REF {
        return Ok(code.loaded.get());
    }
    let name = CString::new(code.chunk.as_str()).map_err(|_| b"NUL in a file name".to_vec())?;
    let (text, len) = (code.source.as_ptr().cast::<c_char>(), code.source.len());
    let mut stack = with_vm(|vm| Stack(vm.state));
    // SAFETY: text and name live through the call, which leaves one value on the stack.
    let loaded = unsafe {
        match luaL_loadbuffer(stack.0, text, len, name.as_ptr()) {
            LUA_OK => Ok(luaL_ref(stack.0, LUA_REGISTRYINDEX)),
            _ => Err(()),
        }
    };
    match loaded {
        Ok(reference) => {
            code.loaded.set(reference);
            Ok(reference)
        }
        Err(()) => {
            let message = stack.text(-1).unwrap_or_default().to_vec();
            stack.pop(1);
            Err(message)
        }
    }
}
