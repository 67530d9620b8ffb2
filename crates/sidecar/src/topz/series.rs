//! The history as series for a plot: one point a look, for the pod by container or for one process.

use serde::Serialize;

use super::container::rank;
use super::ring::{Look, Now};
use super::snapshot::{History, Source, seconds};

/// Columns of equal length, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Series {
    /// Unix time in seconds of each look.
    pub(crate) at: Vec<f64>,
    /// Processes and threads that came and went unseen before each look.
    pub(crate) short_lived: Vec<u32>,
    /// The lines.
    pub(crate) lines: Vec<Line>,
    /// How far the history goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<History>,
}

/// One line of the plot.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Line {
    /// The container's name, or the process's.
    pub(crate) name: String,
    /// Percent of one CPU, short-lived children included; null at the first look and where it wasn't there.
    pub(crate) cpu_percent: Vec<Option<f64>>,
    /// Resident memory in bytes; null where it wasn't there.
    pub(crate) memory_bytes: Vec<Option<u64>>,
}

/// The most points; a longer history is thinned by leaving out looks. A plot has no more pixels.
const POINTS_MAX: usize = 1200;

impl Source<'_> {
    /// A line for each container that the history knows.
    pub(crate) fn by_container(&self) -> Series {
        self.series(|slot| {
            let life = self.census.ring().life(slot)?;
            Some(self.census.names().get(life.container).name.as_str())
        })
    }

    /// One line for the process that goes by this id now or, if there is none, went by it last.
    pub(crate) fn of_process(&self, pid: u32) -> Option<Series> {
        let ring = self.census.ring();
        let mut found: Option<u64> = None;
        ring.walk(|_, state| {
            let starts = state
                .living()
                .filter_map(|(slot, _)| ring.life(slot))
                .filter(|life| life.pid == pid);
            found = starts.map(|life| life.start).max().max(found);
        });
        let start = found?;
        let name = pid.to_string();
        Some(self.series(|slot| {
            let life = ring.life(slot)?;
            (life.pid == pid && life.start == start).then_some(name.as_str())
        }))
    }

    /// Sums what each look says by the line that `line` names for a process's number.
    fn series<'n>(&self, line: impl Fn(u32) -> Option<&'n str>) -> Series {
        let looks = self.census.ring().ends().map_or(0, |(_, _, looks)| looks);
        let step = looks.div_ceil(POINTS_MAX).max(1);
        let mut series = Series::default();
        let mut names: Vec<&'n str> = Vec::new();
        let mut seen = 0;
        let mut missed = 0;
        self.census.ring().walk(|look: &Look, state| {
            seen += 1;
            missed += look.missed;
            // Counted from the end, so that the latest look is always there.
            if !(looks - seen).is_multiple_of(step) {
                return;
            }
            let point = series.at.len();
            series.at.push(seconds(look.wall_ms));
            series.short_lived.push(std::mem::take(&mut missed));
            let mut sums: Vec<Option<(u64, u64)>> = vec![None; names.len()];
            for (slot, now) in state.living() {
                let Some(name) = line(slot) else { continue };
                let at = names
                    .iter()
                    .position(|known| *known == name)
                    .unwrap_or_else(|| {
                        names.push(name);
                        sums.push(None);
                        names.len() - 1
                    });
                let (ticks, pages) = sums[at].unwrap_or_default();
                let Now {
                    ticks: own,
                    short,
                    rss,
                    ..
                } = *now;
                sums[at] = Some((
                    ticks + u64::from(own) + u64::from(short),
                    pages + u64::from(rss),
                ));
            }
            series.lines.resize_with(names.len(), Line::default);
            for (line, sum) in series.lines.iter_mut().zip(&sums) {
                line.cpu_percent.resize(point, None);
                line.memory_bytes.resize(point, None);
                line.cpu_percent
                    .push(sum.and_then(|(ticks, _)| self.percent(ticks, look.elapsed_ms)));
                line.memory_bytes
                    .push(sum.map(|(_, pages)| pages * self.units.page_bytes));
            }
        });
        for (line, name) in series.lines.iter_mut().zip(names) {
            line.name = name.to_owned();
        }
        series
            .lines
            .sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)));
        series.history = Some(self.history());
        series
    }
}
