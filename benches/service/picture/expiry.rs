//! Statements per second and p99 across an expiry, naive beside Seawall, one below the other on one axis of time.

use std::path::Path;

use plotters::prelude::*;

use super::super::expiry::{BUCKET, Bucket, CLIENTS, RATE, TTL};
use super::super::report::{grouped, quantile, sorted};
use super::super::shop::SLOW_SECONDS;
use super::{Area, Drawn, FONT, GRID, OURS, QUIET, THEIRS, sheet};

const SIZE: (u32, u32) = (960, 640);

pub fn draw(path: &Path, buckets: &[Bucket]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let how = format!(
        "{} requests/s by {CLIENTS} clients for one key; its query takes {:.0} ms. Buckets of {} ms; of each side the median run.",
        grouped(RATE),
        SLOW_SECONDS * 1e3,
        BUCKET.as_millis()
    );
    let rest = sheet(&root, "What do Postgres and users notice when a hot key expires?", &how)?;
    let (above, below) = rest.split_vertically(275);
    let lines = [("naive cache", THEIRS, typical(buckets, "naive")), ("Seawall", OURS, typical(buckets, "Seawall"))];
    let end = buckets.iter().map(|bucket| bucket.at_ms).fold(0.0, f64::max) / 1e3 + BUCKET.as_secs_f64();

    let most = buckets.iter().map(|bucket| bucket.statements_per_second).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&above)
        .set_label_area_size(LabelAreaPosition::Left, 80)
        .set_label_area_size(LabelAreaPosition::Bottom, 24)
        .margin_right(16)
        .build_cartesian_2d(0.0..end, 0.0..most * 1.15)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.mix(0.5))
        .y_desc("statements/s in Postgres")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_label_formatter(&|x| format!("{x:.1}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    chart.draw_series(DashedLineSeries::new(
        [(TTL.as_secs_f64(), 0.0), (TTL.as_secs_f64(), most * 1.15)],
        4,
        4,
        QUIET.into(),
    ))?;
    for (name, colour, run) in &lines {
        let points = run.iter().map(|bucket| (middle(bucket), bucket.statements_per_second));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)))?
            .label(format!("{name}: {} statements", grouped(total(run))))
            .legend(legend(*colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font((FONT, 15))
        .draw()?;
    draw_latency(&below, &lines, end)?;
    root.present()?;
    Ok(())
}

fn draw_latency(area: &Area<'_>, lines: &[(&str, RGBColor, Vec<&Bucket>); 2], end: f64) -> Drawn {
    let (least, most) = (0.1, 10_000.0);
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, 80)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .margin_right(16)
        .margin_top(12)
        .build_cartesian_2d(0.0..end, (least..most).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.mix(0.5))
        .x_desc("seconds since the fill (dashed: the ttl ends)")
        .y_desc("p99 of the answers, ms (log)")
        .y_labels(6)
        .y_label_formatter(&|y| if *y < 1.0 { format!("{y:.1}") } else { format!("{y:.0}") })
        .x_label_formatter(&|x| format!("{x:.1}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    chart.draw_series(DashedLineSeries::new(
        [(TTL.as_secs_f64(), least), (TTL.as_secs_f64(), most)],
        4,
        4,
        QUIET.into(),
    ))?;
    for (_, colour, run) in lines {
        let points = run.iter().map(|bucket| (middle(bucket), bucket.p99_ms));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(3)))?;
    }
    Ok(())
}

fn legend(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
}

/// Where on the axis of time a bucket stands, in seconds.
fn middle(bucket: &Bucket) -> f64 {
    (bucket.at_ms / 1e3) + BUCKET.as_secs_f64() / 2.0
}

fn total(run: &[&Bucket]) -> f64 {
    run.iter().map(|bucket| bucket.statements).sum()
}

/// The run of `server` whose worst p99 is the median of its runs'.
fn typical<'a>(buckets: &'a [Bucket], server: &str) -> Vec<&'a Bucket> {
    let of = |run: u32| buckets.iter().filter(move |b| b.server == server && b.run == run);
    let worst = |run: u32| of(run).map(|bucket| bucket.p99_ms).fold(0.0, f64::max);
    let runs = 1..=buckets.iter().map(|bucket| bucket.run).max().unwrap_or(0);
    let median = quantile(&sorted(runs.clone().map(worst)), 0.5);
    runs.into_iter()
        .find(|run| worst(*run) >= median && worst(*run) <= median)
        .map(|run| of(run).collect())
        .unwrap_or_default()
}
