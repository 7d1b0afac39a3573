//! The forms of text besides plain code: tasks with answers, and code with a hole.

/// Stands before the text above the hole.
pub const FIM_PREFIX: &str = "<|fim_prefix|>";
/// Stands before the text below the hole.
pub const FIM_SUFFIX: &str = "<|fim_suffix|>";
/// Stands before the text that fills the hole.
pub const FIM_MIDDLE: &str = "<|fim_middle|>";

/// The text that asks an instruction-tuned model for code; the code follows.
///
/// Pretraining, training and decoding use this one form. `context` is code that is given; it may be empty.
///
/// # Source
/// That tuned models are asked through a fixed form with a task and a response is He et al. 2024 (arXiv:2402.09497);
/// the words are ours.
pub fn instruction_prompt(language: &str, description: &str, context: &str) -> String {
    let context = context.trim_end();
    let given = if context.is_empty() { String::new() } else { format!("### Given\n{context}\n") };
    format!("### Task\nIn {language}: {description}\n{given}### Answer\n")
}

/// Code with a hole: what stands above, below and in it, in the order in which models read them.
pub(crate) fn fim_text(prefix: &str, middle: &str, suffix: &str) -> String {
    format!("{FIM_PREFIX}{prefix}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}{middle}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_left_out_where_there_is_none() {
        assert_eq!(
            instruction_prompt("python", "Add.", ""),
            "### Task\nIn python: Add.\n### Answer\n"
        );
        assert_eq!(
            instruction_prompt("c", "Add.", "int add(int a);\n"),
            "### Task\nIn c: Add.\n### Given\nint add(int a);\n### Answer\n"
        );
        assert_eq!(fim_text("a", "b", "c"), "<|fim_prefix|>a<|fim_suffix|>c<|fim_middle|>b");
    }
}
