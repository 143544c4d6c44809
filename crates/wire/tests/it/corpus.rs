//! The fuzz targets' functions over their corpus, on stable Rust.

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_every_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, check) in super::checks::CHECKS {
        let mut count = 0;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            check(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 5, "the corpus of {target} has {count} files");
    }
}
