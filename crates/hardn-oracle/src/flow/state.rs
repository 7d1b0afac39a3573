//! What each variable holds at one point of the program.

use std::{collections::BTreeMap, ops::Bound, rc::Rc};

use super::value::Value;
use crate::ir::Expr;

/// Variables, fields and elements by their places. Copies share what neither changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct State<'p> {
    vars: Rc<BTreeMap<Rc<str>, Value<'p>>>,
}

impl<'p> State<'p> {
    pub(crate) fn get(&self, place: &str) -> Option<&Value<'p>> {
        self.vars.get(place)
    }

    /// A new value for a place; what was known of its parts is gone.
    pub(crate) fn set(&mut self, place: &str, value: Value<'p>) {
        self.forget_parts(place);
        let vars = Rc::make_mut(&mut self.vars);
        match vars.get_mut(place) {
            Some(known) => *known = value,
            None => {
                vars.insert(Rc::from(place), value);
            }
        }
    }

    /// The value may have been added to what the place holds.
    pub(crate) fn add(&mut self, place: &str, value: &Value<'p>) {
        let known = self.entry(place, Value::default);
        known.absorb(value);
        known.text = None;
    }

    pub(crate) fn remove(&mut self, place: &str) {
        self.forget_parts(place);
        if self.vars.contains_key(place) {
            Rc::make_mut(&mut self.vars).remove(place);
        }
    }

    fn entry(&mut self, place: &str, make: impl FnOnce() -> Value<'p>) -> &mut Value<'p> {
        Rc::make_mut(&mut self.vars).entry(Rc::from(place)).or_insert_with(make)
    }

    fn forget_parts(&mut self, place: &str) {
        let after = (Bound::Excluded(place), Bound::Unbounded);
        let stale: Vec<Rc<str>> = self
            .vars
            .range::<str, _>(after)
            .take_while(|(key, _)| key.starts_with(place))
            .filter(|(key, _)| matches!(key.as_bytes().get(place.len()), Some(b'.' | b'[')))
            .map(|(key, _)| Rc::clone(key))
            .collect();
        for key in stale {
            Rc::make_mut(&mut self.vars).remove(&key);
        }
    }

    /// Marks a place, and what it was copied from, clean of some rules. `current` is what the place evaluates to.
    pub(crate) fn clean(&mut self, place: &str, bits: u128, current: Value<'p>) {
        let mut place: Rc<str> = Rc::from(place);
        let mut current = current;
        for _ in 0..3 {
            let value = self.entry(&place, || current.clone());
            value.clean(bits);
            let Some(alias) = value.alias.clone().filter(|alias| *alias != place) else { return };
            match self.vars.get(&alias) {
                Some(origin) => current = origin.clone(),
                None => return,
            }
            place = alias;
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        if Rc::ptr_eq(&self.vars, &other.vars) {
            return;
        }
        // A part (`x.a`, `x[k]`) known on one side alone stays only if it adds taint: clean there is not clean here.
        let adds = |place: &str, value: &Value<'p>| {
            !place.contains(['.', '[', '*']) || value.atoms().iter().any(|atom| atom.clean == 0)
        };
        let vars = Rc::make_mut(&mut self.vars);
        vars.retain(|place, value| other.vars.contains_key(place) || adds(place, value));
        for (place, theirs) in other.vars.iter() {
            match vars.get_mut(place) {
                Some(ours) => ours.join(theirs),
                None if adds(place, theirs) => {
                    vars.insert(Rc::clone(place), theirs.clone());
                }
                None => {}
            }
        }
    }

    /// The test whose outcome a variable holds; it is told once.
    pub(crate) fn take_test(&mut self, place: &str) -> Option<&'p Expr<'p>> {
        self.vars.get(place).and_then(|value| value.test)?;
        Rc::make_mut(&mut self.vars).get_mut(place).and_then(|value| value.test.take())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value<'p>)> {
        self.vars.iter().map(|(place, value)| (place.as_ref(), value))
    }
}
