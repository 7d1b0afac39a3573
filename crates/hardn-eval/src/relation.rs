//! Which weaknesses are so close that a finding of one answers the question for the other.

use hardn_types::Cwe;

/// Families of weaknesses that analysers file under one another's numbers.
const FAMILIES: [&[u16]; 11] = [
    &[22, 23, 24, 35, 36, 73], // path traversal
    &[77, 78, 88],             // command injection
    &[79, 80, 83],             // cross-site scripting
    &[89, 564, 943],           // query injection
    &[94, 95, 96],             // code injection
    &[118, 119, 120, 121, 122, 124, 125, 126, 127, 787, 788, 805], // memory bounds
    &[190, 191, 680],          // integer overflow
    &[327, 328, 326, 916],     // weak cryptography
    &[330, 331, 335, 338],     // weak randomness
    &[377, 378, 379],          // temporary files
    &[259, 321, 798],          // credentials in code
];

/// Whether a finding of class `found` is a finding of the weakness `target`: the same number, or one family.
pub fn is_related(target: Cwe, found: Cwe) -> bool {
    target == found
        || FAMILIES.iter().any(|family| family.contains(&target.0) && family.contains(&found.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        for (target, found, expected) in [
            (89, 89, true),
            (125, 787, true),
            (119, 125, true),
            (78, 77, true),
            (327, 916, true),
            (330, 338, true),
            (416, 415, false),
            (22, 78, false),
        ] {
            assert_eq!(is_related(Cwe(target), Cwe(found)), expected, "{target} {found}");
            assert_eq!(is_related(Cwe(found), Cwe(target)), expected, "{found} {target}");
        }
    }
}
