//! From a stream of documents to the sequences of a batch.
//!
//! Whole documents or cut anywhere; attending to their own document only, or across all of a row as DeepSeek-V3 does (technical
//! report, 4.1: packing without a mask between samples). The state is the number of the next document and, where documents
//! are cut, the next of its tokens.

use crate::pack::pack;

/// How documents fill rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Whole documents; what does not fit into a row is cut off.
    #[default]
    Documents,
    /// One stream of tokens, cut into rows; a document goes on in the next row.
    Stream,
}

/// Where the stream goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The next document.
    pub document: u64,
    /// Its first token not yet used; always 0 for whole documents.
    pub token: u64,
}

/// How sequences are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How documents fill rows.
    pub packing: Packing,
    /// Documents of one row see those before them.
    pub cross_document_attention: bool,
    /// Tokens of a row.
    pub context: usize,
}

/// A stream that gives this many useless documents in a row has ended.
const MAX_USELESS: u64 = 10_000;

impl Rows {
    /// The sequences of a batch of at most `budget` tokens; attention never crosses a sequence. Each has two tokens or more.
    pub fn batch(&self, mut documents: impl FnMut(u64) -> Vec<u32>, at: &mut Position, budget: usize) -> Vec<Vec<u32>> {
        match (self.packing, self.cross_document_attention) {
            (Packing::Documents, false) => pack(documents, &mut at.document, budget, self.context),
            (Packing::Documents, true) => {
                let mut rows: Vec<Vec<u32>> = Vec::new();
                for document in pack(documents, &mut at.document, budget, self.context) {
                    match rows.last_mut() {
                        Some(row) if row.len() + document.len() <= self.context => row.extend(document),
                        _ => rows.push(document),
                    }
                }
                rows
            }
            (Packing::Stream, across) => {
                let mut sequences = Vec::new();
                for _ in 0..budget / self.context.max(1) {
                    let pieces = self.row(&mut documents, at);
                    if across {
                        sequences.push(pieces.concat());
                    } else {
                        sequences.extend(pieces);
                    }
                }
                sequences.retain(|s| s.len() >= 2);
                sequences
            }
        }
    }

    /// The next `context` tokens of the stream, a piece per document.
    fn row(&self, documents: &mut impl FnMut(u64) -> Vec<u32>, at: &mut Position) -> Vec<Vec<u32>> {
        let (mut pieces, mut left, mut useless) = (Vec::new(), self.context, 0);
        while left > 0 && useless < MAX_USELESS {
            let document = documents(at.document);
            let rest = document.get(at.token as usize..).unwrap_or_default();
            let taken = rest.len().min(left);
            useless = if taken == 0 { useless + 1 } else { 0 };
            if taken > 0 {
                pieces.push(rest[..taken].to_vec());
                left -= taken;
            }
            *at = if taken < rest.len() {
                Position { token: at.token + taken as u64, ..*at }
            } else {
                Position { document: at.document + 1, token: 0 }
            };
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Document i has `2 + i % 7` tokens: 100 i, 100 i + 1, ...
    fn document(i: u64) -> Vec<u32> {
        (0..2 + i % 7).map(|t| (100 * i + t) as u32).collect()
    }

    fn rows(packing: Packing, cross_document_attention: bool) -> Rows {
        Rows { packing, cross_document_attention, context: 10 }
    }

    #[test]
    fn a_stream_loses_no_token_and_goes_on_where_it_stopped() {
        let all: Vec<u32> = (0..100).flat_map(document).collect();
        let mut at = Position::default();
        let mut found = Vec::new();
        for _ in 0..5 {
            let batch = rows(Packing::Stream, true).batch(document, &mut at, 30);
            assert_eq!(batch.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10]);
            found.extend(batch.concat());
        }
        assert_eq!(found, all[..150]);
        // Stopped and begun again from the position.
        let (mut first, mut again) = (Position::default(), Position::default());
        rows(Packing::Stream, true).batch(document, &mut first, 20);
        rows(Packing::Stream, true).batch(document, &mut again, 10);
        assert_ne!(again.token, 0);
        rows(Packing::Stream, true).batch(document, &mut again, 10);
        assert_eq!(first, again);
    }

    #[test]
    fn without_attention_across_documents_no_sequence_has_two() {
        let mut at = Position::default();
        let batch = rows(Packing::Stream, false).batch(document, &mut at, 40);
        assert!(batch.iter().all(|s| s.len() >= 2 && s.iter().all(|t| t / 100 == s[0] / 100)));
        let mut at = Position::default();
        let whole = rows(Packing::Documents, false).batch(document, &mut at, 40);
        assert!(whole.iter().all(|s| document(u64::from(s[0]) / 100) == *s));
    }

    #[test]
    fn whole_documents_share_rows_up_to_the_context() {
        let (mut at, mut alone) = (Position::default(), Position::default());
        let shared = rows(Packing::Documents, true).batch(document, &mut at, 40);
        let single = rows(Packing::Documents, false).batch(document, &mut alone, 40);
        assert_eq!((shared.concat(), at), (single.concat(), alone));
        assert!(shared.len() < single.len() && shared.iter().all(|s| s.len() <= 10));
    }

    #[test]
    fn a_stream_of_nothing_ends() {
        let mut at = Position::default();
        assert!(rows(Packing::Stream, true).batch(|_| Vec::new(), &mut at, 40).is_empty());
    }
}
