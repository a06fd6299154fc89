//! OpenResty's Lua in the worker: one VM per process, the request's coroutine led by its executor,
//! and a few more VMs for what code gives to threads.
//!
//! Reading order: `conf` (the directives) · `block` (where a block of Lua ends) · `run` (what a
//! phase does with its code) · `crew` (light threads) · `timer`, `handshake` (code without a
//! request), `voice` (who speaks for it in the log) · `semaphore`, `body_filter`, `budget`,
//! `capture` (subrequests), `socket` (cosockets), `pipe` (processes) · `vm` and `coroutine` (the
//! VM, its code's runs, whose request is running) · `memory` · `abi` (what Lua calls; `abi/apart`
//! are the VMs in which threads run `ngx.run_worker_thread`) · `boot.lua` (what is written in Lua
//! itself) · `phase` (names and numbers).
//!
//! lua-resty-core, unmodified, is the larger part of the API: it is found by `lua_package_path`
//! and calls the functions `ngx_http_lua_ffi_*` that the executable exports. The rest of `ngx` are
//! C functions of `abi` and Lua of `boot.lua`.
//!
//! **Invariant:** `unsafe` stands in `vm`, `coroutine`, `memory` and `abi` only. Lua holds the
//! request by a pointer that is never followed: what a call works on is the request whose code runs
//! now, or none. No panic crosses into Lua, and no error of Lua is raised over a frame that has
//! something to drop.

mod abi;
mod block;
mod body_filter;
mod budget;
mod capture;
pub mod conf;
mod coroutine;
mod crew;
mod handshake;
mod memory;
mod phase;
mod pipe;
mod run;
mod socket;
mod semaphore;
mod timer;
mod vm;
mod voice;
