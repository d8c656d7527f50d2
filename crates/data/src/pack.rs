//! Packing of whole documents into a batch of a fixed number of tokens.
//!
//! The stream of documents is a function of an index, so the whole state of the loader is the index of the next document:
//! saving that one number resumes training exactly.

/// A stream that gives this many useless documents in a row has ended.
const MAX_USELESS: u64 = 10_000;

/// Takes documents `*next_index`, `*next_index + 1`, ... until another would exceed `token_budget` tokens, and moves
/// `next_index` to the first document not taken. Documents are cut at `context` tokens (and at the budget, so that a single
/// long document cannot stall the stream); those with fewer than two tokens have nothing to predict and are passed over.
///
/// Returns the documents' token ids; empty when the budget or the context is below two tokens or the stream gives nothing.
pub fn pack(
    mut documents: impl FnMut(u64) -> Vec<u32>,
    next_index: &mut u64,
    token_budget: usize,
    context: usize,
) -> Vec<Vec<u32>> {
    let longest = context.min(token_budget);
    let mut batch = Vec::new();
    let mut left = token_budget;
    let mut useless = 0;
    if longest < 2 {
        return batch;
    }
    while left >= 2 && useless < MAX_USELESS {
        let mut document = documents(*next_index);
        document.truncate(longest);
        if document.len() < 2 {
            useless += 1;
        } else if document.len() > left {
            break;
        } else {
            useless = 0;
            left -= document.len();
            batch.push(document);
        }
        *next_index += 1;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Document i has `2 + i % 7` tokens, all equal to i.
    fn document(index: u64) -> Vec<u32> {
        vec![index as u32; 2 + (index % 7) as usize]
    }

    #[test]
    fn fills_the_budget_without_splitting() {
        let mut next = 0;
        // lengths 2 3 4 5 | 6 7 | 8 2 3 ...
        assert_eq!(pack(document, &mut next, 15, 100).iter().map(Vec::len).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(next, 4);
        assert_eq!(pack(document, &mut next, 15, 100).iter().map(Vec::len).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(next, 6);
    }

    #[test]
    fn every_document_once_and_resumable() {
        let mut next = 0;
        let mut seen = Vec::new();
        while seen.len() < 500 {
            let mut again = next;
            let batch = pack(document, &mut next, 40, 6);
            assert_eq!(batch, pack(document, &mut again, 40, 6));
            assert_eq!(next, again);
            assert!(batch.iter().map(Vec::len).sum::<usize>() <= 40);
            assert!(batch.iter().all(|d| d.len() <= 6));
            seen.extend(batch.iter().map(|d| u64::from(d[0])));
        }
        assert!(seen.iter().copied().eq(0..seen.len() as u64));
    }

    #[test]
    fn long_and_useless_documents() {
        let mut next = 0;
        assert_eq!(pack(|_| vec![1; 1000], &mut next, 10, 64), [vec![1; 10]]);
        assert_eq!(next, 1);
        let mut next = 0;
        let batch = pack(|i| if i % 2 == 0 { vec![] } else { vec![i as u32; 4] }, &mut next, 8, 64);
        assert_eq!(batch, [vec![1; 4], vec![3; 4]]);
        assert_eq!(next, 4);
        let mut next = 0;
        assert!(pack(|_| vec![7], &mut next, 8, 64).is_empty());
        assert!(pack(|_| vec![7; 5], &mut next, 1, 64).is_empty());
        assert!(pack(|_| vec![7; 5], &mut next, 64, 0).is_empty());
    }
}
