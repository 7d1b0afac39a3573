//! The packages a program imports.

use std::ops::Range;

use hardn_types::Language;

use super::{
    java::package_of,
    known::KnownPackages,
    read::{Import, imports},
};
use crate::{CodeError, parse};

/// A package that a program imports, once for each import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// As the code has it: `yaml`, `@babel/core`, `github.com/gorilla/mux`, `org.apache.commons.lang3`,
    /// `openssl/ssl.h`, `active_support`.
    pub name: String,
    /// As the language's registry has it, where the shipped lists say that this differs: `PyYAML`, `activesupport`.
    pub registry_name: String,
    /// The whole of what is imported: `os.path`, `lodash/fp`.
    pub module: String,
    /// The import's statement in bytes.
    pub span: Range<usize>,
    /// Whether it is part of the project itself.
    pub is_local: bool,
}

/// The packages a program imports, in source order.
///
/// # Errors
/// Those of [`parse`].
pub fn packages(code: &str, language: Language) -> Result<Vec<Package>, CodeError> {
    let own = own_package(code, language)?;
    let known = KnownPackages::shipped();
    let mut found: Vec<Package> = Vec::new();
    for import in imports(code, language)? {
        let name = name(&import, language);
        let is_own = own.as_deref().is_some_and(|own| name.starts_with(own));
        let package = Package {
            registry_name: known.registry_name(&name, language).unwrap_or(&name).to_owned(),
            is_local: import.is_local || is_own || is_local(&name, language),
            name,
            module: import.module,
            span: import.statement,
        };
        if found.last() != Some(&package) {
            found.push(package);
        }
    }
    Ok(found)
}

fn name(import: &Import, language: Language) -> String {
    let module = import.module.as_str();
    let first =
        |n: usize, by: char| module.split(by).take(n).collect::<Vec<_>>().join(&by.to_string());
    if import.is_local {
        return module.to_owned();
    }
    match language {
        Language::Python => first(1, '.'),
        Language::C | Language::Cpp | Language::Ruby => module.to_owned(),
        Language::JavaScript | Language::TypeScript => {
            let module = module.strip_prefix("node:").unwrap_or(module);
            let parts = if module.starts_with('@') { 2 } else { 1 };
            module.split('/').take(parts).collect::<Vec<_>>().join("/")
        }
        Language::Go => match module.split('/').next() {
            Some("github.com" | "gitlab.com" | "bitbucket.org" | "golang.org" | "codeberg.org") => {
                first(3, '/')
            }
            Some("gopkg.in") if module.contains(".v") => {
                let at = module.find(".v").unwrap_or(0);
                let end = module[at..].find('/').map_or(module.len(), |length| at + length);
                module[..end].to_owned()
            }
            Some(host) if host.contains('.') => first(2, '/'),
            _ => module.to_owned(),
        },
        Language::Java => package_of(module).to_owned(),
    }
}

/// Names that only a project itself can have.
fn is_local(name: &str, language: Language) -> bool {
    match language {
        // A path without a host that is not the standard library's: a module of a name of its own.
        Language::Go => {
            let mut parts = name.split('/');
            let first = parts.next().unwrap_or_default();
            name == "C"
                || name.split('/').any(|part| part == "internal")
                || first.starts_with("example.")
                || (!first.contains('.')
                    && parts.next().is_some()
                    && !KnownPackages::shipped().has_prefix(first, language))
        }
        Language::Java => name.is_empty() || name.starts_with("com.example"),
        _ => false,
    }
}

/// What the packages of this file's own project start with: the first two parts of Java's `package`.
fn own_package(code: &str, language: Language) -> Result<Option<String>, CodeError> {
    if language != Language::Java {
        return Ok(None);
    }
    let tree = parse(code, language)?;
    let mut cursor = tree.root_node().walk();
    let declared =
        tree.root_node().children(&mut cursor).find(|n| n.kind() == "package_declaration");
    let path =
        declared.and_then(|node| node.named_child(node.named_child_count().checked_sub(1)? as u32));
    Ok(path.map(|path| code[path.byte_range()].split('.').take(2).collect::<Vec<_>>().join(".")))
}
