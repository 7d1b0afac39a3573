//! What a server says of tokens, in the forms servers say it.
//!
//! vLLM and SGLang answer as OpenAI's completions do: lists `tokens`, `token_logprobs` and `top_logprobs`, and on request
//! `token_ids` and `prompt_token_ids`. llama.cpp answers with a list `content` of tokens with ids and bytes.

use serde_json::Value;

use crate::Ask;

/// How far above 0 rounding may lift a log-probability.
const ROUNDING: f64 = 1e-3;

/// A token by what a server calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its id, where the server says it.
    pub id: Option<u32>,
    /// Its text, where the server says it; bytes that are not UTF-8 may stand as U+FFFD in it.
    pub text: Option<String>,
    /// Its bytes, where the server says them.
    pub bytes: Option<Vec<u8>>,
}

/// A token and how likely it was where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: Named,
    /// Natural log-probability, at most 0; none for the first token of a text.
    pub log_prob: Option<f64>,
    /// The likeliest tokens in its place, with natural log-probabilities; some servers add the token itself.
    pub top: Vec<(Named, f64)>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The prompt's tokens, one each; empty where they were not asked for or the server does not score them.
    pub prompt: Vec<Scored>,
    /// The token that was drawn; none where the server ended the text and does not say with what.
    pub drawn: Option<Scored>,
    /// The server ended the text.
    pub ended: bool,
    /// Tokens the server read.
    pub n_prompt: Option<usize>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// What is missing or cannot be.
    pub(crate) fn parse(value: &Value, ask: &Ask) -> Result<Self, String> {
        let choice = value.pointer("/choices/0").ok_or("it has no `choices`")?;
        let said = choice.get("logprobs").filter(|said| !said.is_null());
        let said = said.ok_or("it has no `logprobs`, which were asked for")?;
        let mut scored = match said.get("content") {
            Some(Value::Array(content)) => {
                content.iter().map(of_content).collect::<Result<Vec<_>, _>>()?
            }
            _ => of_lists(said)?,
        };
        let ended = choice.get("finish_reason").and_then(Value::as_str) == Some("stop");
        let n_asked = if ask.echo { ask.prompt.len() } else { 0 };
        // A server that knows no `echo` gives the drawn token alone.
        let n_prompt = if scored.len() <= 1 { 0 } else { n_asked };
        if scored.len() < n_prompt || scored.len() > n_prompt + 1 {
            let n = scored.len();
            return Err(format!(
                "it has log-probabilities of {n} tokens instead of {}",
                n_asked + 1
            ));
        }
        let mut drawn = scored.split_off(n_prompt).pop();
        if n_prompt > 0 {
            name(&mut scored, ids(choice, "prompt_token_ids")?)?;
        }
        let mut drawn_ids = ids(choice, "token_ids")?;
        if drawn_ids.as_ref().is_some_and(|ids| ids.len() != usize::from(drawn.is_some())) {
            match (drawn_ids.take().as_deref(), &drawn) {
                // The end of text, of which nothing else is said.
                (Some(&[id]), None) => {
                    let token = Named { id: Some(id), ..Named::default() };
                    drawn = Some(Scored { token, ..Scored::default() });
                }
                (Some([]), Some(_)) | (_, None) => {}
                (found, _) => {
                    let n = found.map_or(0, <[u32]>::len);
                    return Err(format!("it has {n} tokens where one was asked for"));
                }
            }
        }
        if let Some(drawn) = &mut drawn {
            name(std::slice::from_mut(drawn), drawn_ids)?;
            if drawn.log_prob.is_none() && !ended {
                return Err("it has no log-probability of the token that was drawn".to_owned());
            }
        } else if !ended {
            return Err("it has no token, and does not say that the text has ended".to_owned());
        }
        let n_read = value.pointer("/usage/prompt_tokens").and_then(Value::as_u64);
        Ok(Self { prompt: scored, drawn, ended, n_prompt: n_read.map(|n| n as usize) })
    }
}

/// Adds ids a server says beside its names.
fn name(tokens: &mut [Scored], ids: Option<Vec<u32>>) -> Result<(), String> {
    let Some(ids) = ids else { return Ok(()) };
    if ids.len() != tokens.len() {
        return Err(format!("it has {} ids of {} tokens", ids.len(), tokens.len()));
    }
    for (token, id) in tokens.iter_mut().zip(ids) {
        match token.token.id {
            Some(other) if other != id => {
                return Err(format!("it calls one token both {other} and {id}"));
            }
            _ => token.token.id = Some(id),
        }
    }
    Ok(())
}

fn ids(choice: &Value, key: &str) -> Result<Option<Vec<u32>>, String> {
    match choice.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_array()
            .and_then(|ids| ids.iter().map(id).collect::<Option<_>>())
            .map(Some)
            .ok_or_else(|| format!("`{key}` is no list of ids")),
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

/// OpenAI's lists.
fn of_lists(said: &Value) -> Result<Vec<Scored>, String> {
    let list = |key: &str| said.get(key).and_then(Value::as_array);
    let tokens = list("tokens").ok_or("`logprobs` has no `tokens`")?;
    let log_probs = list("token_logprobs").ok_or("`logprobs` has no `token_logprobs`")?;
    let tops = list("top_logprobs").map_or(&[][..], Vec::as_slice);
    if log_probs.len() != tokens.len() || ![0, tokens.len()].contains(&tops.len()) {
        return Err("the lists in `logprobs` differ in length".to_owned());
    }
    let mut all = Vec::with_capacity(tokens.len());
    for (i, (token, value)) in tokens.iter().zip(log_probs).enumerate() {
        let name = token.as_str().ok_or("`tokens` holds what is no text")?;
        let log_prob = if value.is_null() { None } else { Some(log_prob(value)?) };
        let top = match tops.get(i) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(top)) => top
                .iter()
                .map(|(name, value)| Ok((named(name), self::log_prob(value)?)))
                .collect::<Result<_, String>>()?,
            Some(_) => return Err("`top_logprobs` holds what is no object".to_owned()),
        };
        all.push(checked(Scored { token: named(name), log_prob, top })?);
    }
    Ok(all)
}

/// llama.cpp's form.
fn of_content(entry: &Value) -> Result<Scored, String> {
    let (token, log_prob) = content_token(entry)?;
    let top = match entry.get("top_logprobs") {
        Some(Value::Array(top)) => top.iter().map(content_token).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    checked(Scored { token, log_prob: Some(log_prob), top })
}

fn content_token(entry: &Value) -> Result<(Named, f64), String> {
    let bytes = entry.get("bytes").and_then(Value::as_array).and_then(|bytes| {
        bytes.iter().map(|byte| byte.as_u64()?.try_into().ok()).collect::<Option<Vec<u8>>>()
    });
    let token = Named {
        id: entry.get("id").and_then(id),
        text: entry.get("token").and_then(Value::as_str).map(str::to_owned),
        bytes,
    };
    let value = entry.get("logprob").ok_or("a token has no `logprob`")?;
    Ok((token, log_prob(value)?))
}

/// `token_id:5` (vLLM on request), `bytes:\xe2\x82` (OpenAI, for what is not UTF-8), or a token's text.
fn named(name: &str) -> Named {
    if let Some(id) = name.strip_prefix("token_id:").and_then(|id| id.parse().ok()) {
        return Named { id: Some(id), ..Named::default() };
    }
    let bytes = name.strip_prefix("bytes:").and_then(|rest| {
        let parts = rest.strip_prefix("\\x")?.split("\\x");
        parts.map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>()
    });
    match bytes {
        Some(bytes) => Named { bytes: Some(bytes), ..Named::default() },
        None => Named { text: Some(name.to_owned()), ..Named::default() },
    }
}

fn log_prob(value: &Value) -> Result<f64, String> {
    let number = value.as_f64().filter(|number| !number.is_nan());
    let number = number.ok_or_else(|| format!("a log-probability is {value}"))?;
    if number > ROUNDING {
        return Err(format!("a log-probability is {number}, which is above 0"));
    }
    Ok(number.min(0.0))
}

/// The likeliest tokens cannot have more than all the probability.
fn checked(scored: Scored) -> Result<Scored, String> {
    let sum: f64 = scored.top.iter().map(|(_, log_prob)| log_prob.exp()).sum();
    if sum > 1.0 + 10.0 * ROUNDING {
        return Err(format!("probabilities of one token's place sum to {sum:.3}"));
    }
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Names;

    fn parse(choice: Value, echo: bool) -> Result<Answer, String> {
        let ask = Ask { prompt: &[7, 8], seed: 0, echo, top: 2, names: Names::Ids };
        Answer::parse(&json!({"choices": [choice], "usage": {"prompt_tokens": 2}}), &ask)
    }

    fn by_id(id: u32) -> Named {
        Named { id: Some(id), ..Named::default() }
    }

    #[test]
    fn servers_forms_are_read() {
        let lists = json!({
            "finish_reason": "length", "prompt_token_ids": [7, 8], "token_ids": [9],
            "logprobs": {"tokens": ["token_id:7", "token_id:8", "token_id:9"], "token_logprobs": [null, -1.5, -0.5],
                "top_logprobs": [null, {"token_id:8": -1.5}, {"token_id:9": -0.5, "token_id:3": -2.0}]},
        });
        let answer = parse(lists, true).unwrap();
        assert_eq!((answer.prompt.len(), answer.prompt[1].log_prob), (2, Some(-1.5)));
        let drawn = answer.drawn.unwrap();
        assert_eq!((drawn.token, drawn.top[1].clone()), (by_id(9), (by_id(3), -2.0)));
        let content = json!({"finish_reason": "stop", "logprobs": {"content": [
            {"id": 5, "token": "a", "bytes": [97], "logprob": 0.0001, "top_logprobs": [{"id": 5, "token": "a", "logprob": -0.1}]}
        ]}});
        let answer = parse(content, true).unwrap();
        let drawn = answer.drawn.unwrap();
        assert_eq!((answer.prompt.len(), answer.ended, drawn.log_prob), (0, true, Some(0.0)));
        assert_eq!((drawn.token.id, drawn.token.bytes), (Some(5), Some(vec![97])));
        let ended = json!({"finish_reason": "stop", "token_ids": [0], "logprobs": {"tokens": [], "token_logprobs": []}});
        assert_eq!(parse(ended, false).unwrap().drawn.unwrap().token, by_id(0));
        assert_eq!(named("bytes:\\xe2\\x82").bytes, Some(vec![0xe2, 0x82]));
        assert_eq!(named("bytes:x").text, Some("bytes:x".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        let lists = |tokens: Value, log_probs: Value, tops: Value| json!({"logprobs": {"tokens": tokens, "token_logprobs": log_probs, "top_logprobs": tops}});
        let none = json!(null);
        for (choice, echo, said) in [
            (json!({"text": "a"}), false, "no `logprobs`"),
            (json!({"logprobs": {"tokens": ["a"]}}), false, "no `token_logprobs`"),
            (lists(json!(["a"]), json!([-1, -2]), none.clone()), false, "differ in length"),
            (lists(json!(["a"]), json!([0.7]), none.clone()), false, "above 0"),
            (lists(json!(["a"]), json!(["nan"]), none.clone()), false, "is \"nan\""),
            (lists(json!([1]), json!([-1]), none.clone()), false, "no text"),
            (
                lists(json!(["a"]), json!([-1]), json!([{"a": -0.1, "b": -0.1}])),
                false,
                "sum to 1.8",
            ),
            (
                lists(json!(["a", "b"]), json!([-1, -1]), none.clone()),
                false,
                "2 tokens instead of 1",
            ),
            (
                lists(json!(["a", "b", "c", "d"]), json!([-1, -1, -1, -1]), none.clone()),
                true,
                "4 tokens instead of 3",
            ),
            (lists(json!([]), json!([]), none.clone()), false, "no token"),
            (lists(json!(["a"]), json!([null]), none), false, "no log-probability"),
            (
                json!({"token_ids": [1], "logprobs": {"tokens": ["token_id:2"], "token_logprobs": [-1]}}),
                false,
                "both 2 and 1",
            ),
            (
                json!({"token_ids": [1, 2], "logprobs": {"tokens": ["a"], "token_logprobs": [-1]}}),
                false,
                "2 tokens where one",
            ),
        ] {
            let message = parse(choice, echo).unwrap_err();
            assert!(message.contains(said), "{message}; expected {said}");
        }
    }
}
