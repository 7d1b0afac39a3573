//! Constants that functions of the file are called with.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    value::{Constant, Value},
};
use crate::ir::Range;

/// Calls of one function whose constants are remembered.
pub(super) const MAX_GIVEN: usize = 4;

impl<'p> Flow<'p, '_> {
    /// Remembers which constants a function of the file is called with.
    pub(super) fn note_constants(&mut self, number: usize, call: &Call<'p>) {
        if self.has_objects() {
            self.note_requests(number, call);
        }
        let ruby = self.language == Language::Ruby;
        let python = self.language == Language::Python;
        if !self.is_typed() && !python && !ruby {
            return;
        }
        let function = &self.program.functions[number];
        let mut any = false;
        let values: Vec<Option<Value<'p>>> = call
            .args
            .iter()
            .take(function.params.len())
            .map(|(_, _, value)| {
                let known = value.constant.is_some_and(|constant| constant != Constant::Null)
                    || !python && value.full_text().is_some()
                    || value
                        .path
                        .as_deref()
                        .is_some_and(|path| path.contains('+') || (ruby && is_constant(path)));
                any |= known;
                known.then(|| Value { alias: None, test: None, ..value.clone() })
            })
            .collect();
        for (param, value) in function.params.iter().zip(&values) {
            if let Some(text) = value.as_ref().and_then(Value::full_text) {
                self.check_given(param.name, text, call.range);
            }
        }
        let known = self.given.entry(number).or_default();
        if any && known.len() < MAX_GIVEN {
            known.push(values);
        }
    }

    /// A text constant that is given for a parameter of a function of the file.
    pub(super) fn check_given(&mut self, name: &str, text: &str, range: Range) {
        let index = self.index;
        for (rule, model) in index.literals.iter().filter(|(_, model)| model.field) {
            let excepted = model.except.as_ref().is_some_and(|except| except.is_match(text))
                || model.except_name.as_ref().is_some_and(|except| except.is_match(name));
            let fits = model.value.as_ref().is_none_or(|pattern| pattern.is_match(text));
            if !text.is_empty() && !excepted && fits && model.name.is_match(name) {
                self.alert_here(*rule, range);
            }
        }
    }

    /// Runs functions once more with the constants they are called with: what they do with them is wrong there.
    pub(super) fn with_constants(&mut self) {
        for _ in 0..2 {
            for (number, calls) in std::mem::take(&mut self.given) {
                for constants in calls {
                    self.function_with(number, Some(&constants));
                }
            }
        }
    }
}

/// Whether a path ends in a constant such as `VERIFY_NONE`.
pub(super) fn is_constant(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.len() > 1 && last.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}
