//! A straight line through measurements, by least squares.

/// What a line says: how much more there is for each unit of time, and how sure that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Σ(t − t̄)(y − ȳ) / Σ(t − t̄)².
    pub(super) slope: f64,
    /// The standard error of the slope: √(Σr² / (n − 2) / Σ(t − t̄)²), where r is what the line
    /// leaves of each measurement.
    pub(super) error: f64,
}

impl Line {
    /// Through points (t, y); not numbers where there are fewer than three.
    pub(super) fn through(points: impl Iterator<Item = (f64, f64)>) -> Line {
        let points: Vec<_> = points.collect();
        let n = points.len() as f64;
        let sum = |value: &dyn Fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|(t, y)| value(*t, *y)).sum()
        };
        let (mean_t, mean_y) = (sum(&|t, _| t) / n, sum(&|_, y| y) / n);
        let spread = sum(&|t, _| (t - mean_t).powi(2));
        let slope = sum(&|t, y| (t - mean_t) * (y - mean_y)) / spread;
        let left = sum(&|t, y| (y - mean_y - slope * (t - mean_t)).powi(2));
        let error = match points.len() {
            0..=2 => f64::NAN,
            _ => (left / (n - 2.0) / spread).sqrt(),
        };
        Line { slope, error }
    }
}
