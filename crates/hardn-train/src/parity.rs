//! Every loss and its gradients against float64: see `tests/fixtures/make_losses.py`.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor};
use hardn_models::{Model, ops::Gradients};
use serde::Deserialize;

use crate::{
    AdapterRecipe, Example, ExampleKind, PairExamples, Recipe,
    adapters::attach_adapters,
    mix::MixPlan,
    objective::{Objective, Reference},
    prepare::{Prepared, UtilitySource},
    run_loop::Plan,
    terms::Terms,
};

#[derive(Deserialize)]
struct Fixture {
    lora: Lora,
    num_virtual_tokens: usize,
    moved: f64,
    stride: usize,
    samples: Vec<Sample>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Lora {
    r: usize,
    #[serde(rename = "lora_alpha")]
    alpha: f64,
    target_modules: Vec<String>,
}

#[derive(Deserialize)]
struct Sample {
    id: String,
    kind: ExampleKind,
    ids: Vec<u32>,
    selected: Vec<u8>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    trained: String,
    assignments: Vec<String>,
    loss: f64,
    terms: BTreeMap<String, f64>,
}

type Tensors = std::collections::HashMap<String, Tensor>;

fn fixture() -> (Fixture, Tensors) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = fs::read_to_string(dir.join("losses.json")).unwrap();
    let tensors =
        candle_core::safetensors::load(dir.join("losses.safetensors"), &Device::Cpu).unwrap();
    (serde_json::from_str(&text).unwrap(), tensors)
}

fn base() -> Model {
    let dir = "../hardn-models/tests/fixtures/llama-grouped";
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &Device::Cpu).unwrap()
}

impl Fixture {
    fn recipe(&self, case: &Case) -> Recipe {
        let one_step = [
            "oversampling.mode=none",
            "training.batch_size=100",
            "training.accumulation=1",
            "loss.kl_direction=model_to_reference",
        ];
        let mut recipe = Recipe::load("safecoder", &one_step.map(str::to_owned)).unwrap();
        recipe.adapter = match case.trained.as_str() {
            "lora" => AdapterRecipe::Lora {
                r: self.lora.r,
                lora_alpha: self.lora.alpha,
                dropout: 0.0,
                target_modules: self.lora.target_modules.clone(),
                use_rslora: false,
            },
            "prefix" => AdapterRecipe::Prefix {
                num_virtual_tokens: self.num_virtual_tokens,
                dropout: 0.0,
                zero_init: true,
            },
            _ => AdapterRecipe::Full {},
        };
        for assignment in &case.assignments {
            recipe.set(assignment).unwrap();
        }
        recipe
    }

    /// The model with what the case trains at its values.
    fn model(&self, case: &Case, recipe: &Recipe, tensors: &Tensors) -> Model {
        let mut model = base();
        attach_adapters(&mut model, recipe).unwrap();
        for (name, var) in model.trainable() {
            let value = if case.trained == "full" {
                (var.as_detached_tensor() * self.moved).unwrap()
            } else {
                let (side, name) = match name.split_once('/') {
                    Some((side, name)) => (side, name),
                    None => ("secure", name.as_str()),
                };
                tensors[&format!("adapter/{}/{side}/{name}", case.trained)].clone()
            };
            var.set(&value).unwrap();
        }
        model
    }

    fn plan(&self, recipe: &Recipe) -> MixPlan {
        let example = |sample: &Sample| Example {
            id: sample.id.clone(),
            kind: sample.kind,
            ids: sample.ids.clone(),
            selected: sample.selected.clone(),
        };
        let of = |kind| -> Vec<Example> {
            self.samples.iter().filter(|sample| sample.kind == kind).map(example).collect()
        };
        let sides = of(ExampleKind::Secure).into_iter().zip(of(ExampleKind::Vulnerable));
        let pairs = sides.map(|(secure, vulnerable)| PairExamples {
            class: Default::default(),
            secure: Some(secure),
            vulnerable: Some(vulnerable),
        });
        let utility = of(ExampleKind::Utility);
        let utility = UtilitySource { ratio: recipe.data.utility_ratio, examples: utility };
        let (pairs, utility) = (pairs.collect(), vec![utility]);
        MixPlan::new(recipe, Prepared { pairs, utility, ..Prepared::default() }, usize::MAX)
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(error < 1e-5, "{what}: {found} is not {expected}, off by {error:.1e}");
}

/// How a case is computed.
#[derive(Clone, Copy, Debug)]
enum How {
    Fused,
    Elementary,
    Checkpointed,
}

#[track_caller]
fn check(fixture: &Fixture, tensors: &Tensors, case: &Case, how: How) {
    let recipe = fixture.recipe(case);
    let (mut model, mut copy) = (fixture.model(case, &recipe, tensors), base());
    model.set_fused(!matches!(how, How::Elementary));
    copy.set_fused(model.is_fused());
    let mut plan = fixture.plan(&recipe);
    let objective = Objective {
        model: &model,
        reference: match recipe.adapter {
            AdapterRecipe::Full {} => Reference::Copy(&copy),
            _ => Reference::AdapterOff,
        },
        loss: recipe.loss.resolved(),
        checkpointing: matches!(how, How::Checkpointed),
        per_token: plan.is_per_token(),
    };
    let trainable = model.trainable();
    let variables: Vec<_> = trainable.iter().map(|(_, var)| var.clone()).collect();
    let (mut terms, mut evaluated) = (Terms::default(), Terms::default());
    let mut gradients = Gradients::default();
    for batch in plan.step(0).batches {
        let (parts, of_batch) = objective.gradients(&batch, None, &variables).unwrap();
        terms.merge(&parts);
        gradients = gradients.merged(of_batch).unwrap();
        evaluated.merge(&objective.evaluate(&batch).unwrap());
    }
    let at = format!("{}, {how:?}", case.name);
    for found in [&terms, &evaluated] {
        let means = found.means();
        close(&format!("{at}, {means:?}"), found.loss, case.loss);
        assert_eq!(means.keys().collect::<Vec<_>>(), case.terms.keys().collect::<Vec<_>>(), "{at}");
        for (name, &expected) in &case.terms {
            close(&format!("{at}, {name}"), means[name], expected);
        }
    }
    let stride = if case.trained == "full" { fixture.stride } else { 1 };
    for (name, var) in &trainable {
        let expected = values(&tensors[&format!("gradient/{}/{name}", case.name)]);
        let found = gradients.get(var).unwrap_or_else(|| panic!("{at}: no gradient of {name}"));
        let found = values(found).into_iter().step_by(stride);
        let size = expected.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
        assert!(size > 0.0, "{at}: the gradient of {name} is zero");
        for (found, expected) in found.zip(&expected) {
            let error = (found - expected).abs() / size;
            assert!(error < 1e-4, "{at}, {name}: {found} is not {expected} at {size}: {error:.1e}");
        }
    }
}

#[test]
fn losses_and_gradients_are_those_of_float64() {
    let (fixture, tensors) = fixture();
    assert_eq!(fixture.cases.len(), 28);
    for case in &fixture.cases {
        for how in [How::Fused, How::Elementary, How::Checkpointed] {
            check(&fixture, &tensors, case, how);
        }
    }
}
