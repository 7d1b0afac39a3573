//! Operators with two sides, which languages spell much alike.

use crate::ir::BinaryOp;

/// The operator a text stands for, in any of the languages: none gives one of these texts another meaning.
pub(super) fn binary_op(text: &str) -> BinaryOp {
    match text {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" | "**" => BinaryOp::Mul,
        "/" | "//" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "<<" => BinaryOp::Shl,
        ">>" | ">>>" => BinaryOp::Shr,
        "&" => BinaryOp::BitAnd,
        "|" => BinaryOp::BitOr,
        "^" => BinaryOp::BitXor,
        "==" | "===" => BinaryOp::Eq,
        "!=" | "!==" | "<>" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        "&&" | "and" => BinaryOp::And,
        "||" | "or" | "??" => BinaryOp::Or,
        "in" => BinaryOp::In,
        "is" | "instanceof" => BinaryOp::Is,
        // The two words may stand apart.
        _ => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["not", "in"] => BinaryOp::NotIn,
            ["is", "not"] => BinaryOp::IsNot,
            _ => BinaryOp::Other,
        },
    }
}
