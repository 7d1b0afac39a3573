//! The shape of a rule file. Every key is described in `rules/README.md`.

use hardn_types::Cwe;
use serde::Deserialize;

use super::{models::ModelRows, pattern::Pattern};
use crate::Mode;

/// What kind of rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// From sources to sinks.
    Flow,
    /// Calls, literals and settings that are wrong wherever they stand.
    Pattern,
    /// A built-in analysis of memory and arithmetic.
    Typestate,
    /// Sources, sanitizers, guards and propagators for all flow rules of the language.
    Shared,
}

/// A rule file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleFile {
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) cwe: Vec<Cwe>,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) help: String,
    #[serde(default)]
    pub(crate) references: Vec<String>,
    /// In snippet mode, values of unknown origin count as well as parameters.
    #[serde(default)]
    pub(crate) unknown: bool,
    /// In snippet mode, a parameter counts only once it was joined to other text.
    #[serde(default)]
    pub(crate) built: bool,
    /// Data from outside counts; where it does not, the rule's own sources are all there is.
    #[serde(default = "yes")]
    pub(crate) remote: bool,
    /// In faithful mode, parameters count as well: what libraries are handed. With `built`, once joined to other text.
    #[serde(default)]
    pub(crate) parameters: bool,
    /// Calls whose result tells nothing of what they are given, by the variable they start from and their name: no name
    /// among their arguments is mentioned.
    pub(crate) conceals: Option<Pattern>,
    /// In faithful mode, parameters of functions that the file exports count as well.
    #[serde(default)]
    pub(crate) library: bool,
    /// Numbers carry taint for this rule, too.
    #[serde(default)]
    pub(crate) numbers: bool,
    /// Values do no harm with the first of these marks where known text comes first, or with all of them.
    #[serde(default)]
    pub(crate) harmless_marks: Vec<String>,
    #[serde(default)]
    pub(crate) sources: Vec<Source>,
    #[serde(default)]
    pub(crate) sinks: Vec<Sink>,
    #[serde(default)]
    pub(crate) handlers: Vec<Handler>,
    #[serde(default)]
    pub(crate) results: Vec<ResultModel>,
    #[serde(default)]
    pub(crate) methods: Vec<MethodModel>,
    #[serde(default)]
    pub(crate) sanitizers: Vec<Sanitizer>,
    #[serde(default)]
    pub(crate) guards: Vec<Guard>,
    #[serde(default)]
    pub(crate) propagators: Vec<Propagator>,
    #[serde(default)]
    pub(crate) calls: Vec<CallModel>,
    #[serde(default)]
    pub(crate) literals: Vec<LiteralModel>,
    #[serde(default)]
    pub(crate) attributes: Vec<AttributeModel>,
    #[serde(default)]
    pub(crate) contains: Vec<ContainsModel>,
    #[serde(default)]
    pub(crate) compared: Vec<ComparedModel>,
    pub(crate) check: Option<MemoryCheck>,
    /// Rows of a model table, in the form of the rule's language.
    #[serde(default)]
    pub(crate) models: ModelRows,
    /// Calls that the memory check treats as its origin: allocators, lookups, releases.
    #[serde(default)]
    pub(crate) functions: Vec<String>,
    #[serde(default)]
    pub(crate) valid: Vec<String>,
    #[serde(default)]
    pub(crate) invalid: Vec<String>,
    #[serde(default)]
    pub(crate) faithful: Samples,
}

fn yes() -> bool {
    true
}

/// Samples for faithful mode; those at the top level are for snippet mode.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Samples {
    pub(crate) valid: Vec<String>,
    pub(crate) invalid: Vec<String>,
}

/// The built-in analyses a typestate rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MemoryCheck {
    NullDereference,
    UseAfterFree,
    DoubleFree,
    OutOfBoundsWrite,
    /// A deep copy or assignment by path that follows any key, `__proto__` too.
    PrototypePollution,
    OutOfBoundsRead,
    IntegerOverflow,
    /// A product of two `int`s that becomes a `long`.
    WidenedProduct,
    /// `small += large`.
    NarrowedAssignment,
    /// A loop whose counter is narrower than its bound.
    NarrowCounter,
    UnsignedDifference,
    NarrowComparison,
    OverflowTest,
    WideningProduct,
    AllocationSize,
    MissingTerminator,
    CopyBySource,
    FillSize,
    UnboundedStream,
    StackAddress,
    CertificateCheck,
    ExpiredTemporary,
    /// A pointer is compared with null after it was followed.
    LateNullCheck,
    /// An index is compared with its limit after it was used.
    LateIndexCheck,
    /// What `snprintf` returns is added up without a look at the sum.
    LengthSum,
    /// A field that the caller sees keeps a pointer to freed memory.
    DanglingField,
}

/// What an operator does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// It is added, subtracted or multiplied as a number.
    Arithmetic,
    /// It is an index.
    Index,
    /// It is cast to a narrower number.
    NarrowCast,
}

/// Which argument of a call: `0`, `name`, `0|name|other_name`, `receiver`, `any`, `rest:2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) index: Option<usize>,
    pub(crate) names: Vec<String>,
    pub(crate) receiver: bool,
    /// Every argument from this one on.
    pub(crate) from: Option<usize>,
}

impl Argument {
    /// Whether the argument at this position, or with this name, is meant.
    pub(crate) fn covers(&self, position: usize, name: Option<&str>) -> bool {
        match name {
            Some(name) => self.from.is_some() || self.names.iter().any(|known| known == name),
            None => self.index == Some(position) || self.from.is_some_and(|from| position >= from),
        }
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let mut argument = Self::default();
        for part in text.split('|') {
            if part == "receiver" {
                argument.receiver = true;
            } else if part == "any" {
                argument.from = Some(0);
            } else if let Some(from) = part.strip_prefix("rest:") {
                argument.from = Some(from.parse().map_err(serde::de::Error::custom)?);
            } else if let Ok(index) = part.parse() {
                argument.index = Some(index);
            } else {
                argument.names.push(part.to_owned());
            }
        }
        Ok(argument)
    }
}

/// A literal a condition compares with; texts also stand for dotted paths such as `ssl.CERT_NONE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    Bool(bool),
    Int(i64),
    Text(String),
    Null,
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Bool(value) => Ok(Self::Bool(value)),
            serde_json::Value::Null => Ok(Self::Null),
            serde_json::Value::String(text) => Ok(Self::Text(text)),
            serde_json::Value::Number(number) => number
                .as_i64()
                .map(Self::Int)
                .ok_or_else(|| serde::de::Error::custom("expected a whole number")),
            _ => Err(serde::de::Error::custom("expected a literal: true, 1, text or null")),
        }
    }
}

/// A condition on one argument of a call; all given keys must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) argument: Argument,
    /// The argument is one of these.
    pub(crate) is: Option<Vec<Literal>>,
    /// The argument is none of these; holds where it is missing.
    pub(crate) not: Option<Vec<Literal>>,
    /// The argument is missing (`true`) or present (`false`).
    pub(crate) missing: Option<bool>,
    /// The folded text, or else the dotted path, matches.
    pub(crate) matches: Option<Pattern>,
    /// The number has one of these bits.
    pub(crate) bits: Option<i64>,
    /// The argument is (or is not) a constant.
    pub(crate) constant: Option<bool>,
    /// The number is below this.
    pub(crate) below: Option<i64>,
    /// A name like this stands somewhere in the argument.
    pub(crate) mentions: Option<Pattern>,
    /// What is known of where the argument came from: its class and flags.
    pub(crate) path: Option<Pattern>,
    /// The same must not match; holds where nothing is known.
    pub(crate) not_path: Option<Pattern>,
    /// Missing or unknown counts as fulfilled.
    #[serde(default)]
    pub(crate) or_missing: bool,
}

/// What a call says of its result or of an argument: the type, which is the path rules know it by, and settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultModel {
    #[serde(default)]
    pub(crate) call: Vec<String>,
    /// Attributes of the type.
    #[serde(default)]
    pub(crate) value: Vec<String>,
    #[serde(default)]
    pub(crate) when: Vec<Condition>,
    /// The type of the result, which takes over the receiver's flags; `receiver` for the receiver's own.
    #[serde(default, rename = "type")]
    pub(crate) path: Option<String>,
    /// A setting, kept as `+flag` at the end of the path, flags in alphabetical order.
    pub(crate) flag: Option<String>,
    /// Not the result, but this argument is meant; of a receiver, in Go, the variable it starts with.
    pub(crate) of: Option<Argument>,
}

/// A method whose body is such that objects of its class carry a flag.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MethodModel {
    /// Names of the method; stars match any run of characters.
    pub(crate) name: Vec<String>,
    /// Classes and interfaces one of which the class is or extends.
    pub(crate) of: Vec<String>,
    pub(crate) body: Option<Body>,
    /// One of these is called outside all branches.
    #[serde(default)]
    pub(crate) calls: Vec<String>,
    /// Without a flag, the method itself is wrong.
    pub(crate) flag: Option<String>,
}

/// What a method's body is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Body {
    /// It throws nothing and asks nobody who could.
    NeverRaises,
    /// Every result is `true`.
    ReturnsTrue,
}

/// Where remote data enters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Source {
    /// Calls whose result is tainted.
    pub(crate) call: Vec<String>,
    /// Names and attributes that are tainted.
    pub(crate) value: Vec<String>,
    /// Parameters of functions with such a decorator are tainted.
    pub(crate) decorated: Vec<String>,
    /// Parameters of methods of these names in classes that extend one of `of` are tainted.
    pub(crate) methods: Vec<String>,
    pub(crate) of: Vec<String>,
    /// Types of parameters that `decorated` and `methods` leave alone.
    pub(crate) except: Vec<String>,
    /// Arguments that the call fills, instead of its result.
    pub(crate) fills: Option<Argument>,
    /// Not a remote source, but one of this machine: only snippet mode counts it.
    pub(crate) local: bool,
    /// Only this rule minds it: a predictable number, a setting that is too old. It counts in both modes.
    pub(crate) only: bool,
    /// Harmless to every rule, though it is part of something that is a source.
    pub(crate) harmless: bool,
    /// What a call gives carries this mark, which sinks may ask for.
    pub(crate) mark: Option<String>,
    /// An element that was picked with it counts as well.
    pub(crate) chooses: bool,
    /// Variables, parameters, fields and keys of such names; `except` lists names that are none.
    pub(crate) named: Option<Pattern>,
    /// Names and attributes count only in functions with such a name.
    pub(crate) within: Option<Pattern>,
    /// Conditions on the call.
    pub(crate) when: Vec<Condition>,
    /// Objects with such a setting become tainted.
    pub(crate) set: Vec<Setting>,
}

/// An assignment to an attribute that changes what its object is good for, such as `context.options |= NO_OLD`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    pub(crate) attribute: String,
    /// The operator of the assignment.
    #[serde(default)]
    pub(crate) operator: SettingOperator,
    /// A name like this stands in what is assigned.
    pub(crate) mentions: Pattern,
}

/// `=`, `|=` or `&=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum SettingOperator {
    #[default]
    #[serde(rename = "=")]
    Assign,
    #[serde(rename = "|=")]
    Or,
    #[serde(rename = "&=")]
    And,
}

/// Texts that are compared with together: a function that compares with one and forgets another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComparedModel {
    /// What the function compares with.
    pub(crate) has: Pattern,
    /// One of these is missing.
    pub(crate) lacks: Vec<Pattern>,
}

/// A call that takes functions and calls them with values of known kinds, such as a router.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handler {
    pub(crate) call: Vec<String>,
    /// Where the functions are: arguments, or entries of an object that is an argument.
    pub(crate) argument: Argument,
    /// The first argument must be a text like this, such as the name of an event.
    pub(crate) text: Option<Pattern>,
    /// The path that stands for each of their parameters, in order; rules know them by it.
    pub(crate) params: Vec<String>,
    /// What they return is the answer.
    #[serde(default)]
    pub(crate) answers: bool,
}

/// What a sink takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Lists do no harm here.
    Text,
    #[default]
    Any,
}

/// Where tainted data does harm.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sink {
    pub(crate) call: Vec<String>,
    /// Calls that `call` would match and that are none.
    pub(crate) except: Vec<String>,
    pub(crate) argument: Vec<Argument>,
    pub(crate) when: Vec<Condition>,
    pub(crate) shape: Shape,
    /// Overrides the rule's `built`.
    pub(crate) built: Option<bool>,
    /// Overrides the rule's `unknown`.
    pub(crate) unknown: Option<bool>,
    /// The known parts of the text must match; unknown parts read as U+0001.
    pub(crate) text: Option<Pattern>,
    /// In snippet mode, the part of a path before a slash counts too.
    pub(crate) base: bool,
    /// The argument that is a printf format for `argument`.
    pub(crate) format: Option<Argument>,
    /// Only taint with this mark counts, set by a propagator.
    pub(crate) requires: Option<String>,
    /// Only in functions that, or whose class, has such a decorator.
    pub(crate) decorated: Vec<String>,
    /// Not where an argument of the function's decorators, or else of its class's, matches.
    pub(crate) except_decorated: Option<Pattern>,
    /// Operands of such operators.
    pub(crate) operation: Option<Operation>,
    /// Values assigned to such a name or attribute.
    pub(crate) assigned: Vec<String>,
    /// Objects one of whose elements or fields is assigned to; of parameters, only under a name that is no constant.
    pub(crate) written: bool,
    /// The text must match as far as it is known; where nothing is, it reads as U+0001.
    pub(crate) prefix: Option<Pattern>,
    /// Only values that were joined or added to count, in either mode.
    pub(crate) joined: bool,
    /// Nothing in the file calls anything of these names.
    pub(crate) unless_calls: Vec<String>,
    /// The alert stands where the data comes from.
    pub(crate) at_source: bool,
    /// Only data from outside the program counts, in snippet mode too.
    pub(crate) outside: bool,
    /// Arguments after one of these texts do no harm.
    pub(crate) until: Vec<String>,
    /// Returned values are a sink.
    pub(crate) returned: bool,
    /// Only where what a handler returns is the answer.
    pub(crate) answers: bool,
    /// Only in functions declared to return one of these types.
    pub(crate) returns: Vec<String>,
    /// Only in functions that a framework calls, by their decorators.
    pub(crate) entry: bool,
    /// Only in functions and for variables whose name matches.
    pub(crate) context: Option<Pattern>,
}

/// A call whose result is clean.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sanitizer {
    pub(crate) call: Vec<String>,
    /// The result is a number: rules about numbers still count it.
    pub(crate) numbers: bool,
    /// Attributes that are clean whatever they are taken from.
    pub(crate) value: Vec<String>,
    pub(crate) when: Vec<Condition>,
}

/// In which outcome a guard's subject is clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    True,
    False,
    /// The result equals what it is compared with.
    Equal,
    /// The call raises or exits otherwise, so the subject is clean after it.
    Always,
}

impl<'de> Deserialize<'de> for Holds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Bool(true) => Ok(Self::True),
            serde_json::Value::Bool(false) => Ok(Self::False),
            serde_json::Value::String(text) if text == "always" => Ok(Self::Always),
            serde_json::Value::String(text) if text == "equal" => Ok(Self::Equal),
            _ => Err(serde::de::Error::custom("expected true, false, equal or always")),
        }
    }
}

/// A check that makes its subject clean.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Guard {
    pub(crate) call: Vec<String>,
    /// The subject.
    pub(crate) argument: Option<Argument>,
    pub(crate) holds: Option<Holds>,
    pub(crate) when: Vec<Condition>,
    /// The subject must carry this mark, set by a propagator.
    pub(crate) requires: Option<String>,
    /// Only in this mode.
    pub(crate) mode: Option<Mode>,
    /// The subject is not clean, but carries this mark from now on.
    pub(crate) gives: Option<String>,
    /// Objects with such a setting are clean.
    pub(crate) set: Vec<Setting>,
    /// A number found to be below another is clean.
    pub(crate) bounded: bool,
    /// `"x" in subject` is false: the subject is clean.
    pub(crate) contains: Vec<String>,
}

/// A call that passes taint on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Propagator {
    pub(crate) call: Vec<String>,
    /// From where; default: receiver and all arguments.
    pub(crate) from: Option<Argument>,
    /// Into which argument; default: the result.
    pub(crate) into: Option<Argument>,
    #[serde(default)]
    pub(crate) when: Vec<Condition>,
    /// Only where no function of the file is called.
    #[serde(default)]
    pub(crate) assumed: bool,
    /// Methods that `call` would match and that pass nothing on.
    #[serde(default)]
    pub(crate) except: Vec<String>,
    /// `into` is a list that grows.
    #[serde(default)]
    pub(crate) items: bool,
    /// What `into` held before stays in it.
    #[serde(default)]
    pub(crate) adds: bool,
    /// The value carries this mark from now on.
    pub(crate) mark: Option<String>,
    /// The parts are joined to one text.
    #[serde(default)]
    pub(crate) joins: bool,
    /// The argument that is a printf format for the arguments after it.
    pub(crate) format: Option<Argument>,
    /// Only this rule follows data through the call.
    #[serde(default)]
    pub(crate) only: bool,
    /// The result stands for the argument: what is known of calls of the one holds of the other.
    #[serde(default)]
    pub(crate) same: bool,
    /// Functions among the arguments are called with what passes through.
    #[serde(default)]
    pub(crate) calls: bool,
}

/// A call that is wrong wherever it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallModel {
    pub(crate) call: Vec<String>,
    /// Only in this mode.
    pub(crate) mode: Option<Mode>,
    /// Only in functions with such a decorator.
    #[serde(default)]
    pub(crate) decorated: Vec<String>,
    /// Not where a `method` that the decorator names matches.
    pub(crate) except_method: Option<Pattern>,
    #[serde(default)]
    pub(crate) when: Vec<Condition>,
    /// Harmless if a text like this stands in the same function, or is imported.
    pub(crate) unless: Option<Pattern>,
    /// The function, or the variable the result goes to, must be named like this.
    pub(crate) context: Option<Pattern>,
    /// The function, or the variable the result goes to, must not be named like this.
    pub(crate) outside: Option<Pattern>,
    /// The function must not call anything of these names.
    #[serde(default)]
    pub(crate) unless_calls: Vec<String>,
    /// Not where a condition around it names something like this: a switch that somebody has to turn.
    pub(crate) unless_test: Option<Pattern>,
}

/// A text constant that goes where it should not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiteralModel {
    /// The variable, keyword, key or parameter it goes to or is compared with.
    pub(crate) name: Pattern,
    /// The text must look like this.
    pub(crate) value: Option<Pattern>,
    /// Texts that are harmless.
    pub(crate) except: Option<Pattern>,
    /// Names that are harmless.
    pub(crate) except_name: Option<Pattern>,
    /// Only fields of classes, and parameters of functions of the file.
    #[serde(default)]
    pub(crate) field: bool,
}

/// A test for a part of a text that says less than it seems to: `"host.com" in url`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainsModel {
    /// The text that is looked for.
    pub(crate) text: Pattern,
}

/// A setting that is wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttributeModel {
    pub(crate) attribute: Vec<String>,
    #[serde(default)]
    pub(crate) is: Vec<Literal>,
    /// The texts of a list hold one like this, and none like `lacks`.
    pub(crate) has: Option<Pattern>,
    pub(crate) lacks: Option<Pattern>,
    /// The function, or the variable, must not be named like this.
    pub(crate) outside: Option<Pattern>,
    /// The function must not call anything of these names.
    #[serde(default)]
    pub(crate) unless_calls: Vec<String>,
    /// Not where a condition around it names something like this: a switch that somebody has to turn.
    pub(crate) unless_test: Option<Pattern>,
    /// A name like this stands in the value.
    pub(crate) mentions: Option<Pattern>,
}
