//! The recipes that are compiled into the binary.

/// Name and text of every embedded recipe; the first is the default of `aha run`.
const EMBEDDED: &[(&str, &str)] = &[
    ("mini-zero", include_str!("../../recipes/mini-zero.toml")),
    ("mini-zero-dense", include_str!("../../recipes/mini-zero-dense.toml")),
    ("mini-r1", include_str!("../../recipes/mini-r1.toml")),
    ("r1", include_str!("../../recipes/r1.toml")),
    ("mini-long", include_str!("../../recipes/mini-long.toml")),
];

/// Names of the embedded recipes; the first is the default.
pub fn list_embedded() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The text of an embedded recipe.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
