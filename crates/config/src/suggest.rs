//! "Did you mean": the known word nearest to what was written.

/// Longer words are not compared: nobody misspells a page of text.
const WORD_MAX: usize = 64;

/// The nearest of `known` within a third of the word's length; a word of two letters has none but itself in another case, or none.
///
/// Dashes, underscores and case do not count as differences.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_MAX || word.is_empty() {
        return None;
    }
    let folded = fold(word);
    let allowed = if folded.len() < 3 {
        0
    } else {
        (folded.len() / 3).max(1)
    };
    known
        .iter()
        .map(|&candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|&(edits, _)| edits <= allowed)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut left_char = None;
        for (j, &y) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = (cell(&above, j) + usize::from(x != y))
                .min(cell(&above, j + 1) + 1)
                .min(cell(&row, j) + 1);
            if previous == Some(y) && left_char == Some(x) && j > 0 {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
            left_char = Some(y);
        }
        previous = Some(x);
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_word() {
        let known = ["balance", "servers", "health_check", "timeouts"];
        let check = |word, expected| assert_eq!(nearest(word, &known), expected, "{word}");
        check("blance", Some("balance"));
        check("ablance", Some("balance"));
        check("healthcheck", Some("health_check"));
        check("health-check", Some("health_check"));
        check("Servers", Some("servers"));
        check("weight", None);
        assert_eq!(nearest("c", &["a", "b"]), None);
        check("", None);
    }
}
