//! Runs the checks of the fuzz targets over their corpus and over random bytes, on the stable toolchain.

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../fuzz/rules.rs"]
mod checks;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let entries = std::fs::read_dir(&folder).expect("the corpus is in the repository");
    entries
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect()
}

#[test]
fn the_corpus_holds() {
    let (targets, authorities) = (corpus("target"), corpus("authority"));
    assert!(!targets.is_empty() && !authorities.is_empty());
    targets.iter().for_each(|data| checks::target(data));
    authorities.iter().for_each(|data| checks::authority(data));
}

proptest! {
    #[test]
    fn random_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        checks::target(&data);
        checks::authority(&data);
    }

    #[test]
    fn what_looks_like_a_target_holds(data in "/[a-zA-Z0-9./%2eEfF?]{0,60}") {
        checks::target(data.as_bytes());
    }
}
