//! Line charts as SVG: a faint line through every point, a smooth one in front, axes with ticks.

use std::fmt::Write as _;

use super::Curve;
use super::axis::Axis;
use super::html::{escape, number};

/// Above this many points a chart shows the lowest and highest of each bin.
const MOST_POINTS: usize = 1200;
/// Fewer points than this are not smoothed.
const LEAST_SMOOTHED: usize = 12;

/// The size of a chart and of the margins around its plot, in SVG units (pixels at full size).
pub(super) struct Frame {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    pub fn x(&self, share: f64) -> f64 {
        self.left + share * (self.width - self.left - self.right)
    }

    pub fn y(&self, share: f64) -> f64 {
        self.height - self.bottom - share * (self.height - self.top - self.bottom)
    }
}

/// A chart's size in the page.
pub(super) const FRAME: Frame = Frame { width: 400.0, height: 210.0, left: 44.0, right: 14.0, top: 10.0, bottom: 34.0 };

/// A curve made ready to draw.
pub(super) struct Plot {
    /// Finite points, by rising x, at most a few for each pixel.
    points: Vec<(f64, f64)>,
    /// Whether the raw line breaks before the point.
    gap: Vec<bool>,
    /// The trend; empty for short curves.
    smooth: Vec<(f64, f64)>,
    last: Option<f64>,
    x: Axis,
    y: Axis,
}

impl Plot {
    pub fn new(curve: &Curve) -> Self {
        let drawable = |value: f64| value.is_finite() && value.abs() < 1e100;
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(curve.points.len());
        let mut gap = Vec::with_capacity(curve.points.len());
        let mut broken = true;
        for &(x, y) in &curve.points {
            let fits = drawable(x) && drawable(y) && points.last().is_none_or(|last| x >= last.0);
            if fits {
                points.push((x, y));
                gap.push(broken);
            }
            broken = !fits;
        }
        let smooth = if points.len() < LEAST_SMOOTHED { Vec::new() } else { smoothed(&binned(&points, MOST_POINTS)) };
        let tail = &points[points.len() - points.len().div_ceil(20)..];
        let last = crate::mean(&tail.iter().map(|point| point.1).collect::<Vec<_>>());
        let keep = thinned(&points);
        // A gap that falls between two kept points shows at the later one.
        let starts = keep.iter().scan(0, |from, &i| Some(std::mem::replace(from, i + 1)));
        let gap: Vec<bool> = keep.iter().zip(starts).map(|(&i, from)| gap[from..=i].contains(&true)).collect();
        let points: Vec<_> = keep.iter().map(|&i| points[i]).collect();
        let y = Axis::around(points.iter().chain(&smooth).map(|point| point.1), 4);
        let x = Axis::along(points.iter().map(|point| point.0), 5);
        Self { points, gap, smooth, last, x, y }
    }

    /// The mean of the last twentieth of the points (of one at least).
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// Axes and lines; the classes are styled by `chart.css`.
    pub fn draw(&self, out: &mut String, frame: &Frame, x_label: &str) {
        let (left, right) = (frame.x(0.0), frame.x(1.0));
        for (value, label) in &self.y.ticks {
            let y = frame.y(self.y.at(*value));
            let _ = write!(
                out,
                "<line class=\"g\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 7.0,
                y + 3.5
            );
        }
        let floor = frame.y(0.0);
        let _ =
            write!(out, "<line class=\"a\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{floor:.1}\" y2=\"{floor:.1}\"/>");
        for (value, label) in &self.x.ticks {
            let at = self.x.at(*value);
            let _ = write!(
                out,
                "<line class=\"a\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{floor:.1}\" y2=\"{1:.1}\"/>\
                 <text class=\"t\" x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">{label}</text>",
                frame.x(at),
                floor + 3.5,
                floor + 15.0
            );
        }
        let _ = write!(
            out,
            "<text class=\"t\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            frame.height - 5.0,
            escape(x_label)
        );
        let at = |x: f64, y: f64| (frame.x(self.x.at(x)), frame.y(self.y.at(y)));
        if self.points.is_empty() {
            let (x, y) = (frame.x(0.5), frame.y(0.5));
            let _ = write!(out, "<text class=\"t\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">no data</text>");
        }
        let raw = self.points.iter().map(|&(x, y)| at(x, y));
        let trend = self.smooth.iter().map(|&(x, y)| at(x, y));
        if self.smooth.is_empty() {
            line(out, "s", raw, &self.gap);
            for &(x, y) in &self.points {
                let (x, y) = at(x, y);
                let _ = write!(out, "<circle class=\"d\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>");
            }
        } else {
            line(out, "r", raw, &self.gap);
            line(out, "s", trend, &[]);
        }
    }
}

/// A path through points; `gap[i]` breaks it before point i.
fn line(out: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>, gap: &[bool]) {
    let mut path = String::new();
    for (i, (x, y)) in points.enumerate() {
        let command = if i == 0 || gap.get(i) == Some(&true) { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    if !path.is_empty() {
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// The trend: at each point the value of a straight line fitted to its neighbours, which are weighted by a Gaussian over
/// the index of width n / 40, twice that at the ends, where only one side has neighbours. No lag, and no pull towards
/// the middle at the ends, as a plain mean would have.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let n = points.len();
    let width = (n as f64 / 40.0).max(1.2);
    let fit = |i: usize| {
        let from_end = i.min(n - 1 - i) as f64;
        let width = width * (2.0 - from_end / (3.0 * width)).max(1.0);
        let reach = (3.0 * width).ceil() as usize;
        // Sums of w, w d, w d d, w y, w d y, with d the distance in points.
        let mut s = [0.0; 5];
        for j in i.saturating_sub(reach)..=(i + reach).min(n - 1) {
            let (d, y) = (j as f64 - i as f64, points[j].1);
            let w = (-0.5 * (d / width).powi(2)).exp();
            for (sum, term) in s.iter_mut().zip([1.0, d, d * d, y, d * y]) {
                *sum += w * term;
            }
        }
        (s[2] * s[3] - s[1] * s[4]) / (s[0] * s[2] - s[1] * s[1])
    };
    points.iter().enumerate().map(|(i, point)| (point.0, fit(i))).collect()
}

/// At most `bins` points, each the mean of as many neighbours.
fn binned(points: &[(f64, f64)], bins: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(bins).max(1);
    let centre = |bin: &[(f64, f64)]| {
        let (x, y) = bin.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / bin.len() as f64, y / bin.len() as f64)
    };
    points.chunks(size).map(centre).collect()
}

/// Which points to draw: all of them, or the lowest and the highest of each bin, the first and the last.
fn thinned(points: &[(f64, f64)]) -> Vec<usize> {
    let n = points.len();
    if n <= MOST_POINTS {
        return (0..n).collect();
    }
    let bins = MOST_POINTS / 2;
    let mut keep = vec![0, n - 1];
    for bin in 0..bins {
        let within = bin * n / bins..(bin + 1) * n / bins;
        keep.extend(within.clone().min_by(|&a, &b| points[a].1.total_cmp(&points[b].1)));
        keep.extend(within.max_by(|&a, &b| points[a].1.total_cmp(&points[b].1)));
    }
    keep.sort_unstable();
    keep.dedup();
    keep
}

/// A curve as a card of the page, with its last value and the points for the pointer.
pub(super) fn figure(page: &mut String, curve: &Curve) {
    let plot = Plot::new(curve);
    let unit = escape(&curve.unit);
    let _ = write!(page, "<figure class=\"card\">\n<figcaption><b>{}</b>", escape(&curve.title));
    if !unit.is_empty() {
        let _ = write!(page, " <span>{unit}</span>");
    }
    if let Some(last) = plot.last() {
        let _ = write!(page, "<em title=\"mean of the last twentieth\">{}</em>", number(last));
    }
    let _ = write!(
        page,
        "</figcaption>\n<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" data-x=\"{}\" data-u=\"{unit}\" \
         data-p=\"",
        FRAME.width,
        FRAME.height,
        escape(&curve.title),
        escape(&curve.x_label)
    );
    for &(x, y) in &plot.points {
        let (across, up) = (FRAME.x(plot.x.at(x)), FRAME.y(plot.y.at(y)));
        let _ = write!(page, "{across:.1},{up:.1},{},{};", x, number(y).replace(',', "\u{202f}"));
    }
    page.push_str("\">");
    plot.draw(page, &FRAME, &curve.x_label);
    page.push_str("</svg>\n");
    if let Some(note) = curve.note.as_deref().filter(|note| !note.is_empty()) {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(note));
    }
    page.push_str("</figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: Vec<(f64, f64)>) -> Curve {
        Curve { title: "Reward".into(), x_label: "step".into(), points, ..Curve::default() }
    }

    fn drawn(points: Vec<(f64, f64)>) -> String {
        let mut out = String::new();
        figure(&mut out, &curve(points));
        assert!(!out.contains("NaN") && !out.contains("inf"), "{out}");
        out
    }

    #[test]
    fn smoothing_keeps_constants_and_straight_lines_and_calms_noise() {
        let flat: Vec<_> = (0..50).map(|i| (f64::from(i), 3.0)).collect();
        assert!(smoothed(&flat).iter().all(|(_, y)| (y - 3.0).abs() < 1e-9));
        let rising: Vec<_> = (0..50).map(|i| (f64::from(i), f64::from(i))).collect();
        assert!(smoothed(&rising).iter().all(|(x, y)| (x - y).abs() < 1e-9));
        let noisy: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!(smoothed(&noisy)[10..190].iter().all(|(_, y)| (y - 0.5).abs() < 0.01));
    }

    #[test]
    fn gaps_break_the_raw_line() {
        let mut points: Vec<_> = (0..20).map(|i| (f64::from(i), f64::from(i))).collect();
        points[10].1 = f64::NAN;
        let svg = drawn(points);
        let raw = svg.split("class=\"r\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(raw.matches('M').count(), 2, "{raw}");
    }

    #[test]
    fn odd_input_never_panics() {
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::NAN)],
            vec![(1.0, f64::INFINITY), (2.0, 1e300), (3.0, -1.0)],
            vec![(5.0, 1.0), (4.0, 2.0)],
            vec![(1.0, 1.0); 40],
            (0..30).map(|i| (f64::from(i), 1e-320)).collect(),
        ] {
            drawn(points);
        }
        assert!(drawn(vec![]).contains("no data"));
    }

    #[test]
    fn long_curves_keep_their_spikes() {
        let mut points: Vec<_> = (0..50_000).map(|i| (f64::from(i), 0.0)).collect();
        points[33_333].1 = 9.0;
        let plot = Plot::new(&curve(points));
        assert!(plot.points.len() <= MOST_POINTS + 2, "{}", plot.points.len());
        assert!(plot.points.contains(&(33_333.0, 9.0)));
        assert_eq!((plot.points[0].0, plot.points.last().unwrap().0), (0.0, 49_999.0));
        assert_eq!(plot.gap.iter().filter(|gap| **gap).count(), 1);
        assert!(plot.smooth.len() <= MOST_POINTS);
    }
}
