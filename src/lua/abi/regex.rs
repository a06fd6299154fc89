//! `ngx.re`: PCRE2 behind the structures that lua-resty-core reads.

use super::{ERROR, OK, SPOKEN, VERSION_OF_PCRE2, bytes, export};
use pcre2_sys::*;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// `ngx.re`'s flags.
const DFA: c_int = 0x02;
const JIT: c_int = 0x04;
/// Room of the other algorithm, as OpenResty gives it.
const DFA_WORKSPACE: usize = 100;
const NO_UTF_CHECK: c_int = 0x10;

/// Options of PCRE by their old numbers, and as they are now.
const OLD_OPTIONS: [(u32, u32); 8] = [
    (0x1, PCRE2_CASELESS),
    (0x2, PCRE2_MULTILINE),
    (0x4, PCRE2_DOTALL),
    (0x8, PCRE2_EXTENDED),
    (0x10, PCRE2_ANCHORED),
    (0x800, PCRE2_UTF),
    (0x8_0000, PCRE2_DUPNAMES),
    (0x200_0000, PCRE2_ALT_BSUX | PCRE2_ALLOW_EMPTY_CLASS | PCRE2_MATCH_UNSET_BACKREF),
];

/// A compiled expression, as lua-resty-core declares it.
#[repr(C)]
pub struct Regex {
    pool: *mut c_void,
    name_table: *const u8,
    name_count: c_int,
    name_entry_size: c_int,
    ncaptures: c_int,
    captures: *mut c_int,
    code: *mut pcre2_code_8,
    found: *mut pcre2_match_data_8,
    replace: *mut Replacement,
    pattern: *const c_char,
    /// Groups for which `captures` has room, behind what lua-resty-core knows of; so is the next.
    groups: usize,
    /// `lua_regex_match_limit`, behind what lua-resty-core knows of; null without one.
    limits: *mut pcre2_match_context_8,
}

/// A replacement, as lua-resty-core declares it: without `parts` it is `text`.
#[repr(C)]
pub struct Replacement {
    len: usize,
    text: *const u8,
    parts: *mut Template,
    values: *mut c_void,
}

impl Default for Replacement {
    fn default() -> Replacement {
        let (parts, values) = (ptr::null_mut(), ptr::null_mut());
        Replacement { len: 0, text: ptr::null(), parts, values }
    }
}

/// What a replacement is made of, and the memory of one that is only text.
pub struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
}

/// A match whose replacement is being made.
#[derive(Default)]
pub struct Engine {
    subject: usize,
    captures: Vec<(usize, usize)>,
}

export! {
    fn ngx_http_lua_ffi_pcre_version() -> *const c_char {
        match SPOKEN.get() >= VERSION_OF_PCRE2 {
            true => c"10.46 2025-08-27".as_ptr(),
            false => c"8.45 2021-06-15".as_ptr(),
        }
    }

    fn ngx_http_lua_ffi_compile_regex(
        pattern: *const u8, len: usize, flags: c_int, options: c_int, message: *mut u8,
        message_size: usize,
    ) -> *mut Regex {
        let pattern = bytes(pattern, len);
        match Regex::compile(pattern, flags, options as u32) {
            Ok(regex) => Box::into_raw(regex),
            Err(says) => {
                // The reader wants a NUL behind the text.
                let mut room = message_size.saturating_sub(1);
                super::put_message(says.as_bytes(), message, &mut room);
                if message_size > 0 {
                    message.add(room).write(0);
                }
                ptr::null_mut()
            }
        }
    }

    fn ngx_http_lua_ffi_exec_regex(
        regex: *mut Regex, flags: c_int, subject: *const u8, len: usize, at: c_int,
    ) -> c_int {
        match regex.is_null() {
            true => ERROR,
            false => (*regex).exec(flags, bytes(subject, len), at.max(0) as usize),
        }
    }

    fn ngx_http_lua_ffi_destroy_regex(regex: *mut Regex) {
        if !regex.is_null() {
            drop(Box::from_raw(regex));
        }
    }

    fn ngx_http_lua_ffi_compile_replace_template(
        regex: *mut Regex, text: *const u8, len: usize,
    ) -> c_int {
        let Some(parts) = template(bytes(text, len)) else { return ERROR };
        let parts = Box::new(Template(parts));
        let plain = match &parts.0[..] {
            [] => Some(&[][..]),
            [Part::Text(text)] => Some(&text[..]),
            _ => None,
        };
        let mut replacement = Replacement::default();
        match plain {
            Some(text) => {
                (replacement.len, replacement.text) = (text.len(), text.as_ptr());
                replacement.values = Box::into_raw(parts).cast();
            }
            None => replacement.parts = Box::into_raw(parts),
        }
        (*regex).drop_replacement();
        (*regex).replace = Box::into_raw(Box::new(replacement));
        OK
    }

    fn ngx_http_lua_ffi_create_script_engine() -> *mut Engine {
        Box::into_raw(Box::default())
    }

    fn ngx_http_lua_ffi_init_script_engine(
        engine: *mut Engine, subject: *const u8, regex: *mut Regex, count: c_int,
    ) {
        let groups = 0..count.max(0).min((*regex).ncaptures + 1) as usize;
        let at = |n: usize| *(*regex).captures.add(n);
        (*engine).subject = subject as usize;
        (*engine).captures = groups
            .map(|n| match (usize::try_from(at(2 * n)), usize::try_from(at(2 * n + 1))) {
                (Ok(start), Ok(end)) if start <= end => (start, end),
                _ => (0, 0),
            })
            .collect();
    }

    fn ngx_http_lua_ffi_destroy_script_engine(engine: *mut Engine) {
        if !engine.is_null() {
            drop(Box::from_raw(engine));
        }
    }

    fn ngx_http_lua_ffi_script_eval_len(engine: *mut Engine, replace: *mut Replacement) -> usize {
        (*engine).replacement(&(*(*replace).parts).0).len()
    }

    /// `dst` has room for the length that was asked for before.
    fn ngx_http_lua_ffi_script_eval_data(
        engine: *mut Engine, replace: *mut Replacement, dst: *mut u8,
    ) -> usize {
        let text = (*engine).replacement(&(*(*replace).parts).0);
        ptr::copy_nonoverlapping(text.as_ptr(), dst, text.len());
        text.len()
    }

    fn ngx_http_lua_ffi_set_jit_stack_size(
        _size: c_int, _message: *mut u8, _len: *mut usize,
    ) -> c_int {
        // The stack that PCRE2 takes grows by itself.
        OK
    }
}

impl Regex {
    fn compile(pattern: &[u8], flags: c_int, options: u32) -> Result<Box<Regex>, String> {
        let mut options = match SPOKEN.get() >= VERSION_OF_PCRE2 {
            true => options,
            false => {
                let set = OLD_OPTIONS.iter().filter(|(old, _)| options & old != 0);
                set.fold(0, |all, (_, new)| all | new)
            }
        };
        if flags & NO_UTF_CHECK != 0 {
            // Text that is not checked and not UTF-8 must not be read as if it were.
            options |= PCRE2_MATCH_INVALID_UTF;
        }
        let (mut error, mut error_at) = (0, 0);
        // SAFETY: the pattern lives through the call; the library copies what it keeps. The code
        // and its match data are freed with the box.
        unsafe {
            let context = ptr::null_mut();
            let (text, len) = (pattern.as_ptr(), pattern.len());
            let code = pcre2_compile_8(text, len, options, &mut error, &mut error_at, context);
            if code.is_null() {
                return Err(refusal(pattern, error, error_at));
            }
            if flags & JIT != 0 {
                // Not every expression can be; then it is interpreted.
                pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE);
            }
            let number = |what: u32| {
                let mut number = 0u32;
                pcre2_pattern_info_8(code, what, (&raw mut number).cast());
                number
            };
            let mut name_table: *const u8 = ptr::null();
            pcre2_pattern_info_8(code, PCRE2_INFO_NAMETABLE, (&raw mut name_table).cast());
            let groups = number(PCRE2_INFO_CAPTURECOUNT);
            let captures = vec![-1 as c_int; (groups as usize + 1) * 3].into_boxed_slice();
            Ok(Box::new(Regex {
                pool: ptr::null_mut(),
                name_table,
                name_count: number(PCRE2_INFO_NAMECOUNT) as c_int,
                name_entry_size: number(PCRE2_INFO_NAMEENTRYSIZE) as c_int,
                ncaptures: groups as c_int,
                captures: Box::into_raw(captures).cast(),
                code,
                found: pcre2_match_data_create_from_pattern_8(code, ptr::null_mut()),
                replace: ptr::null_mut(),
                pattern: ptr::null(),
                groups: groups as usize,
                limits: limits(super::kit().map_or(0, |kit| kit.regex_match_limit)),
            }))
        }
    }

    /// What PCRE answers: how many groups took part, or a negative number.
    fn exec(&mut self, flags: c_int, subject: &[u8], at: usize) -> c_int {
        if at > subject.len() {
            return PCRE2_ERROR_NOMATCH;
        }
        let (text, len) = (subject.as_ptr(), subject.len());
        if flags & DFA != 0 {
            return self.exec_longest(subject, at);
        }
        // SAFETY: subject and code live through the call; there are as many pairs of offsets as
        // groups and one more, in the match data as in `captures`.
        unsafe {
            let count = pcre2_match_8(self.code, text, len, at, 0, self.found, self.limits);
            if count > 0 {
                let offsets = pcre2_get_ovector_pointer_8(self.found);
                for n in 0..2 * (self.ncaptures as usize + 1) {
                    // What took no part is all ones, and becomes -1.
                    self.captures.add(n).write(*offsets.add(n) as c_int);
                }
            }
            count
        }
    }

    /// The longest match, by the algorithm that knows no groups.
    fn exec_longest(&mut self, subject: &[u8], at: usize) -> c_int {
        self.ncaptures = 0;
        let (text, len) = (subject.as_ptr(), subject.len());
        let mut workspace = [0 as c_int; DFA_WORKSPACE];
        // SAFETY: subject, code and workspace live through the call; there is room for one pair of
        // offsets at least, in the match data as in `captures`.
        unsafe {
            let (space, room) = (workspace.as_mut_ptr(), workspace.len());
            let (found, limits) = (self.found, self.limits);
            let count = pcre2_dfa_match_8(self.code, text, len, at, 0, found, limits, space, room);
            if count < 0 {
                return count;
            }
            let offsets = pcre2_get_ovector_pointer_8(self.found);
            for n in 0..2 {
                self.captures.add(n).write(*offsets.add(n) as c_int);
            }
        }
        1
    }

    fn drop_replacement(&mut self) {
        if self.replace.is_null() {
            return;
        }
        // SAFETY: both were made by `into_raw` of these types and are freed once.
        unsafe {
            let replacement = Box::from_raw(self.replace);
            let template = match replacement.parts.is_null() {
                true => replacement.values.cast::<Template>(),
                false => replacement.parts,
            };
            drop(Box::from_raw(template));
        }
        self.replace = ptr::null_mut();
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        self.drop_replacement();
        let len = (self.groups + 1) * 3;
        // SAFETY: each was made by `compile` and is freed once.
        unsafe {
            drop(Box::from_raw(ptr::slice_from_raw_parts_mut(self.captures, len)));
            pcre2_match_data_free_8(self.found);
            pcre2_match_context_free_8(self.limits);
            pcre2_code_free_8(self.code);
        }
    }
}

impl Engine {
    /// # Safety
    /// The subject that the engine was given must be there still.
    unsafe fn replacement(&self, parts: &[Part]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(n) => {
                    if let Some(&(start, end)) = self.captures.get(*n) {
                        let from = (self.subject as *const u8).wrapping_add(start);
                        // SAFETY: the caller's; the offsets are PCRE's for this subject.
                        out.extend_from_slice(unsafe { bytes(from, end - start) });
                    }
                }
            }
        }
        out
    }
}

/// What a match may cost; null for as much as PCRE allows by itself.
fn limits(matches: u32) -> *mut pcre2_match_context_8 {
    if matches == 0 {
        return ptr::null_mut();
    }
    // SAFETY: a fresh context, or null where there is no memory.
    unsafe {
        let context = pcre2_match_context_create_8(ptr::null_mut());
        if !context.is_null() {
            pcre2_set_match_limit_8(context, matches);
        }
        context
    }
}

/// `a$1b${2}c$$`; `None` for a `$` before anything else.
fn template(text: &[u8]) -> Option<Vec<Part>> {
    let (mut parts, mut plain, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some(at) = memchr::memchr(b'$', rest) {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(b"$") {
            plain.push(b'$');
            rest = behind;
            continue;
        }
        let braced = rest.strip_prefix(b"{");
        let inside = braced.unwrap_or(rest);
        let digits = inside.iter().take_while(|b| b.is_ascii_digit()).count();
        let group = std::str::from_utf8(&inside[..digits]).ok()?.parse().ok()?;
        rest = &inside[digits..];
        if braced.is_some() {
            rest = rest.strip_prefix(b"}")?;
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Group(group));
    }
    plain.extend_from_slice(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Some(parts)
}

fn refusal(pattern: &[u8], error: c_int, at: usize) -> String {
    let mut text = [0u8; 256];
    // SAFETY: no more is written than there is room for.
    let len = unsafe { pcre2_get_error_message_8(error, text.as_mut_ptr(), text.len()) };
    let says = String::from_utf8_lossy(&text[..usize::try_from(len).unwrap_or_default()]);
    let whole = String::from_utf8_lossy(pattern);
    match pattern.get(at..).filter(|rest| !rest.is_empty()) {
        None => format!("pcre2_compile() failed: {says} in \"{whole}\""),
        Some(rest) => {
            let rest = String::from_utf8_lossy(rest);
            format!("pcre2_compile() failed: {says} in \"{whole}\" at \"{rest}\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_name_groups() {
        let text = |t: &str| Part::Text(t.as_bytes().to_vec());
        assert_eq!(
            template(b"a$1b${2}$$c"),
            Some(vec![text("a"), Part::Group(1), text("b"), Part::Group(2), text("$c"),])
        );
        assert_eq!(template(b""), Some(vec![]));
        assert_eq!(template(b"$x"), None);
        assert_eq!(template(b"${1"), None);
    }
}
