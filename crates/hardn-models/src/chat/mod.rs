//! Chat templates: a conversation to the text a model was tuned on.

mod environment;
mod python;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::{ModelError, Result};
use environment::environment;

/// The chat templates of a checkpoint, by name; the usual one is `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTemplates {
    by_name: BTreeMap<String, String>,
}

/// What a template is rendered with besides the messages. The names are those of `apply_chat_template`.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// A template's name; without one, `tool_use` where there are tools and such a template, else `default`.
    pub template: Option<String>,
    /// A list of JSON schemas of tools.
    pub tools: Option<Value>,
    /// A list of documents, each an object.
    pub documents: Option<Value>,
    /// Whether the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Whether the text ends inside the last message, which the model then continues.
    pub continue_final_message: bool,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

/// Put behind the message to be continued, to find its end in the rendered text.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Keys under which published models look for the text of their reasoning.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl ChatTemplates {
    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Reads `chat_template.jinja` and `additional_chat_templates/*.jinja`; where there is neither, the key `chat_template` of
    /// `tokenizer_config.json` (a text, or a list of names and texts), then `chat_template.json`.
    pub(crate) fn read(dir: &Path, tokenizer_config: &Value) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|error| ModelError::read(path, error));
        let usual = dir.join("chat_template.jinja");
        if usual.is_file() {
            by_name.insert("default".to_owned(), read(&usual)?);
        }
        let more = dir.join("additional_chat_templates");
        if more.is_dir() {
            let entries = fs::read_dir(&more).map_err(|error| ModelError::read(&more, error))?;
            for entry in entries {
                let path = entry.map_err(|error| ModelError::read(&more, error))?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                if let Some(name) = name.and_then(|name| name.strip_suffix(".jinja")) {
                    by_name.insert(name.to_owned(), read(&path)?);
                }
            }
        }
        if !by_name.is_empty() {
            return Ok(Self { by_name });
        }
        let path = dir.join("tokenizer_config.json");
        let found = Self::from_json(&tokenizer_config["chat_template"], &path)?;
        let path = dir.join("chat_template.json");
        if !found.by_name.is_empty() || !path.is_file() {
            return Ok(found);
        }
        let json: Value =
            serde_json::from_str(&read(&path)?).map_err(|error| ModelError::read(&path, error))?;
        Self::from_json(&json["chat_template"], &path)
    }

    fn from_json(json: &Value, path: &Path) -> Result<Self> {
        let pair = |name: &str, text: &Value| Some((name.to_owned(), text.as_str()?.to_owned()));
        let by_name: Option<BTreeMap<String, String>> = match json {
            Value::Null => Some(BTreeMap::new()),
            Value::String(_) => pair("default", json).map(|pair| BTreeMap::from([pair])),
            Value::Array(list) => {
                list.iter().map(|entry| pair(entry["name"].as_str()?, &entry["template"])).collect()
            }
            Value::Object(map) => map.iter().map(|(name, text)| pair(name, text)).collect(),
            _ => None,
        };
        let by_name = by_name.ok_or_else(|| ModelError::Config {
            path: path.to_owned(),
            key: "chat_template".to_owned(),
            message: "neither a template nor a list of `name` and `template`".to_owned(),
        })?;
        Ok(Self { by_name })
    }

    /// The value of `chat_template` in `tokenizer_config.json`.
    pub(crate) fn to_json(&self) -> Option<Value> {
        match (self.by_name.len(), self.by_name.get("default")) {
            (0, _) => None,
            (1, Some(text)) => Some(json!(text)),
            _ => {
                let entry = |(name, text)| json!({"name": name, "template": text});
                Some(self.by_name.iter().map(entry).collect())
            }
        }
    }

    /// Renders a conversation; `tokens` are the texts of the tokens with a role, which templates use by the role's name.
    pub(crate) fn render(
        &self,
        tokens: &[(String, String)],
        messages: &Value,
        options: &ChatOptions,
    ) -> Result<String> {
        let template = self.choose(options)?;
        let mut messages = read_messages(messages)?;
        for (what, list) in [("tools", &options.tools), ("documents", &options.documents)] {
            let fits = list.as_ref().is_none_or(|list| {
                list.as_array().is_some_and(|list| list.iter().all(Value::is_object))
            });
            if !fits {
                return Err(ModelError::Input(format!(
                    "the {what} are not a list of JSON objects"
                )));
            }
        }
        let continued = if options.continue_final_message {
            if options.add_generation_prompt {
                return Err(ModelError::Input(
                    "`continue_final_message` and `add_generation_prompt` exclude each other; a text ends in the last message or with the beginning of the next"
                        .to_owned(),
                ));
            }
            Some(tag_last(&mut messages)?)
        } else {
            None
        };
        let mut variables: Map<String, Value> =
            tokens.iter().map(|(role, text)| (role.clone(), json!(text))).collect();
        variables.extend(options.variables.clone());
        variables.insert("messages".to_owned(), Value::Array(messages));
        variables.insert("tools".to_owned(), options.tools.clone().into());
        variables.insert("documents".to_owned(), options.documents.clone().into());
        variables.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        let rendered = environment()
            .render_str(
                &environment::plain_blocks(template),
                python::value(&Value::Object(variables)),
            )
            .map_err(|error| ModelError::Input(format!("chat template: {}", chain(&error))))?;
        match continued {
            None => Ok(rendered),
            Some(last) => cut_at_tag(rendered, &last),
        }
    }

    fn choose(&self, options: &ChatOptions) -> Result<&str> {
        let by_tools = || {
            let tools = options.tools.as_ref().and_then(|_| self.by_name.get("tool_use"));
            tools.or_else(|| self.by_name.get("default"))
        };
        let found = match &options.template {
            Some(name) => self.by_name.get(name),
            None => by_tools(),
        };
        found.map(String::as_str).ok_or_else(|| {
            let wanted = options.template.as_deref().unwrap_or("default");
            ModelError::Input(if self.by_name.is_empty() {
                "the checkpoint has no chat template".to_owned()
            } else {
                let names: Vec<&str> = self.names().collect();
                format!("no chat template is named `{wanted}`; there are {}", names.join(", "))
            })
        })
    }
}

/// An error and its causes, in one line.
fn chain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The messages without their null fields; reasoning is there under both of the names templates use.
fn read_messages(messages: &Value) -> Result<Vec<Value>> {
    let refuse = || {
        ModelError::Input(
            "the messages are not a list of JSON objects, each with `role` and `content`"
                .to_owned(),
        )
    };
    let list = messages.as_array().filter(|list| !list.is_empty()).ok_or_else(refuse)?;
    list.iter()
        .map(|message| {
            let fields = message.as_object().ok_or_else(refuse)?.iter();
            let mut fields: Map<String, Value> = fields
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if let Some(text) = REASONING.iter().find_map(|key| fields.get(*key)).cloned() {
                let first = fields.shift_remove("thinking").unwrap_or_else(|| text.clone());
                fields.shift_insert(0, "thinking".to_owned(), first);
                fields.insert("reasoning_content".to_owned(), text);
            }
            Ok(Value::Object(fields))
        })
        .collect()
}

/// Puts the tag behind the last message's text; the text without it.
fn tag_last(messages: &mut [Value]) -> Result<String> {
    let content = messages.last_mut().and_then(|message| message.get_mut("content"));
    let text = match content {
        Some(Value::Array(blocks)) => {
            blocks.iter_mut().rev().find_map(|block| block.get_mut("text"))
        }
        other => other,
    };
    let Some(Value::String(text)) = text else {
        return Err(ModelError::Input("the last message has no text to continue".to_owned()));
    };
    let before = text.clone();
    text.push_str(CONTINUE_TAG);
    Ok(before)
}

fn cut_at_tag(mut rendered: String, last: &str) -> Result<String> {
    let place = rendered.rfind(CONTINUE_TAG.trim_end());
    let place = place.filter(|_| rendered.contains(python::strip(last)));
    let place = place.ok_or_else(|| {
        ModelError::Input(
            "the chat template changes the last message, so that it cannot be continued".to_owned(),
        )
    })?;
    let whole = rendered[place..].starts_with(CONTINUE_TAG);
    rendered.truncate(place);
    // A template that trims the message has trimmed the tag's space too, and would trim the message's own.
    if !whole {
        rendered.truncate(rendered.trim_end_matches(python::is_space).len());
    }
    Ok(rendered)
}
