//! Variables: `$name`, its meaning, and its value for one request.
//!
//! A [`Variable`] is named once while the configuration is read and resolved when it has been
//! read whole, so that a use may stand before its definition. What it costs is a call of its
//! getter; only computed ones (`map`, `geo` …) and those that `set` writes keep a value in the
//! request.

use super::Request;
use crate::conf::Reason;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// How deep variables may be made of variables, before it is taken for a circle.
const NESTING_MAX: u8 = 32;

/// A variable without parameters: appends its value, or says that it has none.
pub type Get = fn(&Request, &mut Vec<u8>) -> bool;
/// A variable whose name ends in a key: `$arg_KEY`, `$http_KEY`.
pub type GetKeyed = fn(&Request, &str, &mut Vec<u8>) -> bool;
/// What assigning to a variable does: `set $args …`.
pub type Put = fn(&mut Request, &[u8]);
/// A computed variable's rule.
pub type Rule = Rc<dyn Fn(&Request, &mut Vec<u8>) -> bool>;

/// A module's built-in variable.
pub struct Builtin {
    /// Its name, or its beginning if it is keyed (`arg_`).
    pub name: &'static str,
    /// Its meaning.
    pub get: BuiltinGet,
    /// What `set` does with it; `None` refuses redefinition.
    pub put: Option<Put>,
}

/// The two kinds of built-in variables.
pub enum BuiltinGet {
    /// One name.
    Plain(Get),
    /// A family of names.
    Keyed(GetKeyed),
}

/// A row of a module's variables: `var("host", host)`.
pub const fn var(name: &'static str, get: Get) -> Builtin {
    Builtin { name, get: BuiltinGet::Plain(get), put: None }
}
/// A family of variables: `keyed("arg_", arg)`.
pub const fn keyed(prefix: &'static str, get: GetKeyed) -> Builtin {
    Builtin { name: prefix, get: BuiltinGet::Keyed(get), put: None }
}
/// A built-in variable that `set` may assign.
pub const fn settable(name: &'static str, get: Get, put: Put) -> Builtin {
    Builtin { name, get: BuiltinGet::Plain(get), put: Some(put) }
}

enum Getter {
    Plain(Get),
    Keyed(GetKeyed, Box<str>),
    Computed(Rule),
    /// Only what `set`, a named capture or a module stored.
    Stored,
}

/// One variable of the configuration.
pub struct Variable {
    name: Box<str>,
    getter: OnceCell<Getter>,
    put: Cell<Option<Put>>,
    slot: Cell<Option<u16>>,
    no_cache: Cell<bool>,
}

/// A use of a variable.
pub type VarRef = Rc<Variable>;

impl Variable {
    /// The name without `$`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The name of a variable that a directive writes with its `$`.
pub fn name_of(text: &str) -> Result<&str, Reason> {
    let name = text.strip_prefix('$').filter(|name| !name.is_empty());
    name.ok_or_else(|| Reason::says(format!("invalid variable name \"{text}\"")))
}

/// A value kept by the request: found or known to be missing.
type Kept = Option<Rc<[u8]>>;

/// The values that one request keeps.
#[derive(Default)]
pub struct Values {
    own: List,
    /// In place of its own: those that it shares with other requests.
    shared: Option<Rc<List>>,
    depth: Cell<u8>,
}

type List = RefCell<Vec<Option<Kept>>>;

impl Values {
    /// A copy for a subrequest, which sees its parent's values.
    pub fn inherit(&self) -> Values {
        Values { own: RefCell::new(self.list().borrow().clone()), ..Values::default() }
    }

    /// The same values for a subrequest: what one of them sets the other sees.
    pub fn share(&mut self) -> Values {
        let own = &self.own;
        let shared = self.shared.get_or_insert_with(|| Rc::new(RefCell::new(own.take())));
        Values { shared: Some(shared.clone()), ..Values::default() }
    }

    fn list(&self) -> &List {
        self.shared.as_deref().unwrap_or(&self.own)
    }

    fn keep(&self, slot: u16, value: Kept) {
        let mut kept = self.list().borrow_mut();
        if kept.len() <= slot as usize {
            kept.resize(slot as usize + 1, None);
        }
        kept[slot as usize] = Some(value);
    }

    fn kept(&self, slot: u16) -> Option<Kept> {
        self.list().borrow().get(slot as usize)?.clone()
    }

    /// Forgets computed values (an internal redirect keeps them, as nginx does).
    pub fn forget(&self, variable: &Variable) {
        if let Some(slot) = variable.slot.get()
            && let Some(place) = self.list().borrow_mut().get_mut(slot as usize)
        {
            *place = None;
        }
    }
}

impl Request {
    /// Appends the value of `variable` to `out`; false if it has none (then nothing is appended).
    pub fn variable(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        if let Some(slot) = variable.slot.get()
            && let Some(kept) = self.values.kept(slot)
        {
            return kept.map(|v| out.extend_from_slice(&v)).is_some();
        }
        match variable.getter.get() {
            Some(Getter::Plain(get)) => get(self, out),
            Some(Getter::Keyed(get, key)) => get(self, key, out),
            Some(Getter::Computed(rule)) => self.compute(variable, &rule.clone(), out),
            Some(Getter::Stored) | None => {
                if self.place.location.warns_uninitialized {
                    crate::log::warn!(self, "using uninitialized \"{}\" variable", variable.name());
                }
                // It is empty, not missing.
                true
            }
        }
    }

    fn compute(&self, variable: &Variable, rule: &Rule, out: &mut Vec<u8>) -> bool {
        let depth = self.values.depth.get();
        if depth >= NESTING_MAX {
            crate::log::error!(self, "cycle while evaluating variable \"{}\"", variable.name());
            return false;
        }
        self.values.depth.set(depth + 1);
        let start = out.len();
        let found = rule(self, out);
        self.values.depth.set(depth);
        if let Some(slot) = variable.slot.get()
            && !variable.no_cache.get()
        {
            self.values.keep(slot, found.then(|| Rc::from(&out[start..])));
        }
        found
    }

    /// Assigns to a variable: `set`, a named capture, `auth_request_set`.
    pub fn set_variable(&mut self, variable: &Variable, value: &[u8]) {
        if let Some(put) = variable.put.get() {
            put(self, value);
        } else if let Some(slot) = variable.slot.get() {
            self.values.keep(slot, Some(Rc::from(value)));
        }
    }

    /// Assigns to a variable that only stores (named captures), while the request is borrowed.
    pub fn store_variable(&self, variable: &Variable, value: Option<&[u8]>) {
        if let Some(slot) = variable.slot.get() {
            self.values.keep(slot, value.map(Rc::from));
        }
    }
}

/// Every variable that the configuration names.
#[derive(Default)]
pub struct VariableTable {
    by_name: HashMap<Box<str>, VarRef>,
    families: Vec<(&'static str, GetKeyed)>,
    changeable: Vec<(&'static str, Get)>,
    slots: u16,
}

impl VariableTable {
    /// Adds a module's built-in variables; called before anything is read.
    pub fn add_builtins(&mut self, list: &'static [Builtin]) {
        for builtin in list {
            match builtin.get {
                BuiltinGet::Plain(get) => {
                    let variable = self.refer(builtin.name);
                    let _ = variable.getter.set(Getter::Plain(get));
                    variable.put.set(builtin.put);
                }
                BuiltinGet::Keyed(get) => self.families.push((builtin.name, get)),
            }
        }
    }

    /// Adds a module's variables that the configuration may define anew.
    pub fn add_changeable(&mut self, list: &'static [Builtin]) {
        for builtin in list {
            match builtin.get {
                BuiltinGet::Plain(get) => self.changeable.push((builtin.name, get)),
                BuiltinGet::Keyed(_) => unreachable!("a family is not redefined"),
            }
        }
    }

    fn default_of(&self, name: &str) -> Option<Get> {
        self.changeable.iter().find(|(known, _)| *known == name).map(|(_, get)| *get)
    }

    /// A use of `$name`, which may be defined later. Names have no letter case.
    pub fn refer(&mut self, name: &str) -> VarRef {
        let name = name.to_ascii_lowercase();
        if let Some(known) = self.by_name.get(&*name) {
            return known.clone();
        }
        let variable = Rc::new(Variable {
            name: name.as_str().into(),
            getter: OnceCell::new(),
            put: Cell::new(None),
            slot: Cell::new(None),
            no_cache: Cell::new(false),
        });
        self.by_name.insert(name.into(), variable.clone());
        variable
    }

    /// Defines `$name` as computed by `rule`; its value is kept for the request's life unless
    /// `volatile`.
    ///
    /// Errors: `the duplicate "x" variable`.
    pub fn compute(&mut self, name: &str, volatile: bool, rule: Rule) -> Result<VarRef, Reason> {
        let variable = self.refer(name);
        self.give_slot(&variable);
        variable.no_cache.set(volatile);
        match variable.getter.set(Getter::Computed(rule)) {
            Ok(()) => Ok(variable),
            Err(_) => Err(Reason::says(format!("the duplicate \"{name}\" variable"))),
        }
    }

    /// A variable that is assigned to: by `set`, a named capture, `auth_request_set`.
    ///
    /// Errors: `the duplicate "x" variable` for a built-in one that cannot be assigned.
    pub fn assign(&mut self, name: &str) -> Result<VarRef, Reason> {
        let variable = self.refer(name);
        let default = self.default_of(variable.name());
        let builtin = matches!(variable.getter.get(), Some(Getter::Plain(_)));
        if builtin && default.is_none() && variable.put.get().is_none() {
            return Err(Reason::says(format!("the duplicate \"{name}\" variable")));
        }
        if variable.put.get().is_none() {
            self.give_slot(&variable);
            // One of a family (`$arg_x`) means what it always does until it is assigned.
            let mut families = self.families.iter();
            if !families.any(|(prefix, _)| variable.name.starts_with(prefix)) {
                let _ = variable.getter.set(default.map_or(Getter::Stored, Getter::Plain));
            }
        }
        Ok(variable)
    }

    fn give_slot(&mut self, variable: &Variable) {
        if variable.slot.get().is_none() {
            variable.slot.set(Some(self.slots));
            self.slots += 1;
        }
    }

    /// All names, for those who look variables up while requests are served. To be taken when
    /// the blocks have been read.
    pub fn book(&self) -> VariableBook {
        VariableBook {
            by_name: self.by_name.clone(),
            families: self.families.clone(),
            changeable: self.changeable.clone(),
        }
    }

    /// Resolves every use; called when the configuration has been read whole.
    ///
    /// Errors: `unknown "x" variable`.
    pub fn finish(&mut self) -> Result<(), String> {
        let mut names: Vec<_> = self.by_name.values().collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        for variable in names.into_iter().filter(|v| v.getter.get().is_none()) {
            if let Some(default) = self.default_of(variable.name()) {
                let _ = variable.getter.set(Getter::Plain(default));
                continue;
            }
            let longest = self
                .families
                .iter()
                .filter(|(prefix, _)| variable.name.len() >= prefix.len())
                .filter(|(prefix, _)| variable.name.starts_with(prefix))
                .max_by_key(|(prefix, _)| prefix.len());
            let Some((prefix, get)) = longest else {
                return Err(format!("unknown \"{}\" variable", variable.name));
            };
            let _ = variable.getter.set(Getter::Keyed(*get, variable.name[prefix.len()..].into()));
        }
        Ok(())
    }
}

/// What names mean while requests are served: for programs that name variables themselves.
#[derive(Default)]
pub struct VariableBook {
    by_name: HashMap<Box<str>, VarRef>,
    families: Vec<(&'static str, GetKeyed)>,
    changeable: Vec<(&'static str, Get)>,
}

/// Why a variable was not assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAssigned {
    /// Nobody defined it.
    Unknown,
    /// Its meaning is fixed.
    Fixed,
}

impl VariableBook {
    /// Appends the value of the variable `name` (in lower case); false if it has none, or if
    /// there is no such variable.
    pub fn get(&self, r: &Request, name: &str, out: &mut Vec<u8>) -> bool {
        if let Some(variable) = self.by_name.get(name) {
            return r.variable(variable, out);
        }
        if let Some((_, get)) = self.changeable.iter().find(|(known, _)| *known == name) {
            return get(r, out);
        }
        let families = self.families.iter().filter(|(prefix, _)| name.starts_with(prefix));
        let longest = families.max_by_key(|(prefix, _)| prefix.len());
        longest.is_some_and(|(prefix, get)| get(r, &name[prefix.len()..], out))
    }

    /// Assigns to the variable `name` (in lower case).
    pub fn set(&self, r: &mut Request, name: &str, value: &[u8]) -> Result<(), NotAssigned> {
        let variable = self.by_name.get(name).ok_or(NotAssigned::Unknown)?;
        if variable.put.get().is_none() && variable.slot.get().is_none() {
            return Err(NotAssigned::Fixed);
        }
        r.set_variable(variable, value);
        Ok(())
    }
}
