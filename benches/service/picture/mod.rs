//! The pictures in `docs/performance.md`, drawn from the raw figures: black on white, so that a dark page shows them as a
//! card, in colours that differ in lightness too.

mod cost;
mod expiry;
mod tax;

use plotters::prelude::*;
use plotters::style::full_palette::{BLUE_700, GREY_400, GREY_700, ORANGE_800};

use super::report::Report;

const OURS: RGBColor = BLUE_700;
const THEIRS: RGBColor = ORANGE_800;
const GRID: RGBColor = GREY_400;
const QUIET: RGBColor = GREY_700;
const FONT: &str = "sans-serif";

/// Draws what has been measured; leaves alone what hasn't.
pub fn draw_all(report: &Report) {
    if let Some(raw) = report.read(super::expiry::CSV) {
        expiry::draw(&report.path("expiry.svg"), &super::expiry::Bucket::read_all(&raw)).expect("drawn");
    }
    if let Some(raw) = report.read(super::tax::CSV) {
        tax::draw(&report.path("tax.svg"), &super::tax::Bar::read_all(&raw)).expect("drawn");
    }
    if let Some(raw) = report.read(super::cost::CSV) {
        cost::draw(&report.path("cost.svg"), &super::cost::Point::read_all(&raw)).expect("drawn");
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A white sheet with the question on top and what was asked in smaller letters below it; the rest is given back.
fn sheet<'a>(root: &Area<'a>, question: &str, how: &str) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    root.draw_text(question, &(FONT, 22).into_font().color(&BLACK), (16, 14))?;
    root.draw_text(how, &(FONT, 14).into_font().color(&QUIET), (16, 44))?;
    Ok(root.margin(66, 8, 8, 16))
}
