//! Where results are kept and how they are put together: sections and raw figures in `target/bench/`, then one report of
//! them, then, when that is asked for, `docs/`.
//!
//! A section in `docs/performance.md` stands between two comments that name its question, so that a new measurement
//! replaces figures and leaves the prose around them alone.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// Words that ask for something other than a measurement.
pub const COMMANDS: [&str; 2] = ["pictures", "publish"];

/// The results' directory.
pub struct Report {
    dir: PathBuf,
}

impl Report {
    pub fn open() -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&dir).expect("a directory");
        Self { dir }
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// What an earlier run or this one wrote under that name.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The sections that there are, in one text, which is also written to `report.md`.
    pub fn compose(&self, questions: &[&str]) -> String {
        let mut whole = String::from("# Bench\n");
        for question in questions {
            if let Some(section) = self.read(&format!("{question}.md")) {
                let (first, rest) = question.split_at(1);
                let _ = write!(whole, "\n## {}{rest}\n\n{section}", first.to_uppercase());
            }
        }
        self.write("report.md", &whole);
        whole
    }

    /// Puts the sections and the pictures that there are into `docs/`.
    pub fn publish(&self, questions: &[&str]) {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
        let page = docs.join("performance.md");
        let mut text = fs::read_to_string(&page).expect("the page");
        for question in questions {
            let Some(section) = self.read(&format!("{question}.md")) else { continue };
            let (open, close) = (format!("<!-- bench: {question} -->\n"), format!("<!-- end: {question} -->"));
            let start = text.find(&open).expect("the page has a place for each question") + open.len();
            let end = start + text[start..].find(&close).expect("the place has an end");
            text.replace_range(start..end, &section);
        }
        fs::write(&page, text).expect("written");
        fs::create_dir_all(docs.join("performance")).expect("a directory");
        for question in questions {
            let picture = format!("{question}.svg");
            if self.path(&picture).exists() {
                fs::copy(self.path(&picture), docs.join("performance").join(&picture)).expect("copied");
            }
        }
        eprintln!("bench: {} has {} as last measured", page.display(), questions.join(", "));
    }
}

/// A table in Markdown: the first column to the left, numbers to the right.
pub fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let is_numeric = |n: usize| rows.iter().all(|row| row[n].replace(',', "").parse::<f64>().is_ok());
    let aligned: Vec<&str> = (0..head.len()).map(|n| if is_numeric(n) { "---:" } else { "---" }).collect();
    let mut text = format!("| {} |\n|{}|\n", head.join(" | "), aligned.join("|"));
    for row in &rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A whole number as it is written: 11,000.
pub fn grouped(number: impl Into<f64>) -> String {
    let digits = format!("{:.0}", number.into());
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).expect("digits")).collect::<Vec<_>>().join(",")
}

pub fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The share `q` of these sorted figures is no greater.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil().max(1.0);
    // A length in memory is far from where a double's integers end.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    sorted[rank as usize - 1]
}

pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    quantile(&sorted(figures.into_iter()), 0.5)
}
