//! Chat templates against transformers (fixtures/make_chat_fixtures.py).

use std::{fs, path::Path};

use hardn_models::{ChatOptions, Tokenizer};
use serde_json::{Value, json};

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A small tokenizer with the given settings.
fn tokenizer(config: &Value) -> (tempfile::TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    for file in ["vocab.json", "merges.txt"] {
        let from = fixtures().join("tokenizers/gptj-files").join(file);
        fs::copy(from, dir.path().join(file)).unwrap();
    }
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    (dir, tokenizer)
}

fn options(json: &Value) -> ChatOptions {
    let list = |key: &str| json.get(key).cloned();
    ChatOptions {
        template: None,
        tools: list("tools"),
        documents: list("documents"),
        add_generation_prompt: json["add_generation_prompt"] == true,
        continue_final_message: json["continue_final_message"] == true,
        variables: json["variables"].as_object().cloned().unwrap_or_default(),
    }
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let text = fs::read_to_string(fixtures().join("chat_cases.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (name, template) in file["templates"].as_object().unwrap() {
        let mut config = file["tokens"].clone();
        config["chat_template"] = template.clone();
        let (_dir, tokenizer) = tokenizer(&config);
        for case in file["cases"].as_array().unwrap() {
            if case["template"] != name.as_str() {
                continue;
            }
            let said = if case["messages"].is_null() { &file["snippets"] } else { case };
            let found = tokenizer.render_chat(&said["messages"], &options(&said["options"]));
            let agrees = match &found {
                Ok(text) => case["text"] == text.as_str(),
                Err(_) => case["error"].is_string(),
            };
            if !agrees {
                wrong.push(format!(
                    "{}\n  found    {found:?}\n  expected {:?}",
                    case["name"], case["text"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn check_error(config: &Value, messages: &Value, options: &ChatOptions, expected: &str) {
    let (_dir, tokenizer) = tokenizer(config);
    let message = tokenizer.render_chat(messages, options).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn errors_say_what_is_wrong() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let plain = ChatOptions::default();
    check_error(&json!({}), &messages, &plain, "has no chat template");
    let refusing = json!({"chat_template": "{{ raise_exception('no ' ~ messages[0].role) }}"});
    check_error(&refusing, &messages, &plain, "no user");
    check_error(&json!({"chat_template": "{% if %}"}), &messages, &plain, "chat template: syntax");
    let named = json!({"chat_template": [{"name": "other", "template": "x"}]});
    check_error(&named, &messages, &plain, "no chat template is named `default`; there are other");
    let simple = json!({"chat_template": "x"});
    check_error(&simple, &json!([]), &plain, "not a list of JSON objects");
    check_error(&simple, &json!({"role": "user"}), &plain, "not a list of JSON objects");
    let both = ChatOptions {
        add_generation_prompt: true,
        continue_final_message: true,
        ..ChatOptions::default()
    };
    check_error(&simple, &messages, &both, "exclude each other");
    let continued = ChatOptions { continue_final_message: true, ..ChatOptions::default() };
    check_error(&simple, &messages, &continued, "cannot be continued");
    let tools = ChatOptions { tools: Some(json!("look_up")), ..ChatOptions::default() };
    check_error(&simple, &messages, &tools, "the tools are not a list");
}

#[test]
fn templates_are_found_where_they_are_published() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let named = json!({"chat_template": [
        {"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"},
    ]});
    let (dir, tokenizer) = tokenizer(&named);
    let render = |tokenizer: &Tokenizer, options: &ChatOptions| {
        tokenizer.render_chat(&messages, options).unwrap()
    };
    let tools = ChatOptions { tools: Some(json!([])), ..ChatOptions::default() };
    let by_name = ChatOptions { template: Some("tool_use".to_owned()), ..ChatOptions::default() };
    assert_eq!(render(&tokenizer, &ChatOptions::default()), "one");
    assert_eq!(render(&tokenizer, &tools), "two");
    assert_eq!(render(&tokenizer, &by_name), "two");

    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    assert_eq!(Tokenizer::load(saved.path()).unwrap().chat(), tokenizer.chat());

    // A file of its own comes first.
    fs::write(dir.path().join("chat_template.jinja"), "three\n").unwrap();
    let more = dir.path().join("additional_chat_templates");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("rag.jinja"), "four").unwrap();
    let again = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(again.chat().names().collect::<Vec<_>>(), ["default", "rag"]);
    assert_eq!(render(&again, &tools), "three");
}
