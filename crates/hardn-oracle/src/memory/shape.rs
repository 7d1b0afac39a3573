//! Checks that need types and a little of what is known around a place: sizes that belong to something else,
//! arithmetic in too narrow a type.

use std::collections::BTreeSet;

use super::{
    Memory, any_stmt,
    eval::describe,
    number::{External, HIGHEST, Number},
    state::{Cell, State},
    types,
};
use crate::{
    engine::Mode,
    ir::{Arg, BinaryOp, Expr, ExprKind, Function, Range, Stmt, StmtKind, Type},
    rules::MemoryCheck,
};

/// Calls that read a text up to its end mark, and which arguments are texts.
const TEXT_READERS: [(&str, &[usize]); 14] = [
    ("strcpy", &[0, 1]),
    ("strcat", &[0, 1]),
    ("wcscpy", &[0, 1]),
    ("wcscat", &[0, 1]),
    ("strcmp", &[0, 1]),
    ("wcscmp", &[0, 1]),
    ("strlen", &[0]),
    ("wcslen", &[0]),
    ("strchr", &[0]),
    ("strstr", &[0, 1]),
    ("strdup", &[0]),
    ("puts", &[0]),
    ("fputs", &[0]),
    ("sprintf", &[0]),
];

/// The place under which it is kept that the next read from a stream is limited.
const WIDTH: &str = "(width)";

impl<'p> Memory<'p, '_> {
    /// What has to be known of a function before its statements are run.
    pub(super) fn survey(&mut self, function: &'p Function<'p>) {
        self.loop_tests.clear();
        self.verified.clear();
        let mut loop_tests = BTreeSet::new();
        let mut verified = BTreeSet::new();
        let mut peers: Vec<Range> = Vec::new();
        let mut verifies = false;
        any_stmt(&function.body, &mut |stmt| {
            if let StmtKind::Loop(inner) = &stmt.kind
                && let Some(test) = &inner.test
            {
                for comparison in comparisons(test) {
                    if let ExprKind::Binary { left, .. } = &comparison.kind
                        && let Some(name) = left.root()
                        && (inner.step.as_ref().is_some_and(|step| counts_up(step, name))
                            || any_stmt(&inner.body, &mut |stmt| {
                                stmt.exprs().into_iter().any(|expr| counts_up(expr, name))
                            }))
                    {
                        loop_tests.insert(comparison.range);
                    }
                }
            }
            let target = match &stmt.kind {
                StmtKind::Declare { name, init: Some(init), .. } => Some((*name, init)),
                StmtKind::Expr(Expr { kind: ExprKind::Assign { target, value, .. }, .. }) => {
                    target.root().map(|name| (name, &**value))
                }
                _ => None,
            };
            if let Some((name, value)) = target
                && calls(value, "SSL_get_verify_result")
            {
                verified.insert(name);
            }
            for expr in stmt.exprs() {
                verifies |= calls(expr, "SSL_get_verify_result");
                if calls(expr, "SSL_get_peer_certificate") {
                    peers.push(expr.range);
                }
            }
            false
        });
        self.loop_tests = loop_tests;
        for (at, param) in function.params.iter().enumerate() {
            if self.verified_params.contains(&(function.name, at)) {
                verified.insert(param.name);
            }
        }
        self.verified = verified;
        if !verifies {
            for range in peers {
                self.alert(
                    MemoryCheck::CertificateCheck,
                    range,
                    "nothing asks whether the certificate was verified".to_owned(),
                    Vec::new(),
                );
            }
        }
    }

    /// Comparisons that do not say what they seem to.
    pub(super) fn check_comparison(
        &mut self,
        expr: &'p Expr<'p>,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        limit: &Number,
        state: &mut State,
    ) {
        if !op.is_order() {
            return;
        }
        self.check_difference(expr, op, left, right, state);
        self.check_overflow_test(expr, left, right);
        self.check_sum_limit(left, right, state);
        if matches!(op, BinaryOp::Lt | BinaryOp::Le)
            && self.loop_tests.contains(&expr.range)
            && let (Some(small), Some(large)) = (self.ty(left), self.ty(right))
            && small.is_integer()
            && let (Some(narrow @ 1..=2), Some(wide)) =
                (types::size_of(&small, self.program), types::size_of(&large, self.program))
            && wide > narrow
            && !large.is_pointer()
        {
            let bits = 8 * narrow - i64::from(!small.is_unsigned());
            let most = (1i64 << bits) - 1;
            let reach = if op == BinaryOp::Lt { limit.high } else { limit.high.saturating_add(1) };
            let fits = reach.saturating_sub(1) <= most && limit.high != HIGHEST;
            if !fits && limit.constant().is_none_or(|value| value > most) {
                self.alert(
                    MemoryCheck::NarrowComparison,
                    expr.range,
                    format!("`{}` cannot get past {most}", describe(left)),
                    Vec::new(),
                );
            }
        }
    }

    /// `a - b > 0` of unsigned numbers holds wherever they differ.
    fn check_difference(
        &mut self,
        expr: &'p Expr<'p>,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State,
    ) {
        let (difference, other) =
            if matches!(op, BinaryOp::Gt | BinaryOp::Ge) { (left, right) } else { (right, left) };
        if !matches!(other.peeled().kind, ExprKind::Int(0)) {
            return;
        }
        let ExprKind::Binary { op: BinaryOp::Sub, left: a, right: b } = &difference.kind else {
            return;
        };
        let (Some(first), Some(second)) = (self.ty(a), self.ty(b)) else { return };
        if first.is_pointer() || second.is_pointer() {
            return;
        }
        let sizes = (types::size_of(&first, self.program), types::size_of(&second, self.program));
        let (Some(first_size), Some(second_size)) = sizes else { return };
        let unsigned = first.is_unsigned() && first_size >= 4 && first_size >= second_size
            || second.is_unsigned() && second_size >= 4 && second_size >= first_size;
        if !unsigned {
            return;
        }
        let (from, taken) = (self.quiet(a, state), self.quiet(b, state));
        if taken.constant().is_some() || (taken.high != HIGHEST && taken.high <= from.low) {
            return;
        }
        if let (Some(a), Some(b)) = (a.peeled().place(), b.peeled().place())
            && state.is_at_least(&a, &b)
        {
            return;
        }
        self.alert(
            MemoryCheck::UnsignedDifference,
            expr.range,
            "the difference is never negative".to_owned(),
            Vec::new(),
        );
    }

    /// `offset + length > size` of numbers the caller chose: the sum may wrap and pass.
    fn check_sum_limit(&mut self, left: &'p Expr<'p>, right: &'p Expr<'p>, state: &mut State) {
        if self.mode != Mode::Snippet {
            return;
        }
        for (sum, other) in [(left, right), (right, left)] {
            let ExprKind::Binary { op: BinaryOp::Add, left: a, right: b } = &sum.peeled().kind
            else {
                continue;
            };
            let places = [a.peeled().place(), b.peeled().place(), other.peeled().place()];
            let [Some(first), Some(second), limit] = places else { continue };
            if limit.is_some_and(|limit| limit == first || limit == second) {
                continue;
            }
            let open = |memory: &mut Self, expr: &'p Expr<'p>, state: &mut State| {
                let number = memory.quiet(expr, state);
                number.external == External::Yes
                    && !number.checked
                    && !number.is_bounded()
                    && memory.ty(expr).is_some_and(|ty| ty.is_unsigned())
            };
            if open(self, a, state) && open(self, b, state) {
                self.alert(
                    MemoryCheck::IntegerOverflow,
                    sum.range,
                    "the sum may wrap and pass the comparison".to_owned(),
                    Vec::new(),
                );
            }
        }
    }

    /// `a + b < a`: the sum of small numbers does not wrap, and that of signed ones must not.
    fn check_overflow_test(&mut self, expr: &'p Expr<'p>, left: &'p Expr<'p>, right: &'p Expr<'p>) {
        for (sum, other) in [(left, right), (right, left)] {
            let ExprKind::Binary { op: BinaryOp::Add, left: a, right: b } = &sum.kind else {
                continue;
            };
            let Some(place) = other.place() else { continue };
            let (known, added) = if a.place().as_ref() == Some(&place) {
                (a, b)
            } else if b.place().as_ref() == Some(&place) {
                (b, a)
            } else {
                continue;
            };
            let (Some(first), Some(second)) = (self.ty(known), self.ty(added)) else { continue };
            let (Some(first_size), Some(second_size)) =
                (types::size_of(&first, self.program), types::size_of(&second, self.program))
            else {
                continue;
            };
            if first.is_pointer()
                || second.is_pointer()
                || !first.is_integer()
                || !second.is_integer()
            {
                continue;
            }
            let constant = matches!(added.peeled().kind, ExprKind::Int(_));
            let narrow = first_size < 4 && second_size < 4;
            let unsigned = first.is_unsigned() && first_size >= second_size
                || second.is_unsigned() && second_size >= 4 && second_size >= first_size;
            let signed = first_size >= 4 && !unsigned;
            if narrow || signed && (!constant || first_size >= 4) {
                let why = if narrow {
                    "the sum is computed as an int, which does not wrap"
                } else {
                    "a signed sum must not wrap, so the compiler may drop the test"
                };
                self.alert(MemoryCheck::OverflowTest, expr.range, why.to_owned(), Vec::new());
                return;
            }
        }
    }

    /// `result == 0 || result == 1`: another outcome passes for a verified certificate.
    pub(super) fn check_conflated(&mut self, expr: &'p Expr<'p>) {
        let mut values: Vec<(String, i64)> = Vec::new();
        equalities(expr, &mut values);
        let conflated = values.iter().any(|(place, value)| {
            *value == 0
                && self.verified.contains(place.as_str())
                && values.iter().any(|(other, value)| other == place && *value != 0)
        });
        if conflated {
            self.alert(
                MemoryCheck::CertificateCheck,
                expr.range,
                "only 0 says that the certificate is good".to_owned(),
                Vec::new(),
            );
        }
    }

    /// A value goes into a variable of a type: products made too narrow, numbers cut off, allocations that do not fit.
    pub(super) fn check_conversion(
        &mut self,
        value: &'p Expr<'p>,
        number: &Number,
        ty: &Type<'p>,
        state: &mut State,
    ) {
        if ty.pointers > 0 {
            self.check_allocation_fits(value, ty, state);
            return;
        }
        let Some(size) = types::size_of(ty, self.program) else { return };
        if let ExprKind::Binary { op: BinaryOp::Mul, left, right } = &value.kind
            && size > 4
            && !ty.is_pointer()
        {
            self.check_product(value, left, right, state);
        }
        self.check_narrowing(value, number, ty, size);
    }

    fn check_product(
        &mut self,
        product: &'p Expr<'p>,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State,
    ) {
        let mut factors = Vec::new();
        leaves(left, &mut factors);
        leaves(right, &mut factors);
        let mut n_large = 0;
        let mut reach = Number::exactly(1);
        for factor in factors {
            let Some(ty) = self.ty(factor) else { return };
            if !ty.is_integer() || types::size_of(&ty, self.program).is_none_or(|size| size > 4) {
                return;
            }
            let number = self.quiet(factor, state);
            let small = number.constant().is_some()
                || types::size_of(&ty, self.program).is_some_and(|size| size < 2);
            n_large += usize::from(!small);
            reach = Number::combine(BinaryOp::Mul, &reach, &number);
        }
        if n_large >= 2 && reach.high > i64::from(i32::MAX) {
            self.alert(
                MemoryCheck::WideningProduct,
                product.range,
                "it is computed in 32 bits and widened afterwards".to_owned(),
                Vec::new(),
            );
        }
    }

    /// A number from outside is cut to a smaller type.
    pub(super) fn check_narrowing(
        &mut self,
        value: &'p Expr<'p>,
        number: &Number,
        ty: &Type<'p>,
        size: i64,
    ) {
        if self.mode != Mode::Faithful
            || number.external != External::Yes
            || number.checked
            || number.is_bounded()
            || !ty.is_integer()
            || number.is_length
        {
            return;
        }
        let Some(from) = self.ty(value) else { return };
        if from.is_integer() && types::size_of(&from, self.program).is_some_and(|from| from > size)
        {
            self.alert(
                MemoryCheck::IntegerOverflow,
                value.range,
                format!("it may not fit in `{}`", ty.name),
                Vec::new(),
            );
        }
    }

    /// `T *p = malloc(n)` where `n` bytes are no whole number of `T`.
    fn check_allocation_fits(&mut self, value: &'p Expr<'p>, ty: &Type<'p>, state: &mut State) {
        let ExprKind::Call { callee, args } = &value.peeled().kind else { return };
        let ExprKind::Name("malloc" | "xmalloc" | "alloca" | "kmalloc" | "kzalloc") = callee.kind
        else {
            return;
        };
        let (Some(size), Some(element)) =
            (args.first(), types::stride_of(ty, self.program).filter(|size| *size > 1))
        else {
            return;
        };
        let element_type = Type { pointers: ty.pointers - 1, ..ty.clone() };
        let scalar = element_type.scalar_size().is_some();
        let Some(bytes) = self.quiet(&size.value, state).constant() else { return };
        if bytes < element && bytes > 0 && scalar || scalar && bytes % element != 0 {
            self.alert(
                MemoryCheck::AllocationSize,
                value.range,
                format!("{bytes} bytes for elements of {element}"),
                Vec::new(),
            );
        }
    }

    /// Calls whose sizes belong to something else, and texts without room for their end mark.
    pub(super) fn check_call(
        &mut self,
        expr: &'p Expr<'p>,
        name: &str,
        args: &'p [Arg<'p>],
        cells: &[Cell],
        state: &mut State,
    ) {
        match name {
            "strncpy" | "wcsncpy" | "wcsxfrm" | "strxfrm" | "wcsxfrm_l" | "strxfrm_l"
            | "stpncpy" => self.check_source_size(expr, args, state),
            "memset" => self.check_fill(expr, args),
            "cin" | "wcin" => self.check_stream(args, state),
            "width" => state.set(WIDTH, Cell::default()),
            _ => {}
        }
        if let Some((_, positions)) = TEXT_READERS.iter().find(|(known, _)| *known == name) {
            for at in *positions {
                self.needs_end(cells.get(*at), state);
            }
        }
        match name {
            "scanf" => self.check_widths(args, 0),
            "fscanf" | "sscanf" => self.check_widths(args, 1),
            _ => {}
        }
        let format = match name {
            "printf" | "wprintf" => Some(0),
            "fprintf" | "sprintf" => Some(1),
            "snprintf" => Some(2),
            _ => None,
        };
        if let Some(at) = format
            && let Some(Arg { value: Expr { kind: ExprKind::Str(text), .. }, .. }) = args.get(at)
        {
            for position in open_texts(text) {
                self.needs_end(cells.get(at + 1 + position), state);
            }
        }
    }

    fn needs_end(&mut self, cell: Option<&Cell>, state: &State) {
        let object = state.object(cell.and_then(|cell| cell.object));
        if let Some(at) = object.and_then(|object| object.no_end) {
            self.alert(
                MemoryCheck::MissingTerminator,
                at,
                "the length of a text does not count its end mark".to_owned(),
                Vec::new(),
            );
        }
    }

    /// `strncpy(out, text, strlen(text))`: the limit must come from `out`.
    fn check_source_size(&mut self, expr: &'p Expr<'p>, args: &'p [Arg<'p>], state: &mut State) {
        let [target, source, size, ..] = args else { return };
        let (Some(from), Some(into)) =
            (source.value.peeled().place(), target.value.peeled().place())
        else {
            return;
        };
        if from == into {
            return;
        }
        let mut measured = size.value.peeled();
        while let ExprKind::Binary { op: BinaryOp::Add | BinaryOp::Sub, left, right } =
            &measured.kind
        {
            if !matches!(right.peeled().kind, ExprKind::Int(_)) {
                return;
            }
            measured = left.peeled();
        }
        let by_source = match &measured.kind {
            ExprKind::Call { callee, args } => {
                matches!(callee.kind, ExprKind::Name("strlen" | "wcslen"))
                    && args
                        .first()
                        .is_some_and(|arg| arg.value.peeled().place().as_ref() == Some(&from))
            }
            ExprKind::SizeofValue(inner) => {
                inner.place().as_ref() == Some(&from)
                    && !self
                        .ty(&target.value)
                        .zip(self.ty(&source.value))
                        .is_some_and(|(a, b)| a.dimensions == b.dimensions && a.name == b.name)
            }
            _ => false,
        };
        // Memory that was allocated for just this text.
        let object = state.get(&into).and_then(|cell| cell.object);
        let sized = state
            .object(object)
            .and_then(|object| object.size_text.as_deref())
            .is_some_and(|text| text.contains("len("));
        if by_source && !sized {
            self.alert(
                MemoryCheck::CopyBySource,
                expr.range,
                format!("the limit is the size of `{from}`, not of `{into}`"),
                Vec::new(),
            );
        }
    }

    /// `memset(p, 0, sizeof(other))`: the size is that of another type.
    fn check_fill(&mut self, expr: &'p Expr<'p>, args: &'p [Arg<'p>]) {
        let [target, _, size] = args else { return };
        if matches!(target.value.kind, ExprKind::Cast { .. }) {
            return;
        }
        let measured = match &size.value.peeled().kind {
            ExprKind::SizeofType(ty) => Some(ty.clone()),
            ExprKind::SizeofValue(inner) => match &inner.kind {
                ExprKind::Name(name) if self.scope.get(name).is_none() => {
                    Some(Type { name: (*name).into(), ..Type::default() })
                }
                _ => self.ty(inner),
            },
            _ => None,
        };
        let pointee = match &target.value.peeled().kind {
            ExprKind::AddressOf(inner) => self.ty(inner),
            _ => self.ty(&target.value).and_then(|mut ty| {
                if ty.dimensions.is_empty() && ty.pointers == 0 {
                    return None;
                }
                if ty.dimensions.is_empty() {
                    ty.pointers -= 1;
                }
                Some(ty)
            }),
        };
        let (Some(measured), Some(pointee)) = (measured, pointee) else { return };
        let (measured, pointee) = (self.resolved(measured), self.resolved(pointee));
        if pointee.name == "void" || pointee.name.is_empty() || measured.name.is_empty() {
            return;
        }
        // Bytes may hold anything.
        if pointee.pointers == 0 && pointee.scalar_size() == Some(1) {
            return;
        }
        if measured.name != pointee.name || measured.pointers != pointee.pointers {
            self.alert(
                MemoryCheck::FillSize,
                expr.range,
                format!(
                    "the size is that of `{}{}`",
                    measured.name,
                    "*".repeat(measured.pointers.into())
                ),
                Vec::new(),
            );
        }
    }

    /// A type with its typedefs followed.
    fn resolved(&self, mut ty: Type<'p>) -> Type<'p> {
        for _ in 0..4 {
            let Some(known) = self.program.typedefs.get(ty.name.as_ref()) else { break };
            if known.name == ty.name {
                break;
            }
            ty.pointers += known.pointers;
            ty.dimensions.extend(known.dimensions.iter().copied());
            ty.name.clone_from(&known.name);
        }
        ty
    }

    /// `cin >> array` reads a word of any length.
    fn check_stream(&mut self, args: &'p [Arg<'p>], state: &mut State) {
        for arg in args {
            if calls(&arg.value, "setw") {
                state.set(WIDTH, Cell::default());
                continue;
            }
            // A width holds for the next text alone.
            if state.get(WIDTH).is_some() {
                state.forget(WIDTH);
                continue;
            }
            let Some(ty) = self.ty(&arg.value).map(|ty| self.resolved(ty)) else { continue };
            if ty.is_pointer() && matches!(ty.name.as_ref(), "char" | "wchar_t" | "unsigned char") {
                self.alert(
                    MemoryCheck::UnboundedStream,
                    arg.value.range,
                    format!("`{}` may be too small", describe(&arg.value)),
                    Vec::new(),
                );
            }
        }
    }

    /// The text of a size that is just as long as a text, such as `strlen(name)`.
    pub(super) fn is_bare_length(expr: &Expr<'p>, cell: &Cell) -> bool {
        let counts = |expr: &Expr<'p>| match &expr.peeled().kind {
            ExprKind::Call { callee, .. } => {
                matches!(callee.kind, ExprKind::Name("strlen" | "wcslen"))
            }
            _ => false,
        };
        cell.length_of.is_some() && cell.number.minus == 0
            || match &expr.peeled().kind {
                ExprKind::Binary { op: BinaryOp::Mul, left, right } => {
                    let sized = |expr: &Expr<'p>| {
                        matches!(
                            expr.peeled().kind,
                            ExprKind::SizeofType(_) | ExprKind::SizeofValue(_)
                        )
                    };
                    counts(left) && sized(right) || counts(right) && sized(left)
                }
                _ => false,
            }
    }
}

/// The comparisons that must hold for a loop to go on.
fn comparisons<'e, 'p>(test: &'e Expr<'p>) -> Vec<&'e Expr<'p>> {
    match &test.kind {
        ExprKind::Binary { op: BinaryOp::And, left, right } => {
            let mut all = comparisons(left);
            all.extend(comparisons(right));
            all
        }
        ExprKind::Binary { op, .. } if op.is_order() => vec![test],
        _ => Vec::new(),
    }
}

fn counts_up(expr: &Expr<'_>, name: &str) -> bool {
    let here = match &expr.kind {
        ExprKind::Update { target, .. }
        | ExprKind::Assign { op: Some(BinaryOp::Add), target, .. } => target.root() == Some(name),
        _ => false,
    };
    here || expr.children().into_iter().any(|child| counts_up(child, name))
}

/// Whether a function of this name is called anywhere in an expression.
fn calls(expr: &Expr<'_>, name: &str) -> bool {
    let here = match &expr.kind {
        ExprKind::Call { callee, .. } => match &callee.kind {
            ExprKind::Name(known) | ExprKind::Attribute { name: known, .. } => *known == name,
            _ => false,
        },
        _ => false,
    };
    here || expr.children().into_iter().any(|child| calls(child, name))
}

/// What places are compared with in a chain of `||`.
fn equalities(expr: &Expr<'_>, out: &mut Vec<(String, i64)>) {
    match &expr.kind {
        ExprKind::Binary { op: BinaryOp::Or, left, right } => {
            equalities(left, out);
            equalities(right, out);
        }
        ExprKind::Binary { op: BinaryOp::Eq, left, right } => {
            for (side, other) in [(left, right), (right, left)] {
                if let (Some(place), ExprKind::Int(value)) = (side.place(), &other.kind) {
                    out.push((place, *value));
                }
            }
        }
        _ => {}
    }
}

/// The factors of a product.
fn leaves<'e, 'p>(expr: &'e Expr<'p>, out: &mut Vec<&'e Expr<'p>>) {
    match &expr.kind {
        ExprKind::Binary { op: BinaryOp::Mul, left, right } => {
            leaves(left, out);
            leaves(right, out);
        }
        _ => out.push(expr),
    }
}

/// The arguments after a format that are read as text up to the end mark.
fn open_texts(format: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let mut limited = false;
        for c in chars.by_ref() {
            match c {
                '%' => break,
                '*' => at += 1,
                '.' => limited = true,
                'l' | 'h' | 'z' | 'j' | 't' | 'L' => {}
                c if c.is_ascii_alphabetic() => {
                    if matches!(c, 's' | 'S') && !limited {
                        found.push(at);
                    }
                    at += 1;
                    break;
                }
                _ => {}
            }
        }
    }
    found
}

/// Whether a number in this expression comes from outside: by itself, or by a variable that holds one.
pub(super) fn is_fed(expr: &Expr<'_>, fed: &BTreeSet<&str>, external: &[&str]) -> bool {
    let here = match &expr.kind {
        ExprKind::Name(name) => fed.contains(name),
        ExprKind::Call { callee, .. } => match &callee.kind {
            ExprKind::Name(name) => external.contains(name),
            _ => false,
        },
        _ => false,
    };
    here || expr.children().into_iter().any(|child| is_fed(child, fed, external))
}

/// Names that are given a number from outside somewhere in a body.
pub(super) fn fed_names<'p>(
    body: &[Stmt<'p>],
    seeds: &[&'p str],
    external: &[&str],
) -> BTreeSet<&'p str> {
    let mut fed: BTreeSet<&'p str> = seeds.iter().copied().collect();
    for _ in 0..2 {
        any_stmt_of(body, &mut |stmt| {
            let target = match &stmt.kind {
                StmtKind::Declare { name, init: Some(init), .. } => Some((*name, init)),
                StmtKind::Expr(Expr { kind: ExprKind::Assign { target, value, .. }, .. }) => {
                    target.root().map(|name| (name, &**value))
                }
                _ => None,
            };
            if let Some((name, value)) = target
                && is_fed(value, &fed, external)
            {
                fed.insert(name);
            }
            if external.contains(&"atoi") {
                for expr in stmt.exprs() {
                    scanned(expr, &mut fed);
                }
            }
        });
    }
    fed
}

/// Numbers that `scanf` fills.
fn scanned<'p>(expr: &Expr<'p>, out: &mut BTreeSet<&'p str>) {
    if let ExprKind::Call { callee, args } = &expr.kind
        && matches!(callee.kind, ExprKind::Name("scanf" | "fscanf" | "sscanf"))
    {
        out.extend(args.iter().filter_map(|arg| match &arg.value.kind {
            ExprKind::AddressOf(inner) => inner.root(),
            _ => None,
        }));
    }
    for child in expr.children() {
        scanned(child, out);
    }
}

fn any_stmt_of<'e, 'p>(body: &'e [Stmt<'p>], each: &mut dyn FnMut(&'e Stmt<'p>)) {
    for stmt in body {
        each(stmt);
        for block in stmt.blocks() {
            any_stmt_of(block, each);
        }
    }
}
