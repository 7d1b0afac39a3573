//! A sweep as written, and the runs it asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    failure::{Context, Failure, Outcome},
    harden::config::{Controls, RunConfig, put_key, set_key},
};

/// Names that the table uses for itself.
const RESERVED: [&str; 5] =
    ["base", "utility_only", "shuffled_labels", "constant_idiom", "secure_prompt"];

/// In which runs the controls are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ControlsIn {
    /// Those of each seed's first arm: once per seed.
    #[default]
    First,
    /// All: each arm beside controls trained by its own recipe.
    Every,
    /// None.
    None,
}

/// A sweep's configuration (SWEEP.toml). Relative paths are relative to the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepConfig {
    /// Head of the table.
    #[serde(default)]
    pub(crate) title: Option<String>,
    /// Where the runs go.
    #[serde(default)]
    pub(crate) out: Option<PathBuf>,
    /// A RUN.toml that all runs begin with.
    #[serde(default)]
    base: Option<PathBuf>,
    /// Keys of a RUN.toml, on top of those of `base`.
    #[serde(default)]
    run: Table,
    /// Every arm is run with each of them.
    #[serde(default = "one_seed")]
    pub(crate) seeds: Vec<u64>,
    /// In which runs the controls are made; `run.controls` says which.
    #[serde(default)]
    controls: ControlsIn,
    /// Values by key; every combination is an arm.
    #[serde(default)]
    grid: BTreeMap<String, Vec<Value>>,
    /// Named settings; with a grid, each of them with every combination.
    #[serde(default)]
    arms: Vec<ArmConfig>,
}

/// One of the settings that are compared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmConfig {
    /// Its name in tables and folders.
    name: String,
    /// A recipe instead of the shared one.
    #[serde(default)]
    recipe: Option<String>,
    /// Values by key, on top of the shared ones.
    #[serde(default)]
    set: BTreeMap<String, Value>,
}

/// An arm with everything filled in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SweepArm {
    pub(crate) name: String,
    pub(crate) recipe: String,
    pub(crate) set: BTreeMap<String, Value>,
}

/// One run of a sweep.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) config: RunConfig,
    /// The first arm's run of this seed, whose base and untrained controls the others take over.
    pub(crate) is_first: bool,
}

/// Arms in the order of the file, and the runs: first every seed of the first arm, then of the second.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) title: String,
    pub(crate) out: Option<PathBuf>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) arms: Vec<SweepArm>,
    pub(crate) cells: Vec<Cell>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

impl Sweep {
    /// Reads a sweep, applies `KEY=VALUE` overrides and lays out its runs. Every recipe is checked.
    pub(crate) fn read(path: &Path, overrides: &[String]) -> Outcome<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        let here = || format!("in {}", path.display());
        let mut table: Table = text.parse().context(here())?;
        for text in overrides {
            set_key(&mut table, text)?;
        }
        let config: SweepConfig = Value::Table(table).try_into().context(here())?;
        // Runs are started from files in folders of their own.
        let path = std::path::absolute(path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        config.lay_out(folder, &name).map_err(|error| error.context(here()))
    }
}

impl SweepConfig {
    fn lay_out(self, folder: &Path, name: &str) -> Outcome<Sweep> {
        let mut shared = match &self.base {
            Some(base) => read_base(&folder.join(base))?,
            None => Table::new(),
        };
        merge(&mut shared, self.run.clone());
        if self.seeds.is_empty() {
            return Err(Failure::new("`seeds` is empty").help("write seeds = [1, 2, 3, 4, 5]"));
        }
        if let Some(seed) = first_twice(&self.seeds) {
            return Err(Failure::new(format!("`seeds` holds {seed} twice")));
        }
        let named =
            if self.arms.is_empty() { vec![ArmConfig::default()] } else { self.arms.clone() };
        let (mut arms, mut cells) = (Vec::new(), Vec::new());
        for arm in &named {
            for point in points(&self.grid) {
                let name = [name_of(arm, &self.arms)?, point_name(&point, &self.grid)];
                let name = name.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
                let name = if name.is_empty() { "all".to_owned() } else { name.join(",") };
                let error_here = |error: Failure| error.context(format!("arm `{name}`"));
                let mut table = shared.clone();
                if let Some(recipe) = &arm.recipe {
                    put_key(&mut table, "train.recipe", Value::String(recipe.clone()))?;
                }
                for (key, value) in arm.set.iter().chain(&point) {
                    match key.strip_prefix("run.") {
                        Some(key) => put_key(&mut table, key, value.clone())?,
                        None => put_key(&mut table, &format!("train.set.{key}"), value.clone())?,
                    }
                }
                let config = RunConfig::from_table(table, folder).map_err(error_here)?;
                let train = config.train.as_ref().ok_or_else(|| {
                    error_here(
                        Failure::new("it has no recipe")
                            .help("name one under `run.train.recipe`, or in the arm"),
                    )
                })?;
                hardn_train::Recipe::load(&train.recipe, &train.assignments())
                    .map_err(|error| error_here(error.into()))?;
                let is_first = arms.is_empty();
                let has_controls = match self.controls {
                    ControlsIn::First => is_first,
                    ControlsIn::Every => true,
                    ControlsIn::None => false,
                };
                for &seed in &self.seeds {
                    let mut config = config.clone();
                    config.seed = seed;
                    config.title = Some(format!("{name}, seed {seed}"));
                    if !has_controls {
                        config.controls = Controls::NONE;
                    }
                    cells.push(Cell { arm: name.clone(), seed, config, is_first });
                }
                let set = arm.set.iter().chain(&point);
                let set = set.map(|(key, value)| (key.clone(), value.clone())).collect();
                arms.push(SweepArm { name, recipe: train.recipe.clone(), set });
            }
        }
        let names: Vec<&String> = arms.iter().map(|arm| &arm.name).collect();
        if let Some(name) = first_twice(&names) {
            return Err(Failure::new(format!("two arms have the name `{name}`")));
        }
        let title = self.title.unwrap_or_else(|| name.to_owned());
        let out = self.out.map(|out| folder.join(out));
        Ok(Sweep { title, out, seeds: self.seeds, arms, cells })
    }
}

/// A RUN.toml as a table, its paths made absolute.
fn read_base(path: &Path) -> Outcome<Table> {
    let config = RunConfig::read(path, &[])?;
    Ok(Table::try_from(config)?)
}

/// Lays `above` over `below`: tables key by key, all else replaced.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(above)) => merge(inner, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Every combination of the values, the first key changing slowest.
fn points(grid: &BTreeMap<String, Vec<Value>>) -> Vec<BTreeMap<String, Value>> {
    let mut points = vec![BTreeMap::new()];
    for (key, values) in grid {
        points = points
            .iter()
            .flat_map(|point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.insert(key.clone(), value.clone());
                    point
                })
            })
            .collect();
    }
    points
}

/// `learning_rate=0.001,mask=char`: the last part of each key, the whole key where two keys end alike.
fn point_name(point: &BTreeMap<String, Value>, grid: &BTreeMap<String, Vec<Value>>) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let parts = point.iter().map(|(key, value)| {
        let is_alone = grid.keys().filter(|other| last(other) == last(key)).count() == 1;
        let key = if is_alone { last(key) } else { key.clone() };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '-' };
        format!("{key}={}", value.chars().map(plain).collect::<String>())
    });
    parts.collect::<Vec<_>>().join(",")
}

fn name_of(arm: &ArmConfig, arms: &[ArmConfig]) -> Outcome<String> {
    let name = &arm.name;
    if arms.is_empty() {
        return Ok(String::new());
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(Failure::new(format!(
            "no arm can be called `{name}`: the table has a row of that name"
        )));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::new(format!("`{name}` cannot be an arm's name"))
            .help("use letters, digits and . _ - +"));
    }
    Ok(name.clone())
}

fn first_twice<T: Ord>(items: &[T]) -> Option<&T> {
    let mut seen = BTreeSet::new();
    items.iter().find(|item| !seen.insert(*item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, overrides: &[&str]) -> Outcome<Sweep> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        Sweep::read(&path, &overrides)
    }

    const RUN: &str = "[run]\nmodel = \"lab-1m\"\nworld = {}\ntrain.recipe = \"safecoder-lab\"\n";

    #[test]
    fn a_grid_with_arms_is_every_combination() {
        let text = format!(
            "seeds = [1, 2]\n{RUN}[grid]\n\"adapter.r\" = [4, 8]\n\"run.eval.samples\" = [3]\n\
             [[arms]]\nname = \"a\"\n[[arms]]\nname = \"b\"\nrecipe = \"sft\"\nset = {{ \"data.mask\" = \"char\", \"data.drop_all_set\" = true }}\n"
        );
        let sweep = read(&text, &[]).unwrap();
        let names: Vec<&str> = sweep.arms.iter().map(|arm| arm.name.as_str()).collect();
        let expected = ["a,r=4,samples=3", "a,r=8,samples=3", "b,r=4,samples=3", "b,r=8,samples=3"];
        assert_eq!(names, expected);
        assert_eq!(sweep.cells.len(), 8);
        let cell = &sweep.cells[7];
        assert_eq!((cell.seed, cell.config.seed, cell.config.eval.samples), (2, 2, 3));
        let train = cell.config.train.as_ref().unwrap();
        assert_eq!(train.recipe, "sft");
        assert_eq!(train.set["adapter.r"].as_integer(), Some(8));
        // The controls are made once per seed.
        let with: Vec<bool> = sweep.cells.iter().map(|cell| cell.config.controls.any()).collect();
        assert_eq!(with, [true, true, false, false, false, false, false, false]);
        assert_eq!(read(&text, &["seeds=[7]"]).unwrap().cells[0].seed, 7);
    }

    #[test]
    fn mistakes_are_found_before_anything_runs() {
        for (text, said) in [
            (
                format!("{RUN}[[arms]]\nname = \"a\"\nset = {{ \"adapter.rank\" = 3 }}\n"),
                "adapter.r",
            ),
            (format!("{RUN}[[arms]]\nname = \"a\"\n[[arms]]\nname = \"a\"\n"), "two arms"),
            (format!("{RUN}[[arms]]\nname = \"../a\"\n"), "name"),
            (format!("{RUN}[[arms]]\nname = \"base\"\n"), "base"),
            (format!("seeds = []\n{RUN}"), "seeds"),
            (format!("seeds = [3, 3]\n{RUN}"), "3 twice"),
            (format!("{RUN}train.set.epochs = 3\nmodle = 1\n"), "modle"),
            ("[run]\nmodel = \"lab-1m\"\n".to_owned(), "recipe"),
        ] {
            let error = format!("{:?}", read(&text, &[]).unwrap_err());
            assert!(error.contains(said), "{text} gave {error}");
        }
    }
}
