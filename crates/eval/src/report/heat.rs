//! Needle in a haystack: a table per checkpoint, a column per length, a row per depth, shares as colours.

use std::fmt::Write as _;

use super::html::{escape, percent};
use crate::NeedleMap;

/// Share from which the number stands in the colour of the page.
const DARK: f64 = 0.55;

/// The section with all maps.
pub(super) fn section(page: &mut String, maps: &[(String, NeedleMap)]) {
    if maps.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>Needle in a haystack</h2>\n<p class=\"lede\">Share of facts found again, by the length of the text in \
         tokens (columns) and the place of the fact in it (rows; 0 is the beginning).</p>\n<div class=\"split\">\n",
    );
    for (name, map) in maps {
        table(page, name, map);
    }
    page.push_str("</div>\n</section>\n");
}

fn table(page: &mut String, name: &str, map: &NeedleMap) {
    let _ = write!(page, "<div class=\"card scroll\"><table class=\"heat\">\n<thead><tr><th>{}</th>", escape(name));
    for length in &map.lengths {
        let _ = write!(page, "<th>{length}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (depth, shares) in &map.rows {
        let _ = write!(page, "<tr><th>{depth:.2}</th>");
        for share in shares {
            match share {
                Some(share) => {
                    let (share, class) = (share.clamp(0.0, 1.0), if *share >= DARK { " class=\"hi\"" } else { "" });
                    let _ = write!(page, "<td{class} style=\"--v:{:.1}%\">{}</td>", share * 100.0, percent(share));
                }
                None => page.push_str("<td>–</td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalSummary, Measures};

    fn eval(cells: &[(&str, f64)]) -> EvalSummary {
        let measures = |share| Measures { pass_at_1: Some(share), ..Measures::default() };
        EvalSummary {
            by_family: cells.iter().map(|(name, share)| ((*name).to_owned(), measures(*share))).collect(),
            ..EvalSummary::default()
        }
    }

    #[test]
    fn a_map_has_a_cell_per_length_and_depth_and_gaps_where_nothing_was_asked() {
        let map = NeedleMap::of(&eval(&[("2048 @ 0.50", 0.5), ("128 @ 0.00", 1.0), ("128 @ 0.50", 0.25)])).unwrap();
        assert_eq!(map.lengths, [128, 2048]);
        assert_eq!(map.rows, [(0.0, vec![Some(1.0), None]), (0.5, vec![Some(0.25), Some(0.5)])]);
        assert_eq!(NeedleMap::of(&eval(&[("128 @ 0.00", 1.0), ("chain", 0.5)])), None);
        assert_eq!(NeedleMap::of(&eval(&[])), None);
        let mut page = String::new();
        section(&mut page, &[("long <b>".to_owned(), map)]);
        assert!(page.contains("long &lt;b&gt;") && page.contains("<th>128</th><th>2048</th>"), "{page}");
        assert!(page.contains("class=\"hi\" style=\"--v:100.0%\"") && page.contains("style=\"--v:25.0%\""), "{page}");
        assert_eq!(page.matches("<td>–</td>").count(), 1, "{page}");
    }
}
