//! What each variable holds at one point of the program.

use std::collections::BTreeMap;

use super::value::Value;
use crate::ir::Expr;

/// Variables, fields and elements by their places.
#[derive(Clone, Debug, Default)]
pub(crate) struct State<'p> {
    vars: BTreeMap<String, Value<'p>>,
}

impl<'p> State<'p> {
    pub(crate) fn get(&self, place: &str) -> Option<&Value<'p>> {
        self.vars.get(place)
    }

    /// A new value for a place; what was known of its parts is gone.
    pub(crate) fn set(&mut self, place: &str, value: Value<'p>) {
        self.forget_parts(place);
        self.vars.insert(place.to_owned(), value);
    }

    /// The value may have been added to what the place holds.
    pub(crate) fn add(&mut self, place: &str, value: &Value<'p>) {
        let known = self.vars.entry(place.to_owned()).or_default();
        known.absorb(value);
        if known.text.is_some() {
            known.text = None;
        }
    }

    pub(crate) fn remove(&mut self, place: &str) {
        self.forget_parts(place);
        self.vars.remove(place);
    }

    fn forget_parts(&mut self, place: &str) {
        let stale: Vec<String> = self
            .vars
            .range(place.to_owned()..)
            .take_while(|(key, _)| key.starts_with(place))
            .filter(|(key, _)| matches!(key.as_bytes().get(place.len()), Some(b'.' | b'[')))
            .map(|(key, _)| key.clone())
            .collect();
        for key in stale {
            self.vars.remove(&key);
        }
    }

    /// Marks a place, and what it was copied from, clean of some rules. `current` is what the place evaluates to.
    pub(crate) fn clean(&mut self, place: &str, bits: u128, current: Value<'p>) {
        let mut place = place.to_owned();
        let mut current = current;
        for _ in 0..3 {
            let value = self.vars.entry(place.clone()).or_insert_with(|| current.clone());
            value.clean(bits);
            let Some(alias) =
                value.alias.as_deref().filter(|alias| *alias != place).map(str::to_owned)
            else {
                return;
            };
            match self.vars.get(&alias) {
                Some(origin) => current = origin.clone(),
                None => return,
            }
            place = alias;
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        // A part (`x.a`, `x[k]`) known on one side alone stays only if it adds taint: clean there is not clean here.
        let adds = |place: &str, value: &Value<'p>| {
            !place.contains(['.', '[', '*']) || value.atoms().iter().any(|atom| atom.clean == 0)
        };
        self.vars.retain(|place, value| other.vars.contains_key(place) || adds(place, value));
        for (place, theirs) in other.vars {
            match self.vars.get_mut(&place) {
                Some(ours) => ours.join(&theirs),
                None if adds(&place, &theirs) => {
                    self.vars.insert(place, theirs);
                }
                None => {}
            }
        }
    }

    /// The test whose outcome a variable holds; it is told once.
    pub(crate) fn take_test(&mut self, place: &str) -> Option<&'p Expr<'p>> {
        self.vars.get_mut(place).and_then(|value| value.test.take())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value<'p>)> {
        self.vars.iter()
    }
}
