//! Samples of real models: what they depend on, and what they do not.

use hardn_models::{
    AdapterWeights, DecodeModel, DecodeRow, LAB_SPECIALS, Model, ModelConfig, ModuleTerm, train_bpe,
};

use super::*;

const CODE: &str = "def load(path):\n    with open(path) as f:\n        return f.read()\n\n";

struct Lab {
    model: Arc<DecodeModel>,
    tokenizer: Arc<Tokenizer>,
}

fn lab(context: usize, hidden: usize) -> Lab {
    let tokenizer = train_bpe(std::iter::repeat_n(CODE, 50), 320, LAB_SPECIALS).unwrap();
    let mut config =
        ModelConfig::llama(tokenizer.vocab_size(), hidden, 2, 2, 2 * hidden, context).unwrap();
    config.eos_token_id = tokenizer.eos().map(TokenIds::One);
    let model = Model::random(&config, 3).unwrap();
    Lab { model: Arc::new(DecodeModel::new(&model).unwrap()), tokenizer: Arc::new(tokenizer) }
}

impl Lab {
    fn generator(&self, overrides: &[&str]) -> LocalGenerator {
        let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
        let config = DecoderConfig::load("plain", &overrides).unwrap();
        let (model, tokenizer) = (self.model.clone(), self.tokenizer.clone());
        LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap()
    }
}

fn prompts() -> Vec<Prompt> {
    ["def load(", "    with open", "", "def load(path):\n    with open(path) as f:\n"]
        .iter()
        .enumerate()
        .map(|(number, text)| Prompt {
            task: format!("task-{number}"),
            text: (*text).to_owned(),
            indices: (0..5).collect(),
        })
        .collect()
}

/// All samples, sorted.
#[track_caller]
fn samples(generator: &LocalGenerator, prompts: &[Prompt]) -> Vec<Sample> {
    let mut samples = Vec::new();
    generator
        .generate("base", prompts, &mut |sample| {
            samples.push(sample);
            Ok(())
        })
        .unwrap();
    samples.sort_by(|a, b| (&a.task, a.index).cmp(&(&b.task, b.index)));
    samples
}

#[test]
fn samples_depend_on_nothing_but_their_key() {
    let lab = lab(128, 32);
    let settings = ["max_new_tokens=24", "temperature=1.0", "top_p=0.9", "repetition_penalty=1.1"];
    let expected = samples(&lab.generator(&settings), &prompts());
    assert_eq!(expected.len(), 20);
    for batch_size in [1, 3, 7] {
        let generator = lab.generator(&settings).with_batch_size(batch_size);
        assert_eq!(samples(&generator, &prompts()), expected, "batches of {batch_size}");
    }
    let mut shuffled = prompts();
    shuffled.reverse();
    for prompt in &mut shuffled {
        prompt.indices.reverse();
    }
    assert_eq!(samples(&lab.generator(&settings), &shuffled), expected);
    // A resumed run asks for what is missing.
    let mut rest = prompts();
    rest.remove(0);
    rest[1].indices = vec![4];
    let rest = samples(&lab.generator(&settings), &rest);
    assert!(rest.iter().all(|sample| expected.contains(sample)) && rest.len() == 11);
    let mut keys: Vec<&str> = expected.iter().map(|sample| sample.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 20);
}

#[test]
fn samples_differ_and_greedy_ones_do_not() {
    let lab = lab(128, 32);
    let drawn = samples(&lab.generator(&["max_new_tokens=24", "temperature=1.0"]), &prompts());
    assert_ne!(drawn[0].text, drawn[1].text);
    let greedy = samples(&lab.generator(&["max_new_tokens=24", "temperature=0"]), &prompts());
    assert_eq!(greedy[0].text, greedy[1].text);
}

#[test]
fn samples_are_whole() {
    let lab = lab(128, 32);
    for sample in samples(&lab.generator(&["max_new_tokens=40", "temperature=1.5"]), &prompts()) {
        assert_eq!(sample.ids.len(), sample.token_chars.len());
        assert_eq!(sample.ids.len(), sample.log_probs.len());
        let chars: u32 = sample.token_chars.iter().sum();
        assert_eq!(chars as usize, sample.text.chars().count());
        assert!(sample.log_probs.iter().all(|log_prob| *log_prob <= 0.0));
        assert_eq!(sample.finish == FinishReason::Length, sample.ids.len() == 40);
    }
}

#[test]
fn log_probs_are_those_of_the_whole_text() {
    let lab = lab(128, 32);
    let prompt = Prompt { task: "t".to_owned(), text: "def load(".to_owned(), indices: vec![0] };
    let sample = samples(&lab.generator(&["max_new_tokens=20"]), &[prompt]).remove(0);
    let mut ids = lab.tokenizer.encode("def load(").unwrap().ids;
    let n_prompt = ids.len();
    ids.extend(&sample.ids);
    let mut cache = lab.model.cache(ids.len());
    let mut rows = [DecodeRow { cache: &mut cache, ids: &ids, all_logits: true }];
    let logits = lab.model.forward(&mut rows).unwrap().remove(0);
    let vocab = lab.model.config().vocab_size;
    for (i, (id, found)) in sample.ids.iter().zip(&sample.log_probs).enumerate() {
        let row = &logits[(n_prompt + i - 1) * vocab..][..vocab];
        assert_eq!(crate::log_prob(row, *id) as f32, *found, "{i}");
    }
}

#[test]
fn long_prompts_are_cut_or_refused() {
    let lab = lab(64, 32);
    let text = CODE.repeat(20);
    let prompt = Prompt { task: "long".to_owned(), text, indices: vec![0, 1] };
    let generator = lab.generator(&["max_new_tokens=16"]);
    assert_eq!(samples(&generator, std::slice::from_ref(&prompt)).len(), 2);
    assert_eq!(generator.n_truncated(), 1);
    // More than the context may be asked for; it ends the text.
    let generator = lab.generator(&["max_new_tokens=500"]);
    assert!(samples(&generator, std::slice::from_ref(&prompt))[0].ids.len() <= 32);
    let generator = lab.generator(&["max_new_tokens=16", "long_prompt=error"]);
    let error = generator.draw_samples("base", &[prompt], &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("`long`"), "{error}");
}

#[test]
fn stop_strings_and_rules_end_the_text_before_them() {
    let lab = lab(128, 32);
    let all = samples(&lab.generator(&["max_new_tokens=60", "temperature=2.0"]), &prompts());
    let settings = ["max_new_tokens=60", "temperature=2.0", "stop=['\\n', 'a']"];
    let overrides = settings.map(|text| text.replace('\'', "\""));
    let overrides = overrides.each_ref().map(String::as_str);
    let stopped = samples(&lab.generator(&overrides), &prompts());
    for (all, stopped) in all.iter().zip(&stopped) {
        let end = all.text.find(['\n', 'a']).unwrap_or(all.text.len());
        assert_eq!(stopped.text, all.text[..end]);
        assert!(all.ids.starts_with(&stopped.ids));
    }
    let generator = lab
        .generator(&["max_new_tokens=60", "temperature=2.0"])
        .with_stop_rules(|_| StopRule::PythonFunction);
    for (all, ruled) in all.iter().zip(samples(&generator, &prompts())) {
        assert!(all.text.starts_with(&ruled.text));
        assert_ne!(all.key, ruled.key);
    }
}

#[test]
fn interruption_and_takers_errors_are_passed_on() {
    let lab = lab(128, 32);
    let stop = Arc::new(AtomicBool::new(false));
    let generator = lab.generator(&["max_new_tokens=8"]).with_stop(stop.clone()).with_batch_size(2);
    let mut n_samples = 0;
    let error = generator
        .draw_samples("base", &prompts(), &mut |_| {
            n_samples += 1;
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })
        .unwrap_err();
    assert!(matches!(error, DecodeError::Stopped) && n_samples <= 2, "{error}");
    let generator = lab.generator(&["max_new_tokens=8"]);
    let error = generator.generate("base", &prompts(), &mut |_| Err("disk full".into()));
    assert_eq!(error.unwrap_err().to_string(), "disk full");
}

#[test]
fn drafts_change_nothing_with_real_models() {
    let base = lab(128, 48);
    let security = |hidden| {
        let of = lab(128, hidden).model;
        Arc::new(LocalModel::new(of)) as Arc<dyn LanguageModel>
    };
    for settings in
        [["threshold=0.97", "preset=cosec-released"], ["threshold=0.9", "preset=cosec-warped"]]
    {
        let settings = [&settings[..], &["max_new_tokens=24", "repetition_penalty=1.1"]].concat();
        let draw = |draft: &str, batch_size: usize| {
            let mut overrides: Vec<String> = settings.iter().map(|&item| item.to_owned()).collect();
            overrides.push(format!("draft={draft}"));
            let config = DecoderConfig::load("co-decoding", &overrides).unwrap();
            let (model, tokenizer) = (base.model.clone(), base.tokenizer.clone());
            let generator =
                LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
            let generator = generator.with_security(security(32), "s").unwrap();
            let found = samples(&generator.with_batch_size(batch_size), &prompts());
            assert!(found.iter().all(|sample| sample.authors.len() == sample.ids.len()));
            found
        };
        let stepwise = draw("1", 1);
        let authors: String = stepwise.iter().map(|sample| sample.authors.as_str()).collect();
        assert!(authors.contains('s') && authors.contains('b'), "{authors}");
        for (draft, batch_size) in [("1", 7), ("3", 1), ("8", 32), ("adaptive", 2)] {
            assert_eq!(draw(draft, batch_size), stepwise, "{draft}, batches of {batch_size}");
        }
    }
}

#[test]
fn texts_have_the_wanted_form_with_drafts_and_without() {
    let base = lab(128, 48);
    let draw = |draft: &str, regex: &str| {
        let overrides = [
            format!("draft={draft}"),
            format!("constraint.regex='{regex}'"),
            "threshold=0.97".to_owned(),
            "max_new_tokens=40".to_owned(),
        ];
        let config = DecoderConfig::load("co-decoding", &overrides).unwrap();
        let (model, tokenizer) = (base.model.clone(), base.tokenizer.clone());
        let generator = LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
        let security = Arc::new(LocalModel::new(lab(128, 32).model));
        samples(&generator.with_security(security, "s").unwrap(), &prompts())
    };
    let regex = "[a-z]{2,8}(, [a-z]{1,3}){0,2}\\)";
    let stepwise = draw("1", regex);
    assert_eq!(draw("6", regex), stepwise);
    for sample in &stepwise {
        let words: Vec<&str> = sample.text.trim_end_matches(')').split(", ").collect();
        let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(sample.text.ends_with(')') && words.iter().all(is_word), "{:?}", sample.text);
        assert!(words.len() <= 3 && (2..=8).contains(&words[0].len()), "{:?}", sample.text);
        assert_eq!(sample.finish, FinishReason::Stop);
    }
}

#[test]
fn an_adapter_on_the_base_is_read_in_one_pass_with_it() {
    let lab = lab(128, 32);
    let modules = AdapterWeights::modules_of(lab.model.config());
    let factors = |(name, out, _): (String, usize, usize)| {
        let numbers = (0..out).map(|i| 0.5 + (i % 7) as f32 / 4.0).collect();
        (name, ModuleTerm::OutputFactors(numbers))
    };
    let weights =
        AdapterWeights { modules: modules.into_iter().map(factors).collect(), prefix: None };
    let draw = |own_copy: bool, draft: &str| {
        let overrides = [format!("draft={draft}"), "max_new_tokens=24".to_owned()];
        let config = DecoderConfig::load("co-decoding-warped", &overrides).unwrap();
        let (model, tokenizer) = (lab.model.clone(), lab.tokenizer.clone());
        let generator = LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
        // A second packing of the same weights is another model to the engine.
        let of = if own_copy { self::lab(128, 32).model } else { lab.model.clone() };
        let adapter = of.adapter(&weights).unwrap();
        let security = Arc::new(LocalModel::with_adapter(of, adapter));
        samples(&generator.with_security(security, "s").unwrap(), &prompts())
    };
    let together = draw(false, "1");
    let authors: String = together.iter().map(|sample| sample.authors.as_str()).collect();
    assert!(authors.contains('s') && authors.contains('b'), "{authors}");
    assert_eq!(draw(true, "1"), together);
    assert_eq!(draw(false, "4"), together);
}

#[test]
fn imports_come_before_the_rest() {
    let lab = lab(128, 32);
    let text = "import os\n\n\ndef load(path):\n";
    let prompt = Prompt { task: "t".to_owned(), text: text.to_owned(), indices: (0..6).collect() };
    let draw = |settings: &[&str], prompt: &Prompt| {
        let overrides: Vec<String> = settings.iter().map(|&item| item.to_owned()).collect();
        let config = DecoderConfig::load("two-step", &overrides).unwrap();
        let (model, tokenizer) = (lab.model.clone(), lab.tokenizer.clone());
        let generator = LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
        let generator = generator.with_languages(|_| Some(Language::Python));
        samples(&generator, std::slice::from_ref(prompt))
    };
    // Every import is likelier than anything else, so that some are written.
    let biased = |word: &str| {
        let bias: Vec<String> = lab
            .tokenizer
            .encode(word)
            .unwrap()
            .ids
            .iter()
            .map(|id| format!("[{id}, 9.0]"))
            .collect();
        format!("bias=[{}]", bias.join(", "))
    };
    let bias = biased("\nimport re\n");
    let settings = ["max_new_tokens=12", "temperature=1.0", &bias];
    let shared = draw(&settings, &prompt);
    assert_eq!(shared.len(), 6);
    assert!(shared.iter().all(|sample| sample.prompt == shared[0].prompt));
    // Those that are missing are drawn as they would have been.
    let rest = Prompt { indices: vec![3, 5], ..prompt.clone() };
    assert_eq!(draw(&settings, &rest), [shared[3].clone(), shared[5].clone()]);
    let own = draw(&[&settings[..], &["per=sample"]].concat(), &prompt);
    assert_ne!(own, shared);
    let one_step = Prompt { text: "def load(path):\n".to_owned(), ..prompt.clone() };
    assert!(draw(&settings, &one_step).iter().all(|sample| sample.prompt.is_none()));
    for sample in shared.iter().chain(&own) {
        if let Some(changed) = &sample.prompt {
            assert!(changed.starts_with("import os\n") && changed.ends_with("def load(path):\n"));
        }
    }
}

/// CPU time of this process so far, in seconds.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// Prints the speed of models of the lab's sizes; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement; cargo test -p hardn-decode --lib -- --ignored --nocapture"]
#[expect(clippy::print_stderr, reason = "its output is the point")]
fn speed() {
    let tokenizer = Arc::new(train_bpe(std::iter::repeat_n(CODE, 50), 320, LAB_SPECIALS).unwrap());
    for (layers, hidden) in [(4, 128), (6, 224)] {
        let config = ModelConfig::llama(4096, hidden, layers, 4, hidden * 8 / 3, 1024).unwrap();
        let parameters = config.parameters();
        let model = Model::random(&config, 3).unwrap();
        let model = Arc::new(DecodeModel::new(&model).unwrap());
        let lab = Lab { model, tokenizer: tokenizer.clone() };
        let prompts: Vec<Prompt> = (0..4)
            .map(|number| Prompt {
                task: number.to_string(),
                text: CODE.repeat(3),
                indices: (0..8).collect(),
            })
            .collect();
        // A random model is close to uniform, the worst case of top-p; a trained one is near to greedy.
        for (batch_size, temperature) in [(1, 0.0), (32, 0.0), (32, 0.4)] {
            let temperature = format!("temperature={temperature}");
            let generator =
                lab.generator(&["max_new_tokens=100", &temperature]).with_batch_size(batch_size);
            let (start, cpu) = (std::time::Instant::now(), cpu_secs());
            samples(&generator, &prompts);
            let n_tokens = generator.n_tokens() as f64;
            eprintln!(
                "{parameters} parameters, batch {batch_size}, {temperature}: {:.0} tokens/s, {:.0} tokens per CPU second",
                n_tokens / start.elapsed().as_secs_f64(),
                n_tokens / (cpu_secs() - cpu),
            );
        }
    }
}
