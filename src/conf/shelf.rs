//! What setters of different modules share while a configuration is read, found by its type:
//! the table of variables, the wanted zones, the names of upstreams.

use std::any::{Any, TypeId};
use std::collections::HashMap;

/// One value of each type, made when it is first asked for.
#[derive(Default)]
pub struct Shelf(HashMap<TypeId, Box<dyn Any>>);

impl Shelf {
    /// The shared value of type `T`.
    pub fn of<T: Default + 'static>(&mut self) -> &mut T {
        self.0
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::<T>::default())
            .downcast_mut()
            .expect("stored under its own type")
    }

    /// Takes the value off the shelf; the next `of` starts anew.
    pub fn take<T: Default + 'static>(&mut self) -> T {
        std::mem::take(self.of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_value() {
        let mut shelf = Shelf::default();
        shelf.of::<Vec<u8>>().push(1);
        shelf.of::<Vec<u8>>().push(2);
        assert!(shelf.of::<String>().is_empty());
        assert_eq!(shelf.take::<Vec<u8>>(), [1, 2]);
        assert!(shelf.of::<Vec<u8>>().is_empty());
    }
}
