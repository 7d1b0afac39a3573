//! What is known of a value: where it came from, what it is clean of, and its text as far as it is known.

use std::rc::Rc;

use crate::ir::{Expr, Range};

/// Stands for an unknown part in a text.
pub(crate) const HOLE: char = '\u{1}';

/// A text that is wholly unknown.
pub(crate) const HOLE_TEXT: &str = "\u{1}";

/// Longest text that is followed.
const MAX_TEXT: usize = 600;

/// Most origins of one value that are told apart.
const MAX_ATOMS: usize = 6;

/// Where tainted data came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Unknown: a call or a name that the snippet does not explain.
    Unknown,
    /// A parameter of the function under analysis, by its number.
    Parameter(u8),
    /// A field that a constructor filled from its parameters.
    Field,
    /// This machine: environment, files.
    Local,
    /// Outside the program.
    Remote,
}

/// One step on the way of a value, linked to the step before.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) range: Range,
    pub(crate) message: String,
    pub(crate) before: Option<Rc<Trace>>,
    pub(crate) length: u8,
}

impl Trace {
    pub(crate) fn start(range: Range, message: String) -> Rc<Self> {
        Rc::new(Self { range, message, before: None, length: 1 })
    }

    pub(crate) fn step(self: &Rc<Self>, range: Range, message: String) -> Rc<Self> {
        // Long ways are cut: what matters is where they start and end.
        if self.length >= 12 || self.range == range {
            return Rc::clone(self);
        }
        Rc::new(Self { range, message, before: Some(Rc::clone(self)), length: self.length + 1 })
    }

    pub(crate) fn root(&self) -> Range {
        let mut current = self;
        while let Some(before) = &current.before {
            current = before;
        }
        current.range
    }

    /// The steps from source to here.
    pub(crate) fn steps(&self) -> Vec<(Range, String)> {
        let mut out = Vec::new();
        let mut current = Some(self);
        while let Some(step) = current {
            out.push((step.range, step.message.clone()));
            current = step.before.as_deref();
        }
        out.reverse();
        out
    }
}

/// Taint from one origin.
#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) origin: Origin,
    /// One bit per flow rule the value can no longer hurt.
    pub(crate) clean: u128,
    /// What guards may ask for, such as a normalised path.
    pub(crate) marks: u32,
    /// It was joined to other text.
    pub(crate) built: bool,
    /// It stands before a slash: the folder part of a path.
    pub(crate) leading: bool,
    /// It concerns one rule alone, whose source it came from.
    pub(crate) own: bool,
    pub(crate) trace: Rc<Trace>,
}

impl Atom {
    pub(crate) fn new(origin: Origin, trace: Rc<Trace>) -> Self {
        Self { origin, clean: 0, marks: 0, built: false, leading: false, own: false, trace }
    }

    /// Taint that concerns no rule but some.
    pub(crate) fn only_for(origin: Origin, clean: u128, trace: Rc<Trace>) -> Self {
        Self { clean, own: clean != 0, ..Self::new(origin, trace) }
    }

    fn same_origin(&self, other: &Self) -> bool {
        self.origin == other.origin
            && self.own == other.own
            && (Rc::ptr_eq(&self.trace, &other.trace) || self.trace.root() == other.trace.root())
    }
}

/// A constant that is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    Int(i64),
    Bool(bool),
    Null,
}

/// An abstract value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value<'p> {
    pub(super) atoms: Option<Rc<Vec<Atom>>>,
    /// The text, with a [`HOLE`] for each part that is not known.
    pub(crate) text: Option<Rc<str>>,
    pub(crate) constant: Option<Constant>,
    /// The dotted path it came from, such as `sqlite3.connect()`.
    pub(crate) path: Option<Rc<str>>,
    /// A list, tuple or the like.
    pub(crate) sequence: bool,
    /// The test whose outcome this is.
    pub(crate) test: Option<&'p Expr<'p>>,
    /// The variable it was copied from.
    pub(crate) alias: Option<Rc<str>>,
    /// The function it is.
    pub(crate) function: Option<&'p Expr<'p>>,
}

impl<'p> Value<'p> {
    pub(crate) fn of_text(text: &str) -> Self {
        Self { text: Some(Rc::from(text)), ..Self::default() }
    }

    pub(crate) fn of_constant(constant: Constant) -> Self {
        Self { constant: Some(constant), ..Self::default() }
    }

    pub(crate) fn of_atom(atom: Atom) -> Self {
        Self { atoms: Some(Rc::new(vec![atom])), ..Self::default() }
    }

    pub(crate) fn of_path(path: &str) -> Self {
        Self { path: Some(Rc::from(path)), ..Self::default() }
    }

    pub(crate) fn atoms(&self) -> &[Atom] {
        self.atoms.as_ref().map_or(&[], |atoms| atoms.as_slice())
    }

    pub(crate) fn is_tainted(&self) -> bool {
        self.atoms.is_some()
    }

    /// The whole text, where nothing of it is unknown.
    pub(crate) fn full_text(&self) -> Option<&str> {
        self.text.as_deref().filter(|text| !self.sequence && !text.contains(HOLE))
    }

    pub(crate) fn truth(&self) -> Option<bool> {
        match (self.constant, self.full_text()) {
            (Some(Constant::Bool(value)), _) => Some(value),
            (Some(Constant::Int(value)), _) => Some(value != 0),
            (Some(Constant::Null), _) => Some(false),
            (None, Some(text)) => Some(!text.is_empty()),
            _ => None,
        }
    }

    /// Only the taint: for values derived from this one in unknown ways.
    pub(crate) fn derived(&self) -> Self {
        Self { atoms: self.atoms.clone(), ..Self::default() }
    }

    pub(crate) fn without_atoms(mut self) -> Self {
        self.atoms = None;
        self
    }

    pub(crate) fn with_path(mut self, path: &str) -> Self {
        self.path = Some(Rc::from(path));
        self
    }

    /// Applies a change to every atom.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&mut Atom)) {
        if let Some(atoms) = &mut self.atoms {
            for atom in Rc::make_mut(atoms) {
                change(atom);
            }
        }
    }

    /// Clean of the given rules; of all of them, no taint is left.
    pub(crate) fn clean(&mut self, bits: u128) {
        if bits == u128::MAX {
            self.atoms = None;
        } else if bits != 0 && self.atoms().iter().any(|atom| atom.clean & bits != bits) {
            self.change(|atom| atom.clean |= bits);
        }
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Atom) -> bool) {
        if let Some(atoms) = &mut self.atoms {
            let kept = Rc::make_mut(atoms);
            kept.retain(keep);
            if kept.is_empty() {
                self.atoms = None;
            }
        }
    }

    /// Takes over another value's taint.
    pub(crate) fn absorb(&mut self, other: &Self) {
        let Some(theirs) = &other.atoms else { return };
        match &mut self.atoms {
            None => self.atoms = Some(Rc::clone(theirs)),
            Some(ours) if Rc::ptr_eq(ours, theirs) => {}
            Some(ours) => {
                let ours = Rc::make_mut(ours);
                for atom in theirs.iter() {
                    match ours.iter_mut().find(|known| known.same_origin(atom)) {
                        Some(known) => {
                            known.clean &= atom.clean;
                            known.marks &= atom.marks;
                            known.built |= atom.built;
                            known.leading &= atom.leading;
                        }
                        None => ours.push(atom.clone()),
                    }
                }
                if ours.len() > MAX_ATOMS {
                    ours.sort_by_key(|atom| std::cmp::Reverse(atom.origin));
                    ours.truncate(MAX_ATOMS);
                }
            }
        }
    }

    /// Either this value or the other.
    pub(crate) fn join(&mut self, other: &Value<'p>) {
        self.absorb(other);
        if self.text != other.text {
            // Either text may reach a sink; the longer one says more.
            let longer = match (&self.text, &other.text) {
                (Some(ours), Some(theirs)) if theirs.len() > ours.len() => Some(theirs.clone()),
                (Some(ours), _) => Some(ours.clone()),
                (None, theirs) => theirs.clone(),
            };
            self.text = longer.map(|text| {
                if text.contains(HOLE) { text } else { Rc::from(format!("{text}{HOLE}")) }
            });
        }
        if self.constant != other.constant {
            self.constant = None;
        }
        if self.path != other.path {
            self.path = self.path.take().or_else(|| other.path.clone());
        }
        self.sequence &= other.sequence;
        if self.test.map(std::ptr::from_ref) != other.test.map(std::ptr::from_ref) {
            self.test = None;
        }
        if self.alias != other.alias {
            self.alias = None;
        }
        self.function = self.function.or(other.function);
    }
}

/// Joins the parts of a text: concatenation, formatting.
pub(crate) fn concat<'p>(parts: &[Value<'p>]) -> Value<'p> {
    let mut text = String::new();
    let literal = parts
        .iter()
        .any(|part| part.text.as_ref().is_some_and(|text| text.chars().any(|c| c != HOLE)));
    let built = literal || parts.len() > 1;
    let mut out = Value::default();
    for (number, part) in parts.iter().enumerate() {
        match &part.text {
            Some(piece) => text.push_str(piece),
            None => match part.constant {
                Some(Constant::Int(value)) => text.push_str(&value.to_string()),
                _ => text.push(HOLE),
            },
        }
        let mut piece = part.derived();
        if built {
            piece.change(|atom| atom.built = true);
        }
        let before_slash = number == 0
            && parts
                .get(1)
                .is_some_and(|next| next.text.as_ref().is_some_and(|text| text.starts_with('/')));
        if before_slash && part.text.is_none() {
            piece.change(|atom| atom.leading = true);
        }
        out.absorb(&piece);
    }
    if literal {
        if text.len() > MAX_TEXT {
            let mut end = MAX_TEXT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push(HOLE);
        }
        out.text = Some(Rc::from(text));
    }
    out
}
