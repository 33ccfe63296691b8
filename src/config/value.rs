//! One value of the file: its kind, its bounds, and the sentence when it is something else.

use std::ops::{Range, RangeInclusive};
use std::path::{Component, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::read::nearest;
use super::report::Mistake;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;
pub(super) type Parsed<T> = Result<T, Vec<Mistake>>;

pub(super) fn wrong<T>(value: &Value<'_>, what: impl Into<String>, hint: impl Into<String>) -> Parsed<T> {
    Err(vec![Mistake::at(value.span(), what, hint)])
}

pub(super) fn text(value: &Value<'_>) -> Parsed<String> {
    match value.get_ref() {
        DeValue::String(text) if text.contains('\0') => wrong(value, "a NUL is in the text", "remove it"),
        DeValue::String(text) => Ok(text.to_string()),
        other => wrong(value, format!("expected text, found {}", kind(other)), "put the value in double quotes"),
    }
}

pub(super) fn flag(value: &Value<'_>) -> Parsed<bool> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Ok(*flag),
        other => {
            wrong(value, format!("expected true or false, found {}", kind(other)), "write true or false, no quotes")
        }
    }
}

pub(super) fn whole(within: RangeInclusive<u32>) -> impl Fn(&Value<'_>) -> Parsed<u32> {
    move |value| {
        let bounds = format!("write a number from {} to {}, no quotes", within.start(), within.end());
        let DeValue::Integer(number) = value.get_ref() else {
            return wrong(value, format!("expected a whole number, found {}", kind(value.get_ref())), bounds);
        };
        match i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok()) {
            Some(n) if within.contains(&n) => Ok(n),
            _ => wrong(value, format!("{number} is out of bounds"), bounds),
        }
    }
}

pub(super) fn cpus(value: &Value<'_>) -> Parsed<f64> {
    const HINT: &str = "write how many CPUs a jail may use, from 0.01 to 1024: 2.0";
    let number = match value.get_ref() {
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Float(number) => number.as_str().parse().ok(),
        other => return wrong(value, format!("expected a number, found {}", kind(other)), HINT),
    };
    match number {
        Some(n) if (0.01..=1024.0).contains(&n) => Ok(n),
        _ => wrong(value, "the number of CPUs is out of bounds", HINT),
    }
}

pub(super) fn duration(within: RangeInclusive<Duration>) -> impl Fn(&Value<'_>) -> Parsed<Duration> {
    const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    move |value| match measure(value, &UNITS).map(Duration::from_secs) {
        None => wrong(value, "not a duration", "write a whole number and s, m, h or d: \"30s\", \"5m\", \"24h\""),
        Some(found) if within.contains(&found) => Ok(found),
        Some(_) => wrong(
            value,
            "the duration is out of bounds",
            format!("write one from {} to {}", spoken(*within.start()), spoken(*within.end())),
        ),
    }
}

pub(super) fn size(within: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Parsed<u64> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    move |value| match measure(value, &UNITS) {
        None => wrong(value, "not a size", "write a whole number and KiB, MiB, GiB or TiB: \"64MiB\", \"1GiB\""),
        Some(found) if within.contains(&found) => Ok(found),
        Some(_) => wrong(
            value,
            "the size is out of bounds",
            format!("write one from {}MiB to {}GiB", within.start() >> 20, within.end() >> 30),
        ),
    }
}

/// `"30s"`: a number and its unit, nothing between them, or one space.
fn measure(value: &Value<'_>, units: &[(&str, u64)]) -> Option<u64> {
    let DeValue::String(text) = value.get_ref() else { return None };
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.strip_prefix(' ').unwrap_or(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The shortest way to write a duration.
pub(super) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, scale) in [("d", 86400), ("h", 3600), ("m", 60)] {
        if seconds >= scale && seconds.is_multiple_of(scale) {
            return format!("{}{unit}", seconds / scale);
        }
    }
    format!("{seconds}s")
}

pub(super) fn choice<T: Copy>(names: &'static [(&'static str, T)]) -> impl Fn(&Value<'_>) -> Parsed<T> {
    move |value| {
        let known: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let hint = format!("write {}", known.join(" or "));
        let DeValue::String(found) = value.get_ref() else {
            return wrong(value, format!("expected text, found {}", kind(value.get_ref())), hint);
        };
        match names.iter().find(|(name, _)| name == found) {
            Some((_, chosen)) => Ok(*chosen),
            None => wrong(value, format!("'{found}' is not one of the choices"), hint),
        }
    }
}

/// An absolute path without `..`: what a role holds must not hang on the directory it was started in.
pub(super) fn path(value: &Value<'_>) -> Parsed<PathBuf> {
    let path = PathBuf::from(text(value)?);
    if !path.is_absolute() {
        return wrong(value, format!("'{}' is not an absolute path", path.display()), "begin it with /");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return wrong(value, "`..` is in the path", "write the path without it");
    }
    Ok(path)
}

/// Text that a type can be made of.
pub(super) fn read<T>(hint: &'static str) -> impl Fn(&Value<'_>) -> Parsed<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    move |value| {
        let found = text(value)?;
        found.parse().or_else(|error| wrong(value, format!("'{found}': {error}"), hint))
    }
}

/// A list; every wrong item is reported.
pub(super) fn list<T>(item: impl Fn(&Value<'_>) -> Parsed<T>) -> impl Fn(&Value<'_>) -> Parsed<Vec<T>> {
    move |value| {
        let items = items(value)?;
        let (mut good, mut mistakes) = (Vec::new(), Vec::new());
        for found in items.iter() {
            match item(found) {
                Ok(one) => good.push(one),
                Err(more) => mistakes.extend(more),
            }
        }
        if mistakes.is_empty() { Ok(good) } else { Err(mistakes) }
    }
}

fn items<'v, 'i>(value: &'v Value<'i>) -> Parsed<&'v DeArray<'i>> {
    match value.get_ref() {
        DeValue::Array(items) => Ok(items),
        other => {
            wrong(value, format!("expected a list, found {}", kind(other)), "put it in square brackets: [\"...\"]")
        }
    }
}

/// A table from names to what `item` reads; every wrong one is reported.
pub(super) fn map<T>(
    item: impl Fn(&str, &Value<'_>) -> Parsed<T>,
) -> impl Fn(&Value<'_>) -> Parsed<std::collections::BTreeMap<String, T>> {
    move |value| {
        let (mut good, mut mistakes) = (std::collections::BTreeMap::new(), Vec::new());
        for (name, found) in table(value)?.iter() {
            match item(name.get_ref(), found) {
                Ok(one) => drop(good.insert(name.get_ref().to_string(), one)),
                Err(more) => mistakes.extend(more),
            }
        }
        if mistakes.is_empty() { Ok(good) } else { Err(mistakes) }
    }
}

fn table<'v, 'i>(value: &'v Value<'i>) -> Parsed<&'v DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        other => wrong(value, format!("expected a table, found {}", kind(other)), "put it in braces: { name = ... }"),
    }
}

/// A table that is an item of a list: every setting is asked for, what nobody asked for is a mistake.
pub(super) struct Fields<'v, 'i> {
    table: &'v DeTable<'i>,
    span: Range<usize>,
    what: &'static str,
    asked: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

impl<'v, 'i> Fields<'v, 'i> {
    pub fn of(value: &'v Value<'i>, what: &'static str) -> Parsed<Self> {
        Ok(Self { table: table(value)?, span: value.span(), what, asked: Vec::new(), mistakes: Vec::new() })
    }

    /// A setting, or its default; the default too where a mistake was noted.
    pub fn or<T>(&mut self, key: &'static str, default: T, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> T {
        self.asked.push(key);
        let Some((_, value)) = self.table.iter().find(|(name, _)| name.get_ref() == key) else { return default };
        match parse(value) {
            Ok(value) => value,
            Err(mistakes) => {
                let named = mistakes.into_iter().map(|m| Mistake { what: format!("`{key}`: {}", m.what), ..m });
                self.mistakes.extend(named);
                default
            }
        }
    }

    /// A setting that may be missing.
    pub fn maybe<T>(&mut self, key: &'static str, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Option<T> {
        self.or(key, None, |value| parse(value).map(Some))
    }

    /// A setting that must be there; `None` where a mistake was noted.
    pub fn must<T>(&mut self, key: &'static str, example: &str, parse: impl Fn(&Value<'_>) -> Parsed<T>) -> Option<T> {
        if !self.table.iter().any(|(name, _)| name.get_ref() == key) {
            let what = format!("`{key}` is missing from {}", self.what);
            self.mistakes.push(Mistake::at(self.span.clone(), what, format!("add {key} = {example}")));
        }
        self.maybe(key, parse)
    }

    pub fn close(mut self) -> Parsed<()> {
        for (key, _) in self.table.iter().filter(|(key, _)| !self.asked.contains(&key.get_ref().as_ref())) {
            let found = key.get_ref();
            let hint = match nearest(found, self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} knows {}", self.what, self.asked.join(", ")),
            };
            let what = format!("there is no setting `{found}` in {}", self.what);
            self.mistakes.push(Mistake::at(key.span(), what, hint));
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
