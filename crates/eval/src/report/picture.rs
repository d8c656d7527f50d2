//! Curves as one SVG picture for places that show images, e.g. a README: white ground, plain colours, no script.

use std::fmt::Write as _;

use super::Curve;
use super::chart::{Frame, Plot};
use super::html::{escape, number};

const CELL: Frame = Frame { width: 380.0, height: 250.0, left: 50.0, right: 18.0, top: 52.0, bottom: 40.0 };
const MARGIN: f64 = 10.0;

/// `chart.css` with its colours in place of variables.
const STYLE: &str = "text{font-family:-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}\
    .g{stroke:#e6e8ee}.a{stroke:#9aa0ad}.t{fill:#5c6270;font-size:11px}.h{fill:#1c1f27;font-size:14px;font-weight:600}\
    .u{fill:#5c6270;font-size:12px;font-weight:400}.v{fill:#3656c9;font-size:14px;font-weight:600}\
    .r{fill:none;stroke:#3656c9;stroke-opacity:.34}.s{fill:none;stroke:#3656c9;stroke-width:2;stroke-linejoin:round}\
    .d{fill:#3656c9}";

/// Draws the curves in rows of `columns` charts (at least one) as a single SVG file.
pub fn render_curves_svg(curves: &[Curve], columns: usize) -> String {
    let columns = columns.clamp(1, curves.len().max(1));
    let rows = curves.len().div_ceil(columns).max(1);
    let width = CELL.width * columns as f64 + 2.0 * MARGIN;
    let height = CELL.height * rows as f64 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (i, curve) in curves.iter().enumerate() {
        let plot = Plot::new(curve);
        let (x, y) = (MARGIN + CELL.width * (i % columns) as f64, MARGIN + CELL.height * (i / columns) as f64);
        let _ = write!(
            svg,
            "<g transform=\"translate({x} {y})\"><text class=\"h\" x=\"16\" y=\"28\">{} <tspan class=\"u\">{}</tspan></text>",
            escape(&curve.title),
            escape(&curve.unit)
        );
        if let Some(last) = plot.last() {
            let right = CELL.x(1.0);
            let _ = write!(svg, "<text class=\"v\" x=\"{right}\" y=\"28\" text-anchor=\"end\">{}</text>", number(last));
        }
        plot.draw(&mut svg, &CELL, &curve.x_label);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}
