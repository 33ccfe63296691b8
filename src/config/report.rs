use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// One thing that is wrong, where it stands, and one sentence on what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the file; `None` where nothing in the file is to blame.
    pub span: Option<Range<usize>>,
    pub what: String,
    pub hint: String,
}

impl Mistake {
    pub fn at(span: Range<usize>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { span: Some(span), what: what.into(), hint: hint.into() }
    }

    pub fn nowhere(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { span: None, what: what.into(), hint: hint.into() }
    }
}

/// Everything that is wrong with one file, in the order of the file. The caller exits with 78 (`EX_CONFIG`).
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    path: PathBuf,
    text: String,
    mistakes: Vec<Mistake>,
}

impl Report {
    pub(super) fn new(path: &Path, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|m| m.span.as_ref().map_or(usize::MAX, |s| s.start));
        Self { path: path.to_owned(), text: text.to_owned(), mistakes }
    }

    /// At least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// `stockade.toml:5:15: what`, the mistakes parted by semicolons: one line for the log and the audit trail.
    pub fn line(&self) -> String {
        let one = |mistake: &Mistake| match &mistake.span {
            Some(span) => {
                let (line, column) = self.place(span.start);
                format!("{}:{line}:{column}: {}", self.path.display(), mistake.what)
            }
            None => format!("{}: {}", self.path.display(), mistake.what),
        };
        let line = self.mistakes.iter().map(one).collect::<Vec<_>>().join("; ");
        line.replace(char::is_control, " ")
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    fn group<'a>(&'a self, path: &'a str, mistake: &'a Mistake) -> Group<'a> {
        let title = Level::ERROR.primary_title(mistake.what.as_str());
        let hint = Level::HELP.with_name("hint").message(mistake.hint.as_str());
        match &mistake.span {
            Some(span) => title
                .element(
                    Snippet::source(self.text.as_str())
                        .path(path)
                        .annotation(AnnotationKind::Primary.span(self.visible(span))),
                )
                .element(hint),
            None => title.element(Origin::path(path)).element(hint),
        }
    }

    /// Cut at the first line's end, so that a long list is not shown whole; never empty, so that the caret is seen.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        let rest = self.text.get(start..span.end.min(self.text.len())).unwrap_or_default();
        start..start + rest.find('\n').unwrap_or(rest.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (renderer, path) = (Renderer::plain(), self.path.display().to_string());
        for mistake in &self.mistakes {
            let shown = renderer.render(&[self.group(&path, mistake)]);
            // The renderer leaves those of U+0080 to U+009F, which a terminal obeys too.
            writeln!(f, "{}\n", shown.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}"))?;
        }
        match self.mistakes.len() {
            1 => write!(f, "{path}: 1 mistake"),
            many => write!(f, "{path}: {many} mistakes"),
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}
