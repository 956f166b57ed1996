//! The cost of a hit against keys stored, parameters and body size: CPU above, p50 below, from zero.

use std::path::Path;

use plotters::prelude::*;

use super::super::cost::{Point, VARIED};
use super::{Area, Drawn, FONT, GRID, OURS, THEIRS, sheet};

const SIZE: (u32, u32) = (1080, 640);

/// What is on an axis, and how far it reaches, in powers of this base.
const BASES: [f64; 3] = [10.0, 2.0, 10.0];
const COLOURS: [(&str, RGBColor); 2] = [("bare hyper", THEIRS), ("Seawall", OURS)];

/// What is drawn of a point.
type Figure = fn(&Point) -> f64;

pub fn draw(path: &Path, points: &[Point]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let rest = sheet(
        &root,
        "What does the cost of a hit grow with?",
        "Server CPU per request under 64 connections, and the p50 of single requests; one thing varied at a time.",
    )?;
    let figures: [(&str, Figure); 2] =
        [("server CPU, µs/request", |point| point.cpu_us), ("p50, µs", |point| point.p50_us)];
    for ((row, panels), (name, figure)) in rest.split_evenly((2, 1)).iter().enumerate().zip(figures) {
        for ((panel, varied), base) in panels.split_evenly((1, 3)).iter().zip(VARIED).zip(BASES) {
            // Keys and parameters are small costs, to be compared; a body of 100 kB would dwarf them.
            let alike = |point: &&Point| (point.varied == VARIED[2]) == (varied == VARIED[2]);
            let top = points.iter().filter(alike).map(figure).fold(0.0, f64::max) * 1.25;
            let points: Vec<&Point> = points.iter().filter(|point| point.varied == varied).collect();
            if !points.is_empty() {
                let y = if varied == VARIED[0] { name } else { "" };
                draw_panel(panel, &points, (varied, base), (y, top), figure, row == 0 && varied == VARIED[2])?;
            }
        }
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    area: &Area<'_>,
    points: &[&Point],
    (varied, base): (&str, f64),
    (y, top): (&str, f64),
    figure: Figure,
    with_legend: bool,
) -> Drawn {
    let values = |f: fn(f64, f64) -> f64, from| points.iter().map(|point| point.value).fold(from, f);
    let (least, most) = (values(f64::min, f64::INFINITY), values(f64::max, 0.0));
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, 62)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .margin_right(18)
        .margin_top(8)
        .build_cartesian_2d((least..most * 1.001).log_scale().base(base), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.mix(0.5))
        .x_desc(varied)
        .y_desc(y)
        .y_labels(5)
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for (server, colour) in COLOURS {
        let line: Vec<(f64, f64)> =
            points.iter().filter(|point| point.server == server).map(|point| (point.value, figure(point))).collect();
        if line.is_empty() {
            continue;
        }
        chart.draw_series(line.iter().map(|at| Circle::new(*at, 4, colour.filled())))?;
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(3)))?
            .label(server)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    if with_legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(GRID)
            .label_font((FONT, 14))
            .draw()?;
    }
    Ok(())
}

fn thousands(x: f64) -> String {
    match x.round() {
        x if x >= 1e6 => format!("{:.0}M", x / 1e6),
        x if x >= 1e3 => format!("{:.0}k", x / 1e3),
        x => format!("{x:.0}"),
    }
}
