//! The sections of the file as they are read: what was asked for, what is left over.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Mistake;
use super::value::{Parsed, Value, kind};

/// A setting: its value unless a mistake was noted, and where it stands unless it is the default.
pub(super) struct Field<T> {
    pub value: Option<T>,
    pub span: Option<Range<usize>>,
}

impl<T> Field<T> {
    /// A mistake at this setting, or at its section when the default is to blame.
    pub fn mistake(&self, what: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake { span: self.span.clone(), what: what.into(), hint: hint.into() }
    }
}

/// The file while it is being read.
pub(super) struct Reading<'i> {
    root: DeTable<'i>,
    known: Vec<(&'static str, Vec<&'static str>)>,
    left: Vec<(&'static str, String, Range<usize>)>,
    pub mistakes: Vec<Mistake>,
}

/// One section, taken out of the file.
pub(super) struct Section<'r, 'i> {
    name: &'static str,
    span: Option<Range<usize>>,
    table: DeTable<'i>,
    asked: Vec<&'static str>,
    reading: &'r mut Reading<'i>,
}

impl<'i> Reading<'i> {
    pub fn new(root: DeTable<'i>) -> Self {
        Self { root, known: Vec::new(), left: Vec::new(), mistakes: Vec::new() }
    }

    pub fn has(&self, section: &str) -> bool {
        self.root.iter().any(|(name, _)| name.get_ref() == section)
    }

    /// A section; empty if the file has none of this name.
    pub fn section(&mut self, name: &'static str) -> Section<'_, 'i> {
        let (table, span) = match take(&mut self.root, name) {
            None => (DeTable::new(), None),
            Some((_, value)) => {
                let span = value.span();
                match value.into_inner() {
                    DeValue::Table(table) => (table, Some(span)),
                    other => {
                        let what = format!("`{name}` is a section, found {}", kind(&other));
                        self.mistakes.push(Mistake::at(span, what, format!("write [{name}] on a line of its own")));
                        (DeTable::new(), None)
                    }
                }
            }
        };
        Section { name, span, table, asked: Vec::new(), reading: self }
    }

    /// Leaves sections to somebody else.
    pub fn leave(&mut self, names: &[&'static str]) {
        for name in names {
            drop(take(&mut self.root, name));
        }
    }

    /// Reports what nobody asked for; the last step.
    pub fn finish(mut self) -> Vec<Mistake> {
        let sections: Vec<&str> = self.known.iter().map(|(name, _)| *name).collect();
        // These are read only if they are there.
        let absent = ["aws", "rbac"].into_iter().filter(|name| !sections.contains(name));
        let sections: Vec<&str> = sections.iter().copied().chain(absent).collect();
        for (name, _) in self.root.iter() {
            let found = name.get_ref();
            let hint = match (nearest(found, sections.iter().copied()), self.home_of(found)) {
                (_, Some(section)) => format!("`{found}` belongs under [{section}]"),
                (Some(near), None) => format!("did you mean [{near}]?"),
                (None, None) => format!("the sections are {}", sections.join(", ")),
            };
            self.mistakes.push(Mistake::at(name.span(), format!("there is no section `{found}`"), hint));
        }
        for (section, found, span) in &self.left {
            let keys = self.known.iter().find(|(name, _)| name == section).map(|(_, keys)| keys.as_slice());
            let keys = keys.unwrap_or_default();
            let hint = match (nearest(found, keys.iter().copied()), self.home_of(found)) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(home)) => format!("`{found}` belongs under [{home}]"),
                (None, None) => format!("[{section}] knows {}", keys.join(", ")),
            };
            let what = format!("there is no setting `{found}` in [{section}]");
            self.mistakes.push(Mistake::at(span.clone(), what, hint));
        }
        self.mistakes
    }

    fn home_of(&self, key: &str) -> Option<&'static str> {
        self.known.iter().find(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name)
    }
}

impl Section<'_, '_> {
    /// A setting, or its default.
    pub fn or<T>(&mut self, key: &'static str, default: T, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Field<T> {
        match self.find(key, parse) {
            Some(field) => field,
            None => Field { value: Some(default), span: self.span.clone() },
        }
    }

    /// A setting that may be missing.
    pub fn maybe<T>(&mut self, key: &'static str, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Field<Option<T>> {
        match self.find(key, parse) {
            Some(field) => Field { value: field.value.map(Some), span: field.span },
            None => Field { value: Some(None), span: self.span.clone() },
        }
    }

    /// A setting that must be there.
    pub fn must<T>(&mut self, key: &'static str, example: &str, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Field<T> {
        if let Some(field) = self.find(key, parse) {
            return field;
        }
        let hint = match self.span {
            Some(_) => format!("add {key} = {example}"),
            None => format!("add [{}] and under it {key} = {example}", self.name),
        };
        let what = format!("`{key}` is missing from [{}]", self.name);
        self.reading.mistakes.push(Mistake { span: self.span.clone(), what, hint });
        Field { value: None, span: self.span.clone() }
    }

    /// A setting whose default must be looked up, and may not be there: what is wrong then, and the hint.
    pub fn or_found<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value<'_>) -> Parsed<T>,
        default: impl FnOnce() -> Result<T, (String, String)>,
    ) -> Field<T> {
        if let Some(field) = self.find(key, parse) {
            return field;
        }
        let value = match default() {
            Ok(value) => Some(value),
            Err((what, hint)) => {
                let what = format!("`{key}` in [{}]: {what}", self.name);
                self.reading.mistakes.push(Mistake { span: self.span.clone(), what, hint });
                None
            }
        };
        Field { value, span: self.span.clone() }
    }

    /// The section is read: whatever is left in it is unknown.
    pub fn close(self) {
        let left = self.table.iter().map(|(key, _)| (self.name, key.get_ref().to_string(), key.span()));
        self.reading.left.extend(left);
        self.reading.known.push((self.name, self.asked));
    }

    fn find<T>(&mut self, key: &'static str, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Option<Field<T>> {
        self.asked.push(key);
        let (_, value) = take(&mut self.table, key)?;
        let span = Some(value.span());
        let value = match parse(&value) {
            Ok(value) => Some(value),
            Err(mistakes) => {
                let named = mistakes.into_iter().map(|m| Mistake { what: format!("`{key}`: {}", m.what), ..m });
                self.reading.mistakes.extend(named);
                None
            }
        };
        Some(Field { value, span })
    }
}

fn take<'i>(table: &mut DeTable<'i>, key: &str) -> Option<(Spanned<toml::de::DeString<'i>>, Value<'i>)> {
    let name = table.keys().find(|name| name.get_ref() == key)?.clone();
    table.remove_entry(&name)
}

/// The nearest of the known words, if it is near enough to be meant.
pub(super) fn nearest<'k>(found: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let near = known.map(|word| (distance(found, word), word)).min_by_key(|(distance, _)| *distance)?;
    (near.0 <= 1 + found.chars().count() / 4).then_some(near.1)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((j, y), window) in b.iter().enumerate().zip(row.windows(2)) {
            let [diagonal, above] = *window else { continue };
            let left = next.get(j).copied().unwrap_or(i);
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
