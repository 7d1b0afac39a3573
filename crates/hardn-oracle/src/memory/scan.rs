//! Widths in the formats of `scanf`.

use super::{Memory, eval::describe, types};
use crate::{
    ir::{Arg, Expr, ExprKind},
    rules::MemoryCheck,
};

impl<'p> Memory<'p, '_> {
    /// `%8s` fills nine bytes.
    pub(super) fn check_widths(&mut self, args: &'p [Arg<'p>], at: usize) {
        let Some(Arg { value: Expr { kind: ExprKind::Str(format), .. }, .. }) = args.get(at) else {
            return;
        };
        for (conversion, arg) in conversions(format).iter().zip(&args[at + 1..]) {
            let Conversion { is_text: true, width: Some(width) } = conversion else { continue };
            let Some(ty) = self.ty(&arg.value) else { continue };
            let Some(length) = types::length_of(&ty).filter(|_| ty.dimensions.len() == 1) else {
                continue;
            };
            if *width >= length && ty.scalar_size() == Some(1) {
                self.alert(
                    MemoryCheck::OutOfBoundsWrite,
                    arg.value.range,
                    format!(
                        "the width leaves no room for the end mark in `{}`",
                        describe(&arg.value)
                    ),
                    Vec::new(),
                );
            }
        }
    }
}

/// A conversion that fills an argument.
struct Conversion {
    /// It is `%s` or `%[`.
    is_text: bool,
    width: Option<i64>,
}

fn conversions(format: &str) -> Vec<Conversion> {
    let mut found = Vec::new();
    for piece in format.replace("%%", "").split('%').skip(1) {
        let digits: String = piece.chars().take_while(char::is_ascii_digit).collect();
        let kind = piece[digits.len()..].trim_start_matches(['l', 'h', 'z', 'j', 't', 'L', 'q']);
        // `%*s` fills nothing.
        if kind.starts_with('*') {
            continue;
        }
        found
            .push(Conversion { is_text: kind.starts_with(['s', '[']), width: digits.parse().ok() });
    }
    found
}
