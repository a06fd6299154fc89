//! Values that are copied from one VM to another.
//!
//! Deliberately absent: functions, userdata, cdata and metatables, which belong to their VM. A
//! table that stands in two places becomes two.

use crate::lua::vm::{Stack, Value};
use mlua_sys::*;
use std::ffi::c_int;

/// How deep tables may stand in one another, as in OpenResty.
const DEPTH_MAX: usize = 100;
/// Keys and values of all that is copied for one call, and the bytes of their strings.
const VALUES_MAX: usize = 1 << 20;
const BYTES_MAX: usize = 256 << 20;

/// A value of no VM.
pub enum Copied {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    /// A light userdata, as `ngx.null` is.
    Pointer(usize),
    /// How long its sequence is, and all pairs.
    Table(usize, Vec<(Copied, Copied)>),
}

/// Takes the values of one call.
#[derive(Default)]
pub struct Copier {
    values: usize,
    bytes: usize,
}

impl Copier {
    /// Copies what stands at `at` (an absolute index). Errors: why it cannot be.
    pub fn take(&mut self, stack: &mut Stack, at: c_int) -> Result<Copied, &'static str> {
        match stack.kind(at) {
            LUA_TNIL => Ok(Copied::Nil),
            _ => self.value(stack, at, 1),
        }
    }

    fn value(
        &mut self,
        stack: &mut Stack,
        at: c_int,
        depth: usize,
    ) -> Result<Copied, &'static str> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err("too many values");
        }
        Ok(match stack.kind(at) {
            LUA_TBOOLEAN => Copied::Bool(stack.truth(at)),
            LUA_TNUMBER => Copied::Number(stack.number(at).unwrap_or_default()),
            LUA_TLIGHTUSERDATA => {
                // SAFETY: any index is accepted; nobody follows the pointer.
                Copied::Pointer(unsafe { lua_touserdata(stack.state(), at) } as usize)
            }
            LUA_TSTRING => {
                let text = stack.text(at).unwrap_or_default().to_vec();
                self.bytes += text.len();
                if self.bytes > BYTES_MAX {
                    return Err("too many bytes");
                }
                Copied::Text(text)
            }
            LUA_TTABLE if depth >= DEPTH_MAX => {
                return Err("suspicious circular references, table depth exceed max depth: 100");
            }
            LUA_TTABLE => self.table(stack, at, depth)?,
            LUA_TNIL => return Err("unsupported Lua type: LUA_TNIL"),
            LUA_TFUNCTION => return Err("unsupported Lua type: LUA_TFUNCTION"),
            LUA_TUSERDATA => return Err("unsupported Lua type: LUA_TUSERDATA"),
            LUA_TTHREAD => return Err("unsupported Lua type: LUA_TTHREAD"),
            _ => return Err("unsupported Lua type"),
        })
    }

    fn table(
        &mut self,
        stack: &mut Stack,
        at: c_int,
        depth: usize,
    ) -> Result<Copied, &'static str> {
        if !stack.has_room(3) {
            return Err("stack overflow");
        }
        let (top, mut pairs) = (stack.top(), Vec::new());
        let length = stack.len(at);
        stack.push_nil();
        // SAFETY: there is a table at `at`, and on top nil or a key of it; nothing changes the
        // table meanwhile.
        while unsafe { lua_next(stack.state(), at) } != 0 {
            let key = self.value(stack, top + 1, depth + 1);
            match key.and_then(|key| Ok((key, self.value(stack, top + 2, depth + 1)?))) {
                Ok(pair) => pairs.push(pair),
                Err(why) => {
                    stack.pop(2);
                    return Err(why);
                }
            }
            stack.pop(1);
        }
        Ok(Copied::Table(length, pairs))
    }
}

impl Copied {
    /// Pushes it. False: there is no room for it.
    pub fn push_onto(&self, stack: &mut Stack) -> bool {
        // A table stands there with a key and a value.
        if !stack.has_room(3) {
            return false;
        }
        match self {
            Copied::Nil => stack.push_nil(),
            Copied::Bool(yes) => stack.push_truth(*yes),
            Copied::Number(n) => stack.push(&Value::Number(*n)),
            Copied::Text(text) => stack.push_text(text),
            Copied::Pointer(at) => stack.push_pointer(*at),
            Copied::Table(length, pairs) => return push_table(stack, *length, pairs),
        }
        true
    }
}

fn push_table(stack: &mut Stack, length: usize, pairs: &[(Copied, Copied)]) -> bool {
    let length = length.min(pairs.len());
    let (state, top) = (stack.state(), stack.top());
    // SAFETY: there is room; whatever is pushed above the table is taken off again.
    unsafe { lua_createtable(state, length as c_int, (pairs.len() - length) as c_int) };
    for (key, value) in pairs {
        if !(key.push_onto(stack) && value.push_onto(stack)) {
            stack.pop(stack.top() - top - 1);
            return false;
        }
        // SAFETY: the table stands below one key, which was a table's and is no nil, and its value.
        unsafe { lua_rawset(state, top + 1) };
    }
    true
}

/// What the package library of this VM searches now: `path` and `cpath`.
pub fn package_paths(stack: &mut Stack) -> [Option<Vec<u8>>; 2] {
    let (state, top) = (stack.state(), stack.top());
    if !stack.has_room(3) {
        return [None, None];
    }
    stack.push_text(b"package");
    // SAFETY: the globals are a table, and the name is on top.
    unsafe { lua_rawget(state, LUA_GLOBALSINDEX) };
    let paths = ["path", "cpath"].map(|name| {
        if stack.kind(top + 1) != LUA_TTABLE {
            return None;
        }
        super::handle::push_field(stack, top + 1, name);
        let path = stack.text(-1).map(<[u8]>::to_vec);
        stack.pop(1);
        path
    });
    stack.pop(1);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::vm::Vm;
    use std::ffi::CString;

    /// Copies what `source` returns into another VM, where `check` sees it as `...`.
    fn copy(source: &str, check: &str) -> Result<(), &'static str> {
        let (from, to) = (Vm::alone(None).unwrap(), Vm::alone(None).unwrap());
        let run = |vm: &Vm, code: &str, arguments: &[Copied]| {
            let mut stack = vm.stack();
            let name = CString::new(code).unwrap();
            // SAFETY: the state is valid, and the chunk stands below its arguments.
            unsafe {
                assert_eq!(luaL_loadstring(stack.state(), name.as_ptr()), LUA_OK, "{code}");
                assert!(arguments.iter().all(|value| value.push_onto(&mut stack)));
                let count = arguments.len() as c_int;
                let ran = lua_pcall(stack.state(), count, LUA_MULTRET, 0);
                assert_eq!(ran, LUA_OK, "{}", String::from_utf8_lossy(stack.text(-1).unwrap()));
            }
        };
        run(&from, source, &[]);
        let mut stack = from.stack();
        let mut copier = Copier::default();
        let values: Result<Vec<_>, _> =
            (1..=stack.top()).map(|at| copier.take(&mut stack, at)).collect();
        let top = stack.top();
        run(&to, &format!("local a, b, c, d, e = ... assert({check})"), &values?);
        assert_eq!(stack.top(), top);
        Ok(())
    }

    #[test]
    fn values_are_the_same_there() {
        let plain = "return nil, true, 1.5, 'x\\0y'";
        copy(plain, "a == nil and b == true and c == 1.5 and d == 'x\\0y'").unwrap();
        let nested = "local t = { 1, 2, { x = { [true] = 'z' } }, [-1] = 0.5 } return t, t, {}";
        let check = "a[2] == 2 and a[3].x[true] == 'z' and a[-1] == 0.5 and #b == 3 and a ~= b \
                     and next(c) == nil";
        copy(nested, check).unwrap();
        copy("return 1, '1', {[1] = 1}", "a == 1 and b == '1' and c[1] == 1").unwrap();
        copy("return setmetatable({ 1 }, { __index = error })", "a.x == nil").unwrap();
    }

    #[test]
    fn what_belongs_to_its_vm_is_refused() {
        let refused = |source: &str| copy(source, "false").unwrap_err();
        assert_eq!(refused("return print"), "unsupported Lua type: LUA_TFUNCTION");
        assert_eq!(refused("return { { io.stdout } }"), "unsupported Lua type: LUA_TUSERDATA");
        let thread = "return { [coroutine.create(print)] = 1 }";
        assert_eq!(refused(thread), "unsupported Lua type: LUA_TTHREAD");
        assert_eq!(refused("return require('ffi').new('int64_t')"), "unsupported Lua type");
        let deep = "suspicious circular references, table depth exceed max depth: 100";
        assert_eq!(refused("local t = {} t.t = t return t"), deep);
        let chain = |n| format!("local t = {{}} for i = 2, {n} do t = {{ t }} end return t");
        assert_eq!(refused(&chain(100)), deep);
        copy(&chain(99), "type(a) == 'table'").unwrap();
        // What would double a hundred times.
        let wide = "local t = {} t.a, t.b = t, { t } return t";
        assert!(copy(wide, "false").is_err());
        assert_eq!(
            refused("local t = {} for i = 1, 1e6 do t[i] = i end return t"),
            "too many values"
        );
    }
}
