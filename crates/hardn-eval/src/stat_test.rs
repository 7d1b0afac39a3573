//! Statistical tests by name, on JSON: what `hardn inspect stats` runs.

use serde_json::{Map, Value, json};

use crate::{
    EvalError, Result,
    stats::{Table, benjamini_hochberg, cmh, cohen_kappa, fisher_exact, holm, pass_at_k, wilson},
};

/// Runs a test by its name.
///
/// | test | input | result |
/// | --- | --- | --- |
/// | `fisher` | `{"table": [[a, b], [c, d]]}` or the table | `p`, `odds_ratio` |
/// | `cmh` | `{"tables": [table, ...], "correction": false}` or the tables | `statistic`, `p`, `odds_ratio` |
/// | `wilson` | `{"successes", "n", "confidence": 0.95}` or `[successes, n]` | `low`, `high`, `value` |
/// | `kappa` | `{"a": labels, "b": labels}`, `{"table": square}`, or either's lists | `kappa`, `agreement`, `expected`, `n` |
/// | `holm`, `benjamini-hochberg` | `{"p": [...], "alpha": 0.05}` or the list | `adjusted`, `reject` |
/// | `pass-at-k` | `{"n", "c", "k"}`, or lists of `n` and `c`, or `[n, c, k]` | `value`: the mean over tasks |
///
/// An infinite odds ratio is the text `"inf"`; what is not defined is null.
///
/// # Errors
/// [`EvalError::UnknownTest`], or [`EvalError::TestInput`] saying what is missing.
pub fn stat_test(name: &str, input: &Value) -> Result<Value> {
    match name.to_ascii_lowercase().replace(['_', ' '], "-").as_str() {
        "fisher" | "fisher-exact" => {
            let table = read_table(field(input, &["table"]).unwrap_or(input));
            let table = table.ok_or_else(|| bad("fisher", "give {\"table\": [[a, b], [c, d]]}"))?;
            let found = fisher_exact(table);
            Ok(json!({"p": found.p, "odds_ratio": number(found.odds_ratio)}))
        }
        "cmh" | "mantel-haenszel" => {
            let tables = field(input, &["tables", "strata"]).unwrap_or(input);
            let tables: Option<Vec<Table>> =
                tables.as_array().and_then(|tables| tables.iter().map(read_table).collect());
            let tables = tables
                .filter(|tables| !tables.is_empty())
                .ok_or_else(|| bad("cmh", "give {\"tables\": [[[a, b], [c, d]], ...]}"))?;
            let correction =
                field(input, &["correction", "correct"]).and_then(Value::as_bool).unwrap_or(false);
            let found = cmh(&tables, correction);
            Ok(json!({
                "statistic": found.statistic, "p": found.p, "odds_ratio": number(found.odds_ratio),
            }))
        }
        "wilson" => wilson_test(input),
        "kappa" | "cohen-kappa" => kappa_test(input),
        "holm" => adjust("holm", input, holm),
        "benjamini-hochberg" | "bh" | "fdr-bh" => {
            adjust("benjamini-hochberg", input, benjamini_hochberg)
        }
        "pass-at-k" | "pass@k" => pass_at_k_test(input),
        _ => Err(EvalError::UnknownTest { name: name.to_owned() }),
    }
}

fn bad(test: &'static str, why: impl Into<String>) -> EvalError {
    EvalError::TestInput { test, why: why.into() }
}

/// The first of several spellings of a field.
fn field<'a>(input: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| input.get(name))
}

fn count(value: &Value) -> Option<u64> {
    let whole = |x: f64| (x >= 0.0 && x.fract() == 0.0).then_some(x as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn counts(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(count).collect()
}

fn read_table(value: &Value) -> Option<Table> {
    let value = field(value, &["table"]).unwrap_or(value);
    let rows: Vec<Vec<u64>> = value.as_array()?.iter().map(counts).collect::<Option<_>>()?;
    match rows.as_slice() {
        [first, second] => match (first.as_slice(), second.as_slice()) {
            (&[a, b], &[c, d]) => Some([[a, b], [c, d]]),
            _ => None,
        },
        _ => None,
    }
}

/// A number as JSON can say it.
fn number(value: Option<f64>) -> Value {
    match value {
        Some(value) if value == f64::INFINITY => json!("inf"),
        Some(value) if value.is_finite() => json!(value),
        _ => Value::Null,
    }
}

fn wilson_test(input: &Value) -> Result<Value> {
    let at = |names: &[&str], place: usize| {
        field(input, names).or_else(|| input.get(place)).and_then(count)
    };
    let why = "give {\"successes\": c, \"n\": n, \"confidence\": 0.95} with c <= n";
    let successes = at(&["successes", "count", "c", "k"], 0);
    let n = at(&["n", "trials", "nobs", "total"], 1);
    let (Some(successes), Some(n)) = (successes, n) else { return Err(bad("wilson", why)) };
    let confidence = field(input, &["confidence", "level"])
        .and_then(Value::as_f64)
        .or_else(|| field(input, &["alpha"]).and_then(Value::as_f64).map(|alpha| 1.0 - alpha))
        .unwrap_or(0.95);
    let (low, high) = wilson(successes, n, confidence).ok_or_else(|| bad("wilson", why))?;
    Ok(json!({"low": low, "high": high, "value": successes as f64 / n as f64}))
}

fn kappa_test(input: &Value) -> Result<Value> {
    let why = "give {\"a\": [...], \"b\": [...]} with as many labels each, or {\"table\": square}";
    let labels = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
    let first = labels(field(input, &["a", "rater1", "y1"]).or_else(|| input.get(0)));
    let second = labels(field(input, &["b", "rater2", "y2"]).or_else(|| input.get(1)));
    let table = match (field(input, &["table"]), first, second) {
        (Some(table), ..) => {
            table.as_array().and_then(|rows| rows.iter().map(counts).collect::<Option<Vec<_>>>())
        }
        (None, Some(first), Some(second)) if first.len() == second.len() => {
            let shown = |labels: &[Value]| labels.iter().map(Value::to_string).collect::<Vec<_>>();
            let (first, second) = (shown(&first), shown(&second));
            let mut names: Vec<&String> = first.iter().chain(&second).collect();
            names.sort_unstable();
            names.dedup();
            let mut table = vec![vec![0; names.len()]; names.len()];
            for (x, y) in first.iter().zip(&second) {
                if let (Ok(i), Ok(j)) = (names.binary_search(&x), names.binary_search(&y)) {
                    table[i][j] += 1;
                }
            }
            Some(table)
        }
        _ => None,
    };
    let table = table.ok_or_else(|| bad("kappa", why))?;
    let found = cohen_kappa(&table).ok_or_else(|| bad("kappa", why))?;
    let n: u64 = table.iter().flatten().sum();
    Ok(json!({
        "kappa": found.kappa, "agreement": found.agreement, "expected": found.expected, "n": n,
    }))
}

fn adjust(test: &'static str, input: &Value, method: fn(&[f64]) -> Vec<f64>) -> Result<Value> {
    let list = field(input, &["p", "p_values", "pvalues", "p-values"]).unwrap_or(input);
    let p: Option<Vec<f64>> =
        list.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let p = p
        .filter(|p| p.iter().all(|p| (0.0..=1.0).contains(p)))
        .ok_or_else(|| bad(test, "give {\"p\": [...]} with numbers from 0 to 1"))?;
    let alpha = field(input, &["alpha"]).and_then(Value::as_f64).unwrap_or(0.05);
    let adjusted = method(&p);
    let reject: Vec<bool> = adjusted.iter().map(|&p| p <= alpha).collect();
    Ok(json!({"adjusted": adjusted, "reject": reject}))
}

fn pass_at_k_test(input: &Value) -> Result<Value> {
    let why = "give {\"n\": samples, \"c\": right ones, \"k\": budget} with c <= n and 1 <= k <= n";
    let at = |names: &[&str], place: usize| field(input, names).or_else(|| input.get(place));
    let list = |value: Option<&Value>| -> Option<Vec<u64>> {
        let value = value?;
        counts(value).or_else(|| count(value).map(|one| vec![one]))
    };
    let n = list(at(&["n", "total", "num_samples"], 0));
    let c = list(at(&["c", "correct", "num_correct"], 1));
    let k = at(&["k"], 2).and_then(count);
    let (Some(n), Some(c), Some(k)) = (n, c, k) else { return Err(bad("pass-at-k", why)) };
    if c.is_empty() || (n.len() != c.len() && n.len() != 1) {
        return Err(bad("pass-at-k", "give one `n`, or one for each `c`"));
    }
    let mut values = Vec::new();
    for (i, &c) in c.iter().enumerate() {
        let n = n[if n.len() == 1 { 0 } else { i }];
        let small = |x: u64| u32::try_from(x).ok();
        let value = small(n).zip(small(c)).zip(small(k)).and_then(|((n, c), k)| pass_at_k(n, c, k));
        values.push(value.ok_or_else(|| bad("pass-at-k", why))?);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let mut result = Map::new();
    result.insert("value".to_owned(), json!(mean));
    if values.len() > 1 {
        result.insert("values".to_owned(), json!(values));
    }
    Ok(Value::Object(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the expectation is met to nine digits.
    #[track_caller]
    fn check(test: &str, input: &Value, expected: &Value) {
        let found = stat_test(test, input).unwrap();
        assert!(is_close(&found, expected), "{test} {input}: {found}, not {expected}");
    }

    fn is_close(found: &Value, expected: &Value) -> bool {
        match expected {
            Value::Object(fields) => {
                fields.iter().all(|(name, value)| is_close(&found[name], value))
            }
            Value::Array(items) => found.as_array().is_some_and(|found| {
                found.len() == items.len()
                    && found.iter().zip(items).all(|(found, item)| is_close(found, item))
            }),
            Value::Number(number) => {
                let (x, y) = (found.as_f64(), number.as_f64());
                x.zip(y).is_some_and(|(x, y)| (x - y).abs() <= 1e-9 * y.abs().max(1.0))
            }
            other => found == other,
        }
    }

    #[test]
    fn equals_scipy_and_statsmodels() {
        let cases: Value =
            serde_json::from_str(include_str!("../tests/fixtures/statistics.json")).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        assert!(cases.len() >= 100, "{}", cases.len());
        for case in cases {
            check(case["test"].as_str().unwrap(), &case["input"], &case["expected"]);
        }
    }

    #[test]
    fn inputs_are_read_forgivingly() {
        check("fisher", &json!([[3, 1], [1, 3]]), &json!({"odds_ratio": 9.0}));
        check("fisher", &json!({"table": [[2.0, 0], [0, 2]]}), &json!({"odds_ratio": "inf"}));
        check("fisher", &json!([[0, 0], [1, 2]]), &json!({"p": 1.0, "odds_ratio": null}));
        check("cmh", &json!([[[1, 0], [1, 0]]]), &json!({"p": null}));
        check("wilson", &json!([0, 10]), &json!({"low": 0.0, "value": 0.0}));
        check(
            "kappa",
            &json!({"a": ["x", "y", "y"], "b": ["x", "y", "y"]}),
            &json!({"kappa": 1.0, "n": 3}),
        );
        check(
            "holm",
            &json!([0.5, 0.01]),
            &json!({"adjusted": [0.5, 0.02], "reject": [false, true]}),
        );
        check("pass_at_k", &json!({"n": 3, "c": 1, "k": 2}), &json!({"value": 2.0 / 3.0}));
        check(
            "pass@k",
            &json!({"n": 4, "c": [0, 4], "k": 1}),
            &json!({"value": 0.5, "values": [0.0, 1.0]}),
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        for (test, input) in [
            ("fisher", json!([[1, 2, 3], [4, 5, 6]])),
            ("fisher", json!([[1, -2], [4, 5]])),
            ("cmh", json!([])),
            ("wilson", json!({"successes": 3, "n": 2})),
            ("kappa", json!({"a": [1], "b": [1, 2]})),
            ("holm", json!({"p": [1.5]})),
            ("pass-at-k", json!({"n": 3, "c": 1, "k": 4})),
            ("anova", json!({})),
        ] {
            let error = stat_test(test, &input).unwrap_err().to_string();
            assert!(error.contains("give") || error.contains("use fisher"), "{error}");
        }
    }
}
