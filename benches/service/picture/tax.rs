//! What writers pay: transactions a second by number of writers, a bar for each variant, a panel for each kind of flush.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::full_palette::{BLUE_200, BLUE_400, GREY_500, GREY_700};

use super::super::tax::Bar;
use super::{Area, Drawn, FONT, GRID, OURS, THEIRS, sheet};

const SIZE: (u32, u32) = (1080, 460);

/// In the order in which they were measured.
const COLOURS: [RGBColor; 6] = [GREY_500, THEIRS, OURS, BLUE_200, BLUE_400, GREY_700];

pub fn draw(path: &Path, bars: &[Bar]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let rest = sheet(
        &root,
        "What does a write cost more than without Seawall?",
        "Transactions a second that update one row each, by number of writers, fsync on; left with this disk's flush, right 1 ms slower.",
    )?;
    let distinct = |of: fn(&Bar) -> &String| {
        let mut names: Vec<&String> = vec![];
        for name in bars.iter().map(of) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    };
    let (flushes, variants) = (distinct(|bar| &bar.flush), distinct(|bar| &bar.variant));
    for (place, (panel, flush)) in rest.split_evenly((1, 2)).iter().zip(flushes).enumerate() {
        let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.flush == *flush).collect();
        draw_panel(panel, &bars, &variants, place == 1)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, bars: &[&Bar], variants: &[&String], with_legend: bool) -> Drawn {
    let mut writers: Vec<u32> = bars.iter().map(|bar| bar.writers).collect();
    writers.sort_unstable();
    writers.dedup();
    let top = bars.iter().map(|bar| bar.per_second).fold(0.0, f64::max) * 1.35;
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .margin_right(18)
        .margin_top(8)
        .build_cartesian_2d(0.0..writers.len() as f64, 0.0..top)?;
    let labels = writers.clone();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.mix(0.5))
        .x_labels(0)
        .y_desc("transactions/s")
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    let width = 0.8 / variants.len() as f64;
    for (n, (variant, colour)) in variants.iter().zip(COLOURS).enumerate() {
        let own = bars.iter().filter(|bar| bar.variant == **variant);
        let rectangles = own.filter_map(|bar| {
            let group = labels.iter().position(|writers| *writers == bar.writers)?;
            let left = group as f64 + 0.1 + n as f64 * width;
            Some(Rectangle::new([(left, 0.0), (left + width * 0.92, bar.per_second)], colour.filled()))
        });
        chart
            .draw_series(rectangles)?
            .label(variant.as_str())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    let (_, height) = area.dim_in_pixel();
    for (group, writers) in writers.iter().enumerate() {
        let text = if *writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") };
        let (x, _) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
        let (left, _) = area.get_base_pixel();
        let y = i32::try_from(height).unwrap_or(0) - 34;
        let width = i32::try_from(text.len()).unwrap_or(0) * 4;
        area.draw_text(&text, &(FONT, 15).into_font().color(&BLACK), (x - left - width, y))?;
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
