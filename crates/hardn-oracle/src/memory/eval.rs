//! The value of an expression in numbers and pointers.

use super::{
    Memory,
    bound::Reach,
    number::{External, LOWEST, Number},
    release::{self, has_word},
    state::{Cell, Freed, Null, Object, State},
    types,
};
use crate::{
    engine::Mode,
    ir::{Arg, BinaryOp, Expr, ExprKind, Range},
    rules::MemoryCheck,
};

/// Calls whose number comes from outside.
pub(super) const EXTERNAL_NUMBERS: [&str; 14] = [
    "atoi", "atol", "atoll", "strtol", "strtoul", "strtoll", "strtoull", "stoi", "stol", "ntohl",
    "ntohs", "getchar", "fgetc", "rand",
];

impl<'p> Memory<'p, '_> {
    pub(super) fn value(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Cell {
        if !self.report.step() {
            return Cell::default();
        }
        match &expr.kind {
            ExprKind::Int(value) => {
                let null = if *value == 0 { Null::Yes } else { Null::Unknown };
                Cell {
                    number: Number::exactly(*value),
                    null,
                    null_at: expr.range,
                    ..Cell::default()
                }
            }
            ExprKind::Bool(value) => {
                Cell { number: Number::exactly(i64::from(*value)), ..Cell::default() }
            }
            ExprKind::Null => Cell {
                number: Number::exactly(0),
                null: Null::Yes,
                null_at: expr.range,
                ..Cell::default()
            },
            ExprKind::Str(text) => {
                let bytes = Some(text.len() as i64 + 1);
                let object = self.new_object(state, Object { bytes, ..Object::default() });
                let reach = Some(Reach::START);
                Cell { null: Null::No, object: Some(object), reach, ..Cell::default() }
            }
            ExprKind::Name(name) => {
                let mut cell = self.name(name, state);
                if self.scope.get(name).is_some_and(|ty| !ty.dimensions.is_empty()) {
                    cell.reach.get_or_insert(Reach::START);
                }
                cell
            }
            ExprKind::Attribute { base, arrow, .. } => {
                let pointer = self.value(base, state);
                if *arrow {
                    self.dereference(base, &pointer, state);
                }
                self.stored(expr, state)
            }
            ExprKind::Subscript { base, index } => {
                let pointer = self.value(base, state);
                let at = self.value(index, state);
                self.dereference(base, &pointer, state);
                if !self.check_named_index(expr, base, &pointer, (index, &at.number), false, state)
                {
                    self.check_index(expr, base, &pointer, &at, false, state);
                }
                self.stored(expr, state)
            }
            ExprKind::Deref(inner) => {
                let pointer = self.value(inner, state);
                self.dereference(inner, &pointer, state);
                let reach = pointer.reach.as_ref();
                self.check_reach(expr, inner, pointer.object, reach, false, state);
                self.stored(expr, state)
            }
            ExprKind::AddressOf(inner) => self.address(inner, state),
            ExprKind::SizeofType(ty) => Self::size_number(types::size_of(ty, self.program)),
            ExprKind::SizeofValue(inner) => {
                let ty = match &inner.kind {
                    // `sizeof(name)` of a type that only the file knows.
                    ExprKind::Name(name) if self.scope.get(name).is_none() => {
                        let owned =
                            || crate::ir::Type { name: (*name).into(), ..Default::default() };
                        let known = self.program.structs.contains_key(name).then(owned);
                        self.program.typedefs.get(name).cloned().or(known)
                    }
                    _ => self.ty(inner),
                };
                let size = ty.and_then(|ty| types::size_of(&ty, self.program));
                Self::size_number(size)
            }
            ExprKind::Binary { op, left, right } => self.binary(expr, *op, left, right, state),
            ExprKind::Not(inner) => {
                self.value(inner, state);
                Cell { number: Number { low: 0, high: 1, ..Number::default() }, ..Cell::default() }
            }
            ExprKind::Minus(inner) => {
                let cell = self.value(inner, state);
                let number = Number::combine(BinaryOp::Sub, &Number::exactly(0), &cell.number);
                Cell { number, ..Cell::default() }
            }
            ExprKind::Through(inner) | ExprKind::Star(inner) => self.value(inner, state),
            ExprKind::Cast { ty, value } => {
                let mut cell = self.value(value, state);
                if let Some(size) = types::size_of(ty, self.program) {
                    self.check_narrowing(value, &cell.number, ty, size);
                }
                if ty.is_integer() && !ty.is_pointer() {
                    cell.number.wide = ty.scalar_size() == Some(8);
                    if ty.is_unsigned() && cell.number.low < 0 {
                        cell.number.low = 0;
                    }
                }
                cell
            }
            ExprKind::Conditional { test, then, otherwise } => {
                self.value(test, state);
                let mut result: Option<(Cell, State)> = None;
                for (truth, arm) in [(true, then), (false, otherwise)] {
                    if let Some(mut refined) = self.refine(test, truth, state.clone()) {
                        let cell = self.value(arm, &mut refined);
                        result = Some(match result {
                            None => (cell, refined),
                            Some((mut known, mut joined)) => {
                                join_cells(&mut known, &cell);
                                joined.join(refined);
                                (known, joined)
                            }
                        });
                    }
                }
                match result {
                    Some((cell, joined)) => {
                        *state = joined;
                        cell
                    }
                    None => Cell::default(),
                }
            }
            ExprKind::Assign { op, target, value } => {
                self.assignment(expr, *op, target, value, state)
            }
            ExprKind::Update { target, by, prefix } => {
                let before = self.value(target, state);
                if *by < 0
                    && self.mode == Mode::Faithful
                    && before.number.external == External::Yes
                    && (before.number.low == LOWEST
                        || before.number.low <= 0
                            && self.ty(target).is_some_and(|ty| ty.is_unsigned()))
                    && !before.number.checked
                    && !before.number.wide
                    && !self.ty(target).is_none_or(|ty| ty.is_pointer())
                {
                    let range = expr.range;
                    let why = "it may be the least number already".to_owned();
                    self.alert(MemoryCheck::IntegerOverflow, range, why, Vec::new());
                }
                let mut after = Cell {
                    number: Number::combine(BinaryOp::Add, &before.number, &Number::exactly(*by)),
                    null: before.null,
                    null_at: before.null_at,
                    object: before.object,
                    length_of: None,
                    within: before.within.clone().filter(|_| *by < 0),
                    stack: before.stack,
                    reach: before.reach.as_ref().and_then(|reach| reach.shifted(*by)),
                    used_at: before.used_at,
                };
                after.number.counter = *by > 0;
                after.number.wraps = None;
                if let Some(place) = target.place() {
                    state.set(&place, after.clone());
                }
                if *prefix { after } else { before }
            }
            ExprKind::Call { callee, args } => self.call(expr, callee, args, state),
            ExprKind::New { args, .. } => {
                let mut object = Object::default();
                for arg in args {
                    let cell = self.value(&arg.value, state);
                    if arg.name == Some("length") {
                        self.check_size(&cell.number);
                        self.check_limit(&cell.number, arg.value.range);
                        object.size_text = Some(text_of(&arg.value));
                        object.sizes = self.sums(&arg.value, state);
                        object.bytes = cell.number.constant();
                        if Self::is_bare_length(&arg.value, &cell) {
                            object.no_end = Some(expr.range);
                        }
                    } else if arg.name == Some("element") {
                        object.unit = cell.number.constant();
                        object.bytes = object
                            .bytes
                            .zip(cell.number.constant())
                            .and_then(|(length, element)| length.checked_mul(element));
                    }
                }
                let object = self.new_object(state, object);
                let reach = Some(Reach::START);
                Cell { null: Null::No, object: Some(object), reach, ..Cell::default() }
            }
            ExprKind::Free(inner) => {
                let cell = self.value(inner, state);
                self.free(inner, &cell, expr.range, state);
                Cell::default()
            }
            ExprKind::Sequence(parts) => {
                let mut last = Cell::default();
                for part in parts {
                    last = self.value(part, state);
                }
                last
            }
            ExprKind::Construct { args, .. } => {
                for arg in args {
                    self.value(&arg.value, state);
                }
                let object = self.new_object(state, Object::default());
                Cell { null: Null::No, object: Some(object), ..Cell::default() }
            }
            ExprKind::Lambda { .. }
            | ExprKind::Closure { .. }
            | ExprKind::Comprehension { .. }
            | ExprKind::Float => Cell::default(),
            ExprKind::Format(parts)
            | ExprKind::List(parts)
            | ExprKind::Tuple(parts)
            | ExprKind::Set(parts)
            | ExprKind::Slice(parts)
            | ExprKind::Unknown(parts) => {
                for part in parts {
                    self.value(part, state);
                }
                Cell::default()
            }
            ExprKind::Dict(entries) => {
                for (_, value) in entries {
                    self.value(value, state);
                }
                Cell::default()
            }
        }
    }

    fn size_number(size: Option<i64>) -> Cell {
        let mut number = size.map_or_else(|| Number::default().at_least(1), Number::exactly);
        number.wide = true;
        Cell { number, ..Cell::default() }
    }

    fn name(&mut self, name: &'p str, state: &mut State) -> Cell {
        if let Some(value) = self.program.constants.get(name)
            && state.get(name).is_none()
        {
            return Cell { number: Number::exactly(*value), ..Cell::default() };
        }
        self.held(name, state)
    }

    /// The cell of a place, with an object of its own where it is a pointer.
    fn held(&mut self, place: &str, state: &mut State) -> Cell {
        if state.get(place).is_none_or(|cell| cell.object.is_none()) {
            let object = self.new_object(state, Object::default());
            state.cell(place).object = Some(object);
        }
        state.get(place).cloned().unwrap_or_default()
    }

    /// The value stored in a field or element.
    fn stored(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Cell {
        let Some(place) = expr.place() else { return Cell::default() };
        let known = state.get(&place).is_some();
        let mut cell = self.held(&place, state);
        if !known {
            let is_field = matches!(expr.kind, ExprKind::Attribute { .. });
            let of_param = expr.root().is_some_and(|root| self.params.contains(root));
            if is_field && of_param && self.mode == Mode::Snippet {
                let ty = self.ty(expr);
                cell.number.external = External::Field;
                if let Some(ty) = ty {
                    cell.number.wide = ty.scalar_size() == Some(8);
                    if ty.is_unsigned() {
                        cell.number.low = 0;
                    }
                }
                state.cell(&place).number = cell.number.clone();
            }
        }
        cell
    }

    /// `&x`: never null; `&p->field` stays inside what `p` points to.
    fn address(&mut self, inner: &'p Expr<'p>, state: &mut State) -> Cell {
        match &inner.kind {
            ExprKind::Attribute { base, arrow: true, .. } => {
                let pointer = self.value(base, state);
                Cell { null: Null::No, object: pointer.object, ..Cell::default() }
            }
            ExprKind::Subscript { base, index } => {
                let pointer = self.value(base, state);
                self.value(index, state);
                let reach = self.moved(&pointer, index, BinaryOp::Add, state);
                Cell { null: Null::No, object: pointer.object, reach, ..Cell::default() }
            }
            ExprKind::Deref(pointer) => self.value(pointer, state),
            _ => {
                let cell = self.value(inner, state);
                Cell { null: Null::No, object: cell.object, ..Cell::default() }
            }
        }
    }

    fn binary(
        &mut self,
        expr: &'p Expr<'p>,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State,
    ) -> Cell {
        if matches!(op, BinaryOp::And | BinaryOp::Or) {
            if op == BinaryOp::Or {
                self.check_conflated(expr);
            } else {
                self.check_late_index(expr);
            }
            self.value(left, state);
            if let Some(mut refined) = self.refine(left, op == BinaryOp::And, state.clone()) {
                self.value(right, &mut refined);
                state.join(refined);
            }
            return Cell {
                number: Number { low: 0, high: 1, ..Number::default() },
                ..Cell::default()
            };
        }
        let first = self.value(left, state);
        let second = self.value(right, state);
        if matches!(op, BinaryOp::Eq | BinaryOp::Ne) || op.is_order() {
            self.check_comparison(expr, op, left, right, &second.number, state);
            Self::note_limit_check(left, right, state);
            return Cell {
                number: Number { low: 0, high: 1, ..Number::default() },
                ..Cell::default()
            };
        }
        let mut number = Number::combine(op, &first.number, &second.number);
        let pointer = self.ty(left).is_some_and(|ty| ty.is_pointer())
            || self.ty(right).is_some_and(|ty| ty.is_pointer());
        if pointer {
            // Pointer arithmetic stays in the object.
            let (cell, by) =
                if first.object.is_some() && self.ty(left).is_some_and(|ty| ty.is_pointer()) {
                    (first, right)
                } else {
                    (second, left)
                };
            let reach = self.moved(&cell, by, op, state);
            return Cell { null: Null::No, object: cell.object, reach, ..Cell::default() };
        }
        if op == BinaryOp::Mod && adds(left, right) {
            // `(x % n + n) % n` is not negative.
            number.low = 0;
        }
        number.wraps = first.number.wraps.or(second.number.wraps);
        if matches!(op, BinaryOp::Add | BinaryOp::Mul | BinaryOp::Shl) && number.wraps.is_none() {
            number.wraps = Self::wrapping(op, &first.number, &second.number, expr.range);
            self.check_wrapping(&number);
            self.check_certain(expr, op, left, right, &number);
        }
        let less = op == BinaryOp::Sub && second.number.low >= 1;
        let within = first.length_of.or(first.within).filter(|_| less);
        Cell { number, within, ..Cell::default() }
    }

    /// Whether arithmetic may wrap: a number from outside, compared with no limit, in 32 bits.
    fn wrapping(op: BinaryOp, a: &Number, b: &Number, range: Range) -> Option<Range> {
        if a.wide || b.wide {
            return None;
        }
        let outside = a.external.max(b.external);
        // Something is added to most of what is read, and it is checked elsewhere.
        if outside == External::No || outside == External::Read && op != BinaryOp::Mul {
            return None;
        }
        let safe = |number: &Number| number.checked || number.level.is_some();
        if (safe(a) || a.constant().is_some()) && (safe(b) || b.constant().is_some()) {
            return None;
        }
        let limit = i64::from(i32::MAX);
        let result =
            Number::combine(op, &Number { low: 0, ..a.clone() }, &Number { low: 0, ..b.clone() });
        if result.high <= limit {
            return None;
        }
        // One operand with a small fixed limit and the other checked.
        if safe(a) && b.high <= limit / 2 || safe(b) && a.high <= limit / 2 {
            return None;
        }
        Some(range)
    }

    /// Arithmetic on known numbers that cannot fit in 32 bits.
    fn check_certain(
        &mut self,
        expr: &'p Expr<'p>,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        number: &Number,
    ) {
        let signed_int = |ty: Option<crate::ir::Type<'p>>| {
            ty.is_some_and(|ty| ty.name == "int" && !ty.is_pointer())
        };
        if matches!(op, BinaryOp::Add | BinaryOp::Mul)
            && number.low > i64::from(i32::MAX)
            && (left.place().is_some() || right.place().is_some())
            && signed_int(self.ty(left))
            && signed_int(self.ty(right))
        {
            let why = "the result is larger than the largest int".to_owned();
            self.alert(MemoryCheck::IntegerOverflow, expr.range, why, Vec::new());
        }
    }

    /// In a whole program, arithmetic on a number that someone else chose is wrong where it stands.
    fn check_wrapping(&mut self, number: &Number) {
        if let (Mode::Faithful, External::Yes, Some(at)) =
            (self.mode, number.external, number.wraps)
        {
            let why = "the number was compared with no limit".to_owned();
            self.alert(MemoryCheck::IntegerOverflow, at, why, Vec::new());
        }
    }

    /// `x > INT_MAX - y` and the like: both were checked for wrapping.
    fn note_limit_check(left: &'p Expr<'p>, right: &'p Expr<'p>, state: &mut State) {
        let mentions_limit = |expr: &Expr<'p>| has_limit(expr);
        if !(mentions_limit(left) || mentions_limit(right)) {
            return;
        }
        let divides = divides(left) || divides(right);
        for side in [left, right] {
            let mut places = Vec::new();
            collect_places(side, &mut places);
            for place in places {
                let number = &mut state.cell(&place).number;
                number.checked = true;
                // `a * b / b != a` tells after the fact.
                if divides {
                    number.wraps = None;
                }
            }
        }
    }

    fn assignment(
        &mut self,
        expr: &'p Expr<'p>,
        op: Option<BinaryOp>,
        target: &'p Expr<'p>,
        value: &'p Expr<'p>,
        state: &mut State,
    ) -> Cell {
        let mut cell = self.value(value, state);
        match &target.kind {
            ExprKind::Subscript { base, index } => {
                let pointer = self.value(base, state);
                let at = self.value(index, state);
                self.dereference(base, &pointer, state);
                if !self.check_named_index(target, base, &pointer, (index, &at.number), true, state)
                {
                    self.check_index(target, base, &pointer, &at, true, state);
                }
            }
            ExprKind::Attribute { base, arrow: true, .. } | ExprKind::Deref(base) => {
                let pointer = self.value(base, state);
                self.dereference(base, &pointer, state);
                if matches!(target.kind, ExprKind::Deref(_)) {
                    let reach = pointer.reach.as_ref();
                    self.check_reach(target, base, pointer.object, reach, true, state);
                }
            }
            ExprKind::Attribute { base, .. } => {
                self.value(base, state);
            }
            _ => {}
        }
        let place = target.place();
        if let Some(op) = op {
            let before =
                place.as_deref().and_then(|place| state.get(place)).cloned().unwrap_or_default();
            if self.ty(target).is_some_and(|ty| ty.is_pointer()) {
                let reach = match op {
                    BinaryOp::Add | BinaryOp::Sub => self.moved(&before, value, op, state),
                    _ => None,
                };
                cell = Cell { reach, ..before };
            } else {
                let mut number = Number::combine(op, &before.number, &cell.number);
                number.counter = matches!(op, BinaryOp::Add) && cell.number.low >= 0;
                if matches!(op, BinaryOp::Add | BinaryOp::Mul | BinaryOp::Shl) {
                    number.wraps = Self::wrapping(op, &before.number, &cell.number, expr.range);
                    self.check_wrapping(&number);
                }
                cell = Cell { number, ..Cell::default() };
            }
        }
        if let Some(ty) = self.ty(target) {
            if op.is_none() {
                self.note_same(value, &ty, &mut cell, state);
                self.check_conversion(value, &cell.number, &ty, state);
            }
            Self::fit(&mut cell, &ty);
            if ty.pointers > 0 {
                self.check_temporary(value);
            }
            cell.stack = ty.pointers > 0 && op.is_none() && self.is_stack_address(value);
        }
        cell.used_at = None;
        if let Some(place) = place {
            state.set(&place, cell.clone());
            if op.is_none()
                && let Some(from) = value.peeled().place()
                && self.ty(target).is_some_and(|ty| ty.is_integer())
            {
                state.order(&place, &from);
                state.order(&from, &place);
            }
        }
        cell
    }

    fn call(
        &mut self,
        expr: &'p Expr<'p>,
        callee: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        state: &mut State,
    ) -> Cell {
        let name = match &callee.kind {
            ExprKind::Name(name) => *name,
            ExprKind::Attribute { name, base, arrow } => {
                let pointer = self.value(base, state);
                if *arrow {
                    self.dereference(base, &pointer, state);
                }
                *name
            }
            _ => {
                self.value(callee, state);
                ""
            }
        };
        let cells: Vec<Cell> = args.iter().map(|arg| self.value(&arg.value, state)).collect();
        // Freeing comes before the check of uses, for it is none.
        let freed = match self.frees.get(name).copied() {
            Some(at) => Some(at),
            None if self.is_listed(MemoryCheck::UseAfterFree, name) => Some(0),
            None => None,
        };
        let is_macro = is_macro_name(name);
        let ended = freed.is_none()
            && self.mode == Mode::Snippet
            && release::ends_argument(name, args)
            && !self.defined.contains(name);
        for (at, (arg, cell)) in args.iter().zip(&cells).enumerate() {
            if freed != Some(at) && name != "realloc" && !ended && !is_macro {
                self.use_pointer(&arg.value, cell, false, state);
            }
        }
        if ended {
            self.end_by_name(&args[0].value, &cells[0], name, expr.range, state);
            return Cell::default();
        }
        if has_word(name, &["assert"])
            && let Some(arg) = args.first()
            && let Some(refined) = self.refine(&arg.value, true, state.clone())
        {
            *state = refined;
        }
        if is_macro {
            for arg in args {
                if let Some(place) = arg.value.peeled().place()
                    && state.get(&place).is_some_and(|cell| cell.null == Null::Maybe)
                {
                    // It may be what checks.
                    state.cell(&place).null = Null::Unknown;
                }
            }
            // It may give its arguments new values.
            for arg in args {
                if let Some(place) = arg.value.peeled().place()
                    && state
                        .get(&place)
                        .and_then(|cell| state.object(cell.object))
                        .is_some_and(|object| object.freed != Freed::No)
                {
                    state.forget(&place);
                }
            }
        }
        if let Some(at) = freed
            && let (Some(arg), Some(cell)) = (args.get(at), cells.get(at))
        {
            self.free(&arg.value, cell, expr.range, state);
            return Cell::default();
        }
        self.check_call(expr, name, args, &cells, state);
        if let Some(result) = self.buffer_call(expr, name, args, &cells, state) {
            return result;
        }
        Self::forget_arguments(name, args, state);
        if self.mode == Mode::Faithful && self.fed_functions.contains(name) {
            return Cell { number: Number::external(), ..Cell::default() };
        }
        if EXTERNAL_NUMBERS.contains(&name) {
            let mut number = Number::external();
            match name {
                "getchar" | "fgetc" => {
                    number = Number { low: -1, high: 255, ..number };
                }
                "ntohs" => number = Number { low: 0, high: 65535, ..number },
                "ntohl" => number.low = 0,
                "rand" if !args.is_empty() => number = Number::default(),
                "rand" => {
                    number.low = 0;
                    if self.mode == Mode::Snippet {
                        number.external = External::Field;
                    }
                }
                _ => {}
            }
            return Cell { number, ..Cell::default() };
        }
        let mut read = Number::default();
        if self.mode == Mode::Snippet && !self.defined.contains(name) && release::reads_input(name)
        {
            read.external = External::Read;
        }
        // The iterator of a container is none.
        let is_iterator = name == "find" && matches!(callee.kind, ExprKind::Attribute { .. });
        let may_fail = self.returns_null.contains(name)
            || !self.defined.contains(name)
                && !is_iterator
                && (self.is_listed(MemoryCheck::NullDereference, name)
                    || self.mode == Mode::Snippet && release::may_give_nothing(name));
        if may_fail {
            let object = self.new_object(state, Object::default());
            return Cell {
                number: read,
                null: Null::Maybe,
                null_at: expr.range,
                object: Some(object),
                ..Cell::default()
            };
        }
        Cell { number: read, ..Cell::default() }
    }

    /// What a call may change is not known after it.
    fn forget_arguments(name: &str, args: &'p [Arg<'p>], state: &mut State) {
        if matches!(
            name,
            "printf"
                | "fprintf"
                | "puts"
                | "fputs"
                | "strcmp"
                | "strncmp"
                | "memcmp"
                | "assert"
                | "strlen"
        ) {
            return;
        }
        for arg in args {
            match &arg.value.peeled().kind {
                ExprKind::AddressOf(inner) => {
                    if let Some(place) = inner.place() {
                        state.forget(&place);
                        if name.contains("scanf") {
                            state.set(
                                &place,
                                Cell { number: Number::external(), ..Cell::default() },
                            );
                        }
                    }
                }
                _ => {
                    if let Some(place) = arg.value.peeled().place() {
                        state.forget_parts(&place);
                    }
                }
            }
        }
    }

    fn free(&mut self, target: &'p Expr<'p>, cell: &Cell, range: Range, state: &mut State) {
        let Some(id) = cell.object else { return };
        if cell.null == Null::Yes {
            return;
        }
        let object = state.object_mut(id);
        let (before, at) = (object.freed, object.freed_at);
        object.ended_by = None;
        object.freed = Freed::Yes;
        object.freed_at = range;
        if before != Freed::No {
            let what = describe(target);
            self.alert(
                MemoryCheck::DoubleFree,
                range,
                format!("`{what}` was freed before"),
                vec![(at, "is freed here".to_owned())],
            );
        }
    }
}

/// `CLEAR`, `SAFE_FREE`: macros, by custom.
pub(super) fn is_macro_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

pub(super) fn join_cells(known: &mut Cell, other: &Cell) {
    known.number.join(&other.number);
    if known.object != other.object {
        known.object = None;
    }
    known.reach = Reach::joined(known.reach.as_ref(), other.reach.as_ref());
    known.null = match (known.null, other.null) {
        (a, b) if a == b => a,
        (Null::Maybe | Null::Yes, _) | (_, Null::Maybe | Null::Yes) => {
            if !matches!(known.null, Null::Maybe | Null::Yes) {
                known.null_at = other.null_at;
            }
            Null::Maybe
        }
        _ => Null::Unknown,
    };
}

/// A name for messages.
pub(super) fn describe(expr: &Expr<'_>) -> String {
    expr.peeled().place().unwrap_or_else(|| "the pointer".to_owned())
}

/// A text by which sizes are compared.
pub(super) fn text_of(expr: &Expr<'_>) -> String {
    match &expr.peeled().kind {
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Binary { op, left, right } => {
            format!("{}{op:?}{}", text_of(left), text_of(right))
        }
        ExprKind::Call { callee, args } => {
            let args: Vec<String> = args.iter().map(|arg| text_of(&arg.value)).collect();
            format!("{}({})", text_of(callee), args.join(","))
        }
        ExprKind::SizeofValue(inner) => format!("sizeof({})", text_of(inner)),
        ExprKind::SizeofType(ty) => format!("sizeof({})", ty.name),
        _ => expr.place().unwrap_or_else(|| format!("@{}", expr.range.start)),
    }
}

/// A sum with the divisor in it.
fn adds(sum: &Expr<'_>, divisor: &Expr<'_>) -> bool {
    let ExprKind::Binary { op: BinaryOp::Add, left, right } = &sum.peeled().kind else {
        return false;
    };
    let wanted = text_of(divisor);
    text_of(left) == wanted || text_of(right) == wanted
}

fn has_limit(expr: &Expr<'_>) -> bool {
    let here = match &expr.kind {
        ExprKind::Int(value) => *value == i64::from(i32::MAX) || *value == i64::from(i32::MIN),
        ExprKind::Name(name) => {
            name.contains("_MAX") || name.contains("MAX_") || name.contains("_MIN")
        }
        ExprKind::Binary { op: BinaryOp::Div, .. } => true,
        _ => false,
    };
    here || expr.children().into_iter().any(has_limit)
}

fn divides(expr: &Expr<'_>) -> bool {
    matches!(expr.kind, ExprKind::Binary { op: BinaryOp::Div, .. })
        || expr.children().into_iter().any(divides)
}

pub(super) fn collect_places(expr: &Expr<'_>, out: &mut Vec<String>) {
    if let Some(place) = expr.place() {
        out.push(place);
        return;
    }
    for child in expr.children() {
        collect_places(child, out);
    }
}
