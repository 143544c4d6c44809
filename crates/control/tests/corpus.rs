//! Runs the check of the fuzz target over its corpus and over random bytes, on the stable toolchain.

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../fuzz/cookies.rs"]
mod checks;

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/affinity_cookie");
    let entries = std::fs::read_dir(&folder).expect("the corpus is in the repository");
    let mut count = 0;
    for entry in entries {
        let data = std::fs::read(entry.expect("an entry").path()).expect("a file");
        checks::affinity_cookie(&data);
        count += 1;
    }
    assert!(count >= 5, "the corpus has {count} files");
}

proptest! {
    #[test]
    fn random_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        checks::affinity_cookie(&data);
    }

    #[test]
    fn what_looks_like_cookies_holds(data in "(S=[a-c~st0-9\"; ]{0,20}(; ?)?){0,4}") {
        checks::affinity_cookie(data.as_bytes());
    }
}
