//! Which weaknesses are so close that a finding of one answers the question for the other.

use crate::Cwe;

/// Families of weaknesses that analysers file under one another's numbers; the first stands for the family.
const FAMILIES: [&[u16]; 11] = [
    &[22, 23, 24, 35, 36, 73], // path traversal
    &[78, 77, 88],             // command injection
    &[79, 80, 83],             // cross-site scripting
    &[89, 564, 943],           // query injection
    &[94, 95, 96],             // code injection
    &[119, 118, 120, 121, 122, 124, 125, 126, 127, 787, 788, 805], // memory bounds
    &[190, 191, 680],          // integer overflow
    &[327, 328, 326, 916],     // weak cryptography
    &[338, 330, 331, 335],     // weak randomness
    &[377, 378, 379],          // temporary files
    &[798, 259, 321],          // credentials in code
];

/// Whether a finding of class `found` is a finding of the weakness `target`: the same number, or one family.
pub fn is_related(target: Cwe, found: Cwe) -> bool {
    target == found
        || FAMILIES.iter().any(|family| family.contains(&target.0) && family.contains(&found.0))
}

/// The class that stands for a class's family: itself for most.
pub fn family_of(cwe: Cwe) -> Cwe {
    FAMILIES.iter().find(|family| family.contains(&cwe.0)).map_or(cwe, |family| Cwe(family[0]))
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

    #[test]
    fn a_family_is_named_after_its_first() {
        for (cwe, expected) in [(787, 119), (119, 119), (77, 78), (416, 416), (259, 798)] {
            assert_eq!(family_of(Cwe(cwe)), Cwe(expected), "{cwe}");
        }
    }
}
