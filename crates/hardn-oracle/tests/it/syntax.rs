//! What the tests that change programs know of each language: where names are declared, where text must stay whole.

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::Language;
use tree_sitter::{Node, Parser, Tree};

/// A kind of node and the field of it that is meant; an empty field means any child.
type Place = (&'static str, &'static str);

/// A language as the changes see it. Kinds and fields are those of its grammar.
pub(crate) struct Syntax {
    pub(crate) language: Language,
    grammar: fn() -> tree_sitter::Language,
    /// A comment on a line of its own.
    pub(crate) comment: &'static str,
    /// A function that nobody calls and that does nothing.
    pub(crate) unused: &'static str,
    /// A statement that does nothing, as the first of a function.
    pub(crate) dead_branch: &'static str,
    /// Functions; their field `body` holds their statements.
    functions: &'static [&'static str],
    /// Where a name makes a parameter, a variable or a function.
    declares: &'static [Place],
    /// Where a name belongs to something else that may have the same name: an attribute, a method.
    apart: &'static [Place],
    /// Where a name is known from outside: what has it there keeps it everywhere.
    fixed: &'static [Place],
    /// Nodes whose words are names from outside.
    fixed_words: &'static [&'static str],
    /// Nodes that are lists of what stands in their parent's field.
    lists: &'static [&'static str],
    /// Names with a meaning of their own.
    reserved: &'static [&'static str],
    /// Nodes that no line may be put into.
    whole: &'static [&'static str],
}

fn c_grammar() -> tree_sitter::Language {
    tree_sitter_c::LANGUAGE.into()
}

const C: Syntax = Syntax {
    language: Language::C,
    grammar: c_grammar,
    comment: "/* a note */",
    unused: "\nint unused_function(void)\n{\n    return 1;\n}\n",
    dead_branch: " if (0) { }",
    functions: &["function_definition"],
    declares: &[
        ("parameter_declaration", "declarator"),
        ("optional_parameter_declaration", "declarator"),
        ("declaration", "declarator"),
        ("init_declarator", "declarator"),
        ("pointer_declarator", "declarator"),
        ("array_declarator", "declarator"),
        ("reference_declarator", ""),
        ("for_range_loop", "declarator"),
        ("function_declarator", "declarator"),
    ],
    apart: &[],
    fixed: &[
        ("enumerator", "name"),
        ("qualified_identifier", ""),
        ("template_function", ""),
        ("preproc_def", "name"),
        ("preproc_function_def", "name"),
        ("preproc_params", ""),
        ("field_declaration", ""),
    ],
    fixed_words: &[
        "preproc_arg",
        "field_declaration",
        "using_declaration",
        "storage_class_specifier",
    ],
    lists: &[],
    reserved: &["this", "main", "NULL", "nullptr"],
    whole: &[
        "string_literal",
        "raw_string_literal",
        "concatenated_string",
        "preproc_def",
        "preproc_function_def",
        "preproc_call",
        "comment",
    ],
};

const JAVASCRIPT: Syntax = Syntax {
    language: Language::JavaScript,
    grammar: || tree_sitter_javascript::LANGUAGE.into(),
    comment: "// a note",
    unused: "\nfunction unusedFunction() {\n  return 1;\n}\n",
    dead_branch: " if (false) { stop(); }",
    functions: &[
        "function_declaration",
        "function_expression",
        "arrow_function",
        "method_definition",
    ],
    declares: &[
        ("formal_parameters", ""),
        ("required_parameter", "pattern"),
        ("optional_parameter", "pattern"),
        ("variable_declarator", "name"),
        ("arrow_function", "parameter"),
        ("assignment_pattern", "left"),
        ("rest_pattern", ""),
        ("array_pattern", ""),
        ("pair_pattern", "value"),
        ("catch_clause", "parameter"),
        ("for_in_statement", "left"),
        ("function_declaration", "name"),
    ],
    apart: &[],
    fixed: &[
        ("function_expression", "name"),
        ("class_declaration", "name"),
        ("export_specifier", ""),
        ("export_statement", ""),
        ("jsx_opening_element", "name"),
        ("jsx_closing_element", "name"),
        ("jsx_self_closing_element", "name"),
    ],
    fixed_words: &[
        "import_statement",
        "shorthand_property_identifier",
        "shorthand_property_identifier_pattern",
    ],
    lists: &[],
    reserved: &["this", "module", "exports", "require", "arguments", "undefined"],
    whole: &[
        "string",
        "template_string",
        "jsx_element",
        "jsx_self_closing_element",
        "regex",
        "comment",
    ],
};

/// One row a language.
pub(crate) const SYNTAXES: [Syntax; 8] = [
    Syntax {
        language: Language::Python,
        grammar: || tree_sitter_python::LANGUAGE.into(),
        comment: "# a note",
        unused: "\ndef unused_function():\n    return 1\n",
        dead_branch: "if False:\n    stop()\n",
        functions: &["function_definition"],
        declares: &[
            ("parameters", ""),
            ("lambda_parameters", ""),
            ("default_parameter", "name"),
            ("typed_default_parameter", "name"),
            ("typed_parameter", ""),
            ("list_splat_pattern", ""),
            ("dictionary_splat_pattern", ""),
            ("assignment", "left"),
            ("for_statement", "left"),
            ("for_in_clause", "left"),
            ("as_pattern_target", ""),
            ("named_expression", "name"),
            ("function_definition", "name"),
        ],
        apart: &[("attribute", "attribute")],
        fixed: &[("keyword_argument", "name"), ("class_definition", "name")],
        fixed_words: &["import_statement", "import_from_statement"],
        lists: &["pattern_list", "tuple_pattern", "list_pattern"],
        reserved: &["self", "cls", "_"],
        whole: &["string", "concatenated_string", "comment"],
    },
    C,
    Syntax { language: Language::Cpp, grammar: || tree_sitter_cpp::LANGUAGE.into(), ..C },
    JAVASCRIPT,
    Syntax {
        language: Language::TypeScript,
        grammar: || tree_sitter_typescript::LANGUAGE_TSX.into(),
        ..JAVASCRIPT
    },
    Syntax {
        language: Language::Go,
        grammar: || tree_sitter_go::LANGUAGE.into(),
        comment: "// a note",
        unused: "\nfunc unusedFunction() int {\n\treturn 1\n}\n",
        dead_branch: " if false { return };",
        functions: &["function_declaration", "method_declaration"],
        declares: &[
            ("parameter_declaration", "name"),
            ("variadic_parameter_declaration", "name"),
            ("short_var_declaration", "left"),
            ("range_clause", "left"),
            ("receive_statement", "left"),
            ("var_spec", "name"),
            ("const_spec", "name"),
            ("type_switch_statement", "alias"),
            ("function_declaration", "name"),
        ],
        apart: &[],
        fixed: &[("keyed_element", "key")],
        fixed_words: &["import_declaration"],
        lists: &["expression_list", "literal_element"],
        reserved: &["_", "main", "init", "nil", "true", "false", "iota"],
        whole: &["raw_string_literal", "interpreted_string_literal", "comment"],
    },
    Syntax {
        language: Language::Java,
        grammar: || tree_sitter_java::LANGUAGE.into(),
        comment: "// a note",
        unused: "\nclass UnusedClass {\n    int value() {\n        return 1;\n    }\n}\n",
        dead_branch: " if (false) { stop(); }",
        functions: &["method_declaration"],
        declares: &[
            ("formal_parameter", "name"),
            ("catch_formal_parameter", "name"),
            ("variable_declarator", "name"),
            ("enhanced_for_statement", "name"),
            ("resource", "name"),
            ("lambda_expression", "parameters"),
            ("inferred_parameters", ""),
            ("instanceof_expression", "name"),
        ],
        apart: &[("method_invocation", "name"), ("field_access", "field")],
        fixed: &[
            ("method_declaration", "name"),
            ("constructor_declaration", "name"),
            ("class_declaration", "name"),
            ("element_value_pair", "key"),
            ("enum_constant", "name"),
            ("annotation", "name"),
            ("marker_annotation", "name"),
            ("scoped_identifier", ""),
            ("method_reference", ""),
        ],
        fixed_words: &["import_declaration", "field_declaration"],
        lists: &[],
        reserved: &["_"],
        whole: &["string_literal", "line_comment", "block_comment"],
    },
    Syntax {
        language: Language::Ruby,
        grammar: || tree_sitter_ruby::LANGUAGE.into(),
        comment: "# a note",
        unused: "\ndef unused_method\n  1\nend\n",
        dead_branch: "stop if false\n",
        functions: &["method"],
        declares: &[
            ("assignment", "left"),
            ("operator_assignment", "left"),
            ("method_parameters", ""),
            ("block_parameters", ""),
            ("lambda_parameters", ""),
            ("optional_parameter", "name"),
            ("splat_parameter", "name"),
            ("hash_splat_parameter", "name"),
            ("block_parameter", "name"),
            ("exception_variable", ""),
            ("rest_assignment", ""),
            ("for", "pattern"),
            ("method", "name"),
        ],
        apart: &[],
        fixed: &[("keyword_parameter", "name")],
        fixed_words: &["simple_symbol"],
        lists: &["left_assignment_list", "destructured_parameter", "destructured_left_assignment"],
        reserved: &["_", "it"],
        whole: &[
            "string",
            "heredoc_body",
            "regex",
            "subshell",
            "string_array",
            "symbol_array",
            "chained_string",
            "uninterpreted",
            "comment",
        ],
    },
];

/// What a name stands for where it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Declared,
    Used,
    Apart,
    Fixed,
}

impl Syntax {
    pub(crate) fn of(language: Language) -> &'static Self {
        static ALL: &[Syntax] = &SYNTAXES;
        ALL.iter().find(|syntax| syntax.language == language).expect("one row a language")
    }

    pub(crate) fn parse(&self, code: &str) -> Tree {
        let mut parser = Parser::new();
        parser.set_language(&(self.grammar)()).expect("the grammar fits the library");
        parser.parse(code, None).expect("nothing stops the parser")
    }

    /// Where each parameter, variable and function of a program stands that can have any other name.
    pub(crate) fn names(&self, code: &str) -> BTreeMap<String, Vec<(usize, usize)>> {
        let tree = self.parse(code);
        let mut places: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        let mut declared = BTreeSet::new();
        let mut fixed: BTreeSet<&str> = self.reserved.iter().copied().collect();
        for (node, around, field) in nodes(&tree) {
            let text = &code[node.byte_range()];
            if self.fixed_words.contains(&node.kind()) {
                fixed.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_'));
            }
            if node.kind() != "identifier" {
                continue;
            }
            match self.role(node, around, field) {
                Role::Fixed => {
                    fixed.insert(text);
                }
                Role::Apart => {}
                role => {
                    if role == Role::Declared {
                        declared.insert(text);
                    }
                    places.entry(text).or_default().push((node.start_byte(), node.end_byte()));
                }
            }
        }
        places.retain(|name, _| declared.contains(name) && !fixed.contains(name));
        places.into_iter().map(|(name, at)| (name.to_owned(), at)).collect()
    }

    fn role<'t>(&self, node: Node<'t>, mut around: Option<Node<'t>>, mut field: &'t str) -> Role {
        while let Some(list) = around.filter(|around| self.lists.contains(&around.kind())) {
            let parent = list.parent();
            field = parent.map_or("", |parent| field_of(parent, list));
            around = parent;
        }
        let Some(parent) = around else { return Role::Used };
        let stands_in = |places: &[Place]| {
            places
                .iter()
                .any(|(kind, at)| *kind == parent.kind() && (at.is_empty() || *at == field))
        };
        // A method's name in Ruby; with a receiver it may be someone else's.
        if parent.kind() == "call"
            && field == "method"
            && parent.child_by_field_name("receiver").is_some()
        {
            return Role::Apart;
        }
        if stands_in(self.fixed) || Self::is_member(node) {
            Role::Fixed
        } else if stands_in(self.apart) {
            Role::Apart
        } else if stands_in(self.declares) {
            Role::Declared
        } else {
            Role::Used
        }
    }

    /// What a class body names is known from outside the class.
    fn is_member(node: Node<'_>) -> bool {
        let mut current = node.parent();
        // The function that a name is the name of is no scope of its own.
        let own = current.filter(|parent| {
            matches!(parent.kind(), "function_definition" | "method")
                && parent.child_by_field_name("name") == Some(node)
        });
        while let Some(around) = current {
            match around.kind() {
                "class_definition" | "class" | "module" => return true,
                "function_definition" | "method" | "lambda" | "call" if own != Some(around) => {
                    return false;
                }
                _ => current = around.parent(),
            }
        }
        false
    }

    /// The ends of lines after which another line may stand.
    pub(crate) fn line_ends(&self, code: &str) -> Vec<usize> {
        let tree = self.parse(code);
        let whole: Vec<(usize, usize)> = nodes(&tree)
            .into_iter()
            .filter(|(node, ..)| self.whole.contains(&node.kind()))
            .map(|(node, ..)| (node.start_byte(), node.end_byte()))
            .collect();
        code.match_indices('\n')
            .map(|(at, _)| at + 1)
            .filter(|at| !whole.iter().any(|(start, end)| start < at && at < end))
            .filter(|at| !code[..at - 1].ends_with('\\'))
            // A chain of calls in Ruby goes on.
            .filter(|at| !code[*at..].trim_start().starts_with(['.', '&']))
            .collect()
    }

    /// Where the first statements of functions stand.
    pub(crate) fn body_starts(&self, code: &str) -> Vec<usize> {
        let tree = self.parse(code);
        let bodies = nodes(&tree)
            .into_iter()
            .filter(|(node, ..)| self.functions.contains(&node.kind()))
            .filter_map(|(node, ..)| node.child_by_field_name("body"));
        let mut starts: Vec<usize> = bodies
            .filter_map(|body| match code[body.byte_range()].chars().next()? {
                '{' => Some(body.start_byte() + 1),
                // An expression.
                _ if !matches!(body.kind(), "block" | "body_statement") => None,
                _ => Some(body.start_byte()),
            })
            .collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Where comments stand.
    pub(crate) fn comments(&self, code: &str) -> Vec<(usize, usize)> {
        nodes(&self.parse(code))
            .into_iter()
            .filter(|(node, ..)| node.kind().ends_with("comment") && node.is_extra())
            .map(|(node, ..)| (node.start_byte(), node.end_byte()))
            .collect()
    }
}

/// All nodes of a tree in source order, each with its parent and the field it has there.
fn nodes(tree: &Tree) -> Vec<(Node<'_>, Option<Node<'_>>, &str)> {
    let mut out = Vec::new();
    let mut cursor = tree.walk();
    let mut parents: Vec<Node<'_>> = Vec::new();
    loop {
        let node = cursor.node();
        out.push((node, parents.last().copied(), cursor.field_name().unwrap_or("")));
        if cursor.goto_first_child() {
            parents.push(node);
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return out;
            }
            parents.pop();
        }
    }
}

fn field_of<'t>(parent: Node<'t>, child: Node<'t>) -> &'t str {
    let mut cursor = parent.walk();
    let mut more = cursor.goto_first_child();
    while more {
        if cursor.node() == child {
            return cursor.field_name().unwrap_or("");
        }
        more = cursor.goto_next_sibling();
    }
    ""
}
