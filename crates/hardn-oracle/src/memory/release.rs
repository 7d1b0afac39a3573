//! What frees and what allocates, told by names where the functions are not at hand; fields that keep what was freed.

use super::{
    Memory,
    eval::{describe, is_macro_name},
    state::{Cell, Freed, Null, State},
};
use crate::{
    engine::Mode,
    ir::{Arg, Expr, ExprKind, Range},
    rules::MemoryCheck,
};

/// Words in names of functions that end what they are handed.
const ENDS: [&str; 5] = ["free", "destroy", "dispose", "delete", "release"];

/// With these words beside, it is not memory that ends.
const NOT_MEMORY: [&str; 12] = [
    "lock",
    "unlock",
    "mutex",
    "spin",
    "sem",
    "semaphore",
    "sock",
    "region",
    "ref",
    "list",
    "key",
    "buffers",
];

/// Words in names of functions that give fresh memory, or nothing.
const FRESH: [&str; 6] = ["malloc", "calloc", "realloc", "malloca", "strdup", "memdup"];

/// With one of these words, a function that is not at hand gives as many bytes as its last argument says.
const ALLOCATORS: [&str; 5] = ["alloc", "malloc", "malloca", "zalloc", "acquire"];

/// With these words, failure ends the program or throws.
const NEVER_FAILS: [&str; 12] = [
    "x", "g", "safe", "must", "die", "nofail", "checked", "palloc", "pcalloc", "zmalloc",
    "emalloc", "perl",
];

/// Functions that clean up: what they leave behind is not used again.
const CLEANERS: [&str; 12] = [
    "destroy", "close", "fini", "exit", "cleanup", "delete", "dtor", "uninit", "shutdown",
    "deinit", "dispose", "teardown",
];

/// Words in names of functions that read or take apart what someone else wrote.
const READERS: [&str; 8] =
    ["read", "get", "parse", "decode", "recv", "receive", "fetch", "extract"];

/// Words in names of functions that do not come back.
const ENDINGS: [&str; 8] = ["bail", "die", "panic", "croak", "abort", "raise", "raisef", "fatal"];

/// A function that, by its name, frees its only argument.
pub(super) fn ends_argument(name: &str, args: &[Arg<'_>]) -> bool {
    let [only] = args else { return false };
    matches!(only.value.peeled().kind, ExprKind::Name(_) | ExprKind::Attribute { .. })
        && has_word(name, &ENDS)
        && !has_word(name, &NOT_MEMORY)
}

/// A function that, by its name, allocates and may fail.
pub(super) fn may_give_nothing(name: &str) -> bool {
    has_word(name, &FRESH)
        && !has_word(name, &NEVER_FAILS)
        && !name.starts_with("xm")
        && !name.starts_with("xs")
        && !name.starts_with("xc")
}

/// A function that, by its name, gives as many bytes as its only argument, or its last, says.
pub(super) fn allocates_last(name: &str, args: &[Arg<'_>]) -> bool {
    has_word(name, &ALLOCATORS) && (1..=2).contains(&args.len())
}

/// A function that, by its name, gives what someone else wrote.
pub(super) fn reads_input(name: &str) -> bool {
    has_word(name, &READERS)
}

/// A function or macro that, by its name, does not come back.
pub(super) fn ends_function(expr: &Expr<'_>) -> bool {
    let ExprKind::Call { callee, .. } = &expr.kind else { return false };
    let ExprKind::Name(name) = callee.kind else { return false };
    has_word(name, &ENDINGS)
        || name.starts_with("fatal")
        || is_macro_name(name) && has_word(name, &["return", "throw", "goto"])
        || name.starts_with("Throw") && name.ends_with("Exception")
}

/// Whether one of these is a word of a name: `box_free`, `BoxFree`, `freeBox`.
pub(super) fn has_word(name: &str, wanted: &[&str]) -> bool {
    let mut word = String::new();
    let mut before = ' ';
    for c in name.chars().chain(['_']) {
        let starts = c == '_' || (c.is_ascii_uppercase() && !before.is_ascii_uppercase());
        if starts && !word.is_empty() {
            if wanted.contains(&word.as_str()) {
                return true;
            }
            word.clear();
        }
        if c != '_' {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    false
}

impl<'p> Memory<'p, '_> {
    /// A function whose name says so ends what its argument points to.
    pub(super) fn end_by_name(
        &mut self,
        target: &'p Expr<'p>,
        cell: &Cell,
        name: &str,
        range: Range,
        state: &mut State,
    ) {
        let Some(id) = cell.object.filter(|_| cell.null != Null::Yes) else { return };
        let object = state.object_mut(id);
        let again = object.freed != Freed::No
            && object.ended_by.as_deref().is_none_or(|before| before == name);
        let at = object.freed_at;
        object.freed = Freed::Yes;
        object.freed_at = range;
        object.ended_by = Some(name.into());
        if again {
            self.alert(
                MemoryCheck::DoubleFree,
                range,
                format!("`{}` was freed before", describe(target)),
                vec![(at, "is freed here".to_owned())],
            );
        }
    }

    /// At the end of a function: what its caller can reach must not keep what was freed.
    pub(super) fn check_left_behind(&mut self, value: &'p Expr<'p>, range: Range, state: &State) {
        if self.mode != Mode::Snippet || has_word(self.name, &CLEANERS) {
            return;
        }
        let mut found = None;
        for (place, cell) in state.fields() {
            let root = root_of(place);
            let reachable = self.params.contains(root) || self.scope.has_global(root);
            if !reachable || self.locals.contains(root) || cell.null == Null::Yes {
                continue;
            }
            let Some(object) = state.object(cell.object) else { continue };
            let owner = state.get(root).and_then(|cell| cell.object);
            let owner_is_gone = state.object(owner).is_some_and(|owner| owner.freed != Freed::No);
            if object.freed != Freed::No
                && object.ended_by.is_none()
                && !owner_is_gone
                && value.place().as_deref() != Some(place)
            {
                let first = found
                    .as_ref()
                    .is_none_or(|(_, at): &(String, Range)| object.freed_at.start < at.start);
                if first {
                    found = Some((place.to_owned(), object.freed_at));
                }
            }
        }
        if let Some((place, at)) = found {
            self.alert(
                MemoryCheck::DanglingField,
                range,
                format!("`{place}` still points to what was freed"),
                vec![(at, "is freed here".to_owned())],
            );
        }
    }
}

/// The variable at the start of a place: `*box.text` is rooted in `box`.
fn root_of(place: &str) -> &str {
    let place = place.trim_start_matches('*');
    &place[..place.find(['.', '[']).unwrap_or(place.len())]
}
