//! A plot as plain SVG: panels one below the other, each with a scale of its own.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// What is left of a panel for its numbers.
const LEFT: f64 = 50.0;
/// The height of a panel's curve, and of a panel with its title and its hours.
const CURVE: f64 = 120.0;
const PANEL: f64 = 180.0;
/// What is above the first panel.
const HEAD: f64 = 40.0;

/// One curve over hours.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) hours: f64,
    pub(super) rates: Vec<f64>,
    /// Where a line is drawn for comparison.
    pub(super) mean: f64,
}

/// Draws them.
pub(super) fn draw(title: &str, panels: &[Panel]) -> String {
    let height = HEAD + PANEL * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = HEAD + PANEL * number as f64;
        // Writing to a string cannot fail.
        writeln!(svg, "<g transform=\"translate({LEFT} {top})\">{}</g>", panel.draw()).ok();
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self) -> String {
        let wide = WIDTH - LEFT - 20.0;
        let peak = self.rates.iter().copied().fold(self.mean, f64::max);
        let most = nice(peak);
        let y = |rate: f64| 20.0 + CURVE * (1.0 - rate / most);
        let step = wide / self.rates.len().max(1) as f64;
        let mut path = String::new();
        for (number, rate) in self.rates.iter().enumerate() {
            let (x, word) = (step * number as f64, if number == 0 { "M" } else { "L" });
            write!(path, "{word}{x:.1} {0:.1}L{1:.1} {0:.1}", y(*rate), x + step).ok();
        }
        let (base, mean) = (y(0.0), y(self.mean));
        let mut text = format!(
            "\n<text y=\"12\">{} (at most {peak:.1}/s; dashed: {:.1}/s, the mean of a day)</text>\n\
             <path d=\"M0 20V{base}H{wide}\" fill=\"none\" stroke=\"black\"/>\n\
             <path d=\"M0 {mean:.1}H{wide}\" stroke=\"gray\" stroke-dasharray=\"4\"/>\n\
             <path d=\"{path}\" fill=\"none\" stroke=\"#0b62a4\"/>\n",
            self.title, self.mean
        );
        for share in [0.0, 0.5, 1.0] {
            let (at, rate) = (y(most * share) + 4.0, most * share);
            writeln!(text, "<text x=\"-6\" y=\"{at}\" text-anchor=\"end\">{rate}</text>").ok();
        }
        let mut hour = 0.0;
        while hour <= self.hours {
            let (x, at) = (wide * hour / self.hours, base + 14.0);
            writeln!(text, "<text x=\"{x:.1}\" y=\"{at}\" text-anchor=\"middle\">{hour} h</text>")
                .ok();
            hour += 3.0;
        }
        text
    }
}

/// The next of 1, 2, 5, 10, 20, … for a scale.
fn nice(most: f64) -> f64 {
    let magnitude = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude);
    steps.into_iter().find(|step| *step >= most).unwrap_or(most)
}
