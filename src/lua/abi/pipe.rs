//! `ngx.pipe`, as lua-resty-core calls it.
//!
//! A process is known to Lua by a number in its cdata, which is looked up and never followed.

use super::{
    AGAIN, BAD_CONTEXT, DECLINED, ERROR, OK, R, bytes, export, may_wait, put, put_message,
};
use crate::lua::pipe::{self, Output, Process};
use crate::lua::socket::{Want, words};
use crate::lua::vm;
use crate::sys::child::Order;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::rc::Rc;
use std::time::Duration;

/// What Lua holds: the cdata that lua-resty-core declares.
#[repr(C)]
pub struct Proc {
    pid: c_int,
    write_timeout_ms: usize,
    stdout_timeout_ms: usize,
    stderr_timeout_ms: usize,
    wait_timeout_ms: usize,
    /// 0: there is no process.
    number: usize,
}

thread_local! {
    static PROCESSES: RefCell<HashMap<usize, Rc<Process>>> = RefCell::default();
    static LAST: Cell<usize> = const { Cell::new(0) };
}

fn find(proc: &Proc) -> Option<Rc<Process>> {
    PROCESSES.with_borrow(|all| all.get(&proc.number).cloned())
}

fn ms(time: usize) -> Duration {
    Duration::from_millis(time as u64)
}

/// Where an error goes.
#[derive(Clone, Copy)]
struct Complaint {
    to: *mut u8,
    len: *mut usize,
}

impl Complaint {
    /// Says why, for a function that answers with `code`.
    fn say(self, why: impl AsRef<[u8]>, code: c_int) -> c_int {
        // SAFETY: lua-resty-core passes a buffer and its length.
        unsafe { put_message(why.as_ref(), self.to, self.len) }
        code
    }
}

/// The strings of a list that ends in a null pointer.
///
/// # Safety
/// The list and its strings must be readable.
unsafe fn strings(mut list: *const *const c_char) -> Vec<CString> {
    let mut all = Vec::new();
    // SAFETY: the caller's; the list is left at its null.
    unsafe {
        while !list.is_null() && !(*list).is_null() {
            all.push(CStr::from_ptr(*list).to_owned());
            list = list.add(1);
        }
    }
    all
}

/// Hands Lua what a read came to; a buffer that is too small is told so by a null in its place.
///
/// # Safety
/// `*size` bytes from `*buf` on must be writable.
unsafe fn fetch(
    process: &Process,
    from: Output,
    buf: *mut *mut u8,
    size: *mut usize,
    complaint: Complaint,
) -> c_int {
    let Some(outlet) = process.outlet(from) else { return complaint.say("closed", ERROR) };
    // SAFETY: the caller's; no more is written than fits.
    unsafe {
        match outlet.fetch(*size) {
            Ok(read) => {
                std::ptr::copy_nonoverlapping(read.bytes.as_ptr(), *buf, read.bytes.len());
                put(size, read.bytes.len());
                match read.fault {
                    Some(fault) => complaint.say(fault.text().as_bytes(), DECLINED),
                    None => OK,
                }
            }
            Err(length) => {
                put(buf, std::ptr::null_mut());
                put(size, length);
                match outlet.fault() {
                    Some(why) => complaint.say(why.as_bytes(), DECLINED),
                    None => OK,
                }
            }
        }
    }
}

fn output(from_stderr: c_int) -> Output {
    if from_stderr == 0 { Output::Stdout } else { Output::Stderr }
}

export! {
    fn ngx_http_lua_ffi_pipe_spawn(
        _r: R, proc: *mut Proc, file: *const c_char, arguments: *const *const c_char,
        merges_stderr: c_int, buffer_bytes: usize, environment: *const *const c_char,
        message: *mut u8, len: *mut usize,
    ) -> c_int {
        let complaint = Complaint { to: message, len };
        if !crate::event::is_running() {
            return complaint.say("no event loop", ERROR);
        }
        let (list, variables) = (strings(arguments), strings(environment));
        let order = Order {
            file: CStr::from_ptr(file),
            words: &list,
            environment: (!environment.is_null()).then_some(&variables),
            merges_stderr: merges_stderr != 0,
        };
        let process = match Process::start(&order, buffer_bytes) {
            Ok(process) => process,
            Err(not) => {
                let why = words(&not.error);
                return complaint.say(format!("{} failed: {why}", not.what), ERROR);
            }
        };
        let number = LAST.replace(LAST.get() + 1) + 1;
        (*proc).pid = process.pid() as c_int;
        (*proc).number = number;
        PROCESSES.with_borrow_mut(|all| all.insert(number, process));
        OK
    }

    fn ngx_http_lua_ffi_pipe_proc_read(
        _r: R, proc: *mut Proc, from_stderr: c_int, kind: c_int, length: usize,
        buf: *mut *mut u8, size: *mut usize, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let complaint = Complaint { to: message, len };
        if let Err(says) = may_wait() {
            return complaint.say(says, BAD_CONTEXT);
        }
        let Some(process) = find(&*proc) else { return complaint.say("closed", ERROR) };
        let want = match kind {
            0 => Want::All,
            1 => Want::Exactly(length),
            2 => Want::Line { looked_at: 0 },
            _ => Want::Any(length),
        };
        let (from, timeout) = match output(from_stderr) {
            Output::Stdout => (Output::Stdout, (*proc).stdout_timeout_ms),
            Output::Stderr => (Output::Stderr, (*proc).stderr_timeout_ms),
        };
        match pipe::read(&process, from, want, ms(timeout)) {
            Err(why) => complaint.say(why, ERROR),
            Ok(None) => fetch(&process, from, buf, size, complaint),
            Ok(Some(operation)) => {
                vm::wait_soon(operation);
                AGAIN
            }
        }
    }

    fn ngx_http_lua_ffi_pipe_get_read_result(
        _r: R, proc: *mut Proc, from_stderr: c_int, buf: *mut *mut u8, size: *mut usize,
        message: *mut u8, len: *mut usize,
    ) -> c_int {
        let complaint = Complaint { to: message, len };
        match find(&*proc) {
            Some(process) => fetch(&process, output(from_stderr), buf, size, complaint),
            None => complaint.say("closed", ERROR),
        }
    }

    fn ngx_http_lua_ffi_pipe_proc_write(
        _r: R, proc: *mut Proc, data: *const u8, length: usize, message: *mut u8, len: *mut usize,
    ) -> isize {
        let complaint = Complaint { to: message, len };
        if let Err(says) = may_wait() {
            return complaint.say(says, BAD_CONTEXT) as isize;
        }
        let Some(process) = find(&*proc) else { return complaint.say("closed", ERROR) as isize };
        match pipe::write(&process, bytes(data, length), ms((*proc).write_timeout_ms)) {
            Err(why) => complaint.say(why.as_bytes(), ERROR) as isize,
            Ok(None) => length as isize,
            Ok(Some(operation)) => {
                vm::wait_soon(operation);
                AGAIN as isize
            }
        }
    }

    fn ngx_http_lua_ffi_pipe_get_write_result(
        _r: R, proc: *mut Proc, message: *mut u8, len: *mut usize,
    ) -> isize {
        let complaint = Complaint { to: message, len };
        let Some(process) = find(&*proc) else { return complaint.say("closed", ERROR) as isize };
        match process.inlet().take_result() {
            Ok(length) => length as isize,
            Err(fault) => complaint.say(fault.text().as_bytes(), ERROR) as isize,
        }
    }

    fn ngx_http_lua_ffi_pipe_proc_shutdown_stdin(
        proc: *mut Proc, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let open = find(&*proc).filter(|process| !process.is_closed());
        match open {
            Some(process) => {
                process.inlet().shut();
                OK
            }
            None => Complaint { to: message, len }.say("closed", ERROR),
        }
    }

    fn ngx_http_lua_ffi_pipe_proc_shutdown_stdout(
        proc: *mut Proc, message: *mut u8, len: *mut usize,
    ) -> c_int {
        shut(&*proc, Output::Stdout, Complaint { to: message, len })
    }

    fn ngx_http_lua_ffi_pipe_proc_shutdown_stderr(
        proc: *mut Proc, message: *mut u8, len: *mut usize,
    ) -> c_int {
        shut(&*proc, Output::Stderr, Complaint { to: message, len })
    }

    fn ngx_http_lua_ffi_pipe_proc_wait(
        _r: R, proc: *mut Proc, reason: *mut *const c_char, status: *mut c_int,
        message: *mut u8, len: *mut usize,
    ) -> c_int {
        let complaint = Complaint { to: message, len };
        if let Err(says) = may_wait() {
            return complaint.say(says, BAD_CONTEXT);
        }
        let Some(process) = find(&*proc) else { return complaint.say("exited", ERROR) };
        match pipe::wait(&process, ms((*proc).wait_timeout_ms)) {
            Err(why) => complaint.say(why, ERROR),
            Ok(Ok(end)) => {
                let (told, number) = end.told();
                put(reason, told.as_ptr());
                put(status, number);
                if number == 0 { OK } else { DECLINED }
            }
            Ok(Err(operation)) => {
                vm::wait_soon(operation);
                AGAIN
            }
        }
    }

    fn ngx_http_lua_ffi_pipe_proc_kill(
        proc: *mut Proc, signal: c_int, message: *mut u8, len: *mut usize,
    ) -> c_int {
        let process = find(&*proc);
        let done = process.map_or(Err("exited".into()), |process| pipe::kill(&process, signal));
        match done {
            Ok(()) => OK,
            Err(why) => Complaint { to: message, len }.say(why, ERROR),
        }
    }

    /// The collector's finalizer.
    fn ngx_http_lua_ffi_pipe_proc_destroy(proc: *mut Proc) {
        let number = std::mem::take(&mut (*proc).number);
        // At the end of the thread there is no table any more, and no process.
        let gone = PROCESSES.try_with(|all| all.borrow_mut().remove(&number));
        if let Ok(Some(process)) = gone {
            process.destroy();
        }
    }
}

fn shut(proc: &Proc, from: Output, complaint: Complaint) -> c_int {
    let Some(process) = find(proc).filter(|process| !process.is_closed()) else {
        return complaint.say("closed", ERROR);
    };
    match process.outlet(from) {
        Some(outlet) => {
            outlet.shut();
            OK
        }
        None => complaint.say("merged to stdout", ERROR),
    }
}
