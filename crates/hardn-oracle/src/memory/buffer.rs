//! The C library's functions on memory: what they allocate, how much they write.

use super::{
    Memory,
    bound::{Reach, Sum},
    eval::{describe, text_of},
    number::{External, HIGHEST, Number},
    release,
    state::{Cell, Null, Object, State},
    types,
};
use crate::{
    engine::Mode,
    ir::{Arg, BinaryOp, Expr, ExprKind, Type},
    rules::MemoryCheck,
};

/// Space after a pointer, where something is known of it.
struct Room {
    bytes: Option<i64>,
    /// The size as written in the allocation.
    text: Option<String>,
    /// A parameter, a field of one, or an array: its size does not grow with what is copied.
    is_given: bool,
    /// What it holds in units of so many bytes, by name.
    sizes: Vec<Sum>,
    unit: Option<i64>,
    name: String,
}

impl<'p> Memory<'p, '_> {
    /// The effect of a library call; `None` for calls this module knows nothing of.
    pub(super) fn buffer_call(
        &mut self,
        expr: &'p Expr<'p>,
        name: &str,
        args: &'p [Arg<'p>],
        cells: &[Cell],
        state: &mut State,
    ) -> Option<Cell> {
        let arg = |at: usize| args.get(at).map(|arg| &arg.value);
        match name {
            _ if self.allocates.contains_key(name) => {
                let at = self.allocates[name];
                let (cell, size_expr) = (cells.get(at)?, arg(at)?);
                let object = Object {
                    bytes: cell.number.constant(),
                    size_text: Some(text_of(size_expr)),
                    no_end: Self::is_bare_length(size_expr, cell).then_some(expr.range),
                    ..Object::default()
                };
                let id = self.new_object(state, object);
                Some(Cell { object: Some(id), ..Cell::default() })
            }
            "malloc" | "xmalloc" | "kmalloc" | "kzalloc" | "vmalloc" | "alloca" | "g_malloc"
            | "emalloc" | "realloc" | "xrealloc" | "krealloc" => {
                let at = usize::from(name.ends_with("realloc"));
                let (size, size_expr) = (cells.get(at)?.number.clone(), arg(at)?);
                self.check_allocation(&size, size_expr, state);
                self.check_limit(&size, size_expr.range);
                let (sizes, unit) = self.sized(size_expr, state);
                let object = Object {
                    bytes: size.constant(),
                    size_text: Some(text_of(size_expr)),
                    no_end: Self::is_bare_length(size_expr, cells.get(at)?).then_some(expr.range),
                    sizes,
                    unit,
                    ..Object::default()
                };
                let id = self.new_object(state, object);
                let fails = matches!(
                    name,
                    "malloc" | "kmalloc" | "kzalloc" | "vmalloc" | "realloc" | "krealloc"
                );
                let null = if fails { Null::Maybe } else { Null::No };
                let reach = Some(Reach::START);
                Some(Cell { null, null_at: expr.range, object: Some(id), reach, ..Cell::default() })
            }
            "calloc" | "kcalloc" => {
                let bytes =
                    Number::combine(BinaryOp::Mul, &cells.first()?.number, &cells.get(1)?.number)
                        .constant();
                for cell in cells.iter().take(2) {
                    self.check_size(&cell.number);
                }
                let sizes = self.sums(arg(0)?, state);
                let unit = cells.get(1)?.number.constant();
                let size_text = Some(text_of(expr));
                let object = Object { bytes, size_text, sizes, unit, ..Object::default() };
                let id = self.new_object(state, object);
                Some(Cell {
                    null: Null::Maybe,
                    null_at: expr.range,
                    object: Some(id),
                    reach: Some(Reach::START),
                    ..Cell::default()
                })
            }
            "offsetof" => {
                let (ExprKind::SizeofType(ty), ExprKind::Name(field)) =
                    (&arg(0)?.kind, &arg(1)?.kind)
                else {
                    return None;
                };
                let mut number = types::offset_of(ty, field, self.program)
                    .map_or_else(|| Number::default().at_least(0), Number::exactly);
                number.wide = true;
                Some(Cell { number, ..Cell::default() })
            }
            "strlen" | "wcslen" => {
                let text = arg(0)?;
                self.needs_pointer(text, cells.first()?, state);
                Some(self.length_cell(text, state))
            }
            "strcpy" | "strcat" | "stpcpy" | "wcscpy" | "wcscat" => {
                let (target, source) = (arg(0)?, arg(1)?);
                self.needs_pointer(target, cells.first()?, state);
                self.needs_pointer(source, cells.get(1)?, state);
                let mut length = self.length_cell(source, state).number;
                if name.starts_with("wcs") && length.high != HIGHEST {
                    // Each character, and the end mark, takes four bytes.
                    length.high = length.high.saturating_mul(4).saturating_add(3);
                }
                self.check_text_copy(expr, target, source, &length, name.ends_with("cat"), state);
                Self::forget_text(target, state);
                Some(cells.first()?.clone())
            }
            "sprintf" | "vsprintf" => {
                self.needs_pointer(arg(0)?, cells.first()?, state);
                self.check_format(expr, args, cells, state);
                Self::forget_text(arg(0)?, state);
                Some(Cell::default())
            }
            "memcpy" | "memmove" | "strncpy" | "bcopy" | "memset" | "wmemcpy" | "wmemset"
            | "wcsncpy" | "wmemmove" => {
                for (at, cell) in
                    cells.iter().enumerate().take(if name.ends_with("memset") { 1 } else { 2 })
                {
                    self.needs_pointer(arg(at)?, cell, state);
                }
                let mut room = self.room(arg(0)?, state);
                let mut length = cells.get(2)?.number.clone();
                if name.starts_with('w') {
                    length = Number::combine(BinaryOp::Mul, &length, &Number::exactly(4));
                }
                if self.mode == Mode::Faithful && name.contains("mem") {
                    // Running on into the fields after it is taken to be meant.
                    let end = self.room_of_value(arg(0)?);
                    room.bytes = room.bytes.map(|bytes| end.map_or(bytes, |end| end.max(bytes)));
                }
                self.check_length(expr, &room, &length, arg(2)?, 0, state);
                if name == "memcpy" || name == "memmove" {
                    self.check_source(expr, arg(1)?, &cells.get(2)?.number, state);
                }
                Self::forget_text(arg(0)?, state);
                Some(cells.first()?.clone())
            }
            "strncat" => {
                let room = self.room(arg(0)?, state);
                self.check_length(expr, &room, &cells.get(2)?.number, arg(2)?, 1, state);
                Self::forget_text(arg(0)?, state);
                Some(cells.first()?.clone())
            }
            "snprintf" | "vsnprintf" | "fgets" | "strlcpy" | "strlcat" => {
                let at = if name.starts_with("strl") { 2 } else { 1 };
                self.needs_pointer(arg(0)?, cells.first()?, state);
                let room = self.room(arg(0)?, state);
                self.check_length(expr, &room, &cells.get(at)?.number, arg(at)?, 0, state);
                Self::forget_text(arg(0)?, state);
                let null = if name == "fgets" { Null::Unknown } else { Null::No };
                Some(Cell { null, ..Cell::default() })
            }
            "read" | "recv" | "recvfrom" => {
                self.needs_pointer(arg(1)?, cells.get(1)?, state);
                let room = self.room(arg(1)?, state);
                let length = cells.get(2)?.number.clone();
                self.check_length(expr, &room, &length, arg(2)?, 0, state);
                Self::forget_text(arg(1)?, state);
                let number = Number { low: -1, high: length.high, ..Number::external() };
                Some(Cell { number, ..Cell::default() })
            }
            "fread" => {
                self.needs_pointer(arg(0)?, cells.first()?, state);
                let room = self.room(arg(0)?, state);
                let length =
                    Number::combine(BinaryOp::Mul, &cells.get(1)?.number, &cells.get(2)?.number);
                self.check_length(expr, &room, &length, arg(2)?, 0, state);
                self.needs_pointer(arg(3)?, cells.get(3)?, state);
                Self::forget_text(arg(0)?, state);
                let number = Number { low: 0, high: cells[2].number.high, ..Number::external() };
                Some(Cell { number, ..Cell::default() })
            }
            "scanf" | "fscanf" | "sscanf" => {
                let filled = if name == "scanf" { 1 } else { 2 };
                for (at, cell) in cells.iter().enumerate().skip(filled) {
                    if let Some(expr) = arg(at).filter(|expr| expr.place().is_some()) {
                        self.needs_pointer(expr, cell, state);
                    }
                }
                None
            }
            "fclose" | "fprintf" | "fputs" | "fwrite" | "strcmp" | "strncmp" | "strdup"
            | "strchr" | "strstr" | "strrchr" | "atoi" | "puts" | "fgetc" | "strtok" => {
                let positions: &[usize] = match name {
                    "fwrite" => &[3],
                    "fputs" | "strcmp" | "strncmp" | "strstr" => &[0, 1],
                    "strtok" => &[],
                    _ => &[0],
                };
                for at in positions {
                    if let (Some(expr), Some(cell)) = (arg(*at), cells.get(*at)) {
                        self.needs_pointer(expr, cell, state);
                    }
                }
                None
            }
            _ if release::allocates_last(name, args) && !self.defined.contains(name) => {
                let size = arg(args.len() - 1)?;
                if !self.ty(size).is_none_or(|ty| ty.is_integer()) {
                    return None;
                }
                let cell = cells.last()?;
                self.check_allocation(&cell.number, size, state);
                let (sizes, unit) = self.sized(size, state);
                let object = Object {
                    bytes: None,
                    // Whichever argument it is: the number of elements may come first.
                    size_text: Some(text_of(expr)),
                    sizes,
                    unit,
                    ..Object::default()
                };
                let id = self.new_object(state, object);
                let fails = self.mode == Mode::Snippet && release::may_give_nothing(name);
                let null = if fails { Null::Maybe } else { Null::Unknown };
                let reach = Some(Reach::START);
                let null_at = expr.range;
                Some(Cell { null, null_at, object: Some(id), reach, ..Cell::default() })
            }
            "MIN" | "min" | "std::min" => {
                let (a, b) = (&cells.first()?.number, &cells.get(1)?.number);
                let mut number = a.clone();
                number.join(b);
                number.high = a.high.min(b.high);
                number.level = Some(a.level.or(b.level).unwrap_or(0));
                Some(Cell { number, ..Cell::default() })
            }
            _ if name.contains("_overflow") => {
                // The compiler's checked arithmetic: the result is good where it is used.
                if let Some(ExprKind::AddressOf(target)) = arg(2).map(|expr| &expr.kind)
                    && let Some(place) = target.place()
                {
                    let number = Number { checked: true, ..Number::default() };
                    state.set(&place, Cell { number, ..Cell::default() });
                }
                for at in 0..2 {
                    if let Some(place) = arg(at).and_then(|expr| expr.peeled().place()) {
                        state.cell(&place).number.checked = true;
                    }
                }
                Some(Cell::default())
            }
            _ => None,
        }
    }

    fn needs_pointer(&mut self, expr: &'p Expr<'p>, cell: &Cell, state: &mut State) {
        self.dereference(expr, cell, state);
    }

    fn forget_text(target: &'p Expr<'p>, state: &mut State) {
        if let Some(place) = target.peeled().place() {
            state.forget_parts(&place);
        }
    }

    /// Sizes are computed in the width of their operands: `n * sizeof(T)` may wrap, too.
    fn check_allocation(&mut self, size: &Number, expr: &'p Expr<'p>, state: &mut State) {
        if size.wraps.is_some() {
            self.check_size(size);
            return;
        }
        if let ExprKind::Binary { op: BinaryOp::Mul, left, right } = &expr.peeled().kind {
            let (a, b) = (self.quiet(left, state), self.quiet(right, state));
            let open = |number: &Number| {
                number.external == External::Yes && !number.checked && !number.is_bounded()
            };
            if (open(&a) && b.constant() != Some(1)) || (open(&b) && a.constant() != Some(1)) {
                self.alert(
                    MemoryCheck::IntegerOverflow,
                    expr.range,
                    "the product is used as a size unchecked".to_owned(),
                    Vec::new(),
                );
            }
        }
    }

    /// The length of a text, remembered under `strlen(place)`.
    fn length_cell(&mut self, text: &'p Expr<'p>, state: &mut State) -> Cell {
        if let ExprKind::Str(literal) = &text.peeled().kind {
            return Cell { number: Number::exactly(literal.len() as i64), ..Cell::default() };
        }
        let place = text.peeled().place();
        let key = place.as_ref().map(|place| format!("strlen({place})"));
        if let Some(known) = key.as_deref().and_then(|key| state.get(key)) {
            return Cell { length_of: place, ..known.clone() };
        }
        let mut number = Number { wide: true, is_length: true, ..Number::default() }.at_least(0);
        let array =
            self.ty(text).and_then(|ty| types::length_of(&ty)).filter(|_| !self.is_param(text));
        if let Some(length) = array {
            number.high = length - 1;
        } else {
            let root = text.root();
            let of_param =
                root.is_some_and(|root| self.params.contains(root)) && self.mode == Mode::Snippet;
            let of_argv = root.is_some_and(|root| self.texts.contains(root));
            if of_param || of_argv {
                number.external = External::Yes;
            } else if matches!(&text.peeled().kind, ExprKind::Name(name) if self.locals.contains(name))
            {
                // A pointer into something that was given.
                number.external = External::Field;
            }
        }
        Cell { number, length_of: place, ..Cell::default() }
    }

    fn is_param(&self, expr: &Expr<'p>) -> bool {
        matches!(&expr.peeled().kind, ExprKind::Name(name) if self.params.contains(name))
    }

    fn room(&mut self, target: &'p Expr<'p>, state: &mut State) -> Room {
        let mut base = target.peeled();
        let mut offset = Some(0);
        while let ExprKind::Binary { op: BinaryOp::Add, left, right } = &base.kind {
            let by = self.quiet(right, state);
            offset = match (offset, by.constant()) {
                (Some(sum), Some(by)) => Some(sum + by),
                _ => None,
            };
            base = left.peeled();
        }
        if let ExprKind::AddressOf(inner) = &base.kind
            && let ExprKind::Subscript { base: array, index } = &inner.kind
        {
            let by = self.quiet(index, state);
            offset = match (offset, by.constant()) {
                (Some(sum), Some(by)) => Some(sum + by),
                _ => None,
            };
            base = array.peeled();
        }
        let ty = self.ty(base);
        let has_dimensions = ty.as_ref().is_some_and(|ty| !ty.dimensions.is_empty());
        let array = ty
            .as_ref()
            .filter(|ty| !ty.dimensions.is_empty())
            .filter(|ty| {
                !types::length_of(ty).is_some_and(|length| {
                    types::is_open_end(base, length, &self.scope, self.program)
                })
            })
            .and_then(|ty| types::size_of(ty, self.program));
        let whole = match &base.kind {
            ExprKind::AddressOf(inner) if array.is_none() => self.room_of_value(inner),
            ExprKind::Attribute { base: owner, name, .. } if array.is_none() => {
                self.room_of_end(owner, name, state)
            }
            _ => None,
        };
        let array = array.or(whole);
        let object = base.place().and_then(|place| state.get(&place).and_then(|cell| cell.object));
        let object = state.object(object);
        let stride = ty.as_ref().and_then(|ty| types::stride_of(ty, self.program)).unwrap_or(1);
        let bytes = array.or(object.and_then(|object| object.bytes));
        let root_is_param = base.root().is_some_and(|root| self.params.contains(root));
        Room {
            bytes: match (bytes, offset) {
                (Some(bytes), Some(offset)) => Some(bytes - offset * stride),
                (Some(bytes), None) => Some(bytes),
                _ => None,
            },
            text: object.and_then(|object| object.size_text.clone()),
            sizes: object
                .filter(|_| offset == Some(0))
                .map(|object| object.sizes.clone())
                .unwrap_or_default(),
            unit: object.and_then(|object| object.unit),
            is_given: array.is_some() || root_is_param || has_dimensions,
            name: describe(base),
        }
    }

    /// Space from the start of a variable or field to the end of what it is part of.
    fn room_of_value(&self, value: &'p Expr<'p>) -> Option<i64> {
        match &value.peeled().kind {
            ExprKind::Attribute { base, name, .. } => {
                let mut owner = self.ty(base)?;
                owner.pointers = 0;
                owner.dimensions.clear();
                let offset = types::offset_of(&owner, name, self.program)?;
                Some(types::size_of(&owner, self.program)? - offset)
            }
            ExprKind::Name(name) if self.locals.contains(name) || self.params.contains(name) => {
                types::size_of(&self.ty(value)?, self.program)
            }
            ExprKind::Name(name) if self.scope.has_global(name) => {
                types::size_of(&self.ty(value)?, self.program)
            }
            // A field of the object that the method belongs to.
            ExprKind::Name(name) => {
                let owner = Type { name: self.class?.into(), ..Type::default() };
                let offset = types::offset_of(&owner, name, self.program)?;
                Some(types::size_of(&owner, self.program)? - offset)
            }
            _ => None,
        }
    }

    /// Space of the open array at the end of a struct, by what was allocated for it.
    pub(super) fn room_of_end(
        &self,
        owner: &'p Expr<'p>,
        field: &str,
        state: &State,
    ) -> Option<i64> {
        let object = state.get(&owner.peeled().place()?)?.object;
        let bytes = state.object(object)?.bytes?;
        let mut ty = self.ty(owner)?;
        ty.pointers = ty.pointers.checked_sub(1)?;
        // What is added to the size of the struct comes on top of the elements it has; padding is not counted on.
        let declared = types::fields_of(&ty, self.program)?.get(field)?;
        let declared = types::size_of(declared, self.program).unwrap_or(0);
        let by_size = bytes - types::size_of(&ty, self.program)? + declared;
        Some(by_size.min(bytes - types::offset_of(&ty, field, self.program)?))
    }

    /// `length` bytes go into a buffer; `terminator` is added to them.
    fn check_length(
        &mut self,
        expr: &'p Expr<'p>,
        room: &Room,
        length: &Number,
        length_expr: &'p Expr<'p>,
        terminator: i64,
        state: &mut State,
    ) {
        let past = !room.sizes.is_empty() && {
            let (sums, unit) = self.sized(length_expr, state);
            let past = |sum: &Sum| {
                room.sizes.iter().any(|size| size.term == sum.term && sum.plus > size.plus)
            };
            unit.is_some() && unit == room.unit && sums.iter().any(past)
        };
        let too_long = past
            || match room.bytes {
                Some(bytes) => {
                    if length.high == HIGHEST {
                        match length.level {
                            Some(level) => length.loose_limit || level < 0,
                            None => length.external == External::Yes,
                        }
                    } else {
                        length.high + terminator > bytes
                            && (length.level.is_none() || length.low + terminator > bytes)
                    }
                }
                None if room.text.is_some() => {
                    // Allocated for another size.
                    let text = room.text.as_deref().unwrap_or("");
                    length.is_length
                        && length.level.is_none()
                        && length.external == External::Yes
                        && !text.contains("strlen")
                        && text.starts_with(|c: char| c.is_ascii_digit())
                        && text != text_of(length_expr)
                }
                None => {
                    room.is_given
                        && length.is_length
                        && length.external == External::Yes
                        && !length.is_bounded()
                }
            };
        let negative = length.external == External::Yes
            && !length.wide
            && length.low < 0
            && room.bytes.is_some()
            && length.is_bounded()
            && matches!(length_expr.peeled().kind, ExprKind::Name(_));
        if too_long || negative {
            let why = if too_long {
                "the length may be more than"
            } else {
                "a negative length passes the check for"
            };
            self.alert(
                MemoryCheck::OutOfBoundsWrite,
                expr.range,
                format!("{why} `{}` holds", room.name),
                Vec::new(),
            );
        }
    }

    /// More is read than the source holds.
    fn check_source(
        &mut self,
        expr: &'p Expr<'p>,
        source: &'p Expr<'p>,
        length: &Number,
        state: &mut State,
    ) {
        let room = self.room(source, state);
        if let Some(bytes) = room.bytes
            && !self.is_param(source)
            && (length.low > bytes
                || (length.high == HIGHEST
                    && length.level.is_none()
                    && length.external == External::Yes))
        {
            self.alert(
                MemoryCheck::OutOfBoundsRead,
                expr.range,
                format!("more may be read than `{}` holds", room.name),
                Vec::new(),
            );
        }
    }

    fn check_text_copy(
        &mut self,
        expr: &'p Expr<'p>,
        target: &'p Expr<'p>,
        source: &'p Expr<'p>,
        length: &Number,
        appends: bool,
        state: &mut State,
    ) {
        let room = self.room(target, state);
        let too_long = match room.bytes {
            Some(bytes) if length.high != HIGHEST => length.high + 1 > bytes,
            Some(_) => {
                length.level.is_none_or(|level| level < 1) && length.external != External::No
            }
            None => match &room.text {
                // Allocated for this text: room for the end mark is needed, too.
                Some(text) => {
                    let own = source.peeled().place().map(|place| format!("strlen({place})"));
                    // Nobody asked how long the text is that is appended.
                    let unasked = appends
                        && !text.contains("len(")
                        && length.high == HIGHEST
                        && own.as_ref().is_some_and(|own| !self.changes.contains_key(own));
                    unasked || !appends && own.as_deref() == Some(text.as_str())
                }
                None => {
                    room.is_given && length.external == External::Yes && !length.is_bounded()
                        || (room.is_given && length.level.is_some_and(|level| level < 1))
                }
            },
        };
        if too_long {
            self.alert(
                MemoryCheck::OutOfBoundsWrite,
                expr.range,
                format!("the text may be longer than `{}` holds", room.name),
                Vec::new(),
            );
        }
    }

    fn check_format(
        &mut self,
        expr: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        _cells: &[Cell],
        state: &mut State,
    ) {
        let (Some(target), Some(format)) = (args.first(), args.get(1)) else { return };
        let room = self.room(&target.value, state);
        let ExprKind::Str(format) = &format.value.peeled().kind else { return };
        let mut rest = args.iter().skip(2);
        let mut total = 0i64;
        let mut open = false;
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                total += 1;
                continue;
            }
            if chars.peek() == Some(&'%') {
                chars.next();
                total += 1;
                continue;
            }
            let mut spec = String::new();
            let conversion = loop {
                match chars.next() {
                    Some(c)
                        if c.is_ascii_alphabetic()
                            && !matches!(c, 'l' | 'h' | 'z' | 'j' | 't' | 'L') =>
                    {
                        break c;
                    }
                    Some(c) => spec.push(c),
                    None => break 's',
                }
            };
            let width: i64 = spec
                .split('.')
                .next()
                .unwrap_or("")
                .trim_matches(['-', '0', '+', ' ', 'l', 'h', 'z'])
                .parse()
                .unwrap_or(0);
            let precision: Option<i64> = spec
                .split_once('.')
                .and_then(|(_, digits)| digits.trim_end_matches(['l', 'h']).parse().ok());
            let value = rest.next().map(|arg| &arg.value);
            let most = match conversion {
                's' => match (precision, value) {
                    (Some(precision), _) => precision,
                    (None, Some(value)) => {
                        let length = self.length_cell(value, state).number;
                        if length.high == HIGHEST {
                            open |= length.external == External::Yes
                                && length.level.is_none_or(|level| level < 1);
                            0
                        } else {
                            length.high
                        }
                    }
                    _ => 0,
                },
                'c' => 1,
                'd' | 'i' => {
                    if spec.contains('l') {
                        20
                    } else {
                        11
                    }
                }
                'u' => {
                    if spec.contains('l') {
                        20
                    } else {
                        10
                    }
                }
                'x' | 'X' | 'o' => 8,
                'f' | 'F' => 310 + precision.unwrap_or(6),
                'g' | 'e' | 'G' | 'E' => 14,
                'p' => 18,
                _ => 0,
            };
            total += most.max(width);
        }
        let too_long = match room.bytes {
            Some(bytes) => open || total + 1 > bytes,
            None => open && room.is_given,
        };
        if too_long {
            self.alert(
                MemoryCheck::OutOfBoundsWrite,
                expr.range,
                format!("the formatted text may be longer than `{}` holds", room.name),
                Vec::new(),
            );
        }
    }
}
