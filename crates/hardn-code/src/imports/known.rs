//! Which packages exist.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use hardn_types::Language;

use super::packages::{Package, packages};
use crate::CodeError;

/// Package names by language: the standard library, well-known packages, and what a user adds.
///
/// A list is a text with one name a line, then, where it differs, the registry's name; `#` starts a comment. A name
/// stands for what lies under it, too: `org.apache.commons` for `org.apache.commons.lang3`, `openssl` for
/// `openssl/ssl.h`, `github.com/aws` for `github.com/aws/aws-sdk-go`; in Python and JavaScript only a whole package
/// counts, or a scope (`@angular`).
#[derive(Clone, Debug, Default)]
pub struct KnownPackages {
    names: BTreeMap<(Registry, String), Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Where it differs.
    registry_name: Option<String>,
    /// Whether it stands for itself alone, as in a complete list.
    is_exact: bool,
}

/// Languages that share their packages share a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Registry {
    Python,
    C,
    Npm,
    Go,
    Java,
    Ruby,
}

/// A package that no list has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPackage {
    /// The package and where it is imported.
    pub package: Package,
    /// A known package with almost the same name, which may have been meant.
    pub did_you_mean: Option<String>,
}

impl KnownPackages {
    /// The lists that hardn ships: standard libraries, and several hundred well-known packages per language.
    pub fn shipped() -> &'static Self {
        static SHIPPED: OnceLock<KnownPackages> = OnceLock::new();
        SHIPPED.get_or_init(|| {
            let mut known = Self::default();
            for (language, standard, packages) in LISTS {
                // Where parts of the standard library lie under others, the list has each of them.
                let is_exact = matches!(language, Language::C | Language::Go | Language::Java);
                known.insert(language, standard, is_exact);
                known.add(language, packages);
            }
            known
        })
    }

    /// Adds a list.
    pub fn add(&mut self, language: Language, list: &str) {
        self.insert(language, list, false);
    }

    fn insert(&mut self, language: Language, list: &str, is_exact: bool) {
        for line in list.lines() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_whitespace();
            if let Some(name) = words.next() {
                let entry = Entry { registry_name: words.next().map(str::to_owned), is_exact };
                self.names.insert((registry(language), name.to_owned()), entry);
            }
        }
    }

    /// Adds a user's list from a file.
    ///
    /// # Errors
    /// [`CodeError::Read`] if the file cannot be read.
    pub fn read(&mut self, language: Language, path: &Path) -> Result<(), CodeError> {
        let list = fs::read_to_string(path)
            .map_err(|source| CodeError::Read { path: path.to_owned(), source })?;
        self.add(language, &list);
        Ok(())
    }

    /// Whether a package is on a list, itself or by what it lies under.
    pub fn contains(&self, name: &str, language: Language) -> bool {
        self.entry(name, language).is_some()
    }

    /// The registry's name of a package that is on a list.
    pub(super) fn registry_name<'a>(
        &'a self,
        name: &'a str,
        language: Language,
    ) -> Option<&'a str> {
        let (listed, entry) = self.entry(name, language)?;
        let own = if language == Language::Ruby { listed } else { name };
        Some(entry.registry_name.as_deref().unwrap_or(own))
    }

    fn entry(&self, name: &str, language: Language) -> Option<(&str, &Entry)> {
        let registry = registry(language);
        let find = |part: &str| {
            let (key, entry) = self.names.get_key_value(&(registry, part.to_owned()))?;
            (part == name || !entry.is_exact).then_some((key.1.as_str(), entry))
        };
        let separator = if registry == Registry::Java { '.' } else { '/' };
        let mut part = name;
        loop {
            if let Some(found) = find(part) {
                return Some(found);
            }
            (part, _) = part.rsplit_once(separator)?;
        }
    }

    /// Whether any known package starts with this part of a path.
    pub(super) fn has_prefix(&self, first: &str, language: Language) -> bool {
        let registry = registry(language);
        let from = (registry, first.to_owned());
        self.names.range(from..).next().is_some_and(|((found, name), _)| {
            *found == registry && name.split('/').next() == Some(first)
        })
    }

    /// The known package whose name differs from this one in one or two places.
    fn closest(&self, name: &str, language: Language) -> Option<&str> {
        // Short names are one change away from too many others.
        let limit = match name.chars().count() {
            0..4 => return None,
            4..8 => 1,
            _ => 2,
        };
        let from = (registry(language), String::new());
        self.names
            .range(from..)
            .take_while(|((found, _), _)| *found == registry(language))
            .map(|((_, known), _)| (strsim::osa_distance(name, known), known.as_str()))
            .filter(|(distance, _)| *distance <= limit)
            .min()
            .map(|(_, known)| known)
    }
}

/// The imports of packages that no list has, in source order; imports of the project's own files are never among them.
///
/// Python cannot tell a module beside the file from a package: `known` should have the project's own.
///
/// # Errors
/// Those of [`parse`](crate::parse).
pub fn unknown_packages(
    code: &str,
    known: &KnownPackages,
    language: Language,
) -> Result<Vec<UnknownPackage>, CodeError> {
    let found = packages(code, language)?.into_iter();
    let unknown =
        found.filter(|package| !package.is_local && !known.contains(&package.name, language));
    Ok(unknown
        .map(|package| {
            let did_you_mean = known.closest(&package.name, language).map(str::to_owned);
            UnknownPackage { package, did_you_mean }
        })
        .collect())
}

fn registry(language: Language) -> Registry {
    match language {
        Language::Python => Registry::Python,
        Language::C | Language::Cpp => Registry::C,
        Language::JavaScript | Language::TypeScript => Registry::Npm,
        Language::Go => Registry::Go,
        Language::Java => Registry::Java,
        Language::Ruby => Registry::Ruby,
    }
}

/// A language's standard library and its well-known packages.
macro_rules! lists {
    ($($language:ident $name:literal),*) => {
        [$((
            Language::$language,
            include_str!(concat!("../../lists/", $name, "-standard.txt")),
            include_str!(concat!("../../lists/", $name, "-packages.txt")),
        )),*]
    };
}

const LISTS: [(Language, &str, &str); 6] =
    lists![Python "python", C "c", JavaScript "npm", Go "go", Java "java", Ruby "ruby"];

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{C, Cpp, Go, Java, JavaScript, Python, Ruby, TypeScript};

    /// Unknown packages with what they may have been meant to be.
    #[track_caller]
    fn check(language: Language, code: &str, expected: &[(&str, Option<&str>)]) {
        let unknown = unknown_packages(code, KnownPackages::shipped(), language).unwrap();
        let shown: Vec<(&str, Option<&str>)> = unknown
            .iter()
            .map(|unknown| (unknown.package.name.as_str(), unknown.did_you_mean.as_deref()))
            .collect();
        assert_eq!(shown, expected, "{code}");
    }

    #[test]
    fn unknown_packages_are_found() {
        for (language, code, expected) in [
            (
                Python,
                "import os.path, xml.etree.ElementTree\nfrom flask import Flask\nfrom . import nothing\nimport reqests\ndef f():\n    import safe_html_escape9\n",
                &[("reqests", Some("requests")), ("safe_html_escape9", None)][..],
            ),
            (
                C,
                "#include <stdio.h>\n#include <openssl/ssl.h>\n#include \"mine.h\"\n#include <sys/nothing.h>\n#include <strng.h>\n",
                &[("sys/nothing.h", None), ("strng.h", Some("string.h"))],
            ),
            (
                Cpp,
                "#include <vector>\n#include <boost/asio.hpp>\n#include <safestring>\n",
                &[("safestring", None)],
            ),
            (
                JavaScript,
                "import 'lodash/fp';\nconst a = require('node:fs/promises'), b = require('./b'), c = require('@babel/core');\nrequire('expres');\nf(require('@nobody9/none9'));\n",
                &[("expres", Some("express")), ("@nobody9/none9", None)],
            ),
            (
                TypeScript,
                "import type { A } from 'react';\nimport { B } from '@/b';\nimport { C } from 'sanitise-sql-input';\n",
                &[("sanitise-sql-input", None)],
            ),
            (
                Go,
                "package a\nimport (\n\t\"C\"\n\t\"net/http\"\n\t\"crypto/bcrypt\"\n\t\"requests\"\n\t\"golang.org/x/crypto/bcrypt\"\n\t\"github.com/nobody9/none9/v2/x\"\n\t\"mine/internal/b\"\n\t\"mine/c\"\n)\n",
                &[("crypto/bcrypt", None), ("requests", None), ("github.com/nobody9/none9", None)],
            ),
            (
                Java,
                "package org.mine.a;\nimport java.util.*;\nimport java.utl.List;\nimport java.util.safe.Html;\nimport org.apache.commons.lang3.StringUtils;\nimport org.mine.b.C;\nimport static org.junit.Assert.*;\nimport zz.nobody.None;\n",
                &[("java.utl", Some("java.util")), ("java.util.safe", None), ("zz.nobody", None)],
            ),
            (
                Ruby,
                "require 'net/http'\nrequire 'active_support/core_ext/string'\nrequire_relative 'nothing'\nrequire 'nokogirl'\nrequire 'rails_safe_html9'\n",
                &[("nokogirl", Some("nokogiri")), ("rails_safe_html9", None)],
            ),
        ] {
            check(language, code, expected);
        }
    }

    #[test]
    fn a_users_list_is_added() {
        let mut known = KnownPackages::shipped().clone();
        known.add(Python, "# ours\nmine   # and more\nours Our-Package\n");
        let unknown = unknown_packages("import mine.a, ours, mine2\n", &known, Python).unwrap();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].did_you_mean.as_deref(), Some("mine"));
        assert!(matches!(known.read(Python, Path::new("/nothing")), Err(CodeError::Read { .. })));
    }

    #[test]
    fn registries_have_names_of_their_own() {
        for (language, code, expected) in [
            (Python, "from bs4.element import Tag", "beautifulsoup4"),
            (Python, "import numpy.linalg", "numpy"),
            (Ruby, "require 'active_support/core_ext'", "activesupport"),
            (Ruby, "require 'rack/utils'", "rack"),
            (JavaScript, "require('@babel/core/lib/x')", "@babel/core"),
            (
                Go,
                "package a\nimport \"github.com/aws/aws-sdk-go/aws\"\n",
                "github.com/aws/aws-sdk-go",
            ),
            (Java, "import org.apache.commons.io.FileUtils;", "org.apache.commons.io"),
        ] {
            assert_eq!(packages(code, language).unwrap()[0].registry_name, expected, "{code}");
        }
    }
}
