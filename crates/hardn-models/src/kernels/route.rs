//! Which experts a token goes to.

use crate::config::spec::ExpertsSpec;

/// The `top_k` most probable experts; of equal ones the first. With groups, experts outside the best groups count
/// as impossible and are never chosen, even where fewer than `top_k` are left.
pub(crate) fn route(probs: &[f32], spec: &ExpertsSpec) -> Vec<usize> {
    let best = |values: &[f32], count: usize| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        order.truncate(count);
        order
    };
    let Some((groups, kept)) = spec.groups else { return best(probs, spec.top_k) };
    let size = probs.len() / groups;
    let peaks: Vec<f32> = probs
        .chunks_exact(size)
        .map(|group| group.iter().copied().fold(f32::NEG_INFINITY, f32::max))
        .collect();
    let kept = best(&peaks, kept);
    let mut chosen = best(
        &probs
            .iter()
            .enumerate()
            .map(|(i, p)| if kept.contains(&(i / size)) { *p } else { 0.0 })
            .collect::<Vec<_>>(),
        spec.top_k,
    );
    chosen.retain(|expert| kept.contains(&(expert / size)));
    chosen
}
