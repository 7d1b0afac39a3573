//! A body that does nothing: what every function test must reject.

use hardn_types::Language;

/// A body that returns at once, fitting the prompt's indentation (Python) or open braces (C).
pub fn do_nothing(prompt: &str, language: Language) -> String {
    if language == Language::Python {
        let last = prompt.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let mut indent = last.len() - last.trim_start().len();
        if last.trim_end().ends_with(':') {
            indent += 4;
        }
        return format!("{}return None\n", " ".repeat(indent.max(4)));
    }
    let depth = prompt.matches('{').count().saturating_sub(prompt.matches('}').count()).max(1);
    let mut body = format!("{}return 0;\n", "    ".repeat(depth));
    for level in (0..depth).rev() {
        body.push_str(&"    ".repeat(level));
        body.push_str("}\n");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_the_prompt() {
        assert_eq!(
            do_nothing("class A:\n    def f(self):\n        \"\"\"X.\"\"\"\n", Language::Python),
            "        return None\n"
        );
        assert_eq!(
            do_nothing("def f(x):\n    while x:\n", Language::Python),
            "        return None\n"
        );
        assert_eq!(
            do_nothing("int f(void)\n{\n    if (1) {\n", Language::C),
            "        return 0;\n    }\n}\n"
        );
    }
}
