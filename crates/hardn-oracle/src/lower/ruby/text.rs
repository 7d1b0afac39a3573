//! Strings, symbols, here-documents and regular expressions of Ruby.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Arg, Expr, ExprKind},
    lower::{
        front_end::{FrontEnd, named, range},
        literal, make,
    },
};

impl<'a> Lowering<'a, '_> {
    pub(super) fn string(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let text = self.source.text(node);
        match node.kind() {
            "simple_symbol" => return ExprKind::Str(Cow::Borrowed(text.trim_start_matches(':'))),
            "hash_key_symbol" | "file" | "encoding" => return ExprKind::Str(Cow::Borrowed(text)),
            "character" => return ExprKind::Str(Cow::Borrowed(text.trim_start_matches('?'))),
            "heredoc_beginning" => {
                return match self.heredocs.get(&node.start_byte()).copied() {
                    Some(body) => self.parts(body, text.contains('\'')),
                    None => ExprKind::Str(Cow::Borrowed("")),
                };
            }
            "chained_string" => {
                let parts = self.exprs(node);
                return joined(parts);
            }
            _ => {}
        }
        let plain =
            text.starts_with('\'') || text.starts_with("%q") || node.kind() == "bare_string";
        self.parts(node, plain)
    }

    /// The pieces of a text; `plain` ones know no escapes but those of quote and backslash.
    fn parts(&mut self, node: Node<'_>, plain: bool) -> ExprKind<'a> {
        let mut parts = Vec::new();
        for child in children(node) {
            let text = self.source.text(child);
            let kind = match child.kind() {
                "string_content" | "heredoc_content" => ExprKind::Str(Cow::Borrowed(text)),
                "escape_sequence" if plain => ExprKind::Str(match text {
                    "\\\\" => Cow::Borrowed("\\"),
                    "\\'" => Cow::Borrowed("'"),
                    other => Cow::Borrowed(other),
                }),
                "escape_sequence" => ExprKind::Str(literal::unescape(text, false)),
                "interpolation" => {
                    parts.push(self.expr(child));
                    continue;
                }
                _ => continue,
            };
            parts.push(Expr::new(kind, range(child)));
        }
        joined(parts)
    }

    /// `/a.b/i` is a `Regexp` made of its pattern and its options.
    pub(super) fn regex(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let mut parts = Vec::new();
        for child in children(node) {
            let kind = match child.kind() {
                "string_content" | "escape_sequence" => {
                    ExprKind::Str(Cow::Borrowed(match self.source.text(child) {
                        "\\/" => "/",
                        other => other,
                    }))
                }
                "interpolation" => {
                    parts.push(self.expr(child));
                    continue;
                }
                _ => continue,
            };
            parts.push(Expr::new(kind, range(child)));
        }
        let pattern = Expr::new(joined(parts), at);
        let text = self.source.text(node);
        let options = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        let options = Expr::new(ExprKind::Str(Cow::Borrowed(&text[options..])), at);
        let args = [(None, pattern), (Some("options"), options)];
        let args = args.into_iter().map(|(name, value)| Arg { name, value }).collect();
        make::constructed("Regexp", args, at)
    }
}

/// Here-documents hold their text among what else may stand anywhere.
fn children(node: Node<'_>) -> Vec<Node<'_>> {
    named(node)
}

/// Texts next to each other become one.
fn joined(parts: Vec<Expr<'_>>) -> ExprKind<'_> {
    let mut out: Vec<Expr<'_>> = Vec::new();
    for part in parts {
        if let (Some(Expr { kind: ExprKind::Str(before), range }), ExprKind::Str(text)) =
            (out.last_mut(), &part.kind)
        {
            before.to_mut().push_str(text);
            range.end = part.range.end;
        } else {
            out.push(part);
        }
    }
    match out.as_slice() {
        [] => ExprKind::Str(Cow::Borrowed("")),
        [Expr { kind: ExprKind::Str(_), .. }] => out.remove(0).kind,
        _ => ExprKind::Format(out),
    }
}
