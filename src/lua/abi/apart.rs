//! The VMs in which threads run Lua, and what code needs of the configuration in every thread.
//!
//! A VM is made when all others are in use, by the thread that needs it, and handed from thread to
//! thread. Who wants to run code takes a [`Seat`] first: there are as many as there may be VMs.
//!
//! **Invariant:** a VM is either idle in its [`Kit`] or used by the one thread that holds a seat.
//! What its code reaches by the thread's own variables is set when a thread begins to use it: no
//! request, no crew, no configuration but the kit, and nothing of it is there when it has ended.

use super::{KIT, SPOKEN, boot};
use crate::event::{self, Post, Role};
use crate::lua::conf::Main;
use crate::lua::phase;
use crate::lua::vm::{Back, Stack, Turn, Vm};
use crate::sys::time;
use mlua_sys::*;
use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tollbar_shm::Dict;

/// What code needs of the configuration in every thread.
pub struct Kit {
    pub path: Option<Vec<u8>>,
    pub cpath: Option<Vec<u8>>,
    pub prefix: Vec<u8>,
    /// `lua_shared_dict`, by its number.
    pub dicts: Vec<(String, Arc<OnceLock<Arc<Dict>>>)>,
    pub regex_cache_entries: u32,
    pub regex_match_limit: u32,
    memory_limit: Option<usize>,
    vms_max: usize,
    vms: Mutex<Vms>,
    is_ending: AtomicBool,
    /// Somebody waits for the end of the process, to say so in `is_ending`.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Vms {
    idle: Vec<Apart>,
    seats_taken: usize,
}

/// A folder's name as nginx keeps it: with a slash at its end.
fn folder(path: &Path) -> Vec<u8> {
    let mut name = path.as_os_str().as_encoded_bytes().to_vec();
    if !name.is_empty() && name.last() != Some(&b'/') {
        name.push(b'/');
    }
    name
}

/// A VM that goes from thread to thread.
struct Apart {
    vm: Vm,
    /// What it held when it was made.
    fresh_bytes: usize,
}

// SAFETY: a VM has no ties to the thread that made it, and nobody else can have this one: it is
// never entered, so no coroutine and no kept value refers to it. What its code may hold of ours
// (patterns of `ngx.re`, semaphores that nobody waits for) it holds alone; all else stands for a
// thing by a number, and no function gives it such a one where there is neither request nor crew.
unsafe impl Send for Apart {}

impl Kit {
    pub fn of(main: &Main) -> Arc<Kit> {
        let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
        Arc::new(Kit {
            path: bytes(&main.path),
            cpath: bytes(&main.cpath),
            prefix: folder(&main.prefix),
            dicts: main.dicts.iter().map(|zone| (zone.name.clone(), zone.handle())).collect(),
            regex_cache_entries: main.regex_cache_entries(),
            regex_match_limit: main.regex_match_limit(),
            memory_limit: main.memory_limit(),
            vms_max: main.thread_vms(),
            vms: Mutex::default(),
            is_ending: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
        })
    }

    /// The dict of this place in their order.
    pub fn dict(&self, at: usize) -> Option<&Dict> {
        self.dicts.get(at).and_then(|(_, handle)| handle.get()).map(|dict| &**dict)
    }

    /// Whether the process takes no more work.
    pub fn is_ending(&self) -> bool {
        event::is_ending() || self.is_ending.load(Relaxed)
    }

    /// The right to use one VM, if one is left. Called on the loop's thread.
    pub fn seat(self: &Arc<Kit>) -> Option<Seat> {
        let mut vms = self.vms();
        if vms.seats_taken >= self.vms_max {
            return None;
        }
        vms.seats_taken += 1;
        drop(vms);
        if !self.is_watched.swap(true, Relaxed) {
            let kit = self.clone();
            event::spawn(async move {
                event::ending().await;
                kit.is_ending.store(true, Relaxed);
            });
        }
        let place = (event::role(), event::seat(), event::workers());
        Some(Seat { kit: self.clone(), spoken: SPOKEN.get(), place })
    }

    /// No code of others runs under this lock.
    fn vms(&self) -> MutexGuard<'_, Vms> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use one VM, in any thread.
pub struct Seat {
    kit: Arc<Kit>,
    /// The version that lua-resty-core speaks.
    spoken: u32,
    place: (Role, usize, usize),
}

impl Seat {
    /// Runs `f` on the stack of a VM, which is empty. A new VM searches `paths` for its modules.
    ///
    /// Errors: a VM could not be made.
    pub fn run<T>(
        self,
        paths: [&Option<Vec<u8>>; 2],
        f: impl FnOnce(&mut Stack) -> T,
    ) -> Result<T, Vec<u8>> {
        let _here = Here::begin(&self);
        let idle = self.kit.vms().idle.pop();
        let apart = idle.map_or_else(|| Apart::make(&self.kit, paths), Ok)?;
        // If `f` panics the VM is not used again.
        let out = f(&mut apart.vm.stack());
        apart.tidy();
        self.kit.vms().idle.push(apart);
        Ok(out)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.kit.vms().seats_taken -= 1;
    }
}

impl Apart {
    fn make(kit: &Kit, paths: [&Option<Vec<u8>>; 2]) -> Result<Apart, Vec<u8>> {
        let vm = Vm::alone(kit.memory_limit)?;
        boot(&mut vm.stack(), kit, paths, true)?;
        let fresh_bytes = vm.bytes();
        Ok(Apart { vm, fresh_bytes })
    }

    /// Forgets what a call has left, at once if it is much.
    fn tidy(&self) {
        let mut stack = self.vm.stack();
        stack.clear();
        if self.vm.memory.was_refused() || self.vm.bytes() > 2 * self.fresh_bytes {
            // SAFETY: the main state is valid; errors of finalizers stay in there.
            unsafe { lua_gc(stack.state(), LUA_GCCOLLECT, 0) };
        }
    }
}

/// What the thread's variables say while it runs code.
struct Here {
    _turn: Back,
}

impl Here {
    fn begin(seat: &Seat) -> Here {
        let (role, number, workers) = seat.place;
        let listeners = Vec::new();
        event::take_seat(&Post { role, seat: number, workers, multi_accept: false, listeners });
        drop(KIT.replace(Some(seat.kit.clone())));
        SPOKEN.set(seat.spoken);
        Here { _turn: Back::entering(Turn { request: None, phase: phase::THREAD }) }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        KIT.take();
        // Code may have called `ngx.update_time`.
        time::stop_ticking();
    }
}

/// Calls the function that `boot.lua` has left for threads, with what stands on the stack: the
/// results stand there instead. Errors: Lua's.
pub fn call(stack: &mut Stack) -> Result<(), Vec<u8>> {
    let (state, count) = (stack.state(), stack.top());
    stack.push_text(b"tollbar_call");
    // SAFETY: there is room, as the stack was empty but for values that had asked for some; the
    // function goes below its arguments; errors of code come back as values.
    let status = unsafe {
        lua_rawget(state, LUA_REGISTRYINDEX);
        lua_insert(state, 1);
        let _runs = crate::lua::memory::Runs::lua();
        lua_pcall(state, count as c_int, LUA_MULTRET, 0)
    };
    match status {
        LUA_OK => Ok(()),
        _ => Err(stack.text(-1).unwrap_or(b"unknown reason").to_vec()),
    }
}
